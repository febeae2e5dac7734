//! Fan-outs inside fan-outs and inside a bounded group do not deadlock under one shared limit.

use std::future::Future;
use std::pin::Pin;

use errgroup::{Context, Spawner, fan_out, fan_out_stream, fetch_all};
use futures::StreamExt;

use crate::group_support::*;

both_flavours![
    three_nested_fan_outs_each_of_one_permit,
    items_that_await_an_admission_lend_the_permit_of_their_task,
    items_that_await_a_handle_lend_the_permit_of_their_task,
    items_of_a_fan_out_in_a_fan_out_lend_it_too,
    a_tree_of_fan_outs_in_a_group_of_one_permit,
    an_item_that_awaits_two_in_a_row_lends_twice,
    items_on_the_callers_own_task_lend_it_too,
    a_stream_of_items_that_awaits_an_admission_lends_it_too,
    the_stage_behind_another_lends_it_too,
    the_limit_of_the_group_holds_meanwhile,
    a_task_that_runs_beside_its_fan_out_lends_after_its_poll,
    a_fan_out_dropped_while_it_lends_returns_the_permit,
];

const LEVELS: usize = 4;

fn tree(level: usize) -> Pin<Box<dyn Future<Output = Result<usize, String>> + Send>> {
    Box::pin(async move {
        if level == 0 {
            return Ok(1);
        }
        let below = fetch_all(&Context::background(), 1, 0..3, move |_, _| tree(level - 1));
        Ok(below.await?.into_iter().sum())
    })
}

async fn three_nested_fan_outs_each_of_one_permit() {
    assert_eq!(tree(LEVELS).await, Ok(81));
}

async fn items_that_await_an_admission_lend_the_permit_of_their_task() {
    let (g, ran) = (limited(1), Count::default());
    let (siblings, counted) = (g.spawner(), ran.clone());
    g.go_with(|ctx| async move {
        fan_out(&ctx, 0..10, move |_, _| {
            let (siblings, counted) = (siblings.clone(), counted.clone());
            async move {
                let admitted = siblings.go(async move {
                    counted.add();
                    OK
                });
                assert!(admitted.await.is_started());
                OK
            }
        })
        .limit(4)
        .for_each()
        .await
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 10);
}

async fn items_that_await_a_handle_lend_the_permit_of_their_task() {
    let g = limited(1);
    let siblings = g.spawner();
    let sum = g.spawn(async move {
        let values = fetch_all(&Context::background(), 4, 0..10, move |_, item| {
            let handle = siblings.spawn(async move {
                yields(item % 3).await;
                Ok(item)
            });
            async move { handle.await.map_err(String::from) }
        });
        Ok(values.await?.into_iter().sum::<usize>())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(sum.take(), Some(45));
}

async fn items_of_a_fan_out_in_a_fan_out_lend_it_too() {
    let g = limited(1);
    let siblings = g.spawner();
    let sum = g.spawn(async move {
        let rows = fetch_all(&Context::background(), 2, 0..5, move |ctx, _| {
            let siblings = siblings.clone();
            async move {
                let cells = fetch_all(&ctx, 2, 0..5, move |_, _| {
                    let handle = siblings.spawn(async { Ok(1) });
                    async move { handle.await.map_err(String::from) }
                });
                Ok::<_, String>(cells.await?.into_iter().sum::<usize>())
            }
        });
        Ok(rows.await?.into_iter().sum::<usize>())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(sum.take(), Some(25));
}

fn grow(
    g: Spawner<String>,
    level: usize,
) -> Pin<Box<dyn Future<Output = Result<usize, String>> + Send>> {
    Box::pin(async move {
        if level == 0 {
            return Ok(1);
        }
        let below = fetch_all(&Context::background(), 2, 0..3, move |_, _| {
            let handle = g.spawn(grow(g.clone(), level - 1));
            async move { handle.await.map_err(String::from) }
        });
        Ok(below.await?.into_iter().sum())
    })
}

async fn a_tree_of_fan_outs_in_a_group_of_one_permit() {
    for limit in [1, 2, 3] {
        let g = limited(limit);
        let leaves = g.spawn(grow(g.spawner(), LEVELS));
        assert_eq!(g.wait().await, OK);
        assert_eq!(leaves.take(), Some(81));
    }
}

async fn an_item_that_awaits_two_in_a_row_lends_twice() {
    let (g, ran) = (limited(1), Count::default());
    let (siblings, counted) = (g.spawner(), ran.clone());
    g.go(async move {
        fetch_all(&Context::background(), 3, 0..9, move |_, _| {
            let (siblings, counted) = (siblings.clone(), counted.clone());
            async move {
                for _ in 0..3 {
                    let counted = counted.clone();
                    siblings
                        .go(async move {
                            tokio::task::yield_now().await;
                            counted.add();
                            OK
                        })
                        .await;
                }
                OK
            }
        })
        .await
        .map(drop)
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 27);
}

async fn items_on_the_callers_own_task_lend_it_too() {
    let (g, ran) = (limited(1), Count::default());
    let (siblings, counted) = (g.spawner(), ran.clone());
    g.go(async move {
        fan_out(&Context::background(), 0..10, async |_, _| {
            let counted = counted.clone();
            let admitted = siblings.go(async move {
                counted.add();
                OK
            });
            assert!(admitted.await.is_started());
            OK
        })
        .local()
        .for_each()
        .await
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 10);
}

async fn a_stream_of_items_that_awaits_an_admission_lends_it_too() {
    let (g, ran) = (limited(1), Count::default());
    let (siblings, counted) = (g.spawner(), ran.clone());
    g.go(async move {
        let items = futures::stream::iter(0..10).then(move |item| {
            let (siblings, counted) = (siblings.clone(), counted.clone());
            async move {
                for _ in 0..2 {
                    let counted = counted.clone();
                    siblings
                        .go(async move {
                            counted.add();
                            OK
                        })
                        .await;
                }
                item
            }
        });
        fan_out_stream(&Context::background(), items, |_, _| async { OK })
            .limit(2)
            .for_each()
            .await
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 20);
}

async fn the_stage_behind_another_lends_it_too() {
    let g = limited(1);
    let siblings = g.spawner();
    let sum = g.spawn(async move {
        let ctx = Context::background();
        let first = fan_out(&ctx, 0..10, move |_, item| {
            let handle = siblings.spawn(async move { Ok(item) });
            async move { handle.await.map_err(String::from) }
        });
        let first = first.limit(2).ordered_stream();
        let second = fan_out_stream(&ctx, first, |_, item| async { item });
        Ok(second.limit(2).all().await?.into_iter().sum::<usize>())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(sum.take(), Some(45));
}

async fn the_limit_of_the_group_holds_meanwhile() {
    let (g, gauge) = (limited(2), Gauge::default());
    for _ in 0..4 {
        let (siblings, measured) = (g.spawner(), gauge.clone());
        g.go(async move {
            fetch_all(&Context::background(), 4, 0..20, move |_, item| {
                let measured = measured.clone();
                let handle = siblings.spawn(async move {
                    let _alive = measured.enter();
                    yields(item % 3).await;
                    Ok(())
                });
                async move { handle.await.map_err(String::from) }
            })
            .await
            .map(drop)
        });
    }
    assert_eq!(g.wait().await, OK);
    assert!(gauge.most() <= 2, "{}", gauge.most());
}

async fn a_task_that_runs_beside_its_fan_out_lends_after_its_poll() {
    let g = limited(1);
    let siblings = g.spawner();
    g.go(async move {
        let asked = fetch_all(&Context::background(), 1, 0..20, move |_, _| {
            let handle = siblings.spawn(async { Ok(()) });
            async move { handle.await.map_err(String::from) }
        });
        let (asked, ()) = futures::join!(asked, yields(100));
        asked.map(drop)
    });
    assert_eq!(g.wait().await, OK);
}

async fn a_fan_out_dropped_while_it_lends_returns_the_permit() {
    let (g, gate) = (limited(1), Gate::new());
    let (siblings, gated) = (g.spawner(), gate.clone());
    let inside = Count::default();
    let entered = inside.clone();
    let first = g.spawn(async move {
        let asked = fan_out(&Context::background(), 0..3, move |_, _| {
            let (gated, entered) = (gated.clone(), entered.clone());
            let handle = siblings.spawn(async move {
                entered.add();
                gated.pass().await;
                Ok(())
            });
            async move { handle.await.map_err(String::from) }
        });
        let asked = asked.for_each();
        futures::pin_mut!(asked);
        let mut polls = 0;
        std::future::poll_fn(|cx| {
            // Dropped in the second poll, which happens when the first sibling runs.
            polls += 1;
            let _ = asked.as_mut().poll(cx);
            match polls {
                1 => std::task::Poll::Pending,
                _ => std::task::Poll::Ready(()),
            }
        })
        .await;
        Ok(())
    });
    until(|| inside.get() == 1).await;
    assert_eq!(g.running(), 1);
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(first.take(), Some(()));
}
