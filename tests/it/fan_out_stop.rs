//! The streams of a fan-out: `indexed_stream`, and `stop`, which waits until everything has ended.

use std::future::{pending, ready};
use std::sync::Arc;

use errgroup::{Context, fan_out_stream};
use futures::{FutureExt, Stream, StreamExt, stream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::fan_out_support::*;
use crate::group_support::*;
use crate::support::{Drops, HOUR, OnDrop, ms};

both_flavours! {
    indexed_stream_gives_positions_in_order_of_completion,
    indexed_stream_gives_failures_and_continues,
    indexed_stream_gives_each_item_that_was_stopped,
    indexed_stream_has_backpressure,
    indexed_stream_resumes_a_panic,
    stop_waits_for_every_destructor,
    stop_before_the_first_poll_starts_nothing,
    stop_outside_the_first_poll_needs_no_runtime,
    stop_after_the_end_returns_at_once,
    stop_gives_the_grace_period,
    stop_drops_the_outcomes_that_wait,
    stop_cancels_the_context_with_its_cause,
    stop_resumes_a_panic_of_a_destructor,
    stop_resumes_a_panic_of_the_iterator_that_never_began,
    stop_of_a_stream_of_items_drops_that_stream,
    stop_of_a_paused_fan_out_returns,
    a_stop_that_is_dropped_stops_the_items,
}

/// Runs the body with each stream, the one with positions included.
macro_rules! each_stream {
    (|$fan_out:ident| $make:expr, |$stream:ident| $body:expr) => {
        in_each_place!(|at| {
            at_ends! {
                |end| {
                    let $fan_out = ();
                    let $stream = end!(at!($make));
                    $body
                };
                [.try_stream()]
                [.stream()]
                [.ordered_stream()]
                [.indexed_stream()]
            }
        })
    };
}

/// Gates by position, so that items end in another order than they start.
fn gates<const N: usize>() -> Arc<[Gate; N]> {
    Arc::new(std::array::from_fn(|_| Gate::new()))
}

async fn indexed_stream_gives_positions_in_order_of_completion() {
    in_each_place!(|at| {
        let gates = gates::<4>();
        let passes = gates.clone();
        let fan_out = fan_out(
            &background(),
            ["a", "b", "c", "d"].into_iter().enumerate(),
            {
                move |_, (at, name)| {
                    let passes = passes.clone();
                    async move {
                        passes[at].pass().await;
                        Ok::<_, String>(name)
                    }
                }
            },
        );
        let mut stream = at!(fan_out).indexed_stream();
        for (index, name) in [(2, "c"), (0, "a"), (3, "d"), (1, "b")] {
            gates[index].open();
            assert_eq!(in_time(stream.next()).await, Some((index, Ok(name))));
        }
        assert_eq!(in_time(stream.next()).await, None);
        assert_eq!(stream.next().await, None);
    });
}

async fn indexed_stream_gives_failures_and_continues() {
    in_each_place!(|at| {
        let fan_out = fan_out(&background(), 0..4, |_, item: usize| async move {
            match item {
                1 => Err("one".to_owned()),
                _ => Ok(item),
            }
        });
        let stream = at!(fan_out.limit(1)).indexed_stream();
        let all: Vec<_> = in_time(stream.collect()).await;
        let expected = [
            (0, Ok(0)),
            (1, Err("one".to_owned())),
            (2, Ok(2)),
            (3, Ok(3)),
        ];
        assert_eq!(all, expected);
    });
}

async fn indexed_stream_gives_each_item_that_was_stopped() {
    in_each_place!(|at| {
        let (ctx, guard) = background().with_cancel();
        let started = Count::default();
        let starts = started.clone();
        let fan_out = fan_out(&ctx, 0..9, move |_, item| {
            let starts = starts.clone();
            async move {
                starts.add();
                match item {
                    0 => Ok::<_, String>(item),
                    _ => pending().await,
                }
            }
        });
        let mut stream = at!(fan_out.limit(3)).indexed_stream();
        assert_eq!(in_time(stream.next()).await, Some((0, Ok(0))));
        // Items 1, 2 and 3 are in flight.
        poll_until(&mut stream, || started.get() == 4).await;
        guard.cancel();
        let mut stopped: Vec<_> = in_time(stream.collect()).await;
        stopped.sort_by_key(|(index, _)| *index);
        let cancelled = |index| (index, Err("context cancelled".to_owned()));
        assert_eq!(stopped, [1, 2, 3].map(cancelled));
    });
}

async fn indexed_stream_has_backpressure() {
    in_each_place!(|at| {
        let started = Count::default();
        let counts = started.clone();
        let fan_out = fan_out(&background(), 0..20, move |_, _| {
            counts.add();
            ready(OK)
        });
        let mut stream = at!(fan_out.limit(3)).indexed_stream();
        assert!(in_time(stream.next()).await.is_some());
        yields(20).await;
        assert!(started.get() <= 4);
        assert_eq!(in_time(stream.count()).await, 19);
    });
}

async fn indexed_stream_resumes_a_panic() {
    in_each_place!(|at| {
        let fan_out = fan_out(&background(), 0..3, |_, item| async move {
            assert_ne!(item, 1, "it is one");
            OK
        });
        let mut stream = at!(fan_out.limit(1)).indexed_stream();
        assert_eq!(in_time(stream.next()).await, Some((0, OK)));
        assert!(text(panic_of(stream.next()).await).contains("it is one"));
        in_time(stream.stop()).await;
    });
}

/// Items that never end and whose destructors take a few polls' time, an iterator and a function
/// that are counted.
struct Held {
    drops: Drops,
    started: Count,
}

impl Held {
    fn new() -> Held {
        Held {
            drops: Drops::default(),
            started: Count::default(),
        }
    }

    fn items(&self) -> impl Iterator<Item = usize> + Send + 'static {
        let held = self.drops.counted();
        (0..9).inspect(move |_| {
            let _ = &held;
        })
    }

    fn f(
        &self,
    ) -> impl FnMut(Context, usize) -> futures::future::BoxFuture<'static, Result<usize, String>>
    + Send
    + 'static {
        let (in_f, drops, started) = (
            self.drops.counted(),
            self.drops.clone(),
            self.started.clone(),
        );
        move |_, item| {
            let (_, held, started) = (&in_f, drops.counted(), started.clone());
            Box::pin(async move {
                let _held = held;
                started.add();
                match item {
                    0 => Ok(item),
                    _ => pending().await,
                }
            })
        }
    }

    /// Asserts that everything has been dropped: the futures, the iterator and the function.
    fn assert_gone(&self, made: usize) {
        assert_eq!(self.drops.count(), made + 2);
    }
}

async fn stop_waits_for_every_destructor() {
    let mut rounds = 0;
    each_stream!(
        |_fan_out| {
            rounds += 1;
            let held = Box::leak(Box::new(Held::new()));
            HELD.set(Some(held));
            fan_out(&background(), held.items(), held.f()).limit(3)
        },
        |stream| {
            let held = HELD.take().unwrap();
            let mut stream = stream;
            assert!(in_time(stream.next()).await.is_some());
            poll_until(&mut stream, || held.started.get() == 4).await;
            in_time(stream.stop()).await;
            held.assert_gone(4);
        }
    );
    assert_eq!(rounds, 8);
}

thread_local! {
    static HELD: std::cell::Cell<Option<&'static Held>> = const { std::cell::Cell::new(None) };
}

/// Polls the stream, which must not be ready, until the condition holds.
async fn poll_until(stream: &mut (impl Stream + Unpin), condition: impl Fn() -> bool) {
    in_time(async {
        while !condition() {
            assert!(stream.next().now_or_never().is_none());
            yields(1).await;
        }
    })
    .await;
}

async fn stop_before_the_first_poll_starts_nothing() {
    in_each_place!(|at| {
        let held = Held::new();
        let fan_out = fan_out(&background(), held.items(), held.f()).limit(3);
        in_time(at!(fan_out).indexed_stream().stop()).await;
        held.assert_gone(0);
        assert_eq!(held.started.get(), 0);
    });
}

async fn stop_outside_the_first_poll_needs_no_runtime() {
    let outside = || {
        in_each_place!(|at| {
            let held = Held::new();
            let fan_out = fan_out(&background(), held.items(), held.f()).grace(HOUR);
            let stopped = at!(fan_out).stream().stop().now_or_never();
            assert!(stopped.is_some());
            held.assert_gone(0);
        });
    };
    std::thread::spawn(outside).join().unwrap();
}

async fn stop_after_the_end_returns_at_once() {
    in_each_place!(|at| {
        let mut stream = at!(fan_out(&background(), 0..3, |_, _: u8| ready(OK))).stream();
        while in_time(stream.next()).await.is_some() {}
        assert_eq!(stream.stop().now_or_never(), Some(()));
    });
}

async fn stop_gives_the_grace_period() {
    in_each_place!(|at| {
        let (started, ended, dropped) = (Count::default(), Count::default(), Drops::default());
        let (starts, ends, drops) = (started.clone(), ended.clone(), dropped.clone());
        let fan_out = fan_out(&background(), [5, 50_000, 7], move |ctx, millis| {
            let (ends, starts, held) = (ends.clone(), starts.clone(), drops.counted());
            async move {
                let _held = held;
                starts.add();
                ctx.done().await;
                sleep(ms(millis)).await;
                ends.add();
                OK
            }
        });
        let mut stream = at!(fan_out.grace(ms(500))).stream();
        poll_until(&mut stream, || started.get() == 3).await;
        let start = Instant::now();
        in_time(stream.stop()).await;
        assert!(start.elapsed() >= ms(500) && start.elapsed() < ms(40_000));
        assert_eq!((ended.get(), dropped.count()), (2, 3));
    });
}

async fn stop_drops_the_outcomes_that_wait() {
    in_each_place!(|at| {
        let (drops, made) = (Drops::default(), Count::default());
        let (counts, makes) = (drops.clone(), made.clone());
        let fan_out = fan_out(&background(), 0..9, move |_, item| {
            let (counts, makes) = (counts.clone(), makes.clone());
            async move {
                match item % 2 {
                    0 => {
                        makes.add();
                        Ok(counts.counted())
                    }
                    _ => Err("odd".to_owned()),
                }
            }
        });
        let mut stream = at!(fan_out.limit(4)).ordered_stream();
        let first = in_time(stream.next()).await;
        yields(50).await;
        in_time(stream.stop()).await;
        let successes = made.get();
        assert_eq!(drops.count(), successes - 1);
        drop(first);
        assert_eq!(drops.count(), successes);
    });
}

async fn stop_cancels_the_context_with_its_cause() {
    in_each_place!(|at| {
        let (seen, started) = (Log::new(), Count::default());
        let (log, starts) = (seen.clone(), started.clone());
        let fan_out = fan_out(&background(), 0..1, move |ctx: Context, _: u8| {
            let (log, starts) = (log.clone(), starts.clone());
            let at_drop = OnDrop(move || log.add(ctx.cause().unwrap().to_string()));
            async move {
                let _at_drop = at_drop;
                starts.add();
                pending::<Result<(), String>>().await
            }
        });
        let mut stream = at!(fan_out).stream();
        poll_until(&mut stream, || started.get() == 1).await;
        in_time(stream.stop()).await;
        assert_eq!(seen.get(), ["the fan-out was stopped"]);
    });
}

async fn stop_resumes_a_panic_of_a_destructor() {
    let started = Count::default();
    let mut expected = 0;
    each_stream!(
        |_fan_out| {
            let starts = started.clone();
            fan_out(&background(), 0..3, move |_, item| {
                let starts = starts.clone();
                let bomb = OnDrop(move || assert_ne!(item, 1, "in drop"));
                async move {
                    let _bomb = bomb;
                    starts.add();
                    pending::<Result<(), String>>().await
                }
            })
        },
        |stream| {
            let mut stream = stream;
            expected += 3;
            poll_until(&mut stream, || started.get() == expected).await;
            assert!(text(panic_of(stream.stop()).await).contains("in drop"));
        }
    );
}

async fn stop_resumes_a_panic_of_the_iterator_that_never_began() {
    in_each_place!(|at| {
        let bomb = OnDrop(|| panic!("the iterator"));
        let items = (0..3).inspect(move |_| {
            let _ = &bomb;
        });
        let stream = at!(fan_out(&background(), items, |_, _| ready(OK))).indexed_stream();
        assert_eq!(text(panic_of(stream.stop()).await), "the iterator");
    });
}

async fn stop_of_a_stream_of_items_drops_that_stream() {
    for local in [false, true] {
        let drops = Drops::default();
        let held = drops.counted();
        let items = stream::pending::<u8>().inspect(move |_| {
            let _ = &held;
        });
        let fan_out = fan_out_stream(&background(), items, |_, _| ready(OK));
        if local {
            let mut stream = fan_out.local().stream();
            assert!(stream.next().now_or_never().is_none());
            in_time(stream.stop()).await;
        } else {
            let mut stream = fan_out.stream();
            assert!(stream.next().now_or_never().is_none());
            yields(20).await;
            in_time(stream.stop()).await;
        }
        assert_eq!(drops.count(), 1);
    }
}

async fn stop_of_a_paused_fan_out_returns() {
    in_each_place!(|at| {
        let held = Held::new();
        let fan_out = fan_out(&background(), held.items(), held.f()).limit(0);
        let (fan_out, _limit) = fan_out.limit_handle();
        let mut stream = at!(fan_out).stream();
        assert!(stream.next().now_or_never().is_none());
        yields(20).await;
        in_time(stream.stop()).await;
        held.assert_gone(0);
    });
}

async fn a_stop_that_is_dropped_stops_the_items() {
    in_each_place!(|at| {
        let (permits, probe) = (Arc::new(Semaphore::new(3)), Probe::default());
        let (acquires, wraps) = (permits.clone(), probe.clone());
        let fan_out = fan_out(&background(), 0..9, move |_, _| {
            let acquires = acquires.clone();
            wraps.wrap(async move {
                let _permit = acquires.acquire().await;
                pending::<Result<(), String>>().await
            })
        });
        let mut stream = at!(fan_out.limit(3).grace(HOUR)).stream();
        poll_until(&mut stream, || probe.polled() >= 3).await;
        // It waits for the grace period, and is dropped meanwhile.
        assert!(stream.stop().now_or_never().is_none());
        // The permits are given back by what is dropped inside the futures that are counted.
        until(|| probe.dropped() == 3 && permits.available_permits() == 3).await;
    });
}

/// Two workers end items at the moment of the stop.
#[test]
fn on_two_workers_a_stop_at_any_moment_leaves_nothing() {
    let runtime = two_workers();
    for round in 0..2_000 {
        let (gauge, drops) = (Gauge::default(), Drops::default());
        let enters = gauge.clone();
        let in_f = drops.counted();
        let fan_out = fan_out(&background(), 0..7, move |_, item| {
            let (_, alive) = (&in_f, enters.enter());
            async move {
                let _alive = alive;
                yields(item % 4).await;
                OK
            }
        });
        let mut stream = fan_out.limit(1 + round % 4).indexed_stream();
        runtime.block_on(in_time(async {
            for _ in 0..round % 8 {
                stream.next().await;
            }
            stream.stop().await;
        }));
        assert_eq!((gauge.now(), drops.count()), (0, 1), "in round {round}");
    }
}
