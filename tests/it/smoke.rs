use errgroup::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::time::Duration;

type G = Group<String>;

#[tokio::test(start_paused = true)]
async fn basics() {
    let (g, ctx) = G::with_context(Context::background());
    g.set_limit(2);
    for i in 0..5u64 {
        g.go(async move {
            tokio::time::sleep(Duration::from_secs(i)).await;
            Ok(())
        });
    }
    assert_eq!((g.running(), g.queued()), (2, 3));
    g.wait().await.unwrap();
    assert!(ctx.is_done());
}

#[tokio::test(start_paused = true)]
async fn first_error_cancels() {
    let (g, _ctx) = G::with_context(Context::background());
    for i in 0..5u64 {
        g.go_with(move |ctx| async move {
            ctx.sleep(Duration::from_secs(i + 1)).await?;
            Err(format!("e{i}"))
        });
    }
    let ctx = g.context();
    assert_eq!(g.wait().await.unwrap_err(), "e0");
    assert_eq!(ctx.cause().unwrap().to_string(), "e0");
}

fn visit(
    s: Spawner<String>,
    depth: u32,
    n: Arc<AtomicUsize>,
) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
    Box::pin(async move {
        n.fetch_add(1, Relaxed);
        if depth > 0 {
            for _ in 0..2 {
                assert!(
                    s.go(visit(s.clone(), depth - 1, n.clone()))
                        .await
                        .is_started()
                );
            }
        }
        Ok(())
    })
}

#[tokio::test(start_paused = true)]
async fn nested_at_limit_one() {
    for limit in 1..5 {
        let (g, _ctx) = G::with_context(Context::background());
        g.set_limit(limit);
        let n = Arc::new(AtomicUsize::new(0));
        g.go(visit(g.spawner(), 8, n.clone()));
        g.wait().await.unwrap();
        assert_eq!(n.load(Relaxed), 511);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nested_multi() {
    for limit in 1..5 {
        let (g, _ctx) = G::with_context(Context::background());
        g.set_limit(limit);
        let n = Arc::new(AtomicUsize::new(0));
        g.go(visit(g.spawner(), 10, n.clone()));
        g.wait().await.unwrap();
        assert_eq!(n.load(Relaxed), 2047);
    }
}

#[tokio::test(start_paused = true)]
async fn deadline_with_queue() {
    let parent = Context::background().with_timeout(Duration::from_secs(1));
    let (g, ctx) = G::with_context(&parent);
    g.set_limit(1);
    let c = ctx.clone();
    g.go(async move {
        c.sleep(Duration::from_secs(5)).await?;
        Ok(())
    });
    let adm = g.go(async { Ok(()) });
    assert!(!adm.await.is_started());
    assert_eq!(g.wait().await.unwrap_err(), "context deadline exceeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fetch_multi() {
    let ctx = Context::background();
    for limit in [1, 3, 64, usize::MAX] {
        let v = fetch_all(&ctx, limit, 0..10_000u32, |_, i| async move {
            if i % 3 == 0 {
                tokio::task::yield_now().await
            }
            Ok::<_, String>(i)
        })
        .await
        .unwrap();
        assert!(v.into_iter().eq(0..10_000));
    }
    let e = fetch_all(&ctx, 64, 0u32.., |_, i| async move {
        if i == 5000 {
            return Err("boom".to_owned());
        }
        Ok(())
    })
    .await
    .unwrap_err();
    assert_eq!(e, "boom");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[should_panic(expected = "aua")]
async fn panics() {
    let (g, _) = {
        let (g, c) = G::with_context(Context::background());
        (g, c)
    };
    g.go(async { panic!("aua") });
    let _ = g.wait().await;
}

#[test]
fn runtime_shutdown() {
    let rt = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let g = {
        let _e = rt.enter();
        let g = G::new();
        g.set_limit(3);
        for _ in 0..1000 {
            g.go(std::future::pending());
        }
        g
    };
    drop(rt);
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let e = rt.block_on(g.wait()).unwrap_err();
    assert_eq!(e, "context cancelled");
}
