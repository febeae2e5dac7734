//! Whole groups and fan-outs in random schedules of shuttle. A failing run prints its schedule,
//! which can be replayed.
//!
//! ```sh
//! .ci/shuttle.sh
//! ```
//!
//! Each iteration draws a program and a schedule. A wait that is never woken is a deadlock, which
//! shuttle reports.
#![cfg(errgroup_shuttle)]

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use errgroup::{Context, Group, fan_out};
use futures::StreamExt;
use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::{future, thread};

const SCHEDULES: usize = 10_000;

/// How many bodies there are.
#[derive(Clone, Default)]
struct Bodies(Arc<AtomicUsize>);

struct Body(Bodies);

impl Bodies {
    fn make(&self) -> Body {
        self.0.fetch_add(1, Ordering::SeqCst);
        Body(self.clone())
    }

    fn alive(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn draw(end: usize) -> usize {
    thread_rng().gen_range(0..end)
}

#[derive(Clone, Copy)]
enum End {
    Ok,
    Fail,
    Panic,
    UntilAsked,
}

async fn task(body: Body, ctx: Context, yields: usize, end: End) -> Result<(), String> {
    for _ in 0..yields {
        future::yield_now().await;
    }
    drop(body);
    match end {
        End::Ok => Ok(()),
        End::Fail => Err("failed".to_owned()),
        // Past the hook, where shuttle takes a panic for the end.
        End::Panic => resume_unwind(Box::new("panicked")),
        End::UntilAsked => Err(ctx.done().await.to_string()),
    }
}

/// Takes snapshots of all groups and tasks meanwhile, on a thread of its own.
#[cfg(feature = "inspect")]
fn with_snapshots(program: impl Fn()) {
    let reader = thread::spawn(|| {
        for _ in 0..2 {
            thread::yield_now();
            assert!(!errgroup::inspect::snapshot().to_string().is_empty());
        }
    });
    program();
    reader.join().unwrap();
    let left = errgroup::inspect::snapshot();
    assert_eq!(left.groups.len(), 0, "{left}");
}

#[cfg(not(feature = "inspect"))]
fn with_snapshots(program: impl Fn()) {
    program();
}

fn schedules(program: impl Fn() + Send + Sync + Copy + 'static) {
    let program = move || with_snapshots(program);
    // The root context is shared by the process, and what shuttle replaces must not be used by
    // several real threads.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    shuttle::check_random(program, SCHEDULES);
    shuttle::check_pct(program, SCHEDULES, 3);
}

/// Limits of 1 and 2, nested tasks, a failure, a panic, a cancel, and new limits from another
/// thread: `wait_all` returns each failure once.
#[test]
fn every_task_of_a_mixed_group_is_dropped_and_reported_once() {
    schedules(|| {
        future::block_on(async {
            let (g, ctx) = Group::<String>::with_context(Context::background());
            g.set_limit(1 + draw(2));
            let (bodies, ok) = (Bodies::default(), Arc::new(AtomicUsize::new(0)));
            let accepted = Arc::new(AtomicUsize::new(0));
            let g = Arc::new(g);
            let meddler = {
                let (g, limit, cancels) = (g.clone(), draw(3), draw(2) == 0);
                thread::spawn(move || {
                    g.set_limit(limit);
                    if cancels {
                        g.cancel_with("enough");
                    }
                    g.set_limit(1);
                })
            };
            for number in 0..2 + draw(2) {
                let (end, yields) = ([End::Ok, End::Ok, End::Fail, End::Panic][draw(4)], draw(3));
                let nested = (draw(2) == 0).then(|| (g.spawner(), bodies.make(), ok.clone()));
                let (body, ctx, ok) = (bodies.make(), ctx.clone(), ok.clone());
                let nested_accepted = accepted.clone();
                accepted.fetch_add(1, Ordering::SeqCst);
                let admission = g.go(async move {
                    if let Some((spawner, body, ok)) = nested {
                        let nested = task(body, ctx.clone(), 0, End::Ok);
                        nested_accepted.fetch_add(1, Ordering::SeqCst);
                        // It is awaited, so its starter lends its permit.
                        let _ = spawner
                            .go(async move {
                                nested.await?;
                                ok.fetch_add(1, Ordering::SeqCst);
                                Ok(())
                            })
                            .await;
                    }
                    task(body, ctx, yields, end).await?;
                    ok.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                });
                if number == 1 {
                    let _ = admission.await;
                }
            }
            meddler.join().unwrap();
            let Some(g) = Arc::into_inner(g) else {
                panic!("the meddler still holds the group");
            };
            let errors = g.wait_all().await.err();
            assert_eq!(bodies.alive(), 0);
            let told = ok.load(Ordering::SeqCst) + errors.map_or(0, |errors| errors.len());
            assert_eq!(told, accepted.load(Ordering::SeqCst));
            assert!(ctx.is_done());
        });
    });
}

/// A failure or a cancel wakes the tasks that wait for the context, and the limit delays none of
/// them.
#[test]
fn every_task_that_waits_for_the_context_is_woken() {
    schedules(|| {
        future::block_on(async {
            let (g, ctx) = Group::<String>::with_context(Context::background());
            let bodies = Bodies::default();
            g.set_limit(2);
            for end in [
                End::UntilAsked,
                End::Ok,
                [End::Fail, End::Panic][draw(2)],
                End::Ok,
            ] {
                g.go(task(bodies.make(), ctx.clone(), draw(2), end));
            }
            let errors = g.wait_all().await.unwrap_err();
            assert_eq!(bodies.alive(), 0);
            assert!((2..=4).contains(&errors.len()), "{errors:?}");
        });
    });
}

/// A group that is dropped half-way: every task is dropped, or shuttle finds a task that waits for
/// ever.
#[test]
fn a_group_that_is_dropped_leaves_nothing_behind() {
    schedules(|| {
        future::block_on(async {
            let value = Arc::new(());
            let is_alive = Arc::downgrade(&value);
            let parent = Context::background().with_value(value);
            let (g, ctx) = Group::<String>::with_context(parent);
            let bodies = Bodies::default();
            g.set_limit(1 + draw(2));
            for end in [End::UntilAsked, End::Ok, End::Ok] {
                g.go(task(bodies.make(), ctx.clone(), draw(3), end));
            }
            for _ in 0..draw(4) {
                future::yield_now().await;
            }
            drop(g);
            assert!(ctx.is_done());
            while bodies.alive() > 0 {
                future::yield_now().await;
            }
            // Every worker holds the context of the group. If one were still in its last poll,
            // shuttle would drop it in the middle of a critical section.
            drop(ctx);
            while is_alive.strong_count() > 0 {
                future::yield_now().await;
            }
        });
    });
}

/// A group at a limit of 1 is closed while a background task runs, a thread stops a task through
/// its handle, and a task continues on a permit that it has reserved. Every task ends, and none of
/// that is a failure.
#[test]
fn a_group_that_is_closed_ends_with_all_kinds_of_tasks() {
    schedules(|| {
        future::block_on(async {
            let (g, ctx) = Group::<String>::with_context(Context::background());
            g.set_limit(1);
            let bodies = Bodies::default();
            let beats = task(bodies.make(), ctx.clone(), draw(2), End::UntilAsked);
            g.task().background().go(beats);
            let handle = g.spawn(task(bodies.make(), ctx.clone(), draw(3), End::Ok));
            let stopper = thread::spawn(move || {
                handle.abort();
                handle
            });
            let (spawner, inner) = (g.spawner(), ctx.clone());
            let (first, second) = (bodies.make(), bodies.make());
            g.go(async move {
                drop(first);
                // Refused if the group was closed before.
                if let Ok(permit) = spawner.reserve().await {
                    permit.go(task(second, inner, 0, End::Ok));
                }
                Ok(())
            });
            for _ in 0..draw(3) {
                future::yield_now().await;
            }
            assert_eq!(g.close_and_wait().await, Ok(()));
            assert_eq!(bodies.alive(), 0);
            assert!(stopper.join().unwrap().is_finished());
            assert!(ctx.is_done());
        });
    });
}

/// A fan-out inside a task of a group with one permit, and a consumer of a stream: the items are in
/// order, and nothing is left.
#[test]
fn fan_outs_in_tasks_and_streams_give_everything() {
    schedules(|| {
        future::block_on(async {
            let (g, ctx) = Group::<String>::with_context(Context::background());
            g.set_limit(1);
            let bodies = Bodies::default();
            let (inner, made) = (ctx.clone(), bodies.clone());
            let fails = draw(6);
            g.go(async move {
                let all = fan_out(&inner, 0..3, move |_, item| {
                    let body = made.make();
                    async move {
                        future::yield_now().await;
                        drop(body);
                        if item == fails {
                            Err("failed".to_owned())
                        } else {
                            Ok(item)
                        }
                    }
                });
                match all.limit(2).all().await {
                    Ok(all) => assert!(fails > 2 && all == [0, 1, 2]),
                    Err(error) => assert!(fails < 3 && error == "failed"),
                }
                Ok(())
            });
            let made = bodies.clone();
            g.go(async move {
                let items = fan_out(&Context::background(), 0..3, move |_, item| {
                    let body = made.make();
                    async move {
                        drop(body);
                        Ok::<_, String>(item)
                    }
                });
                let mut items = items.limit(1 + fails % 2).ordered_stream();
                let mut next = 0;
                while let Some(item) = items.next().await {
                    assert_eq!(item, Ok(next));
                    next += 1;
                }
                assert_eq!(next, 3);
                Ok(())
            });
            assert_eq!(g.wait().await, Ok(()));
            assert_eq!(bodies.alive(), 0);
        });
    });
}
