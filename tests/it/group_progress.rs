//! Tasks that have started make progress, whatever is paused, dropped or stopped around them.

use std::sync::mpsc;

use errgroup::{Context, Ready, fetch_all};

use crate::group_support::*;

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

both_flavours! {
    a_task_that_awaits_a_handle_resumes_in_a_paused_group,
    start_at_a_limit_of_one_lends_until_its_task_is_ready,
    a_panic_of_an_unused_value_is_that_of_its_task,
    a_value_that_panics_in_its_drop_does_not_delay_the_next,
    a_ready_value_without_a_caller_is_dropped_in_its_task,
}

async fn a_task_that_awaits_a_handle_resumes_in_a_paused_group() {
    let (g, ctx) = group();
    let (gate, waits) = (Gate::new(), Count::default());
    let (gated, waiting) = (gate.clone(), waits.clone());
    let handle = g.spawn(async move {
        gated.pass().await;
        Ok(1)
    });
    g.go(async move {
        waiting.add();
        assert_eq!(handle.await.unwrap(), 1);
        Ok(())
    });
    until(|| waits.get() == 1).await;
    until(|| g.running() == 1).await;
    g.set_limit(0);
    gate.open();
    assert_eq!(in_time(g.wait()).await, OK);
    assert!(ctx.is_done());
}

async fn start_at_a_limit_of_one_lends_until_its_task_is_ready() {
    let g = limited(1);
    let spawner = g.spawner();
    g.go(async move {
        let helpers = spawner.clone();
        let ready = spawner.start(move |_, ready: Ready<u32>| async move {
            assert!(helpers.go(async { Ok(()) }).await.is_started());
            ready.ok(7);
            Ok(())
        });
        assert_eq!(ready.await, Ok(7));
        Ok(())
    });
    assert_eq!(in_time(g.wait()).await, OK);
}

/// A task that returns its value when the gate is open, after its handle was dropped. A value that
/// is ready before would be dropped with the handle, here.
fn spawn_without_a_handle(g: &G) -> Gate {
    let gate = Gate::new();
    let gated = gate.clone();
    drop(g.spawn(async move {
        gated.pass().await;
        Ok(PanicsOnDrop("a value"))
    }));
    gate
}

async fn a_panic_of_an_unused_value_is_that_of_its_task() {
    let (g, _ctx) = group();
    let gate = spawn_without_a_handle(&g);
    gate.open();
    assert_eq!(text(panic_of(g.wait()).await), "a value");
}

async fn a_value_that_panics_in_its_drop_does_not_delay_the_next() {
    let (g, ran) = (G::new(), Count::default());
    g.set_limit(1);
    let gate = spawn_without_a_handle(&g);
    for _ in 0..2 {
        let ran = ran.clone();
        g.go(async move {
            ran.add();
            Ok(())
        });
    }
    gate.open();
    assert_eq!(text(panic_of(in_time(g.wait())).await), "a value");
    assert_eq!(ran.get(), 2);
}

async fn a_ready_value_without_a_caller_is_dropped_in_its_task() {
    let (g, gate) = (G::new(), Gate::new());
    let gated = gate.clone();
    {
        let start = g.start(|_, ready| async move {
            gated.pass().await;
            ready.ok(PanicsOnDrop("ready"));
            Ok(())
        });
        let mut start = Box::pin(start);
        assert!(futures::poll!(&mut start).is_pending());
    }
    gate.open();
    assert_eq!(text(panic_of(in_time(g.wait())).await), "ready");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_searching_worker_does_not_wait_behind_one_that_blocks() {
    let late = Count::default();
    for _ in 0..100 {
        let lates = late.clone();
        let (g, _ctx) = group();
        let spawner = g.spawner();
        let (sender, receiver) = mpsc::channel();
        g.go(async move {
            spawner.go(async move {
                if receiver.recv_timeout(PATIENCE / 20).is_err() {
                    lates.add();
                }
                Ok(())
            });
            spawner.go(async move {
                let _ = sender.send(());
                Ok(())
            });
            Ok(())
        });
        assert_eq!(in_time(g.wait()).await, OK);
    }
    assert!(late.get() <= MOST_LATE, "{} of 100 rounds", late.get());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destructor_of_a_queued_task_does_not_delay_started_ones() {
    let late = Count::default();
    for _ in 0..100 {
        let (g, is_late) = (limited(1), late.clone());
        let (sender, receiver) = mpsc::channel::<()>();
        g.go(async move {
            let _ = sender.send(());
            Ok(())
        });
        let blocks = OnDrop(move || {
            if receiver.recv_timeout(PATIENCE / 20).is_err() {
                is_late.add();
            }
        });
        g.go(async move {
            let _blocks = blocks;
            Ok(())
        });
        g.cancel();
        // Either way: the second may have started just before.
        let _ = in_time(g.wait()).await;
    }
    assert!(late.get() <= MOST_LATE, "{} of 100 rounds", late.get());
}

#[test]
fn a_grace_on_a_runtime_without_a_timer_fails_the_group() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let message = runtime.block_on(async {
        let (g, _ctx) = G::with_context(Context::background());
        g.set_grace(SECOND);
        g.go(std::future::pending());
        g.cancel();
        text(panic_of(g.wait()).await)
    });
    assert!(message.contains("timer"), "{message}");
}

#[test]
fn a_deadline_on_a_runtime_without_a_timer_fails_groups_and_fan_outs() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let ctx = Context::background().with_timeout(SECOND);
    let of_group = runtime.block_on(async {
        let (g, _ctx) = G::with_context(&ctx);
        g.set_limit(0);
        g.go(std::future::pending());
        text(panic_of(g.wait()).await)
    });
    let of_fan_out = runtime.block_on(async {
        let item = async |_, _| std::future::pending::<Result<(), String>>().await;
        text(panic_of(fetch_all(&ctx, 3, 0..3, item)).await)
    });
    for message in [of_group, of_fan_out] {
        assert!(message.contains("timers are disabled"), "{message}");
    }
}
