//! Fault soak: runs groups and fan-outs of all kinds for a given time, and makes everything go
//! wrong that can.
//!
//! ```sh
//! cargo test --release --test soak -- --seconds 600
//! cargo test --release --test soak -- --seed 17            # a run again
//! cargo test --release --test soak -- --seed 17 --only 392 # one of its scenarios, over and over
//! cargo test --release --features inspect --test soak      # another thread takes snapshots
//! ```
//!
//! A scenario is drawn from the seed and its number. The draw decides what happens, and the threads
//! decide when. Each scenario is checked when it is over: everything that it made has been dropped,
//! and was dropped when the call returned; every outcome was seen once; no task is left in the
//! runtime. After every few scenarios, the heap must be as large as before. The program ends with
//! the seed and the number after a violation, after a panic that was not injected, and when a
//! scenario takes longer than half a minute.

mod body;
mod draw;
mod ends;
mod exact;
mod fan_out;
mod fault;
mod group;
mod handles;
mod ordinary;
mod ordinary_plan;
mod outcomes;
mod permits;
mod plan;
mod policy;
mod random;
mod record;
mod script;
mod shutdown;
#[cfg(feature = "inspect")]
mod snapshots;
mod starting;
mod verdict;
mod watch;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use clap::Parser;
use errgroup::{CancelHandle, Context};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::task::LocalSet;

use plan::{Kind, Plan};
use random::Random;
use watch::{Watch, fail, tally};

#[global_allocator]
static HEAP: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// The number of scenarios that share a runtime. After each runtime, the size of the heap is
/// checked.
const ROUND: u64 = 16;

/// The number of rounds until everything that is made once per process has been made:
/// thread-locals, the root context, and what the allocators need.
const WARM_UP: u64 = 24;

/// How much the heap may have grown since the warm-up, over the whole run: in bytes, and in
/// allocations. It is for the whole run, so that a leak of a scenario adds up until it shows. It is
/// not zero, because std's thread handles and tokio's thread-locals are freed when a thread has
/// ended, which may be a moment after it was joined.
const SLACK: (usize, usize) = if cfg!(feature = "inspect") {
    // Each table of the registry keeps the memory of a few entries, from its first use on.
    (32 * 1024, 64)
} else {
    (4 * 1024, 16)
};

#[derive(Parser, Clone)]
struct Args {
    /// How long to run.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// What the scenarios are drawn from; a new one by default.
    #[arg(long)]
    seed: Option<u64>,
    /// Runs only the scenario of this number, again and again.
    #[arg(long)]
    only: Option<u64>,
}

fn main() {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(Random::seed);
    say(format_args!("soak: --seed {seed}, {} s", args.seconds));
    let began = Instant::now();
    let watch = Watch::new(seed);
    let end = began + Duration::from_secs(args.seconds);
    let (mut number, mut round, mut level) = (0, 0, (0, 0));
    while Instant::now() < end {
        let runtime = runtime(seed, args.only.unwrap_or(round));
        for _ in 0..ROUND {
            let plan = Plan::draw(seed, args.only.unwrap_or(number));
            watch.begin(args.only.unwrap_or(number), plan.kind.name());
            // Where the crate should propagate a panic, the scenario catches and checks it. So this
            // panic came from a call that should not panic.
            if catch_unwind(AssertUnwindSafe(|| run(&runtime, plan))).is_err() {
                fail(format_args!("an injected panic came out where none should"));
            }
            number += 1;
        }
        watch.doing("dropping the runtime");
        drop(runtime);
        round += 1;
        match round {
            0..WARM_UP => {}
            WARM_UP => level = watch::heap(),
            _ => watch.doing("looking at the heap"),
        }
        if round > WARM_UP {
            settle_heap(level);
        }
    }
    watch.end();
    say(format_args!("{}", tally()));
    let (bytes, count) = watch::heap();
    say(format_args!(
        "{number} scenarios in {:.1} s; heap: {} bytes in {} allocations after the warm-up, \
         {bytes} in {count} at the end, {} at most (as sampled)",
        began.elapsed().as_secs_f64(),
        level.0,
        level.1,
        watch::peak(),
    ));
}

#[expect(clippy::print_stdout, reason = "a program, and this is what it is for")]
fn say(what: std::fmt::Arguments<'_>) {
    println!("{what}");
}

/// A round's: of each flavour, and with more and fewer workers than the machine has.
fn runtime(seed: u64, round: u64) -> Runtime {
    let mut builder = match Random::of(seed, !round).below(4) {
        0 | 1 => Builder::new_current_thread(),
        more => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(more);
            builder
        }
    };
    builder.enable_time().build().unwrap()
}

fn run(runtime: &Runtime, plan: Plan) {
    let single = runtime.handle().runtime_flavor() == RuntimeFlavor::CurrentThread;
    let (ctx, stop) = plan.context();
    let canceller = stop.clone().and_then(|stop| plan.canceller(stop));
    #[cfg(feature = "inspect")]
    let reader = snapshots::Reader::start();
    let local = LocalSet::new();
    local.block_on(runtime, async {
        match plan.kind {
            Kind::Group(group) => drop(group::run_here(group, &ctx, single).await),
            Kind::Scope(group) => drop(group::run_scope(group, &ctx, single).await),
            Kind::FanOut(fan_out) => drop(fan_out::run(fan_out, &ctx, single).await),
            Kind::Hedge(hedge) => drop(fan_out::run_hedge(hedge, &ctx, single).await),
            Kind::Shutdown(shutdown) => shutdown::run(shutdown, &ctx).await,
            Kind::Exact(exact) => exact::run(exact, single).await,
            Kind::Drain(drain) => ends::run(drain, &ctx, single).await,
            Kind::Ordinary(plan) => drop(ordinary::run(plan, &ctx, single).await),
        }
    });
    if let Some(canceller) = canceller {
        canceller.join().unwrap();
    }
    watch::step("dropping the local tasks");
    drop(local);
    drop(stop);
    watch::step("waiting until the runtime has no task");
    runtime.block_on(no_task_is_left());
    #[cfg(feature = "inspect")]
    reader.stop();
}

/// Waits until all tasks have ended. An aborted task is dropped when the runtime gets to it, and a
/// closure on the pool when it ends.
async fn no_task_is_left() {
    let mut turns = 0_u32;
    while Handle::current().metrics().num_alive_tasks() + world::alive() > 0 {
        turns += 1;
        match turns % 64 {
            0 => tokio::time::sleep(Duration::from_micros(200)).await,
            _ => tokio::task::yield_now().await,
        }
    }
}

/// Waits until the heap is as small as it was, but for what it may have grown. Nothing joins the
/// threads of a runtime that was shut down, and on a busy machine one may end much later.
fn settle_heap(level: (usize, usize)) {
    let began = Instant::now();
    while began.elapsed() < watch::PATIENCE / 2 {
        let (bytes, count) = watch::heap();
        if bytes <= level.0 + SLACK.0 && count <= level.1 + SLACK.1 {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let now = watch::heap();
    fail(format_args!(
        "the heap does not go back: {} bytes in {} allocations after the warm-up, {} in {} now",
        level.0, level.1, now.0, now.1
    ));
}

impl Plan {
    /// The scenario's context, and how to end it.
    fn context(&self) -> (Context, Option<CancelHandle>) {
        let root = Context::background();
        let (ctx, guard) = root.with_cancel();
        let stop = guard.disarm();
        let ctx = match self.deadline {
            Some(after) => ctx.with_timeout(after),
            None => ctx,
        };
        (ctx, Some(stop))
    }

    /// Ends it from another thread.
    fn canceller(&self, stop: CancelHandle) -> Option<std::thread::JoinHandle<()>> {
        let after = self.cancel?;
        tally().cancels.add(1);
        Some(std::thread::spawn(move || {
            std::thread::sleep(after);
            stop.cancel_with("cancelled by another thread");
        }))
    }
}
