//! What can go wrong in a task, at every moment. Each test counts how often a task was polled, that
//! it was dropped once, and that its output was dropped once.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};
use std::thread;

use errgroup::{Context, ContextError, Group, TaskErrorKind};
use tokio::task::LocalSet;

use crate::group_support::*;

both_flavours![
    a_task_is_dropped_before_its_error_is_returned,
    an_error_that_is_not_the_first_is_dropped,
    a_panic_in_poll,
    a_panic_in_drop,
    a_panic_in_drop_of_an_aborted_task,
    a_panic_in_poll_and_then_in_drop,
    a_panic_while_another_panics,
    a_value_is_dropped_when_the_destructor_of_its_task_panics,
    an_abort_at_every_moment_of_an_admission,
    a_cancel_at_every_moment_of_an_admission,
    the_limit_to_zero_and_back_while_a_failure_winds_down,
    a_limit_of_zero_does_not_keep_lenders_from_winding_down,
    a_group_dropped_inside_its_own_task,
    wait_dropped_at_each_of_its_polls,
    wait_all_dropped_at_each_of_its_polls,
    a_handle_waker_that_panics_does_not_keep_wait_from_ending,
    a_start_waker_that_panics_does_not_keep_wait_from_ending,
    a_handle_waker_that_panics_loses_no_other_wakeup,
    an_error_whose_text_panics_is_still_returned,
];

/// What was counted so far.
#[derive(Clone, Default)]
struct Counters {
    polled: Count,
    dropped: Count,
    /// Outputs: errors and values.
    made: Count,
    output_dropped: Count,
}

impl Counters {
    /// Times polled, times dropped, outputs dropped.
    fn get(&self) -> (usize, usize, usize) {
        (
            self.polled.get(),
            self.dropped.get(),
            self.output_dropped.get(),
        )
    }

    fn output(&self) -> Output {
        self.made.add();
        Output(Some(self.clone()))
    }

    /// A future that calls one function when it is polled, and another when it is dropped.
    fn future<F, D>(&self, poll: F, drop: D) -> Hazard<F, D>
    where
        F: FnMut(&Counters, &mut task::Context<'_>) -> Poll<Result<Output, Output>> + Unpin,
        D: FnMut() + Unpin,
    {
        Hazard {
            counters: self.clone(),
            poll,
            drop,
        }
    }
}

/// An error, or a value, whose drops are counted.
struct Output(Option<Counters>);

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(counters) = &self.0 {
            counters.output_dropped.add();
        }
    }
}

impl From<ContextError> for Output {
    fn from(_: ContextError) -> Output {
        Output(None)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an output")
    }
}

struct Hazard<F, D: FnMut()> {
    counters: Counters,
    poll: F,
    drop: D,
}

impl<F, D> Future for Hazard<F, D>
where
    F: FnMut(&Counters, &mut task::Context<'_>) -> Poll<Result<Output, Output>> + Unpin,
    D: FnMut() + Unpin,
{
    type Output = Result<Output, Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.counters.polled.add();
        (this.poll)(&this.counters, cx)
    }
}

impl<F, D: FnMut()> Drop for Hazard<F, D> {
    fn drop(&mut self) {
        self.counters.dropped.add();
        (self.drop)();
    }
}

type Counted = Group<Output>;

fn counted() -> (Counted, Counters) {
    let g = Counted::with_context(Context::background()).0;
    (g, Counters::default())
}

fn fails(counters: &Counters) -> Poll<Result<Output, Output>> {
    Poll::Ready(Err(counters.output()))
}

/// Ready with an error at the second poll.
fn fails_later() -> impl FnMut(&Counters, &mut task::Context<'_>) -> Poll<Result<Output, Output>> {
    let mut polls = 0;
    move |counters, cx| {
        polls += 1;
        if polls == 2 {
            return fails(counters);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

async fn a_task_is_dropped_before_its_error_is_returned() {
    let (g, counters) = counted();
    let seen = Log::new();
    let (sees, counts) = (seen.clone(), counters.clone());
    drop(g.spawn(counters.future(fails_later(), move || sees.add(counts.get()))));
    let error = g.wait().await.unwrap_err();
    // It was dropped before its error was.
    assert_eq!(seen.get(), [(2, 1, 0)]);
    assert_eq!(counters.get(), (2, 1, 0));
    drop(error);
    assert_eq!((counters.get(), counters.made.get()), ((2, 1, 1), 1));
}

async fn an_error_that_is_not_the_first_is_dropped() {
    let (g, counters) = (Counted::new(), Counters::default());
    for _ in 0..5 {
        drop(g.spawn(counters.future(fails_later(), || ())));
    }
    let error = g.wait().await.unwrap_err();
    assert_eq!((counters.get(), counters.made.get()), ((10, 5, 4), 5));
    drop(error);
    assert_eq!(counters.get(), (10, 5, 5));
}

async fn a_panic_in_poll() {
    let (g, counters) = counted();
    let value = g.spawn(counters.future(|_, _| panic!("in poll"), || ()));
    assert!(value.await.is_err());
    assert_eq!(counters.get(), (1, 1, 0));
    assert_eq!(text(panic_of(g.wait()).await), "in poll");
    assert_eq!(counters.get(), (1, 1, 0));
}

async fn a_panic_in_drop() {
    let (g, counters) = counted();
    let value = g.spawn(counters.future(fails_later(), || panic!("in drop")));
    assert!(value.await.is_err());
    // The panic beats the error, which is dropped.
    assert_eq!((counters.get(), counters.made.get()), ((2, 1, 1), 1));
    assert_eq!(text(panic_of(g.wait()).await), "in drop");
    assert_eq!(counters.get(), (2, 1, 1));
}

async fn a_panic_in_drop_of_an_aborted_task() {
    for queued in [false, true] {
        let (g, counters) = counted();
        g.set_limit(usize::from(!queued));
        drop(g.spawn(counters.future(|_, _| Poll::Pending, || panic!("in drop"))));
        if !queued {
            until(|| counters.polled.get() == 1).await;
        }
        let before = usize::from(!queued);
        assert_eq!(counters.get(), (before, 0, 0));
        g.abort();
        assert_eq!(text(panic_of(g.wait()).await), "in drop");
        assert_eq!(counters.get(), (before, 1, 0));
    }
}

async fn a_panic_in_poll_and_then_in_drop() {
    let (g, counters) = counted();
    drop(g.spawn(counters.future(|_, _| panic!("in poll"), || panic!("in drop"))));
    let errors = g.wait_all().await.map_err(|errors| {
        let kinds = errors.into_iter().map(errgroup::TaskError::into_kind);
        kinds.map(|kind| kind.to_string()).collect::<Vec<_>>()
    });
    assert_eq!(
        errors.unwrap_err(),
        ["panicked: in poll"],
        "one task, one end"
    );
    assert_eq!(counters.get(), (1, 1, 0));
}

async fn a_panic_while_another_panics() {
    // The locals of an `async` block are dropped while its panic unwinds. Here, one of their
    // destructors panics, too, and catches that panic.
    let (g, counters) = (Counted::new(), Counters::default());
    let nested = counters.future(
        |_, _| {
            let _holds = OnDrop(|| {
                assert!(thread::panicking());
                assert_eq!(text(panic_in(|| panic!("second"))), "second");
            });
            panic!("first")
        },
        || panic!("third"),
    );
    drop(g.spawn(nested));
    // Others panic at the same time, on another thread where there is one.
    for _ in 0..4 {
        drop(g.spawn(counters.future(|_, _| panic!("first"), || panic!("third"))));
    }
    assert_eq!(text(panic_of(g.wait()).await), "first");
    assert_eq!(counters.get(), (5, 5, 0));
}

async fn a_value_is_dropped_when_the_destructor_of_its_task_panics() {
    let (g, counters) = counted();
    let ready = |counters: &Counters, _: &mut task::Context<'_>| Poll::Ready(Ok(counters.output()));
    let value = g.spawn(counters.future(ready, || panic!("in drop")));
    let none = value.await.is_err();
    assert_eq!(text(panic_of(g.wait()).await), "in drop");
    assert_eq!((counters.get(), counters.made.get()), ((1, 1, 1), 1));
    assert!(none, "the task panicked");
}

/// Starts a task that awaits the admission of a sibling and then the value of another, twice, and
/// is then counted in `finished`.
fn awaits_siblings(g: &G, probe: &Probe, finished: &Count) {
    let (spawner, probe, finished) = (g.spawner(), probe.clone(), finished.clone());
    let outer = probe.clone();
    g.go(outer.wrap(async move {
        for _ in 0..2 {
            let sibling = probe.wrap(async {
                yields(2).await;
                Ok(())
            });
            spawner.go(sibling).await;
            let value = probe.wrap(async {
                yields(1).await;
                Ok(1)
            });
            let _ = spawner.spawn(value).await;
        }
        finished.add();
        Ok(())
    }));
}

async fn an_abort_at_every_moment_of_an_admission() {
    for turns in 0..40 {
        let (g, probe, finished) = (limited(1), Probe::default(), Count::default());
        awaits_siblings(&g, &probe, &finished);
        awaits_siblings(&g, &probe, &finished);
        yields(turns).await;
        g.abort();
        let result = g.wait().await;
        probe.assert_all_dropped();
        // With two workers, all may have finished before the abort, even if nothing yields here.
        match result {
            Ok(()) => assert_eq!(finished.get(), 2, "both tasks have finished"),
            Err(error) => assert_eq!(error, "context cancelled"),
        }
    }
}

async fn a_cancel_at_every_moment_of_an_admission() {
    for turns in 0..40 {
        let (g, probe) = (limited(1), Probe::default());
        awaits_siblings(&g, &probe, &Count::default());
        awaits_siblings(&g, &probe, &Count::default());
        yields(turns).await;
        g.cancel();
        let _ = g.wait().await;
        probe.assert_all_dropped();
    }
}

async fn the_limit_to_zero_and_back_while_a_failure_winds_down() {
    for turns in 0..20 {
        let (g, probe) = (limited(3), Probe::default());
        let polled_queued = Probe::default();
        for _ in 0..2 {
            let probe = probe.clone();
            g.go_with(move |ctx| {
                probe.wrap(async move {
                    ctx.done().await;
                    yields(5).await;
                    Err("obeyed".to_owned())
                })
            });
        }
        g.go(probe.wrap(async { Err("boom".to_owned()) }));
        for _ in 0..5 {
            g.go(polled_queued.wrap(async { Ok(()) }));
        }
        yields(turns).await;
        g.set_limit(0);
        yields(turns % 3).await;
        g.set_limit(3);
        g.set_limit(0);
        let ctx = g.context();
        // A paused task has started or has not. The failing one is the third to start.
        ctx.done().await;
        g.set_limit(100);
        assert_eq!(g.wait().await.unwrap_err(), "boom");
        assert_eq!(polled_queued.polled(), 0, "nothing starts after the end");
        probe.assert_all_dropped();
        polled_queued.assert_all_dropped();
    }
}

async fn a_limit_of_zero_does_not_keep_lenders_from_winding_down() {
    for turns in 0..20 {
        let (g, probe) = (limited(1), Probe::default());
        for _ in 0..3 {
            awaits_siblings(&g, &probe, &Count::default());
        }
        yields(turns).await;
        g.set_limit(0);
        g.cancel();
        let _ = g.wait().await;
        probe.assert_all_dropped();
    }
}

async fn a_group_dropped_inside_its_own_task() {
    for waits in [false, true] {
        let (g, counters) = counted();
        let held = Arc::new(Mutex::new(None));
        let holds = held.clone();
        let siblings: Vec<_> = (0..3)
            .map(|_| g.spawn(counters.future(|_, _| Poll::Pending, || ())))
            .collect();
        let after = Log::new();
        let logs = after.clone();
        let drops = move |counters: &Counters, cx: &mut task::Context<'_>| {
            if let Some(g) = holds.lock().unwrap().take() {
                let g: Counted = g;
                match waits {
                    true => drop(g.wait()),
                    false => drop(g),
                }
                logs.add("dropped");
                return Poll::Ready(Ok(counters.output()));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        };
        let own = Counters::default();
        let value = g.spawn(own.future(drops, || ()));
        until(|| counters.polled.get() == 3 && own.polled.get() > 0).await;
        assert_eq!((counters.get(), own.dropped.get()), ((3, 0, 0), 0));
        *held.lock().unwrap() = Some(g);
        // Its present poll returns, with a value that is not lost; the others are not polled again.
        let value = value.await.unwrap();
        assert_eq!(own.output_dropped.get(), 0);
        drop(value);
        assert_eq!((own.dropped.get(), own.output_dropped.get()), (1, 1));
        for sibling in siblings {
            assert!(sibling.await.is_err());
        }
        assert_eq!(after.get(), ["dropped"]);
        assert_eq!(counters.get(), (3, 3, 0));
    }
}

/// Tasks of every kind in every state.
fn in_every_state(g: &G, probe: &Probe, tasks: usize) {
    for number in 0..tasks {
        let (never, soon) = (
            probe.wrap(std::future::pending::<Result<(), String>>()),
            probe.wrap(async move {
                yields(number % 5).await;
                Ok(())
            }),
        );
        match number % 8 {
            0 => _ = g.go(never),
            1 => _ = g.go_cancellable(never),
            2 => drop(g.spawn(never)),
            3 => _ = g.go_with(|_| never),
            4 => drop(g.try_go(never)),
            _ => {
                drop(never);
                match number % 3 {
                    0 => _ = g.go(soon),
                    1 => drop(g.spawn(soon)),
                    _ => {
                        g.go_blocking(move |_| {
                            drop(soon);
                            Ok(())
                        });
                    }
                }
                continue;
            }
        }
        drop(soon);
    }
}

async fn wait_dropped_at_each_of_its_polls() {
    for polls in 0..30 {
        let (g, ctx) = group();
        let probe = Probe::default();
        g.set_limit(7);
        in_every_state(&g, &probe, 40);
        let mut wait = Box::pin(g.wait());
        for _ in 0..polls {
            assert!(futures::poll!(&mut wait).is_pending());
            tokio::task::yield_now().await;
        }
        drop(wait);
        assert_eq!(ctx.cause().unwrap().to_string(), "the group was dropped");
        until(|| probe.dropped() == probe.made()).await;
        let polled = probe.polled();
        yields(20).await;
        assert_eq!(probe.polled(), polled);
        probe.assert_all_dropped();
    }
}

async fn wait_all_dropped_at_each_of_its_polls() {
    // The same while they wind down, at each poll.
    for polls in 0..30 {
        let (g, ctx) = group();
        let probe = Probe::default();
        g.set_limit(7);
        in_every_state(&g, &probe, 40);
        yields(3).await;
        g.abort();
        let mut wait = Box::pin(g.wait_all());
        for _ in 0..polls {
            if futures::poll!(&mut wait).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(wait);
        assert!(ctx.is_done());
        until(|| probe.dropped() == probe.made()).await;
    }
}

/// A waker that panics when it wakes.
fn rude() -> (task::Waker, Count) {
    let woken = Count::default();
    let counts = woken.clone();
    let waker = waker(move || {
        counts.add();
        panic!("a waker")
    });
    (waker, woken)
}

async fn a_handle_waker_that_panics_does_not_keep_wait_from_ending() {
    let (g, counters) = counted();
    let gate = Gate::new();
    let gated = gate.clone();
    let output = counters.output();
    let mut value = g.spawn(async move {
        gated.pass().await;
        Ok(output)
    });
    let (rude, woken) = rude();
    assert!(poll_with(&mut value, &rude).is_pending());
    gate.open();
    assert!(g.wait().await.is_ok());
    assert_eq!(woken.get(), 1);
    assert!(value.take().is_some());
    assert_eq!(counters.get(), (0, 0, 1));
}

async fn a_start_waker_that_panics_does_not_keep_wait_from_ending() {
    let (g, gate) = (limited(2), Gate::new());
    let gated = gate.clone();
    let mut start = Box::pin(g.start(|_, ready: errgroup::Ready<()>| async move {
        drop(ready);
        gated.pass().await;
        Ok(())
    }));
    let (rude, woken) = rude();
    assert!(poll_with(&mut start, &rude).is_pending());
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(woken.get(), 1);
    assert!(start.await.is_err());
}

async fn a_handle_waker_that_panics_loses_no_other_wakeup() {
    let (g, gate) = (limited(1), Gate::new());
    let gated = gate.clone();
    let mut first = g.spawn(async move {
        gated.pass().await;
        Ok(1)
    });
    let (rude, woken) = rude();
    assert!(poll_with(&mut first, &rude).is_pending());
    // Queued behind it, and awaited.
    let second = g.spawn(async { Ok(2) });
    let admission = g.go(async { Ok(()) });
    gate.open();
    assert_eq!(second.await.unwrap(), 2);
    assert!(admission.await.is_started());
    assert_eq!(g.wait().await, OK);
    assert_eq!((woken.get(), first.take()), (1, Some(1)));
}

async fn an_error_whose_text_panics_is_still_returned() {
    #[derive(Debug, PartialEq)]
    struct Mute;

    impl std::fmt::Display for Mute {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no text")
        }
    }

    impl From<ContextError> for Mute {
        fn from(_: ContextError) -> Mute {
            Mute
        }
    }

    let (g, ctx) = Group::<Mute>::with_context(Context::background());
    g.named("mute").go(async { Err(Mute) });
    ctx.done().await;
    assert!(ctx.cause().unwrap().to_string().contains("\"mute\""));
    assert_eq!(g.wait().await, Err(Mute));
}

#[test]
fn a_runtime_shutdown_with_a_thousand_tasks_in_all_states() {
    for limit in [Some(3), Some(100), None] {
        for turns in [0, 1, 10] {
            for runtime in [current_thread(), two_workers()] {
                let probe = Probe::default();
                let set = LocalSet::new();
                let g = set.block_on(&runtime, async {
                    let (g, _ctx) = group();
                    g.set_limit(limit);
                    for round in 0..100 {
                        in_every_state(&g, &probe, 8);
                        g.go_local(probe.wrap(std::future::pending()));
                        match round % 2 {
                            0 => g.go_local(probe.wrap(async { Ok(()) })),
                            _ => g.go_blocking(|ctx| {
                                // Up to fifty threads do so, beside other tests.
                                while !ctx.is_done() {
                                    thread::sleep(std::time::Duration::from_millis(1));
                                }
                                Ok(())
                            }),
                        };
                    }
                    yields(turns).await;
                    g
                });
                // The end of the context stops the blocking closure. Otherwise, the runtime would
                // wait for it.
                let ctx = g.context();
                drop(set);
                runtime.shutdown_background();
                g.abort();
                assert!(ctx.is_done());
                let wait = in_time(g.wait_all());
                let other = two_workers();
                let errors = other.block_on(wait).unwrap_err();
                // A blocking closure that never began may be dropped after an abort has returned.
                other.block_on(until(|| probe.dropped() == probe.made()));
                for error in &errors {
                    assert!(matches!(error.kind(), TaskErrorKind::Aborted(_)));
                }
            }
        }
    }
}

#[test]
fn a_runtime_shutdown_cancels_the_context_of_what_blocks() {
    let runtime = two_workers();
    let g = runtime.block_on(async {
        let (g, _ctx) = group();
        g.go(std::future::pending());
        let runs = Count::default();
        let counts = runs.clone();
        g.go_blocking(move |ctx| {
            counts.add();
            while !ctx.is_done() {
                thread::yield_now();
            }
            Ok(())
        });
        until(|| runs.get() == 1).await;
        g
    });
    // Waits for the closure, which sees that its context is done because the other task was
    // dropped.
    drop(runtime);
    let errors = current_thread().block_on(in_time(g.wait_all()));
    assert_eq!(errors.unwrap_err().len(), 1);
}
