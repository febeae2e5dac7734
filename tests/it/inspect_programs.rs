//! Snapshots at any moment of random programs, from another thread: each has every task that
//! lives longer than the snapshot takes, and none whose end was seen before.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use errgroup::inspect::{GroupSnapshot, TaskId, snapshot, task_id};
use errgroup::{Context, Group, fan_out, fetch_all};
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::fan_out_support::background;
use crate::group_support::*;
use crate::support::ms;

/// What the tasks and those who wait for them know.
#[derive(Clone, Default)]
struct Known(Arc<Mutex<Lives>>);

#[derive(Default)]
struct Lives {
    /// The tasks that run.
    alive: HashSet<TaskId>,
    /// The tasks that were waited for.
    over: HashSet<TaskId>,
    /// All of them, to see that no id is given twice.
    all: HashSet<TaskId>,
}

/// The tasks of one group or fan-out.
#[derive(Clone, Default)]
struct Batch(Arc<Mutex<Vec<TaskId>>>);

impl Known {
    /// Runs as a task that is alive from its first line to its last one.
    async fn live(self, batch: Batch, mut random: Random) -> Result<(), String> {
        let id = task_id().expect("it is a task");
        {
            let mut lives = self.0.lock().unwrap();
            assert!(lives.all.insert(id), "the id {id} was given twice");
            lives.alive.insert(id);
        }
        batch.0.lock().unwrap().push(id);
        match random.below(4) {
            0 => {}
            1 => yields(random.below(5)).await,
            2 => sleep(ms(random.below(2) as u64)).await,
            _ => yield_now().await,
        }
        assert_eq!(task_id(), Some(id));
        self.0.lock().unwrap().alive.remove(&id);
        OK
    }

    /// Notes that these tasks were waited for.
    fn is_over(&self, batch: &Batch) {
        let mut lives = self.0.lock().unwrap();
        lives.over.extend(batch.0.lock().unwrap().drain(..));
    }
}

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

fn program(known: Known, random: Random, depth: usize) -> Boxed {
    Box::pin(run(known, random, depth))
}

async fn run(known: Known, mut random: Random, depth: usize) {
    let batch = Batch::default();
    let count = 1 + random.below(6);
    let ctx = background();
    let (forks, life) = {
        let forks: Vec<_> = (0..count).map(|_| random.fork()).collect();
        let (known, batch) = (known.clone(), batch.clone());
        let life = move |random| known.clone().live(batch.clone(), random);
        (forks, life)
    };
    match random.below(if depth > 0 { 5 } else { 4 }) {
        0 => {
            let g = Group::<String>::new();
            g.set_limit((1 + random.below(4)).min(count));
            forks
                .into_iter()
                .for_each(|random| drop(g.go(life(random))));
            assert_eq!(g.wait().await, OK);
        }
        1 => {
            let g = Group::<String>::new();
            let handles = forks.into_iter().map(|random| g.spawn(life(random)));
            for handle in handles.collect::<Vec<_>>() {
                assert!(handle.await.is_ok());
            }
            assert_eq!(g.wait().await, OK);
        }
        2 => {
            let item = move |_: Context, random| life(random);
            let limit = 1 + random.below(8);
            assert!(fetch_all(&ctx, limit, forks, item).await.is_ok());
        }
        3 => {
            let item = |_: Context, random| life(random);
            assert_eq!(fan_out(&ctx, forks, item).local().for_each().await, OK);
        }
        _ => {
            let (below, inside) = (known.clone(), random.fork());
            let scope = Group::<String>::scope(&ctx, async |g, _| {
                g.go(async move {
                    program(below, inside, depth - 1).await;
                    OK
                });
                forks
                    .into_iter()
                    .for_each(|random| drop(g.go(life(random))));
                OK
            });
            assert_eq!(scope.await, OK);
        }
    }
    known.is_over(&batch);
}

fn ids_of(groups: &[GroupSnapshot], ids: &mut HashSet<TaskId>) {
    for task in groups.iter().flat_map(|group| &group.tasks) {
        assert!(ids.insert(task.id), "task {} is in the tree twice", task.id);
        ids_of(&task.groups, ids);
    }
}

fn check_once(known: &Known) {
    let (alive, over) = {
        let lives = known.0.lock().unwrap();
        (lives.alive.clone(), lives.over.clone())
    };
    let mut found = HashSet::new();
    ids_of(&snapshot().groups, &mut found);
    let still_alive = known.0.lock().unwrap().alive.clone();
    let missed: Vec<_> = alive
        .intersection(&still_alive)
        .filter(|id| !found.contains(id))
        .collect();
    assert!(missed.is_empty(), "missed: {missed:?}");
    let dead: Vec<_> = over.intersection(&found).collect();
    assert!(dead.is_empty(), "has ended before: {dead:?}");
}

#[test]
fn a_snapshot_has_what_lives_and_not_what_has_ended() {
    let runtime = two_workers();
    let (known, stops) = (Known::default(), Arc::new(AtomicBool::new(false)));
    let taken = Count::default();
    let looks = {
        let (known, stops, taken) = (known.clone(), stops.clone(), taken.clone());
        thread::spawn(move || {
            while !stops.load(Ordering::Relaxed) {
                check_once(&known);
                taken.add();
            }
        })
    };
    let mut random = Random::new();
    runtime.block_on(async {
        let mut rounds = 0;
        // On a busy machine, few snapshots are taken meanwhile.
        while !looks.is_finished() && (rounds < 250 || taken.get() < 100) {
            rounds += 1;
            let four = (0..4).map(|_| tokio::spawn(program(known.clone(), random.fork(), 3)));
            for program in four.collect::<Vec<_>>() {
                in_time(program).await.unwrap();
            }
            // So that the sets which are compared stay small.
            known.0.lock().unwrap().over.clear();
        }
    });
    stops.store(true, Ordering::Relaxed);
    looks.join().unwrap();
}
