//! `Group::drain` and `Drain`: a shutdown in a time budget, and its report.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use errgroup::{Context, Drain, Drained, DrainedPhase, Group};
use futures::FutureExt;
use tokio::time::{Instant, advance, sleep};

use crate::group_support::*;
use crate::support::{HOUR, ms, poll_with, waker};

both_flavours! {
    an_idle_group_is_drained_at_once,
    a_drain_that_begins_before_the_work_does_still_works,
    a_drained_group_accepts_nothing_more,
    failures_and_panics_are_errors_of_the_report,
    failures_from_before_the_drain_are_in_the_report,
    a_queued_task_that_never_starts_counts_as_stopped,
    groups_of_different_error_types_are_phases_of_one_drain,
    the_phase_of_a_group_is_called_by_its_name,
    a_context_that_is_done_already_counts_as_asked,
    a_task_that_is_aborted_is_dropped_when_the_drain_returns,
    more_than_a_thousand_failures_are_counted,
    a_trigger_that_is_ready_aborts_everything,
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A task that ends by itself after some time.
fn works(g: &G, time: Duration) {
    g.go(async move {
        sleep(time).await;
        OK
    });
}

/// A task that returns at once when it is cancelled.
fn obeys(g: &G) {
    let ctx = g.context();
    g.go(async move { Err(ctx.done().await.into()) });
}

/// A task that needs some time after it was cancelled.
fn is_slow(g: &G, time: Duration) {
    let ctx = g.context();
    g.go(async move {
        ctx.done().await;
        sleep(time).await;
        OK
    });
}

fn is_deaf(g: &G) {
    g.named("deaf").go(std::future::pending());
}

/// `finished`, `stopped`, and the lengths of `aborted`, `blocking` and `errors`.
fn counts(phase: &DrainedPhase) -> (usize, usize, usize, usize, usize) {
    assert_eq!((phase.left_running(), phase.omitted()), (0, 0), "{phase}");
    let (aborted, blocking) = (phase.aborted().len(), phase.blocking().len());
    let errors = phase.errors().len();
    (phase.finished(), phase.stopped(), aborted, blocking, errors)
}

fn only(report: &Drained) -> &DrainedPhase {
    let [phase] = report.phases() else {
        panic!("not one phase: {report}")
    };
    phase
}

async fn an_idle_group_is_drained_at_once() {
    let report = G::new().drain(HOUR).now_or_never().unwrap();
    assert_eq!(counts(only(&report)), (0, 0, 0, 0, 0));
    assert_eq!(report.to_string(), "group: idle");
}

async fn a_drain_that_begins_before_the_work_does_still_works() {
    let (g, ran, gate) = (limited(1), Count::default(), Gate::new());
    for _ in 0..5 {
        let (ran, passes) = (ran.clone(), gate.clone());
        g.go(async move {
            passes.pass().await;
            ran.add();
            OK
        });
    }
    let mut drain = Box::pin(g.drain(s(60)));
    assert!(futures::poll!(&mut drain).is_pending());
    gate.open();
    let report = drain.await;
    assert_eq!(ran.get(), 5);
    assert_eq!(counts(only(&report)), (5, 0, 0, 0, 0));
}

async fn a_drained_group_accepts_nothing_more() {
    let (g, gate) = (G::new(), Gate::new());
    let (spawner, passes) = (g.spawner(), gate.clone());
    g.go(async move {
        passes.pass().await;
        assert!(!spawner.go(async { OK }).await.is_started());
        OK
    });
    let mut drain = Box::pin(g.drain(s(60)));
    assert!(futures::poll!(&mut drain).is_pending());
    gate.open();
    // The task itself has finished, and the one that was refused never started.
    assert_eq!(counts(only(&drain.await)), (1, 1, 0, 0, 0));
}

async fn failures_and_panics_are_errors_of_the_report() {
    let g = G::new();
    g.named("fails").go(async {
        tokio::task::yield_now().await;
        Err("disk full".to_owned())
    });
    let report = g.drain(s(60)).await;
    let [error] = only(&report).errors() else {
        panic!("{report}")
    };
    assert_eq!((error.name(), error.text()), (Some("fails"), "disk full"));
    assert!(error.site().file().ends_with("drain.rs"));
    let text = report.to_string();
    assert!(
        text.starts_with("group: 1 failed (task \"fails\" (started at "),
        "{text}"
    );
    assert!(text.ends_with("): disk full)"), "{text}");

    let (g, _ctx) = group();
    g.go(async { panic!("a bug") });
    let report = g.drain(s(60)).await;
    assert_eq!(counts(only(&report)), (0, 0, 0, 0, 1));
    assert_eq!(only(&report).errors()[0].text(), "panicked: a bug");
}

async fn failures_from_before_the_drain_are_in_the_report() {
    let g = G::new();
    g.go(async { Err("long ago".to_owned()) });
    g.go(async { OK });
    g.idle().await;
    let report = g.drain(s(60)).await;
    assert_eq!(counts(only(&report)), (0, 0, 0, 0, 1));
    assert_eq!(only(&report).errors()[0].text(), "long ago");
}

async fn a_queued_task_that_never_starts_counts_as_stopped() {
    let g = limited(0);
    for _ in 0..3 {
        g.go(async { OK });
    }
    g.go_blocking(|_| OK);
    let drain = Drain::within(s(20)).phase("queue", g).finish_for(ms(10));
    let report = drain.run().await;
    assert_eq!(counts(only(&report)), (0, 4, 0, 0, 0));
}

async fn groups_of_different_error_types_are_phases_of_one_drain() {
    let a = Group::<anyhow::Error>::new();
    let b = Group::<std::io::Error>::new();
    a.go(async { anyhow::bail!("one") });
    b.go(async { Err(std::io::Error::other("two")) });
    let drain = Drain::within(s(60)).phase("a", a).phase("b", b);
    assert_eq!(
        format!("{drain:?}"),
        "Drain { budget: 60s, phases: [\"a\", \"b\"], .. }"
    );
    let report = drain.run().await;
    let texts: Vec<_> = report
        .phases()
        .iter()
        .map(|it| (it.name(), it.errors()[0].text()))
        .collect();
    assert_eq!(texts, [("a", "one"), ("b", "two")]);
    assert!(format!("{report:#}").contains("\nb: 1 failed"));
}

async fn the_phase_of_a_group_is_called_by_its_name() {
    let g = G::new();
    g.set_name("workers");
    assert_eq!(only(&g.drain(s(1)).await).name(), "workers");
    let (g, report) = (G::new(), G::new().drain(s(1)).await);
    g.set_name("workers");
    assert_eq!(only(&report).name(), "group");
    let report = Drain::within(s(1)).phase("other", g).run().await;
    assert_eq!(only(&report).name(), "other");
}

async fn a_context_that_is_done_already_counts_as_asked() {
    let ((g, ctx), gate) = (group(), Gate::new());
    for _ in 0..2 {
        let (ctx, passes) = (ctx.clone(), gate.clone());
        g.go(async move {
            ctx.done().await;
            passes.pass().await;
            OK
        });
    }
    g.cancel_with("SIGTERM");
    let mut drain = Box::pin(g.drain(s(60)));
    assert!(futures::poll!(&mut drain).is_pending());
    gate.open();
    assert_eq!(counts(only(&drain.await)), (0, 2, 0, 0, 0));
    assert_eq!(ctx.cause().unwrap().to_string(), "SIGTERM");
}

async fn a_task_that_is_aborted_is_dropped_when_the_drain_returns() {
    let (g, probe) = (G::new(), Probe::default());
    for _ in 0..20 {
        g.go(probe.wrap(std::future::pending()));
    }
    until(|| probe.polled() == 20).await;
    // The budget is long, so that the drain waits for busy threads.
    let drain = Drain::within(s(20)).phase("deaf", g);
    let report = drain.abort_on(sleep(ms(20))).run().await;
    probe.assert_all_dropped();
    assert_eq!(counts(only(&report)), (0, 0, 20, 0, 0));
}

async fn more_than_a_thousand_failures_are_counted() {
    let g = G::new();
    for _ in 0..1_500 {
        g.go(async { Err("no".to_owned()) });
    }
    g.idle().await;
    for _ in 0..1_500 {
        g.go(async {
            tokio::task::yield_now().await;
            Err("no".to_owned())
        });
    }
    let report = g.drain(s(60)).await;
    let phase = only(&report);
    let all = phase.errors().len() + phase.omitted();
    assert_eq!(all, 3_000);
    // All that end during the drain are listed.
    assert!(phase.omitted() <= 476 + 1_500);
}

async fn a_trigger_that_is_ready_aborts_everything() {
    let (a, b) = (G::new(), G::new());
    is_deaf(&a);
    is_deaf(&b);
    let report = Drain::within(HOUR)
        .phase("a", a)
        .phase("b", b)
        .abort_on(std::future::ready("its output does not matter"))
        .run()
        .await;
    for phase in report.phases() {
        assert_eq!(phase.aborted().len() + phase.stopped(), 1, "{report}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_phase_finishes_is_cancelled_winds_down_and_is_aborted() {
    let (g, ctx) = group();
    works(&g, s(4));
    obeys(&g);
    is_slow(&g, s(4));
    is_deaf(&g);
    let begin = Instant::now();
    let report = g.drain(s(10)).await;
    assert_eq!(begin.elapsed(), s(10));
    assert_eq!(counts(only(&report)), (1, 2, 1, 0, 0));
    assert_eq!(ctx.cause().unwrap().to_string(), "shutting down");
    let [deaf] = only(&report).aborted() else {
        panic!("{report}")
    };
    assert_eq!((deaf.name(), deaf.age()), (Some("deaf"), s(10)));
    assert!(deaf.site().file().ends_with("drain.rs"));
    let text = report.to_string();
    assert!(
        text.starts_with("group: 1 finished, 2 stopped, 1 aborted (task \"deaf\" (started at "),
        "{text}"
    );
    assert!(text.ends_with("), after 10.0s)"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_group_is_cancelled_when_half_of_its_time_is_left() {
    let g = G::new();
    works(&g, ms(4_999));
    obeys(&g);
    let begin = Instant::now();
    let report = g.drain(s(10)).await;
    assert_eq!(begin.elapsed(), s(5));
    assert_eq!(counts(only(&report)), (1, 1, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn finish_for_says_when_a_phase_is_cancelled() {
    for (finish_for, ends) in [(s(0), s(0)), (s(8), s(8)), (s(99), s(10))] {
        let g = G::new();
        obeys(&g);
        let begin = Instant::now();
        let drain = Drain::within(s(10)).phase("g", g).finish_for(finish_for);
        let report = drain.run().await;
        assert_eq!(begin.elapsed(), ends);
        // At the end of its time, it is cancelled and aborted in one moment.
        let phase = only(&report);
        assert_eq!(phase.stopped() + phase.aborted().len(), 1, "{report}");
    }
}

#[test]
#[should_panic(expected = "`finish_for` called before `phase`")]
fn finish_for_needs_a_phase() {
    let _ = Drain::within(s(1)).finish_for(s(1));
}

#[tokio::test(start_paused = true)]
async fn phases_run_in_their_order_and_leave_their_time() {
    let log = Log::new();
    let phase = |name: &'static str, time| {
        let (g, log) = (G::new(), log.clone());
        let ctx = g.context();
        g.go(async move {
            ctx.done().await;
            log.add((name, "cancelled"));
            sleep(time).await;
            log.add((name, "ended"));
            OK
        });
        g
    };
    let begin = Instant::now();
    let report = Drain::within(s(100))
        .phase("one", phase("one", s(1)))
        .finish_for(s(2))
        .phase("idle", G::new())
        .phase("two", phase("two", s(4)))
        .run()
        .await;
    let order: Vec<_> = log.get();
    assert_eq!(
        order,
        [
            ("one", "cancelled"),
            ("one", "ended"),
            ("two", "cancelled"),
            ("two", "ended")
        ]
    );
    // Three seconds for the first, none for the second, and half of 97 and 4 for the third.
    assert_eq!(begin.elapsed(), s(3) + ms(48_500) + s(4));
    assert!(report.phases().iter().all(|it| it.aborted().is_empty()));
    assert_eq!(
        report.to_string(),
        "one: 1 stopped; idle: idle; two: 1 stopped"
    );
}

#[tokio::test(start_paused = true)]
async fn each_later_phase_keeps_a_tenth_of_the_budget() {
    let deaf = || {
        let g = G::new();
        is_deaf(&g);
        g
    };
    let begin = Instant::now();
    let report = Drain::within(s(100))
        .phase("one", deaf())
        .finish_for(HOUR)
        .phase("two", deaf())
        .phase("three", deaf())
        .run()
        .await;
    assert_eq!(begin.elapsed(), s(100));
    let ages: Vec<_> = report
        .phases()
        .iter()
        .map(|it| it.aborted()[0].age())
        .collect();
    assert_eq!(ages, [s(80), s(90), s(100)]);
}

#[tokio::test(start_paused = true)]
async fn more_than_ten_phases_share_the_budget() {
    let begin = Instant::now();
    let mut drain = Drain::within(s(20));
    for _ in 0..20 {
        let g = G::new();
        is_deaf(&g);
        drain = drain.phase("deaf", g);
    }
    let report = drain.run().await;
    assert_eq!(begin.elapsed(), s(20));
    let ages = report.phases().iter().map(|it| it.aborted()[0].age());
    assert!(ages.eq((1..=20).map(s)));
}

#[tokio::test(start_paused = true)]
async fn a_budget_without_an_end_is_one() {
    let g = G::new();
    works(&g, HOUR);
    assert_eq!(counts(only(&g.drain(Duration::MAX).await)), (1, 0, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_zero_aborts_at_once() {
    let g = G::new();
    is_deaf(&g);
    yields(5).await;
    let begin = Instant::now();
    let report = g.drain(Duration::ZERO).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(counts(only(&report)), (0, 0, 1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_trigger_aborts_everything_that_is_left_at_once() {
    let (first, second, later) = (G::new(), G::new(), G::new());
    works(&first, s(1));
    is_deaf(&second);
    is_slow(&second, s(1));
    is_deaf(&later);
    let causes: Vec<_> = [&first, &second, &later].map(|g| g.context()).into();
    let begin = Instant::now();
    let report = Drain::within(HOUR)
        .phase("first", first)
        .phase("second", second)
        .phase("later", later)
        .abort_on(sleep(s(5)))
        .abort_on(sleep(s(50)))
        .run()
        .await;
    assert_eq!(begin.elapsed(), s(5));
    assert_eq!(counts(&report.phases()[0]), (1, 0, 0, 0, 0));
    assert_eq!(counts(&report.phases()[1]), (0, 0, 2, 0, 0));
    assert_eq!(counts(&report.phases()[2]), (0, 0, 1, 0, 0));
    assert_eq!(report.phases()[2].aborted()[0].age(), s(5));
    for ctx in &causes[1..] {
        assert_eq!(ctx.cause().unwrap().to_string(), "shutting down");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_after_the_request_counts_unless_it_is_only_the_contexts() {
    let (g, ctx) = group();
    obeys(&g);
    g.go(async move {
        ctx.done().await;
        Err("could not flush".to_owned())
    });
    let report = g.drain(s(10)).await;
    assert_eq!(counts(only(&report)), (0, 1, 0, 0, 1));
    assert_eq!(only(&report).errors()[0].text(), "could not flush");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_counts_as_asked() {
    let (g, ctx) = G::with_context(Context::background().with_timeout(s(2)));
    works(&g, s(1));
    works(&g, s(3));
    let report = g.drain(s(10)).await;
    assert!(ctx.err().unwrap().is_deadline_exceeded());
    assert_eq!(counts(only(&report)), (1, 1, 0, 0, 0));
}

#[test]
fn a_closure_that_blocks_is_named_and_not_waited_for() {
    for runtime in [current_thread(), two_workers()] {
        let (send, receive) = mpsc::channel::<()>();
        let (began, begins) = mpsc::channel();
        let report = runtime.block_on(async {
            let g = G::new();
            g.named("import").go_blocking(move |_| {
                began.send(()).unwrap();
                let _ = receive.recv();
                Err("after the report".to_owned())
            });
            is_deaf(&g);
            while begins.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            let drain = Drain::within(s(20)).phase("imports", g);
            let drain = tokio::spawn(drain.abort_on(sleep(ms(200))).run());
            // While a closure runs, a paused clock does not advance by itself.
            while !drain.is_finished() {
                tokio::task::yield_now().await;
                if tokio::runtime::Handle::current().metrics().num_workers() == 1 {
                    advance(ms(10)).await;
                }
            }
            drain.await.unwrap()
        });
        assert_eq!(counts(only(&report)), (0, 0, 1, 1, 0));
        let blocking = &only(&report).blocking()[0];
        assert_eq!(blocking.name(), Some("import"));
        assert!(blocking.age() >= ms(200), "{report}");
        assert!(blocking.site().file().ends_with("drain.rs"));
        let text = report.to_string();
        assert!(
            text.contains("1 still blocking (task \"import\" (started at "),
            "{text}"
        );
        drop(send);
        drop(runtime);
    }
}

#[test]
fn a_task_that_blocks_its_thread_is_counted_and_not_waited_for() {
    let runtime = two_workers();
    let (send, receive) = mpsc::channel::<()>();
    let report = runtime.block_on(async {
        let (g, began) = (G::new(), Count::default());
        let begins = began.clone();
        g.go(async move {
            begins.add();
            let _ = receive.recv();
            OK
        });
        until(|| began.get() == 1).await;
        g.drain(ms(50)).await
    });
    assert_eq!(only(&report).left_running(), 1, "{report}");
    assert_eq!(report.to_string(), "group: 1 still running");
    drop(send);
}

/// Ends a task in such a way that the end of its context is reported while its failure is recorded
/// and the task is not completed. The drain gives up at that moment.
fn report_in_the_middle_of_an_end(start: fn(&G, mpsc::Receiver<()>)) -> Drained {
    let runtime = two_workers();
    let ((end, ends), (send, receive)) = (mpsc::channel(), mpsc::channel::<()>());
    let reached = Count::default();
    let report = runtime.block_on(async {
        let (g, ctx) = group();
        let (reaches, receive) = (reached.clone(), Mutex::new(receive));
        let mut done = ctx.done_owned();
        let blocks = waker(move || {
            reaches.add();
            let _ = receive.lock().unwrap().recv();
        });
        assert!(poll_with(&mut done, &blocks).is_pending());
        start(&g, ends);
        // Polled here first: what has ended before the first poll is in no report.
        let (gives_up, given_up) = tokio::sync::oneshot::channel::<()>();
        let drain = Drain::within(s(20)).phase("group", g).abort_on(given_up);
        let mut drain = Box::pin(drain.run());
        assert!(futures::poll!(&mut drain).is_pending());
        let drain = tokio::spawn(drain);
        end.send(()).unwrap();
        until(|| reached.get() == 1).await;
        gives_up.send(()).unwrap();
        in_time(drain).await.unwrap()
    });
    drop(send);
    report
}

#[test]
fn a_task_that_is_just_failing_is_in_the_report_once() {
    let report = report_in_the_middle_of_an_end(|g, ends| {
        g.go(async move {
            while ends.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            Err("failed".to_owned())
        });
    });
    assert_eq!(counts(only(&report)), (0, 0, 0, 0, 1), "{report}");
    assert_eq!(only(&report).left_running(), 0, "{report}");
}

#[test]
fn a_closure_that_is_just_failing_is_in_the_report_once() {
    let report = report_in_the_middle_of_an_end(|g, ends| {
        g.go_blocking(move |_| {
            ends.recv().unwrap();
            Err("failed".to_owned())
        });
    });
    assert_eq!(counts(only(&report)), (0, 0, 0, 0, 1), "{report}");
    assert_eq!(only(&report).left_running(), 0, "{report}");
}

#[test]
fn an_essential_task_that_was_just_stopped_is_in_the_report_once() {
    let report = report_in_the_middle_of_an_end(|g, ends| {
        let (began, begins) = tokio::sync::oneshot::channel();
        let task = g.task().essential().spawn(async move {
            began.send(()).unwrap();
            std::future::pending::<Result<(), String>>().await
        });
        tokio::spawn(async move {
            begins.await.unwrap();
            while ends.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            task.abort();
        });
    });
    assert_eq!(counts(only(&report)), (0, 1, 0, 0, 0), "{report}");
    assert_eq!(only(&report).left_running(), 0, "{report}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_dropped_drops_its_groups() {
    let (a, b, probe) = (G::new(), G::new(), Probe::default());
    let contexts = [a.context(), b.context()];
    a.go(probe.wrap(std::future::pending()));
    b.go(probe.wrap(std::future::pending()));
    let drain = Drain::within(HOUR).phase("a", a).phase("b", b).run();
    assert!(drain.now_or_never().is_none());
    assert!(contexts.iter().all(Context::is_done));
    until(|| probe.dropped() == 2).await;

    let (g, ctx) = group();
    g.go(probe.wrap(std::future::pending()));
    assert!(g.drain(HOUR).now_or_never().is_none());
    assert_eq!(ctx.cause().unwrap().to_string(), "the group was dropped");
    until(|| probe.dropped() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_whose_text_panics_is_an_entry() {
    struct Rude;
    impl std::fmt::Display for Rude {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("rude")
        }
    }
    impl From<errgroup::ContextError> for Rude {
        fn from(_: errgroup::ContextError) -> Rude {
            Rude
        }
    }
    let g = Group::<Rude>::new();
    g.go(async { Err(Rude) });
    let report = g.drain(s(1)).await;
    let text = only(&report).errors()[0].text().to_owned();
    assert_eq!(text, "(displaying the error panicked)");
}
