//! The handle of a task: what it resolves to, and how it stops its task.

use std::io;

use errgroup::{Context, ContextError, Group};
use tokio::time::sleep;

use crate::group_support::*;
use crate::support::{HOUR, OnDrop, chain, ms};

both_flavours![
    a_scope_collects_values_of_different_types,
    the_first_failure_wins_over_the_error_of_a_handle,
    the_error_of_a_failed_task_has_its_name_and_text,
    the_error_of_a_panicked_task_has_its_text,
    the_error_of_a_failed_task_is_of_no_context,
    the_error_of_a_failed_task_is_other_as_an_io_error,
    the_error_of_a_task_that_never_started_has_the_cause,
    the_error_of_an_aborted_group_is_the_cancellation,
    a_value_that_was_taken_leaves_an_error,
    the_error_of_a_spawn_after_the_wait_says_so,
    the_error_of_a_spawn_through_a_permit_after_the_wait_says_so,
    a_spawn_after_an_abort_or_a_close_has_that_cause,
    abort_drops_the_task_at_its_await,
    abort_wakes_a_task_that_waits_for_nothing,
    cancel_of_spawn_drops_the_task_with_its_cause,
    cancel_of_spawn_with_cancels_its_own_context,
    a_task_that_is_cancelled_may_still_return_a_value,
    a_cancelled_task_that_fails_is_no_failure,
    a_stopped_task_that_panics_is_a_failure,
    a_stopped_task_cancels_no_sibling,
    a_task_stopped_in_the_queue_never_runs,
    a_task_stopped_in_the_queue_resolves_its_handle_at_once,
    a_task_stopped_in_the_middle_of_the_queue_keeps_the_order,
    a_closure_stopped_in_the_queue_never_runs,
    a_closure_is_cancelled_through_its_own_context,
    an_own_context_is_a_child_of_the_groups,
    stopping_a_finished_task_changes_nothing,
    the_first_reason_of_a_stop_stays,
    abort_after_cancel_drops_the_task,
    a_task_may_stop_a_sibling_that_awaits_it,
    is_finished_says_so,
    a_stopped_task_is_dropped_and_its_permit_is_free,
    many_handles_stop_while_their_tasks_end,
];

async fn a_scope_collects_values_of_different_types() {
    let both = Group::<anyhow::Error>::scope(&Context::background(), async |g, _ctx| {
        let number = g.spawn(async { Ok(1_u8) });
        let text = g.spawn_with(|_| async {
            yields(5).await;
            Ok("two")
        });
        let list = g.spawn_blocking(|_| Ok(vec![3]));
        Ok((number.await?, text.await?, list.await?))
    });
    assert_eq!(both.await.unwrap(), (1, "two", vec![3]));
}

async fn the_first_failure_wins_over_the_error_of_a_handle() {
    let failed = G::scope(&Context::background(), async |g, _ctx| {
        let number = g.spawn(async { Ok(1_u8) });
        let text = g.spawn::<&str, _>(async {
            yields(5).await;
            Err("disk full".to_owned())
        });
        Ok((number.await?, text.await?))
    });
    assert_eq!(failed.await, Err("disk full".to_owned()));
}

async fn the_error_of_a_failed_task_has_its_name_and_text() {
    let g = G::new();
    let named = g.named("fetch");
    let site = format!("{}:{}:", file!(), line!() - 1);
    let handle = named.spawn::<(), _>(async { Err("disk full".to_owned()) });
    let error = handle.await.unwrap_err();
    let text = chain(&error);
    assert!(text.starts_with("task failed: task \"fetch\""), "{text}");
    assert!(
        text.contains(&site) && text.ends_with(": disk full"),
        "{text}"
    );
    assert_eq!(g.wait().await, Err("disk full".to_owned()));
}

async fn the_error_of_a_panicked_task_has_its_text() {
    let g = G::new();
    let handle = g.named("fetch").spawn::<(), _>(async { panic!("boom") });
    let text = chain(&handle.await.unwrap_err());
    assert!(text.starts_with("task failed: task \"fetch\""), "{text}");
    assert!(text.ends_with("panicked: boom"), "{text}");
    assert_eq!(crate::group_support::text(panic_of(g.wait()).await), "boom");
}

async fn the_error_of_a_failed_task_is_of_no_context() {
    let g = G::new();
    let handle = g.spawn::<(), _>(async { Err("disk full".to_owned()) });
    let error = handle.await.unwrap_err();
    assert!(!error.is_cancelled() && !error.is_deadline_exceeded());
    assert_eq!(error.to_string(), "task failed");
    assert!(g.wait().await.is_err());
}

async fn the_error_of_a_failed_task_is_other_as_an_io_error() {
    let g = Group::<io::Error>::new();
    let handle = g.spawn::<(), _>(async { Err(io::ErrorKind::BrokenPipe.into()) });
    let error = io::Error::from(handle.await.unwrap_err());
    assert_eq!(error.kind(), io::ErrorKind::Other);
    assert!(error.get_ref().unwrap().is::<ContextError>());
    assert!(g.wait().await.is_err());
}

async fn the_error_of_a_task_that_never_started_has_the_cause() {
    let (g, _ctx) = group();
    g.cancel_with("shutting down");
    let error = g.spawn(async { Ok(1) }).await.unwrap_err();
    assert_eq!(chain(&error), "context cancelled: shutting down");
    let spawner = g.spawner();
    drop(g);
    let error = spawner.spawn(async { Ok(1) }).await.unwrap_err();
    assert_eq!(chain(&error), "context cancelled: the group was dropped");
}

async fn the_error_of_an_aborted_group_is_the_cancellation() {
    let (g, _ctx) = group();
    let handle = g.spawn::<(), _>(std::future::pending());
    yields(5).await;
    g.abort();
    let error = handle.await.unwrap_err();
    assert_eq!(chain(&error), "context cancelled: the group was aborted");
    assert!(g.wait().await.is_err());
}

async fn a_value_that_was_taken_leaves_an_error() {
    let (g, _ctx) = group();
    let handle = g.spawn(async { Ok(1) });
    assert_eq!(g.wait().await, OK);
    assert_eq!(handle.take(), Some(1));
    let text = chain(&handle.await.unwrap_err());
    assert_eq!(text, "task failed: the value was taken before");
}

async fn abort_drops_the_task_at_its_await() {
    let (g, _ctx) = group();
    let dropped = Count::default();
    let counted = dropped.clone();
    let guard = OnDrop(move || _ = counted.add());
    let handle = g.spawn::<(), _>(async move {
        let _guard = guard;
        sleep(HOUR).await;
        Ok(())
    });
    yields(5).await;
    handle.abort();
    let error = handle.await.unwrap_err();
    let why = "context cancelled: the task was aborted through its handle";
    assert_eq!((chain(&error).as_str(), dropped.get()), (why, 1));
    assert_eq!(g.wait().await, OK);
}

async fn abort_wakes_a_task_that_waits_for_nothing() {
    // One that starts with a worker of its own, and one that takes the queue.
    for others in [0, 40] {
        let (g, _ctx) = group();
        let gate = Gate::new();
        for _ in 0..others {
            let gate = gate.clone();
            g.go(async move {
                gate.pass().await;
                OK
            });
        }
        let handle = g.spawn::<(), _>(std::future::pending());
        yields(10).await;
        handle.abort();
        assert!(handle.await.unwrap_err().is_cancelled());
        gate.open();
        assert_eq!(g.wait().await, OK);
    }
}

async fn cancel_of_spawn_drops_the_task_with_its_cause() {
    let (g, ctx) = group();
    let handle = g.spawn::<(), _>(std::future::pending());
    yields(5).await;
    handle.cancel_with("the user pressed stop");
    let error = handle.await.unwrap_err();
    assert_eq!(chain(&error), "context cancelled: the user pressed stop");
    assert!(!ctx.is_done());
    assert_eq!(g.wait().await, OK);
}

async fn cancel_of_spawn_with_cancels_its_own_context() {
    let (g, ctx) = group();
    let handle = g.spawn_with(|own| async move {
        let error = own.done().await;
        Ok(chain(&error))
    });
    yields(5).await;
    handle.cancel_with("the user pressed stop");
    let seen = handle.await.unwrap();
    assert_eq!(seen, "context cancelled: the user pressed stop");
    assert!(!ctx.is_done());
    assert_eq!(g.wait().await, OK);
}

async fn a_task_that_is_cancelled_may_still_return_a_value() {
    let (g, _ctx) = group();
    let handle = g.spawn_with(|own| async move {
        own.done().await;
        yields(3).await;
        Ok(7)
    });
    handle.cancel();
    assert_eq!(handle.await.unwrap(), 7);
    assert_eq!(g.wait().await, OK);
}

async fn a_cancelled_task_that_fails_is_no_failure() {
    let (g, ctx) = group();
    let handle = g.spawn_with::<_, (), _>(|own| async move {
        own.done().await;
        Err("half of it is done".to_owned())
    });
    yields(3).await;
    handle.cancel();
    let error = handle.await.unwrap_err();
    assert_eq!(chain(&error), "context cancelled");
    assert!(!ctx.is_done());
    assert_eq!(g.wait().await, OK);
}

async fn a_stopped_task_that_panics_is_a_failure() {
    let (g, ctx) = group();
    let handle = g.spawn_with::<_, (), _>(|own| async move {
        own.done().await;
        panic!("boom")
    });
    yields(3).await;
    handle.cancel();
    let error = handle.await.unwrap_err();
    assert!(chain(&error).ends_with("panicked: boom"), "{error:?}");
    assert!(ctx.is_done());
    assert_eq!(text(panic_of(g.wait()).await), "boom");
}

async fn a_stopped_task_cancels_no_sibling() {
    let (g, ctx) = group();
    let gate = Gate::new();
    let gated = gate.clone();
    let other = g.spawn(async move {
        gated.pass().await;
        Ok(ctx.is_done())
    });
    let handle = g.spawn::<(), _>(std::future::pending());
    yields(3).await;
    handle.abort();
    assert!(handle.await.is_err());
    gate.open();
    assert!(!other.await.unwrap());
    assert_eq!(g.wait().await, OK);
}

/// A group at limit 1 whose permit is taken until the gate is open.
fn full() -> (G, Gate) {
    let (g, gate) = (limited(1), Gate::new());
    let gated = gate.clone();
    g.go(async move {
        gated.pass().await;
        OK
    });
    (g, gate)
}

async fn a_task_stopped_in_the_queue_never_runs() {
    let (g, gate) = full();
    let (ran, dropped) = (Count::default(), Count::default());
    let mut handles = Vec::new();
    for stop in 0..4 {
        let (ran, guard) = (ran.clone(), dropped.clone());
        let future = async move {
            let _guard = OnDrop(move || _ = guard.add());
            ran.add();
            Ok(())
        };
        let handle = if stop % 2 == 0 {
            g.spawn(future)
        } else {
            g.spawn_with(|_| future)
        };
        match stop {
            0 | 1 => handle.abort(),
            _ => handle.cancel(),
        }
        handles.push(handle);
    }
    assert_eq!(g.queued(), 0);
    gate.open();
    for handle in handles {
        assert!(handle.await.unwrap_err().is_cancelled());
    }
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 0);
}

async fn a_task_stopped_in_the_queue_resolves_its_handle_at_once() {
    let (g, gate) = full();
    let handle = g.spawn(async { Ok(1) });
    assert!(!handle.is_finished());
    handle.cancel_with("not needed");
    assert!(handle.is_finished());
    let error = handle.await.unwrap_err();
    assert_eq!(chain(&error), "context cancelled: not needed");
    gate.open();
    assert_eq!(g.wait().await, OK);
}

async fn a_task_stopped_in_the_middle_of_the_queue_keeps_the_order() {
    let (g, gate) = full();
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let handles: Vec<_> = (0..6)
        .map(|number| {
            let order = order.clone();
            g.spawn(async move {
                order.lock().unwrap().push(number);
                Ok(())
            })
        })
        .collect();
    let last = g.go(async { OK });
    for stopped in [0, 2, 3, 5] {
        handles[stopped].abort();
    }
    assert_eq!(g.queued(), 3);
    gate.open();
    assert!(last.await.is_started());
    assert_eq!(g.wait().await, OK);
    assert_eq!(*order.lock().unwrap(), [1, 4]);
}

async fn a_closure_stopped_in_the_queue_never_runs() {
    let (g, gate) = full();
    let handle = g.spawn_blocking::<(), _>(|_| panic!("it runs"));
    handle.cancel();
    assert!(handle.await.unwrap_err().is_cancelled());
    gate.open();
    assert_eq!(g.wait().await, OK);
}

async fn a_closure_is_cancelled_through_its_own_context() {
    let (g, ctx) = group();
    let handle = g.spawn_blocking(|own| {
        let error = tokio::runtime::Handle::current().block_on(own.done());
        Ok(chain(&error))
    });
    yields(5).await;
    // An abort cannot drop a closure that runs, so its context tells it.
    handle.abort();
    let seen = handle.await;
    assert!(!ctx.is_done());
    assert_eq!(g.wait().await, OK);
    // It may have been stopped before a thread began it.
    if let Ok(seen) = seen {
        let why = "context cancelled: the task was aborted through its handle";
        assert_eq!(seen, why);
    }
}

async fn an_own_context_is_a_child_of_the_groups() {
    let (g, _ctx) = group();
    let handle = g.spawn_with(|own| async move {
        let error = own.done().await;
        Ok(chain(&error))
    });
    yields(3).await;
    g.cancel_with("shutting down");
    assert_eq!(handle.await.unwrap(), "context cancelled: shutting down");
    assert_eq!(g.wait().await, OK);
}

async fn stopping_a_finished_task_changes_nothing() {
    let (g, ctx) = group();
    let handle = g.spawn(async { Ok(1) });
    until(|| handle.is_finished()).await;
    handle.abort();
    handle.cancel_with("too late");
    assert_eq!(handle.await.unwrap(), 1);
    assert!(!ctx.is_done());
    assert_eq!(g.wait().await, OK);
}

async fn the_first_reason_of_a_stop_stays() {
    let (g, _ctx) = group();
    let handle = g.spawn::<(), _>(std::future::pending());
    yields(3).await;
    handle.cancel_with("first");
    handle.cancel_with("second");
    handle.abort();
    assert_eq!(
        chain(&handle.await.unwrap_err()),
        "context cancelled: first"
    );
    assert_eq!(g.wait().await, OK);
}

async fn abort_after_cancel_drops_the_task() {
    let (g, _ctx) = group();
    let handle = g.spawn_with::<_, (), _>(|_deaf| std::future::pending());
    yields(3).await;
    handle.cancel_with("first");
    yields(5).await;
    assert!(!handle.is_finished());
    handle.abort();
    assert_eq!(
        chain(&handle.await.unwrap_err()),
        "context cancelled: first"
    );
    assert_eq!(g.wait().await, OK);
}

async fn a_task_may_stop_a_sibling_that_awaits_it() {
    for limit in [1, 4] {
        let g = limited(limit);
        let spawner = g.spawner();
        let outer = g.spawn(async move {
            let handle = spawner.spawn::<(), _>(std::future::pending());
            handle.abort();
            Ok(handle.await.is_err())
        });
        assert!(outer.await.unwrap());
        assert_eq!(g.wait().await, OK);
    }
}

async fn is_finished_says_so() {
    let (g, _ctx) = group();
    let gate = Gate::new();
    let gated = gate.clone();
    let handle = g.spawn(async move {
        gated.pass().await;
        Ok(())
    });
    yields(5).await;
    assert!(!handle.is_finished());
    gate.open();
    until(|| handle.is_finished()).await;
    assert_eq!(g.wait().await, OK);
    assert!(handle.is_finished());
}

async fn a_stopped_task_is_dropped_and_its_permit_is_free() {
    let g = limited(1);
    let handle = g.spawn::<(), _>(async {
        sleep(ms(HOUR.as_millis() as u64)).await;
        Ok(())
    });
    let next = g.spawn(async { Ok(2) });
    yields(3).await;
    handle.abort();
    assert_eq!(next.await.unwrap(), 2);
    assert_eq!(g.wait().await, OK);
}

async fn many_handles_stop_while_their_tasks_end() {
    for round in 0..200 {
        let g = if round % 2 == 0 {
            limited(2)
        } else {
            group().0
        };
        let handles: Vec<_> = (0..20)
            .map(|number| {
                g.spawn(async move {
                    yields(number % 4).await;
                    Ok(number)
                })
            })
            .collect();
        let mut stopped = 0;
        for (number, handle) in handles.into_iter().enumerate() {
            if number % 3 == round % 3 {
                handle.abort();
            }
            match handle.await {
                Ok(value) => assert_eq!(value, number),
                Err(error) => {
                    assert!(error.is_cancelled());
                    stopped += 1;
                }
            }
        }
        assert!(stopped <= 7);
        assert_eq!(g.wait().await, OK);
    }
}

/// The text of an error that is a cancellation, with its cause.
fn cancelled<T: std::fmt::Debug>(handled: Result<T, ContextError>) -> String {
    let error = handled.unwrap_err();
    assert!(error.is_cancelled(), "{}", chain(&error));
    chain(&error)
}

const WAIT_ENDED: &str = "context cancelled: the group's wait has finished";

async fn the_error_of_a_spawn_after_the_wait_says_so() {
    for limit in [0, 1, 1_000] {
        let g = limited(limit);
        assert_eq!(g.close_and_wait().await, OK);
        let permitless = || [g.task().background(), g.task().cleanup(ms(1))];
        let plain = [g.spawn(async { Ok(1) }), g.spawn_with(|_| async { Ok(1) })];
        let others = permitless().map(|task| task.spawn(async { Ok(1) }));
        let closures = permitless().map(|task| task.spawn_blocking(|_| Ok(1)));
        let closure = g.spawn_blocking(|_| Ok(1));
        for handle in plain
            .into_iter()
            .chain(others)
            .chain(closures)
            .chain([closure])
        {
            assert_eq!(cancelled(handle.await), WAIT_ENDED);
        }
        g.set_name("ingest");
        assert_eq!(cancelled(g.spawn(async { Ok(1) }).await), WAIT_ENDED);
    }
}

/// A permit keeps the scheduler of its group.
async fn the_error_of_a_spawn_through_a_permit_after_the_wait_says_so() {
    let g = limited(4);
    let (spawner, kept) = (g.spawner(), g.reserve().await.unwrap());
    let permits = [g.reserve().await.unwrap(), g.reserve().await.unwrap()];
    assert_eq!(g.wait().await, OK);
    let [first, second] = permits;
    let handles = [
        first.spawn(async { Ok(1) }),
        second.spawn_blocking(|_| Ok(1)),
        spawner.spawn(async { Ok(1) }),
        spawner.spawn_blocking(|_| Ok(1)),
    ];
    for handle in handles {
        assert_eq!(cancelled(handle.await), WAIT_ENDED);
    }
    drop(kept);
}

async fn a_spawn_after_an_abort_or_a_close_has_that_cause() {
    let g = G::new();
    g.close();
    let closed = cancelled(g.spawn(async { Ok(1) }).await);
    assert_eq!(closed, "context cancelled: the group is closed");
    g.abort();
    let aborted = cancelled(g.spawn(async { Ok(1) }).await);
    assert_eq!(aborted, "context cancelled: the group was aborted");
}
