//! Runtimes that shut down while tasks run on them, and while a task of another runtime waits for
//! those.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use errgroup::{Context, Group};
use tokio::runtime::{Builder, Runtime};

use crate::plan::{GroupPlan, ShutdownPlan, Victim, Way};
use crate::script::{Stage, outcome};
use crate::starting::{Starter, start};
use crate::verdict::check_wait_all;
use crate::watch::{step, tally};
use crate::world::{Fault, World};
use crate::{fan_out, watch};

static SHUTS_DOWN: AtomicBool = AtomicBool::new(false);

/// Whether a runtime shuts down in this scenario. A task that is started on it may then be refused,
/// though its context is not done.
pub(crate) fn expected() -> bool {
    SHUTS_DOWN.load(Ordering::SeqCst)
}

pub(crate) async fn run(plan: ShutdownPlan, ctx: &Context) {
    SHUTS_DOWN.store(true, Ordering::SeqCst);
    run_to_the_end(plan, ctx).await;
    SHUTS_DOWN.store(false, Ordering::SeqCst);
}

async fn run_to_the_end(plan: ShutdownPlan, ctx: &Context) {
    let runtime = match plan.workers {
        0 => Builder::new_current_thread().enable_time().build(),
        workers => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(workers).enable_time().build()
        }
    };
    let runtime = runtime.unwrap();
    let ends = Ends {
        driven: plan.driven,
        background: plan.background,
    };
    match plan.what {
        Victim::Group(group) => run_group(runtime, group, ends, ctx).await,
        Victim::FanOut(plan) => {
            // Its tasks go to the runtime in which it is polled first.
            let prepared = fan_out::prepare(plan, ctx, false);
            let world = Arc::clone(&prepared.world);
            let task = runtime.spawn(prepared.into_its_end());
            ends.shut_down(runtime);
            step("waiting for a fan-out whose runtime was dropped");
            let _ = task.await;
            world.dropped().await;
        }
    }
}

struct Ends {
    driven: Duration,
    background: bool,
}

impl Ends {
    /// Runs on its own thread, because it blocks. It also drives a runtime that has no thread of
    /// its own.
    fn shut_down(self, runtime: Runtime) {
        tally().shutdowns.add(1);
        std::thread::spawn(move || {
            runtime.block_on(async { tokio::time::sleep(self.driven).await });
            match self.background {
                true => runtime.shutdown_background(),
                false => drop(runtime),
            }
        });
    }
}

/// Whatever the shutdown has dropped is accounted for, and the wait ends.
async fn run_group(runtime: Runtime, plan: GroupPlan, ends: Ends, ctx: &Context) {
    tally().groups.add(1);
    let world = World::new(false);
    // The runtime drops what waits for a thread, in its own time.
    world.may_abort();
    let (ctx, guard) = ctx.with_cancel();
    let (g, ctx) = Group::<Fault>::with_context(ctx);
    g.set_limit(plan.limit);
    g.set_grace(plan.grace);
    world.limited(plan.limit);
    let stage = Stage {
        ctx,
        spawner: Some(g.spawner()),
        world: world.clone(),
        single: false,
    };
    {
        let _entered = runtime.enter();
        for mut task in plan.tasks {
            // The result is not awaited, because the group may be stuck until the runtime has shut
            // down. So a `start` starts nothing, and its closure is dropped here.
            task.script.trap &= !matches!(task.way, Way::Start | Way::Track);
            drop(start(Starter::Group(&g), task, &stage, false));
        }
    }
    ends.shut_down(runtime);
    watch::step("waiting for a group whose runtime shuts down");
    let wait = outcome(g.wait_all());
    let ask = async {
        // Cancels a closure that waits for its context, since a shutdown does not stop it.
        tokio::time::sleep(Duration::from_millis(3)).await;
        guard.cancel();
    };
    let (ended, ()) = futures::join!(wait, ask);
    drop(check_wait_all(ended, &world));
    world.holds(0, "wait_all");
}
