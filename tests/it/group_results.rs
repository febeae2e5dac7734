//! The result of `spawn`: the value of a task, or `None`.

use std::sync::{Arc, Mutex};

use errgroup::TaskHandle;

use crate::group_support::*;

both_flavours![
    values_of_different_types_are_taken_after_wait,
    a_value_can_be_taken_only_once,
    a_sibling_may_await_the_value,
    it_may_be_awaited_outside_the_group,
    it_is_none_at_once_when_the_task_has_failed,
    it_is_none_at_once_when_the_task_has_panicked,
    it_is_none_at_once_when_the_task_was_stopped,
    it_is_none_at_once_when_the_task_never_started,
    it_is_none_when_the_destructor_of_the_task_panicked,
    a_sibling_that_awaits_it_at_limit_1_lends_its_permit,
    a_chain_of_tasks_that_await_each_other_finishes_at_limit_1,
    a_lender_resumes_before_queued_tasks_start,
    a_value_ready_while_its_task_lent_is_given_with_a_permit,
    dropping_the_handle_changes_nothing_for_the_task,
    a_value_that_is_not_taken_is_dropped_with_its_handle,
    a_value_outlives_the_group,
    a_task_that_left_its_handle_to_another_keeps_its_permit,
    a_handle_awaited_by_reference_in_a_select_loses_nothing,
    a_task_that_gives_a_handle_up_resumes_with_the_next_permit,
    the_handle_of_an_ended_group_is_empty,
    the_handle_resolves_when_the_permit_is_released,
    the_handle_resolves_before_the_task_counts_as_done,
    a_waker_of_a_handle_may_call_back,
    the_error_of_the_task_is_the_groups,
];

async fn values_of_different_types_are_taken_after_wait() {
    let (g, _ctx) = group();
    let number = g.spawn(async { Ok(1_u8) });
    let text = g.spawn(async {
        yields(5).await;
        Ok("two".to_owned())
    });
    let nothing = g.spawn(async { Ok(()) });
    assert_eq!(g.wait().await, OK);
    let all = (number.take(), text.take(), nothing.take());
    assert_eq!(all, (Some(1), Some("two".to_owned()), Some(())));
}

async fn a_value_can_be_taken_only_once() {
    let (g, _ctx) = group();
    let mut awaited = g.spawn(async { Ok(1) });
    let taken = g.spawn(async { Ok(2) });
    assert_eq!((&mut awaited).await.unwrap(), 1);
    assert_eq!(g.wait().await, OK);
    assert_eq!(taken.take(), Some(2));
    assert_eq!((taken.take(), awaited.take()), (None, None));
    assert!(taken.await.is_err() && awaited.await.is_err());
}

async fn a_sibling_may_await_the_value() {
    let (g, gate) = (limited(2), Gate::new());
    let gated = gate.clone();
    let one = g.spawn(async move {
        gated.pass().await;
        Ok(1)
    });
    let two = g.spawn(async move { Ok(one.await? + 1) });
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(two.take(), Some(2));
}

async fn it_may_be_awaited_outside_the_group() {
    let (g, gate) = (limited(1), Gate::new());
    let gated = gate.clone();
    let value = g.spawn(async move {
        gated.pass().await;
        Ok(1)
    });
    let elsewhere = tokio::spawn(value);
    yields(10).await;
    assert!(!elsewhere.is_finished());
    gate.open();
    assert_eq!(elsewhere.await.unwrap().unwrap(), 1);
    assert_eq!(g.wait().await, OK);
}

/// A task that keeps the group waiting until the gate is open.
fn keeps_waiting(g: &G) -> Gate {
    let gate = Gate::new();
    let gated = gate.clone();
    g.go(async move {
        gated.pass().await;
        Ok(())
    });
    gate
}

async fn it_is_none_at_once_when_the_task_has_failed() {
    let (g, _ctx) = group();
    let gate = keeps_waiting(&g);
    let value = g.spawn(async {
        yields(5).await;
        Err::<i32, _>("boom".to_owned())
    });
    assert!(value.await.is_err());
    gate.open();
    assert_eq!(g.wait().await.unwrap_err(), "boom");
}

async fn it_is_none_at_once_when_the_task_has_panicked() {
    let (g, _ctx) = group();
    let gate = keeps_waiting(&g);
    let value = g.spawn(async {
        yields(5).await;
        if true {
            panic!("boom");
        }
        Ok(1)
    });
    assert!(value.await.is_err());
    gate.open();
    assert_eq!(text(panic_of(g.wait()).await), "boom");
}

async fn it_is_none_at_once_when_the_task_was_stopped() {
    for turns in [0, 5] {
        let (g, _ctx) = group();
        let value = g.spawn(std::future::pending::<Result<i32, _>>());
        yields(turns).await;
        g.abort();
        assert!(value.await.is_err());
        assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
    }

    let (g, _ctx) = group();
    let value = g.spawn(std::future::pending::<Result<i32, _>>());
    drop(g);
    assert!(value.await.is_err());
}

async fn it_is_none_at_once_when_the_task_never_started() {
    let (g, probe) = (limited(1), Probe::default());
    let gate = keeps_waiting(&g);
    let mut queued = g.spawn(probe.wrap(async { Ok(1) }));
    assert!(futures::poll!(&mut queued).is_pending());
    g.cancel();
    assert!(queued.await.is_err());
    let refused = g.spawn(probe.wrap(async { Ok(1) }));
    assert!(refused.await.is_err());
    gate.open();
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
    assert_eq!(probe.polled(), 0);
    probe.assert_all_dropped();
}

async fn it_is_none_when_the_destructor_of_the_task_panicked() {
    let (g, _ctx) = group();
    let dropped = Count::default();
    let counted = dropped.clone();
    let bomb = OnDrop(|| panic!("in drop"));
    // Held by the future itself, so that it is dropped after the value was made.
    let mut future = Box::pin(async move {
        let counts = OnDrop(move || _ = counted.add());
        Ok::<_, String>(counts)
    });
    let value = g.spawn(std::future::poll_fn(move |cx| {
        let _held = &bomb;
        future.as_mut().poll(cx)
    }));
    assert!(value.await.is_err(), "the task panicked");
    assert_eq!(text(panic_of(g.wait()).await), "in drop");
    assert_eq!(dropped.get(), 1);
}

async fn a_sibling_that_awaits_it_at_limit_1_lends_its_permit() {
    let (g, gauge) = (limited(1), Gauge::default());
    let (spawner, inner) = (g.spawner(), gauge.clone());
    let sum = g.spawn(async move {
        let mut sum = 0;
        for number in 0..10 {
            let gauge = inner.clone();
            let value = spawner.spawn(async move {
                let _alive = gauge.enter();
                yields(number).await;
                Ok(number)
            });
            sum += value.await?;
            let _alive = inner.enter();
            tokio::task::yield_now().await;
        }
        Ok(sum)
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!((sum.take(), gauge.most()), (Some(45), 1));
}

async fn a_chain_of_tasks_that_await_each_other_finishes_at_limit_1() {
    let g = limited(1);
    let mut last = g.spawn(async { Ok(0) });
    for _ in 0..100 {
        last = g.spawn(async move { Ok(last.await? + 1) });
    }
    assert_eq!(g.wait().await, OK);
    assert_eq!(last.take(), Some(100));

    // The other way round: each is awaited by one that started before it.
    fn nested(spawner: errgroup::Spawner<String>, depth: usize) -> TaskHandle<usize> {
        let inner = spawner.clone();
        spawner.spawn(async move {
            match depth {
                0 => Ok(0),
                _ => Ok(nested(inner, depth - 1).await? + 1),
            }
        })
    }
    let g = limited(1);
    let all = nested(g.spawner(), 100);
    assert_eq!(g.wait().await, OK);
    assert_eq!(all.take(), Some(100));
}

async fn a_lender_resumes_before_queued_tasks_start() {
    let (g, log, gate) = (limited(1), Log::new(), Gate::new());
    let (spawner, inner, gated) = (g.spawner(), log.clone(), gate.clone());
    g.go(async move {
        let log = inner.clone();
        let value = spawner.spawn(async move {
            gated.pass().await;
            log.add("sibling");
            Ok(())
        });
        inner.add("lends");
        let _ = value.await;
        inner.add("goes on");
        Ok(())
    });
    until(|| log.len() == 1).await;
    for _ in 0..3 {
        let log = log.clone();
        g.go(async move {
            log.add("queued");
            Ok(())
        });
    }
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get()[..3], ["lends", "sibling", "goes on"]);
}

async fn a_value_ready_while_its_task_lent_is_given_with_a_permit() {
    let (g, there, turn) = (limited(2), Count::default(), Gate::new());
    let (spawner, is_there, turned) = (g.spawner(), there.clone(), turn.clone());
    let lent = Count::default();
    let lends = lent.clone();
    g.go(async move {
        let counted = is_there.clone();
        let mut first = spawner.spawn(async move {
            let _counts = OnDrop(move || _ = counted.add());
            tokio::task::yield_now().await;
            Ok(1)
        });
        assert!(futures::poll!(&mut first).is_pending());
        // The handle is kept, and not polled, while it resolves.
        until(|| is_there.get() == 1).await;
        yields(20).await;
        let (goes_on, waits) = (Gate::new(), Gate::new());
        let waited = waits.clone();
        let second = spawner.spawn(async move {
            waited.pass().await;
            Ok(2)
        });
        let first = async {
            lends.add();
            turned.pass().await;
            let first = first.await;
            waits.open();
            goes_on.open();
            first
        };
        let both = futures::join!(first, second);
        assert_eq!((both.0.unwrap(), both.1.unwrap()), (1, 2));
        Ok(())
    });
    until(|| lent.get() == 1 && g.running() == 1).await;
    turn.open();
    assert_eq!(g.wait().await, OK);
}

async fn dropping_the_handle_changes_nothing_for_the_task() {
    let (g, ended) = (limited(2), Count::default());
    for polls in [false, true] {
        for _ in 0..5 {
            let ended = ended.clone();
            let mut value = g.spawn(async move {
                yields(3).await;
                ended.add();
                Ok(1)
            });
            if polls {
                let _ = futures::poll!(&mut value);
            }
            drop(value);
        }
    }
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), 10);
}

async fn a_value_that_is_not_taken_is_dropped_with_its_handle() {
    for early in [false, true] {
        let (g, dropped) = (limited(1), Count::default());
        let counted = dropped.clone();
        let value = g.spawn(async move { Ok(OnDrop(move || _ = counted.add())) });
        let kept = (!early).then_some(value);
        assert_eq!(g.wait().await, OK);
        if let Some(value) = kept {
            assert_eq!(dropped.get(), 0);
            drop(value);
        }
        assert_eq!(dropped.get(), 1);
    }
}

async fn a_value_outlives_the_group() {
    let (g, _ctx) = group();
    let (taken, awaited) = (g.spawn(async { Ok(1) }), g.spawn(async { Ok(2) }));
    until(|| g.running() == 0).await;
    drop(g);
    yields(10).await;
    assert_eq!((taken.take(), awaited.await.ok()), (Some(1), Some(2)));
}

async fn a_task_that_left_its_handle_to_another_keeps_its_permit() {
    let (g, gate) = (limited(1), Gate::new());
    let (spawner, gated) = (g.spawner(), gate.clone());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    g.go(async move {
        let mut value = spawner.spawn(async { Ok(1) });
        assert!(futures::poll!(&mut value).is_pending());
        assert!(sender.send(value).is_ok());
        gated.pass().await;
        Ok(())
    });
    let mut value = receiver.await.unwrap();
    assert!(futures::poll!(&mut value).is_pending());
    yields(50).await;
    assert_eq!((g.running(), g.queued()), (1, 1));
    gate.open();
    assert_eq!(value.await.unwrap(), 1);
    assert_eq!(g.wait().await, OK);
}

async fn a_handle_awaited_by_reference_in_a_select_loses_nothing() {
    // One permit for each, because the task opens the gate of its sibling.
    let (g, gate) = (limited(2), Gate::new());
    let (spawner, gated) = (g.spawner(), gate.clone());
    let ticks = g.spawn(async move {
        let mut value = spawner.spawn(async move {
            gated.pass().await;
            Ok(7)
        });
        let mut ticks = 0;
        loop {
            tokio::select! {
                biased;
                value = &mut value => {
                    assert_eq!(value.unwrap(), 7);
                    return Ok(ticks);
                }
                () = tokio::task::yield_now() => {
                    ticks += 1;
                    if ticks == 5 {
                        gate.open();
                    }
                }
            }
        }
    });
    assert_eq!(g.wait().await, OK);
    assert!(ticks.take().unwrap() >= 5);
}

async fn a_task_that_gives_a_handle_up_resumes_with_the_next_permit() {
    let (g, give_up, gate) = (limited(1), Gate::new(), Gate::new());
    let (spawner, gave_up, gated) = (g.spawner(), give_up.clone(), gate.clone());
    let (starts, told) = (Count::default(), Count::default());
    let (started, tells) = (starts.clone(), told.clone());
    g.go(async move {
        let value = spawner.spawn(async move {
            started.add();
            gated.pass().await;
            Ok(1)
        });
        tokio::select! {
            biased;
            _ = gave_up.pass() => tells.add(),
            _ = value => panic!("the other branch comes first"),
        };
        Ok(())
    });
    until(|| starts.get() == 1).await;
    give_up.open();
    yields(50).await;
    assert_eq!((told.get(), g.running()), (0, 1));
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(told.get(), 1);
}

async fn the_handle_of_an_ended_group_is_empty() {
    for waits in [false, true] {
        let (g, _ctx) = group();
        let (spawner, probe) = (g.spawner(), Probe::default());
        match waits {
            true => assert_eq!(g.wait().await, OK),
            false => drop(g),
        }
        let value = spawner.spawn(probe.wrap(async { Ok(1) }));
        assert_eq!((probe.polled(), probe.dropped()), (0, 1));
        assert_eq!(value.take(), None);
        assert!(value.await.is_err());
        let named = spawner.named("it").spawn(probe.wrap(async { Ok(1) }));
        assert!(named.await.is_err());
    }
}

async fn the_handle_resolves_when_the_permit_is_released() {
    for ends in [true, false] {
        for _ in 0..50 {
            let g = Arc::new(G::new());
            g.set_limit(1);
            let gate = Gate::new();
            let gated = gate.clone();
            let mut value = g.spawn(async move {
                gated.pass().await;
                if ends { Ok(1) } else { Err("boom".to_owned()) }
            });
            let (seen, group) = (Log::new(), Arc::downgrade(&g));
            let sees = seen.clone();
            let waker = waker(move || {
                let g = group.upgrade().unwrap();
                let started = g.try_go(async { Ok(()) }).is_ok();
                sees.add((g.queued(), started));
            });
            assert!(poll_with(&mut value, &waker).is_pending());
            gate.open();
            until(|| seen.len() == 1).await;
            assert_eq!(seen.get(), [(0, true)]);
            assert_eq!(value.await.ok(), ends.then_some(1));
            let g = until_alone(g).await;
            assert_eq!(g.wait().await.is_ok(), ends);
        }
    }
}

async fn the_handle_resolves_before_the_task_counts_as_done() {
    for _ in 0..50 {
        let (g, _ctx) = group();
        let gate = Gate::new();
        let gated = gate.clone();
        let mut value = g.spawn(async move {
            gated.pass().await;
            Ok(1)
        });
        let spawner = g.spawner();
        let wait = Arc::new(Mutex::new(Box::pin(g.wait())));
        let (seen, waits) = (Log::new(), wait.clone());
        let sees = seen.clone();
        let waker = waker(move || {
            let noop = std::task::Waker::noop();
            let waits = poll_with(&mut *waits.lock().unwrap(), noop).is_pending();
            // And `wait` has not resolved, after which no task starts.
            sees.add((waits, spawner.try_go(async { Ok(()) }).is_ok()));
        });
        assert!(poll_with(&mut value, &waker).is_pending());
        gate.open();
        until(|| seen.len() == 1).await;
        assert_eq!(seen.get(), [(true, true)]);
        drop(waker);
        let wait = until_alone_with(wait).await;
        assert_eq!(wait.await, OK);
        assert_eq!(value.take(), Some(1));
    }
}

async fn until_alone_with<T>(mut shared: Arc<Mutex<T>>) -> T {
    loop {
        match Arc::try_unwrap(shared) {
            Ok(alone) => return alone.into_inner().unwrap(),
            Err(again) => shared = again,
        }
        tokio::task::yield_now().await;
    }
}

async fn a_waker_of_a_handle_may_call_back() {
    let (g, calls, gate) = (Arc::new(limited(1)), Count::default(), Gate::new());
    let gated = gate.clone();
    let value = g.spawn(async move {
        gated.pass().await;
        Ok(1)
    });
    let value = Arc::new(Mutex::new(value));
    let (group, called, back) = (Arc::downgrade(&g), calls.clone(), Arc::downgrade(&value));
    let waker = waker(move || {
        if let Some(g) = group.upgrade() {
            g.go(async { Ok(()) });
            g.set_limit(g.limit());
            let _ = (g.running(), g.queued(), format!("{g:?}"));
        }
        if let Some(value) = back.upgrade() {
            assert_eq!(value.lock().unwrap().take(), Some(1));
        }
        called.add();
    });
    assert!(poll_with(&mut *value.lock().unwrap(), &waker).is_pending());
    gate.open();
    until(|| calls.get() == 1).await;
    assert_eq!(until_alone(g).await.wait().await, OK);
}

async fn the_error_of_the_task_is_the_groups() {
    let (g, ctx) = group();
    let value = g.spawn(async { Err::<i32, _>("boom".to_owned()) });
    ctx.done().await;
    assert_eq!(ctx.cause().unwrap().to_string(), "boom");
    assert_eq!(g.wait().await.unwrap_err(), "boom");
    assert_eq!(value.take(), None);
}

#[test]
fn the_handle_of_a_task_is_none_after_a_runtime_shutdown() {
    for runtime in [current_thread(), two_workers()] {
        let (g, values) = runtime.block_on(async {
            let g = limited(2);
            let never = || std::future::pending::<Result<i32, String>>();
            let values: Vec<_> = (0..10).map(|_| g.spawn(never())).collect();
            yields(3).await;
            (g, values)
        });
        drop(runtime);
        current_thread().block_on(in_time(async {
            for value in values {
                assert!(value.await.is_err());
            }
            assert!(g.wait().await.is_err());
        }));
    }
}
