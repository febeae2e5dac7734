//! Starting siblings from inside a task, and from a spawner that outlives its group.

use errgroup::{Spawner, TryGoError};

use crate::group_support::*;

both_flavours![
    a_task_starts_siblings_that_wait_waits_for,
    go_inside_a_task_while_wait_waits,
    go_with_passes_the_context_of_the_group,
    a_spawner_refuses_once_wait_has_ended,
    a_spawner_refuses_once_the_group_was_dropped,
    a_spawner_does_not_keep_the_group_alive,
    what_a_spawner_refuses_is_dropped_and_its_panic_discarded,
    a_spawner_may_be_moved_to_another_thread,
];

async fn a_task_starts_siblings_that_wait_waits_for() {
    let (g, _ctx) = group();
    let (spawner, ended) = (g.spawner(), Count::default());
    let counted = ended.clone();
    g.go(async move {
        for _ in 0..100 {
            let counted = counted.clone();
            spawner.go(async move {
                yields(10).await;
                counted.add();
                Ok(())
            });
        }
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), 100);
}

async fn go_inside_a_task_while_wait_waits() {
    fn chain(spawner: Spawner<String>, left: usize, ended: Count) {
        let next = spawner.clone();
        spawner.go(async move {
            tokio::task::yield_now().await;
            ended.add();
            if left > 0 {
                chain(next, left - 1, ended);
            }
            Ok(())
        });
    }

    let (g, ended) = (limited(2), Count::default());
    chain(g.spawner(), 999, ended.clone());
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), 1_000);
}

async fn go_with_passes_the_context_of_the_group() {
    let (g, ctx) = group();
    let spawner = g.spawner();
    for by_spawner in [false, true] {
        let task = |ctx: errgroup::Context| async move {
            let end = ctx.done().await;
            assert_eq!(end.cause().unwrap().to_string(), "enough");
            Ok(())
        };
        match by_spawner {
            true => spawner.go_with(task),
            false => g.go_with(task),
        };
    }
    assert!(!ctx.is_done());
    g.cancel_with("enough");
    assert_eq!(g.wait().await, OK);
}

async fn assert_refuses(spawner: &Spawner<String>) {
    let probe = Probe::default();
    assert!(!spawner.go(probe.wrap(async { Ok(()) })).await.is_started());
    let with = probe.wrap(async { Ok(()) });
    assert!(!spawner.go_with(|_| with).await.is_started());
    match spawner.try_go(probe.wrap(async { Ok(()) })) {
        Err(TryGoError::Ended(back)) => drop(back),
        other => panic!("{other:?}"),
    }
    assert_eq!(probe.polled(), 0);
    probe.assert_all_dropped();
}

async fn a_spawner_refuses_once_wait_has_ended() {
    let (g, _ctx) = group();
    let spawner = g.spawner();
    assert_eq!(g.wait().await, OK);
    assert_refuses(&spawner).await;
}

async fn a_spawner_refuses_once_the_group_was_dropped() {
    let (g, _ctx) = group();
    let spawner = g.spawner();
    g.go(std::future::pending());
    drop(g);
    assert_refuses(&spawner).await;
}

async fn a_spawner_does_not_keep_the_group_alive() {
    let (g, _ctx) = group();
    let (spawner, probe) = (g.spawner(), Probe::default());
    g.go(probe.wrap(std::future::pending()));
    drop(g);
    until(|| probe.dropped() == 1).await;
    assert_refuses(&spawner).await;
    until(|| format!("{spawner:?}").contains("gone: true")).await;
}

async fn what_a_spawner_refuses_is_dropped_and_its_panic_discarded() {
    let (g, _ctx) = group();
    let spawner = g.spawner();
    assert_eq!(g.wait().await, OK);
    let bomb = OnDrop(|| panic!("a destructor"));
    let admission = spawner.go(async move {
        drop(bomb);
        Ok(())
    });
    assert!(!admission.await.is_started());
}

async fn a_spawner_may_be_moved_to_another_thread() {
    let (g, gate) = (limited(2), Gate::new());
    let gated = gate.clone();
    g.go(async move {
        gated.pass().await;
        Ok(())
    });
    let (spawner, ended) = (g.spawner(), Count::default());
    let counted = ended.clone();
    std::thread::spawn(move || {
        for _ in 0..100 {
            let counted = counted.clone();
            spawner.go(async move {
                counted.add();
                Ok(())
            });
        }
    })
    .join()
    .unwrap();
    gate.open();
    assert_eq!(g.wait().await, OK);
    assert_eq!(ended.get(), 100);
}
