//! A slow consumer does not stall the items in flight. A hedge starts another attempt when an
//! answer is slow.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use errgroup::{Context, hedge};
use futures::StreamExt;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::fan_out_support::*;
use crate::group_support::*;
use crate::support::{HOUR, ms};

both_flavours![
    dropping_a_stream_stops_the_rest,
    dropping_the_future_of_a_next_loses_nothing,
    a_stream_wakes_a_consumer_that_waits,
    a_stream_may_move_between_tasks,
    the_first_success_of_a_hedge_wins_and_the_others_are_dropped,
    a_hedge_makes_one_attempt_if_the_answer_is_in_time,
    no_attempt_begins_after_a_success,
    when_all_attempts_have_failed_the_next_begins_at_once,
    a_hedge_lists_every_failure_in_order_of_completion,
    a_hedge_that_is_dropped_stops_its_attempts,
    a_hedge_starts_nothing_before_its_first_poll,
];

/// Each item holds the lock for two steps, like a connection of a small pool.
async fn locks(lock: Arc<Mutex<()>>, item: usize) -> Result<usize, String> {
    let _held = lock.lock().await;
    tokio::task::yield_now().await;
    tokio::time::sleep(ms(1)).await;
    Ok(item)
}

/// Consumes a stream, and takes the same lock between two results.
macro_rules! consume {
    ($stream:expr, $lock:expr) => {
        async {
            let mut stream = std::pin::pin!($stream);
            let mut consumed = 0;
            while let Some(result) = stream.next().await {
                result.unwrap();
                let _held = $lock.lock().await;
                consumed += 1;
            }
            consumed
        }
    };
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_waits_for_those_in_flight_does_not_deadlock() {
    // The trap: if items run on the consumer's task, the item that holds the lock is not polled
    // while the consumer awaits the lock.
    let lock = Arc::new(Mutex::new(()));
    let holds = lock.clone();
    let futures = futures::stream::iter(0..10).map(move |item| locks(holds.clone(), item));
    let stuck = consume!(futures.buffer_unordered(3), lock);
    assert!(timeout(HOUR, stuck).await.is_err());

    at_ends! {
        |stream| {
            let lock = Arc::new(Mutex::new(()));
            let holds = lock.clone();
            let f = move |_: Context, item| locks(holds.clone(), item);
            let consumed = consume!(stream!(fan_out(&background(), 0..10, f).limit(3)), lock);
            assert_eq!(timeout(HOUR, consumed).await, Ok(10));
        };
        [.stream()]
        [.ordered_stream()]
        [.try_stream()]
    }

    // On the caller's own task the trap exists, as the documentation says.
    let lock = Arc::new(Mutex::new(()));
    let f = |_: Context, item| locks(lock.clone(), item);
    let local = errgroup::fan_out(&background(), 0..10, f).limit(3).local();
    assert!(timeout(HOUR, consume!(local.stream(), lock)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn items_in_flight_run_while_the_consumer_is_slow() {
    at_ends! {
        |stream| {
            let (start, ends) = (Instant::now(), Log::new());
            let logs = ends.clone();
            let fan_out = fan_out(&background(), [10, 20, 30, 40], move |_, millis| {
                let logs = logs.clone();
                async move {
                    tokio::time::sleep(ms(millis)).await;
                    logs.add(start.elapsed());
                    Ok::<_, String>(millis)
                }
            });
            let mut stream = stream!(fan_out);
            assert_eq!(in_time(stream.next()).await, Some(Ok(10)));
            tokio::time::sleep(ms(1_000)).await;
            assert_eq!(ends.get(), [10, 20, 30, 40].map(ms));
            let rest: Vec<_> = in_time(stream.collect()).await;
            assert_eq!(rest, [Ok(20), Ok(30), Ok(40)]);
            assert_eq!(start.elapsed(), ms(1_010));
        };
        [.stream()]
        [.ordered_stream()]
        [.try_stream()]
    }
}

#[tokio::test(start_paused = true)]
async fn local_items_make_no_progress_between_polls() {
    let polled = Probe::default();
    let fan_out = errgroup::fan_out(&background(), 0..3, |_, item| {
        polled.wrap(async move {
            tokio::time::sleep(ms(10 * item)).await;
            OK
        })
    });
    let mut stream = fan_out.local().stream();
    assert_eq!(in_time(stream.next()).await, Some(OK));
    let before = polled.polled();
    tokio::time::sleep(ms(1_000)).await;
    assert_eq!(polled.polled(), before);
    assert_eq!(in_time(stream.count()).await, 2);
}

async fn dropping_a_stream_stops_the_rest() {
    for end in each_stream() {
        let (probe, pulled) = (Probe::default(), Count::default());
        let (wraps, pulls) = (probe.clone(), pulled.clone());
        let items = (0..).inspect(move |_| _ = pulls.add());
        let fan_out = fan_out(&background(), items, move |_, item: usize| {
            wraps.wrap(async move {
                yields(item % 3).await;
                Ok::<_, String>(item)
            })
        });
        let mut stream = end.stream(fan_out.limit(4));
        for _ in 0..10 {
            assert!(stream.next().await.is_some());
        }
        drop(stream);
        until(|| probe.dropped() == probe.made()).await;
        let (polled, before) = (probe.polled(), pulled.get());
        yields(20).await;
        assert_eq!((probe.polled(), pulled.get()), (polled, before));
    }
}

async fn dropping_the_future_of_a_next_loses_nothing() {
    for end in each_stream() {
        let fan_out = fan_out(&background(), 0..50, |_, item| async move {
            yields(item % 5).await;
            Ok::<_, String>(item)
        });
        let mut stream = end.stream(fan_out.limit(3));
        let mut came = Vec::new();
        loop {
            // A new future at each poll.
            match futures::poll!(stream.next()) {
                std::task::Poll::Ready(Some(result)) => came.push(result.unwrap()),
                std::task::Poll::Ready(None) => break,
                std::task::Poll::Pending => tokio::task::yield_now().await,
            }
        }
        came.sort_unstable();
        assert!(came.into_iter().eq(0..50));
    }
}

async fn a_stream_wakes_a_consumer_that_waits() {
    for end in each_stream() {
        let gate = Gate::new();
        let waits = gate.clone();
        let fan_out = fan_out(&background(), 0..5, move |_, item| {
            let gate = waits.clone();
            async move {
                gate.pass().await;
                Ok::<_, String>(item)
            }
        });
        let opens = async {
            for _ in 0..5 {
                yields(10).await;
                gate.let_one_through();
            }
        };
        let (came, ()) = futures::join!(end.stream(fan_out).count(), opens);
        assert_eq!(came, 5);
    }
}

/// A result may become ready between the check that finds none and the registration of the waker,
/// and it may be the last one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_misses_no_result_that_is_ready_as_it_begins_to_wait() {
    at_ends! {
        |stream| {
            for round in 0..2_000 {
                let fan_out = fan_out(&background(), 0..10, |_, _: u8| std::future::ready(OK));
                let stream = stream!(fan_out.limit(1 + round % 3));
                assert_eq!(in_time(stream.count()).await, 10);
            }
        };
        [.stream()]
        [.ordered_stream()]
        [.try_stream()]
    }
}

async fn a_stream_may_move_between_tasks() {
    at_ends! {
        |stream| {
            let fan_out = fan_out(&background(), 0..20, |_, item| async move {
                yields(item % 3).await;
                Ok::<_, String>(item)
            });
            let mut stream = stream!(fan_out.limit(3));
            // This poll registers another waker than the one that has to be woken later.
            let polled = futures::poll!(stream.next());
            let mut came = usize::from(polled.is_ready());
            loop {
                let next = tokio::spawn(async move { (stream.next().await, stream) });
                let (result, moved) = next.await.unwrap();
                if result.is_none() {
                    break;
                }
                came += 1;
                stream = moved;
            }
            assert_eq!(came, 20);
        };
        [.stream()]
        [.ordered_stream()]
        [.try_stream()]
    }
}

async fn the_first_success_of_a_hedge_wins_and_the_others_are_dropped() {
    let (probe, seen) = (Probe::default(), Log::new());
    let (wraps, sees) = (probe.clone(), seen.clone());
    let hedge = hedge(
        &background(),
        Duration::ZERO,
        10,
        move |ctx: Context, attempt| {
            sees.add(ctx);
            wraps.wrap(async move {
                if attempt != 3 {
                    return pending().await;
                }
                yields(3).await;
                Ok::<_, String>(attempt)
            })
        },
    );
    assert_eq!(hedge.await.unwrap(), 3);
    probe.assert_all_dropped();
    for ctx in seen.get() {
        let cause = ctx.cause().unwrap().to_string();
        assert_eq!(cause, "enough results received");
    }
}

async fn a_hedge_makes_one_attempt_if_the_answer_is_in_time() {
    let asked = Count::default();
    let asks = asked.clone();
    let hedge = hedge(&background(), HOUR, 5, move |_, attempt| {
        asks.add();
        async move {
            yields(5).await;
            Ok::<_, String>(attempt)
        }
    });
    assert_eq!(hedge.await.unwrap(), 0);
    assert_eq!(asked.get(), 1);
}

async fn no_attempt_begins_after_a_success() {
    let asked = Count::default();
    for round in 0..3_000 {
        let asks = asked.clone();
        let hedge = hedge(&background(), HOUR, 2, move |_, _| {
            asks.add();
            async move {
                for _ in 0..round % 400 * 10 {
                    std::hint::spin_loop();
                }
                OK
            }
        });
        hedge.await.unwrap();
    }
    assert_eq!(asked.get(), 3_000);
}

async fn when_all_attempts_have_failed_the_next_begins_at_once() {
    // With an hour between the attempts, this would take too long.
    let hedge = hedge(&background(), HOUR, 4, |_, attempt| async move {
        yields(attempt).await;
        if attempt < 3 {
            Err(format!("no {attempt}"))
        } else {
            Ok(attempt)
        }
    });
    assert_eq!(hedge.await.unwrap(), 3);
}

async fn a_hedge_lists_every_failure_in_order_of_completion() {
    let hedge = hedge(&background(), HOUR, 3, |_, attempt| async move {
        tokio::task::yield_now().await;
        Err::<(), _>(format!("no {attempt}"))
    });
    let errors = hedge.await.unwrap_err();
    let listed = errors
        .iter()
        .map(|task| format!("{}: {}", task.name().unwrap(), task.kind()));
    let listed: Vec<_> = listed.collect();
    assert_eq!(
        listed,
        ["attempt[0]: no 0", "attempt[1]: no 1", "attempt[2]: no 2"]
    );
}

async fn a_hedge_that_is_dropped_stops_its_attempts() {
    let probe = Probe::default();
    let wraps = probe.clone();
    let hedge = hedge(&background(), Duration::ZERO, 3, move |_, _| {
        wraps.wrap(pending::<Result<(), String>>())
    });
    let mut hedge = Box::pin(hedge);
    while probe.made() < 3 {
        assert!(futures::poll!(&mut hedge).is_pending());
        tokio::task::yield_now().await;
    }
    drop(hedge);
    until(|| probe.dropped() == 3).await;
    assert_eq!(probe.made(), 3);
}

async fn a_hedge_starts_nothing_before_its_first_poll() {
    let asked = Count::default();
    let asks = asked.clone();
    let hedge = hedge(&background(), Duration::ZERO, 3, move |_, _| {
        asks.add();
        std::future::ready(OK)
    });
    yields(10).await;
    assert_eq!(asked.get(), 0);
    assert!(hedge.await.is_ok());
}

#[test]
fn a_hedge_with_a_max_of_zero_panics_with_a_message() {
    let none = || hedge(&background(), HOUR, 0, |_, _| std::future::ready(OK));
    let message = text(panic_in(none));
    assert!(message.starts_with("a hedge with a max of 0 would never call the function"));
}

/// Each attempt succeeds or fails after its duration. Returns the result and the start of each
/// attempt.
async fn hedged(
    delay: u64,
    attempts: &'static [Result<u64, u64>],
) -> (
    Result<usize, errgroup::Errors<String>>,
    Vec<Duration>,
    Duration,
) {
    let (start, begins) = (Instant::now(), Log::new());
    let logs = begins.clone();
    let hedge = hedge(
        &background(),
        ms(delay),
        attempts.len(),
        move |_, attempt| {
            logs.add(start.elapsed());
            async move {
                match attempts[attempt] {
                    Ok(millis) => {
                        tokio::time::sleep(ms(millis)).await;
                        Ok(attempt)
                    }
                    Err(millis) => {
                        tokio::time::sleep(ms(millis)).await;
                        Err(format!("no {attempt}"))
                    }
                }
            }
        },
    );
    let answer = in_time(hedge).await;
    (answer, begins.get(), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_further_attempt_begins_each_time_that_the_delay_passes() {
    let (answer, begins, took) = hedged(10, &[Ok(1_000), Ok(1_000), Ok(5), Ok(1)]).await;
    assert_eq!(answer.unwrap(), 2);
    assert_eq!((begins, took), ([0, 10, 20].map(ms).to_vec(), ms(25)));
    // The first may still win.
    let (answer, begins, took) = hedged(10, &[Ok(22), Ok(1_000), Ok(5)]).await;
    assert_eq!(answer.unwrap(), 0);
    assert_eq!((begins, took), ([0, 10, 20].map(ms).to_vec(), ms(22)));
}

#[tokio::test(start_paused = true)]
async fn there_are_no_more_attempts_than_max() {
    let (answer, begins, took) = hedged(10, &[Ok(500), Ok(400)]).await;
    assert_eq!(answer.unwrap(), 1);
    assert_eq!((begins, took), ([0, 10].map(ms).to_vec(), ms(410)));
    let (answer, begins, took) = hedged(10, &[Ok(500)]).await;
    assert_eq!(answer.unwrap(), 0);
    assert_eq!((begins, took), (vec![ms(0)], ms(500)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_all_in_flight_starts_the_next_attempt() {
    // The first fails at 3, the second hangs, and the third starts one delay after the second.
    let (answer, begins, took) = hedged(10, &[Err(3), Ok(1_000), Ok(1)]).await;
    assert_eq!(answer.unwrap(), 2);
    assert_eq!((begins, took), ([0, 3, 13].map(ms).to_vec(), ms(14)));
    // Two in flight: the second fails at 12, the first at 15.
    let (answer, begins, took) = hedged(10, &[Err(15), Err(2), Ok(1_000), Ok(1)]).await;
    assert_eq!(answer.unwrap(), 3);
    assert_eq!((begins, took), ([0, 10, 15, 25].map(ms).to_vec(), ms(26)));
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_one_in_flight_does_not_start_the_next() {
    let (answer, begins, took) = hedged(10, &[Ok(1_000), Err(5), Ok(1)]).await;
    assert_eq!(answer.unwrap(), 2);
    assert_eq!((begins, took), ([0, 10, 20].map(ms).to_vec(), ms(21)));
}

#[tokio::test(start_paused = true)]
async fn a_hedge_fails_when_the_last_of_max_attempts_has() {
    let (answer, begins, took) = hedged(10, &[Err(50), Err(20), Err(5)]).await;
    let errors = answer.unwrap_err();
    let names: Vec<_> = errors.iter().map(|task| task.name().unwrap()).collect();
    assert_eq!(names, ["attempt[2]", "attempt[1]", "attempt[0]"]);
    assert!(
        errors
            .iter()
            .map(errgroup::TaskError::elapsed)
            .eq([5, 20, 50].map(ms))
    );
    assert_eq!((begins, took), ([0, 10, 20].map(ms).to_vec(), ms(50)));
}
