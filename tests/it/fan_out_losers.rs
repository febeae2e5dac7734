//! Items that lose are stopped, and have been dropped when the call returns: nothing runs any more,
//! and what they held is free.

use std::future::pending;
use std::sync::Arc;

use errgroup::{Context, hedge};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant};

use crate::fan_out_support::*;
use crate::group_support::*;
use crate::support::{HOUR, ms};

both_flavours![
    what_losers_hold_is_free_when_the_call_returns,
    what_losers_hold_is_free_when_try_stream_gives_its_failure,
    what_losers_hold_is_free_when_a_hedge_returns,
    what_losers_hold_is_free_after_the_cancel_of_the_context,
    dropped_half_way_it_polls_nothing_and_frees_what_it_held,
    dropped_half_way_the_context_of_the_items_ends,
];

const PERMITS: usize = 8;

/// Permits, which the items in flight hold.
#[derive(Clone)]
struct Permits(Arc<Semaphore>);

impl Permits {
    fn new() -> Permits {
        Permits(Arc::new(Semaphore::new(PERMITS)))
    }

    /// A permit that is released only after a while.
    async fn hold(&self) -> impl Send + use<> {
        struct Held {
            _slow: OnDrop<fn()>,
            _permit: OwnedSemaphorePermit,
        }

        Held {
            _permit: self.0.clone().acquire_owned().await.unwrap(),
            _slow: OnDrop(|| (0..20).for_each(|_| std::thread::yield_now())),
        }
    }

    #[track_caller]
    fn assert_all_free(&self) {
        assert_eq!(self.0.available_permits(), PERMITS);
    }

    fn are_taken(&self) -> bool {
        self.0.available_permits() == 0
    }
}

/// Items that hold a permit each and never end, and two that end: with `wins`, once all permits are
/// held.
fn contest<W>(permits: &Permits, wins: W) -> impl FnMut(Context, usize) -> Boxed + Send + use<W>
where
    W: Fn(usize) -> Result<usize, String> + Clone + Send + 'static,
{
    let permits = permits.clone();
    move |_, item| {
        let (permits, wins) = (permits.clone(), wins.clone());
        Box::pin(async move {
            if item >= PERMITS {
                until(|| permits.are_taken()).await;
                return wins(item);
            }
            let _held = permits.hold().await;
            pending().await
        })
    }
}

type Boxed = std::pin::Pin<Box<dyn Future<Output = Result<usize, String>> + Send>>;

async fn what_losers_hold_is_free_when_the_call_returns() {
    const ITEMS: std::ops::Range<usize> = 0..PERMITS + 2;
    in_each_place!(|at| {
        for _ in 0..20 {
            let permits = Permits::new();
            let fails = || {
                fan_out(
                    &background(),
                    ITEMS,
                    contest(&permits, |_| Err("no".into())),
                )
            };
            let wins = || fan_out(&background(), ITEMS, contest(&permits, Ok));
            assert_eq!(at!(fails()).all().await.unwrap_err(), "no");
            permits.assert_all_free();
            assert_eq!(at!(fails()).for_each().await.unwrap_err(), "no");
            permits.assert_all_free();
            assert!(at!(wins()).first_ok().await.unwrap() >= PERMITS);
            permits.assert_all_free();
            assert_eq!(at!(wins()).quorum(2).await.unwrap().len(), 2);
            permits.assert_all_free();
            let errors = at!(fails()).quorum(PERMITS + 1).await.unwrap_err();
            permits.assert_all_free();
            assert_eq!(errors.causes().count(), 2);
        }
    });
}

async fn what_losers_hold_is_free_when_try_stream_gives_its_failure() {
    in_each_place!(|at| {
        for _ in 0..20 {
            let permits = Permits::new();
            let fails = contest(&permits, |item| match item {
                PERMITS => Err("no".into()),
                _ => Ok(item),
            });
            let fan_out = fan_out(&background(), 0..PERMITS + 2, fails);
            let mut stream = at!(fan_out).try_stream();
            while let Some(result) = stream.next().await {
                if result.is_err() {
                    break;
                }
            }
            permits.assert_all_free();
            assert_eq!(stream.next().await, None);
        }
    });
}

async fn what_losers_hold_is_free_when_a_hedge_returns() {
    for _ in 0..20 {
        let permits = Permits::new();
        let wins = contest(&permits, Ok);
        let won = hedge(&background(), Duration::ZERO, PERMITS + 1, wins).await;
        permits.assert_all_free();
        assert_eq!(won.unwrap(), PERMITS);
    }
}

async fn what_losers_hold_is_free_after_the_cancel_of_the_context() {
    for end in each_end() {
        let permits = Permits::new();
        let (ctx, guard) = background().with_cancel();
        let holds = permits.clone();
        let fan_out = fan_out(&ctx, 0..PERMITS, move |_, _| {
            let permits = holds.clone();
            async move {
                let _held = permits.hold().await;
                pending::<Result<(), String>>().await
            }
        });
        let cancels = async {
            until(|| permits.are_taken()).await;
            guard.cancel_with("enough");
        };
        let over = async {
            end.of(fan_out).await;
            permits.assert_all_free();
        };
        futures::join!(over, cancels);
    }
}

async fn dropped_half_way_it_polls_nothing_and_frees_what_it_held() {
    for end in each_end() {
        for polls in 1..6 {
            let (permits, probe) = (Permits::new(), Probe::default());
            let (holds, wraps) = (permits.clone(), probe.clone());
            let fan_out = fan_out(&background(), 0.., move |_, item: usize| {
                let permits = holds.clone();
                wraps.wrap(async move {
                    let _held = permits.hold().await;
                    yields(item % 4).await;
                    if item >= 4 {
                        return pending().await;
                    }
                    Err::<(), _>("no".to_owned())
                })
            });
            let mut end = Box::pin(end.of(fan_out.limit(PERMITS)));
            for _ in 0..polls {
                // The ends that stop at a failure may be over.
                if futures::poll!(&mut end).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(end);
            until(|| permits.0.available_permits() == PERMITS).await;
            until(|| probe.dropped() == probe.made()).await;
            let polled = probe.polled();
            yields(20).await;
            assert_eq!(probe.polled(), polled);
            // A worker on another thread may have been in the middle of a pull.
            until(|| probe.dropped() == probe.made()).await;
        }
    }
}

async fn dropped_half_way_the_context_of_the_items_ends() {
    for end in each_end() {
        let seen = Log::new();
        let sees = seen.clone();
        let fan_out = fan_out(&background(), 0..3, move |ctx: Context, _| {
            sees.add(ctx);
            pending::<Result<(), String>>()
        });
        let mut end = Box::pin(end.of(fan_out));
        while seen.len() == 0 {
            assert!(futures::poll!(&mut end).is_pending());
            tokio::task::yield_now().await;
        }
        drop(end);
        for ctx in seen.get() {
            let cause = ctx.cause().unwrap().to_string();
            assert_eq!(cause, "the fan-out was dropped");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_local_items_are_dropped_at_once() {
    let new = |permits: &Permits| {
        let holds = permits.clone();
        fan_out(&background(), 0..PERMITS, move |_, _| {
            let permits = holds.clone();
            async move {
                let _held = permits.hold().await;
                pending::<Result<(), String>>().await
            }
        })
    };
    at_ends! {
        |end| {
            let permits = Permits::new();
            let mut end = Box::pin(end!(new(&permits)));
            // On a busy machine one poll may end before all have been pulled.
            while !permits.are_taken() {
                assert!(futures::poll!(&mut end).is_pending());
                tokio::task::yield_now().await;
            }
            drop(end);
            permits.assert_all_free();
        };
        [.local().all()]
        [.local().settle()]
        [.local().stream().count()]
        [.local().first_ok()]
    }
}

/// What became of the two losers: one that obeys after a while, and one that does not.
struct Loss {
    polite: Count,
    stubborn: Gauge,
    start: Instant,
}

impl Loss {
    fn new() -> Loss {
        Loss {
            polite: Count::default(),
            stubborn: Gauge::default(),
            start: Instant::now(),
        }
    }

    /// Item 0 ends at once, with `first`; item 1 takes 30 ms to obey, item 2 an hour.
    fn items(
        &self,
        first: Result<usize, String>,
    ) -> impl FnMut(Context, usize) -> Boxed + Send + use<> {
        let (polite, stubborn) = (self.polite.clone(), self.stubborn.clone());
        move |ctx, item| {
            let (polite, stubborn, first) = (polite.clone(), stubborn.clone(), first.clone());
            Box::pin(async move {
                match item {
                    0 => {
                        tokio::time::sleep(ms(10)).await;
                        first
                    }
                    1 => {
                        ctx.done().await;
                        tokio::time::sleep(ms(30)).await;
                        polite.add();
                        Ok(item)
                    }
                    _ => {
                        let _alive = stubborn.enter();
                        ctx.done().await;
                        tokio::time::sleep(HOUR).await;
                        Ok(item)
                    }
                }
            })
        }
    }

    #[track_caller]
    fn assert(&self, polite: usize, took: Duration) {
        assert_eq!((self.polite.get(), self.start.elapsed()), (polite, took));
        assert_eq!((self.stubborn.now(), self.stubborn.most()), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn within_the_grace_losers_may_finish_and_then_they_are_dropped() {
    let new = |loss: &Loss, first: Result<usize, &str>| {
        let items = loss.items(first.map_err(ToOwned::to_owned));
        fan_out(&background(), 0..3, items)
    };
    in_each_place!(|at| {
        // What may still finish within the grace, and when it is over.
        for (grace, polite, took) in [(0, 0, 10), (20, 0, 30), (100, 1, 110)] {
            let (grace, took) = (ms(grace), ms(took));
            let loss = Loss::new();
            let all = at!(new(&loss, Err("no")).grace(grace)).all();
            assert_eq!(in_time(all).await.unwrap_err(), "no");
            loss.assert(polite, took);

            let loss = Loss::new();
            let each = at!(new(&loss, Err("no")).grace(grace)).for_each();
            assert_eq!(in_time(each).await.unwrap_err(), "no");
            loss.assert(polite, took);

            let loss = Loss::new();
            let stream = at!(new(&loss, Err("no")).grace(grace)).try_stream();
            let results: Vec<_> = in_time(stream.collect()).await;
            assert_eq!(results.last(), Some(&Err("no".to_owned())));
            loss.assert(polite, took);

            let loss = Loss::new();
            let first = at!(new(&loss, Ok(0)).grace(grace)).first_ok();
            assert_eq!(in_time(first).await.unwrap(), 0);
            loss.assert(polite, took);

            let loss = Loss::new();
            let quorum = at!(new(&loss, Ok(0)).grace(grace)).quorum(1);
            assert_eq!(in_time(quorum).await.unwrap(), [0]);
            loss.assert(polite, took);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn the_grace_counts_from_a_deadline_too() {
    in_each_place!(|at| {
        let loss = Loss::new();
        let ctx = background().with_timeout(ms(20));
        let fan_out = fan_out(&ctx, 0..3, loss.items(Ok(0))).grace(ms(40));
        let results = in_time(at!(fan_out).settle()).await;
        loss.assert(1, ms(60));
        let late = "context deadline exceeded".to_owned();
        assert_eq!(results, [Ok(0), Ok(1), Err(late)]);
    });
}

#[tokio::test(start_paused = true)]
async fn the_grace_is_over_when_all_have_finished() {
    in_each_place!(|at| {
        let start = Instant::now();
        let fan_out = fan_out(&background(), 0..5, |ctx: Context, item| async move {
            if item > 0 {
                ctx.done().await;
                tokio::time::sleep(ms(30)).await;
            }
            tokio::time::sleep(ms(10)).await;
            Err::<(), _>(format!("no {item}"))
        });
        let all = at!(fan_out.grace(HOUR)).all();
        assert_eq!(in_time(all).await.unwrap_err(), "no 0");
        assert_eq!(start.elapsed(), ms(50));
    });
}
