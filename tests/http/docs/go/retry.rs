// The test of a program in GO.md: the server answers the second attempt, or fails it, or is slow.

use std::sync::atomic::{AtomicU32, Ordering};

static CALLS: AtomicU32 = AtomicU32::new(0);
static FAIL: AtomicU32 = AtomicU32::new(0);

async fn fetch() -> anyhow::Result<String> {
    let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    if call == FAIL.load(Ordering::Relaxed) {
        anyhow::bail!("not found");
    }
    let seconds = if call == 2 { 0 } else { 1 };
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    Ok(format!("call {call}"))
}

async fn calls(ctx: &Context, already: u32, fail: u32) -> (anyhow::Result<String>, u32) {
    CALLS.store(already, Ordering::Relaxed);
    FAIL.store(fail, Ordering::Relaxed);
    let result = fetch_with_retries(ctx).await;
    (result, CALLS.load(Ordering::Relaxed) - already)
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    let ctx = Context::background();
    let (second, attempts) = calls(&ctx, 0, 0).await;
    assert_eq!((second.unwrap().as_str(), attempts), ("call 2", 2));

    let (failed, attempts) = calls(&ctx, 0, 1).await;
    assert_eq!((failed.unwrap_err().to_string().as_str(), attempts), ("not found", 1));

    let (slow, attempts) = calls(&ctx, 2, 0).await;
    assert_eq!(slow.unwrap_err().to_string(), "context deadline exceeded");
    assert_eq!(attempts, 3);

    let (late, attempts) = calls(&ctx.with_timeout(Duration::from_millis(700)), 2, 0).await;
    assert_eq!(late.unwrap_err().to_string(), "context deadline exceeded");
    assert_eq!(attempts, 2);
}
