//! Compares random trees of contexts with a small model, in which every effect happens at once and
//! nothing is lazy.

use std::hash::{BuildHasher, RandomState};

use errgroup::{CancelGuard, Context, DoneOwned};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngSeed, TestRunner, contextualize_config};
use tokio::runtime::Builder;
use tokio::task::unconstrained;
use tokio::time::{self, Instant};
use tokio_test::task::Spawn;

use crate::support::{GOING_ON, GUARD_DROPPED, ms, state};

/// An operation on a tree. A number picks one of the contexts or guards that are still held.
#[derive(Debug, Clone)]
enum Op {
    WithCancel(usize),
    WithTimeout(usize, u64),
    WithValue(usize),
    WithoutCancel(usize),
    Merge(usize, usize),
    Cancel(usize),
    CancelWith(usize),
    DropGuard(usize),
    Disarm(usize),
    Advance(u64),
    Ask(usize),
    Wait(usize),
    StopWaiting(usize),
    Drop(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let any = || prop_oneof![0..4_usize, 0..60_usize];
    let millis = || 0..60_u64;
    prop_oneof![
        5 => any().prop_map(Op::WithCancel),
        3 => (any(), millis()).prop_map(|(at, millis)| Op::WithTimeout(at, millis)),
        2 => any().prop_map(Op::WithValue),
        1 => any().prop_map(Op::WithoutCancel),
        5 => (any(), any()).prop_map(|(at, other)| Op::Merge(at, other)),
        1 => any().prop_map(Op::Cancel),
        4 => any().prop_map(Op::CancelWith),
        1 => any().prop_map(Op::DropGuard),
        1 => any().prop_map(Op::Disarm),
        2 => millis().prop_map(Op::Advance),
        2 => any().prop_map(Op::Ask),
        3 => any().prop_map(Op::Wait),
        1 => any().prop_map(Op::StopWaiting),
        2 => any().prop_map(Op::Drop),
    ]
}

/// The state of a context in the model. Every effect is applied at the moment of its operation.
#[derive(Clone, Default)]
struct Model {
    /// The contexts whose end is the end of this one, too.
    above: Vec<usize>,
    /// The earliest deadline, and how it ends a context.
    deadline: Option<(Instant, String)>,
    value: Option<usize>,
    end: Option<String>,
}

impl Model {
    fn state(&self) -> &str {
        self.end.as_deref().unwrap_or(GOING_ON)
    }

    /// Takes a deadline over if it is earlier.
    fn bound(&mut self, deadline: Option<(Instant, String)>) {
        let ours = self.deadline.as_ref().map(|(at, _)| *at);
        let earlier = |(at, _): &(Instant, String)| ours.is_none_or(|ours| *at < ours);
        self.deadline = deadline.filter(earlier).or(self.deadline.take());
    }
}

/// A context, all that hangs on it, and what the model says of it.
struct Entry {
    ctx: Option<Context>,
    guard: Option<CancelGuard>,
    waiter: Option<Spawn<DoneOwned>>,
    model: Model,
}

struct Forest {
    entries: Vec<Entry>,
}

impl Forest {
    fn new() -> Forest {
        let mut forest = Forest {
            entries: Vec::new(),
        };
        forest.add(Context::background(), None, Model::default());

        forest
    }

    /// Adds a context. It is done at once if an ancestor is done or if its deadline has passed.
    fn add(&mut self, ctx: Context, guard: Option<CancelGuard>, mut model: Model) {
        model.end = self.end_above(&model);
        self.entries.push(Entry {
            ctx: Some(ctx),
            guard,
            waiter: None,
            model,
        });
        self.expire();
    }

    fn end_above(&self, model: &Model) -> Option<String> {
        let mut above = model.above.iter().map(|&above| &self.entries[above].model);
        above.find_map(|above| above.end.clone())
    }

    /// One of the contexts that are still held, counted from the youngest. The root is always held.
    fn pick(&self, number: usize) -> (usize, Context) {
        let held = |at: &usize| self.entries[*at].ctx.is_some();
        let count = (0..self.entries.len()).filter(held).count();
        (0..self.entries.len())
            .filter(held)
            .nth_back(number % count)
            .and_then(|at| Some((at, self.entries[at].ctx.clone()?)))
            .expect("the root is held")
    }

    /// The state that a plain child inherits from the context at `parent`.
    fn child_of(&self, parent: usize) -> Model {
        Model {
            above: vec![parent],
            end: None,
            ..self.entries[parent].model.clone()
        }
    }

    /// Ends a context and all of its descendants, unless it is done. Descendants have higher
    /// indices.
    fn end(&mut self, at: usize, end: String) {
        let end = self.entries[at].model.end.take().or(Some(end));
        self.entries[at].model.end = end;
        for below in at + 1..self.entries.len() {
            let inherited = self.end_above(&self.entries[below].model);
            let model = &mut self.entries[below].model;
            model.end = model.end.take().or(inherited);
        }
    }

    /// Ends every context whose deadline has passed. Its descendants have the same deadline or an
    /// earlier one.
    fn expire(&mut self) {
        let now = Instant::now();
        for Entry { model, .. } in &mut self.entries {
            let passed = model.deadline.as_ref().filter(|(at, _)| *at <= now);
            model.end = model.end.take().or(passed.map(|(_, end)| end.clone()));
        }
    }

    async fn apply(&mut self, number: usize, op: Op) {
        match op {
            Op::WithCancel(at) => {
                let (at, ctx) = self.pick(at);
                let (ctx, guard) = ctx.with_cancel();
                self.add(ctx, Some(guard), self.child_of(at));
            }
            Op::WithTimeout(at, millis) => {
                let (at, ctx) = self.pick(at);
                let (timeout, cause) = (ms(millis), format!("timeout {number}"));
                let end = format!("context deadline exceeded: {cause}");
                let mut model = self.child_of(at);
                model.bound(Some((Instant::now() + timeout, end)));
                self.add(ctx.with_timeout_cause(timeout, cause), None, model);
            }
            Op::WithValue(at) => {
                let (at, ctx) = self.pick(at);
                let mut model = self.child_of(at);
                model.value = Some(number);
                self.add(ctx.with_value(number), None, model);
            }
            Op::WithoutCancel(at) => {
                let (at, ctx) = self.pick(at);
                let model = Model {
                    value: self.entries[at].model.value,
                    ..Model::default()
                };
                self.add(ctx.without_cancel(), None, model);
            }
            Op::Merge(at, other) => {
                let ((at, ctx), (other, second)) = (self.pick(at), self.pick(other));
                let mut model = self.child_of(at);
                model.above.push(other);
                model.bound(self.entries[other].model.deadline.clone());
                self.add(ctx.merge(&second), None, model);
            }
            Op::Cancel(at) => {
                if let Some((at, guard)) = self.pick_guard(at) {
                    guard.cancel();
                    self.end(at, "context cancelled".to_owned());
                    self.entries[at].guard = Some(guard);
                }
            }
            Op::CancelWith(at) => {
                if let Some((at, guard)) = self.pick_guard(at) {
                    guard.cancel_with(format!("cause {number}"));
                    self.end(at, format!("context cancelled: cause {number}"));
                    self.entries[at].guard = Some(guard);
                }
            }
            Op::DropGuard(at) => {
                if let Some((at, guard)) = self.pick_guard(at) {
                    drop(guard);
                    self.end(at, format!("context cancelled: {GUARD_DROPPED}"));
                }
            }
            Op::Disarm(at) => {
                if let Some((_, guard)) = self.pick_guard(at) {
                    guard.disarm();
                }
            }
            Op::Advance(millis) => {
                time::advance(ms(millis)).await;
                self.expire();
            }
            Op::Ask(at) => {
                let (at, ctx) = self.pick(at);
                assert_eq!(state(&ctx), self.entries[at].model.state(), "{ctx}");
            }
            Op::Wait(at) => {
                let (at, ctx) = self.pick(at);
                let mut waiter = tokio_test::task::spawn(ctx.done_owned());
                let ready = waiter.poll().is_ready();
                assert_eq!(ready, self.entries[at].model.end.is_some(), "{ctx}");
                self.entries[at].waiter = (!ready).then_some(waiter);
            }
            Op::StopWaiting(at) => {
                let (at, _) = self.pick(at);
                self.entries[at].waiter = None;
            }
            Op::Drop(at) => {
                let (at, _) = self.pick(at);
                if !self.entries[at].model.above.is_empty() {
                    self.entries[at].ctx = None;
                }
            }
        }
    }

    /// Takes one of the guards that are still held.
    fn pick_guard(&mut self, number: usize) -> Option<(usize, CancelGuard)> {
        let mut held: Vec<_> = (0..self.entries.len())
            .filter(|&at| self.entries[at].guard.is_some())
            .collect();
        let len = held.len().max(1);
        held.rotate_left(number % len);
        let at = *held.first()?;
        Some((at, self.entries[at].guard.take()?))
    }

    /// Checks that a waiter has been woken exactly if its context is done in the model.
    fn check_waiters(&mut self) {
        for entry in &mut self.entries {
            let Some(mut waiter) = entry.waiter.take() else {
                continue;
            };
            assert_eq!(waiter.is_woken(), entry.model.end.is_some());
            if waiter.is_woken() {
                assert!(waiter.poll().is_ready());
            } else {
                entry.waiter = Some(waiter);
            }
        }
    }

    /// Queries all contexts, from the first one down or from the last one up.
    fn check_all(&self, up: bool) {
        let mut entries: Vec<_> = self.entries.iter().collect();
        if up {
            entries.reverse();
        }
        let now = Instant::now();
        for Entry { ctx, model, .. } in entries {
            let Some(ctx) = ctx else { continue };
            let deadline = model.deadline.as_ref().map(|(at, _)| *at);
            assert_eq!(state(ctx), model.state(), "{ctx}");
            assert_eq!(ctx.value::<usize>(), model.value.as_ref(), "{ctx}");
            assert_eq!(ctx.deadline(), deadline, "{ctx}");
            if model.end.is_none() {
                assert_eq!(ctx.remaining(), deadline.map(|at| at - now), "{ctx}");
            }
        }
    }
}

async fn check(ops: Vec<Op>, up: bool) {
    let mut forest = Forest::new();
    for (number, op) in ops.into_iter().enumerate() {
        forest.apply(number, op).await;
        forest.check_waiters();
    }
    forest.check_all(up);
    forest.apply(usize::MAX, Op::Advance(100)).await;
    forest.check_waiters();
    forest.check_all(!up);
}

/// `PROPTEST_CASES` and `PROPTEST_RNG_SEED` change how many trees there are, and which.
#[test]
fn a_tree_of_contexts_does_what_the_model_does() {
    let mut config = contextualize_config(Config {
        cases: 1_000,
        failure_persistence: None,
        ..Config::default()
    });
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(RandomState::new().hash_one(()));
    }
    eprintln!("PROPTEST_RNG_SEED={}", config.rng_seed);
    let trees = (vec(op(), 1..60), any::<bool>());
    let checked = TestRunner::new(config).run(&trees, |(ops, up)| {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()?;
        // Unconstrained, because a timer that is polled too often in one poll of the task runs out
        // of budget and would be pending.
        runtime.block_on(unconstrained(check(ops, up)));
        Ok(())
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}
