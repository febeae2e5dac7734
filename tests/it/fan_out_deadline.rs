//! The context is done, by its deadline or by a cancel: what each end reports of the items that
//! have finished and of those that have not.

use std::future::{pending, ready};
use std::time::Duration;

use errgroup::{Context, Errors, TaskErrorKind, fan_out_stream, hedge};
use futures::StreamExt;
use tokio::time::Instant;

use crate::fan_out_support::*;
use crate::group_support::*;
use crate::support::{HOUR, ms};

both_flavours![
    a_cancel_ends_each_end_with_its_cause,
    a_context_that_has_ended_starts_nothing,
    streams_give_an_error_for_each_item_that_had_started,
    try_stream_gives_its_error_when_the_rest_is_dropped,
    a_cancel_after_the_last_item_changes_nothing,
    settle_does_not_invent_items_that_it_cannot_count,
];

const LATE: &str = "context deadline exceeded";
const CANCELLED: &str = "context cancelled";

fn in_100_ms() -> Context {
    background().with_timeout(ms(100))
}

/// Takes this many milliseconds.
async fn takes(_: Context, millis: u64) -> Result<u64, String> {
    tokio::time::sleep(ms(millis)).await;
    Ok(millis)
}

fn late<T>() -> Result<T, String> {
    Err(LATE.to_owned())
}

#[tokio::test(start_paused = true)]
async fn each_end_resolves_at_the_deadline_and_all_is_dropped() {
    for end in each_end() {
        let (probe, start) = (Probe::default(), Instant::now());
        let wraps = probe.clone();
        let fan_out = fan_out(&in_100_ms(), 0.., move |_, _| {
            wraps.wrap(pending::<Result<(), String>>())
        });
        in_time(end.of(fan_out.limit(3))).await;
        assert_eq!(start.elapsed(), ms(100));
        assert_eq!(probe.made(), 3);
        probe.assert_all_dropped();
    }
}

#[tokio::test(start_paused = true)]
async fn all_and_for_each_fail_with_the_deadline() {
    in_each_place!(|at| {
        let new = || fan_out(&in_100_ms(), [10, 20, 500], takes);
        assert_eq!(in_time(at!(new()).all()).await.unwrap_err(), LATE);
        assert_eq!(in_time(at!(new()).for_each()).await.unwrap_err(), LATE);
        // All that was pulled has finished, and not all was pulled.
        let cut = || {
            let items = fan_out(&in_100_ms(), [60, 60, 60], takes);
            items.limit(1).grace(HOUR)
        };
        assert_eq!(in_time(at!(cut()).all()).await.unwrap_err(), LATE);
        assert_eq!(in_time(at!(cut()).for_each()).await.unwrap_err(), LATE);
    });
}

#[tokio::test(start_paused = true)]
async fn settle_gives_what_has_finished_and_the_reason_for_the_rest() {
    in_each_place!(|at| {
        let new = || fan_out(&in_100_ms(), [10, 500, 20, 30, 500, 40, 500], takes);
        let settled = in_time(at!(new()).settle()).await;
        let expected = [Ok(10), late(), Ok(20), Ok(30), late(), Ok(40), late()];
        assert_eq!(settled, expected);
        // Those that were never pulled are among them.
        let settled = in_time(at!(new().limit(1)).settle()).await;
        let expected = [Ok(10), late(), late(), late(), late(), late(), late()];
        assert_eq!(settled, expected);
    });
}

#[tokio::test(start_paused = true)]
async fn what_fails_before_the_deadline_keeps_its_own_failure() {
    in_each_place!(|at| {
        let fan_out = fan_out(&in_100_ms(), [10, 500], |ctx, millis| async move {
            takes(ctx, millis).await?;
            Err::<u64, _>(format!("no {millis}"))
        });
        let settled = in_time(at!(fan_out).settle()).await;
        assert_eq!(settled, [Err("no 10".to_owned()), late()]);
    });
}

#[tokio::test(start_paused = true)]
async fn settle_counts_what_was_never_pulled_by_the_upper_bound_only() {
    in_each_place!(|at| {
        // The upper bound is that of all ten, though a filter lets through only half of them.
        let even = (0..10_u64)
            .filter(|item| item % 2 == 0)
            .map(|item| 50 * item);
        let settled = in_time(at!(fan_out(&in_100_ms(), even, takes).limit(1)).settle()).await;
        assert_eq!(settled[0], Ok(0));
        assert!(settled[1..].iter().all(Result::is_err));
        assert!((5..=10).contains(&settled.len()), "{}", settled.len());

        // Without one, it ends with the last that was pulled.
        let mut next = 0;
        let unknown = std::iter::from_fn(move || {
            next += 60;
            Some(next)
        });
        let settled = in_time(at!(fan_out(&in_100_ms(), unknown, takes).limit(2)).settle()).await;
        assert_eq!(settled, [Ok(60), late(), late()]);
        let endless = std::iter::repeat(60);
        let settled = in_time(at!(fan_out(&in_100_ms(), endless, takes).limit(1)).settle()).await;
        assert_eq!(settled, [Ok(60), late()]);

        // An upper bound that is too large to be meant counts as none.
        for range in [0..u64::MAX, 0..usize::MAX as u64] {
            let slow = |_: Context, _: u64| pending::<Result<u64, String>>();
            let settled = in_time(at!(fan_out(&in_100_ms(), range, slow).limit(2)).settle()).await;
            assert_eq!(settled, [late(), late()]);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn settle_of_a_stream_uses_its_size_hint() {
    in_each_place!(|at| {
        let items = futures::stream::iter([10, 500, 500]);
        let fan_out = fan_out_stream(&in_100_ms(), items, takes).limit(1);
        let settled = in_time(at!(fan_out).settle()).await;
        assert_eq!(settled, [Ok(10), late(), late()]);
        let items = futures::stream::iter([10]).chain(futures::stream::pending());
        let fan_out = fan_out_stream(&in_100_ms(), items, takes);
        let settled = in_time(at!(fan_out).settle()).await;
        assert_eq!(settled, [Ok(10)]);
    });
}

async fn settle_does_not_invent_items_that_it_cannot_count() {
    in_each_place!(|at| {
        let (ctx, guard) = background().with_cancel();
        guard.cancel();
        let pulls = |_: Context, _: u64| ready(OK);
        let settled = at!(fan_out(&ctx, 0.., pulls)).settle().await;
        assert_eq!(settled, []);
        let settled = at!(fan_out(&ctx, 0..u64::MAX, pulls)).settle().await;
        assert_eq!(settled, []);
        let settled = at!(fan_out(&ctx, 0..3, pulls)).settle().await;
        assert_eq!(settled, vec![Err(CANCELLED.to_owned()); 3]);
    });
}

#[tokio::test(start_paused = true)]
async fn streams_end_at_the_deadline() {
    in_each_place!(|at| {
        let new = || fan_out(&in_100_ms(), [500, 10, 600, 20, 700], takes).limit(3);
        let stream = at!(new()).stream();
        let results: Vec<_> = in_time(stream.collect()).await;
        assert_eq!(results, [Ok(10), Ok(20), late(), late(), late()]);
        let stream = at!(new()).ordered_stream();
        let results: Vec<_> = in_time(stream.collect()).await;
        // The two that wait for the first in order take the room of the last.
        assert_eq!(results, [late(), Ok(10), late()]);
        let stream = at!(new()).try_stream();
        let results: Vec<_> = in_time(stream.collect()).await;
        assert_eq!(results, [Ok(10), Ok(20), late()]);
    });
}

async fn streams_give_an_error_for_each_item_that_had_started() {
    at_ends! {
        |stream| {
            let ((ctx, guard), probe) = (background().with_cancel(), Probe::default());
            let wraps = probe.clone();
            let fan_out = fan_out(&ctx, 0.., move |_, _| {
                wraps.wrap(pending::<Result<(), String>>())
            });
            let mut stream = stream!(fan_out.limit(4));
            while probe.polled() < 4 {
                assert!(futures::poll!(stream.next()).is_pending());
                tokio::task::yield_now().await;
            }
            guard.cancel_with("enough");
            for _ in 0..4 {
                assert_eq!(stream.next().await, Some(Err(CANCELLED.to_owned())));
            }
            assert_eq!(stream.next().await, None);
            assert_eq!(probe.made(), 4);
            probe.assert_all_dropped();
        };
        [.stream()]
        [.ordered_stream()]
        [.local().stream()]
        [.local().ordered_stream()]
    }
}

async fn try_stream_gives_its_error_when_the_rest_is_dropped() {
    in_each_place!(|at| {
        let ((ctx, guard), probe) = (background().with_cancel(), Probe::default());
        let wraps = probe.clone();
        let fan_out = fan_out(&ctx, 0.., move |_, _| {
            wraps.wrap(pending::<Result<(), String>>())
        });
        let mut stream = at!(fan_out.limit(4)).try_stream();
        while probe.polled() < 4 {
            assert!(futures::poll!(stream.next()).is_pending());
            tokio::task::yield_now().await;
        }
        guard.cancel_with("enough");
        assert_eq!(stream.next().await, Some(Err(CANCELLED.to_owned())));
        probe.assert_all_dropped();
        assert_eq!(stream.next().await, None);
    });
}

/// The names of those that were stopped for this, and of those that failed.
fn stopped_and_failed(errors: &Errors<String>, why: &str) -> (Vec<String>, Vec<String>) {
    let (mut stopped, mut failed) = (Vec::new(), Vec::new());
    for task in errors {
        let name = task.name().unwrap().to_owned();
        match task.kind() {
            TaskErrorKind::Aborted(error) => {
                assert_eq!(error.to_string(), why);
                stopped.push(name);
            }
            _ => failed.push(name),
        }
    }
    stopped.sort_unstable();
    (stopped, failed)
}

#[tokio::test(start_paused = true)]
async fn first_ok_quorum_and_hedge_list_what_was_in_flight() {
    let f = |ctx, millis| async move {
        takes(ctx, millis).await?;
        if millis < 20 {
            Err("no".to_owned())
        } else {
            Ok(millis)
        }
    };
    in_each_place!(|at| {
        let new = |items: [u64; 4]| fan_out(&in_100_ms(), items, f).limit(3);
        let errors = in_time(at!(new([500, 10, 500, 500])).first_ok()).await;
        let expected = (["item 0", "item 2", "item 3"], ["item 1"]);
        let (stopped, failed) = stopped_and_failed(&errors.unwrap_err(), LATE);
        assert_eq!(
            (&stopped[..], &failed[..]),
            (
                &expected.0.map(String::from)[..],
                &expected.1.map(String::from)[..]
            )
        );

        let errors = in_time(at!(new([30, 10, 500, 500])).quorum(2)).await;
        let errors = errors.unwrap_err();
        let (stopped, failed) = stopped_and_failed(&errors, LATE);
        assert_eq!(
            (stopped, failed),
            (
                vec!["item 2".into(), "item 3".into()],
                vec!["item 1".into()]
            )
        );
        // It says how long they ran.
        let stopped = errors.iter().find(|task| task.name() == Some("item 3"));
        assert_eq!(stopped.unwrap().elapsed(), ms(90));
    });
    let hedge = hedge(&in_100_ms(), ms(40), 5, |ctx, _| takes(ctx, 500));
    let (stopped, failed) = stopped_and_failed(&in_time(hedge).await.unwrap_err(), LATE);
    assert_eq!(stopped, ["attempt[0]", "attempt[1]", "attempt[2]"]);
    assert_eq!(failed.len(), 0);
}

async fn a_cancel_ends_each_end_with_its_cause() {
    in_each_place!(|at| {
        let new = || {
            let (ctx, guard) = background().with_cancel();
            let mut guard = Some(guard);
            fan_out(&ctx, 0..3, move |_, item| {
                let guard = if item == 2 { guard.take() } else { None };
                async move {
                    if let Some(guard) = guard {
                        guard.cancel_with("shutting down");
                    }
                    pending::<anyhow::Result<()>>().await
                }
            })
        };
        let cause = |error: &anyhow::Error| {
            let error = error.downcast_ref::<errgroup::ContextError>().unwrap();
            assert_eq!(error.cause().unwrap().to_string(), "shutting down");
        };
        cause(&at!(new()).all().await.unwrap_err());
        cause(&at!(new()).for_each().await.unwrap_err());
        let settled = at!(new()).settle().await;
        assert_eq!(settled.len(), 3);
        settled
            .iter()
            .for_each(|result| cause(result.as_ref().unwrap_err()));
        let last: Vec<_> = at!(new()).try_stream().collect().await;
        assert_eq!(last.len(), 1);
        cause(last[0].as_ref().unwrap_err());
        let results: Vec<_> = at!(new()).stream().collect().await;
        assert_eq!(results.len(), 3);
        results
            .iter()
            .for_each(|result| cause(result.as_ref().unwrap_err()));
        let errors = at!(new()).first_ok().await.unwrap_err();
        assert_eq!(errors.len(), 3);
        for task in at!(new()).quorum(2).await.unwrap_err() {
            let TaskErrorKind::Aborted(error) = task.kind() else {
                panic!("{task:?}");
            };
            assert_eq!(error.cause().unwrap().to_string(), "shutting down");
        }
    });
}

async fn a_context_that_has_ended_starts_nothing() {
    let (ctx, guard) = background().with_cancel();
    guard.cancel_with("over");
    let pulled = Count::default();
    let items = || {
        let pulls = pulled.clone();
        (0..3).inspect(move |_| _ = pulls.add())
    };
    for end in each_end() {
        end.of(fan_out(&ctx, items(), |_, _| ready(OK))).await;
    }
    in_each_place!(|at| {
        let new = || fan_out(&ctx, items(), |_, _| ready(OK));
        let error = || Err(CANCELLED.to_owned());
        assert_eq!(at!(new()).all().await.unwrap_err(), CANCELLED);
        assert_eq!(at!(new()).for_each().await, error());
        assert_eq!(at!(new()).settle().await, [error(), error(), error()]);
        let results: Vec<_> = at!(new()).try_stream().collect().await;
        assert_eq!(results, [error()]);
        assert_eq!(at!(new()).stream().count().await, 0);
        assert_eq!(at!(new()).ordered_stream().count().await, 0);
        for errors in [
            at!(new()).first_ok().await.unwrap_err(),
            at!(new()).quorum(2).await.unwrap_err(),
        ] {
            assert_eq!(errors.len(), 1);
            assert!(
                errors.to_string().ends_with("was stopped: over"),
                "{errors}"
            );
        }
    });
    let pulls = pulled.clone();
    let errors = hedge(&ctx, Duration::ZERO, 3, move |_, _| {
        pulls.add();
        ready(OK)
    });
    assert_eq!(errors.await.unwrap_err().len(), 1);
    assert_eq!(pulled.get(), 0);
}

async fn a_cancel_after_the_last_item_changes_nothing() {
    in_each_place!(|at| {
        let (ctx, guard) = background().with_cancel();
        let f = |_: Context, item| async move {
            yields(10).await;
            Ok::<_, String>(item)
        };
        let new = || fan_out(&ctx, 0..3, f).limit(3);
        assert_eq!(at!(new()).all().await.unwrap(), [0, 1, 2]);
        // The results of a stream that wait for the consumer are not lost to a later end.
        let all_started = Count::default();
        let counts = all_started.clone();
        let told = new().on_progress(move |progress| {
            if progress.started == 3 {
                counts.add();
            }
        });
        let mut stream = at!(told).ordered_stream();
        assert_eq!(stream.next().await, Some(Ok(0)));
        until(|| all_started.get() > 0).await;
        guard.cancel();
        let rest: Vec<_> = stream.collect().await;
        assert_eq!(rest.len(), 2);
    });
}

#[tokio::test(start_paused = true)]
async fn the_deadline_stops_items_while_the_consumer_is_slow() {
    at_ends! {
        |stream| {
            let (gauge, start) = (Gauge::default(), Instant::now());
            let (enters, left) = (gauge.clone(), Log::new());
            let leaves = left.clone();
            let fan_out = fan_out(&in_100_ms(), 0..10, move |_, item| {
                let (alive, leaves) = (enters.enter(), leaves.clone());
                async move {
                    let _at = OnDrop(move || leaves.add(start.elapsed()));
                    let _alive = alive;
                    if item == 0 {
                        return Ok::<_, String>(item);
                    }
                    pending().await
                }
            });
            let mut stream = stream!(fan_out.limit(4));
            assert_eq!(in_time(stream.next()).await, Some(Ok(0)));
            // The consumer does not poll for a second, and the items are dropped in time all the
            // same.
            tokio::time::sleep(ms(1_000)).await;
            assert_eq!((gauge.now(), gauge.most()), (0, 4));
            assert!(left.get()[1..].iter().all(|at| *at == ms(100)), "{:?}", left.get());
            let rest: Vec<_> = in_time(stream.collect()).await;
            assert!(rest.iter().all(|result| *result == late()), "{rest:?}");
        };
        [.stream()]
        [.ordered_stream()]
        [.try_stream()]
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_met_does_nothing() {
    for end in each_end() {
        let start = Instant::now();
        let ctx = background().with_timeout(HOUR);
        in_time(end.of(fan_out(&ctx, [10, 10], takes))).await;
        assert_eq!(start.elapsed(), ms(10));
    }
}
