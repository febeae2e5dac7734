//! Tasks that are not `Send`: they run in a `LocalSet`, under the same limit and in the same queue.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use errgroup::{Context, TaskErrorKind};
use tokio::runtime::Handle;
use tokio::task::LocalSet;

use crate::group_support::*;

both_flavours![
    what_is_not_send_runs_in_a_local_set,
    it_is_under_the_same_limit_as_the_others,
    it_is_in_the_same_queue_as_the_others_first_in_first_out,
    its_admission_says_whether_it_has_started,
    a_local_task_that_awaits_an_admission_lends_its_permit,
    a_local_task_that_awaits_a_handle_lends_its_permit,
    its_error_ends_the_context_and_is_the_error,
    its_panic_cancels_the_context_and_is_resumed_by_wait,
    a_panic_in_its_drop_is_its_panic,
    one_that_is_queued_when_the_context_ends_is_dropped_unpolled,
    after_the_end_nothing_starts,
    an_abort_drops_it_in_every_state,
    a_grace_aborts_it,
    dropping_the_group_aborts_it,
    when_its_local_set_is_dropped_half_way_wait_still_ends,
    when_its_local_set_is_dropped_a_new_group_still_ends,
    a_dropped_local_set_removes_its_tasks_from_the_queue,
    a_task_queued_behind_a_dropped_one_still_starts,
    admissions_of_dropped_local_tasks_say_so,
    dropped_local_tasks_leave_the_order_of_the_others,
    many_waiting_local_tasks_are_dropped_without_a_search,
    outside_a_local_set_it_panics_and_the_group_still_works,
    a_spawner_of_a_dropped_group_drops_it,
    wait_may_be_awaited_outside_its_local_set,
];

async fn in_local_set<F: Future>(future: F) -> F::Output {
    LocalSet::new().run_until(future).await
}

async fn what_is_not_send_runs_in_a_local_set() {
    in_local_set(async {
        let (g, _ctx) = group();
        let sum = Rc::new(Cell::new(0));
        for number in 0..10 {
            let sum = sum.clone();
            g.go_local(async move {
                tokio::task::yield_now().await;
                sum.set(sum.get() + number);
                Ok(())
            });
        }
        assert_eq!(g.wait().await, OK);
        assert_eq!(Rc::into_inner(sum).unwrap().get(), 45);
    })
    .await;
}

async fn it_is_under_the_same_limit_as_the_others() {
    for limit in 1..4 {
        let (gauge, ran) = (Gauge::default(), Count::default());
        in_local_set(async {
            let g = limited(limit);
            for number in 0..60 {
                let (gauge, ran) = (gauge.clone(), ran.clone());
                let task = async move {
                    let _alive = gauge.enter();
                    yields(number % 4).await;
                    ran.add();
                    Ok(())
                };
                match number % 3 {
                    0 => g.go(task),
                    _ => g.go_local(task),
                };
                assert!(g.running() <= limit);
            }
            assert_eq!(g.wait().await, OK);
        })
        .await;
        assert_eq!(ran.get(), 60);
        assert!(gauge.most() <= limit, "{} at limit {limit}", gauge.most());
    }
}

async fn it_is_in_the_same_queue_as_the_others_first_in_first_out() {
    let log = Log::new();
    in_local_set(async {
        let g = limited(1);
        for number in 0..30 {
            let log = log.clone();
            let task = async move {
                tokio::task::yield_now().await;
                log.add(number);
                Ok(())
            };
            match number % 3 {
                0 => g.go(task),
                1 => g.go_local(task),
                _ => g.go_blocking(move |_| Handle::current().block_on(task)),
            };
        }
        assert_eq!(g.wait().await, OK);
    })
    .await;
    assert!(log.get().into_iter().eq(0..30), "{:?}", log.get());
}

async fn its_admission_says_whether_it_has_started() {
    in_local_set(async {
        let (g, gate) = (limited(1), Gate::new());
        let gated = gate.clone();
        let first = g.go_local(async move {
            gated.pass().await;
            Ok(())
        });
        assert!(first.await.is_started());
        let mut second = g.go_local(async { Ok(()) });
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!((g.running(), g.queued()), (1, 1));
        assert!(g.try_go(async { Ok(()) }).is_err());
        gate.open();
        assert!(second.await.is_started());
        until(|| g.running() == 0).await;
        g.set_limit(0);
        let third = g.go_local(async { Ok(()) });
        g.cancel();
        assert!(!third.await.is_started());
        assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
    })
    .await;
}

async fn a_local_task_that_awaits_an_admission_lends_its_permit() {
    in_local_set(async {
        let (g, log) = (limited(1), Log::new());
        let (spawner, logs) = (g.spawner(), log.clone());
        g.go_local(async move {
            let not_send = Rc::new(());
            for sibling in ["a sibling", "a local sibling"] {
                let inner = logs.clone();
                let task = async move {
                    tokio::task::yield_now().await;
                    inner.add(sibling);
                    Ok(())
                };
                let admission = match sibling {
                    "a sibling" => spawner.go(task),
                    _ => spawner.go_local(task),
                };
                assert!(admission.await.is_started());
                logs.add("goes on");
            }
            drop(not_send);
            Ok(())
        });
        assert_eq!(g.wait().await, OK);
        assert_eq!(
            log.get(),
            ["a sibling", "goes on", "a local sibling", "goes on"]
        );
    })
    .await;
}

async fn a_local_task_that_awaits_a_handle_lends_its_permit() {
    in_local_set(async {
        let (g, gauge) = (limited(1), Gauge::default());
        let (spawner, inner) = (g.spawner(), gauge.clone());
        g.go_local(async move {
            let not_send = Rc::new(7);
            let gauge = inner.clone();
            let value = spawner.spawn(async move {
                let _alive = gauge.enter();
                yields(3).await;
                Ok(6)
            });
            assert_eq!(value.await.unwrap() * *not_send, 42);
            let _alive = inner.enter();
            tokio::task::yield_now().await;
            Ok(())
        });
        assert_eq!(g.wait().await, OK);
        assert_eq!(gauge.most(), 1);
    })
    .await;
}

async fn its_error_ends_the_context_and_is_the_error() {
    in_local_set(async {
        let (g, ctx) = group();
        g.go_local(async { Err("boom".to_owned()) });
        g.go_with(|ctx| async move { Err(ctx.done().await.to_string()) });
        assert_eq!(g.wait().await.unwrap_err(), "boom");
        assert_eq!(ctx.cause().unwrap().to_string(), "boom");
    })
    .await;
}

async fn its_panic_cancels_the_context_and_is_resumed_by_wait() {
    in_local_set(async {
        let (g, ctx) = group();
        g.go_with(|ctx| async move { Err(ctx.done().await.to_string()) });
        g.named("it").go_local(async { panic!("at step {}", 3) });
        assert_eq!(text(panic_of(g.wait()).await), "at step 3");
        let cause = ctx.cause().unwrap().to_string();
        assert!(cause.starts_with("task \"it\"") && cause.ends_with("panicked: at step 3"));
    })
    .await;
}

async fn a_panic_in_its_drop_is_its_panic() {
    // Held by the future, not by its body: it is dropped after the end.
    struct Bomb(Rc<()>);

    impl Future for Bomb {
        type Output = Result<(), String>;

        fn poll(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Self::Output> {
            std::task::Poll::Ready(Ok(()))
        }
    }

    impl Drop for Bomb {
        fn drop(&mut self) {
            let last = Rc::strong_count(&self.0) == 1;
            assert!(!last, "in drop");
        }
    }

    for queued in [false, true] {
        in_local_set(async {
            let g = limited(if queued { 0 } else { 1 });
            g.go_local(Bomb(Rc::new(())));
            if queued {
                g.cancel();
            }
            assert_eq!(text(panic_of(g.wait()).await), "in drop");
        })
        .await;
    }
}

async fn one_that_is_queued_when_the_context_ends_is_dropped_unpolled() {
    in_local_set(async {
        let (g, probe) = (limited(0), Probe::default());
        let admissions: Vec<_> = (0..5)
            .map(|_| g.go_local(probe.wrap(async { Ok(()) })))
            .collect();
        yields(3).await;
        g.cancel();
        for admission in admissions {
            assert!(!admission.await.is_started());
        }
        assert_eq!(g.queued(), 0);
        let errors = g.wait_all().await.unwrap_err();
        assert_eq!((errors.len(), probe.polled()), (5, 0));
        for error in &errors {
            assert!(matches!(error.kind(), TaskErrorKind::Aborted(_)));
            assert_eq!(error.elapsed(), Duration::ZERO);
        }
        probe.assert_all_dropped();
    })
    .await;
}

async fn after_the_end_nothing_starts() {
    in_local_set(async {
        let (g, probe) = (limited(1), Probe::default());
        g.cancel();
        let admission = g.go_local(probe.wrap(async { Ok(()) }));
        assert!(!admission.await.is_started());
        assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
        assert_eq!(probe.polled(), 0);
        probe.assert_all_dropped();
    })
    .await;
}

/// Ended, running, started and unpolled, and queued.
fn in_every_state(g: &G, probe: &Probe) {
    g.set_limit(6);
    for _ in 0..3 {
        g.go_local(probe.wrap(async { Ok(()) }));
    }
    for _ in 0..10 {
        g.go_local(probe.wrap(std::future::pending()));
        g.go(probe.wrap(std::future::pending()));
    }
}

async fn an_abort_drops_it_in_every_state() {
    for turns in 0..20 {
        in_local_set(async {
            let (g, _ctx) = group();
            let probe = Probe::default();
            in_every_state(&g, &probe);
            yields(turns).await;
            g.abort();
            assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
            probe.assert_all_dropped();
        })
        .await;
    }
}

async fn a_grace_aborts_it() {
    in_local_set(async {
        let (g, _ctx) = group();
        g.set_grace(Duration::ZERO);
        let probe = Probe::default();
        in_every_state(&g, &probe);
        yields(20).await;
        g.cancel();
        assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
        probe.assert_all_dropped();
    })
    .await;
}

async fn dropping_the_group_aborts_it() {
    for turns in 0..20 {
        in_local_set(async {
            let (g, ctx) = group();
            let probe = Probe::default();
            in_every_state(&g, &probe);
            yields(turns).await;
            drop(g);
            assert!(ctx.is_done());
            until(|| probe.dropped() == probe.made()).await;
            let polled = probe.polled();
            yields(20).await;
            assert_eq!(probe.polled(), polled);
        })
        .await;
    }
}

async fn when_its_local_set_is_dropped_half_way_wait_still_ends() {
    for turns in 0..20 {
        let set = LocalSet::new();
        let (probe, ctx, g) = set
            .run_until(async {
                let (g, ctx) = group();
                let probe = Probe::default();
                in_every_state(&g, &probe);
                yields(turns).await;
                (probe, ctx, g)
            })
            .await;
        drop(set);
        // It is a failure of the group, which cancels the others.
        assert!(ctx.is_done());
        assert_eq!(g.queued(), 0);
        g.abort();
        let error = g.wait().await.unwrap_err();
        assert_eq!(error, "context cancelled");
        probe.assert_all_dropped();
    }
}

/// A group from `Group::new`, in which no failure cancels the context. Local tasks run and wait in
/// it, and their `LocalSet` is dropped.
async fn lost_their_set(limit: usize, tasks: usize) -> (G, Probe) {
    let set = LocalSet::new();
    let (g, probe) = (G::new(), Probe::default());
    g.set_limit(limit);
    set.run_until(async {
        for _ in 0..tasks {
            g.go_local(probe.wrap(std::future::pending()));
        }
        yields(5).await;
    })
    .await;
    drop(set);
    probe.assert_all_dropped();
    (g, probe)
}

async fn when_its_local_set_is_dropped_a_new_group_still_ends() {
    for limit in 0..4 {
        let (g, _probe) = lost_their_set(limit, 3).await;
        assert!(!g.context().is_done());
        assert_eq!(g.running(), 0);
        let error = g.wait().await.unwrap_err();
        assert_eq!(error, "context cancelled", "limit {limit}");
    }

    // While the permit is taken and `wait` is already waiting.
    let gate = Gate::new();
    let gated = gate.clone();
    let set = LocalSet::new();
    let g = G::new();
    g.set_limit(1);
    g.go(async move {
        gated.pass().await;
        Ok(())
    });
    set.run_until(async {
        g.go_local(std::future::pending());
        yields(5).await;
    })
    .await;
    drop(set);
    let mut wait = Box::pin(g.wait());
    assert!(futures::poll!(&mut wait).is_pending());
    gate.open();
    assert_eq!(wait.await.unwrap_err(), "context cancelled");
}

async fn a_dropped_local_set_removes_its_tasks_from_the_queue() {
    let (g, _probe) = lost_their_set(0, 3).await;
    assert_eq!((g.running(), g.queued()), (0, 0));
    g.set_limit(1);
    assert!(g.try_go(async { Ok(()) }).is_ok());
    assert!(g.wait().await.is_err());
}

async fn a_task_queued_behind_a_dropped_one_still_starts() {
    let (g, gate, ran) = (G::new(), Gate::new(), Count::default());
    g.set_limit(1);
    let set = LocalSet::new();
    let gated = gate.clone();
    g.go(async move {
        gated.pass().await;
        Ok(())
    });
    set.run_until(async {
        for number in 0..9 {
            match number % 3 {
                0 => _ = g.go(count(&ran)),
                _ => _ = g.go_local(std::future::pending()),
            }
        }
        yields(5).await;
    })
    .await;
    drop(set);
    gate.open();
    assert!(g.wait().await.is_err());
    assert_eq!(ran.get(), 3);
}

fn count(ran: &Count) -> impl Future<Output = Result<(), String>> + use<> {
    let ran = ran.clone();
    async move {
        ran.add();
        Ok(())
    }
}

async fn outside_a_local_set_it_panics_and_the_group_still_works() {
    let (g, probe) = (limited(1), Probe::default());
    for _ in 0..3 {
        let future = probe.wrap(async { Ok(()) });
        panic_in(|| drop(g.go_local(future)));
    }
    assert_eq!((g.running(), g.queued()), (0, 0));
    assert_eq!((probe.polled(), probe.dropped()), (0, 3));
    assert!(!g.context().is_done());
    let ran = Count::default();
    g.go(count(&ran));
    g.go(count(&ran));
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 2);
}

async fn a_spawner_of_a_dropped_group_drops_it() {
    in_local_set(async {
        let (g, _ctx) = group();
        let (spawner, probe) = (g.spawner(), Probe::default());
        drop(g);
        let admission = spawner.go_local(probe.wrap(async { Ok(()) }));
        assert!(!admission.await.is_started());
        assert_eq!((probe.polled(), probe.dropped()), (0, 1));
    })
    .await;
}

async fn wait_may_be_awaited_outside_its_local_set() {
    let set = LocalSet::new();
    let (g, ran) = (limited(2), Count::default());
    set.run_until(async {
        for _ in 0..10 {
            g.go_local(count(&ran));
        }
    })
    .await;
    let (waited, ()) = futures::join!(g.wait(), set);
    assert_eq!(waited, OK);
    assert_eq!(ran.get(), 10);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_a_permit_is_dropped_at_a_deadline() {
    let second = Duration::from_secs(1);
    in_time(in_local_set(async move {
        let parent = Context::background().with_timeout(second);
        let (g, _ctx) = G::with_context(&parent);
        g.set_limit(0);
        let probe = Probe::default();
        g.go_local(probe.wrap(async { Ok(()) }));
        assert_eq!(g.wait().await.unwrap_err(), "context deadline exceeded");
        assert_eq!(probe.polled(), 0);
        probe.assert_all_dropped();
    }))
    .await;
}

/// A paused group that is resumed after some of its local tasks were dropped.
fn paused() -> G {
    let g = G::new();
    g.set_limit(0);
    g
}

async fn admissions_of_dropped_local_tasks_say_so() {
    let (g, log) = (paused(), Log::new());
    let set = LocalSet::new();
    let logs = |name| {
        let log = log.clone();
        async move {
            log.add(name);
            Ok(())
        }
    };
    let mut before = Box::pin(g.go(logs("before")));
    assert!(futures::poll!(&mut before).is_pending());
    let mut gone: Vec<_> = {
        let _inside = set.enter();
        (0..3).map(|_| g.go_local(logs("gone"))).collect()
    };
    assert!(futures::poll!(&mut gone[0]).is_pending());
    assert_eq!(g.queued(), 4);
    drop(set);
    assert_eq!(g.queued(), 1);
    // It takes the queue entry of the first dropped task.
    let mut after = Box::pin(g.go(logs("after")));
    assert!(futures::poll!(&mut after).is_pending());
    assert_eq!(g.queued(), 2);
    let mut gone = gone.into_iter();
    assert!(!gone.next().unwrap().await.is_started());
    assert!(futures::poll!(&mut after).is_pending());
    drop(gone.next());
    g.set_limit(1);
    assert!(before.await.is_started());
    assert!(after.await.is_started());
    assert!(!gone.next().unwrap().await.is_started());
    assert!(
        g.wait().await.is_err(),
        "those that were dropped never started"
    );
    assert_eq!(log.get(), ["before", "after"]);
}

async fn dropped_local_tasks_leave_the_order_of_the_others() {
    let (g, log) = (paused(), Log::new());
    let mut random = Random::new();
    let mut sets = Vec::new();
    for number in 0..300 {
        let logs = log.clone();
        let task = async move {
            logs.add(number);
            Ok(())
        };
        if random.below(3) == 0 {
            g.go(task);
            continue;
        }
        let set = LocalSet::new();
        {
            let _inside = set.enter();
            g.go_local(task);
        }
        sets.push((number, set));
    }
    let mut gone = Vec::new();
    while !sets.is_empty() {
        let (number, set) = sets.swap_remove(random.below(sets.len()));
        drop(set);
        gone.push(number);
        assert_eq!(g.queued(), 300 - gone.len());
    }
    g.set_limit(1);
    assert!(
        g.wait().await.is_err(),
        "those that were dropped never started"
    );
    let left: Vec<_> = (0..300).filter(|number| !gone.contains(number)).collect();
    assert_eq!(log.get(), left);
}

/// A search for each would be 20,000,000,000 steps.
async fn many_waiting_local_tasks_are_dropped_without_a_search() {
    const MANY: usize = 200_000;
    let g = paused();
    let set = LocalSet::new();
    g.go(async { Ok(()) });
    {
        let _inside = set.enter();
        for _ in 0..MANY {
            g.go_local(std::future::pending());
        }
    }
    g.go(async { Ok(()) });
    assert_eq!(g.queued(), MANY + 2);
    drop(set);
    assert_eq!(g.queued(), 2);
    g.set_limit(1);
    assert!(g.wait().await.is_err());
}
