//! Reservations: waiting for a permit before there is work, and starting a task with it.

use std::future::pending;
use std::time::Duration;

use errgroup::{Context, ContextError, Group, Permit, TaskErrorKind};
use futures::FutureExt;

use crate::group_support::*;

const SECOND: Duration = Duration::from_secs(1);

both_flavours![
    idle_waits_for_a_permit_that_is_out,
    idle_waits_for_a_reservation_in_the_queue,
    a_permit_from_before_the_close_may_be_used,
    a_free_permit_is_given_at_once,
    without_a_limit_it_never_waits,
    nothing_happens_before_the_first_poll,
    every_way_to_start_a_task_uses_the_permit_up,
    go_with_and_go_blocking_hand_over_the_groups_context,
    a_cancellable_task_is_dropped_at_the_end,
    a_failure_of_its_task_is_the_groups,
    a_task_keeps_the_permit_until_it_has_finished,
    it_waits_in_the_same_queue_as_tasks,
    it_counts_as_queued_and_then_as_running,
    dropping_a_permit_starts_the_next_in_the_queue,
    dropping_a_reservation_loses_no_place_of_others,
    dropped_when_it_is_granted_it_gives_the_permit_back,
    a_higher_limit_resolves_it,
    a_lower_limit_takes_no_permit_away,
    a_pause_holds_it_back,
    the_end_of_the_context_resolves_it,
    a_failure_resolves_it,
    a_deadline_resolves_it_with_nothing_else_in_the_group,
    a_deadline_that_nobody_observed_resolves_it,
    a_permit_granted_before_the_end_is_not_handed_out_after_it,
    after_the_end_it_fails_at_once,
    dropping_the_group_resolves_it,
    an_abort_resolves_it,
    the_spawner_of_a_dropped_group_fails,
    the_wait_does_not_wait_for_a_permit,
    the_wait_does_not_wait_for_a_reservation,
    after_the_end_a_permit_starts_nothing,
    after_an_abort_a_permit_starts_nothing,
    after_the_wait_a_permit_starts_nothing_and_nothing_counts,
    a_refused_closure_is_dropped_outside_locks,
    a_permit_outlives_its_group,
    many_reservations_are_served_in_order,
    a_reservation_may_be_polled_by_another_task,
    a_try_go_does_not_overtake_it,
    it_makes_the_loop_yield,
    what_leaves_a_long_queue_changes_no_order,
    its_error_says_whether_the_group_is_closed_or_has_ended,
];

#[track_caller]
fn assert_counts(g: &G, running: usize, queued: usize) {
    assert_eq!((g.running(), g.queued()), (running, queued));
}

fn cause(error: &ContextError) -> String {
    error.cause().unwrap().to_string()
}

async fn idle_waits_for_a_permit_that_is_out() {
    let g = limited(2);
    let permit = g.reserve().await.unwrap();
    let mut idle = tokio_test::task::spawn(g.idle());
    assert!(idle.poll().is_pending());
    drop(permit);
    assert!(idle.is_woken());
    assert!(idle.poll().is_ready());
}

async fn idle_waits_for_a_reservation_in_the_queue() {
    let g = limited(0);
    let mut waits = Box::pin(g.reserve());
    assert!(futures::poll!(&mut waits).is_pending());
    let mut idle = tokio_test::task::spawn(g.idle());
    assert!(idle.poll().is_pending());
    drop(waits);
    assert!(idle.is_woken());
    assert!(idle.poll().is_ready());
}

async fn a_permit_from_before_the_close_may_be_used() {
    let g = limited(1);
    let permit = g.reserve().await.unwrap();
    g.close();
    let handle = permit.spawn(async { Ok(7) });
    assert_eq!(handle.await.unwrap(), 7);
    assert_eq!(g.wait().await, OK);
}

async fn a_free_permit_is_given_at_once() {
    for limit in [1, 4] {
        let g = limited(limit);
        let permits: Vec<_> = (0..limit)
            .map(|_| g.reserve().now_or_never().unwrap().unwrap())
            .collect();
        assert_counts(&g, limit, 0);
        assert!(g.reserve().now_or_never().is_none());
        assert_counts(&g, limit, 0);
        drop(permits);
        assert_counts(&g, 0, 0);
        assert_eq!(g.wait().await, OK);
    }
}

async fn without_a_limit_it_never_waits() {
    let (g, ran) = (G::new(), Count::default());
    let permits: Vec<_> = (0..100)
        .map(|_| g.reserve().now_or_never().unwrap().unwrap())
        .collect();
    assert_counts(&g, 100, 0);
    for permit in permits {
        let ran = ran.clone();
        permit.go(async move {
            ran.add();
            Ok(())
        });
    }
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 100);
}

async fn nothing_happens_before_the_first_poll() {
    let g = limited(1);
    let reserve = g.reserve();
    assert_counts(&g, 0, 0);
    let first = g.reserve().await.unwrap();
    assert_counts(&g, 1, 0);
    drop(first);
    let permit = reserve.await.unwrap();
    assert_counts(&g, 1, 0);
    drop(permit);
    assert_eq!(g.wait().await, OK);
}

async fn every_way_to_start_a_task_uses_the_permit_up() {
    for limit in [1, 4] {
        let (g, ran) = (limited(limit), Count::default());
        let counts = || {
            let ran = ran.clone();
            async move {
                yields(2).await;
                ran.add();
                Ok(())
            }
        };
        g.reserve().await.unwrap().go(counts());
        let made = counts();
        g.reserve().await.unwrap().go_with(|_| made);
        g.reserve().await.unwrap().go_cancellable(counts());
        let counted = ran.clone();
        g.reserve().await.unwrap().go_blocking(move |_| {
            counted.add();
            Ok(())
        });
        let value = g.reserve().await.unwrap().spawn(async { Ok(7) });
        assert_eq!(value.await.unwrap(), 7);
        let permit = g.reserve().await.unwrap();
        assert_eq!(permit.spawn(async { Ok(8) }).await.unwrap(), 8);
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 4);
    }
}

async fn go_with_and_go_blocking_hand_over_the_groups_context() {
    let g = limited(2);
    let stops = |ctx: &Context| ctx.cause().map(|cause| cause.to_string());
    g.reserve().await.unwrap().go_with(move |ctx| async move {
        ctx.done().await;
        assert_eq!(stops(&ctx).unwrap(), "stop");
        Ok(())
    });
    let gate = std::sync::Arc::new(std::sync::Barrier::new(2));
    let passes = gate.clone();
    g.reserve().await.unwrap().go_blocking(move |ctx| {
        passes.wait();
        passes.wait();
        assert_eq!(stops(&ctx).unwrap(), "stop");
        Ok(())
    });
    let passed = tokio::task::spawn_blocking({
        let gate = gate.clone();
        move || _ = gate.wait()
    });
    passed.await.unwrap();
    g.cancel_with("stop");
    gate.wait();
    assert_eq!(g.wait().await, OK);
}

async fn a_cancellable_task_is_dropped_at_the_end() {
    let (g, probe) = (limited(1), Probe::default());
    let permit = g.reserve().await.unwrap();
    permit.go_cancellable(probe.wrap(pending()));
    until(|| probe.polled() == 1).await;
    g.cancel_with("stop");
    let errors = g.wait_all().await.unwrap_err();
    assert!(
        errors.to_string().ends_with("was stopped: stop"),
        "{errors}"
    );
    probe.assert_all_dropped();
}

async fn a_failure_of_its_task_is_the_groups() {
    let (g, ctx) = group();
    let permit = g.reserve().await.unwrap();
    let line = line!() + 1;
    permit.go(async { Err("disk full".to_owned()) });
    ctx.done().await;
    let errors = g.wait_all().await.unwrap_err();
    let error = errors.iter().next().unwrap();
    assert_eq!(error.site().line(), line);
    assert_eq!(ctx.cause().unwrap().to_string(), "disk full");
}

async fn a_task_keeps_the_permit_until_it_has_finished() {
    let (g, gate) = (limited(1), Gate::new());
    let gated = gate.clone();
    g.reserve().await.unwrap().go(async move {
        gated.pass().await;
        Ok(())
    });
    let mut reserve = Box::pin(g.reserve());
    for _ in 0..10 {
        assert!(futures::poll!(&mut reserve).is_pending());
        yields(1).await;
    }
    assert_counts(&g, 1, 1);
    gate.open();
    drop(reserve.await.unwrap());
    assert_eq!(g.wait().await, OK);
}

async fn it_waits_in_the_same_queue_as_tasks() {
    let (g, log) = (limited(0), Log::new());
    let logs = |entry| {
        let log = log.clone();
        async move {
            log.add(entry);
            Ok(())
        }
    };
    g.go(logs("first"));
    let mut reserve = Box::pin(g.reserve());
    assert!(futures::poll!(&mut reserve).is_pending());
    g.go(logs("third"));
    assert_counts(&g, 0, 3);
    g.set_limit(1);
    let permit = reserve.await.unwrap();
    assert_eq!(log.get(), ["first"]);
    yields(10).await;
    assert_counts(&g, 1, 1);
    permit.go(logs("second"));
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get(), ["first", "second", "third"]);
}

async fn it_counts_as_queued_and_then_as_running() {
    let g = limited(1);
    let first = g.reserve().await.unwrap();
    let mut second = Box::pin(g.reserve());
    assert!(futures::poll!(&mut second).is_pending());
    assert_counts(&g, 1, 1);
    drop(first);
    // Granted, and not taken yet.
    assert_counts(&g, 1, 0);
    let second = second.await.unwrap();
    assert_counts(&g, 1, 0);
    drop(second);
    assert_counts(&g, 0, 0);
    assert_eq!(g.wait().await, OK);
}

async fn dropping_a_permit_starts_the_next_in_the_queue() {
    let (g, ran) = (limited(1), Count::default());
    let permit = g.reserve().await.unwrap();
    let runs = ran.clone();
    let admission = g.go(async move {
        runs.add();
        Ok(())
    });
    yields(5).await;
    assert_eq!(ran.get(), 0);
    drop(permit);
    assert!(admission.await.is_started());
    assert!(g.wait_all().await.is_ok());
    assert_eq!(ran.get(), 1);
}

async fn dropping_a_reservation_loses_no_place_of_others() {
    let (g, log) = (limited(0), Log::new());
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(g.reserve())).collect();
    for (number, reserve) in waiting.iter_mut().enumerate() {
        assert!(futures::poll!(reserve).is_pending());
        let log = log.clone();
        g.go(async move {
            log.add(number);
            Ok(())
        });
    }
    assert_counts(&g, 0, 10);
    drop(waiting.remove(0));
    drop(waiting.remove(3));
    drop(waiting.remove(1));
    assert_counts(&g, 0, 7);
    g.set_limit(1);
    for reserve in waiting {
        drop(reserve.await.unwrap());
    }
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get(), [0, 1, 2, 3, 4]);
}

async fn dropped_when_it_is_granted_it_gives_the_permit_back() {
    let g = limited(1);
    let permit = g.reserve().await.unwrap();
    let mut granted = Box::pin(g.reserve());
    assert!(futures::poll!(&mut granted).is_pending());
    let next = g.go(async { Ok(()) });
    drop(permit);
    assert_counts(&g, 1, 1);
    drop(granted);
    assert!(next.await.is_started());
    assert_eq!(g.wait().await, OK);
}

async fn a_higher_limit_resolves_it() {
    let g = limited(1);
    let first = g.reserve().await.unwrap();
    let mut second = Box::pin(g.reserve());
    assert!(futures::poll!(&mut second).is_pending());
    g.set_limit(2);
    let second = second.await.unwrap();
    assert_counts(&g, 2, 0);
    drop((first, second));
    assert_eq!(g.wait().await, OK);
}

async fn a_lower_limit_takes_no_permit_away() {
    let g = limited(2);
    let first = g.reserve().await.unwrap();
    let second = g.reserve().await.unwrap();
    g.set_limit(1);
    assert_counts(&g, 2, 0);
    let (one, two) = (first.spawn(async { Ok(1) }), second.spawn(async { Ok(2) }));
    assert_eq!(g.wait().await, OK);
    assert_eq!((one.take(), two.take()), (Some(1), Some(2)));
}

async fn a_pause_holds_it_back() {
    let g = limited(0);
    let mut reserve = Box::pin(g.reserve());
    for _ in 0..5 {
        assert!(futures::poll!(&mut reserve).is_pending());
        yields(1).await;
    }
    g.set_limit(None);
    drop(reserve.await.unwrap());
    assert_eq!(g.wait().await, OK);
}

async fn the_end_of_the_context_resolves_it() {
    let g = limited(1);
    let kept = g.reserve().await.unwrap();
    let waiting = tokio::spawn(g.reserve());
    until(|| g.queued() == 1).await;
    g.cancel_with("stop");
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.is_cancelled());
    assert_eq!(cause(&error), "stop");
    assert_counts(&g, 1, 0);
    drop(kept);
    assert!(
        g.wait_all().await.is_ok(),
        "a reservation that fails is no failure"
    );
}

async fn a_failure_resolves_it() {
    let (g, gate) = (limited(1), Gate::new());
    let gated = gate.clone();
    g.go(async move {
        gated.pass().await;
        Err("disk full".to_owned())
    });
    let waiting = tokio::spawn(g.reserve());
    until(|| g.queued() == 1).await;
    gate.open();
    assert_eq!(cause(&waiting.await.unwrap().unwrap_err()), "disk full");
    assert_counts(&g, 0, 0);
    assert_eq!(g.wait().await, Err("disk full".to_owned()));
}

async fn a_deadline_resolves_it_with_nothing_else_in_the_group() {
    let ctx = Context::background().with_timeout(SECOND / 20);
    let (g, _) = G::with_context(&ctx);
    g.set_limit(0);
    // On a task of its own, so that nothing but the group wakes it.
    let waiting = tokio::spawn(g.reserve());
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.is_deadline_exceeded());
    assert_eq!(g.queued(), 0);
    assert_eq!(g.wait().await, OK);
}

async fn a_deadline_that_nobody_observed_resolves_it() {
    let ctx = Context::background().with_timeout(Duration::from_millis(200));
    let (g, _) = G::with_context(&ctx);
    let permit = g.reserve().await.unwrap();
    tokio::time::sleep(Duration::from_millis(210)).await;
    let error = g.reserve().await.unwrap_err();
    assert!(error.is_deadline_exceeded());
    permit.go(async { unreachable!("the deadline has passed") });
    assert!(g.wait().await.unwrap_err().contains("deadline"));
}

async fn a_permit_granted_before_the_end_is_not_handed_out_after_it() {
    let g = limited(1);
    let permit = g.reserve().await.unwrap();
    let mut granted = Box::pin(g.reserve());
    assert!(futures::poll!(&mut granted).is_pending());
    drop(permit);
    assert_counts(&g, 1, 0);
    g.cancel_with("stop");
    assert_eq!(cause(&granted.await.unwrap_err()), "stop");
    assert_counts(&g, 0, 0);
    assert_eq!(g.wait().await, OK);
}

async fn after_the_end_it_fails_at_once() {
    let g = limited(1);
    g.cancel_with("stop");
    let error = g.reserve().now_or_never().unwrap().unwrap_err();
    assert_eq!(cause(&error), "stop");
    assert_counts(&g, 0, 0);
    assert_eq!(g.wait().await, OK);
}

async fn dropping_the_group_resolves_it() {
    let g = limited(0);
    let waiting = tokio::spawn(g.reserve());
    until(|| g.queued() == 1).await;
    drop(g);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(cause(&error), "the group was dropped");
}

async fn an_abort_resolves_it() {
    let g = limited(0);
    let waiting = tokio::spawn(g.reserve());
    until(|| g.queued() == 1).await;
    g.abort();
    assert_eq!(
        cause(&waiting.await.unwrap().unwrap_err()),
        "the group was aborted"
    );
    assert_eq!(g.wait().await, OK);
}

async fn the_spawner_of_a_dropped_group_fails() {
    let g = limited(1);
    let spawner = g.spawner();
    let before = spawner.reserve();
    drop(spawner.reserve().await.unwrap());
    drop(g);
    for reserve in [before, spawner.reserve()] {
        let error = reserve.await.unwrap_err();
        assert_eq!(cause(&error), "the group was dropped");
    }
}

async fn the_wait_does_not_wait_for_a_permit() {
    let g = limited(1);
    let permit = g.reserve().await.unwrap();
    assert_eq!(g.wait().await, OK);
    drop(permit);
}

async fn the_wait_does_not_wait_for_a_reservation() {
    for limit in [0, 1] {
        let g = limited(limit);
        let kept = (limit > 0).then(|| g.reserve().now_or_never().unwrap().unwrap());
        let mut waiting = Box::pin(g.reserve());
        assert!(futures::poll!(&mut waiting).is_pending());
        assert_eq!(g.wait().await, OK);
        // Also when its permit could be given now.
        drop(kept);
        let error = waiting.await.unwrap_err();
        assert_eq!(cause(&error), "the group's wait has finished");
    }
}

/// Starts a task in each way, with permits of their own. None may run.
fn start_all(permits: Vec<Permit<String>>, probe: &Probe) {
    let [a, b, c, d, e]: [_; 5] = permits.try_into().unwrap();
    let never = || probe.wrap(async { unreachable!("the context is done") });
    a.go(never());
    let made = never();
    b.go_with(|_| made);
    c.go_cancellable(never());
    d.go_blocking({
        let never = never();
        move |_| {
            drop(never);
            unreachable!("the context is done")
        }
    });
    let value = e.spawn(probe.wrap(async { Ok(1) }));
    drop(value);
}

async fn five_permits(g: &G) -> Vec<Permit<String>> {
    let mut permits = Vec::new();
    for _ in 0..5 {
        permits.push(g.reserve().await.unwrap());
    }
    permits
}

async fn after_the_end_a_permit_starts_nothing() {
    let (g, probe) = (limited(5), Probe::default());
    let permits = five_permits(&g).await;
    g.cancel_with("stop");
    start_all(permits, &probe);
    assert_eq!(g.running(), 0);
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(errors.iter().count(), 5);
    for error in &errors {
        assert!(matches!(error.kind(), TaskErrorKind::Aborted(error) if cause(error) == "stop"));
    }
    assert_eq!(probe.polled(), 0);
    probe.assert_all_dropped();
}

async fn after_an_abort_a_permit_starts_nothing() {
    let (g, probe) = (limited(5), Probe::default());
    let permits = five_permits(&g).await;
    g.abort();
    start_all(permits, &probe);
    assert_eq!(g.wait_all().await.unwrap_err().iter().count(), 5);
    until(|| probe.dropped() == probe.made()).await;
    assert_eq!(probe.polled(), 0);
}

async fn after_the_wait_a_permit_starts_nothing_and_nothing_counts() {
    let (g, probe) = (limited(5), Probe::default());
    let permits = five_permits(&g).await;
    assert_eq!(g.wait().await, OK);
    start_all(permits, &probe);
    until(|| probe.dropped() == probe.made()).await;
    assert_eq!(probe.polled(), 0);
}

async fn a_refused_closure_is_dropped_outside_locks() {
    let g = std::sync::Arc::new(limited(2));
    let permit = g.reserve().await.unwrap();
    g.cancel();
    let (asks, asked) = (g.clone(), Count::default());
    let count = asked.clone();
    let on_drop = OnDrop(move || {
        // Each takes the lock of the group.
        assert_eq!(asks.running(), 0);
        assert!(asks.reserve().now_or_never().unwrap().is_err());
        count.add();
    });
    permit.go(async move {
        drop(on_drop);
        Ok(())
    });
    assert_eq!(asked.get(), 1);
    let g = until_alone(g).await;
    assert!(g.wait().await.is_err());
}

async fn a_permit_outlives_its_group() {
    let g = limited(1);
    let (spawner, permit) = (g.spawner(), g.reserve().await.unwrap());
    drop(g);
    permit.go(async { unreachable!("the group was dropped") });
    assert!(spawner.reserve().await.is_err());
}

async fn many_reservations_are_served_in_order() {
    for limit in [1, 4] {
        let (g, log) = (limited(0), Log::new());
        let waiting: Vec<_> = (0..50)
            .map(|number| {
                let (reserve, log) = (g.reserve(), log.clone());
                tokio::spawn(async move {
                    let permit = reserve.await.unwrap();
                    log.add(number);
                    permit.go(async {
                        yields(1).await;
                        Ok(())
                    });
                })
            })
            .collect();
        until(|| g.queued() == 50).await;
        g.set_limit(limit);
        for waiting in waiting {
            waiting.await.unwrap();
        }
        assert_eq!(g.wait().await, OK);
        let mut order = log.get();
        assert_eq!(order.len(), 50);
        order.sort();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }
}

async fn a_reservation_may_be_polled_by_another_task() {
    let g = limited(1);
    let first = g.reserve().await.unwrap();
    let mut waiting = Box::pin(g.reserve());
    assert!(futures::poll!(&mut waiting).is_pending());
    let other = tokio::spawn(waiting);
    yields(5).await;
    drop(first);
    drop(other.await.unwrap().unwrap());
    assert_eq!(g.wait().await, OK);
}

async fn a_try_go_does_not_overtake_it() {
    let g = limited(1);
    let first = g.reserve().await.unwrap();
    assert!(g.try_go(async { Ok(()) }).is_err());
    let mut second = Box::pin(g.reserve());
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    assert!(g.try_go(async { Ok(()) }).is_err());
    drop(second);
    assert!(g.try_go(async { Ok(()) }).is_ok());
    assert_eq!(g.wait().await, OK);
}

/// A loop whose reservations are ready at once lets other tasks of its thread run.
async fn it_makes_the_loop_yield() {
    let g = Group::<String>::new();
    let ended = Group::<String>::new();
    ended.cancel();
    let spins = async {
        loop {
            drop(g.reserve().await);
            drop(ended.reserve().await);
            drop(ended.spawner().reserve().await);
        }
    };
    let other = async { yields(3).await };
    tokio::select! {
        biased;
        () = spins => {}
        () = other => {}
    }
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.wait().await, OK);
}

/// What has a position in the queue, on its way.
enum Queued {
    /// A task that was started, whose admission is awaited.
    Task(tokio::task::JoinHandle<errgroup::Admitted>),
    Handle(errgroup::TaskHandle<()>),
    Reservation(tokio::task::JoinHandle<()>),
}

/// Most of a long queue is dropped or stopped, in any order. What stays is still found by those who
/// await it, and starts in its order.
async fn what_leaves_a_long_queue_changes_no_order() {
    let mut random = Random::new();
    for _ in 0..20 {
        let (g, order) = (std::sync::Arc::new(limited(0)), Log::new());
        let length = 1 + random.below(400);
        let mut queue = Vec::new();
        for number in 0..length {
            let order = order.clone();
            let runs = async move {
                order.add(number);
                Ok(())
            };
            queue.push((
                number,
                match random.below(5) {
                    0 => Queued::Task(tokio::spawn(g.go(runs))),
                    1 | 2 => Queued::Handle(g.spawn(runs)),
                    _ => {
                        let reserve = g.reserve();
                        Queued::Reservation(tokio::spawn(
                            async move { reserve.await.unwrap().go(runs) },
                        ))
                    }
                },
            ));
            until(|| g.queued() == number + 1).await;
        }
        let stays = random.below(100);
        for _ in 0..2 * length {
            let at = random.below(queue.len());
            match &queue[at].1 {
                Queued::Task(_) => {}
                _ if number_stays(queue[at].0, stays) => {}
                Queued::Handle(handle) => {
                    handle.abort();
                    queue.swap_remove(at);
                }
                Queued::Reservation(reservation) => {
                    reservation.abort();
                    queue.swap_remove(at);
                }
            }
            if queue.is_empty() {
                break;
            }
        }
        until(|| g.queued() == queue.len()).await;
        g.set_limit(1);
        let mut expected: Vec<_> = queue.iter().map(|(number, _)| *number).collect();
        expected.sort_unstable();
        for (_, queued) in queue {
            match queued {
                Queued::Task(admission) => assert!(admission.await.unwrap().is_started()),
                Queued::Handle(handle) => handle.await.unwrap(),
                Queued::Reservation(reservation) => reservation.await.unwrap(),
            }
        }
        let g = until_alone(g).await;
        assert_eq!(g.wait().await, OK);
        assert_eq!(order.get(), expected);
    }
}

/// Whether this percentage of the numbers, in no pattern, has this one.
fn number_stays(number: usize, percentage: usize) -> bool {
    number * 7919 % 101 < percentage
}

async fn its_error_says_whether_the_group_is_closed_or_has_ended() {
    for name in [None, Some("ingest")] {
        let g = limited(1);
        name.into_iter().for_each(|name| g.set_name(name));
        let permit = g.reserve().await.unwrap();
        let mut waits = Box::pin(g.reserve());
        assert!(futures::poll!(&mut waits).is_pending());
        g.close();
        let closed = cause(&g.reserve().await.unwrap_err());
        let spawner = g.spawner();
        let through_spawner = cause(&spawner.reserve().await.unwrap_err());
        assert_eq!(g.wait().await, OK);
        let while_it_waited = cause(&waits.await.unwrap_err());
        let later = cause(&spawner.reserve().await.unwrap_err());
        drop(permit);
        let (is_closed, has_ended) = match name {
            None => ("the group is closed", "the group's wait has finished"),
            Some(_) => (
                "group \"ingest\" is closed",
                "the wait of group \"ingest\" has finished",
            ),
        };
        assert_eq!([closed, through_spawner], [is_closed; 2]);
        assert_eq!([while_it_waited, later], [has_ended; 2]);
    }
}

#[test]
fn a_permit_and_its_future_are_send_and_owned() {
    fn is_send<T: Send + 'static>(_: &T) {}
    fn is_sync<T: Sync>() {}
    let reserve = G::new().reserve();
    is_send(&reserve);
    is_send(&G::new().spawner().reserve());
    is_sync::<Permit<String>>();
}

#[test]
#[should_panic(expected = "reserve called outside a tokio runtime")]
fn outside_a_runtime_it_panics() {
    drop(G::new().reserve().now_or_never());
}

#[tokio::test]
async fn its_debug_text_does_not_block() {
    let g = limited(1);
    let permit = g.reserve().await.unwrap();
    assert_eq!(format!("{permit:?}"), "Permit { .. }");
}
