//! Each end does what it says, on tasks of the runtime and on the caller's own.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, ready};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use errgroup::{Context, Errors, Progress, TaskErrorKind};
use futures::{FutureExt, Stream, StreamExt};

use crate::fan_out_support::*;
use crate::group_support::*;
use crate::support::{HOUR, ms};

both_flavours![
    all_gives_the_values_in_the_order_of_the_items,
    without_items_each_end_resolves_at_once,
    all_and_for_each_stop_at_the_first_failure,
    for_each_runs_every_item_and_keeps_no_value,
    settle_gives_each_result_in_the_order_of_the_items,
    stream_gives_the_results_in_order_of_completion,
    ordered_stream_gives_the_results_in_the_order_of_the_items,
    try_stream_gives_the_successes_before_the_failure,
    a_stream_that_has_ended_gives_nothing_more,
    first_ok_is_the_first_success,
    first_ok_lists_every_failure_in_order_of_completion,
    first_ok_of_no_items_cannot_be_reached,
    quorum_gives_the_first_successes_in_order_of_completion,
    a_quorum_of_zero_is_empty_and_starts_nothing,
    a_quorum_of_more_than_there_are_items_cannot_be_reached,
    without_failures_the_one_error_says_cannot_be_reached,
    a_quorum_fails_as_soon_as_it_cannot_be_reached,
    the_last_item_is_awaited_if_another_worker_finds_no_more,
    failures_have_the_name_of_their_item,
    options_may_come_in_any_order,
    nothing_is_pulled_before_the_first_poll,
    each_call_gets_a_child_context_that_ends_with_the_fan_out,
    local_items_may_borrow_and_need_not_be_send,
];

/// A gate for each item.
fn gates<const N: usize>() -> Arc<[Gate; N]> {
    Arc::new(std::array::from_fn(|_| Gate::new()))
}

/// The names of the failures, and how they failed.
fn listed(errors: &Errors<String>) -> Vec<String> {
    let one =
        |task: &errgroup::TaskError<String>| format!("{}: {}", task.name().unwrap(), task.kind());
    errors.iter().map(one).collect()
}

async fn all_gives_the_values_in_the_order_of_the_items() {
    in_each_place!(|at| {
        for limit in [1, 3, 20, usize::MAX] {
            let backwards = fan_out(&background(), 0..20, |_, item| async move {
                yields(20 - item).await;
                Ok::<_, String>(2 * item)
            });
            let values = at!(backwards.limit(limit)).all().await.unwrap();
            assert!(values.into_iter().eq((0..20).map(|item| 2 * item)));
        }
    });
}

async fn without_items_each_end_resolves_at_once() {
    for end in each_end() {
        let none = fan_out(&background(), Vec::<u8>::new(), |_, _| ready(OK));
        end.of(none).await;
    }
    in_each_place!(|at| {
        let none = || fan_out(&background(), Vec::<u8>::new(), |_, _| ready(OK));
        assert_eq!(at!(none()).all().await.unwrap(), []);
        assert_eq!(at!(none()).for_each().await, OK);
        assert_eq!(at!(none()).settle().await, []);
        assert_eq!(at!(none()).try_stream().next().await, None);
        assert_eq!(at!(none()).stream().next().await, None);
        assert_eq!(at!(none()).ordered_stream().next().await, None);
    });
}

async fn all_and_for_each_stop_at_the_first_failure() {
    in_each_place!(|at| {
        let (pulled, probe) = (Count::default(), Probe::default());
        let fails = || {
            let (pulled, probe) = (pulled.clone(), probe.clone());
            let items = (0..100).inspect(move |_| _ = pulled.add());
            let f = move |_: Context, item| {
                probe.wrap(async move {
                    if item != 2 {
                        pending::<()>().await;
                    }
                    yields(5).await;
                    Err::<(), _>(format!("{item} failed"))
                })
            };
            fan_out(&background(), items, f).limit(3)
        };
        assert_eq!(at!(fails()).all().await.unwrap_err(), "2 failed");
        probe.assert_all_dropped();
        assert_eq!(pulled.get(), 3);
        assert_eq!(at!(fails()).for_each().await.unwrap_err(), "2 failed");
        probe.assert_all_dropped();
        assert_eq!(pulled.get(), 6);
    });
}

async fn for_each_runs_every_item_and_keeps_no_value() {
    in_each_place!(|at| {
        let (ran, values) = (Count::default(), Gauge::default());
        let (runs, gives) = (ran.clone(), values.clone());
        let each = fan_out(&background(), 0..50, move |_, item| {
            let (runs, gives) = (runs.clone(), gives.clone());
            async move {
                yields(item % 3).await;
                runs.add();
                Ok::<_, String>(gives.enter())
            }
        });
        assert_eq!(at!(each.limit(1)).for_each().await, OK);
        assert_eq!(ran.get(), 50);
        assert_eq!((values.now(), values.most()), (0, 1));
    });
}

async fn settle_gives_each_result_in_the_order_of_the_items() {
    in_each_place!(|at| {
        let f = |_: Context, item: usize| async move {
            yields(10 - item).await;
            if item % 3 == 0 {
                Err(format!("no {item}"))
            } else {
                Ok(item)
            }
        };
        let fan_out = fan_out(&background(), 0..10, f).limit(4);
        let expected = (0..10).map(|item| match item % 3 {
            0 => Err(format!("no {item}")),
            _ => Ok(item),
        });
        assert!(at!(fan_out).settle().await.into_iter().eq(expected));
    });
}

async fn stream_gives_the_results_in_order_of_completion() {
    in_each_place!(|at| {
        let gates = gates::<3>();
        let waits = gates.clone();
        let fan_out = fan_out(&background(), 0..3, move |_, item: usize| {
            let gates = waits.clone();
            async move {
                gates[item].pass().await;
                if item == 0 {
                    Err("zero".to_owned())
                } else {
                    Ok(item)
                }
            }
        });
        let mut stream = at!(fan_out).stream();
        assert!(futures::poll!(stream.next()).is_pending());
        for (opens, result) in [(2, Ok(2)), (0, Err("zero".to_owned())), (1, Ok(1))] {
            gates[opens].open();
            assert_eq!(stream.next().await, Some(result));
        }
        assert_eq!(stream.next().await, None);
    });
}

async fn ordered_stream_gives_the_results_in_the_order_of_the_items() {
    in_each_place!(|at| {
        let (gates, ended) = (gates::<4>(), Count::default());
        let (waits, ends) = (gates.clone(), ended.clone());
        let fan_out = fan_out(&background(), 0..4, move |_, item: usize| {
            let (gates, ends) = (waits.clone(), ends.clone());
            async move {
                gates[item].pass().await;
                ends.add();
                if item == 1 {
                    Err("one".to_owned())
                } else {
                    Ok(item)
                }
            }
        });
        let mut stream = at!(fan_out).ordered_stream();
        for (opens, ends) in [(3, 1), (1, 2)] {
            gates[opens].open();
            while ended.get() < ends {
                assert!(futures::poll!(stream.next()).is_pending());
                tokio::task::yield_now().await;
            }
        }
        for _ in 0..20 {
            assert!(futures::poll!(stream.next()).is_pending());
            tokio::task::yield_now().await;
        }
        gates[0].open();
        assert_eq!(stream.next().await, Some(Ok(0)));
        assert_eq!(stream.next().await, Some(Err("one".to_owned())));
        assert!(futures::poll!(stream.next()).is_pending());
        gates[2].open();
        assert_eq!(stream.next().await, Some(Ok(2)));
        assert_eq!(stream.next().await, Some(Ok(3)));
        assert_eq!(stream.next().await, None);
    });
}

async fn try_stream_gives_the_successes_before_the_failure() {
    in_each_place!(|at| {
        let (gate, probe) = (Gate::new(), Probe::default());
        let (waits, wraps) = (gate.clone(), probe.clone());
        let fan_out = fan_out(&background(), 0..20, move |_, item| {
            let gate = waits.clone();
            wraps.wrap(async move {
                match item {
                    0 | 1 => Ok(item),
                    7 => {
                        gate.pass().await;
                        Err("seven".to_owned())
                    }
                    _ => pending().await,
                }
            })
        });
        let mut stream = at!(fan_out).try_stream();
        let came = stream.next().await.unwrap().unwrap();
        gate.open();
        // In either order: on two workers, either may end first.
        assert_eq!(stream.next().await, Some(Ok(1 - came)));
        assert_eq!(stream.next().await, Some(Err("seven".to_owned())));
        probe.assert_all_dropped();
        assert_eq!(stream.next().await, None);
    });
}

async fn a_stream_that_has_ended_gives_nothing_more() {
    for end in each_stream() {
        let mut stream = end.stream(fan_out(&background(), 0..3, |_, _| ready(OK)));
        assert_eq!(stream.by_ref().count().await, 3);
        for _ in 0..3 {
            assert_eq!(stream.next().await, None);
        }
    }
}

async fn first_ok_is_the_first_success() {
    in_each_place!(|at| {
        let probe = Probe::default();
        let wraps = probe.clone();
        let fan_out = fan_out(&background(), 0..5, move |_, item| {
            wraps.wrap(async move {
                match item {
                    1 => Err("one".to_owned()),
                    3 => {
                        yields(5).await;
                        Ok(item)
                    }
                    _ => pending().await,
                }
            })
        });
        assert_eq!(at!(fan_out).first_ok().await.unwrap(), 3);
        probe.assert_all_dropped();
    });
}

async fn first_ok_lists_every_failure_in_order_of_completion() {
    in_each_place!(|at| {
        let gates = gates::<3>();
        gates[2].open();
        let fan_out = fan_out(&background(), 0..3, move |_, item: usize| {
            let gates = gates.clone();
            async move {
                gates[item].pass().await;
                // Each item opens the gate of the one before it, once it counts as ended.
                let _next = OnDrop(move || {
                    if let Some(next) = item.checked_sub(1) {
                        gates[next].open();
                    }
                });
                Err::<(), _>(format!("no {item}"))
            }
        });
        let errors = at!(fan_out.limit(3)).first_ok().await.unwrap_err();
        let mut listed = listed(&errors);
        assert_eq!(errors.causes().count(), 3);
        if tokio::runtime::Handle::current().metrics().num_workers() > 1 {
            // The next item may overtake between the destructor of an item and the record of its
            // end.
            listed.sort_by(|a, b| b.cmp(a));
        }
        assert_eq!(listed, ["item 2: no 2", "item 1: no 1", "item 0: no 0"]);
    });
}

async fn first_ok_of_no_items_cannot_be_reached() {
    in_each_place!(|at| {
        let none = fan_out(&background(), Vec::<u8>::new(), |_, _| ready(OK));
        let errors = at!(none).first_ok().await.unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(
            errors.to_string().contains("quorum not reached"),
            "{errors}"
        );
    });
}

async fn quorum_gives_the_first_successes_in_order_of_completion() {
    in_each_place!(|at| {
        let (gates, probe) = (gates::<5>(), Probe::default());
        let (waits, wraps, ended) = (gates.clone(), probe.clone(), Count::default());
        let ends = ended.clone();
        let f = move |_: Context, item: usize| {
            let (gates, ends) = (waits.clone(), ends.clone());
            wraps.wrap(async move {
                gates[item].pass().await;
                ends.add();
                if item == 2 {
                    Err("two".to_owned())
                } else {
                    Ok(item)
                }
            })
        };
        // The fourth to end is the third success.
        let done = Count::default();
        let counts = done.clone();
        let fan_out = fan_out(&background(), 0..5, f).on_progress(move |progress: Progress| {
            if progress.done + progress.failed > counts.get() {
                counts.add();
            }
        });
        let opens = async {
            for (before, item) in [4, 2, 0, 3].into_iter().enumerate() {
                until(|| done.get() == before).await;
                gates[item].open();
            }
        };
        let (values, ()) = futures::join!(at!(fan_out).quorum(3), opens);
        assert_eq!(values.unwrap(), [4, 0, 3]);
        assert_eq!(ended.get(), 4);
        probe.assert_all_dropped();
    });
}

async fn a_quorum_of_zero_is_empty_and_starts_nothing() {
    in_each_place!(|at| {
        let pulled = Count::default();
        let pulls = pulled.clone();
        let items = (0..).inspect(move |_| _ = pulls.add());
        let fan_out = fan_out(&background(), items, |_, _| ready(OK)).limit(2);
        assert_eq!(at!(fan_out).quorum(0).await.unwrap(), []);
        assert_eq!(pulled.get(), 0);
    });
}

async fn a_quorum_of_more_than_there_are_items_cannot_be_reached() {
    in_each_place!(|at| {
        let started = Count::default();
        // Where the iterator says how many there are, nothing starts; else they all run.
        for (exact, runs) in [(true, 0), (false, 3)] {
            let starts = started.clone();
            let mut left = 0..3;
            let items: Box<dyn Iterator<Item = i32> + Send> = match exact {
                true => Box::new(left),
                false => Box::new(std::iter::from_fn(move || left.next())),
            };
            let before = started.get();
            let fan_out = fan_out(&background(), items, move |_, item| {
                starts.add();
                ready(Ok::<_, String>(item))
            });
            let errors = at!(fan_out).quorum(4).await.unwrap_err();
            assert_eq!(errors.len(), 1);
            assert!(
                errors.to_string().contains("quorum not reached"),
                "{errors}"
            );
            let source = std::error::Error::source(&errors).unwrap();
            assert_eq!(
                source.to_string(),
                format!("{runs} of 4 required successes")
            );
            assert_eq!(started.get() - before, runs);
        }
    });
}

async fn without_failures_the_one_error_says_cannot_be_reached() {
    in_each_place!(|at| {
        let (probe, mut left) = (Probe::default(), 0..3);
        let wraps = probe.clone();
        // There are too few items, and this is known only when all of them are in flight.
        let items = std::iter::from_fn(move || left.next());
        let fan_out = fan_out(&background(), items, move |_, _| {
            wraps.wrap(pending::<Result<(), String>>())
        });
        let errors = at!(fan_out).quorum(4).await.unwrap_err();
        assert_eq!((errors.len(), probe.made()), (1, 3));
        assert!(
            errors.to_string().contains("quorum not reached"),
            "{errors}"
        );
        probe.assert_all_dropped();
    });
}

async fn a_quorum_fails_as_soon_as_it_cannot_be_reached() {
    in_each_place!(|at| {
        let probe = Probe::default();
        let wraps = probe.clone();
        let fan_out = fan_out(&background(), 0..5, move |_, item| {
            wraps.wrap(async move {
                if item % 2 == 0 {
                    return pending::<Result<(), _>>().await;
                }
                Err(format!("no {item}"))
            })
        });
        let errors = at!(fan_out).quorum(4).await.unwrap_err();
        probe.assert_all_dropped();
        let failed = errors.causes().map(|task| task.name().unwrap());
        let mut failed: Vec<_> = failed.collect();
        failed.sort_unstable();
        assert_eq!(failed, ["item 1", "item 3"]);
        // On tasks of the runtime, it may be decided before the last item has started.
        let stopped: Vec<_> = errors.cancelled().collect();
        assert_eq!(stopped.len(), probe.made() - 2);
        for task in stopped {
            let TaskErrorKind::Aborted(error) = task.kind() else {
                panic!("{task}");
            };
            let cause = error.cause().unwrap().to_string();
            assert_eq!(cause, "quorum can no longer be reached");
        }
    });
}

/// On real threads this finds a defect only by chance. The loom model of the same is sure to find
/// it.
async fn the_last_item_is_awaited_if_another_worker_finds_no_more() {
    for _ in 0..5_000 {
        let one = fan_out(&background(), [7], |_, item| async move {
            yields(1).await;
            Ok::<_, String>(item)
        });
        assert_eq!(one.first_ok().await.unwrap(), 7);
    }
}

async fn failures_have_the_name_of_their_item() {
    in_each_place!(|at| {
        let fails = |_: Context, item: u8| ready(Err::<(), _>(format!("no {item}")));
        let line = line!() + 1;
        let bare = fan_out(&background(), 0..3, fails).limit(1);
        let errors = at!(bare).first_ok().await.unwrap_err();
        assert_eq!(
            listed(&errors),
            ["item 0: no 0", "item 1: no 1", "item 2: no 2"]
        );
        for task in &errors {
            assert_eq!((task.site().file(), task.site().line()), (file!(), line));
        }
        let named = fan_out(&background(), 0..2, fails).limit(1).named("row");
        let errors = at!(named).quorum(1).await.unwrap_err();
        assert_eq!(listed(&errors), ["row[0]: no 0", "row[1]: no 1"]);
        let named = fan_out(&background(), 0..2, fails).named(String::from("row"));
        let errors = at!(named).quorum(5).await.unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors.iter().next().unwrap().name(), Some("row"));
    });
}

#[tokio::test(start_paused = true)]
async fn failures_say_how_long_their_items_ran() {
    in_each_place!(|at| {
        let fails = fan_out(&background(), [30, 10, 20], |_, millis| async move {
            tokio::time::sleep(ms(millis)).await;
            Err::<(), _>("no".to_owned())
        });
        let errors = in_time(at!(fails.limit(2)).first_ok()).await.unwrap_err();
        let listed: Vec<_> = errors
            .iter()
            .map(|task| (task.name().unwrap(), task.elapsed()))
            .collect();
        let both = [("item 0", ms(30)), ("item 2", ms(20))];
        assert_eq!(listed[0], ("item 1", ms(10)));
        assert!(both.iter().all(|one| listed.contains(one)), "{listed:?}");
    });
}

async fn options_may_come_in_any_order() {
    let reports = Count::default();
    let (gauge, started) = (Gauge::default(), Count::default());
    let new = || {
        let (gauge, starts) = (gauge.clone(), started.clone());
        fan_out(&background(), 0..6, move |_, _| {
            let alive = gauge.enter();
            starts.add();
            async move {
                let _alive = alive;
                tokio::task::yield_now().await;
                Err::<(), _>("no".to_owned())
            }
        })
    };
    let report = || {
        let reports = reports.clone();
        move |_: Progress| _ = reports.add()
    };
    at_ends! {
        |asked| {
            let before = reports.get();
            let errors = asked!(new()).first_ok().await.unwrap_err();
            assert_eq!(errors.len(), 6);
            assert!(errors.iter().all(|task| task.name().unwrap().starts_with("row[")));
            assert_eq!(reports.get() - before, 12);
        };
        [.limit(2).grace(HOUR).named("row").on_progress(report())]
        [.on_progress(report()).named("row").grace(HOUR).limit(2)]
        [.named("row").limit(2).on_progress(report())]
        [.local().limit(2).grace(HOUR).named("row").on_progress(report())]
        [.local().on_progress(report()).named("row").grace(HOUR).limit(2)]
        [.limit(2).grace(HOUR).named("row").on_progress(report()).local()]
        [.on_progress(report()).local().named("row").limit(2)]
        [.limit(2).local().named("row").on_progress(report())]
    }
    assert_eq!(started.get(), 8 * 6);
    assert_eq!(gauge.most(), 2);
}

#[test]
fn debug_shows_the_options() {
    in_each_place!(|at| {
        let fan_out = fan_out(&background(), 0..3, |_, _: u8| ready(OK)).limit(7);
        let shown = format!("{:?}", at!(fan_out.named("row").grace(ms(5))));
        assert_eq!(
            shown,
            r#"FanOut { name: Some("row"), limit: 7, grace: 5ms, .. }"#
        );
    });
}

#[test]
fn spawned_ends_are_send_and_streams_are_unpin() {
    fn is_send<T>(_: impl Future<Output = T> + Send + 'static) {}
    fn is_send_stream<T>(_: impl Stream<Item = T> + Send + Unpin + 'static) {}
    fn is_unpin<T>(_: impl Stream<Item = T> + Unpin + 'static) {}

    let new = || fan_out(&background(), 0..3, |_, _: u8| ready(OK));
    is_send(new().all());
    is_send(new().for_each());
    is_send(new().settle());
    is_send(new().first_ok());
    is_send(new().quorum(2));
    is_send_stream(new().try_stream());
    is_send_stream(new().stream());
    is_send_stream(new().ordered_stream());
    is_unpin(new().local().try_stream());
    is_unpin(new().local().stream());
    is_unpin(new().local().ordered_stream());
}

async fn nothing_is_pulled_before_the_first_poll() {
    let (pulled, gone) = (Count::default(), Count::default());
    let mut made = 0;
    for end in each_end() {
        let (pulls, goes) = (pulled.clone(), gone.clone());
        let held = OnDrop(move || _ = goes.add());
        let items = (0..3).inspect(move |_| _ = (&held, pulls.add()));
        let end = end.of(fan_out(&background(), items, |_, _| ready(OK)));
        yields(5).await;
        drop(end);
        made += 1;
        // The runtime is dropped with it.
        assert_eq!((pulled.get(), gone.get()), (0, made));
    }
}

async fn each_call_gets_a_child_context_that_ends_with_the_fan_out() {
    for end in each_end() {
        let (parent, _guard) = background().with_value(7_u8).with_cancel();
        let seen = Log::new();
        let sees = seen.clone();
        let fan_out = fan_out(&parent, 0..3, move |ctx: Context, _| {
            assert_eq!(ctx.value::<u8>(), Some(&7));
            assert!(!ctx.is_done());
            sees.add(ctx);
            ready(OK)
        });
        end.of(fan_out.limit(1)).await;
        assert!(!parent.is_done());
        for ctx in seen.get() {
            let cause = ctx.cause().unwrap().to_string();
            let enough = "enough results received";
            assert!(
                cause == "the fan-out has finished" || cause == enough,
                "{cause}"
            );
        }
        assert!(seen.len() > 0);
    }
}

async fn local_items_may_borrow_and_need_not_be_send() {
    let (ran, here) = (RefCell::new(Vec::new()), Rc::new(Cell::new(0)));
    let names = vec![String::from("a"), String::from("b")];
    let reports = Cell::new(0);
    let new = || {
        let f = async |_: Context, name: &String| {
            let here = Rc::clone(&here);
            tokio::task::yield_now().await;
            here.set(here.get() + 1);
            ran.borrow_mut().push(name.clone());
            Ok::<_, String>(here)
        };
        let told = |_: Progress| reports.set(reports.get() + 1);
        errgroup::fan_out(&background(), &names, f)
            .on_progress(told)
            .local()
    };
    assert_eq!(new().all().await.unwrap().len(), 2);
    assert_eq!(new().for_each().await, OK);
    assert_eq!(new().settle().await.len(), 2);
    assert_eq!(new().try_stream().count().await, 2);
    assert_eq!(new().stream().count().await, 2);
    assert_eq!(new().ordered_stream().count().await, 2);
    assert_eq!(here.get(), 12);
    assert_eq!(reports.get(), 24);
    assert!(new().first_ok().await.is_ok());
    assert_eq!(new().quorum(2).await.unwrap().len(), 2);
    assert!(ran.borrow().iter().all(|name| names.contains(name)));
}

#[test]
fn spawned_items_need_a_runtime_and_local_items_do_not() {
    let new = || {
        fan_out(&background(), 0..3, |_, item: u8| {
            ready(Ok::<_, String>(item))
        })
    };
    let message = text(panic_in(|| new().all().now_or_never()));
    assert!(
        message.starts_with("a fan-out called outside a tokio runtime"),
        "{message}"
    );
    // Several polls, because it may yield in between on a busy machine.
    let mut local = Box::pin(new().local().all());
    let values = std::iter::repeat_with(|| (&mut local).now_or_never());
    assert_eq!(values.flatten().next(), Some(Ok(vec![0, 1, 2])));
}

#[test]
fn a_future_that_was_ready_panics_when_it_is_polled_again() {
    in_each_place!(|at| {
        let runtime = current_thread();
        let fan_out = fan_out(&background(), 0..3, |_, _| ready(OK));
        let mut all = Box::pin(at!(fan_out).all());
        assert!(runtime.block_on(&mut all).is_ok());
        let message = text(panic_in(|| runtime.block_on(&mut all)));
        assert!(
            message.contains("polled after it had completed"),
            "{message}"
        );
    });
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_all_run_at_once() {
    for end in each_end() {
        let start = tokio::time::Instant::now();
        let fan_out = fan_out(&background(), 0..100, |_, _| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            OK
        });
        in_time(end.of(fan_out)).await;
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
