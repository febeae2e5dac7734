// The test of a program in GO.md: the caller leaves at its deadline, and `wait` waits for the work.

use std::sync::atomic::{AtomicBool, Ordering};

static FINISHED: AtomicBool = AtomicBool::new(false);

struct Doc(u64);

#[derive(Debug)]
struct Image(u64);

impl Doc {
    fn render(&self) -> Image {
        std::thread::sleep(std::time::Duration::from_millis(self.0));
        FINISHED.store(true, Ordering::Relaxed);
        Image(self.0)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn test() {
    let pool = errgroup::Group::new();
    let ctx = Context::background();
    assert_eq!(render(&ctx, &pool.spawner(), Doc(0)).await.unwrap().0, 0);

    FINISHED.store(false, Ordering::Relaxed);
    let ctx = ctx.with_timeout(std::time::Duration::from_millis(10));
    let error = render(&ctx, &pool.spawner(), Doc(200)).await.unwrap_err();
    assert_eq!(error.to_string(), "context deadline exceeded");
    assert!(!FINISHED.load(Ordering::Relaxed));
    pool.wait().await.unwrap();
    assert!(FINISHED.load(Ordering::Relaxed));
}
