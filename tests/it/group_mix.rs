//! All kinds of tasks at once, in random schedules: the limit holds, every started task ends, and
//! nothing hangs.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use errgroup::{Spawner, TaskHandle};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::group_support::*;

const SCHEDULES: usize = 10_000;

/// What a task does, drawn before it runs.
struct Plan {
    kind: Kind,
    before: usize,
    children: Vec<(Arc<Plan>, Awaits)>,
    after: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Go,
    GoWith,
    GoCancellable,
    TryGo,
    Blocking,
    /// Where there is a `LocalSet`; elsewhere `Go`.
    Local,
    Spawn,
    Start,
    Reserve,
}

/// What the starter does with the admission or the handle.
#[derive(Clone, Copy, PartialEq)]
enum Awaits {
    Nothing,
    AtOnce,
    Later,
}

impl Plan {
    fn new(random: &mut Random, depth: usize) -> Arc<Plan> {
        let kind = match random.below(9) {
            0 => Kind::GoWith,
            1 => Kind::GoCancellable,
            2 => Kind::TryGo,
            3 => Kind::Blocking,
            4 => Kind::Local,
            5 => Kind::Spawn,
            6 => Kind::Start,
            7 => Kind::Reserve,
            _ => Kind::Go,
        };
        let children = match depth {
            0 => 0,
            _ => random.below(3),
        };
        let before = random.below(3);
        let children = (0..children).map(|_| {
            let awaits = match random.below(3) {
                0 => Awaits::Nothing,
                1 => Awaits::AtOnce,
                _ => Awaits::Later,
            };
            (Plan::new(random, depth - 1), awaits)
        });
        Arc::new(Plan {
            kind,
            before,
            children: children.collect(),
            after: random.below(3),
        })
    }
}

#[derive(Clone)]
struct World {
    spawner: Spawner<String>,
    running: Gauge,
    /// Counts of accepted tasks, of tasks that ran to their end, and of futures.
    accepted: Count,
    ended: Count,
    probe: Probe,
    /// Whether this is a thread, and a task, from which `go_local` may be called.
    local: bool,
}

type Boxed = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Awaits a future for a starter. A task does not count as running meanwhile.
enum Pending {
    Admission(errgroup::Admission),
    Handle(TaskHandle<()>),
    Nothing,
}

impl Pending {
    async fn resolve(self) {
        match self {
            Pending::Admission(admission) => assert!(admission.await.is_started()),
            Pending::Handle(handle) => assert_eq!(handle.await.unwrap(), ()),
            Pending::Nothing => {}
        }
    }
}

/// The task itself. It counts as running except while it awaits a task that it has started.
fn run(plan: Arc<Plan>, world: World) -> Boxed {
    let probe = world.probe.clone();
    Box::pin(probe.wrap(async move {
        let alive = world.running.enter();
        yields(plan.before).await;
        let mut later = Vec::new();
        for (child, awaits) in &plan.children {
            let started = start(child.clone(), &world);
            if *awaits == Awaits::Later {
                later.push(started);
                yields(1).await;
            }
        }
        drop(alive);
        for (child, awaits) in &plan.children {
            if *awaits == Awaits::AtOnce {
                let alive = world.running.enter();
                let started = start(child.clone(), &world);
                drop(alive);
                started.resolve().await;
            }
        }
        for started in later {
            started.resolve().await;
        }
        let _alive = world.running.enter();
        yields(plan.after).await;
        world.ended.add();
        Ok(())
    }))
}

/// Starts a task with the method that it was drawn for.
fn start(plan: Arc<Plan>, world: &World) -> Pending {
    let (spawner, mut inner) = (&world.spawner, world.clone());
    inner.local = world.local && matches!(plan.kind, Kind::Local);
    if !matches!(plan.kind, Kind::TryGo | Kind::Start | Kind::Reserve) {
        world.accepted.add();
    }
    match plan.kind {
        Kind::GoWith => Pending::Admission(spawner.go_with(move |ctx| {
            assert!(!ctx.is_done());
            run(plan, inner)
        })),
        Kind::GoCancellable => Pending::Admission(spawner.go_cancellable(run(plan, inner))),
        Kind::TryGo => {
            if spawner.try_go(run(plan, inner)).is_ok() {
                world.accepted.add();
            }
            Pending::Nothing
        }
        Kind::Blocking => Pending::Admission(spawner.go_blocking(move |_| {
            let _alive = inner.running.enter();
            for _ in 0..plan.before + plan.after {
                thread::yield_now();
            }
            for (child, _) in &plan.children {
                start(child.clone(), &inner);
            }
            inner.ended.add();
            Ok(())
        })),
        Kind::Local if world.local => {
            let not_send = Rc::new(());
            Pending::Admission(spawner.go_local(async move {
                let result = run(plan, inner).await;
                drop(not_send);
                result
            }))
        }
        Kind::Spawn => Pending::Handle(spawner.spawn(run(plan, inner))),
        Kind::Start => {
            let (starter, counted) = (spawner.clone(), world.accepted.clone());
            // `start` is itself awaited, by a task of the group.
            Pending::Admission(spawner.go(async move {
                let ready = starter.start(move |_, ready| async move {
                    ready.ok(7);
                    run(plan, inner).await
                });
                assert_eq!(ready.await, Ok(7));
                counted.add();
                Ok(())
            }))
        }
        Kind::Reserve => {
            let (starter, counted) = (spawner.clone(), world.accepted.clone());
            // `reserve` is awaited by a task of the group, too.
            Pending::Admission(spawner.go(async move {
                let permit = starter.reserve().await.unwrap();
                counted.add();
                permit.go(run(plan, inner));
                Ok(())
            }))
        }
        Kind::Go | Kind::Local => Pending::Admission(spawner.go(run(plan, inner))),
    }
}

/// One schedule, from the first `go` to the end of `wait`.
async fn schedule(random: &mut Random) {
    let limit = 1 + random.below(4);
    let g = limited(limit);
    let world = World {
        spawner: g.spawner(),
        running: Gauge::default(),
        accepted: Count::default(),
        ended: Count::default(),
        probe: Probe::default(),
        local: true,
    };
    let mut started = Vec::new();
    for _ in 0..1 + random.below(5) {
        let depth = random.below(3);
        started.push(start(Plan::new(random, depth), &world));
        assert!(g.running() <= limit);
        match random.below(3) {
            0 => yields(random.below(4)).await,
            1 => started.pop().unwrap().resolve().await,
            _ => {}
        }
    }
    assert_eq!(g.wait().await, OK);
    world.probe.assert_all_dropped();
    assert_eq!(world.ended.get(), world.accepted.get());
    assert_eq!(world.running.now(), 0);
    let most = world.running.most();
    assert!(most <= limit, "{most} at limit {limit}");
}

fn schedules(runtime: Runtime) {
    let mut random = Random::new();
    for number in 0..SCHEDULES {
        let set = LocalSet::new();
        let watched = in_time(set.run_until(schedule(&mut random)));
        let ended = std::panic::AssertUnwindSafe(runtime.block_on(async {
            futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(watched)).await
        }));
        if let Err(payload) = ended.0 {
            eprintln!("in schedule {number}");
            std::panic::resume_unwind(payload);
        }
    }
}

#[test]
fn the_limit_holds_under_a_mix_of_all_kinds_on_one_thread() {
    schedules(current_thread());
}

#[test]
fn the_limit_holds_under_a_mix_of_all_kinds_on_two_workers() {
    schedules(two_workers());
}
