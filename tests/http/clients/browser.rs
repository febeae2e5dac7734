//! Chromium without a window: what a page's `fetch` sees of the layer.

use crate::programs::start;
use crate::site::Site;

/// The page is of one origin, and calls a site of another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs chromium: run .ci/clients.sh"]
async fn a_page_sees_a_504_inside_of_cors_and_its_abort_is_seen() {
    let (pages, api) = (Site::start().await, Site::start().await);
    let profile = std::env::temp_dir().join(format!("errgroup-chromium-{}", std::process::id()));
    let profile_option = format!("--user-data-dir={}", profile.display());
    let url = format!("{}?api={}", pages.url("/page"), api.url(""));
    let mut browser = start(
        "chromium",
        &[
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-proxy-server",
            "--remote-debugging-port=0",
            &profile_option,
            &url,
        ],
    );
    pages.log.until("reported", 1).await;
    api.log.until("handler: client gone", 1).await;
    browser.kill().await.unwrap();
    drop(std::fs::remove_dir_all(profile));

    let report = pages.log.events("report:");
    let expected = [
        "report: 504 of a layer inside of CORS: status 504",
        "report: 504 of a layer outside of CORS: TypeError",
        "report: aborted: AbortError",
    ];
    assert_eq!(report, expected);
}
