//! `fetch_all`: results are in order, the number of running items is bounded, items are pulled as
//! permits are released, and everything has been dropped when it returns.

use std::future::{Future, ready};
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use errgroup::{Context, ContextError, fetch_all};

use crate::group_support::*;

both_flavours![
    results_come_in_the_order_of_the_items,
    at_most_limit_run_at_once,
    a_limit_of_one_is_the_sequential_loop,
    a_limit_of_usize_max_is_no_limit,
    without_items_the_result_is_empty,
    items_are_pulled_as_permits_are_released,
    the_iterator_may_be_infinite,
    nothing_is_pulled_before_the_first_poll,
    the_iterator_is_not_called_again_after_its_end,
    items_need_not_be_sync_nor_the_into_iterator_send,
    the_first_error_waits_until_what_is_in_flight_is_dropped,
    after_the_first_error_nothing_more_is_pulled,
    the_first_error_is_the_cause_of_the_helpers_context,
    the_first_error_in_order_of_completion_is_returned,
    each_call_gets_a_child_of_the_parents_context,
    the_helpers_context_ends_when_it_returns,
    a_panic_in_f_is_resumed_when_all_is_dropped,
    a_panic_in_a_future_is_resumed_when_all_is_dropped,
    a_panic_in_the_drop_of_a_future_is_resumed,
    a_panic_in_the_iterator_is_resumed,
    a_panic_wins_over_an_earlier_error,
    the_parents_cancel_drops_what_is_in_flight,
    a_parent_that_has_ended_starts_nothing,
    a_parent_that_ends_after_the_last_item_changes_nothing,
    dropped_at_each_of_its_polls_nothing_is_polled_again,
    dropped_before_its_first_poll_it_has_started_nothing,
    it_can_be_spawned_while_the_context_is_dropped,
    a_fetch_all_in_a_fetch_all,
    several_at_once,
    an_iterator_whose_drop_calls_back_does_not_deadlock,
    a_slow_iterator_blocks_one_worker_only,
    ready_items_do_not_starve_the_runtime,
    it_may_be_used_inside_a_group,
];

fn background() -> Context {
    Context::background()
}

async fn doubled(_: Context, item: usize) -> Result<usize, String> {
    yields(item % 4).await;
    Ok(2 * item)
}

async fn results_come_in_the_order_of_the_items() {
    for limit in [1, 2, 3, 7, 64, usize::MAX] {
        let all = fetch_all(&background(), limit, 0..500, doubled).await;
        assert!(all.unwrap().into_iter().eq((0..500).map(|item| 2 * item)));
    }
    let backwards = fetch_all(&background(), 10, 0..10, |_, item| async move {
        yields(2 * (10 - item)).await;
        Ok::<_, String>(item)
    });
    assert!(backwards.await.unwrap().into_iter().eq(0..10));
}

async fn at_most_limit_run_at_once() {
    for limit in 1..6 {
        let gauge = Gauge::default();
        let measured = gauge.clone();
        let all = fetch_all(&background(), limit, 0..200, move |_, item| {
            let alive = gauge.enter();
            async move {
                let _alive = alive;
                yields(item % 5).await;
                OK
            }
        });
        assert!(all.await.is_ok());
        assert!(measured.most() <= limit);
        assert_eq!(measured.now(), 0);
    }
}

async fn a_limit_of_one_is_the_sequential_loop() {
    let log = Log::new();
    let (pulls, calls, ends) = (log.clone(), log.clone(), log.clone());
    let items = (0..20).inspect(move |item| pulls.add(("pulled", *item)));
    let all = fetch_all(&background(), 1, items, move |_, item| {
        calls.add(("called", item));
        let ends = ends.clone();
        async move {
            yields(item % 3).await;
            ends.add(("ended", item));
            OK
        }
    });
    assert!(all.await.is_ok());
    let one_by_one = |item| ["pulled", "called", "ended"].map(|what| (what, item));
    assert!(log.get().into_iter().eq((0..20).flat_map(one_by_one)));
}

async fn a_limit_of_usize_max_is_no_limit() {
    let (gate, gauge) = (Gate::new(), Gauge::default());
    let (gated, measured) = (gate.clone(), gauge.clone());
    let all = fetch_all(&background(), usize::MAX, 0..1_000, move |_, _| {
        let (gate, alive) = (gated.clone(), gauge.enter());
        async move {
            let _alive = alive;
            gate.pass().await;
            OK
        }
    });
    let opened = async {
        until(|| measured.now() == 1_000).await;
        gate.open();
    };
    let (all, ()) = futures::join!(all, opened);
    assert_eq!(all.unwrap().len(), 1_000);
}

async fn without_items_the_result_is_empty() {
    let none = fetch_all(&background(), 1, Vec::new(), doubled).await;
    assert!(none.unwrap().is_empty());
}

/// Counts pulls and ends, and the maximum of items that were pulled and had not ended.
fn pulled_and_ended(
    items: impl Iterator<Item = usize> + Send + 'static,
) -> (impl Iterator<Item = (usize, Alive)> + Send + 'static, Gauge) {
    let gauge = Gauge::default();
    let enters = gauge.clone();
    (items.map(move |item| (item, enters.enter())), gauge)
}

async fn items_are_pulled_as_permits_are_released() {
    for limit in 1..6 {
        let (items, gauge) = pulled_and_ended(0..200);
        let all = fetch_all(&background(), limit, items, |_, (item, alive)| async move {
            yields(item % 4).await;
            drop(alive);
            OK
        });
        assert!(all.await.is_ok());
        assert!(gauge.most() <= limit, "{} at {limit}", gauge.most());
    }
}

async fn the_iterator_may_be_infinite() {
    let (items, gauge) = pulled_and_ended(0..);
    let all = fetch_all(&background(), 3, items, |_, (item, _alive)| async move {
        tokio::task::yield_now().await;
        if item == 1_000 {
            Err("enough".to_owned())
        } else {
            Ok(item)
        }
    });
    assert_eq!(all.await.unwrap_err(), "enough");
    assert!(gauge.most() <= 3);
    assert_eq!(gauge.now(), 0);
}

async fn nothing_is_pulled_before_the_first_poll() {
    let (pulled, ctx) = (Count::default(), background());
    let counted = pulled.clone();
    let items = (0..3).inspect(move |_| _ = counted.add());
    let all = fetch_all(&ctx, 3, items, doubled);
    yields(10).await;
    assert_eq!(pulled.get(), 0);
    assert_eq!(all.await.unwrap(), [0, 2, 4]);
}

async fn the_iterator_is_not_called_again_after_its_end() {
    for limit in [1, 4, usize::MAX] {
        let mut ended = false;
        let mut left = 20;
        let unfused = std::iter::from_fn(move || {
            assert!(!ended, "it was asked again");
            ended = left == 0;
            left = usize::saturating_sub(left, 1);
            (!ended).then_some(left)
        });
        let all = fetch_all(&background(), limit, unfused, doubled).await;
        assert_eq!(all.unwrap().len(), 20);
    }
}

async fn items_need_not_be_sync_nor_the_into_iterator_send() {
    use std::cell::Cell;
    use std::rc::Rc;

    struct Unsent(Rc<()>);

    impl IntoIterator for Unsent {
        type Item = Cell<u8>;
        type IntoIter = std::vec::IntoIter<Cell<u8>>;

        fn into_iter(self) -> Self::IntoIter {
            drop(self.0);
            vec![Cell::new(1), Cell::new(2)].into_iter()
        }
    }

    let all = fetch_all(
        &background(),
        2,
        Unsent(Rc::new(())),
        |_, item| async move { Ok::<_, String>(item) },
    );
    let all = tokio::spawn(all).await.unwrap().unwrap();
    assert_eq!(all, [Cell::new(1), Cell::new(2)]);
}

type Boxed = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Items whose first ten wait for ever, and whose eleventh does this.
fn in_flight<E, F>(
    probe: &Probe,
    eleventh: E,
) -> impl FnMut(Context, usize) -> Boxed + Send + use<E, F>
where
    E: FnOnce(Context) -> F + Send + 'static,
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let (probe, mut eleventh) = (probe.clone(), Some(eleventh));
    move |ctx, item| match item {
        10 => match eleventh.take() {
            Some(eleventh) => Box::pin(probe.wrap(eleventh(ctx))),
            None => unreachable!(),
        },
        _ => Box::pin(probe.wrap(std::future::pending())),
    }
}

async fn the_first_error_waits_until_what_is_in_flight_is_dropped() {
    for limit in [11, 50, usize::MAX] {
        let probe = Probe::default();
        let fails = in_flight(&probe, |_| async {
            yields(20).await;
            Err("boom".to_owned())
        });
        let all = fetch_all(&background(), limit, 0..100, fails);
        assert_eq!(all.await.unwrap_err(), "boom");
        probe.assert_all_dropped();
        assert!(probe.made() <= limit);
        let polled = probe.polled();
        yields(20).await;
        assert_eq!(probe.polled(), polled);
    }
}

async fn after_the_first_error_nothing_more_is_pulled() {
    let pulled = Count::default();
    let counted = pulled.clone();
    let items = (0..).inspect(move |_| _ = counted.add());
    let all = fetch_all(&background(), 1, items, |_, item| async move {
        if item == 5 {
            Err("boom".to_owned())
        } else {
            Ok(())
        }
    });
    assert_eq!(all.await.unwrap_err(), "boom");
    assert_eq!(pulled.get(), 6);
}

async fn the_first_error_is_the_cause_of_the_helpers_context() {
    let shared: Arc<OnceLock<Context>> = Arc::default();
    let kept = shared.clone();
    let all = fetch_all(&background(), 2, [()], move |ctx, ()| {
        kept.get_or_init(|| ctx);
        ready(Err::<(), _>("boom".to_owned()))
    });
    assert_eq!(all.await.unwrap_err(), "boom");
    let cause = shared.get().unwrap().cause().unwrap();
    assert_eq!(cause.to_string(), "boom");
}

async fn the_first_error_in_order_of_completion_is_returned() {
    let all = fetch_all(&background(), 2, [false, true], |ctx, fails| async move {
        if !fails {
            let end = ctx.done().await;
            return Err::<(), _>(format!("obeyed: {}", end.cause().unwrap()));
        }
        yields(5).await;
        Err("boom".to_owned())
    });
    assert_eq!(all.await.unwrap_err(), "boom");
}

async fn each_call_gets_a_child_of_the_parents_context() {
    let (parent, _guard) = background().with_value(7_u8).with_cancel();
    let all = fetch_all(&parent, 2, 0..3, |ctx, _| async move {
        Ok::<_, String>(ctx.value::<u8>().copied())
    });
    assert_eq!(all.await.unwrap(), [Some(7); 3]);
    let failing = fetch_all(&parent, 2, 0..3, |_, _| ready(Err::<(), _>("boom")));
    assert_eq!(failing.await.unwrap_err(), "boom");
    assert!(!parent.is_done());
}

async fn the_helpers_context_ends_when_it_returns() {
    let contexts = fetch_all(&background(), 2, 0..3, |ctx, _| async move {
        assert!(!ctx.is_done());
        Ok::<_, String>(ctx)
    });
    for ctx in contexts.await.unwrap() {
        let cause = ctx.cause().unwrap().to_string();
        assert_eq!(cause, "the fan-out has finished");
    }
}

async fn a_panic_in_f_is_resumed_when_all_is_dropped() {
    let probe = Probe::default();
    let mut f = in_flight(&probe, |_| async { unreachable!() });
    let all = fetch_all(&background(), 50, 0..100, move |ctx, item| {
        if item == 5 {
            panic_any(item);
        }
        f(ctx, item)
    });
    assert_eq!(panic_of(all).await.downcast_ref(), Some(&5_usize));
    probe.assert_all_dropped();
    assert_eq!(probe.made(), 5);
}

async fn a_panic_in_a_future_is_resumed_when_all_is_dropped() {
    let (probe, held) = (Probe::default(), Arc::<OnceLock<Context>>::default());
    let kept = held.clone();
    let panics = in_flight(&probe, move |ctx| async move {
        kept.get_or_init(|| ctx);
        panic!("boom")
    });
    let all = fetch_all(&background(), 50, 0..100, panics);
    assert_eq!(text(panic_of(all).await), "boom");
    probe.assert_all_dropped();
    let cause = held.get().unwrap().cause().unwrap().to_string();
    assert!(
        cause.starts_with("task \"item 10\" (started at "),
        "{cause}"
    );
    assert!(cause.ends_with(") panicked: boom"), "{cause}");
}

async fn a_panic_in_the_drop_of_a_future_is_resumed() {
    let all = fetch_all(&background(), 2, 0..5, |_, item| {
        let bomb = OnDrop(move || assert!(item < 3, "in drop"));
        async move {
            let _bomb = bomb;
            Ok::<_, String>(())
        }
    });
    assert_eq!(text(panic_of(all).await), "in drop");
}

async fn a_panic_in_the_iterator_is_resumed() {
    for limit in [1, 4, usize::MAX] {
        let items = (0..).inspect(|item| assert!(*item < 7, "the iterator"));
        let all = fetch_all(&background(), limit, items, doubled);
        assert_eq!(text(panic_of(all).await), "the iterator");
    }
}

async fn a_panic_wins_over_an_earlier_error() {
    let all = fetch_all(&background(), 2, 0..2, |ctx, item| async move {
        if item == 0 {
            let _bomb = OnDrop(|| panic!("a bug"));
            ctx.done().await;
            return std::future::pending().await;
        }
        yields(5).await;
        Err::<(), _>("an error".to_owned())
    });
    assert_eq!(text(panic_of(all).await), "a bug");
}

async fn the_parents_cancel_drops_what_is_in_flight() {
    let (parent, guard) = background().with_cancel();
    let probe = Probe::default();
    let cancels = in_flight(&probe, move |_| async move {
        guard.cancel_with("shutting down");
        std::future::pending().await
    });
    let all = fetch_all(&parent, 11, 0.., cancels);
    assert_eq!(all.await.unwrap_err(), "context cancelled");
    probe.assert_all_dropped();
    assert_eq!(probe.made(), 11);
}

async fn a_parent_that_has_ended_starts_nothing() {
    let (parent, guard) = background().with_cancel();
    guard.cancel_with("over");
    let f = |_: Context, _: i32| -> std::future::Ready<anyhow::Result<()>> { unreachable!() };
    let error = fetch_all(&parent, 2, 0.., f).await.unwrap_err();
    let error = error.downcast_ref::<ContextError>().unwrap();
    assert_eq!(error.cause().unwrap().to_string(), "over");
}

async fn a_parent_that_ends_after_the_last_item_changes_nothing() {
    let (parent, guard) = background().with_cancel();
    let all = fetch_all(&parent, 1, 0..3, doubled).await;
    guard.cancel();
    assert_eq!(all.unwrap(), [0, 2, 4]);
}

async fn dropped_at_each_of_its_polls_nothing_is_polled_again() {
    for polls in 1..30 {
        let (probe, parent) = (Probe::default(), background());
        let wraps = probe.clone();
        let mut all = Box::pin(fetch_all(&parent, 3, 0..20, move |ctx, item| {
            wraps.wrap(doubled(ctx, item))
        }));
        let mut ended = false;
        for _ in 0..polls {
            ended = futures::poll!(&mut all).is_ready();
            if ended {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(all);
        until(|| probe.dropped() == probe.made()).await;
        let polled = probe.polled();
        yields(50).await;
        assert_eq!(probe.polled(), polled);
        // A worker on another thread may have been in the middle of a pull.
        until(|| probe.dropped() == probe.made()).await;
        if ended {
            assert_eq!(probe.made(), 20);
        }
    }
}

async fn dropped_before_its_first_poll_it_has_started_nothing() {
    let gone = Count::default();
    let counted = gone.clone();
    let held = OnDrop(move || _ = counted.add());
    let f = move |_: Context, _: i32| {
        let _held = &held;
        std::future::pending::<Result<(), String>>()
    };
    drop(fetch_all(&background(), 2, 0.., f));
    assert_eq!(gone.get(), 1);
}

async fn it_can_be_spawned_while_the_context_is_dropped() {
    let task = {
        let ctx = background().with_value("kept");
        tokio::spawn(fetch_all(&ctx, 2, 0..3, |ctx, item| async move {
            tokio::task::yield_now().await;
            Ok::<_, String>((item, *ctx.value::<&str>().unwrap()))
        }))
    };
    let all = task.await.unwrap().unwrap();
    assert_eq!(all, [(0, "kept"), (1, "kept"), (2, "kept")]);
}

async fn a_fetch_all_in_a_fetch_all() {
    let outer = fetch_all(&background(), 3, 0..10, |ctx, row| async move {
        let inner = fetch_all(&ctx, 2, 0..10, move |_, column| async move {
            yields(column % 3).await;
            Ok::<_, String>(10 * row + column)
        });
        inner.await
    });
    let all = outer.await.unwrap();
    assert!(all.into_iter().flatten().eq(0..100));

    let (fails, probe) = (Count::default(), Probe::default());
    let inner_probe = probe.clone();
    let outer = fetch_all(&background(), 3, 0..10, move |ctx, _| {
        let (fails, probe) = (fails.clone(), inner_probe.clone());
        async move {
            fetch_all(&ctx, 2, 0..10, move |_, _| {
                let fails = fails.clone();
                probe.wrap(async move {
                    tokio::task::yield_now().await;
                    if fails.add() == 15 {
                        Err("boom".to_owned())
                    } else {
                        Ok(())
                    }
                })
            })
            .await
        }
    });
    assert_eq!(outer.await.unwrap_err(), "boom");
    until(|| probe.dropped() == probe.made()).await;
}

async fn several_at_once() {
    let ctx = background();
    let several = (0..8).map(|number| {
        tokio::spawn(fetch_all(
            &ctx,
            1 + number,
            0..500,
            move |_, item| async move {
                yields((item + number) % 4).await;
                Ok::<_, String>(item)
            },
        ))
    });
    for all in futures::future::join_all(several).await {
        assert!(all.unwrap().unwrap().into_iter().eq(0..500));
    }
}

async fn an_iterator_whose_drop_calls_back_does_not_deadlock() {
    struct CallsBack(OnDrop<Box<dyn FnMut() + Send>>);

    impl Iterator for CallsBack {
        type Item = ();

        fn next(&mut self) -> Option<()> {
            let _ = &self.0;
            Some(())
        }
    }

    let (held, calls) = (Arc::<OnceLock<Context>>::default(), Count::default());
    let (asked, counted) = (held.clone(), calls.clone());
    let items = CallsBack(OnDrop(Box::new(move || {
        let ctx = asked.get().unwrap();
        assert!(ctx.is_done() && ctx.cause().is_some());
        let _ = futures::FutureExt::now_or_never(ctx.done());
        counted.add();
    })));
    let mut left = 10;
    let all = fetch_all(&background(), 3, items, move |ctx, ()| {
        held.get_or_init(|| ctx);
        left -= 1;
        ready(if left == 0 {
            Err("enough".to_owned())
        } else {
            Ok(())
        })
    });
    assert_eq!(all.await.unwrap_err(), "enough");
    assert_eq!(calls.get(), 1);
}

async fn a_slow_iterator_blocks_one_worker_only() {
    let ended = Count::default();
    let (counted, seen) = (ended.clone(), Log::new());
    let log = seen.clone();
    let items = (0..5).inspect(move |_| log.add(counted.get()));
    let all = fetch_all(&background(), 2, items, move |_, item| {
        let ended = ended.clone();
        async move {
            yields(3).await;
            ended.add();
            Ok::<_, String>(item)
        }
    });
    assert!(all.await.unwrap().into_iter().eq(0..5));
    for (pull, ended) in seen.get().into_iter().enumerate() {
        assert!(
            ended + 2 > pull,
            "item {pull} was pulled when {ended} had ended"
        );
    }
}

async fn ready_items_do_not_starve_the_runtime() {
    const MOST: usize = 3_000_000;
    let other = Count::default();
    let (spawned, seen) = (other.clone(), other.clone());
    // A fixed number of items may all end before a task on another thread has run.
    let items = (0..MOST).take_while(move |_| seen.get() == 0);
    let all = tokio::spawn(fetch_all(&background(), 1, items, |_, _| ready(OK)));
    tokio::spawn(async move {
        tokio::task::yield_now().await;
        spawned.add();
    });
    assert!(all.await.unwrap().unwrap().len() < MOST);
    assert_eq!(other.get(), 1);
}

async fn it_may_be_used_inside_a_group() {
    let g = limited(1);
    for _ in 0..3 {
        g.go_with(|ctx| async move {
            let all = fetch_all(&ctx, 2, 0..10, doubled).await?;
            assert_eq!(all.len(), 10);
            Ok(())
        });
    }
    assert_eq!(g.wait().await, OK);
}

#[tokio::test(start_paused = true)]
async fn the_parents_deadline_drops_what_is_in_flight() {
    let parent = background().with_timeout(Duration::from_secs(1));
    let (probe, start) = (Probe::default(), tokio::time::Instant::now());
    let wraps = probe.clone();
    let all = fetch_all(&parent, 3, 0.., move |_, item: u64| {
        wraps.wrap(async move {
            tokio::time::sleep(Duration::from_millis(300 * item)).await;
            OK
        })
    });
    let error = in_time(all).await.unwrap_err();
    assert_eq!(error, "context deadline exceeded");
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    probe.assert_all_dropped();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_future_can_be_dropped_while_the_iterator_blocks() {
    let (entered, enters) = mpsc::channel();
    let (release, released) = mpsc::channel();
    let (says, said) = mpsc::channel();
    let items = std::iter::from_fn(move || {
        entered.send(()).unwrap();
        says.send(released.recv_timeout(Duration::from_secs(10)).is_ok())
            .unwrap();
        None::<usize>
    });
    let mut all = Box::pin(fetch_all(&background(), 2, items, doubled));
    assert!(futures::poll!(&mut all).is_pending());
    enters.recv().unwrap();
    drop(all);
    release.send(()).unwrap();
    assert!(said.recv().unwrap(), "the drop waited for the iterator");
}
