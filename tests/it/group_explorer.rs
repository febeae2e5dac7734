//! Every async call of groups, their handles and contexts is dropped after its first poll, after
//! the second, and so on up to its end.
//!
//! On one thread the caller is polled after every single poll of a task, so that it can stop
//! between any two of them. Whatever the moment: the `# Cancel safety` of the call holds. What the
//! call owns is dropped with it, and what it has left behind goes on as if the call had never been
//! made.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use errgroup::{Context, Drain, Group, Ready};
use futures::future::LocalBoxFuture;

use crate::group_support::*;

/// The number of polls that a caller makes without being woken. Then it lets the clock advance.
const EAGER: usize = 40;

const HOUR: Duration = Duration::from_secs(3600);

/// Polls up to this many times, with polls of other tasks in between.
async fn polled<F: Future + ?Sized>(mut future: Pin<&mut F>, most: usize) -> Option<F::Output> {
    for polls in 0..most {
        if let std::task::Poll::Ready(output) = futures::poll!(future.as_mut()) {
            return Some(output);
        }
        if polls < EAGER {
            yields(1).await;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    None
}

/// Runs `check` with 0 polls, 1 poll, and so on, until it says that the call has ended, on one
/// thread and on two workers. There, the moment differs from run to run.
fn explore<F>(least: usize, check: impl Fn(usize) -> F)
where
    F: Future<Output = bool>,
{
    for runtime in [current_thread(), two_workers()] {
        let mut most = 0;
        while !runtime.block_on(in_time(check(most))) {
            most += 1;
        }
        let one_thread = runtime.metrics().num_workers() == 1;
        assert!(!one_thread || most >= least, "{most} polls");
    }
}

/// A group with six tasks, of which the fourth fails, and the number of those that have ended by
/// themselves.
fn busy(limit: usize) -> (G, Probe, Count) {
    let (g, probe, ended) = (G::new(), Probe::default(), Count::default());
    g.set_limit(limit);
    for task in 0..6 {
        let ended = ended.clone();
        g.go(probe.wrap(async move {
            yields(task).await;
            if task == 2 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            ended.add();
            if task == 3 {
                Err("kept".to_owned())
            } else {
                OK
            }
        }));
    }
    (g, probe, ended)
}

const LIMITS: [usize; 3] = [1, 2, 6];

#[test]
fn idle_is_dropped_after_each_poll() {
    for limit in LIMITS {
        explore(3, async |polls| {
            let (g, probe, ended) = busy(limit);
            let mut other = Box::pin(g.idle());
            let first = polled(other.as_mut(), 1).await;
            let returned = polled(Box::pin(g.idle()).as_mut(), polls).await.is_some();
            assert!(!returned || ended.get() == 6);
            // Of several callers, those that stay are woken.
            if first.is_none() {
                other.as_mut().await;
            }
            drop(other);
            g.idle().await;
            assert_eq!((ended.get(), probe.dropped()), (6, 6));
            assert!(!g.context().is_done());
            assert_eq!(g.wait().await, Err("kept".to_owned()));
            returned
        });
    }
}

#[test]
fn close_and_wait_is_dropped_after_each_poll() {
    for limit in LIMITS {
        explore(3, async |polls| {
            let (g, probe, ended) = busy(limit);
            let first = polled(Box::pin(g.close_and_wait()).as_mut(), polls).await;
            let returned = first.is_some();
            let first = match first {
                Some(first) => first,
                None => g.close_and_wait().await,
            };
            assert_eq!(first, Err("kept".to_owned()));
            assert_eq!((ended.get(), probe.dropped()), (6, 6));
            assert_eq!(g.close_and_wait().await, OK);
            returned
        });
    }
}

/// Checks a call that owns its group: a drop aborts what is left.
async fn owner<T>(polls: usize, call: impl FnOnce(G) -> LocalBoxFuture<'static, T>) -> bool {
    let (g, probe, ended) = busy(2);
    let ctx = g.context();
    let mut call = call(g);
    let returned = polled(call.as_mut(), polls).await.is_some();
    assert!(!returned || ended.get() == 6);
    drop(call);
    assert!(ctx.is_done());
    until(|| probe.dropped() == 6).await;
    let at_the_end = probe.polled();
    yields(20).await;
    assert_eq!(probe.polled(), at_the_end);
    returned
}

#[test]
fn wait_is_dropped_after_each_poll() {
    explore(3, |polls| owner(polls, |g| Box::pin(g.wait())));
}

#[test]
fn wait_all_is_dropped_after_each_poll() {
    explore(3, |polls| owner(polls, |g| Box::pin(g.wait_all())));
}

#[test]
fn drain_is_dropped_after_each_poll() {
    explore(3, |polls| owner(polls, |g| Box::pin(g.drain(HOUR))));
}

#[test]
fn a_drain_of_groups_is_dropped_after_each_poll() {
    explore(4, async |polls| {
        let (later, probe, ended) = busy(1);
        let ctx = later.context();
        let returned = owner(polls, move |g| {
            let drain = Drain::within(HOUR).phase("first", g).phase("later", later);
            Box::pin(async move {
                let report = drain.run().await;
                assert_eq!(report.phases()[1].errors().len(), 1);
            })
        });
        let returned = returned.await;
        assert!(ctx.is_done());
        until(|| probe.dropped() == 6).await;
        assert!(!returned || ended.get() == 6);
        returned
    });
}

/// Starts two tasks and ends a little later.
async fn body(g: &G, tasks: Probe) -> Result<(), String> {
    for task in 1..3 {
        g.go(tasks.wrap(async move {
            yields(2 * task).await;
            OK
        }));
    }
    yields(2).await;
    OK
}

#[test]
fn scope_and_scope_all_are_dropped_after_each_poll() {
    for all in [false, true] {
        explore(3, async |polls| {
            let (own, tasks) = (Probe::default(), Probe::default());
            let root = Context::background();
            let (in_body, in_tasks) = (own.clone(), tasks.clone());
            let run = async move |g: &G, _| in_body.wrap(body(g, in_tasks)).await;
            let mut scope: LocalBoxFuture<'_, bool> = if all {
                Box::pin(async { Group::scope_all(&root, run).await.is_ok() })
            } else {
                Box::pin(async { Group::scope(&root, run).await.is_ok() })
            };
            let returned = polled(scope.as_mut(), polls).await;
            assert_ne!(returned, Some(false));
            drop(scope);
            assert_eq!(own.dropped(), own.made());
            until(|| tasks.dropped() == tasks.made()).await;
            assert!(returned.is_none() || tasks.made() == 2);
            returned.is_some()
        });
    }
}

/// A failure before the task is ready is that of the call, or of the group, and never of both or of
/// none.
#[test]
fn start_is_dropped_after_each_poll() {
    for fails in [false, true] {
        explore(3, async |polls| {
            let (g, _ctx) = group();
            let probe = Probe::default();
            let wraps = probe.clone();
            let start = g.start(move |_, ready: Ready<u8>| {
                wraps.wrap(async move {
                    yields(3).await;
                    if fails {
                        return Err("too early".to_owned());
                    }
                    ready.ok(7);
                    yields(2).await;
                    OK
                })
            });
            let answer = polled(Box::pin(start).as_mut(), polls).await;
            let ended = g.wait().await;
            assert_eq!(probe.dropped(), usize::from(polls > 0));
            let expected = match (&answer, fails && polls > 0) {
                (Some(Ok(value)), _) => {
                    assert_eq!(*value, 7);
                    OK
                }
                (Some(Err(error)), _) => {
                    assert_eq!(error, "too early");
                    OK
                }
                (None, true) => Err("too early".to_owned()),
                (None, false) => OK,
            };
            assert_eq!(ended, expected);
            answer.is_some()
        });
    }
}

/// A reservation loses its own position, and nothing else.
#[test]
fn reserve_is_dropped_after_each_poll() {
    for limit in LIMITS {
        explore(1, async |polls| {
            let (g, _probe, ended) = busy(limit);
            let mut reserve = Box::pin(g.reserve());
            let permit = polled(reserve.as_mut(), polls).await;
            let mut later = Box::pin(g.reserve());
            let early = polled(later.as_mut(), 1).await;
            drop(reserve);
            let granted = permit.is_some();
            drop(permit);
            let permit = match early {
                Some(permit) => permit,
                None => later.await,
            };
            drop(permit.unwrap());
            g.idle().await;
            assert_eq!((g.running(), g.queued(), ended.get()), (0, 0, 6));
            granted
        });
    }
}

#[test]
fn a_tracked_future_is_dropped_after_each_poll() {
    explore(3, async |polls| {
        let (g, _ctx) = group();
        let probe = Probe::default();
        let mut tracked = Box::pin(g.track(probe.wrap(async {
            yields(3).await;
            Err("its own".to_owned())
        })));
        let ended = polled(tracked.as_mut(), polls).await.is_some();
        drop(tracked);
        assert_eq!(probe.dropped(), 1);
        let expected = if ended { Err("its own".to_owned()) } else { OK };
        assert_eq!(g.wait().await, expected);
        ended
    });
}

#[test]
fn a_handle_is_dropped_after_each_poll() {
    explore(3, async |polls| {
        let (g, ran) = (limited(1), Count::default());
        let runs = ran.clone();
        let mut handle = g.spawn(async move {
            yields(3).await;
            runs.add();
            Ok(7)
        });
        let mut value = None;
        for _ in 0..polls {
            // Each future is a new one: it borrows the handle.
            value = polled(Pin::new(&mut &mut handle), 1).await;
            if value.is_some() {
                break;
            }
        }
        drop(handle);
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 1);
        value.is_some_and(|value| value.unwrap() == 7)
    });
}

#[test]
fn an_admission_is_dropped_after_each_poll() {
    explore(3, async |polls| {
        let (g, log) = (limited(1), Log::new());
        let mut last = None;
        for number in 0..3 {
            let log = log.clone();
            last = Some(g.go(async move {
                yields(2).await;
                log.add(number);
                OK
            }));
        }
        let mut last = last.unwrap();
        let admitted = polled(Pin::new(&mut last), polls).await;
        drop(last);
        assert!(admitted.is_none_or(|admitted| admitted.is_started()));
        assert_eq!(g.wait().await, OK);
        assert_eq!(log.get(), [0, 1, 2]);
        admitted.is_some()
    });
}

/// A call in which a task waits for its own group, and lends its permit.
#[derive(Clone, Copy, PartialEq)]
enum Lends {
    Admission,
    Handle,
    Start,
    Reserve,
}

/// A task that gives up such a wait has its permit again before it goes on, and leaves nothing
/// behind that holds another.
#[test]
fn a_wait_in_a_task_is_dropped_after_each_poll() {
    for call in [
        Lends::Admission,
        Lends::Handle,
        Lends::Start,
        Lends::Reserve,
    ] {
        for limit in [1, 2] {
            explore(0, async |polls| {
                let (g, running, ended) = (limited(limit), Gauge::default(), Count::default());
                let returned = Count::default();
                for _ in 0..4 {
                    let (spawner, running) = (g.spawner(), running.clone());
                    let (ended, returned) = (ended.clone(), returned.clone());
                    g.go(async move {
                        let own = running.enter();
                        assert!(running.now() <= limit);
                        let runs = running.clone();
                        let sibling = async move {
                            let own = runs.enter();
                            assert!(runs.now() <= limit);
                            yields(2).await;
                            drop(own);
                            OK
                        };
                        drop(own);
                        let mut wait: Pin<Box<dyn Future<Output = ()> + Send>> = match call {
                            Lends::Admission => {
                                let admission = spawner.go(sibling);
                                Box::pin(async {
                                    let _ = admission.await;
                                })
                            }
                            Lends::Handle => {
                                let handle = spawner.spawn(sibling);
                                Box::pin(async { drop(handle.await) })
                            }
                            Lends::Start => {
                                let start = spawner.start(move |_, ready: Ready<()>| async move {
                                    yields(1).await;
                                    ready.ok(());
                                    sibling.await
                                });
                                Box::pin(async { drop(start.await) })
                            }
                            Lends::Reserve => {
                                let reserve = spawner.reserve();
                                Box::pin(async { reserve.await.unwrap().go(sibling) })
                            }
                        };
                        if polled(wait.as_mut(), polls).await.is_some() {
                            returned.add();
                        }
                        drop(wait);
                        yields(1).await;
                        let own = running.enter();
                        assert!(running.now() <= limit);
                        drop(own);
                        ended.add();
                        OK
                    });
                }
                assert_eq!(g.wait().await, OK);
                assert_eq!((ended.get(), running.now()), (4, 0));
                returned.get() == 4
            });
        }
    }
}

/// Checks a future that waits for the end of a context: a later one finds that end all the same.
async fn of_a_context(
    polls: usize,
    call: impl FnOnce(Context) -> LocalBoxFuture<'static, ()>,
) -> bool {
    let (ctx, guard) = Context::background().with_cancel();
    let cancels = tokio::spawn(async move {
        yields(4).await;
        guard.cancel_with("late");
    });
    let mut call = call(ctx.clone());
    let returned = polled(call.as_mut(), polls).await.is_some();
    drop(call);
    assert_eq!(ctx.done().await.cause().unwrap().to_string(), "late");
    cancels.await.unwrap();
    returned
}

#[test]
fn waits_for_the_end_of_a_context_are_dropped_after_each_poll() {
    explore(2, |polls| {
        of_a_context(polls, |ctx| Box::pin(async move { drop(ctx.done().await) }))
    });
    explore(2, |polls| {
        of_a_context(polls, |ctx| {
            Box::pin(async move { drop(ctx.done_owned().await) })
        })
    });
    explore(2, |polls| {
        of_a_context(polls, |ctx| Box::pin(ctx.until_done()))
    });
    explore(2, |polls| {
        of_a_context(polls, |ctx| {
            Box::pin(async move { drop(ctx.sleep(HOUR).await) })
        })
    });
}

#[test]
fn run_is_dropped_after_each_poll() {
    explore(2, async |polls| {
        let probe = Probe::default();
        let wraps = probe.clone();
        let returned = of_a_context(polls, move |ctx| {
            let inner = wraps.wrap(std::future::pending::<()>());
            Box::pin(async move { drop(ctx.run(inner).await) })
        });
        let returned = returned.await;
        assert_eq!((probe.made(), probe.dropped()), (1, 1));
        returned
    });
}
