//! curl, on HTTP/1.1 and HTTP/2.

use futures::future::join_all;
use rustix::process::Signal;

use crate::programs::{run, signal, start};
use crate::site::{LARGE, Site, TASKS};

const HTTP1: &str = "--http1.1";
const HTTP2: &str = "--http2-prior-knowledge";

/// The exit status of curl for a request that took too long.
const OPERATION_TIMED_OUT: i32 = 28;

/// Of 50 clients that give up after a second, each is seen by its handler and by every task of the
/// handler's group. A client that has given up before its request was read has no handler, and
/// does not count.
async fn fifty_clients_that_give_up(protocol: &str) {
    const CLIENTS: usize = 50;
    const AT_ONCE: usize = 25;
    let site = Site::start().await;
    let url = site.url("/work");
    let arguments = ["-sS", "--max-time", "1", protocol, &url];
    let mut clients = 0;
    while site.log.count("started") < CLIENTS {
        assert!(clients < 20 * CLIENTS, "no request is read within a second");
        clients += AT_ONCE;
        for client in join_all((0..AT_ONCE).map(|_| run("curl", &arguments))).await {
            assert_eq!(
                client.status.code(),
                Some(OPERATION_TIMED_OUT),
                "{client:?}"
            );
        }
    }
    // A request that is read late starts a handler even now.
    site.log
        .until_true(|log| {
            let started = log.count("started");
            log.count("handler: client gone") == started
                && log.count("task: client gone") == TASKS * started
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl: run .ci/clients.sh"]
async fn each_handler_sees_that_curl_gave_up_on_http1() {
    fifty_clients_that_give_up(HTTP1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl: run .ci/clients.sh"]
async fn each_handler_sees_that_curl_gave_up_on_http2() {
    fifty_clients_that_give_up(HTTP2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl: run .ci/clients.sh"]
async fn a_handler_sees_that_its_client_was_killed() {
    for protocol in [HTTP1, HTTP2] {
        let site = Site::start().await;
        let mut client = start("curl", &["-sS", protocol, &site.url("/work")]);
        site.log.until("started", 1).await;
        signal(&client, Signal::KILL);
        site.log.until("handler: client gone", 1).await;
        client.wait().await.unwrap();
    }
}

/// Its connection stays open, and only a ping that is not answered shows it. HTTP/1.1 has no pings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl: run .ci/clients.sh"]
async fn a_handler_sees_that_its_client_was_stopped() {
    let site = Site::start().await;
    let mut client = start("curl", &["-sS", HTTP2, &site.url("/work")]);
    site.log.until("started", 1).await;
    signal(&client, Signal::STOP);
    site.log.until("handler: client gone", 1).await;
    client.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl: run .ci/clients.sh"]
async fn a_slow_client_gets_the_whole_body() {
    for protocol in [HTTP1, HTTP2] {
        let site = Site::start().await;
        let url = site.url("/large");
        let slow = ["-sS", "--limit-rate", "1M", protocol, &url];
        let output = run("curl", &slow).await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stdout.len(), LARGE);
        site.log.until("large: request finished", 1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs curl: run .ci/clients.sh"]
async fn a_client_that_is_killed_in_the_body_is_gone() {
    for protocol in [HTTP1, HTTP2] {
        let site = Site::start().await;
        let url = site.url("/large");
        let mut client = start("curl", &["-sS", "--limit-rate", "10k", protocol, &url]);
        site.log.until("started", 1).await;
        signal(&client, Signal::KILL);
        site.log
            .until_true(|log| log.events("large:").len() == 1)
            .await;
        // A body that the kernel's buffers took as a whole is finished.
        let end = site.log.events("large:");
        assert!(
            end == ["large: client gone"] || end == ["large: request finished"],
            "{end:?}"
        );
        client.wait().await.unwrap();
    }
}
