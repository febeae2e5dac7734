//! The limit of a fan-out: what may be given as one, a limit of 0, and a limit that changes while
//! the fan-out runs.

use std::future::{pending, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use errgroup::{Context, LimitHandle, fan_out_stream, fetch_all};
use futures::{FutureExt, StreamExt, stream};
use tokio::time::{Instant, sleep};

use crate::fan_out_support::*;
use crate::group_support::*;
use crate::support::{Drops, ms};

both_flavours! {
    a_limit_is_a_number_or_none,
    a_limit_of_zero_panics_if_there_is_an_item,
    a_limit_of_zero_without_items_is_no_error,
    a_limit_of_zero_drops_the_item_the_iterator_and_the_function,
    a_limit_of_zero_panics_when_a_stream_has_an_item,
    a_raised_limit_starts_items_at_once,
    a_lowered_limit_lets_the_items_in_flight_go_on,
    a_limit_of_zero_pauses_and_a_raise_resumes,
    a_fan_out_may_begin_paused,
    a_pause_before_the_first_poll_holds,
    the_limit_is_lowered_between_two_quick_items,
    a_stream_that_is_paused_keeps_its_item,
    none_is_no_limit_for_a_handle_too,
    a_handle_set_by_an_item_takes_effect,
    a_paused_fan_out_ends_with_its_context,
    outcomes_that_wait_count_against_a_new_limit,
    a_handle_has_no_effect_after_the_end,
    a_handle_keeps_nothing_of_the_fan_out_alive,
    limit_after_limit_handle_sets_the_limit_of_the_handle,
}

/// A function whose items wait for a gate, and the number of items that have started.
#[derive(Clone)]
struct Gated {
    gate: Gate,
    gauge: Gauge,
    started: Count,
}

impl Gated {
    fn new() -> Gated {
        Gated {
            gate: Gate::new(),
            gauge: Gauge::default(),
            started: Count::default(),
        }
    }

    fn f(
        &self,
    ) -> impl FnMut(Context, usize) -> futures::future::BoxFuture<'static, Result<usize, String>>
    + Send
    + 'static {
        let this = self.clone();
        move |_, item| {
            let this = this.clone();
            Box::pin(async move {
                let _alive = this.gauge.enter();
                this.started.add();
                this.gate.pass().await;
                Ok(item)
            })
        }
    }

    /// Lets the fan-out run for a while, and asserts that exactly this many items have started.
    async fn assert_started(&self, count: usize) {
        until(|| self.started.get() >= count).await;
        yields(50).await;
        assert_eq!(self.started.get(), count);
    }
}

/// Polls a future beside the test: a task on the runtime would be polled without it.
macro_rules! beside {
    ($future:expr, $test:expr) => {{
        let future = $future;
        let (output, ()) = in_time(async { tokio::join!(future, $test) }).await;
        output
    }};
}

async fn a_limit_is_a_number_or_none() {
    let f = |_, item: u64| async move { Ok::<_, String>(item) };
    assert_eq!(
        fetch_all(&background(), 2, 0..3, f).await.unwrap(),
        [0, 1, 2]
    );
    assert_eq!(
        fetch_all(&background(), Some(2), 0..3, f).await.unwrap(),
        [0, 1, 2]
    );
    assert_eq!(
        fetch_all(&background(), None, 0..3, f).await.unwrap(),
        [0, 1, 2]
    );
    in_each_place!(|at| {
        for limit in [Some(1), Some(7), None] {
            let (gauge, all) = (Gauge::default(), 20);
            let most = limit.unwrap_or(all);
            let enters = gauge.clone();
            let fan_out = fan_out(&background(), 0..all, move |_, _| {
                let (alive, gauge) = (enters.enter(), enters.clone());
                async move {
                    let _alive = alive;
                    // The first items wait for as many as may run at once.
                    until(|| gauge.most() >= most).await;
                    yields(1).await;
                    OK
                }
            });
            let settled = at!(fan_out.limit(limit)).settle().await;
            assert_eq!(settled.len(), all);
            assert_eq!(gauge.most(), most);
        }
    });
}

async fn a_limit_of_zero_panics_if_there_is_an_item() {
    let says = "a fan-out with a limit of 0 never starts its items: pass at least 1, ";
    let called = Count::default();
    let f = || {
        let called = called.clone();
        move |_: Context, _: u8| {
            called.add();
            ready(OK)
        }
    };
    let message = text(panic_of(fetch_all(&background(), 0, [1, 2, 3], f())).await);
    assert!(message.starts_with(says), "{message}");
    for end in each_end().filter(|end| !matches!(end.1, Kind::Quorum)) {
        let end = end.of(fan_out(&background(), [1, 2, 3], f()).limit(0));
        let message = text(panic_of(end).await);
        assert!(message.starts_with(says), "{message}");
    }
    assert_eq!(called.get(), 0);
}

async fn a_limit_of_zero_without_items_is_no_error() {
    let none = || Vec::<u8>::new();
    let f = |_, _: u8| ready(OK);
    assert_eq!(fetch_all(&background(), 0, none(), f).await.unwrap(), []);
    for end in each_end() {
        in_time(end.of(fan_out(&background(), none(), f).limit(0))).await;
    }
    in_each_place!(|at| {
        assert_eq!(
            at!(fan_out(&background(), none(), f).limit(0))
                .all()
                .await
                .unwrap(),
            []
        );
        // It starts nothing, whatever the limit.
        let enough = at!(fan_out(&background(), [1], f).limit(0)).quorum(0).await;
        assert_eq!(enough.unwrap(), []);
    });
}

async fn a_limit_of_zero_drops_the_item_the_iterator_and_the_function() {
    in_each_place!(|at| {
        let drops = Drops::default();
        let (in_iter, in_f) = (drops.counted(), drops.counted());
        let items = vec![drops.counted(), drops.counted()];
        let items = items.into_iter().inspect(move |_| {
            let _ = &in_iter;
        });
        let all = fan_out(&background(), items, move |_, _| {
            let _ = &in_f;
            ready(OK)
        });
        panic_of(at!(all.limit(0)).all()).await;
        assert_eq!(drops.count(), 4);
    });
}

async fn a_limit_of_zero_panics_when_a_stream_has_an_item() {
    let late = || stream::once(Box::pin(sleep(ms(30))));
    let start = Instant::now();
    let all = fan_out_stream(&background(), late(), |_, ()| ready(OK)).limit(0);
    panic_of(all.all()).await;
    let all = fan_out_stream(&background(), late(), |_, ()| ready(OK)).limit(0);
    panic_of(all.local().all()).await;
    assert!(start.elapsed() >= ms(60));
}

async fn a_raised_limit_starts_items_at_once() {
    in_each_place!(|at| {
        let gated = Gated::new();
        let (all, limit) = fan_out(&background(), 0..20, gated.f())
            .limit(2)
            .limit_handle();
        let all = beside!(at!(all).all(), async {
            gated.assert_started(2).await;
            limit.set_limit(5);
            gated.assert_started(5).await;
            limit.set_limit(6);
            gated.assert_started(6).await;
            gated.gate.open();
        });
        assert_eq!(all.unwrap().len(), 20);
        assert!(gated.gauge.most() <= 6);
    });
}

async fn a_lowered_limit_lets_the_items_in_flight_go_on() {
    in_each_place!(|at| {
        let gated = Gated::new();
        let (all, limit) = fan_out(&background(), 0..20, gated.f())
            .limit(5)
            .limit_handle();
        let all = beside!(at!(all).all(), async {
            gated.assert_started(5).await;
            limit.set_limit(2);
            assert_eq!(limit.limit(), Some(2));
            for left in [4, 3] {
                gated.gate.let_one_through();
                until(|| gated.gauge.now() == left).await;
                gated.assert_started(5).await;
            }
            for more in 6..9 {
                if more > 6 {
                    gated.gate.let_one_through();
                } else {
                    gated.gate.let_one_through();
                    gated.gate.let_one_through();
                }
                gated.assert_started(more).await;
                until(|| gated.gauge.now() == 2).await;
            }
            gated.gate.open();
        });
        assert_eq!(all.unwrap().len(), 20);
    });
}

async fn a_limit_of_zero_pauses_and_a_raise_resumes() {
    in_each_place!(|at| {
        let gated = Gated::new();
        let (all, limit) = fan_out(&background(), 0..6, gated.f())
            .limit(3)
            .limit_handle();
        let all = beside!(at!(all).all(), async {
            gated.assert_started(3).await;
            limit.set_limit(0);
            gated.gate.open();
            until(|| gated.gauge.now() == 0).await;
            gated.assert_started(3).await;
            limit.set_limit(1);
        });
        assert_eq!(all.unwrap(), [0, 1, 2, 3, 4, 5]);
    });
}

async fn a_fan_out_may_begin_paused() {
    in_each_place!(|at| {
        let gated = Gated::new();
        gated.gate.open();
        let (all, limit) = fan_out(&background(), 0..6, gated.f())
            .limit(0)
            .limit_handle();
        let all = beside!(at!(all).all(), async {
            gated.assert_started(0).await;
            limit.set_limit(2);
        });
        assert_eq!(all.unwrap().len(), 6);
    });
}

async fn a_pause_before_the_first_poll_holds() {
    in_each_place!(|at| {
        let gated = Gated::new();
        let (all, limit) = fan_out(&background(), 0..6, gated.f()).limit_handle();
        let all = at!(all).all();
        limit.set_limit(0);
        let all = beside!(all, async {
            gated.assert_started(0).await;
            limit.set_limit(1);
            gated.assert_started(1).await;
            gated.gate.open();
        });
        assert_eq!(all.unwrap().len(), 6);
    });
}

/// A worker may run items that are ready at once one after another without looking for a permit.
async fn the_limit_is_lowered_between_two_quick_items() {
    in_each_place!(|at| {
        let (seen, handle) = (Count::default(), Arc::new(std::sync::OnceLock::new()));
        let (counts, sets) = (seen.clone(), handle.clone());
        let all = fan_out(&background(), 0..100, move |_, item: usize| {
            counts.add();
            if item == 4 {
                let limit: &LimitHandle = sets.get().unwrap();
                limit.set_limit(0);
            }
            ready(Ok::<_, String>(item))
        });
        let (all, limit) = all.limit(1).limit_handle();
        handle.set(limit.clone()).unwrap();
        let all = beside!(at!(all).all(), async {
            until(|| seen.get() == 5).await;
            yields(100).await;
            assert_eq!(seen.get(), 5);
            limit.set_limit(1);
        });
        assert_eq!(all.unwrap().len(), 100);
    });
}

async fn a_stream_that_is_paused_keeps_its_item() {
    for local in [false, true] {
        let gated = Gated::new();
        gated.gate.open();
        let (items, received) = futures::channel::mpsc::unbounded();
        let all = fan_out_stream(&background(), received, gated.f());
        let (all, limit) = all.limit(2).limit_handle();
        let all = match local {
            true => all.local().all().left_future(),
            false => all.all().right_future(),
        };
        let all = beside!(all, async {
            // Until a worker waits for the item with a permit.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            limit.set_limit(0);
            items.unbounded_send(7).unwrap();
            gated.assert_started(0).await;
            limit.set_limit(1);
            gated.assert_started(1).await;
            drop(items);
        });
        assert_eq!(all.unwrap(), [7]);
    }
}

async fn none_is_no_limit_for_a_handle_too() {
    in_each_place!(|at| {
        let gated = Gated::new();
        let (all, limit) = fan_out(&background(), 0..40, gated.f())
            .limit(1)
            .limit_handle();
        let all = beside!(at!(all).all(), async {
            gated.assert_started(1).await;
            limit.set_limit(None);
            assert_eq!(limit.limit(), None);
            gated.assert_started(40).await;
            gated.gate.open();
        });
        assert_eq!(all.unwrap().len(), 40);
    });
}

async fn a_handle_set_by_an_item_takes_effect() {
    in_each_place!(|at| {
        let (gauge, handle) = (Gauge::default(), Arc::new(std::sync::OnceLock::new()));
        let (enters, sets) = (gauge.clone(), handle.clone());
        let all = fan_out(&background(), 0..40, move |_, item: usize| {
            let (alive, sets) = (enters.enter(), sets.clone());
            async move {
                let _alive = alive;
                if item == 3 {
                    let limit: &LimitHandle = sets.get().unwrap();
                    limit.set_limit(9);
                }
                yields(20).await;
                OK
            }
        });
        let (all, limit) = all.limit(1).limit_handle();
        handle.set(limit).unwrap();
        assert_eq!(in_time(at!(all).all()).await.unwrap().len(), 40);
        assert!(gauge.most() > 1 && gauge.most() <= 9, "{}", gauge.most());
    });
}

async fn a_paused_fan_out_ends_with_its_context() {
    in_each_place!(|at| {
        let gated = Gated::new();
        let (ctx, guard) = background().with_cancel();
        let (all, limit) = fan_out(&ctx, 0..6, gated.f()).limit(0).limit_handle();
        let all = beside!(at!(all).all(), async {
            gated.assert_started(0).await;
            guard.cancel();
        });
        assert_eq!(all.unwrap_err(), "context cancelled");
        limit.set_limit(1);
        gated.assert_started(0).await;
    });
}

async fn outcomes_that_wait_count_against_a_new_limit() {
    let gated = Gated::new();
    gated.gate.open();
    let (all, limit) = fan_out(&background(), 0..20, gated.f())
        .limit(4)
        .limit_handle();
    let mut stream = all.stream();
    in_time(stream.next()).await.unwrap().unwrap();
    gated.assert_started(5).await;
    limit.set_limit(2);
    for _ in 0..2 {
        stream.next().await.unwrap().unwrap();
        gated.assert_started(5).await;
    }
    // Two outcomes still wait.
    stream.next().await.unwrap().unwrap();
    gated.assert_started(6).await;
    limit.set_limit(3);
    gated.assert_started(7).await;
    assert_eq!(in_time(stream.count()).await, 16);
}

async fn a_handle_has_no_effect_after_the_end() {
    in_each_place!(|at| {
        let gated = Gated::new();
        gated.gate.open();
        let (all, limit) = fan_out(&background(), 0..6, gated.f())
            .limit(1)
            .limit_handle();
        let mut all = Box::pin(at!(all).all());
        assert_eq!(in_time(&mut all).await.unwrap().len(), 6);
        limit.set_limit(3);
        drop(all);
        limit.clone().set_limit(0);
        assert_eq!(limit.limit(), Some(0));
        yields(20).await;
        assert_eq!(gated.started.get(), 6);
    });
}

async fn a_handle_keeps_nothing_of_the_fan_out_alive() {
    in_each_place!(|at| {
        let (drops, started) = (Drops::default(), Count::default());
        let (in_iter, in_f) = (drops.counted(), drops.counted());
        let (counts, starts) = (drops.clone(), started.clone());
        let items = (0..3).inspect(move |_| {
            let _ = &in_iter;
        });
        let fan_out = fan_out(&background(), items, move |_, _| {
            let (_, held, starts) = (&in_f, counts.counted(), starts.clone());
            async move {
                let _held = held;
                starts.add();
                pending::<Result<(), String>>().await
            }
        });
        let (all, limit) = fan_out.limit_handle();
        let mut all = Box::pin(at!(all).all());
        // Local items start in polls of the caller, each of which has a budget of time.
        while started.get() < 3 {
            assert!(futures::poll!(&mut all).is_pending());
            tokio::task::yield_now().await;
        }
        drop(all);
        until(|| drops.count() == 5).await;
        limit.set_limit(7);
        assert_eq!(drops.count(), 5);
    });
    // The waker of a task that has ended.
    let (woken, wakes) = (Arc::new(AtomicUsize::new(0)), Drops::default());
    let (counts, held) = (woken.clone(), wakes.counted());
    let waker = crate::support::waker(move || {
        let _ = &held;
        counts.fetch_add(1, Ordering::SeqCst);
    });
    let (all, limit) = fan_out(&background(), 0..3, |_, _| pending::<Result<(), String>>())
        .limit(1)
        .limit_handle();
    let mut all = Box::pin(all.local().all());
    // More than one poll: each has a budget of time.
    let mut poll = || {
        for _ in 0..5 {
            let polled = crate::support::poll_with(&mut all, &waker);
            assert_eq!(polled.map(drop), Poll::Pending);
        }
        woken.store(0, Ordering::SeqCst);
    };
    poll();
    limit.set_limit(2);
    assert_eq!(woken.load(Ordering::SeqCst), 1);
    poll();
    drop((all, waker));
    // tokio keeps the waker of a poll that has used its time up until this task yields.
    until(|| wakes.count() == 1).await;
    woken.store(0, Ordering::SeqCst);
    limit.set_limit(3);
    assert_eq!(woken.load(Ordering::SeqCst), 0);
}

async fn limit_after_limit_handle_sets_the_limit_of_the_handle() {
    let gated = Gated::new();
    let (all, limit) = fan_out(&background(), 0..6, gated.f()).limit_handle();
    assert_eq!(limit.limit(), None);
    let (all, same) = all.limit(2).limit_handle();
    assert_eq!((limit.limit(), same.limit()), (Some(2), Some(2)));
    assert_eq!(format!("{limit:?}"), "LimitHandle { limit: 2, .. }");
    assert!(format!("{all:?}").contains("limit: 2"));
    let all = beside!(all.all(), async {
        gated.assert_started(2).await;
        gated.gate.open();
    });
    assert_eq!(all.unwrap().len(), 6);
}

/// Two workers pull at any moment, and the limit changes at any moment. Nothing is lost, no more
/// run than the highest limit, and no change is missed.
#[test]
fn a_limit_that_changes_all_the_time_loses_nothing() {
    let runtime = two_workers();
    for round in 0..600_usize {
        let gauge = Gauge::default();
        let enters = gauge.clone();
        let fan_out = fan_out(&background(), 0..30_usize, move |_, item| {
            let alive = enters.enter();
            async move {
                let _alive = alive;
                yields(item % 3).await;
                Ok::<_, String>(item)
            }
        });
        let (all, limit) = fan_out.limit(round % 3).limit_handle();
        let setter = limit.clone();
        runtime.block_on(in_time(async {
            let all = tokio::spawn(all.all());
            let sets = tokio::spawn(async move {
                for step in 0..20 {
                    setter.set_limit((round + step) % 4);
                    yields(step % 3).await;
                }
                setter.set_limit(1 + round % 3);
            });
            sets.await.unwrap();
            assert!(
                all.await.unwrap().unwrap().into_iter().eq(0..30),
                "in round {round}"
            );
        }));
        assert!(gauge.most() <= 4, "{}", gauge.most());
    }
}
