// The test of a program in GUIDE.md: 64 MiB are enough for two of three tasks at once, in two
// groups; and a task that waits ends with its context.

use std::time::Duration;

use errgroup::Context;
use tokio::time::{Instant, sleep};

async fn work(_: u32) -> anyhow::Result<()> {
    sleep(Duration::from_secs(1)).await;
    Ok(())
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    let parent = Context::background();
    let start = Instant::now();
    let (one, _ctx) = Group::with_context(&parent);
    let (two, _ctx) = Group::with_context(&parent);
    resize(&one, 30);
    resize(&two, 34);
    resize(&two, 10);
    one.wait().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    two.wait().await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(2));

    let _all = MEBIBYTES.acquire_many(64).await.unwrap();
    let (late, _ctx) = Group::with_context(&parent.with_timeout(Duration::from_secs(1)));
    resize(&late, 1);
    let error = late.wait().await.unwrap_err();
    assert_eq!(error.to_string(), "context deadline exceeded");
}
