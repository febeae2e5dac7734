//! No deadlock at the limit: a task that awaits a reservation of its own group lends its permit,
//! and continues on the reserved one.

use std::future::{Future, pending};
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::Duration;

use errgroup::{Context, Group, Permit, Spawner, fetch_all};
use futures::StreamExt;
use futures::future::{join, join_all};
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use crate::group_support::*;

both_flavours![
    a_task_that_reserves_and_starts_in_a_loop_finishes,
    no_more_than_the_limit_are_polled_at_once,
    the_started_task_runs_after_the_poll_of_its_starter,
    it_goes_on_with_that_permit_as_its_own,
    after_it_was_used_the_task_needs_a_permit_again,
    its_claim_comes_before_queued_tasks,
    after_it_was_dropped_the_task_keeps_it,
    a_task_that_ends_with_a_permit_gives_back_both,
    a_permit_that_outlives_its_task_still_counts,
    a_permit_that_was_sent_elsewhere_starts_a_task,
    a_permit_that_was_dropped_elsewhere_is_free,
    two_permits_at_once,
    a_second_permit_keeps_the_task_going,
    in_a_list_it_lends_too,
    in_a_select_it_may_be_given_up,
    in_a_nested_scope_it_lends_to_any_depth,
    in_a_nested_fan_out_it_lends,
    nested_permits_that_are_dropped_are_free,
    a_local_task_lends,
    a_blocking_closure_lends,
    a_task_of_another_group_lends_nothing,
    a_panic_gives_the_permit_back,
    an_abort_in_the_poll_refuses_what_was_started_in_it,
    the_end_of_the_context_wakes_a_lender,
    an_awaited_value_of_its_task_arrives,
    random_programs_finish_within_the_limit,
];

/// Polls a future inside the gauge: counts the polls that run at once.
struct Polled<F> {
    future: Pin<Box<F>>,
    gauge: Gauge,
}

impl<F: Future> Future for Polled<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let _alive = self.gauge.enter();
        std::hint::spin_loop();
        self.future.as_mut().poll(cx)
    }
}

fn polled<F: Future>(gauge: &Gauge, future: F) -> Polled<F> {
    Polled {
        future: Box::pin(future),
        gauge: gauge.clone(),
    }
}

async fn reserve(spawner: &Spawner<String>) -> Permit<String> {
    spawner.reserve().await.unwrap()
}

/// A task that starts `times` tasks, each with a permit that it has reserved.
fn starter(
    g: &G,
    times: usize,
    ran: &Count,
    gauge: &Gauge,
) -> impl Future<Output = Result<(), String>> + Send + use<> {
    let (spawner, ran, gauge) = (g.spawner(), ran.clone(), gauge.clone());
    polled(&gauge.clone(), async move {
        for number in 0..times {
            let permit = spawner.reserve().await.map_err(|why| why.to_string())?;
            let ran = ran.clone();
            permit.go(polled(&gauge, async move {
                yields(number % 3).await;
                ran.add();
                Ok(())
            }));
            if number % 2 == 0 {
                yields(1).await;
            }
        }
        Ok(())
    })
}

async fn a_task_that_reserves_and_starts_in_a_loop_finishes() {
    for limit in [1, 4] {
        let (g, ran) = (limited(limit), Count::default());
        g.go(starter(&g, 100, &ran, &Gauge::default()));
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 100);
    }
}

async fn no_more_than_the_limit_are_polled_at_once() {
    for limit in [1, 2, 4] {
        let (g, ran, gauge) = (limited(limit), Count::default(), Gauge::default());
        for _ in 0..6 {
            g.go(starter(&g, 50, &ran, &gauge));
        }
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 300);
        assert!(gauge.most() <= limit, "{} at limit {limit}", gauge.most());
    }
}

async fn the_started_task_runs_after_the_poll_of_its_starter() {
    let (g, log) = (limited(1), Log::new());
    let (spawner, logs) = (g.spawner(), log.clone());
    g.go(async move {
        let permit = reserve(&spawner).await;
        let runs = logs.clone();
        permit.go(async move {
            runs.add("started");
            Ok(())
        });
        for _ in 0..1_000 {
            std::thread::yield_now();
        }
        logs.add("end of the poll");
        yields(1).await;
        logs.add("polled again");
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get(), ["end of the poll", "started", "polled again"]);
}

async fn it_goes_on_with_that_permit_as_its_own() {
    let (g, gate, seen) = (limited(1), Gate::new(), Count::default());
    let (spawner, gated, sees) = (g.spawner(), gate.clone(), seen.clone());
    let begin = Gate::new();
    let begins = begin.clone();
    g.go(async move {
        begins.pass().await;
        let permit = reserve(&spawner).await;
        for _ in 0..10 {
            sees.add();
            yields(1).await;
        }
        gated.pass().await;
        sees.add();
        drop(permit);
        Ok(())
    });
    let queued = g.go(async { Ok(()) });
    begin.open();
    until(|| seen.get() == 10).await;
    assert_eq!(g.running(), 1);
    // The other task was queued before the reservation.
    assert!(queued.await.is_started());
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(seen.get(), 11);
}

async fn after_it_was_used_the_task_needs_a_permit_again() {
    let (g, gate, log) = (limited(1), Gate::new(), Log::new());
    let (spawner, gated, logs) = (g.spawner(), gate.clone(), log.clone());
    g.go(async move {
        let permit = reserve(&spawner).await;
        let started = logs.clone();
        permit.go(async move {
            started.add("started");
            gated.pass().await;
            started.add("ends");
            Ok(())
        });
        yields(1).await;
        logs.add("goes on");
        Ok(())
    });
    until(|| log.len() == 1).await;
    yields(20).await;
    assert_eq!((g.running(), log.len()), (1, 1));
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get(), ["started", "ends", "goes on"]);
}

async fn its_claim_comes_before_queued_tasks() {
    let (g, gate, log) = (limited(1), Gate::new(), Log::new());
    let (spawner, gated, logs) = (g.spawner(), gate.clone(), log.clone());
    g.go(async move {
        let permit = reserve(&spawner).await;
        permit.go(async move {
            gated.pass().await;
            Ok(())
        });
        let late = logs.clone();
        spawner.go(async move {
            late.add("queued");
            Ok(())
        });
        yields(1).await;
        logs.add("goes on");
        Ok(())
    });
    until(|| g.queued() == 1).await;
    yields(10).await;
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get(), ["goes on", "queued"]);
}

async fn after_it_was_dropped_the_task_keeps_it() {
    for limit in [1, 4] {
        let (g, ran) = (limited(limit), Count::default());
        let (spawner, runs) = (g.spawner(), ran.clone());
        g.go(async move {
            for _ in 0..50 {
                drop(reserve(&spawner).await);
                runs.add();
                yields(1).await;
            }
            Ok(())
        });
        for _ in 0..10 {
            g.go(async { Ok(()) });
        }
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 50);
    }
}

async fn a_task_that_ends_with_a_permit_gives_back_both() {
    for limit in [1, 2, 4] {
        let g = limited(limit);
        let spawner = g.spawner();
        for _ in 0..10 {
            let spawner = spawner.clone();
            g.go(async move {
                let _permit = reserve(&spawner).await;
                yields(1).await;
                Ok(())
            });
        }
        until(|| g.running() == 0 && g.queued() == 0).await;
        assert!(g.try_go(async { Ok(()) }).is_ok());
        assert_eq!(g.wait().await, OK);
    }
}

async fn a_permit_that_outlives_its_task_still_counts() {
    let (g, (send, receive)) = (limited(1), oneshot::channel());
    let spawner = g.spawner();
    g.go(async move {
        drop(send.send(reserve(&spawner).await));
        Ok(())
    });
    let permit = receive.await.unwrap();
    yields(20).await;
    assert_eq!(g.running(), 1);
    assert!(g.try_go(async { Ok(()) }).is_err());
    assert_eq!(permit.spawn(async { Ok(5) }).await.unwrap(), 5);
    until(|| g.running() == 0).await;
    assert_eq!(g.wait().await, OK);
}

async fn a_permit_that_was_sent_elsewhere_starts_a_task() {
    for limit in [1, 4] {
        let (g, ran) = (limited(limit), Count::default());
        let (send, mut receive) = mpsc::unbounded_channel::<Permit<String>>();
        let counted = ran.clone();
        let starts = tokio::spawn(async move {
            while let Some(permit) = receive.recv().await {
                let ran = counted.clone();
                permit.go(async move {
                    ran.add();
                    yields(2).await;
                    Ok(())
                });
            }
        });
        for _ in 0..3 {
            let (spawner, send) = (g.spawner(), send.clone());
            g.go(async move {
                for _ in 0..30 {
                    drop(send.send(reserve(&spawner).await));
                    yields(1).await;
                }
                Ok(())
            });
        }
        drop(send);
        starts.await.unwrap();
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 90);
    }
}

async fn a_permit_that_was_dropped_elsewhere_is_free() {
    let g = limited(1);
    let spawner = g.spawner();
    g.go(async move {
        let permit = reserve(&spawner).await;
        let (dropped, is_dropped) = oneshot::channel();
        tokio::spawn(async move {
            yields(3).await;
            drop(permit);
            _ = dropped.send(());
        });
        // Awaits its group while the permit is elsewhere.
        assert!(spawner.go(async { Ok(()) }).await.is_started());
        is_dropped.await.unwrap();
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
}

async fn two_permits_at_once() {
    let (g, ran, gauge) = (limited(2), Count::default(), Gauge::default());
    let (spawner, counts, gauges) = (g.spawner(), ran.clone(), gauge.clone());
    g.go(polled(&gauge, async move {
        for _ in 0..30 {
            let (one, two) = join(reserve(&spawner), reserve(&spawner)).await;
            for permit in [one, two] {
                let ran = counts.clone();
                permit.go(polled(&gauges, async move {
                    ran.add();
                    yields(1).await;
                    Ok(())
                }));
            }
        }
        Ok(())
    }));
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 60);
    assert!(gauge.most() <= 2);
}

async fn a_second_permit_keeps_the_task_going() {
    let (g, gate, log) = (limited(2), Gate::new(), Log::new());
    let (spawner, gated, logs) = (g.spawner(), gate.clone(), log.clone());
    g.go(async move {
        let first = reserve(&spawner).await;
        let second = reserve(&spawner).await;
        let gate = gated.clone();
        first.go(async move {
            gated.pass().await;
            Ok(())
        });
        // The first task does not end before this one goes on.
        yields(3).await;
        logs.add("goes on");
        drop(second);
        gate.open();
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get(), ["goes on"]);
}

async fn in_a_list_it_lends_too() {
    for limit in [1, 4] {
        let (g, ran) = (limited(limit), Count::default());
        let (spawner, counts) = (g.spawner(), ran.clone());
        g.go(async move {
            let started = |permit: Permit<String>| {
                let ran = counts.clone();
                permit.go(async move {
                    ran.add();
                    Ok(())
                });
            };
            let mut permits: FuturesUnordered<_> = (0..20).map(|_| spawner.reserve()).collect();
            while let Some(permit) = permits.next().await {
                started(permit.unwrap());
            }
            let each = (0..20).map(|_| async { started(reserve(&spawner).await) });
            join_all(each).await;
            Ok(())
        });
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 40);
    }
}

async fn in_a_select_it_may_be_given_up() {
    for limit in [1, 4] {
        let (g, ran) = (limited(limit), Count::default());
        for _ in 0..5 {
            let (spawner, ran) = (g.spawner(), ran.clone());
            g.go(async move {
                for number in 0..20 {
                    tokio::select! {
                        permit = spawner.reserve() => permit.unwrap().go(async { Ok(()) }),
                        () = yields(number % 4) => {}
                    }
                    ran.add();
                }
                Ok(())
            });
        }
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 100);
    }
}

/// Reserves a permit of the outer group in a scope at this depth, and starts a task with it.
fn nested(
    spawner: Spawner<String>,
    depth: usize,
    ran: Count,
) -> futures::future::BoxFuture<'static, Result<(), String>> {
    Box::pin(async move {
        if depth == 0 {
            for _ in 0..5 {
                let ran = ran.clone();
                let permit = reserve(&spawner).await;
                yields(1).await;
                permit.go(async move {
                    ran.add();
                    Ok(())
                });
            }
            return Ok(());
        }
        Group::<String>::scope(&Context::background(), async |g, _| {
            g.set_limit(2);
            for _ in 0..3 {
                g.go(nested(spawner.clone(), depth - 1, ran.clone()));
            }
            Ok(())
        })
        .await
    })
}

async fn in_a_nested_scope_it_lends_to_any_depth() {
    for limit in [1, 4] {
        for depth in 1..4 {
            let (g, ran) = (limited(limit), Count::default());
            g.go(nested(g.spawner(), depth, ran.clone()));
            assert_eq!(g.wait().await, OK);
            assert_eq!(ran.get(), 5 * 3_usize.pow(depth as u32));
        }
    }
}

async fn in_a_nested_fan_out_it_lends() {
    for limit in [1, 4] {
        let (g, ran) = (limited(limit), Count::default());
        let (spawner, counts) = (g.spawner(), ran.clone());
        g.go(async move {
            let values = fetch_all(&Context::background(), 3, 0..20, move |_, item| {
                let (spawner, ran) = (spawner.clone(), counts.clone());
                async move {
                    let permit = reserve(&spawner).await;
                    permit.go(async move {
                        ran.add();
                        Ok(())
                    });
                    Ok::<_, String>(item)
                }
            });
            assert_eq!(values.await?.len(), 20);
            Ok(())
        });
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 20);
    }
}

async fn nested_permits_that_are_dropped_are_free() {
    let g = limited(1);
    let outer = g.spawner();
    g.go(async move {
        Group::<String>::scope(&Context::background(), async |scope, _| {
            for _ in 0..3 {
                let outer = outer.clone();
                scope.go(async move {
                    let permit = reserve(&outer).await;
                    let elsewhere = tokio::spawn(async move { drop(permit) });
                    assert!(outer.go(async { Ok(()) }).await.is_started());
                    elsewhere.await.unwrap();
                    drop(reserve(&outer).await);
                    assert!(outer.go(async { Ok(()) }).await.is_started());
                    Ok(())
                });
            }
            Ok(())
        })
        .await
    });
    assert_eq!(g.wait().await, OK);
}

async fn a_local_task_lends() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (g, ran) = (limited(1), Count::default());
            let (spawner, counts) = (g.spawner(), ran.clone());
            g.go_local(async move {
                for _ in 0..20 {
                    let ran = counts.clone();
                    reserve(&spawner).await.go(async move {
                        ran.add();
                        Ok(())
                    });
                }
                Ok(())
            });
            assert_eq!(g.wait().await, OK);
            assert_eq!(ran.get(), 20);
        })
        .await;
}

async fn a_blocking_closure_lends() {
    let (g, ran) = (limited(1), Count::default());
    let (spawner, counts) = (g.spawner(), ran.clone());
    let handle = tokio::runtime::Handle::current();
    g.go_blocking(move |_| {
        for number in 0..20 {
            let permit = handle.block_on(spawner.reserve()).unwrap();
            let ran = counts.clone();
            if number % 2 == 0 {
                permit.go(async move {
                    ran.add();
                    Ok(())
                });
            }
        }
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 10);
}

async fn a_task_of_another_group_lends_nothing() {
    let (g, other) = (limited(1), limited(1));
    let kept = g.reserve().await.unwrap();
    let spawner = g.spawner();
    let waits = other.spawn(async move {
        drop(spawner.reserve().await);
        Ok(1)
    });
    until(|| g.queued() == 1).await;
    yields(10).await;
    assert_eq!(other.running(), 1);
    drop(kept);
    assert_eq!(waits.await.unwrap(), 1);
    assert_eq!((g.wait().await, other.wait().await), (OK, OK));
}

async fn a_panic_gives_the_permit_back() {
    let g = G::new();
    g.set_limit(1);
    let (spawner, ran) = (g.spawner(), Count::default());
    let counts = ran.clone();
    g.go(async move {
        let used = reserve(&spawner).await;
        used.go(async move {
            counts.add();
            Ok(())
        });
        let _kept = reserve(&spawner).await;
        panic!("torn");
    });
    until(|| g.running() == 0).await;
    assert!(g.try_go(async { Ok(()) }).is_ok());
    assert_eq!(text(panic_of(g.wait()).await), "torn");
    assert_eq!(ran.get(), 1);
}

async fn an_abort_in_the_poll_refuses_what_was_started_in_it() {
    let (g, probe) = (std::sync::Arc::new(limited(1)), Probe::default());
    let (aborts, wraps) = (g.clone(), probe.clone());
    g.go(async move {
        let permit = reserve(&aborts.spawner()).await;
        permit.go(wraps.wrap(async { unreachable!("the group was aborted") }));
        aborts.abort();
        drop(aborts);
        pending().await
    });
    let g = until_alone(g).await;
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(errors.iter().count(), 2);
    assert_eq!(probe.polled(), 0);
    probe.assert_all_dropped();
}

async fn the_end_of_the_context_wakes_a_lender() {
    // Long enough that the task has begun, also on a busy machine.
    let ctx = Context::background().with_timeout(Duration::from_secs(1));
    let kept = Log::new();
    let (g, _) = G::with_context(&ctx);
    g.set_limit(1);
    let (spawner, log) = (g.spawner(), kept.clone());
    g.go(async move {
        let permit = reserve(&spawner).await;
        let error = spawner.reserve().await.unwrap_err();
        assert!(error.is_deadline_exceeded());
        log.add("woken");
        drop(permit);
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(kept.get(), ["woken"]);
}

async fn an_awaited_value_of_its_task_arrives() {
    for limit in [1, 4] {
        let g = limited(limit);
        let spawner = g.spawner();
        let sum = g.spawn(async move {
            let mut sum = 0;
            for number in 0..20 {
                let value = reserve(&spawner).await.spawn(async move { Ok(number) });
                sum += value.await.unwrap();
            }
            Ok(sum)
        });
        assert_eq!(sum.await.unwrap(), 190);
        assert_eq!(g.wait().await, OK);
    }
}

/// A task that does random things with reservations, and starts tasks that do the same.
fn random_task(
    g: Spawner<String>,
    mut random: Random,
    depth: usize,
    ran: Count,
    gauge: Gauge,
) -> futures::future::BoxFuture<'static, Result<(), String>> {
    let polls = gauge.clone();
    Box::pin(polled(&polls, async move {
        ran.add();
        if depth == 0 {
            yields(random.below(3)).await;
            return Ok(());
        }
        for _ in 0..3 {
            let child = random_task(
                g.clone(),
                random.fork(),
                depth - 1,
                ran.clone(),
                gauge.clone(),
            );
            match random.below(7) {
                0 => reserve(&g).await.go(child),
                1 => {
                    let permit = reserve(&g).await;
                    yields(random.below(3)).await;
                    permit.go(child);
                    yields(random.below(3)).await;
                }
                2 => {
                    drop(reserve(&g).await);
                    g.go(child).await;
                }
                3 => drop(reserve(&g).await.spawn(child).await),
                4 => {
                    tokio::select! {
                        permit = g.reserve() => permit.unwrap().go(child),
                        () = yields(random.below(3)) => drop(g.go(child)),
                    }
                }
                5 => {
                    Group::<String>::scope(&Context::background(), async |scope, _| {
                        let outer = g.clone();
                        scope.go(async move {
                            reserve(&outer).await.go(child);
                            Ok(())
                        });
                        Ok(())
                    })
                    .await?;
                }
                _ => {
                    g.go(child).await;
                }
            }
        }
        Ok(())
    }))
}

async fn random_programs_finish_within_the_limit() {
    let mut random = Random::new();
    for round in 0..40 {
        let limit = 1 + round % 4;
        let (g, ran, gauge) = (limited(limit), Count::default(), Gauge::default());
        g.go(random_task(
            g.spawner(),
            random.fork(),
            3,
            ran.clone(),
            gauge.clone(),
        ));
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 40);
        assert!(gauge.most() <= limit, "{} at limit {limit}", gauge.most());
    }
}
