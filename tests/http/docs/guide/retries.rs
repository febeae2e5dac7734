// The test of a program in GUIDE.md: the server answers the third attempt, or none.

use std::sync::atomic::{AtomicU32, Ordering};

static CALLS: AtomicU32 = AtomicU32::new(0);
static ANSWERED: AtomicU32 = AtomicU32::new(3);

async fn fetch() -> anyhow::Result<String> {
    let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    if call == ANSWERED.load(Ordering::Relaxed) {
        return Ok(format!("call {call}"));
    }
    anyhow::ensure!(call != 1, "refused");
    std::future::pending().await
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    let ctx = Context::background();
    // The first attempt is refused, the second has reached its own deadline.
    assert_eq!(load(&ctx).await.unwrap(), "call 3");

    ANSWERED.store(0, Ordering::Relaxed);
    CALLS.store(1, Ordering::Relaxed);
    let slow = load(&ctx).await.unwrap_err();
    assert_eq!(slow.to_string(), "context deadline exceeded");
    assert_eq!(CALLS.load(Ordering::Relaxed), 5);

    // Two seconds are enough for an attempt, a pause of a second, and a second attempt.
    CALLS.store(1, Ordering::Relaxed);
    let start = tokio::time::Instant::now();
    load(&ctx.with_timeout(Duration::from_millis(2_100))).await.unwrap_err();
    assert_eq!(start.elapsed(), Duration::from_millis(2_000));
    assert_eq!(CALLS.load(Ordering::Relaxed), 3);

    // The pause ends with the context.
    CALLS.store(0, Ordering::Relaxed);
    let (ctx, guard) = ctx.with_cancel();
    let start = tokio::time::Instant::now();
    let stop = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        guard.cancel();
    };
    let (stopped, ()) = tokio::join!(load(&ctx), stop);
    assert_eq!(stopped.unwrap_err().to_string(), "context cancelled");
    assert_eq!(start.elapsed(), Duration::from_millis(300));
    assert_eq!(CALLS.load(Ordering::Relaxed), 1);
}
