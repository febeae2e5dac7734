//! Readiness: `start` waits until the task says that it is ready, and the task goes on.

use std::error::Error;
use std::time::Duration;

use errgroup::{Context, ContextError, Group, Ready};

use crate::group_support::*;

both_flavours![
    it_returns_what_the_task_passed_to_ready_while_the_task_goes_on,
    the_failure_before_that_is_this_calls_error_and_not_the_groups,
    the_failure_after_that_is_the_groups,
    a_failure_right_after_ready_does_not_lose_the_value,
    ending_ok_without_ready_is_a_context_error_whose_cause_says_so,
    a_ready_that_was_dropped_waits_for_the_end_of_the_task,
    a_ready_may_be_handed_on,
    a_panic_before_ready_is_the_groups_and_this_call_fails,
    a_panic_in_the_closure_is_a_panic_before_ready,
    a_panic_after_ready_is_the_groups,
    nothing_starts_before_the_first_poll,
    dropped_before_ready_it_leaves_an_ordinary_task,
    dropped_while_queued_it_leaves_an_ordinary_task,
    dropped_when_the_task_was_ready_it_drops_the_value,
    in_a_group_that_has_ended_nothing_starts_and_this_call_fails,
    when_the_group_ends_while_it_is_queued_this_call_fails,
    a_task_that_is_aborted_before_ready_is_this_calls_failure,
    the_spawner_of_a_dead_group_fails,
    it_waits_for_a_place,
    at_limit_1_a_task_that_starts_a_sibling_lends_its_place,
    in_a_new_group_it_does_the_same,
    the_future_is_send_and_does_not_borrow_the_group,
];

fn anyhow_group() -> (Group<anyhow::Error>, Context) {
    Group::with_context(Context::background())
}

/// The cause that the context error `error` carries.
fn cause(error: &anyhow::Error) -> String {
    let error = error.downcast_ref::<ContextError>().unwrap();
    error.source().unwrap().to_string()
}

async fn it_returns_what_the_task_passed_to_ready_while_the_task_goes_on() {
    let (g, ctx) = group();
    let (ended, context) = (Count::default(), ctx.clone());
    let counted = ended.clone();
    let port = g.start(|ready| async move {
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

async fn the_failure_before_that_is_this_calls_error_and_not_the_groups() {
    let (g, ctx) = group();
    let port = g.start(|ready: Ready<u16>| async move {
        let _ready = ready;
        yields(5).await;
        Err("address in use".to_owned())
    });
    assert_eq!(port.await.unwrap_err(), "address in use");
    assert!(!ctx.is_done());
    // The group goes on.
    let second = g.start(|ready| async move {
        ready.ok(2);
        Ok(())
    });
    assert_eq!(second.await, Ok(2));
    assert_eq!(g.wait().await, OK);
}

async fn the_failure_after_that_is_the_groups() {
    let (g, ctx) = group();
    let gate = Gate::new();
    let gated = gate.clone();
    let port = g.start(|ready| async move {
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
        let port = g.start(|ready| async move {
            ready.ok(8080);
            Err("reset".to_owned())
        });
        assert_eq!(port.await, Ok(8080));
        assert_eq!(g.wait().await.unwrap_err(), "reset");
    }
}

async fn ending_ok_without_ready_is_a_context_error_whose_cause_says_so() {
    let (g, ctx) = anyhow_group();
    let started = g.start(|ready: Ready<()>| async move {
        yields(3).await;
        drop(ready);
        Ok(())
    });
    let error = started.await.unwrap_err();
    let says = "the task ended without saying that it was ready";
    assert_eq!(cause(&error), says);
    assert!(!ctx.is_done(), "it is not the group's failure");
    assert!(g.wait().await.is_ok());
}

async fn a_ready_that_was_dropped_waits_for_the_end_of_the_task() {
    let (g, gate) = (limited(1), Gate::new());
    let gated = gate.clone();
    let mut started = Box::pin(g.start(|ready: Ready<()>| async move {
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

async fn a_ready_may_be_handed_on() {
    let (g, _ctx) = group();
    let spawner = g.spawner();
    let started = g.start(|ready| async move {
        // The first task ends, and its sibling says so: too late, unless the first waits.
        spawner
            .spawn(async move {
                yields(5).await;
                ready.ok("by a sibling");
                Ok(())
            })
            .await;
        Ok(())
    });
    assert_eq!(started.await, Ok("by a sibling"));
    assert_eq!(g.wait().await, OK);
}

async fn a_panic_before_ready_is_the_groups_and_this_call_fails() {
    let (g, ctx) = anyhow_group();
    let started = g.start(|ready: Ready<()>| async move {
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
    let started = g.start(|_: Ready<()>| -> std::future::Ready<anyhow::Result<()>> {
        panic!("in the closure")
    });
    let error = started.await.unwrap_err();
    assert!(cause(&error).ends_with("panicked: in the closure"));
    assert_eq!(text(panic_of(g.wait()).await), "in the closure");
}

async fn a_panic_after_ready_is_the_groups() {
    let (g, _ctx) = group();
    let started = g.start(|ready| async move {
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
    let started = g.start(move |ready| {
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
        let mut started = Box::pin(g.start(move |ready| async move {
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
    let mut started = Box::pin(g.start(move |ready| async move {
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
    let mut started = Box::pin(g.start(move |ready| async move {
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

async fn in_a_group_that_has_ended_nothing_starts_and_this_call_fails() {
    let (g, _ctx) = anyhow_group();
    let calls = Count::default();
    g.cancel_with("enough");
    let called = calls.clone();
    let started = g.start(move |ready| {
        called.add();
        async move {
            ready.ok(());
            Ok(())
        }
    });
    assert_eq!(cause(&started.await.unwrap_err()), "enough");
    assert_eq!(calls.get(), 0);
    assert!(g.wait().await.is_ok(), "somebody has learnt of it already");
}

async fn when_the_group_ends_while_it_is_queued_this_call_fails() {
    let (g, _ctx) = anyhow_group();
    g.set_limit(0);
    let mut started = Box::pin(g.start(|ready| async move {
        ready.ok(());
        Ok(())
    }));
    assert!(futures::poll!(&mut started).is_pending());
    g.cancel_with("enough");
    assert_eq!(cause(&started.await.unwrap_err()), "enough");
    assert!(g.wait().await.is_ok(), "somebody has learnt of it already");
}

async fn a_task_that_is_aborted_before_ready_is_this_calls_failure() {
    for turns in [0, 1, 10] {
        let (g, _ctx) = anyhow_group();
        let probe = Probe::default();
        let never = probe.wrap(std::future::pending());
        let mut started = Box::pin(g.start(|ready: Ready<()>| async move {
            let _ready = ready;
            never.await
        }));
        assert!(futures::poll!(&mut started).is_pending());
        yields(turns).await;
        g.abort();
        assert_eq!(cause(&started.await.unwrap_err()), "the group was aborted");
        assert!(g.wait().await.is_ok(), "somebody has learnt of it already");
        probe.assert_all_gone();
    }
}

async fn the_spawner_of_a_dead_group_fails() {
    for waits in [false, true] {
        let (g, _ctx) = anyhow_group();
        let (spawner, calls) = (g.spawner(), Count::default());
        match waits {
            true => assert!(g.wait().await.is_ok()),
            false => drop(g),
        }
        let called = calls.clone();
        let started = spawner.start(move |ready| {
            called.add();
            async move {
                ready.ok(());
                Ok(())
            }
        });
        assert_eq!(cause(&started.await.unwrap_err()), "the group has gone");
        assert_eq!(calls.get(), 0);
    }
}

async fn it_waits_for_a_place() {
    let (g, gate) = (limited(1), Gate::new());
    let gated = gate.clone();
    g.go(async move {
        gated.pass().await;
        Ok(())
    });
    let mut started = Box::pin(g.start(|ready| async move {
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

async fn at_limit_1_a_task_that_starts_a_sibling_lends_its_place() {
    let (g, gauge) = (limited(1), Gauge::default());
    let (spawner, inner) = (g.spawner(), gauge.clone());
    let sum = g.spawn(async move {
        let mut sum = 0;
        for number in 0..5 {
            let gauge = inner.clone();
            sum += spawner
                .start(move |ready| async move {
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
        let fails = spawner.start(|_: Ready<()>| async { Err("refused".to_owned()) });
        assert_eq!(fails.await.unwrap_err(), "refused");
        Ok(sum)
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!((sum.take(), gauge.most()), (Some(10), 1));
}

async fn in_a_new_group_it_does_the_same() {
    let g = G::new();
    let fails = g.start(|_: Ready<()>| async { Err("refused".to_owned()) });
    assert_eq!(fails.await.unwrap_err(), "refused");
    let never = g.start(|_: Ready<()>| async { Ok(()) });
    assert_eq!(never.await.unwrap_err(), "context cancelled");
    let ready = g.start(|ready| async move {
        ready.ok(1);
        Ok(())
    });
    assert_eq!(ready.await, Ok(1));
    assert_eq!(g.wait().await, OK);

    let g = G::new();
    let panics = g.start(|ready: Ready<()>| async move {
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
    let started = tokio::spawn(g.start(|ready| async move {
        gated.pass().await;
        ready.ok(vec![1]);
        Ok(())
    }));
    until(|| g.running() == 1).await;
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(started.await.unwrap(), Ok(vec![1]));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_it_leaves_an_ordinary_task() {
    let (g, ctx) = group();
    let started = g.start(|ready| async move {
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
    let started = g.start(|ready| async move {
        ready.ok(());
        Ok(())
    });
    let mut started = Box::pin(started);
    let panicked = panic_in(|| poll_with(&mut started, std::task::Waker::noop()).is_ready());
    assert!(text(panicked).contains("start called outside a tokio runtime"));
}
