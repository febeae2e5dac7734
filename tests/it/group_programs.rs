//! Random programs of nested groups, scopes and fan-outs whose tasks wait for tasks of the
//! outermost group: none hangs, and no more tasks of that group run at once than its limit allows.
//!
//! `ERRGROUP_SEED=n` runs one program again; a failure prints its seed. `ERRGROUP_PROGRAMS=10000`
//! runs this many instead of some hundreds.

use std::future::Future;
use std::pin::Pin;

use errgroup::{Context, Spawner, fan_out, fetch_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, stream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use crate::fan_out_support::background;
use crate::group_support::*;
use crate::support::ms;

/// Xorshift: the next program follows from the seed alone.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// For a task of its own, whose order relative to others is not fixed.
    fn fork(&mut self) -> Random {
        Random(self.below(u64::MAX) | 1)
    }
}

/// Where a step of a program runs.
#[derive(Clone)]
struct Place {
    outer: Spawner<String>,
    /// How many tasks of the outermost group run: those that hold a permit and do not wait.
    running: Gauge,
    /// Whether it is a task of the outermost group itself.
    is_outer: bool,
    depth: u64,
}

impl Place {
    fn inside(&self) -> Place {
        Place {
            is_outer: false,
            depth: self.depth.saturating_sub(1),
            ..self.clone()
        }
    }

    fn task_of_outer(&self) -> Place {
        Place {
            is_outer: true,
            depth: self.depth.saturating_sub(1),
            ..self.clone()
        }
    }

    /// Waits for something outside of all groups. A task of the outermost group keeps its permit.
    async fn works(&self, random: &mut Random) {
        let _running = self.is_outer.then(|| self.running.enter());
        match random.below(3) {
            0 => {}
            1 => yields(3 + random.below(4) as usize).await,
            _ => sleep(ms(random.below(3))).await,
        }
    }

    fn asks(&self, random: &mut Random) -> errgroup::TaskHandle<()> {
        self.outer
            .spawn(program(self.task_of_outer(), random.fork()))
    }
}

type Boxed = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

fn program(place: Place, mut random: Random) -> Boxed {
    Box::pin(async move {
        for _ in 0..1 + random.below(3) {
            place.works(&mut random).await;
            if place.depth > 0 {
                step(&place, &mut random).await?;
            }
        }
        place.works(&mut random).await;
        OK
    })
}

async fn step(place: &Place, random: &mut Random) -> Result<(), String> {
    let count = 1 + random.below(3) as usize;
    let forks: Vec<Random> = (0..count).map(|_| random.fork()).collect();
    let inside = place.inside();
    let below = move |_: Context, random: Random| program(inside.clone(), random);
    match random.below(12) {
        0 => {
            let child = program(place.task_of_outer(), random.fork());
            place.outer.go(child).await;
        }
        1 => {
            let _ = place.asks(random).await;
        }
        2 => {
            let (one, two) = (place.asks(random), place.asks(random));
            let _ = futures::join!(one, two);
        }
        3 => {
            let mut handle = place.asks(random);
            let _ = (&mut handle).now_or_never();
            after_a_check().await;
            place.works(random).await;
            let _ = handle.await;
        }
        4 => {
            let mut handle = place.asks(random);
            let looks_only = random.below(2) == 0;
            let is_first = tokio::select! {
                biased;
                _ = &mut handle => true,
                () = std::future::ready(()), if looks_only => false,
                () = sleep(ms(random.below(3))), if !looks_only => false,
            };
            if !is_first {
                after_a_check().await;
            }
            place.works(random).await;
            if !is_first {
                let _ = handle.await;
            }
        }
        5 => {
            let mut handle = place.asks(random);
            let late = timeout(ms(random.below(3)), &mut handle).await.is_err();
            if late {
                after_a_check().await;
            }
            place.works(random).await;
            if late && random.below(2) == 0 {
                let _ = handle.await;
            }
        }
        6 => {
            let mut list: FuturesUnordered<_> = (0..count).map(|_| place.asks(random)).collect();
            for _ in 0..random.below(3) {
                let _ = timeout(ms(random.below(3)), list.next()).await;
            }
            if random.below(2) == 0 {
                while list.next().await.is_some() {}
            }
            drop(list);
            after_a_check().await;
        }
        7 => {
            let limit = 1 + random.below(2) as usize;
            G::scope(&background(), async |inner, ctx| {
                inner.set_limit(limit);
                for random in forks {
                    inner.go(below(ctx.clone(), random));
                }
                OK
            })
            .await?;
        }
        8 => {
            let limit = 1 + random.below(2) as usize;
            fetch_all(&background(), limit, forks, below).await?;
        }
        9 => {
            let all = fan_out(&background(), forks, below).local();
            all.limit(1 + random.below(2) as usize).for_each().await?;
        }
        10 => {
            let mut stream = fan_out(&background(), forks, below).limit(2).stream();
            while let Some(ended) = stream.next().await {
                ended?;
                let _ = place.asks(random).await;
            }
        }
        _ => {
            let (inner, ctx) = G::with_context(background());
            inner.set_limit(1);
            let handles = forks
                .into_iter()
                .map(|random| inner.spawn(below(ctx.clone(), random)));
            let handles: Vec<_> = handles.collect();
            for handle in handles {
                let _ = handle.await;
            }
            inner.wait().await?;
        }
    }
    OK
}

/// A task that checks a handle in each of three polls in a row is taken for one that waits, and it
/// lends its permit. Here it makes three polls without a check before it goes on, and counts as
/// running only after them.
async fn after_a_check() {
    yields(3).await;
}

async fn run(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let limit = 1 + random.below(3) as usize;
    let g = limited(limit);
    let running = Gauge::default();
    let place = Place {
        outer: g.spawner(),
        running: running.clone(),
        is_outer: true,
        depth: 3,
    };
    for _ in 0..1 + random.below(4) {
        g.go(program(place.clone(), random.fork()));
    }
    assert_eq!(in_time(g.wait()).await, OK);
    let most = running.most();
    assert!(most <= limit, "{most} ran at limit {limit}");
}

/// Runs this many programs, `at_once` of them at any time: most of their time they sleep.
fn run_all(runtime: &Runtime, programs: u64, at_once: usize) {
    if let Ok(seed) = std::env::var("ERRGROUP_SEED") {
        return runtime.block_on(run(seed.parse().expect("ERRGROUP_SEED is a number")));
    }
    let programs = match std::env::var("ERRGROUP_PROGRAMS") {
        Ok(programs) => programs.parse().expect("ERRGROUP_PROGRAMS is a number"),
        Err(_) => programs,
    };
    let first: u64 = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() << 20;
    runtime.block_on(async {
        let running = (first..first + programs)
            .map(|seed| async move { (seed, tokio::spawn(run(seed)).await) });
        let mut running = stream::iter(running).buffer_unordered(at_once);
        while let Some((seed, ended)) = running.next().await {
            if let Err(error) = ended {
                eprintln!("ERRGROUP_SEED={seed}");
                std::panic::resume_unwind(error.into_panic());
            }
        }
    });
}

#[test]
fn on_one_thread_no_program_hangs_or_exceeds_the_limit() {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    run_all(&runtime, 300, 1);
}

fn two_workers() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
}

#[test]
fn on_two_workers_no_program_hangs_or_exceeds_the_limit() {
    run_all(&two_workers(), 400, 20);
}

/// A job looked for tasks that wait for the group, and lent the permit of one that had stopped
/// waiting since then. That happened in most runs of this program.
#[test]
fn a_task_that_has_stopped_waiting_keeps_its_permit() {
    let runtime = two_workers();
    for _ in 0..6 {
        runtime.block_on(run(1_882_976_310_788_097));
    }
}
