//! Compares random groups with a small model, on one thread and on two workers.

use std::future::pending;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;

use errgroup::Spawner;
use futures::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::runtime::Runtime;

use crate::group_support::*;

#[derive(Debug, Clone)]
enum Step {
    Go(Task),
    TryGo(Task),
    Limit(Option<usize>),
    Yield(usize),
    Cancel,
    Abort,
}

#[derive(Debug, Clone)]
struct Task {
    yields: usize,
    /// Started by it, each one's admission awaited.
    children: Vec<Task>,
    end: End,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Ok,
    Fail,
    Panic,
    /// Waits until it is dropped.
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Last {
    Wait,
    Drop,
    DropWait(usize),
}

fn task() -> impl Strategy<Value = Task> {
    let end = || {
        prop_oneof![
            12 => Just(End::Ok),
            1 => Just(End::Fail),
            1 => Just(End::Panic),
        ]
    };
    let leaf = (0..4_usize, end()).prop_map(|(yields, end)| Task {
        yields,
        children: Vec::new(),
        end,
    });
    leaf.prop_recursive(3, 12, 3, move |inner| {
        (0..3_usize, vec(inner, 0..4), end()).prop_map(|(yields, children, end)| Task {
            yields,
            children,
            end,
        })
    })
}

fn steps() -> impl Strategy<Value = (Vec<Step>, Last)> {
    let never = Task {
        yields: 0,
        children: Vec::new(),
        end: End::Never,
    };
    let step = prop_oneof![
        8 => task().prop_map(Step::Go),
        2 => task().prop_map(Step::TryGo),
        3 => (0..4_usize).prop_map(|limit| Step::Limit(Some(limit))),
        1 => Just(Step::Limit(None)),
        3 => (0..6_usize).prop_map(Step::Yield),
        1 => Just(Step::Cancel),
        1 => Just(Step::Abort),
        1 => Just(Step::Go(never)),
    ];
    let last = prop_oneof![
        4 => Just(Last::Wait),
        1 => Just(Last::Drop),
        1 => (0..10_usize).prop_map(Last::DropWait),
    ];
    (vec(step, 0..16), last)
}

/// The results of a real run, counted by the tasks themselves.
#[derive(Clone, Default)]
struct Seen {
    given: Probe,
    ok: Count,
    failed: Count,
    panicked: Count,
    refused: Count,
}

fn run(
    task: Task,
    spawner: Spawner<String>,
    seen: Seen,
) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
    Box::pin(seen.given.clone().wrap(async move {
        yields(task.yields).await;
        for child in task.children {
            let _ = spawner.go(run(child, spawner.clone(), seen.clone())).await;
        }
        match task.end {
            End::Ok => seen.ok.add(),
            End::Fail => seen.failed.add(),
            End::Panic => seen.panicked.add(),
            End::Never => pending().await,
        };
        match task.end {
            End::Ok | End::Never => Ok(()),
            End::Fail => Err("failed".to_owned()),
            End::Panic => resume_unwind(Box::new("panicked")),
        }
    }))
}

async fn check(steps: Vec<Step>, last: Last) {
    let ((g, ctx), seen) = (group(), Seen::default());
    let (mut limit, mut never, mut aborted) = (None, false, false);
    for step in steps {
        match step {
            Step::Go(task) => {
                never |= task.end == End::Never;
                g.go(run(task, g.spawner(), seen.clone()));
            }
            Step::TryGo(task) => {
                if g.try_go(run(task, g.spawner(), seen.clone())).is_err() {
                    seen.refused.add();
                }
            }
            Step::Limit(new) => {
                limit = new;
                g.set_limit(new);
            }
            Step::Yield(times) => yields(times).await,
            Step::Cancel => g.cancel(),
            Step::Abort => {
                aborted = true;
                g.abort();
            }
        }
        assert_eq!(g.limit(), limit);
    }
    // Releases the tasks that would otherwise wait for ever.
    if limit == Some(0) {
        g.set_limit(1);
    }
    if never {
        aborted = true;
        g.abort();
    }
    let spawner = g.spawner();
    match last {
        Last::Wait => {
            let outcome = AssertUnwindSafe(g.wait()).catch_unwind().await;
            judge(outcome, &seen, aborted);
            seen.given.assert_all_dropped();
        }
        Last::Drop => drop(g),
        Last::DropWait(polls) => {
            let mut wait = Box::pin(AssertUnwindSafe(g.wait()).catch_unwind());
            for _ in 0..polls {
                if futures::poll!(&mut wait).is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
    assert!(ctx.is_done());
    until(|| seen.given.dropped() == seen.given.made()).await;
    let polled = seen.given.polled();
    assert!(!spawner.go(async { unreachable!() }).await.is_started());
    yields(5).await;
    assert_eq!(seen.given.polled(), polled, "polled after its group's end");
}

/// The model: a panic wins; else an error or a task that the group stopped; else all went well.
fn judge(outcome: std::thread::Result<Result<(), String>>, seen: &Seen, aborted: bool) {
    let ended = seen.ok.get() + seen.failed.get() + seen.panicked.get();
    let stopped = seen.given.made() - seen.refused.get() - ended;
    match outcome {
        Err(payload) => {
            assert_eq!(payload.downcast_ref(), Some(&"panicked"));
            assert!(seen.panicked.get() > 0);
        }
        Ok(outcome) => {
            assert_eq!(seen.panicked.get(), 0, "a panic was swallowed");
            match outcome {
                Ok(()) => assert_eq!((seen.failed.get(), stopped), (0, 0)),
                Err(error) if error == "failed" => assert!(seen.failed.get() > 0),
                Err(error) => {
                    assert_eq!(error, "context cancelled");
                    assert!(stopped > 0 || aborted);
                }
            }
        }
    }
}

fn against_the_model(cases: u32, runtime: impl Fn() -> Runtime) {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&Random::new().next().to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let runtime = runtime();
    TestRunner::new_with_rng(config, rng)
        .run(&steps(), |(steps, last)| {
            runtime.block_on(in_time(check(steps, last)));
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn random_groups_do_on_one_thread_what_the_model_does() {
    against_the_model(2_000, current_thread);
}

#[test]
fn random_groups_do_on_two_workers_what_the_model_does() {
    against_the_model(1_000, two_workers);
}
