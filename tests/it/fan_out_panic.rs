//! A panic in any user code stops the other items. When they have been dropped, it is resumed in
//! the caller with its payload.

use std::future::{pending, ready};
use std::panic::panic_any;
use std::pin::Pin;
use std::task::{self, Poll};

use errgroup::{Context, Progress, fan_out_stream, hedge};
use futures::{FutureExt, Stream, StreamExt};

use crate::fan_out_support::*;
use crate::group_support::*;

both_flavours![
    of_an_item,
    of_an_item_in_its_first_poll,
    of_f,
    of_the_iterator,
    of_the_destructor_of_the_iterator,
    of_size_hint,
    of_the_stream,
    of_the_destructor_of_an_item,
    of_the_destructor_of_an_item_that_is_stopped,
    of_on_progress,
    of_the_first_of_several,
    a_panic_wins_over_a_failure_and_over_a_success,
    a_panic_after_enough_successes_is_resumed,
    a_stream_gives_the_results_before_a_panic_first,
    a_stream_gives_no_items_that_a_panic_stopped,
    after_a_panic_a_stream_has_ended,
    a_panic_is_the_cause_of_the_items_context,
    in_a_hedge,
    of_a_destructor_when_it_is_dropped_half_way_is_discarded,
    of_the_destructors_of_many_unused_values_do_not_abort,
    a_dropped_stream_discards_the_panics_of_its_destructors,
    of_what_is_stopped_each_counts_as_one_failure,
    a_hint_that_panics_after_the_iterator_changes_nothing,
    of_an_item_lets_nothing_more_start_in_the_grace,
];

/// What a panic of a test carries.
#[derive(Debug, PartialEq)]
struct Bug(&'static str);

/// Asserts that `end` panics with a bug after every future has been dropped.
async fn assert_bug(end: impl Future<Output = ()>, bug: &'static str, probe: &Probe) {
    let payload = panic_of(end).await;
    probe.assert_all_dropped();
    match payload.downcast::<Bug>() {
        Ok(payload) => assert_eq!(*payload, Bug(bug)),
        Err(payload) => panic!("another payload: {}", text(payload)),
    }
    let polled = probe.polled();
    yields(5).await;
    assert_eq!(probe.polled(), polled);
}

type Boxed = Pin<Box<dyn Future<Output = Result<usize, String>> + Send>>;

/// Nine items that never end, and item 9, which is this.
fn ninth<M, F>(probe: &Probe, item: M) -> impl FnMut(Context, usize) -> Boxed + Send + use<M, F>
where
    M: Fn(Context) -> F + Send + 'static,
    F: Future<Output = Result<usize, String>> + Send + 'static,
{
    let probe = probe.clone();
    move |ctx, number| match number {
        9 => Box::pin(probe.wrap(item(ctx))),
        _ => Box::pin(probe.wrap(pending())),
    }
}

/// Items that never end.
fn waits(probe: &Probe) -> impl FnMut(Context, usize) -> Boxed + Send + use<> {
    ninth(probe, |_| pending())
}

async fn of_an_item() {
    for end in each_end() {
        let probe = Probe::default();
        let panics = ninth(&probe, |_| async {
            yields(10).await;
            panic_any(Bug("item"))
        });
        let fan_out = fan_out(&background(), 0.., panics).limit(20);
        assert_bug(end.of(fan_out), "item", &probe).await;
    }
}

async fn of_an_item_in_its_first_poll() {
    for end in each_end() {
        let probe = Probe::default();
        let panics = ninth(&probe, |_| async { panic_any(Bug("item")) });
        assert_bug(
            end.of(fan_out(&background(), 0..10, panics)),
            "item",
            &probe,
        )
        .await;
    }
}

async fn of_f() {
    for end in each_end() {
        let probe = Probe::default();
        let mut waits = waits(&probe);
        let f = move |ctx: Context, item| {
            if item == 5 {
                panic_any(Bug("f"));
            }
            waits(ctx, item)
        };
        let fan_out = fan_out(&background(), 0..10, f);
        assert_bug(end.of(fan_out), "f", &probe).await;
        assert_eq!(probe.made(), 5);
    }
}

async fn of_the_iterator() {
    for end in each_end() {
        let probe = Probe::default();
        let items = (0..10).inspect(|item| {
            if *item == 5 {
                panic_any(Bug("iterator"));
            }
        });
        let fan_out = fan_out(&background(), items, waits(&probe));
        assert_bug(end.of(fan_out), "iterator", &probe).await;
        assert_eq!(probe.made(), 5);
    }
}

async fn of_the_destructor_of_the_iterator() {
    for end in each_end() {
        let probe = Probe::default();
        let bomb = OnDrop(|| panic_any(Bug("iterator's drop")));
        let items = (0..5).inspect(move |_| _ = &bomb);
        let fan_out = fan_out(&background(), items, waits(&probe));
        assert_bug(end.of(fan_out), "iterator's drop", &probe).await;
    }
}

/// Says once how many there are, and then panics.
struct Unsized(usize);

impl Iterator for Unsized {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.0 += 1;
        Some(self.0)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.0 == 3 {
            panic_any(Bug("size_hint"));
        }
        (0, None)
    }
}

async fn of_size_hint() {
    for end in each_end() {
        let probe = Probe::default();
        let fan_out = fan_out(&background(), Unsized(0), waits(&probe)).limit(20);
        assert_bug(end.of(fan_out), "size_hint", &probe).await;
    }
}

async fn of_the_stream() {
    struct Panics(usize);

    impl Stream for Panics {
        type Item = usize;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<usize>> {
            self.0 += 1;
            match self.0 {
                1..5 => Poll::Ready(Some(self.0)),
                5 => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                _ => panic_any(Bug("stream")),
            }
        }
    }

    for end in each_end() {
        let probe = Probe::default();
        let fan_out = fan_out_stream(&background(), Panics(0), waits(&probe));
        assert_bug(end.of(fan_out), "stream", &probe).await;
        assert_eq!(probe.made(), 4);
    }
}

async fn of_the_destructor_of_an_item() {
    for end in each_end() {
        let probe = Probe::default();
        let panics = ninth(&probe, |_| {
            let bomb = OnDrop(|| panic_any(Bug("drop")));
            async move {
                let _bomb = bomb;
                yields(10).await;
                Ok(1)
            }
        });
        let fan_out = fan_out(&background(), 0..10, panics);
        assert_bug(end.of(fan_out), "drop", &probe).await;
    }
}

async fn of_the_destructor_of_an_item_that_is_stopped() {
    for end in each_end() {
        let (probe, (ctx, guard)) = (Probe::default(), background().with_cancel());
        let guard = std::sync::Mutex::new(Some(guard));
        let mut bomb = Some(OnDrop(|| panic_any(Bug("drop"))));
        let wraps = probe.clone();
        let fan_out = fan_out(&ctx, 0..10, move |_, item| {
            let bomb = bomb.take();
            let guard = if item == 9 {
                guard.lock().unwrap().take()
            } else {
                None
            };
            wraps.wrap(async move {
                let _bomb = bomb;
                if item == 9 {
                    yields(10).await;
                    guard.unwrap().cancel();
                }
                pending::<Result<(), String>>().await
            })
        });
        assert_bug(end.of(fan_out), "drop", &probe).await;
    }
}

async fn of_on_progress() {
    for end in each_end() {
        let probe = Probe::default();
        let told = |progress: Progress| {
            if progress.started >= 5 {
                panic_any(Bug("on_progress"));
            }
        };
        let fan_out = fan_out(&background(), 0..10, waits(&probe));
        let fan_out = fan_out.on_progress(told);
        assert_bug(end.of(fan_out), "on_progress", &probe).await;
    }
}

async fn of_the_first_of_several() {
    in_each_place!(|at| {
        let fan_out = fan_out(&background(), 0..3, |ctx: Context, item| async move {
            if item == 1 {
                yields(5).await;
                panic_any(Bug("first"));
            }
            let _bomb = OnDrop(|| panic_any(Bug("later")));
            ctx.done().await;
            pending::<Result<(), String>>().await
        });
        let payload = panic_of(at!(fan_out).settle()).await;
        assert_eq!(payload.downcast_ref(), Some(&Bug("first")));
    });
}

async fn a_panic_wins_over_a_failure_and_over_a_success() {
    for end in each_end() {
        let probe = Probe::default();
        let (wraps, armed) = (probe.clone(), Count::default());
        let fan_out = fan_out(&background(), 0..3, move |_, item| {
            let armed = armed.clone();
            wraps.wrap(async move {
                if item < 2 {
                    until(|| armed.get() == 1).await;
                    return if item == 0 {
                        Err("a failure".to_owned())
                    } else {
                        OK
                    };
                }
                // The same whether the panic stops it or it ends by itself.
                let _bomb = OnDrop(|| panic_any(Bug("a bug")));
                armed.add();
                yields(20).await;
                Ok(())
            })
        });
        assert_bug(end.of(fan_out), "a bug", &probe).await;
    }
}

async fn a_panic_after_enough_successes_is_resumed() {
    in_each_place!(|at| {
        let started = Count::default();
        let fan_out = fan_out(&background(), 0..2, move |_, item| {
            let started = started.clone();
            async move {
                if item == 0 {
                    until(|| started.get() == 1).await;
                    return Ok::<_, String>(());
                }
                let _bomb = OnDrop(|| panic_any(Bug("too late")));
                started.add();
                pending().await
            }
        });
        let payload = panic_of(at!(fan_out).first_ok()).await;
        assert_eq!(payload.downcast_ref(), Some(&Bug("too late")));
    });
}

async fn a_stream_gives_the_results_before_a_panic_first() {
    for end in each_stream() {
        let gate = Gate::new();
        let waits = gate.clone();
        let fan_out = fan_out(&background(), 0..6, move |_, item| {
            let gate = waits.clone();
            async move {
                if item == 5 {
                    gate.pass().await;
                    panic_any(Bug("item"));
                }
                Ok::<_, String>(item)
            }
        });
        let mut stream = end.stream(fan_out.limit(6));
        let mut came = vec![stream.next().await.unwrap().unwrap()];
        for _ in 1..4 {
            came.push(stream.next().await.unwrap().unwrap());
        }
        gate.open();
        // The last of those waits, or is about to.
        came.push(stream.next().await.unwrap().unwrap());
        let payload = panic_of(stream.next()).await;
        assert_eq!(payload.downcast_ref(), Some(&Bug("item")));
        came.sort_unstable();
        assert_eq!(came, [0, 1, 2, 3, 4]);
    }
}

async fn a_stream_gives_no_items_that_a_panic_stopped() {
    for end in each_stream() {
        let probe = Probe::default();
        let panics = ninth(&probe, |_| async { panic_any(Bug("item")) });
        // A consumer that stops at the first error must still see the panic.
        let payload = panic_of(end.stream(fan_out(&background(), 0..10, panics)).next()).await;
        assert_eq!(payload.downcast_ref(), Some(&Bug("item")));
        probe.assert_all_dropped();
    }
}

async fn after_a_panic_a_stream_has_ended() {
    for end in each_stream() {
        let f = |_: Context, _| async { if true { panic_any(Bug("item")) } else { OK } };
        let mut stream = end.stream(fan_out(&background(), 0..1, f));
        let payload = panic_of(stream.next()).await;
        assert_eq!(payload.downcast_ref(), Some(&Bug("item")));
        assert_eq!(stream.next().await, None);
    }
}

async fn a_panic_is_the_cause_of_the_items_context() {
    for end in each_end() {
        let seen = Log::new();
        let sees = seen.clone();
        let fan_out = fan_out(&background(), 0..5, move |ctx: Context, _| {
            sees.add(ctx);
            async { if true { panic!("a bug") } else { OK } }
        });
        assert_eq!(
            text(panic_of(end.of(fan_out.limit(1).named("row"))).await),
            "a bug"
        );
        assert_eq!(seen.len(), 1);
        let cause = seen.get()[0].cause().unwrap().to_string();
        let (name, bug) = (r#"task "row[0]" (started at "#, ") panicked: a bug");
        assert!(cause.starts_with(name) && cause.ends_with(bug), "{cause}");
    }
}

async fn in_a_hedge() {
    for in_f in [true, false] {
        let probe = Probe::default();
        let wraps = probe.clone();
        let hedge = hedge(
            &background(),
            std::time::Duration::ZERO,
            5,
            move |_, attempt| {
                if in_f && attempt == 2 {
                    panic_any(Bug("attempt"));
                }
                wraps.wrap(async move {
                    if attempt == 2 {
                        panic_any(Bug("attempt"));
                    }
                    pending::<Result<(), String>>().await
                })
            },
        );
        assert_bug(hedge.map(drop), "attempt", &probe).await;
    }
}

async fn of_a_destructor_when_it_is_dropped_half_way_is_discarded() {
    for end in each_end() {
        let probe = Probe::default();
        let wraps = probe.clone();
        let fan_out = fan_out(&background(), 0..3, move |_, item| {
            let bomb = (item == 1).then(|| OnDrop(|| panic_any(Bug("drop"))));
            wraps.wrap(async move {
                let _bomb = bomb;
                pending::<Result<(), String>>().await
            })
        });
        let mut end = Box::pin(end.of(fan_out));
        while probe.made() < 3 {
            assert!(futures::poll!(&mut end).is_pending());
            tokio::task::yield_now().await;
        }
        drop(end);
        until(|| probe.dropped() == 3).await;
    }
}

#[test]
fn a_panic_of_the_destructor_of_an_unused_value_is_discarded() {
    let runtime = current_thread();
    in_each_place!(|at| {
        let f = |_: Context, _| ready(Ok::<_, String>(PanicsOnDrop("a value")));
        let stream = at!(fan_out(&background(), 0..2, f)).stream();
        runtime.block_on(async move {
            let mut stream = stream;
            std::mem::forget(stream.next().await);
            drop(stream);
        });
    });
}

async fn a_dropped_stream_discards_the_panics_of_its_destructors() {
    in_each_place!(|at| {
        for (ends, is_dropped) in [("well", false), ("with an error", false), ("", true)] {
            let bomb = PanicsOnDrop("the items");
            let items = (0..3).inspect(move |_| _ = &bomb);
            let f = move |_: Context, item| async move {
                match ends {
                    "well" => Ok(item),
                    "" => pending().await,
                    _ => Err(ends.to_owned()),
                }
            };
            let bomb = PanicsOnDrop("on_progress");
            let report = move |_: Progress| _ = &bomb;
            // So that it ends before the iterator does.
            let fan_out = fan_out(&background(), items, f)
                .limit(1)
                .on_progress(report);
            let mut first = at!(fan_out).stream();
            if is_dropped {
                assert!(futures::poll!(first.next()).is_pending());
                yields(10).await;
            } else {
                assert_eq!(first.next().await.unwrap().is_ok(), ends == "well");
            }
            drop(first);
        }
    });
}

async fn of_what_is_stopped_each_counts_as_one_failure() {
    in_each_place!(|at| {
        let (ctx, guard) = background().with_cancel();
        let failed = Count::default();
        let fails = failed.clone();
        let begun = Count::default();
        let begins = begun.clone();
        let stopped = fan_out(&ctx, 0..3, move |_, _: usize| {
            let (bomb, begun) = (PanicsOnDrop("an item"), begins.clone());
            async move {
                let _bomb = bomb;
                begun.add();
                pending::<Result<(), String>>().await
            }
        });
        let most = std::sync::atomic::AtomicUsize::new(0);
        let stopped = stopped.on_progress(move |progress| {
            let before = most.fetch_max(progress.failed, std::sync::atomic::Ordering::SeqCst);
            (before..progress.failed).for_each(|_| _ = fails.add());
        });
        let mut all = Box::pin(panic_of(at!(stopped).all()));
        while begun.get() < 3 {
            assert!(futures::poll!(&mut all).is_pending());
            tokio::task::yield_now().await;
        }
        drop(guard);
        assert_eq!(text(all.await), "an item");
        assert_eq!(failed.get(), 3);
    });
}

/// Panics in `next`, and from then on in `size_hint` with a payload that panics when it is dropped.
struct Broken(bool);

impl Iterator for Broken {
    type Item = ();

    fn next(&mut self) -> Option<()> {
        self.0 = true;
        panic_any(Bug("next"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.0 {
            panic_any(PanicsOnDrop("size_hint"));
        }
        (0, None)
    }
}

async fn a_hint_that_panics_after_the_iterator_changes_nothing() {
    for end in each_end() {
        let fan_out = fan_out(&background(), Broken(false), |_, ()| ready(OK));
        assert_bug(end.of(fan_out), "next", &Probe::default()).await;
    }
}

async fn of_an_item_lets_nothing_more_start_in_the_grace() {
    for end in each_end() {
        let late = Count::default();
        let counts = late.clone();
        let fan_out = fan_out(&background(), 0..2_000, move |ctx: Context, item| {
            let late = counts.clone();
            async move {
                if ctx.is_done() {
                    late.add();
                }
                if item == 50 {
                    panic_any(Bug("item 50"));
                }
                Err::<(), _>("no".to_owned())
            }
        });
        let ends = end.of(fan_out.limit(4).grace(std::time::Duration::from_secs(5)));
        std::panic::AssertUnwindSafe(ends).catch_unwind().await.ok();
        // One may have been polled at that instant on the other worker thread.
        assert!(late.get() <= 1, "{} began", late.get());
    }
}

async fn of_the_destructors_of_many_unused_values_do_not_abort() {
    in_each_place!(|at| {
        let made = Count::default();
        let new = || {
            let made = made.clone();
            let values = move |_, item| {
                let made = made.clone();
                async move {
                    if item == 3 {
                        pending::<()>().await;
                    }
                    made.add();
                    Ok::<_, String>(PanicsOnDrop("a value"))
                }
            };
            fan_out(&Context::background(), 0..4, values).limit(4)
        };
        macro_rules! dropped_with_three_values {
            ($future:expr) => {{
                let before = made.get();
                let mut future = Box::pin($future);
                while made.get() < before + 3 {
                    assert!(futures::poll!(future.as_mut()).is_pending());
                    tokio::task::yield_now().await;
                }
                yields(10).await;
                drop(future);
            }};
        }
        dropped_with_three_values!(at!(new()).all());
        dropped_with_three_values!(at!(new()).settle());
        dropped_with_three_values!(at!(new()).quorum(4));
        // The outcomes that wait for the consumer. On the caller's own task none waits for long.
        macro_rules! dropped_after_the_first {
            ($stream:expr) => {{
                let before = made.get();
                let mut stream = $stream;
                std::mem::forget(stream.next().await);
                until(|| made.get() == before + 3).await;
                yields(10).await;
                drop(stream);
            }};
        }
        dropped_after_the_first!(new().stream());
        dropped_after_the_first!(new().ordered_stream());
        dropped_after_the_first!(new().try_stream());
    });
}
