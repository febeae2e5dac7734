//! Programs that wait for their own group in unusual ways: none hangs, and none exceeds the limit.

use std::future::Future;
use std::pin::Pin;

use errgroup::{Context, Spawner, TaskHandle, fan_out, fetch_all};
use futures::future::{join_all, select_all};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};

use crate::fan_out_support::background;
use crate::group_support::*;
use crate::support::ms;

both_flavours![
    a_timeout_around_a_list_of_handles,
    a_handle_polled_without_being_awaited,
    a_select_around_many_handles,
    a_shared_handle_with_an_owner_outside,
    a_forgotten_admission_handle_and_start,
    tasks_that_poll_once_and_then_wait_for_something_else,
    scopes_whose_tasks_spawn_in_the_outer_group,
    scopes_in_scopes_and_fan_outs,
    a_blocking_closure_that_waits_for_a_sibling,
    a_blocking_closure_that_gives_up,
    a_stream_that_was_polled_outside,
    an_item_that_is_always_woken_beside_one_that_is_decided,
    many_awaited_handles_each_in_its_own_list,
    a_consumer_of_a_task_that_never_waits_for_it,
];

const LIMITS: [usize; 2] = [1, 4];
const TASKS: [usize; 2] = [4, 64];

async fn yields_a_few() -> Result<usize, String> {
    yields(3).await;
    Ok(1)
}

/// Each of these tasks waits in an unusual way first, and then in an ordinary one.
async fn each_task_first<F, Fut>(first: F)
where
    F: Fn(Spawner<String>) -> Fut + Send + Sync + Clone + 'static,
    Fut: Future<Output = ()> + Send,
{
    for limit in LIMITS {
        for tasks in TASKS {
            let g = limited(limit);
            let (ended, gauge) = (Count::default(), Gauge::default());
            for _ in 0..tasks {
                let (s, first, ended) = (g.spawner(), first.clone(), ended.clone());
                let gauge = gauge.clone();
                g.go(async move {
                    first(s.clone()).await;
                    assert!(s.go(async { OK }).await.is_started());
                    let _running = gauge.enter();
                    yields(2).await;
                    ended.add();
                    OK
                });
            }
            assert_eq!(in_time(g.wait()).await, OK);
            assert_eq!(ended.get(), tasks, "limit {limit}");
            assert!(gauge.most() <= limit, "{} at limit {limit}", gauge.most());
        }
    }
}

async fn a_timeout_around_a_list_of_handles() {
    each_task_first(|s| async move {
        let (mut a, mut b) = (s.spawn(yields_a_few()), s.spawn(yields_a_few()));
        let mut list: FuturesUnordered<_> = [&mut a, &mut b].into_iter().collect();
        let _ = timeout(ms(10), list.next()).await;
        drop(list);
        std::mem::forget((a, b));
    })
    .await;
}

async fn a_handle_polled_without_being_awaited() {
    each_task_first(|s| async move {
        let mut handle = s.spawn(yields_a_few());
        let _ = (&mut handle).now_or_never();
        s.go(async { OK }).await;
        let _ = (&mut handle).now_or_never();
    })
    .await;
}

async fn a_select_around_many_handles() {
    each_task_first(|s| async move {
        let mut handles: Vec<_> = (0..40).map(|_| s.spawn(yields_a_few())).collect();
        tokio::select! {
            _ = join_all(handles.iter_mut()) => {}
            () = yields(2) => {}
        }
        tokio::select! {
            _ = select_all(handles.iter_mut()) => {}
            () = sleep(ms(1)) => {}
        }
    })
    .await;
}

async fn a_shared_handle_with_an_owner_outside() {
    for limit in LIMITS {
        let g = limited(limit);
        let mut outside = Vec::new();
        for _ in 0..16 {
            let s = g.spawner();
            let (sender, receiver) = tokio::sync::oneshot::channel();
            outside.push(receiver);
            g.go(async move {
                let shared = s.spawn(yields_a_few()).shared();
                let _ = sender.send(shared.clone());
                let _ = timeout(ms(1), shared).await;
                assert!(s.go(async { OK }).await.is_started());
                OK
            });
        }
        let outside = async {
            for receiver in outside {
                assert_eq!(receiver.await.unwrap().await.unwrap(), 1);
            }
        };
        let (ended, ()) = futures::join!(in_time(g.wait()), in_time(outside));
        assert_eq!(ended, OK);
    }
}

async fn a_forgotten_admission_handle_and_start() {
    each_task_first(|s| async move {
        let mut admission = s.go(async { OK });
        let mut handle = s.spawn(yields_a_few());
        let mut start = Box::pin(s.start(|_, ready| async move {
            ready.ok(1);
            OK
        }));
        let _ = timeout(ms(1), &mut admission).await;
        let _ = timeout(ms(1), &mut handle).await;
        let _ = timeout(ms(1), &mut start).await;
        std::mem::forget((admission, handle, start));
    })
    .await;
}

#[derive(Clone, Copy)]
enum Look {
    NowOrNever,
    Select,
    Timeout,
}

async fn tasks_that_poll_once_and_then_wait_for_something_else() {
    for look in [Look::NowOrNever, Look::Select, Look::Timeout] {
        let g = limited(1);
        let gauge = Gauge::default();
        for _ in 0..50 {
            let (s, gauge) = (g.spawner(), gauge.clone());
            g.go(async move {
                let mut handle = s.spawn(yields_a_few());
                match look {
                    Look::NowOrNever => drop((&mut handle).now_or_never()),
                    Look::Select => tokio::select! {
                        biased;
                        _ = &mut handle => {}
                        () = std::future::ready(()) => {}
                    },
                    Look::Timeout => drop(timeout(ms(20), &mut handle).await),
                }
                // On a busy machine, the time may be over in the poll in which it began. Such a
                // task lends its permit until its next poll.
                yields(1).await;
                let waits = gauge.enter();
                sleep(ms(2)).await;
                drop(waits);
                // The look may have seen the value.
                let _ = handle.await;
                OK
            });
        }
        assert_eq!(in_time(g.wait()).await, OK);
        assert_eq!(gauge.most(), 1);
    }
}

async fn scopes_whose_tasks_spawn_in_the_outer_group() {
    for limit in LIMITS {
        let (g, asked) = (limited(limit), Count::default());
        for _ in 0..100 {
            let (s, asked) = (g.spawner(), asked.clone());
            g.go_with(move |ctx| async move {
                G::scope(&ctx, async |inner, _| {
                    for _ in 0..10 {
                        let (s, asked) = (s.clone(), asked.clone());
                        inner.go(async move {
                            s.spawn(yields_a_few()).await?;
                            asked.add();
                            OK
                        });
                    }
                    OK
                })
                .await
            });
        }
        assert_eq!(in_time(g.wait()).await, OK);
        assert_eq!(asked.get(), 1_000);
    }
}

type Boxed = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Alternates scopes and fan-outs. All leaves spawn in the outermost group and await the task.
fn nested(s: Spawner<String>, depth: usize, asked: Count) -> Boxed {
    Box::pin(async move {
        match depth {
            0 => {
                s.spawn(yields_a_few()).await?;
                assert!(s.go(async { OK }).await.is_started());
                asked.add();
                OK
            }
            depth if depth % 2 == 0 => {
                let below = move |_: Context, _| nested(s.clone(), depth - 1, asked.clone());
                fan_out(&background(), 0..3, below)
                    .limit(2)
                    .for_each()
                    .await
            }
            depth => {
                G::scope(&background(), async |inner, _| {
                    inner.set_limit(2);
                    for _ in 0..3 {
                        inner.go(nested(s.clone(), depth - 1, asked.clone()));
                    }
                    OK
                })
                .await
            }
        }
    })
}

async fn scopes_in_scopes_and_fan_outs() {
    for limit in LIMITS {
        for depth in 1..=4 {
            let (g, asked) = (limited(limit), Count::default());
            for _ in 0..4 {
                g.go(nested(g.spawner(), depth, asked.clone()));
            }
            assert_eq!(in_time(g.wait()).await, OK);
            assert_eq!(asked.get(), 4 * 3_usize.pow(depth as u32));
        }
    }
}

async fn a_blocking_closure_that_waits_for_a_sibling() {
    for limit in LIMITS {
        for tasks in [1, 4, 16] {
            let (g, sum) = (limited(limit), Count::default());
            for _ in 0..tasks {
                let (s, sum) = (g.spawner(), sum.clone());
                g.go_blocking(move |_| {
                    let here = Handle::current();
                    let asks = async {
                        let (a, b) = (s.spawn(yields_a_few()), s.spawn(yields_a_few()));
                        futures::join!(a, b)
                    };
                    if matches!(here.block_on(asks), (Ok(1), Ok(1))) {
                        sum.add();
                    }
                    here.block_on(s.go(async { OK }));
                    OK
                });
            }
            assert_eq!(in_time(g.wait()).await, OK);
            assert_eq!(sum.get(), tasks);
        }
    }
}

async fn a_blocking_closure_that_gives_up() {
    let g = limited(1);
    let (s, running) = (g.spawner(), Count::default());
    let (entered, [gate, late]) = (running.clone(), [Gate::new(), Gate::new()]);
    let (gated, too_late) = (gate.clone(), late.clone());
    let (gives_up, gave_up) = std::sync::mpsc::channel();
    g.go_blocking(move |_| {
        let handle = s.spawn(async move {
            entered.add();
            gated.pass().await;
            Ok(1)
        });
        let gave_up = Handle::current().block_on(async {
            tokio::select! {
                _ = handle => false,
                () = too_late.pass() => true,
            }
        });
        gives_up.send(gave_up).unwrap();
        OK
    });
    until(|| running.get() == 1).await;
    late.open();
    until(|| gave_up.try_recv() == Ok(true)).await;
    until(|| g.running() == 1).await;
    gate.open();
    assert_eq!(in_time(g.wait()).await, OK);
    assert_eq!(running.get(), 1);
}

async fn a_stream_that_was_polled_outside() {
    let g = limited(1);
    let (s, gate) = (g.spawner(), Gate::new());
    let gated = gate.clone();
    let asks = move |_: Context, _| {
        let (s, gate) = (s.clone(), gated.clone());
        async move {
            gate.pass().await;
            s.spawn(yields_a_few()).await.map_err(String::from)
        }
    };
    let mut stream = fan_out(&background(), 0..8, asks).limit(2).stream();
    assert!(futures::poll!(stream.next()).is_pending());
    yields(10).await;
    let came = Count::default();
    let counted = came.clone();
    g.go(async move {
        while let Some(value) = stream.next().await {
            value?;
            counted.add();
        }
        OK
    });
    until(|| g.running() == 1).await;
    yields(10).await;
    // The items await an admission only now, when the task that awaits them has the only permit.
    gate.open();
    assert_eq!(in_time(g.wait()).await, OK);
    assert_eq!(came.get(), 8);
}

async fn an_item_that_is_always_woken_beside_one_that_is_decided() {
    // One permit for the sibling that ends last, and one for all others.
    let g = limited(2);
    let s = g.spawner();
    let (ended, gate) = (Count::default(), Gate::new());
    let (counted, gated) = (ended.clone(), gate.clone());
    g.go(async move {
        fetch_all(&background(), 4, 0..2, move |_, item| {
            let (s, counted, gated) = (s.clone(), counted.clone(), gated.clone());
            async move {
                let gate = gated.clone();
                let mut handle = s.spawn(async move {
                    if item == 0 {
                        gate.pass().await;
                    }
                    Ok(())
                });
                if item == 0 {
                    loop {
                        tokio::select! {
                            _ = &mut handle => break,
                            () = tokio::task::yield_now() => {}
                        }
                    }
                } else {
                    let _ = handle.await;
                    gated.open();
                }
                counted.add();
                OK
            }
        })
        .await
        .map(drop)
    });
    assert_eq!(in_time(g.wait()).await, OK);
    assert_eq!(ended.get(), 2);
}

async fn many_awaited_handles_each_in_its_own_list() {
    let g = limited(1);
    let s = g.spawner();
    g.go(async move {
        let mut kept: Option<TaskHandle<usize>> = None;
        for _ in 0..5_000 {
            let mut handle = s.spawn(yields_a_few());
            let mut list: FuturesUnordered<_> = [&mut handle].into_iter().collect();
            assert_eq!(list.next().await.unwrap().unwrap(), 1);
            drop(list);
            kept = Some(handle);
        }
        drop(kept);
        OK
    });
    assert_eq!(in_time(g.wait()).await, OK);
}

/// The task waits for a sibling in one branch and feeds it in another. With two permits, both make
/// progress.
async fn a_consumer_of_a_task_that_never_waits_for_it() {
    let g = limited(2);
    let s = g.spawner();
    g.go(async move {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let sum = s.spawn(async move {
            let mut sum = 0;
            while let Some(item) = receiver.recv().await {
                sum += item;
            }
            Ok(sum)
        });
        let feeds = async move {
            for item in 0..100 {
                sender.send(item).await.unwrap();
            }
        };
        let (sum, ()) = futures::join!(sum, feeds);
        assert_eq!(sum.unwrap(), 4950);
        OK
    });
    assert_eq!(in_time(g.wait()).await, OK);
}
