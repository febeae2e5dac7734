//! Readiness: `start` waits until the task reports that it is ready, and the task runs on.

use std::error::Error;
use std::time::Duration;

use errgroup::{Context, ContextError, Group, Ready};

use crate::group_support::*;

both_flavours![
    it_returns_the_ready_value_while_the_task_runs_on,
    the_task_is_given_the_context_of_the_group,
    a_started_task_keeps_its_permit,
    a_failure_before_ready_is_the_calls_error,
    a_failure_after_ready_is_the_groups,
    a_failure_right_after_ready_does_not_lose_the_value,
    ok_without_ready_is_a_context_error_with_that_cause,
    a_ready_that_was_dropped_waits_for_the_end_of_the_task,
    a_ready_may_be_passed_on,
    a_panic_before_ready_is_the_groups_and_this_call_fails,
    a_panic_in_the_closure_is_a_panic_before_ready,
    a_panic_after_ready_is_the_groups,
    nothing_starts_before_the_first_poll,
    dropped_before_ready_it_leaves_an_ordinary_task,
    dropped_while_queued_it_leaves_an_ordinary_task,
    dropped_when_the_task_was_ready_it_drops_the_value,
    in_a_cancelled_group_nothing_starts_and_the_call_fails,
    a_cancel_while_it_is_queued_fails_the_call,
    a_task_aborted_before_ready_is_the_calls_failure,
    the_spawner_of_an_ended_group_fails,
    it_waits_for_a_permit,
    at_limit_1_a_task_that_starts_a_sibling_lends_its_permit,
    in_a_new_group_it_does_the_same,
    the_future_is_send_and_does_not_borrow_the_group,
    dropped_in_the_poll_of_the_failure_it_leaves_it_to_the_group,
    dropped_after_the_failure_it_leaves_it_to_the_group,
    a_non_fatal_failure_that_it_leaves_cancels_nothing,
    dropped_after_a_cancel_while_queued_it_fails_the_group,
    dropped_after_its_task_was_aborted_it_fails_the_group,
    a_value_after_the_failure_is_dropped_and_hides_nothing,
    a_value_from_a_destructor_after_the_failure_hides_nothing,
    a_value_before_the_failure_leaves_the_failure_to_the_group,
    a_caller_that_is_leaked_does_not_hold_up_the_wait,
    a_caller_that_is_not_polled_leaves_its_failure_to_the_wait,
    a_caller_beside_the_wait_takes_its_failure_first,
    a_failure_of_a_dropped_start_is_listed_by_wait_all,
    many_callers_may_be_dropped_in_any_order,
];

fn anyhow_group() -> (Group<anyhow::Error>, Context) {
    Group::with_context(Context::background())
}

/// The cause that the context error `error` carries.
fn cause(error: &anyhow::Error) -> String {
    let error = error.downcast_ref::<ContextError>().unwrap();
    error.source().unwrap().to_string()
}

async fn it_returns_the_ready_value_while_the_task_runs_on() {
    let (g, ctx) = group();
    let (ended, context) = (Count::default(), ctx.clone());
    let counted = ended.clone();
    let port = g.start(|_, ready| async move {
        yields(5).await;
        ready.ok(8080);
        context.done().await;
        counted.add();
        Ok(())
    });
    assert_eq!(port.await, Ok(8080));
    assert!(!ctx.is_done());
    assert_eq!((g.running(), ended.get()), (1, 0));
    g.cancel();
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), 1);
}

async fn the_task_is_given_the_context_of_the_group() {
    for named in [false, true] {
        let (g, ctx) = group();
        let spawner = g.spawner();
        let server = async |ctx: Context, ready: Ready<Context>| {
            ready.ok(ctx.clone());
            ctx.done().await;
            Ok(())
        };
        let given = match named {
            true => g.named("server").start(server).await,
            false => spawner.start(server).await,
        };
        let given = given.unwrap();
        assert!(!given.is_done());
        g.cancel_with("stop");
        assert_eq!(given.cause().unwrap().to_string(), "stop");
        assert_eq!(ctx.cause().unwrap().to_string(), "stop");
        assert_eq!(g.wait().await, OK);
    }
}

async fn a_started_task_keeps_its_permit() {
    let g = limited(1);
    let started = g.start(|ctx, ready| async move {
        ready.ok(());
        ctx.done().await;
        Ok(())
    });
    assert_eq!(started.await, Ok(()));
    assert_eq!(g.running(), 1);
    let refused = g.try_go(async { Ok(()) });
    assert!(matches!(refused, Err(errgroup::TryGoError::Full(_))));
    g.cancel();
    assert_eq!(g.wait().await, OK);
}

async fn a_failure_before_ready_is_the_calls_error() {
    let (g, ctx) = group();
    let port = g.start(|_, ready: Ready<u16>| async move {
        let _ready = ready;
        yields(5).await;
        Err("address in use".to_owned())
    });
    assert_eq!(port.await.unwrap_err(), "address in use");
    assert!(!ctx.is_done());
    // The group still works.
    let second = g.start(|_, ready| async move {
        ready.ok(2);
        Ok(())
    });
    assert_eq!(second.await, Ok(2));
    assert_eq!(g.wait().await, OK);
}

async fn a_failure_after_ready_is_the_groups() {
    let (g, ctx) = group();
    let gate = Gate::new();
    let gated = gate.clone();
    let port = g.start(|_, ready| async move {
        ready.ok(8080);
        gated.pass().await;
        Err("reset".to_owned())
    });
    assert_eq!(port.await, Ok(8080));
    gate.open();
    ctx.done().await;
    assert_eq!(ctx.cause().unwrap().to_string(), "reset");
    assert_eq!(g.wait().await.unwrap_err(), "reset");
}

async fn a_failure_right_after_ready_does_not_lose_the_value() {
    for _ in 0..50 {
        let (g, _ctx) = group();
        let port = g.start(|_, ready| async move {
            ready.ok(8080);
            Err("reset".to_owned())
        });
        assert_eq!(port.await, Ok(8080));
        assert_eq!(g.wait().await.unwrap_err(), "reset");
    }
}

async fn ok_without_ready_is_a_context_error_with_that_cause() {
    let (g, ctx) = anyhow_group();
    let started = g.start(|_, ready: Ready<()>| async move {
        yields(3).await;
        drop(ready);
        Ok(())
    });
    let error = started.await.unwrap_err();
    let says = "the task finished without calling `Ready::ok`";
    assert_eq!(cause(&error), says);
    assert!(!ctx.is_done(), "it is not the group's failure");
    assert!(g.wait().await.is_ok());
}

async fn a_ready_that_was_dropped_waits_for_the_end_of_the_task() {
    let (g, gate) = (limited(1), Gate::new());
    let gated = gate.clone();
    let mut started = Box::pin(g.start(|_, ready: Ready<()>| async move {
        drop(ready);
        gated.pass().await;
        Err("late".to_owned())
    }));
    for _ in 0..20 {
        assert!(futures::poll!(&mut started).is_pending());
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(started.await.unwrap_err(), "late");
    assert_eq!(g.wait().await, OK);
}

async fn a_ready_may_be_passed_on() {
    let (g, _ctx) = group();
    let spawner = g.spawner();
    let started = g.start(|_, ready| async move {
        // The first task ends, and its sibling reports that. This is too late, unless the first one
        // waits.
        let sibling = spawner.spawn(async move {
            yields(5).await;
            ready.ok("by a sibling");
            Ok(())
        });
        Ok(sibling.await?)
    });
    assert_eq!(started.await, Ok("by a sibling"));
    assert_eq!(g.wait().await, OK);
}

async fn a_panic_before_ready_is_the_groups_and_this_call_fails() {
    let (g, ctx) = anyhow_group();
    let started = g.start(|_, ready: Ready<()>| async move {
        let _ready = ready;
        yields(3).await;
        panic!("a bug")
    });
    let error = started.await.unwrap_err();
    assert!(cause(&error).ends_with("panicked: a bug"), "{error:#}");
    assert!(ctx.is_done());
    assert_eq!(text(panic_of(g.wait()).await), "a bug");
}

async fn a_panic_in_the_closure_is_a_panic_before_ready() {
    let (g, _ctx) = anyhow_group();
    let started = g.start(
        |_, _: Ready<()>| -> std::future::Ready<anyhow::Result<()>> { panic!("in the closure") },
    );
    let error = started.await.unwrap_err();
    assert!(cause(&error).ends_with("panicked: in the closure"));
    assert_eq!(text(panic_of(g.wait()).await), "in the closure");
}

async fn a_panic_after_ready_is_the_groups() {
    let (g, _ctx) = group();
    let started = g.start(|_, ready| async move {
        ready.ok(1);
        tokio::task::yield_now().await;
        panic!("a bug")
    });
    assert_eq!(started.await, Ok(1));
    assert_eq!(text(panic_of(g.wait()).await), "a bug");
}

async fn nothing_starts_before_the_first_poll() {
    let (g, calls) = (limited(1), Count::default());
    let called = calls.clone();
    let started = g.start(move |_, ready| {
        called.add();
        async move {
            ready.ok(());
            Ok(())
        }
    });
    yields(20).await;
    assert_eq!((calls.get(), g.running(), g.queued()), (0, 0, 0));
    drop(started);
    yields(20).await;
    assert_eq!(calls.get(), 0);
    assert_eq!(g.wait().await, OK);
}

async fn dropped_before_ready_it_leaves_an_ordinary_task() {
    for (fails, says_ready) in [(false, false), (false, true), (true, false), (true, true)] {
        let (g, ctx) = group();
        let (gate, ended, value) = (Gate::new(), Count::default(), Count::default());
        let (gated, counted, dropped) = (gate.clone(), ended.clone(), value.clone());
        let mut started = Box::pin(g.start(move |_, ready| async move {
            gated.pass().await;
            let value = OnDrop(move || _ = dropped.add());
            match says_ready {
                true => ready.ok(value),
                false => drop((ready, value)),
            }
            counted.add();
            if fails {
                Err("boom".to_owned())
            } else {
                Ok(())
            }
        }));
        assert!(futures::poll!(&mut started).is_pending());
        yields(5).await;
        drop(started);
        yields(5).await;
        assert_eq!((g.running(), ended.get()), (1, 0), "it goes on");
        assert!(!ctx.is_done());
        gate.open();
        let result = g.wait().await;
        assert_eq!(result.is_err(), fails, "its failure is the group's");
        assert_eq!((ended.get(), value.get()), (1, 1));
    }
}

async fn dropped_while_queued_it_leaves_an_ordinary_task() {
    let (g, ran) = (limited(0), Count::default());
    let counted = ran.clone();
    let mut started = Box::pin(g.start(move |_, ready| async move {
        counted.add();
        ready.ok(());
        Err("boom".to_owned())
    }));
    assert!(futures::poll!(&mut started).is_pending());
    assert_eq!(g.queued(), 1);
    drop(started);
    assert_eq!(g.queued(), 1);
    g.set_limit(1);
    assert_eq!(g.wait().await.unwrap_err(), "boom");
    assert_eq!(ran.get(), 1);
}

async fn dropped_when_the_task_was_ready_it_drops_the_value() {
    let (g, dropped, gate) = (limited(1), Count::default(), Gate::new());
    let (counted, gated, said) = (dropped.clone(), gate.clone(), Count::default());
    let (says, say) = (said.clone(), Gate::new());
    let told = say.clone();
    let mut started = Box::pin(g.start(move |_, ready| async move {
        told.pass().await;
        ready.ok(OnDrop(move || _ = counted.add()));
        says.add();
        gated.pass().await;
        Err("boom".to_owned())
    }));
    assert!(futures::poll!(&mut started).is_pending());
    say.open();
    until(|| said.get() == 1).await;
    assert_eq!(dropped.get(), 0);
    drop(started);
    assert_eq!(dropped.get(), 1);
    gate.open();
    assert_eq!(g.wait().await.unwrap_err(), "boom");
}

async fn in_a_cancelled_group_nothing_starts_and_the_call_fails() {
    let (g, _ctx) = anyhow_group();
    let calls = Count::default();
    g.cancel_with("enough");
    let called = calls.clone();
    let started = g.start(move |_, ready| {
        called.add();
        async move {
            ready.ok(());
            Ok(())
        }
    });
    assert_eq!(cause(&started.await.unwrap_err()), "enough");
    assert_eq!(calls.get(), 0);
    assert!(
        g.wait().await.is_ok(),
        "the caller has already received the failure"
    );
}

async fn a_cancel_while_it_is_queued_fails_the_call() {
    let (g, _ctx) = anyhow_group();
    g.set_limit(0);
    let mut started = Box::pin(g.start(|_, ready| async move {
        ready.ok(());
        Ok(())
    }));
    assert!(futures::poll!(&mut started).is_pending());
    g.cancel_with("enough");
    assert_eq!(cause(&started.await.unwrap_err()), "enough");
    assert!(
        g.wait().await.is_ok(),
        "the caller has already received the failure"
    );
}

async fn a_task_aborted_before_ready_is_the_calls_failure() {
    for turns in [0, 1, 10] {
        let (g, _ctx) = anyhow_group();
        let probe = Probe::default();
        let never = probe.wrap(std::future::pending());
        let mut started = Box::pin(g.start(|_, ready: Ready<()>| async move {
            let _ready = ready;
            never.await
        }));
        assert!(futures::poll!(&mut started).is_pending());
        yields(turns).await;
        g.abort();
        assert_eq!(cause(&started.await.unwrap_err()), "the group was aborted");
        assert!(
            g.wait().await.is_ok(),
            "the caller has already received the failure"
        );
        probe.assert_all_dropped();
    }
}

async fn the_spawner_of_an_ended_group_fails() {
    for waits in [false, true] {
        let (g, _ctx) = anyhow_group();
        let (spawner, calls) = (g.spawner(), Count::default());
        match waits {
            true => assert!(g.wait().await.is_ok()),
            false => drop(g),
        }
        let called = calls.clone();
        let started = spawner.start(move |_, ready| {
            called.add();
            async move {
                ready.ok(());
                Ok(())
            }
        });
        assert_eq!(cause(&started.await.unwrap_err()), "the group was dropped");
        assert_eq!(calls.get(), 0);
    }
}

async fn it_waits_for_a_permit() {
    let (g, gate) = (limited(1), Gate::new());
    let gated = gate.clone();
    g.go(async move {
        gated.pass().await;
        Ok(())
    });
    let mut started = Box::pin(g.start(|_, ready| async move {
        ready.ok(1);
        Ok(())
    }));
    assert!(futures::poll!(&mut started).is_pending());
    yields(10).await;
    assert_eq!((g.running(), g.queued()), (1, 1));
    gate.open();
    assert_eq!(started.await, Ok(1));
    assert_eq!(g.wait().await, OK);
}

async fn at_limit_1_a_task_that_starts_a_sibling_lends_its_permit() {
    let (g, gauge) = (limited(1), Gauge::default());
    let (spawner, inner) = (g.spawner(), gauge.clone());
    let sum = g.spawn(async move {
        let mut sum = 0;
        for number in 0..5 {
            let gauge = inner.clone();
            sum += spawner
                .start(move |_, ready| async move {
                    let _alive = gauge.enter();
                    tokio::task::yield_now().await;
                    ready.ok(number);
                    yields(3).await;
                    Ok(())
                })
                .await?;
            let _alive = inner.enter();
            tokio::task::yield_now().await;
        }
        let fails = spawner.start(|_, _: Ready<()>| async { Err("refused".to_owned()) });
        assert_eq!(fails.await.unwrap_err(), "refused");
        Ok(sum)
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!((sum.take(), gauge.most()), (Some(10), 1));
}

async fn in_a_new_group_it_does_the_same() {
    let g = G::new();
    let fails = g.start(|_, _: Ready<()>| async { Err("refused".to_owned()) });
    assert_eq!(fails.await.unwrap_err(), "refused");
    let never = g.start(|_, _: Ready<()>| async { Ok(()) });
    assert_eq!(never.await.unwrap_err(), "context cancelled");
    let ready = g.start(|_, ready| async move {
        ready.ok(1);
        Ok(())
    });
    assert_eq!(ready.await, Ok(1));
    assert_eq!(g.wait().await, OK);

    let g = G::new();
    let panics = g.start(|_, ready: Ready<()>| async move {
        let _ready = ready;
        panic!("a bug")
    });
    assert_eq!(panics.await.unwrap_err(), "context cancelled");
    assert!(!g.context().is_done());
    assert_eq!(text(panic_of(g.wait()).await), "a bug");
}

async fn the_future_is_send_and_does_not_borrow_the_group() {
    let (g, gate) = (limited(1), Gate::new());
    let gated = gate.clone();
    let started = tokio::spawn(g.start(|_, ready| async move {
        gated.pass().await;
        ready.ok(vec![1]);
        Ok(())
    }));
    until(|| g.running() == 1).await;
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(started.await.unwrap(), Ok(vec![1]));
}

/// Polls a `start` whose task begins only then, so that its failure cannot come in that poll.
async fn begin<F: Future>(g: &G, started: &mut std::pin::Pin<Box<F>>) {
    g.set_limit(0);
    assert!(futures::poll!(started).is_pending());
    g.set_limit(None);
}

/// Waits until the task of a `start` that was polled has ended.
async fn until_ended(g: &G) {
    until(|| g.running() == 0 && g.queued() == 0).await;
    // Its destructor and its end follow.
    yields(20).await;
}

async fn dropped_in_the_poll_of_the_failure_it_leaves_it_to_the_group() {
    for _ in 0..50 {
        let (g, ctx) = group();
        let (shut_down, shutdown) = tokio::sync::oneshot::channel();
        let started = g.start(|_, _: Ready<()>| async move {
            let _ = shut_down.send(());
            Err("refused".to_owned())
        });
        let mut started = Box::pin(started);
        begin(&g, &mut started).await;
        // On one thread, the task fails in the same poll in which it lets the caller return.
        let taken = tokio::select! {
            biased;
            _ = shutdown => false,
            _ = &mut started => true,
        };
        drop(started);
        if taken {
            assert_eq!(g.wait().await, OK);
            continue;
        }
        ctx.done().await;
        assert_eq!(ctx.cause().unwrap().to_string(), "refused");
        assert_eq!(g.wait().await.unwrap_err(), "refused");
    }
}

async fn dropped_after_the_failure_it_leaves_it_to_the_group() {
    let (g, ctx) = group();
    let mut started = Box::pin(g.start(|_, _: Ready<()>| async { Err("refused".to_owned()) }));
    begin(&g, &mut started).await;
    until_ended(&g).await;
    assert!(!ctx.is_done(), "it is the call's, as long as there is one");
    // In another thread, as well as in another task.
    std::thread::spawn(move || drop(started)).join().unwrap();
    assert_eq!(ctx.cause().unwrap().to_string(), "refused");
    assert_eq!(g.wait().await.unwrap_err(), "refused");
}

async fn dropped_after_a_cancel_while_queued_it_fails_the_group() {
    let (g, calls) = (limited(0), Count::default());
    let called = calls.clone();
    let mut started = Box::pin(g.start(move |_, _: Ready<()>| {
        called.add();
        std::future::pending()
    }));
    assert!(futures::poll!(&mut started).is_pending());
    g.cancel_with("enough");
    until_ended(&g).await;
    drop(started);
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
    assert_eq!(calls.get(), 0);
}

async fn dropped_after_its_task_was_aborted_it_fails_the_group() {
    let (g, _ctx) = group();
    let probe = Probe::default();
    let never = probe.wrap(std::future::pending());
    let mut started = Box::pin(g.start(|_, ready: Ready<()>| async move {
        let _ready = ready;
        never.await
    }));
    begin(&g, &mut started).await;
    until(|| probe.polled() == 1).await;
    g.abort();
    until(|| probe.dropped() == 1).await;
    drop(started);
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
}

async fn a_value_after_the_failure_is_dropped_and_hides_nothing() {
    let (g, _ctx) = group();
    let (hand_on, handed_on) = tokio::sync::oneshot::channel::<Ready<OnDrop<_>>>();
    let mut started = Box::pin(g.start(|_, ready| async move {
        let _ = hand_on.send(ready);
        Err("refused".to_owned())
    }));
    begin(&g, &mut started).await;
    until_ended(&g).await;
    let dropped = Count::default();
    let counted = dropped.clone();
    handed_on
        .await
        .unwrap()
        .ok(OnDrop(move || _ = counted.add()));
    assert_eq!(dropped.get(), 1);
    assert_eq!(started.await.err(), Some("refused".to_owned()));
    assert_eq!(g.wait().await, OK);
}

/// Calls `ready` when it is dropped.
struct SaysReady(Option<Ready<u8>>);

impl Drop for SaysReady {
    fn drop(&mut self) {
        self.0.take().unwrap().ok(1);
    }
}

async fn a_value_from_a_destructor_after_the_failure_hides_nothing() {
    for dropped_first in [false, true] {
        let (g, _ctx) = group();
        let mut started = Box::pin(g.start(|_, ready| {
            let says_ready = SaysReady(Some(ready));
            // Its captures are dropped with it, after it has returned the failure.
            std::future::poll_fn(move |_| {
                let _owned = &says_ready;
                std::task::Poll::Ready(Err("refused".to_owned()))
            })
        }));
        begin(&g, &mut started).await;
        until_ended(&g).await;
        match dropped_first {
            true => drop(started),
            false => assert_eq!(started.await.unwrap_err(), "refused"),
        }
        assert_eq!(g.wait().await.is_err(), dropped_first);
    }
}

async fn a_value_before_the_failure_leaves_the_failure_to_the_group() {
    let (g, ctx) = group();
    let mut started = Box::pin(g.start(|_, ready| async move {
        // Dropped before the block returns.
        let _says_ready = SaysReady(Some(ready));
        Err("refused".to_owned())
    }));
    begin(&g, &mut started).await;
    ctx.done().await;
    assert_eq!(started.await, Ok(1));
    assert_eq!(g.wait().await.unwrap_err(), "refused");
}

async fn a_caller_that_is_leaked_does_not_hold_up_the_wait() {
    let (g, _ctx) = group();
    let mut started = Box::pin(g.start(|_, _: Ready<()>| async { Err("refused".to_owned()) }));
    begin(&g, &mut started).await;
    std::mem::forget(started);
    assert_eq!(g.wait().await.unwrap_err(), "refused");
}

async fn a_caller_that_is_not_polled_leaves_its_failure_to_the_wait() {
    let (g, _ctx) = group();
    let mut started = Box::pin(g.start(|_, _: Ready<()>| async { Err("refused".to_owned()) }));
    begin(&g, &mut started).await;
    assert_eq!(g.wait().await.unwrap_err(), "refused");
    assert_eq!(started.await.unwrap_err(), "context cancelled");
}

async fn a_caller_beside_the_wait_takes_its_failure_first() {
    for _ in 0..50 {
        let (g, _ctx) = group();
        let started = g.start(|_, _: Ready<()>| async { Err("refused".to_owned()) });
        let (started, waited) = tokio::join!(started, g.wait());
        assert_eq!((started.unwrap_err().as_str(), waited), ("refused", OK));

        let (g, _ctx) = group();
        let mut started = Box::pin(g.start(|_, _: Ready<()>| async { Err("refused".to_owned()) }));
        begin(&g, &mut started).await;
        let (waited, started) = tokio::join!(biased; g.wait(), started);
        assert_eq!((started.unwrap_err().as_str(), waited), ("refused", OK));
    }
}

async fn a_failure_of_a_dropped_start_is_listed_by_wait_all() {
    let g = G::new();
    let named = g.named("server");
    let mut started = Box::pin(named.start(|_, _: Ready<()>| async { Err("refused".to_owned()) }));
    begin(&g, &mut started).await;
    until_ended(&g).await;
    drop(started);
    let errors = g.wait_all().await.unwrap_err();
    let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(errors.iter().next().unwrap().name(), Some("server"));
}

async fn many_callers_may_be_dropped_in_any_order() {
    let g = G::new();
    let mut random = Random::new();
    let fails =
        |number: usize| g.start(move |_, _: Ready<()>| async move { Err(number.to_string()) });
    let mut starts: Vec<_> = (0..100).map(|number| Box::pin(fails(number))).collect();
    for started in &mut starts {
        begin(&g, started).await;
    }
    until_ended(&g).await;
    let (mut taken, mut left) = (Vec::new(), 0);
    while !starts.is_empty() {
        let started = starts.swap_remove(random.below(starts.len()));
        match random.below(2) {
            0 => taken.push(started.await.unwrap_err()),
            _ => left += 1,
        }
    }
    let errors = g.wait_all().await.err();
    let mut all: Vec<usize> = taken.iter().map(|text| text.parse().unwrap()).collect();
    all.extend(
        errors
            .iter()
            .flat_map(|errors| errors.iter())
            .map(|task| match task.kind() {
                errgroup::TaskErrorKind::Failed(text) => text.parse::<usize>().unwrap(),
                other => panic!("{other:?}"),
            }),
    );
    all.sort_unstable();
    assert_eq!(all, Vec::from_iter(0..100));
    assert_eq!(taken.len() + left, 100);
}

/// A caller is dropped on one thread while its task fails on another: one of the two reports the
/// failure, and only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_racing_with_the_callers_drop_is_reported_once() {
    in_time(async {
        for round in 0..1_000 {
            let (g, _ctx) = group();
            let ran = Count::default();
            let counted = ran.clone();
            let started = g.start(move |_, _: Ready<()>| async move {
                counted.add();
                yields(round % 3).await;
                Err("refused".to_owned())
            });
            let caller = tokio::spawn(started);
            yields(round % 5).await;
            if round % 2 == 0 {
                caller.abort();
            }
            let taken = match caller.await {
                Ok(result) => Some(result.unwrap_err()),
                Err(aborted) => {
                    assert!(aborted.is_cancelled());
                    None
                }
            };
            let waited = g.wait().await;
            match (taken, ran.get()) {
                (Some(error), _) => assert_eq!((error.as_str(), waited), ("refused", OK)),
                // It was dropped before its first poll.
                (None, 0) => assert_eq!(waited, OK),
                (None, _) => assert_eq!(waited.unwrap_err(), "refused"),
            }
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_it_leaves_an_ordinary_task() {
    let (g, ctx) = group();
    let started = g.start(|_, ready| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        ready.ok(());
        ctx.done().await;
        Ok(())
    });
    let late = tokio::time::timeout(Duration::from_secs(1), started).await;
    assert!(late.is_err());
    assert_eq!(g.running(), 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(g.running(), 1);
    g.cancel();
    assert_eq!(in_time(g.wait()).await, OK);
}

#[test]
fn outside_a_runtime_it_panics_when_it_is_polled() {
    let (g, _ctx) = group();
    let started = g.start(|_, ready| async move {
        ready.ok(());
        Ok(())
    });
    let mut started = Box::pin(started);
    let panicked = panic_in(|| poll_with(&mut started, std::task::Waker::noop()).is_ready());
    assert!(text(panicked).contains("start called outside a tokio runtime"));
}

/// The call is dropped after its task has failed, or it is still there at the wait.
async fn a_non_fatal_failure_that_it_leaves_cancels_nothing() {
    for is_dropped in [true, false] {
        let (g, ctx) = group();
        let (gate, ended) = (Gate::new(), Count::default());
        let release = Gate::new();
        let released = release.clone();
        let fails = g
            .task()
            .non_fatal()
            .start(|_, _ready: Ready<()>| async move {
                released.pass().await;
                Err("not fatal".to_owned())
            });
        let mut fails = Box::pin(fails);
        assert!(futures::poll!(&mut fails).is_pending());
        release.open();
        until(|| g.running() == 0).await;
        let (gated, ends) = (gate.clone(), ended.clone());
        g.go(async move {
            gated.pass().await;
            ends.add();
            OK
        });
        let kept = if is_dropped { None } else { Some(fails) };
        assert!(!ctx.is_done());
        gate.open();
        g.idle().await;
        assert!(!ctx.is_done());
        assert_eq!(g.wait().await, Err("not fatal".to_owned()));
        assert_eq!(
            ctx.cause().unwrap().to_string(),
            "the group's wait has finished"
        );
        assert_eq!(ended.get(), 1);
        drop(kept);
    }
}
