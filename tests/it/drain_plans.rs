//! Random plans of a `Drain` on a paused clock: the budget is never exceeded, nothing is left but
//! closures that block, and each task is in the report once.

use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use errgroup::{Context, Drain, Drained};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::time::{Instant, advance, sleep};

use crate::group_support::*;
use crate::support::ms;

/// A task of a plan. Times are in milliseconds.
#[derive(Debug, Clone, Copy)]
enum Task {
    Works(u64),
    Fails(u64),
    Panics(u64),
    /// Returns the error of its context when it is cancelled.
    Obeys,
    /// Returns some time after it was cancelled.
    IsSlow(u64),
    IsCancellable,
    IsDeaf,
    /// A closure that runs until the test is over.
    Blocks,
    /// A closure that returns when it is cancelled.
    BlocksAndObeys,
}

impl Task {
    fn is_closure(self) -> bool {
        matches!(self, Task::Blocks | Task::BlocksAndObeys)
    }
}

#[derive(Debug, Clone)]
struct Phase {
    limit: Option<usize>,
    finish_for: Option<u64>,
    tasks: Vec<Task>,
}

#[derive(Debug, Clone)]
struct Plan {
    budget: u64,
    phases: Vec<Phase>,
    abort_at: Option<u64>,
    /// Whether a parent of all contexts is cancelled meanwhile.
    cancel_at: Option<u64>,
}

/// How long a phase waits after its time for a thread that is just ending a closure. The clock is
/// paused and moves on as fast as the test does, so such a thread seems to be slow.
const SLACK: Duration = Duration::from_millis(50);

impl Phase {
    fn closures(&self) -> usize {
        self.tasks.iter().filter(|task| task.is_closure()).count()
    }
}

impl Plan {
    fn phases_with_closures(&self) -> u32 {
        self.phases.iter().filter(|it| it.closures() > 0).count() as u32
    }
}

fn task() -> impl Strategy<Value = Task> {
    let time = 0..120_u64;
    prop_oneof![
        4 => time.clone().prop_map(Task::Works),
        2 => time.clone().prop_map(Task::Fails),
        1 => time.clone().prop_map(Task::Panics),
        3 => Just(Task::Obeys),
        3 => time.prop_map(Task::IsSlow),
        2 => Just(Task::IsCancellable),
        3 => Just(Task::IsDeaf),
        1 => Just(Task::Blocks),
        1 => Just(Task::BlocksAndObeys),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    let phase = (
        prop::option::weighted(0.3, 0..3_usize),
        prop::option::of(0..150_u64),
        vec(task(), 0..6),
    );
    let phase = phase.prop_map(|(limit, finish_for, tasks)| Phase {
        limit,
        finish_for,
        tasks,
    });
    (
        0..200_u64,
        vec(phase, 0..5),
        prop::option::weighted(0.2, 0..200_u64),
        prop::option::weighted(0.2, 0..200_u64),
    )
        .prop_map(|(budget, phases, abort_at, cancel_at)| Plan {
            budget,
            phases,
            abort_at,
            cancel_at,
        })
}

/// What the tasks of a run are given.
#[derive(Clone)]
struct World {
    parent: Context,
    alive: Gauge,
    /// How many closures run that end with the test, or when they notice that they should.
    blocking: Gauge,
}

fn start(g: &G, name: String, task: Task, world: &World, ends: &mut Vec<mpsc::Sender<()>>) {
    let (ctx, alive, blocking) = (g.context(), world.alive.clone(), world.blocking.clone());
    let named = g.named(name);
    match task {
        Task::Works(time) => drop(named.go(async move {
            let _alive = alive.enter();
            sleep(ms(time)).await;
            OK
        })),
        Task::Fails(time) => drop(named.go(async move {
            let _alive = alive.enter();
            sleep(ms(time)).await;
            Err("failed".to_owned())
        })),
        Task::Panics(time) => drop(named.go(async move {
            let _alive = alive.enter();
            sleep(ms(time)).await;
            std::panic::resume_unwind(Box::new("panicked"))
        })),
        Task::Obeys => drop(named.go(async move {
            let _alive = alive.enter();
            Err(ctx.done().await.into())
        })),
        Task::IsSlow(time) => drop(named.go(async move {
            let _alive = alive.enter();
            ctx.done().await;
            sleep(ms(time)).await;
            OK
        })),
        Task::IsCancellable => drop(named.go_cancellable(async move {
            let _alive = alive.enter();
            std::future::pending().await
        })),
        Task::IsDeaf => drop(named.go(async move {
            let _alive = alive.enter();
            std::future::pending().await
        })),
        Task::Blocks => {
            let (send, receive) = mpsc::channel();
            ends.push(send);
            named.go_blocking(move |_| {
                let _blocking = blocking.enter();
                let _ = receive.recv();
                OK
            });
        }
        Task::BlocksAndObeys => {
            let (send, receive) = mpsc::channel();
            ends.push(send);
            named.go_blocking(move |ctx| {
                let _blocking = blocking.enter();
                while ctx.check().is_ok()
                    && receive.try_recv() != Err(mpsc::TryRecvError::Disconnected)
                {
                    std::thread::yield_now();
                }
                OK
            });
        }
    }
}

async fn run(plan: &Plan) {
    let (parent, guard) = Context::background().with_cancel();
    let world = World {
        parent,
        alive: Gauge::default(),
        blocking: Gauge::default(),
    };
    let mut ends = Vec::new();
    let mut drain = Drain::within(ms(plan.budget));
    for (number, phase) in plan.phases.iter().enumerate() {
        let (g, _ctx) = G::with_context(&world.parent);
        g.set_limit(phase.limit);
        for (at, task) in phase.tasks.iter().enumerate() {
            start(&g, format!("{number}.{at}"), *task, &world, &mut ends);
        }
        drain = drain.phase(format!("{number}"), g);
        if let Some(time) = phase.finish_for {
            drain = drain.finish_for(ms(time));
        }
    }
    if let Some(at) = plan.abort_at {
        drain = drain.abort_on(sleep(ms(at)));
    }
    let begin = Instant::now();
    // Polled here first: what has ended before the first poll is in no report.
    let mut report = Box::pin(drain.run());
    let polled = futures::poll!(&mut report);
    let run = tokio::spawn(async move {
        let report = match polled {
            Poll::Ready(report) => report,
            Poll::Pending => report.await,
        };
        (report, begin.elapsed())
    });
    // While a closure runs, a paused clock does not advance by itself.
    while !run.is_finished() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        if plan.cancel_at.is_some_and(|at| begin.elapsed() >= ms(at)) {
            guard.cancel_with("from outside");
        }
        if !run.is_finished() {
            advance(ms(1)).await;
        }
    }
    let (report, took) = run.await.unwrap();
    let budget = plan.abort_at.map_or(plan.budget, |at| at.min(plan.budget));
    let most = ms(budget) + SLACK * plan.phases_with_closures();
    assert!(took <= most, "{took:?}: {report}");
    assert_eq!(world.alive.now(), 0, "a task is left: {report}");
    check(plan, &report);
    let named: usize = report.phases().iter().map(|it| it.blocking().len()).sum();
    // One that obeys may end between the report and this line.
    assert!(world.blocking.now() <= named, "{report}");
    drop(ends);
    while world.blocking.now() > 0 {
        std::thread::yield_now();
    }
}

fn check(plan: &Plan, report: &Drained) {
    assert_eq!(report.phases().len(), plan.phases.len());
    for (planned, phase) in plan.phases.iter().zip(report.phases()) {
        // A thread may take longer to end a closure than the slack.
        assert!(phase.left_running() <= planned.closures(), "{report}");
        assert_eq!(phase.omitted(), 0, "{report}");
        let listed = phase.aborted().len() + phase.blocking().len() + phase.errors().len();
        let reported = phase.finished() + phase.stopped() + listed + phase.left_running();
        assert_eq!(reported, planned.tasks.len(), "{report}");
        let lists = [phase.aborted(), phase.blocking()].concat();
        let mut names: Vec<&str> = lists.iter().filter_map(|it| it.name()).collect();
        names.extend(phase.errors().iter().filter_map(|it| it.name()));
        assert_eq!(names.len(), listed, "{report}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), listed, "a task is in it twice: {report}");
        let most = ms(plan.budget) + SLACK * plan.phases_with_closures();
        for entry in lists {
            assert!(entry.age() <= most, "{report}");
        }
        for error in phase.errors() {
            assert!(
                matches!(error.text(), "failed" | "panicked: panicked"),
                "{report}"
            );
        }
        for name in phase.blocking().iter().filter_map(|it| it.name()) {
            let at: usize = name.split('.').nth(1).unwrap().parse().unwrap();
            assert!(planned.tasks[at].is_closure(), "{report}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_drain_keeps_to_its_budget_and_reports_each_task_once(plan in plan()) {
        let runtime = current_thread();
        runtime.block_on(run(&plan));
        runtime.shutdown_timeout(Duration::from_secs(10));
    }
}
