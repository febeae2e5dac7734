//! Items are pulled from iterators and streams, when there is a permit for them and room for their
//! outcomes.

use std::collections::VecDeque;
use std::future::{pending, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{self, Poll};
use std::time::Duration;

use errgroup::{Context, fan_out, fan_out_stream};
use futures::{FutureExt, Stream, StreamExt};

use crate::fan_out_support::*;
use crate::group_support::*;
use crate::support::ms;

both_flavours![
    an_item_is_pulled_when_there_is_a_permit_for_it,
    an_item_is_pulled_when_the_consumer_has_room_for_it,
    what_runs_and_what_waits_are_never_more_than_the_limit,
    an_ordered_stream_counts_what_is_held_up,
    the_iterator_may_be_infinite,
    items_without_an_end_and_without_a_limit_run_between_pulls,
    an_item_is_polled_before_the_iterator_that_it_feeds,
    the_iterator_may_be_a_generator,
    an_iterator_that_has_ended_is_not_called_again,
    after_a_failure_nothing_more_is_pulled,
    no_function_is_called_after_a_failure_in_a_small_fan_out,
    an_iterator_may_have_more_items_than_it_says,
    an_iterator_may_get_items_while_its_last_one_waits,
    a_stream_may_end_late,
    while_a_stream_is_pending_the_items_are_polled,
    a_stream_that_never_wakes_is_ended_by_a_cancel,
    a_stream_that_never_wakes_is_ended_by_a_drop,
    a_stream_that_never_wakes_is_ended_by_a_failure,
    a_stream_that_has_ended_is_not_polled_again,
    the_items_of_a_stream_may_be_failures,
    a_pipeline_of_three_stages,
    a_pipeline_is_bounded_from_end_to_end,
    a_failure_at_the_end_of_a_pipeline_stops_its_stages,
    dropping_the_end_of_a_pipeline_stops_its_stages,
];

async fn an_item_is_pulled_when_there_is_a_permit_for_it() {
    for end in each_end() {
        for limit in 1..5 {
            let gauge = Gauge::default();
            let enters = gauge.clone();
            // Without an upper bound, so that no end can decide its result early.
            let mut left = 0..40;
            let items = std::iter::from_fn(move || Some((left.next()?, enters.enter())));
            let fan_out = fan_out(&background(), items, |_, (item, _alive)| async move {
                yields(item % 4).await;
                OK
            });
            end.of(fan_out.limit(limit)).await;
            assert!(gauge.most() <= limit, "{} at {limit}", gauge.most());
            assert_eq!(gauge.now(), 0);
        }
    }
}

async fn an_item_is_pulled_when_the_consumer_has_room_for_it() {
    for end in each_stream() {
        for limit in 1..5 {
            let pulled = Count::default();
            let pulls = pulled.clone();
            let items = (0..30).inspect(move |_| _ = pulls.add());
            let fan_out = fan_out(&background(), items, |_, _| ready(OK));
            let mut stream = end.stream(fan_out.limit(limit));
            for taken in 1..=30 {
                assert_eq!(stream.next().await, Some(OK));
                yields(5).await;
                assert!(pulled.get() <= taken + limit, "{} pulled", pulled.get());
            }
            assert_eq!(stream.next().await, None);
            assert_eq!(pulled.get(), 30);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_spawned_is_pulled_while_the_consumer_is_away() {
    at_ends! {
        |stream| {
            let pulled = Count::default();
            let pulls = pulled.clone();
            let items = (0..30).inspect(move |_| _ = pulls.add());
            let fan_out = fan_out(&background(), items, |_, _| ready(OK));
            let mut stream = stream!(fan_out.limit(4));
            for taken in 1..=10 {
                assert_eq!(in_time(stream.next()).await, Some(OK));
                tokio::time::sleep(ms(1)).await;
                assert_eq!(pulled.get(), taken + 4);
            }
        };
        [.try_stream()]
        [.stream()]
        [.ordered_stream()]
    }
}

async fn what_runs_and_what_waits_are_never_more_than_the_limit() {
    for end in each_stream() {
        for limit in [1, 2, 7] {
            let gauge = Gauge::default();
            let enters = gauge.clone();
            let items = (0..100).map(move |item| (item, enters.enter()));
            let fan_out = fan_out(&background(), items, |_, (item, alive)| async move {
                yields(item % 5).await;
                Ok::<_, String>(alive)
            });
            let mut stream = end.stream(fan_out.limit(limit));
            let mut taken = 0;
            while let Some(alive) = stream.next().await {
                // An outcome that the consumer holds has left the stream.
                drop(alive.unwrap());
                taken += 1;
                yields(taken % 3).await;
            }
            assert_eq!(taken, 100);
            // The consumer holds one for a moment while the next is pulled.
            assert!(gauge.most() <= limit + 1, "{} at {limit}", gauge.most());
            assert_eq!(gauge.now(), 0);
        }
    }
}

async fn an_ordered_stream_counts_what_is_held_up() {
    in_each_place!(|at| {
        let (pulled, gate) = (Count::default(), Gate::new());
        let (pulls, waits) = (pulled.clone(), gate.clone());
        let items = (0..).inspect(move |_| _ = pulls.add());
        let fan_out = fan_out(&background(), items, move |_, item: usize| {
            let gate = waits.clone();
            async move {
                if item == 0 {
                    gate.pass().await;
                }
                Ok::<_, String>(item)
            }
        });
        let mut stream = at!(fan_out.limit(5)).ordered_stream();
        while pulled.get() < 5 {
            assert!(futures::poll!(stream.next()).is_pending());
            tokio::task::yield_now().await;
        }
        for _ in 0..20 {
            assert!(futures::poll!(stream.next()).is_pending());
            tokio::task::yield_now().await;
        }
        assert_eq!(pulled.get(), 5);
        gate.open();
        for item in 0..20 {
            assert_eq!(stream.next().await, Some(Ok(item)));
        }
    });
}

async fn the_iterator_may_be_infinite() {
    in_each_place!(|at| {
        let ends_at = |last: u64| {
            let f = move |_: Context, item| async move {
                yields(item as usize % 3).await;
                if item == last {
                    Err("enough".to_owned())
                } else {
                    Ok(item)
                }
            };
            fan_out(&background(), 0.., f).limit(3)
        };
        assert_eq!(at!(ends_at(100)).all().await.unwrap_err(), "enough");
        assert_eq!(at!(ends_at(100)).for_each().await.unwrap_err(), "enough");
        let all: Vec<_> = at!(ends_at(100)).try_stream().collect().await;
        assert_eq!(all.last(), Some(&Err("enough".to_owned())));
        assert_eq!(at!(ends_at(100)).stream().take(500).count().await, 500);
        let first: Vec<_> = at!(ends_at(500)).ordered_stream().take(200).collect().await;
        assert!(first.into_iter().eq((0..200).map(Ok)));
        assert!(at!(ends_at(0)).first_ok().await.is_ok());
        assert_eq!(at!(ends_at(100)).quorum(300).await.unwrap().len(), 300);
    });
}

async fn items_without_an_end_and_without_a_limit_run_between_pulls() {
    at_ends! {
        |end| {
            let (ran, most) = (Count::default(), Count::default());
            let (runs, late) = (ran.clone(), most.clone());
            let items = (0..1_000_000).inspect(move |pulled| {
                if pulled - ran.get() > 10_000 {
                    _ = late.add();
                }
            });
            let fan_out = fan_out(&background(), items, move |_, item: usize| {
                let runs = runs.clone();
                async move {
                    runs.add();
                    if item == 10 { Err("ten".to_owned()) } else { OK }
                }
            });
            end!(fan_out).await;
            assert_eq!(most.get(), 0, "pulls with 10,000 items that had not run");
        };
        [.first_ok().map(drop)]
        [.for_each().map(drop)]
        [.stream().take(3).count().map(drop)]
        [.local().first_ok().map(drop)]
        [.local().for_each().map(drop)]
        [.local().stream().take(3).count().map(drop)]
    }
}

/// An iterator that blocks until an item has given it the next one.
async fn an_item_is_polled_before_the_iterator_that_it_feeds() {
    for limit in [1, 8, usize::MAX] {
        let (give, given) = mpsc::channel();
        give.send(0).unwrap();
        let give = Arc::new(std::sync::Mutex::new(Some(give)));
        let patience = Duration::from_secs(20);
        let items = std::iter::from_fn(move || match given.recv_timeout(patience) {
            Ok(item) => Some(item),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the item was not polled"),
        });
        let crawl = fan_out(&background(), items, move |_, item| {
            let give = give.clone();
            async move {
                let mut give = give.lock().unwrap();
                match &*give {
                    Some(give) if item < 2_000 => give.send(item + 1).unwrap(),
                    _ => *give = None,
                }
                Ok::<_, String>(item)
            }
        });
        let all = in_time(crawl.limit(limit).all()).await.unwrap();
        assert_eq!(all.len(), 2_001);
    }
}

/// Quick items share one permit. An item that blocks its thread between them delays none behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn an_item_that_blocks_its_thread_delays_no_other() {
    let begun = Count::default();
    let begins = begun.clone();
    let blocks = fan_out(&background(), 0..5_000, move |_, item: usize| {
        let begun = begins.clone();
        async move {
            let before = begun.add();
            if item % 1_000 == 500 {
                let start = std::time::Instant::now();
                while begun.get() <= before + 20 {
                    assert!(
                        start.elapsed() < Duration::from_secs(20),
                        "the next never began"
                    );
                    std::thread::yield_now();
                }
            }
            OK
        }
    });
    in_time(blocks.limit(64).for_each()).await.unwrap();
    assert_eq!(begun.get(), 5_000);
}

async fn the_iterator_may_be_a_generator() {
    in_each_place!(|at| {
        let mut pair = (0_u64, 1);
        let fibonacci = std::iter::from_fn(move || {
            pair = (pair.1, pair.0 + pair.1);
            (pair.0 < 100).then_some(pair.0)
        });
        let all = fan_out(&background(), fibonacci, |_, item| {
            ready(Ok::<_, String>(item))
        });
        let all = at!(all.limit(2)).all().await.unwrap();
        assert_eq!(all, [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]);
    });
}

async fn an_iterator_that_has_ended_is_not_called_again() {
    for end in each_end() {
        for limit in [1, 4, usize::MAX] {
            let (mut left, mut ended) = (10, false);
            let unfused = std::iter::from_fn(move || {
                assert!(!ended, "it was asked again");
                ended = left == 0;
                left = usize::saturating_sub(left, 1);
                (!ended).then_some(())
            });
            let fan_out = fan_out(&background(), unfused, |_, ()| async {
                yields(2).await;
                OK
            });
            end.of(fan_out.limit(limit)).await;
        }
    }
}

async fn after_a_failure_nothing_more_is_pulled() {
    at_ends! {
        |end| {
            let pulled = Count::default();
            let pulls = pulled.clone();
            let items = (0..).inspect(move |_| _ = pulls.add());
            let fan_out = fan_out(&background(), items, |_, item| async move {
                yields(item % 3).await;
                if item == 7 { Err("no".to_owned()) } else { OK }
            });
            end!(fan_out.limit(1)).await;
            assert_eq!(pulled.get(), 8);
        };
        [.all().map(drop)]
        [.for_each().map(drop)]
        [.try_stream().count().map(drop)]
        [.local().all().map(drop)]
        [.local().for_each().map(drop)]
        [.local().try_stream().count().map(drop)]
    }
}

/// An iterator that blocks its thread until an item that is in flight releases it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_iterator_that_blocks_its_thread_delays_nothing_in_flight() {
    at_ends! {
        |end| {
            let (release, released) = mpsc::channel();
            let (gate, blocks) = (Gate::new(), Count::default());
            let (waits, counts) = (gate.clone(), blocks.clone());
            let items = (0..5).inspect(move |item| {
                if *item == 2 {
                    counts.add();
                    let patience = Duration::from_secs(20);
                    released.recv_timeout(patience).expect("what is in flight goes on");
                }
            });
            let fan_out = fan_out(&background(), items, move |_, item| {
                let (release, gate) = (release.clone(), waits.clone());
                async move {
                    gate.pass().await;
                    if item == 0 {
                        release.send(()).unwrap();
                    }
                    OK
                }
            });
            let opens = async {
                until(|| blocks.get() == 1).await;
                gate.open();
            };
            in_time(futures::future::join(end!(fan_out.limit(3)), opens)).await;
        };
        [.all().map(drop)]
        [.for_each().map(drop)]
        [.settle().map(drop)]
        [.try_stream().count().map(drop)]
        [.stream().count().map(drop)]
        [.ordered_stream().count().map(drop)]
    }
}

async fn a_stream_may_end_late() {
    for end in each_end() {
        let (sender, items) = futures::channel::mpsc::unbounded();
        let (ran, ctx) = (Count::default(), background());
        let runs = ran.clone();
        let fan_out = fan_out_stream(&ctx, items, move |_, _: u8| {
            runs.add();
            // One of two succeeds, so neither `first_ok` nor `quorum(2)` can decide before all
            // outcomes are there.
            ready(Err::<(), _>("no".to_owned()))
        });
        let sends = async {
            sender.unbounded_send(1).unwrap();
            until(|| ran.get() == 1).await;
            yields(20).await;
            drop(sender);
        };
        futures::join!(end.of(fan_out), sends);
        assert_eq!(ran.get(), 1);
    }
}

async fn while_a_stream_is_pending_the_items_are_polled() {
    in_each_place!(|at| {
        let (sender, items) = futures::channel::mpsc::unbounded();
        let ended = Count::default();
        let ends = ended.clone();
        let fan_out = fan_out_stream(&background(), items, move |_, item: usize| {
            let ends = ends.clone();
            async move {
                yields(item).await;
                ends.add();
                Ok::<_, String>(item)
            }
        });
        let sends = async {
            for (sent, item) in [20, 10, 5].into_iter().enumerate() {
                sender.unbounded_send(item).unwrap();
                sender.unbounded_send(item).unwrap();
                // The stream is pending, and the items end nevertheless.
                until(|| ended.get() == 2 * (sent + 1)).await;
            }
            drop(sender);
        };
        let (all, ()) = futures::join!(at!(fan_out.limit(3)).all(), sends);
        assert_eq!(all.unwrap(), [20, 20, 10, 10, 5, 5]);
    });
}

/// A stream of two items, which is pending after that and never wakes its task.
fn never_wakes() -> impl Stream<Item = usize> + Send + use<> {
    futures::stream::iter(0..2).chain(futures::stream::pending())
}

async fn a_stream_that_never_wakes_is_ended_by_a_cancel() {
    for end in each_end() {
        let ((ctx, guard), started) = (background().with_cancel(), Count::default());
        let starts = started.clone();
        let fan_out = fan_out_stream(&ctx, never_wakes(), move |_, _| {
            starts.add();
            pending::<Result<(), String>>()
        });
        let cancels = async {
            until(|| started.get() == 2).await;
            yields(20).await;
            guard.cancel();
        };
        futures::join!(end.of(fan_out), cancels);
        assert_eq!(started.get(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_wakes_is_ended_by_a_deadline() {
    for end in each_end() {
        let start = tokio::time::Instant::now();
        let ctx = background().with_timeout(ms(70));
        // The started items ended long before, so only the stream is left.
        let fan_out = fan_out_stream(&ctx, never_wakes(), |_, _| {
            ready(Err::<(), _>("no".to_owned()))
        });
        in_time(end.of(fan_out)).await;
        assert!([ms(0), ms(70)].contains(&start.elapsed()));
    }
    in_each_place!(|at| {
        let start = tokio::time::Instant::now();
        let ctx = background().with_timeout(ms(70));
        let fan_out = fan_out_stream(&ctx, never_wakes(), |_, item| ready(Ok::<_, String>(item)));
        let settled = in_time(at!(fan_out).settle()).await;
        assert_eq!((settled, start.elapsed()), (vec![Ok(0), Ok(1)], ms(70)));
    });
}

async fn a_stream_that_never_wakes_is_ended_by_a_drop() {
    for end in each_end() {
        let (gone, started) = (Count::default(), Count::default());
        let (goes, starts) = (gone.clone(), started.clone());
        let held = OnDrop(move || _ = goes.add());
        let items = never_wakes().inspect(move |_| _ = &held);
        let fan_out = fan_out_stream(&background(), items, move |_, _| {
            starts.add();
            pending::<Result<(), String>>()
        });
        let mut end = Box::pin(end.of(fan_out));
        while started.get() < 2 {
            assert!(futures::poll!(&mut end).is_pending());
            tokio::task::yield_now().await;
        }
        yields(10).await;
        drop(end);
        until(|| gone.get() == 1).await;
    }
}

async fn a_stream_that_never_wakes_is_ended_by_a_failure() {
    at_ends! {
        |end| {
            let fan_out = fan_out_stream(&background(), never_wakes(), |_, item| async move {
                yields(20).await;
                if item == 1 { Err("no".to_owned()) } else { OK }
            });
            end!(fan_out).await;
        };
        [.all().map(drop)]
        [.for_each().map(drop)]
        [.try_stream().count().map(drop)]
        [.first_ok().map(drop)]
        [.local().all().map(drop)]
        [.local().for_each().map(drop)]
        [.local().try_stream().count().map(drop)]
        [.local().first_ok().map(drop)]
    }
}

async fn a_stream_that_has_ended_is_not_polled_again() {
    /// Three items with pauses, and then the end; once.
    struct Unfused(usize);

    impl Stream for Unfused {
        type Item = ();

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<()>> {
            self.0 += 1;
            match self.0 {
                1 | 3 | 5 => Poll::Ready(Some(())),
                7 => Poll::Ready(None),
                0..7 => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                _ => panic!("it was polled again"),
            }
        }
    }

    for end in each_end() {
        for limit in [1, 2, 10] {
            let fan_out = fan_out_stream(&background(), Unfused(0), |_, ()| async {
                yields(3).await;
                Err::<(), _>("no".to_owned())
            });
            end.of(fan_out.limit(limit)).await;
        }
    }
}

async fn the_items_of_a_stream_may_be_failures() {
    in_each_place!(|at| {
        let items = || futures::stream::iter([Ok(1), Err("no 2".to_owned()), Ok(3)]);
        let f = |_: Context, item: Result<u8, String>| async move { Ok::<_, String>(2 * item?) };
        let new = || fan_out_stream(&background(), items(), f).limit(1);
        assert_eq!(at!(new()).all().await.unwrap_err(), "no 2");
        let settled = at!(new()).settle().await;
        assert_eq!(settled, [Ok(2), Err("no 2".to_owned()), Ok(6)]);
    });
}

/// The results of a pipeline of three stages over these numbers, each of which can be measured.
macro_rules! pipeline {
    ($at:ident, $items:expr, $gauges:expr, $last:expr) => {{
        let gauges: [Gauge; 3] = $gauges;
        let [first, second, third] = gauges.clone();
        let stage_1 = fan_out(&background(), $items, move |_, item: usize| {
            let alive = first.enter();
            async move {
                let _alive = alive;
                yields(item % 3).await;
                Ok::<_, String>(item + 1)
            }
        });
        let stage_2 = fan_out_stream(
            &background(),
            $at!(stage_1.limit(4)).try_stream(),
            move |_, item| {
                let alive = second.enter();
                async move {
                    let _alive = alive;
                    let item = item?;
                    yields(item % 2).await;
                    Ok::<_, String>(10 * item)
                }
            },
        );
        let stage_3 = fan_out_stream(
            &background(),
            $at!(stage_2.limit(3)).try_stream(),
            move |_, item| {
                let alive = third.enter();
                async move {
                    let _alive = alive;
                    $last(item?).await
                }
            },
        );
        $at!(stage_3.limit(2))
    }};
}

async fn a_pipeline_of_three_stages() {
    in_each_place!(|at| {
        let gauges: [Gauge; 3] = Default::default();
        let last = |item| ready(Ok::<_, String>(item));
        let mut all = pipeline!(at, 0..200, gauges.clone(), last)
            .all()
            .await
            .unwrap();
        all.sort_unstable();
        assert!(all.into_iter().eq((1..=200).map(|item| 10 * item)));
        for (gauge, limit) in gauges.iter().zip([4, 3, 2]) {
            assert!((1..=limit).contains(&gauge.most()));
            assert_eq!(gauge.now(), 0);
        }
    });
}

async fn a_pipeline_is_bounded_from_end_to_end() {
    in_each_place!(|at| {
        // The results of the last stage are not consumed.
        let (pulled, gauges) = (Count::default(), <[Gauge; 3]>::default());
        let pulls = pulled.clone();
        let items = (0..).inspect(move |_| _ = pulls.add());
        let last = |item| ready(Ok::<_, String>(item));
        let mut stream = pipeline!(at, items, gauges, last).stream();
        assert!(stream.next().await.is_some());
        for _ in 0..5 {
            yields(50).await;
            assert!(pulled.get() <= 1 + 4 + 3 + 2, "{}", pulled.get());
        }
        let more = stream.take(100).count().await;
        assert_eq!(more, 100);
        assert!(pulled.get() <= 101 + 4 + 3 + 2, "{}", pulled.get());
    });
}

async fn a_failure_at_the_end_of_a_pipeline_stops_its_stages() {
    in_each_place!(|at| {
        let gauges: [Gauge; 3] = Default::default();
        let last = |item: usize| async move {
            yields(5).await;
            if item == 500 {
                Err("no 500".to_owned())
            } else {
                OK
            }
        };
        let end = pipeline!(at, 0.., gauges.clone(), last).for_each();
        assert_eq!(end.await.unwrap_err(), "no 500");
        until(|| gauges.iter().all(|gauge| gauge.now() == 0)).await;
    });
}

async fn dropping_the_end_of_a_pipeline_stops_its_stages() {
    in_each_place!(|at| {
        let gauges: [Gauge; 3] = Default::default();
        let last = |item| async move {
            yields(5).await;
            Ok::<_, String>(item)
        };
        let mut stream = pipeline!(at, 0.., gauges.clone(), last).ordered_stream();
        assert!(stream.next().await.is_some());
        drop(stream);
        until(|| gauges.iter().all(|gauge| gauge.now() == 0)).await;
        let most: Vec<_> = gauges.iter().map(Gauge::most).collect();
        yields(20).await;
        assert!(gauges.iter().all(|gauge| gauge.now() == 0));
        assert!(gauges.iter().map(Gauge::most).eq(most));
    });
}

/// Each worker is spawned with its permit, but the second one pulls after the failure.
async fn no_function_is_called_after_a_failure_in_a_small_fan_out() {
    let calls = Count::default();
    let counts = calls.clone();
    let ctx = Context::background();
    let failing = fan_out(&ctx, 0..2, move |ctx, item| {
        counts.add();
        async move {
            if item == 0 {
                return Err("boom".to_owned());
            }
            ctx.done().await;
            Ok(())
        }
    });
    assert!(failing.limit(2).grace(ms(1_000)).all().await.is_err());
    // With two workers, both may pull before the failure.
    let flavor = tokio::runtime::Handle::current().runtime_flavor();
    if flavor == tokio::runtime::RuntimeFlavor::CurrentThread {
        assert_eq!(calls.get(), 1);
    }
}

/// A list of work, which says how long it is now and may become longer.
#[derive(Clone, Default)]
struct WorkList(Arc<Mutex<VecDeque<usize>>>);

impl WorkList {
    fn push(&self, item: usize) {
        self.0.lock().unwrap().push_back(item);
    }
}

impl Iterator for WorkList {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.0.lock().unwrap().pop_front()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.0.lock().unwrap().len();
        (len, Some(len))
    }
}

/// Runs a fan-out whose first item, after which there are no more by the iterator's count, brings
/// three more. The item number `waits` waits until the last of them has run.
async fn first_item_brings_three_more(waits: usize) {
    let (list, gate, ended) = (WorkList::default(), Gate::new(), Count::default());
    list.push(0);
    let (brings, counts) = (list.clone(), ended.clone());
    let ctx = Context::background();
    let items = fan_out(&ctx, list, move |_, item| {
        let (brings, gate, counts) = (brings.clone(), gate.clone(), counts.clone());
        async move {
            if item == 0 {
                (1..=3).for_each(|item| brings.push(item));
            }
            if item == waits {
                gate.pass().await;
            }
            if item == 3 {
                gate.open();
            }
            counts.add();
            Ok::<_, String>(())
        }
    });
    items.limit(8).for_each().await.unwrap();
    assert_eq!(ended.get(), 4);
}

/// The first item is ready at once.
async fn an_iterator_may_have_more_items_than_it_says() {
    first_item_brings_three_more(1).await;
}

async fn an_iterator_may_get_items_while_its_last_one_waits() {
    first_item_brings_three_more(0).await;
}
