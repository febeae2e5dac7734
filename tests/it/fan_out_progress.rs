//! `on_progress` is called for each start and each end, one call at a time, and the last call has
//! the totals.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use errgroup::{Context, Progress, fan_out_stream};
use futures::{FutureExt, StreamExt};

use crate::fan_out_support::*;
use crate::group_support::*;
use crate::support::HOUR;

both_flavours![
    each_start_and_end_is_reported_and_the_last_has_the_totals,
    failures_are_counted_apart,
    calls_are_never_concurrent_and_counts_never_go_down,
    the_size_hint_is_that_of_all_items,
    what_was_stopped_is_in_neither_count,
    without_items_nothing_is_reported,
    with_a_stream_it_reports_what_waits,
    it_is_dropped_when_the_fan_out_is_over,
    a_report_may_call_back,
];

fn record<F>(log: &Log<Progress>, f: F) -> impl FnMut(Progress) + Send + use<F>
where
    F: Fn() + Send,
{
    let log = log.clone();
    move |progress| {
        f();
        log.add(progress);
    }
}

/// Asserts that no count ever goes down, and that all is consistent.
#[track_caller]
fn assert_forward(calls: &[Progress]) {
    for pair in calls.windows(2) {
        let (before, after) = (pair[0], pair[1]);
        assert!(before.started <= after.started, "{pair:?}");
        assert!(before.done <= after.done, "{pair:?}");
        assert!(before.failed <= after.failed, "{pair:?}");
    }
    for call in calls {
        assert!(call.done + call.failed <= call.started, "{call:?}");
    }
}

async fn each_start_and_end_is_reported_and_the_last_has_the_totals() {
    at_ends! {
        |end| {
            let log = Log::new();
            let fan_out = fan_out(&background(), 0..30, |_, item| async move {
                yields(item % 4).await;
                OK
            });
            let fan_out = fan_out.limit(4).on_progress(record(&log, || ()));
            end!(fan_out).await;
            let calls = log.get();
            assert_eq!(calls.len(), 60);
            assert_forward(&calls);
            let totals = Progress {
                started: 30,
                done: 30,
                failed: 0,
                size_hint: (30, Some(30)),
            };
            assert_eq!(calls.last(), Some(&totals));
            assert!(calls[0].started >= 1);
            // The calls are made while the items run.
            assert!(calls.iter().any(|call| call.started < 10));
            assert!(calls.iter().all(|call| call.started <= call.done + 4));
        };
        [.all().map(drop)]
        [.for_each().map(drop)]
        [.settle().map(drop)]
        [.try_stream().count().map(drop)]
        [.stream().count().map(drop)]
        [.ordered_stream().count().map(drop)]
        [.quorum(30).map(drop)]
        [.local().all().map(drop)]
        [.local().for_each().map(drop)]
        [.local().settle().map(drop)]
        [.local().try_stream().count().map(drop)]
        [.local().stream().count().map(drop)]
        [.local().ordered_stream().count().map(drop)]
        [.local().quorum(30).map(drop)]
    }
}

async fn failures_are_counted_apart() {
    at_ends! {
        |end| {
            let log = Log::new();
            let fan_out = fan_out(&background(), 0..10, |_, item| async move {
                yields(item % 3).await;
                if item % 3 == 0 { Err("no".to_owned()) } else { Ok(()) }
            });
            end!(fan_out.on_progress(record(&log, || ()))).await;
            let calls = log.get();
            assert_forward(&calls);
            let last = calls.last().unwrap();
            assert_eq!((last.started, last.done, last.failed), (10, 6, 4));
        };
        [.settle().map(drop)]
        [.stream().count().map(drop)]
        [.ordered_stream().count().map(drop)]
        [.quorum(6).map(drop)]
        [.local().settle().map(drop)]
        [.local().stream().count().map(drop)]
        [.local().ordered_stream().count().map(drop)]
    }
    in_each_place!(|at| {
        let log = Log::new();
        let fan_out = fan_out(&background(), 0..10, |_, item| async move {
            if item == 3 {
                Err("no".to_owned())
            } else {
                Ok(())
            }
        });
        let fan_out = fan_out.limit(1).on_progress(record(&log, || ()));
        assert!(at!(fan_out).all().await.is_err());
        let last = log.get().pop().unwrap();
        assert_eq!((last.started, last.done, last.failed), (4, 3, 1));
    });
}

async fn calls_are_never_concurrent_and_counts_never_go_down() {
    for end in each_end() {
        let (log, inside) = (Log::new(), Arc::new(AtomicBool::new(false)));
        let alone = move || {
            assert!(!inside.swap(true, Ordering::SeqCst), "two calls at once");
            std::thread::yield_now();
            inside.store(false, Ordering::SeqCst);
        };
        let fan_out = fan_out(&background(), 0..200, |_, item: usize| async move {
            yields(item % 3).await;
            OK
        });
        let fan_out = fan_out.limit(16).on_progress(record(&log, alone));
        end.of(fan_out).await;
        assert!(log.len() > 0);
        assert_forward(&log.get());
    }
}

async fn the_size_hint_is_that_of_all_items() {
    in_each_place!(|at| {
        let ready = |_: Context, _: usize| std::future::ready(OK);
        let log = Log::new();
        let exact = fan_out(&background(), 0..10, ready).on_progress(record(&log, || ()));
        assert!(at!(exact.limit(2)).for_each().await.is_ok());
        assert!(
            log.get()
                .iter()
                .all(|call| call.size_hint == (10, Some(10)))
        );

        let log = Log::new();
        let even = (0..10).filter(|item| item % 2 == 0);
        let bounded = fan_out(&background(), even, ready).on_progress(record(&log, || ()));
        assert!(at!(bounded.limit(2)).for_each().await.is_ok());
        let calls = log.get();
        let within = |call: &Progress| {
            call.size_hint
                .1
                .is_some_and(|most| (5..=10).contains(&most))
        };
        assert!(calls.iter().all(within), "{calls:?}");
        let last = calls.last().unwrap();
        assert_eq!((last.started, last.size_hint.0), (5, 5));

        let (log, mut left) = (Log::new(), 0..3);
        let unknown = std::iter::from_fn(move || left.next());
        let unknown = fan_out(&background(), unknown, ready).on_progress(record(&log, || ()));
        assert!(at!(unknown.limit(1)).for_each().await.is_ok());
        let hints: Vec<_> = log.get().iter().map(|call| call.size_hint).collect();
        assert_eq!(hints[0], (1, None));
        assert_eq!(hints[2], (2, None));
        assert_eq!(hints[4], (3, None));

        // Neither bound overflows.
        let log = Log::new();
        let most = fan_out(&background(), 0..usize::MAX, ready).on_progress(record(&log, || ()));
        assert!(at!(most.limit(1)).first_ok().await.is_ok());
        assert_eq!(log.get()[0].size_hint, (usize::MAX, Some(usize::MAX)));
        let log = Log::new();
        let endless = fan_out(&background(), std::iter::repeat(1), ready);
        let endless = endless.on_progress(record(&log, || ())).limit(1);
        assert!(at!(endless).first_ok().await.is_ok());
        assert_eq!(log.get()[0].size_hint, (usize::MAX, None));

        let log = Log::new();
        let items = futures::stream::iter(0..4);
        let stream = fan_out_stream(&background(), items, ready).on_progress(record(&log, || ()));
        assert!(at!(stream).for_each().await.is_ok());
        assert!(log.get().iter().all(|call| call.size_hint == (4, Some(4))));
    });
}

async fn what_was_stopped_is_in_neither_count() {
    in_each_place!(|at| {
        let (log, probe) = (Log::new(), Probe::default());
        let wraps = probe.clone();
        let fan_out = fan_out(&background(), 0..5, move |_, item| {
            let probe = wraps.clone();
            wraps.wrap(async move {
                if item != 1 {
                    return pending().await;
                }
                until(|| probe.made() == 5).await;
                OK
            })
        });
        let fan_out = fan_out.limit(5).on_progress(record(&log, || ()));
        assert!(at!(fan_out).first_ok().await.is_ok());
        let calls = log.get();
        assert_eq!(calls.len(), 10);
        let last = calls.last().unwrap();
        assert_eq!((last.started, last.done, last.failed), (5, 1, 0));
    });
}

async fn without_items_nothing_is_reported() {
    for end in each_end() {
        let log = Log::new();
        let none = fan_out(&background(), Vec::<u8>::new(), |_, _| {
            pending::<Result<(), String>>()
        });
        end.of(none.on_progress(record(&log, || ()))).await;
        assert_eq!(log.len(), 0);
    }
}

async fn with_a_stream_it_reports_what_waits() {
    at_ends! {
        |stream| {
            let log = Log::new();
            let fan_out = fan_out(&background(), 0..10, |_, _: u8| std::future::ready(OK));
            let fan_out = fan_out.limit(4).on_progress(record(&log, || ()));
            let mut stream = stream!(fan_out);
            assert!(stream.next().await.is_some());
            // With room for the first again.
            until(|| log.len() >= 10).await;
            yields(20).await;
            let last = log.get().pop().unwrap();
            assert_eq!((last.started, last.done), (5, 5));
            assert_eq!(stream.count().await, 9);
        };
        [.try_stream()]
        [.stream()]
        [.ordered_stream()]
    }
}

async fn it_is_dropped_when_the_fan_out_is_over() {
    for end in each_end() {
        let gone = Count::default();
        let goes = gone.clone();
        let held = OnDrop(move || _ = goes.add());
        let fan_out = fan_out(&background(), 0..3, |_, _: u8| std::future::ready(OK));
        end.of(fan_out.on_progress(move |_| _ = &held)).await;
        assert_eq!(gone.get(), 1);
    }
}

async fn a_report_may_call_back() {
    in_each_place!(|at| {
        let (ctx, guard) = background().with_cancel();
        let asks = ctx.clone();
        let report = move |progress: Progress| {
            if progress.done == 3 {
                guard.cancel_with("enough");
            }
            assert_eq!(asks.is_done(), progress.done >= 3);
        };
        let fan_out = fan_out(&ctx, 0.., |_, _: u64| std::future::ready(OK));
        let error = at!(fan_out.limit(1).on_progress(report)).for_each().await;
        assert_eq!(error.unwrap_err(), "context cancelled");
    });
}

#[tokio::test]
async fn a_panic_of_the_function_is_a_failure_of_a_started_item() {
    in_each_place!(|at| {
        let log = Log::new();
        let all = fan_out(&background(), 0..2, |_, item| {
            if item == 1 {
                std::panic::resume_unwind(Box::new("panicked"));
            }
            async move {
                yields(5).await;
                Ok::<_, String>(item)
            }
        });
        // The grace lets the first item end after the panic, which is reported.
        let all = all.grace(HOUR).on_progress(record(&log, || ()));
        panic_of(at!(all).all()).await;
        assert_forward(&log.get());
        let last = *log.get().last().unwrap();
        assert_eq!((last.started, last.done, last.failed), (2, 1, 1));
    });
}
