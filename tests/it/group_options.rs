//! The options of a task: background, essential, non-fatal and clean-up tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use errgroup::{Context, ContextError, Group, TaskErrorKind, TryGoError};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use crate::group_support::*;
use crate::support::{HOUR, OnDrop, ms, state};

both_flavours![
    a_background_task_takes_no_permit,
    a_wait_ends_background_tasks_when_all_others_have_ended,
    a_wait_waits_until_background_tasks_have_ended,
    a_background_task_is_not_ended_before_the_group_is_waited_for,
    what_a_background_task_returns_at_the_end_is_no_failure,
    what_a_background_task_returns_before_the_end_is_a_failure,
    a_background_task_that_panics_at_the_end_is_a_failure,
    background_tasks_alone_end_at_once,
    a_task_that_a_background_task_starts_is_waited_for,
    a_background_task_may_await_a_sibling_at_limit_1,
    every_way_to_start_a_background_task_takes_no_permit,
    a_background_task_is_aborted_after_the_grace_period,
    a_background_task_is_refused_after_the_end,
    an_essential_task_that_returns_ok_ends_the_context,
    an_essential_task_that_fails_gives_its_own_cause,
    an_essential_task_ends_the_context_of_a_plain_group,
    an_essential_task_that_panics_ends_a_plain_group,
    a_task_queued_behind_an_essential_one_never_starts,
    an_essential_task_without_a_name_is_called_by_its_site,
    an_essential_task_that_its_handle_stops_ends_the_group,
    a_non_fatal_failure_is_reported_and_cancels_nothing,
    a_non_fatal_task_that_panics_cancels_the_others,
    options_are_not_inherited,
    a_clean_up_task_runs_after_the_end_of_the_context,
    a_clean_up_task_has_a_context_of_its_own,
    a_clean_up_task_is_aborted_when_its_time_is_over,
    every_way_to_start_a_clean_up_task_works_after_the_end,
    a_wait_waits_for_a_clean_up_task,
    a_destructor_may_start_a_clean_up_task,
    a_grace_period_does_not_cut_a_clean_up_task_short,
    a_clean_up_task_may_start_after_the_grace_period,
    an_abort_drops_a_clean_up_task,
    an_abort_after_a_grace_period_drops_a_clean_up_task,
    dropping_the_group_drops_a_clean_up_task,
    a_clean_up_task_is_refused_after_the_wait,
    a_clean_up_task_is_refused_after_an_abort_and_a_wait,
    a_clean_up_task_is_refused_after_an_abort,
    a_clean_up_task_that_fails_is_reported,
    a_clean_up_closure_begins_after_the_end,
    a_local_clean_up_task_survives_the_grace_period,
    a_tracked_future_has_the_options_of_its_builder,
];

/// Waits for the end of its context.
async fn obeys(ctx: Context) -> Result<(), String> {
    ctx.done().await;
    Ok(())
}

async fn a_background_task_takes_no_permit() {
    let g = limited(1);
    let beats = g.task().background().go_with(obeys);
    assert!(beats.await.is_started());
    assert_eq!((g.running(), g.queued()), (0, 0));
    assert!(g.go(async { OK }).await.is_started());
    assert_eq!(g.wait().await, OK);
}

async fn a_wait_ends_background_tasks_when_all_others_have_ended() {
    let (g, ctx) = group();
    let seen = ctx.clone();
    g.task().background().go(async move {
        seen.done().await;
        assert_eq!(state(&seen), "context cancelled: all tasks have finished");
        OK
    });
    let (gate, gated) = (Gate::new(), ctx.clone());
    let passed = gate.clone();
    g.go(async move {
        passed.pass().await;
        // Not before this task has ended.
        assert!(!gated.is_done());
        OK
    });
    let wait = tokio::spawn(g.wait());
    yields(10).await;
    assert!(!ctx.is_done());
    gate.open();
    assert_eq!(wait.await.unwrap(), OK);
}

async fn a_wait_waits_until_background_tasks_have_ended() {
    let (g, _ctx) = group();
    let (gate, count) = (Gate::new(), Count::default());
    let (gated, ended) = (gate.clone(), count.clone());
    g.task().background().go_with(|ctx| async move {
        ctx.done().await;
        gated.pass().await;
        ended.add();
        OK
    });
    let wait = tokio::spawn(g.wait());
    yields(20).await;
    assert!(!wait.is_finished());
    gate.open();
    assert_eq!(wait.await.unwrap(), OK);
    assert_eq!(count.get(), 1);
}

async fn a_background_task_is_not_ended_before_the_group_is_waited_for() {
    let (g, ctx) = group();
    g.task().background().go_with(obeys);
    assert!(g.go(async { OK }).await.is_started());
    yields(20).await;
    assert!(!ctx.is_done());
    assert_eq!(g.wait().await, OK);
}

async fn what_a_background_task_returns_at_the_end_is_no_failure() {
    let (g, _ctx) = group();
    g.task().background().go_with(|ctx| async move {
        ctx.done().await;
        Err("it lost its connection".to_owned())
    });
    // Dropped at its await.
    g.task().background().go_cancellable(std::future::pending());
    g.go(async { OK });
    assert!(g.wait_all().await.is_ok());
}

async fn what_a_background_task_returns_before_the_end_is_a_failure() {
    let (g, ctx) = group();
    g.task()
        .background()
        .go(async { Err("lease lost".to_owned()) });
    g.go(obeys(ctx));
    assert_eq!(g.wait().await, Err("lease lost".to_owned()));
}

async fn a_background_task_that_panics_at_the_end_is_a_failure() {
    let (g, _ctx) = group();
    g.task().background().go_with(|ctx| async move {
        ctx.done().await;
        panic!("at the end")
    });
    assert_eq!(text(panic_of(g.wait()).await), "at the end");
}

async fn background_tasks_alone_end_at_once() {
    let (g, _ctx) = group();
    for _ in 0..20 {
        g.task().background().go_with(obeys);
    }
    assert_eq!(g.wait().await, OK);
}

async fn a_task_that_a_background_task_starts_is_waited_for() {
    let (g, _ctx) = group();
    let (spawner, gate, count) = (g.spawner(), Gate::new(), Count::default());
    let (gated, ended, opens) = (gate.clone(), count.clone(), gate.clone());
    g.task().background().go_with(|ctx| async move {
        spawner.go(async move {
            gated.pass().await;
            ended.add();
            OK
        });
        opens.open();
        ctx.done().await;
        OK
    });
    // Keeps the group busy until the background task has run.
    g.go(async move {
        gate.pass().await;
        OK
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(count.get(), 1);
}

async fn a_background_task_may_await_a_sibling_at_limit_1() {
    let g = limited(1);
    let spawner = g.spawner();
    let sum = g.task().background().spawn(async move {
        let mut sum = 0;
        for number in 0..5 {
            sum += spawner.spawn(async move { Ok(number) }).await?;
            spawner.go(async { OK }).await;
        }
        Ok(sum)
    });
    assert_eq!(sum.await.unwrap(), 10);
    assert_eq!(g.wait().await, OK);
}

async fn every_way_to_start_a_background_task_takes_no_permit() {
    let local = LocalSet::new();
    let all = async {
        let g = limited(1);
        let gate = Gate::new();
        let gated = gate.clone();
        // The only permit is taken.
        g.go(async move {
            gated.pass().await;
            OK
        });
        let builder = || g.task().background();
        let done = |ctx: Context| async move {
            ctx.done().await;
            OK
        };
        let ctx = g.context();
        assert!(builder().go(done(ctx.clone())).await.is_started());
        assert!(builder().go_with(done).await.is_started());
        assert!(
            builder()
                .go_cancellable(std::future::pending())
                .await
                .is_started()
        );
        assert!(builder().try_go(done(ctx.clone())).is_ok());
        let blocks = |ctx: Context| {
            tokio::runtime::Handle::current().block_on(ctx.done());
            OK
        };
        assert!(builder().go_blocking(blocks).await.is_started());
        assert!(builder().go_local(done(ctx.clone())).await.is_started());
        assert_eq!(builder().spawn(async { Ok(1) }).await.unwrap(), 1);
        assert_eq!(builder().spawn_with(|_| async { Ok(2) }).await.unwrap(), 2);
        assert_eq!(builder().spawn_blocking(|_| Ok(3)).await.unwrap(), 3);
        let ready = builder().start(|_, ready| async move {
            ready.ok(4);
            ctx.done().await;
            OK
        });
        assert_eq!(ready.await.unwrap(), 4);
        assert_eq!((g.running(), g.queued()), (1, 0));
        gate.open();
        assert_eq!(g.wait().await, OK);
    };
    local.run_until(all).await;
}

async fn a_background_task_is_aborted_after_the_grace_period() {
    let (g, _ctx) = group();
    g.set_grace(ms(20));
    let dropped = Count::default();
    g.task().background().go(deaf(&dropped));
    yields(5).await;
    assert_eq!(g.wait().await, OK);
    assert_eq!(dropped.get(), 1);
}

async fn a_background_task_is_refused_after_the_end() {
    let (g, _ctx) = group();
    g.cancel();
    let refused = g.task().background().try_go(async { OK });
    assert!(matches!(refused, Err(TryGoError::Ended(_))));
    assert!(!g.task().background().go(async { OK }).await.is_started());
    assert_eq!(g.wait().await, Err("context cancelled".to_owned()));
}

async fn an_essential_task_that_returns_ok_ends_the_context() {
    let (g, ctx) = group();
    // It is started first: after the end it would be refused.
    g.go(obeys(ctx.clone()));
    g.named("listener").essential().go(async { OK });
    assert_eq!(g.wait().await, OK);
    let cause = "context cancelled: essential task listener has ended";
    assert_eq!(state(&ctx), cause);
}

async fn an_essential_task_that_fails_gives_its_own_cause() {
    let (g, ctx) = group();
    g.named("listener")
        .essential()
        .go(async { Err("port taken".to_owned()) });
    g.go(obeys(ctx.clone()));
    assert_eq!(g.wait().await, Err("port taken".to_owned()));
    assert_eq!(state(&ctx), "context cancelled: port taken");
}

async fn an_essential_task_ends_the_context_of_a_plain_group() {
    for result in [OK, Err("port taken".to_owned())] {
        let g = G::new();
        let ctx = g.context();
        let expected = result.clone();
        g.go(obeys(ctx.clone()));
        g.named("listener").essential().go(async { result });
        assert_eq!(g.wait().await, expected);
        let text = match expected {
            Ok(()) => "context cancelled: essential task listener has ended",
            Err(_) => "context cancelled: port taken",
        };
        assert_eq!(state(&ctx), text);
    }
}

async fn an_essential_task_that_panics_ends_a_plain_group() {
    let g = G::new();
    let ctx = g.context();
    g.named("listener").essential().go(async { panic!("boom") });
    g.go(obeys(ctx.clone()));
    assert_eq!(text(panic_of(g.wait()).await), "boom");
    assert!(state(&ctx).ends_with("panicked: boom"), "{}", state(&ctx));
}

async fn a_task_queued_behind_an_essential_one_never_starts() {
    for _ in 0..50 {
        let g = limited(1);
        let count = Count::default();
        g.named("first").essential().go(async { OK });
        for _ in 0..10 {
            let count = count.clone();
            g.go(async move {
                count.add();
                OK
            });
        }
        let error = g.wait_all().await.unwrap_err();
        assert_eq!((error.len(), count.get()), (10, 0));
    }
}

async fn an_essential_task_without_a_name_is_called_by_its_site() {
    let (g, ctx) = group();
    g.task().essential().go(async { OK });
    let line = line!() - 1;
    assert_eq!(g.wait().await, OK);
    let text = state(&ctx);
    let site = format!("{}:{line}:", file!());
    assert!(
        text.contains(&site) && text.ends_with("has ended"),
        "{text}"
    );
}

async fn an_essential_task_that_its_handle_stops_ends_the_group() {
    let (g, ctx) = group();
    let gate = Gate::new();
    let gated = gate.clone();
    let handle = g.named("listener").essential().spawn(async move {
        gated.pass().await;
        Ok(())
    });
    yields(5).await;
    handle.abort();
    assert!(handle.await.is_err());
    assert_eq!(g.wait().await, OK);
    let cause = "context cancelled: essential task listener has ended";
    assert_eq!(state(&ctx), cause);
}

async fn a_non_fatal_failure_is_reported_and_cancels_nothing() {
    let (g, ctx) = group();
    let admitted = g
        .named("metrics")
        .non_fatal()
        .go(async { Err("refused".to_owned()) });
    assert!(admitted.await.is_started());
    let seen = ctx.clone();
    let other = g.spawn(async move {
        yields(20).await;
        Ok(seen.is_done())
    });
    assert!(!other.await.unwrap());
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(errors.iter().next().unwrap().name(), Some("metrics"));
    assert_eq!(errors.causes().count(), 1);
}

async fn a_non_fatal_task_that_panics_cancels_the_others() {
    let (g, ctx) = group();
    g.task().non_fatal().go(async { panic!("boom") });
    g.go(obeys(ctx));
    assert_eq!(text(panic_of(g.wait()).await), "boom");
}

async fn options_are_not_inherited() {
    let (g, ctx) = group();
    let spawner = g.spawner();
    g.task().non_fatal().essential().go(async move {
        spawner.go(async { OK }).await;
        spawner.spawn(async { Ok(()) }).await?;
        assert!(!ctx.is_done());
        OK
    });
    assert_eq!(g.wait().await, OK);
}

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

async fn a_clean_up_task_runs_after_the_end_of_the_context() {
    let (g, ctx) = group();
    let (spawner, count) = (g.spawner(), Count::default());
    let cleaned = count.clone();
    g.go(async move {
        ctx.done().await;
        let clean = spawner.task().cleanup(SECOND).go(async move {
            yields(10).await;
            cleaned.add();
            OK
        });
        assert!(clean.await.is_started());
        OK
    });
    g.go(async { Err("boom".to_owned()) });
    assert_eq!(g.wait().await, Err("boom".to_owned()));
    assert_eq!(count.get(), 1);
}

async fn a_clean_up_task_has_a_context_of_its_own() {
    #[derive(Debug)]
    struct Trace(u32);
    let parent = Context::background().with_value(Trace(7));
    let (g, ctx) = G::with_context(&parent);
    g.cancel_with("over");
    assert!(ctx.is_done());
    let found = g.task().cleanup(HOUR).spawn_with(|ctx| async move {
        let remaining = ctx.remaining().unwrap();
        assert!(!ctx.is_done() && remaining <= HOUR && remaining > HOUR / 2);
        Ok(ctx.value::<Trace>().unwrap().0)
    });
    assert_eq!(found.await.unwrap(), 7);
    assert_eq!(g.wait().await, OK);
}

async fn a_clean_up_task_is_aborted_when_its_time_is_over() {
    let (g, _ctx) = group();
    let dropped = Count::default();
    g.cancel();
    g.named("undo").cleanup(ms(20)).go(deaf(&dropped));
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!((errors.len(), dropped.get()), (1, 1));
    let error = errors.into_iter().next().unwrap();
    assert_eq!(error.name(), Some("undo"));
    let TaskErrorKind::Aborted(reason) = error.into_kind() else {
        panic!("it was aborted");
    };
    assert!(reason.is_deadline_exceeded());
}

async fn every_way_to_start_a_clean_up_task_works_after_the_end() {
    let local = LocalSet::new();
    let all = async {
        let g = limited(0);
        g.cancel();
        let live = |ctx: Context| async move {
            assert!(!ctx.is_done());
            yields(3).await;
            OK
        };
        let builder = || g.task().cleanup(HOUR);
        assert!(builder().go(async { OK }).await.is_started());
        assert!(builder().go_with(live).await.is_started());
        assert!(builder().go_cancellable(async { OK }).await.is_started());
        assert!(builder().try_go(async { OK }).is_ok());
        let blocks = |ctx: Context| {
            assert!(!ctx.is_done());
            OK
        };
        assert!(builder().go_blocking(blocks).await.is_started());
        assert!(builder().go_local(async { OK }).await.is_started());
        assert_eq!(builder().spawn(async { Ok(1) }).await.unwrap(), 1);
        let own = |ctx: Context| async move { Ok(ctx.is_done()) };
        assert!(!builder().spawn_with(own).await.unwrap());
        let own = |ctx: Context| Ok(ctx.is_done());
        assert!(!builder().spawn_blocking(own).await.unwrap());
        let ready = builder().start(|_, ready| async move {
            ready.ok(4);
            OK
        });
        assert_eq!(ready.await.unwrap(), 4);
        assert_eq!((g.running(), g.queued()), (0, 0));
        assert_eq!(g.wait().await, OK);
    };
    local.run_until(all).await;
}

async fn a_wait_waits_for_a_clean_up_task() {
    let (g, _ctx) = group();
    let (gate, gated) = (Gate::new(), Count::default());
    let (passed, ended) = (gate.clone(), gated.clone());
    g.cancel();
    g.task().cleanup(HOUR).go(async move {
        passed.pass().await;
        ended.add();
        OK
    });
    let wait = tokio::spawn(g.wait());
    yields(20).await;
    assert!(!wait.is_finished());
    gate.open();
    assert_eq!(wait.await.unwrap(), OK);
    assert_eq!(gated.get(), 1);
}

/// Starts a clean-up task when it is dropped.
fn cleans_on_drop(g: &G, count: &Count) -> OnDrop<impl FnMut() + Send + use<>> {
    let (spawner, count) = (g.spawner(), count.clone());
    OnDrop(move || {
        let count = count.clone();
        spawner.task().cleanup(SECOND).go(async move {
            yields(5).await;
            count.add();
            OK
        });
    })
}

async fn a_destructor_may_start_a_clean_up_task() {
    let (g, _ctx) = group();
    let count = Count::default();
    let guard = cleans_on_drop(&g, &count);
    g.go_cancellable(async move {
        let _guard = guard;
        std::future::pending().await
    });
    yields(5).await;
    g.cancel();
    assert_eq!(g.wait().await, Err("context cancelled".to_owned()));
    assert_eq!(count.get(), 1);
}

async fn a_grace_period_does_not_cut_a_clean_up_task_short() {
    let (g, _ctx) = group();
    g.set_grace(ms(10));
    let count = Count::default();
    let cleaned = count.clone();
    g.go(std::future::pending());
    let began = Instant::now();
    g.task().cleanup(HOUR).go(async move {
        sleep(ms(60)).await;
        cleaned.add();
        OK
    });
    yields(5).await;
    g.cancel();
    assert_eq!(g.wait().await, Err("context cancelled".to_owned()));
    assert!(began.elapsed() >= ms(60));
    assert_eq!(count.get(), 1);
}

async fn a_clean_up_task_may_start_after_the_grace_period() {
    let (g, _ctx) = group();
    g.set_grace(ms(10));
    let count = Count::default();
    let guard = cleans_on_drop(&g, &count);
    // Dropped when the grace period is over.
    g.go(async move {
        let _guard = guard;
        std::future::pending().await
    });
    yields(5).await;
    g.cancel();
    assert_eq!(g.wait().await, Err("context cancelled".to_owned()));
    assert_eq!(count.get(), 1);
}

fn deaf(dropped: &Count) -> impl Future<Output = Result<(), String>> + Send + use<> {
    let dropped = dropped.clone();
    let guard = OnDrop(move || _ = dropped.add());
    async move {
        let _guard = guard;
        std::future::pending().await
    }
}

async fn an_abort_drops_a_clean_up_task() {
    let (g, _ctx) = group();
    let dropped = Count::default();
    g.task().cleanup(HOUR).go(deaf(&dropped));
    yields(5).await;
    g.abort();
    assert!(g.wait().await.is_err());
    assert_eq!(dropped.get(), 1);
}

async fn an_abort_after_a_grace_period_drops_a_clean_up_task() {
    let (g, _ctx) = group();
    g.set_grace(ms(5));
    let (dropped, other) = (Count::default(), Count::default());
    g.go(deaf(&other));
    g.task().cleanup(HOUR).go(deaf(&dropped));
    yields(5).await;
    g.cancel();
    let seen = other.clone();
    sleep(ms(50)).await;
    until(|| seen.get() == 1).await;
    assert_eq!(dropped.get(), 0);
    g.abort();
    assert!(g.wait().await.is_err());
    assert_eq!(dropped.get(), 1);
}

async fn dropping_the_group_drops_a_clean_up_task() {
    let (g, _ctx) = group();
    let dropped = Count::default();
    g.task().cleanup(HOUR).go(deaf(&dropped));
    yields(5).await;
    drop(g);
    until(|| dropped.get() == 1).await;
}

async fn a_clean_up_task_is_refused_after_the_wait() {
    let (g, _ctx) = group();
    let spawner = g.spawner();
    let builder = spawner.task().cleanup(HOUR);
    let late = spawner.task().cleanup(HOUR);
    assert_eq!(g.wait().await, OK);
    assert!(!builder.go(async { OK }).await.is_started());
    assert!(late.spawn(async { Ok(1) }).await.is_err());
    assert!(spawner.task().cleanup(HOUR).try_go(async { OK }).is_err());
}

async fn a_clean_up_task_is_refused_after_an_abort_and_a_wait() {
    let (g, _ctx) = group();
    g.set_grace(Some(ms(0)));
    let dropped = Count::default();
    g.go(deaf(&dropped));
    g.cancel();
    // The grace period aborts the task, and no clean-up task.
    assert!(g.close_and_wait().await.is_err());
    let polled = Count::default();
    let (first, second) = (polled.clone(), polled.clone());
    let late = async move {
        first.add();
        OK
    };
    assert!(!g.task().cleanup(HOUR).go(late).await.is_started());
    let late = async move { Ok(second.add()) };
    assert!(g.task().cleanup(HOUR).spawn(late).await.is_err());
    assert_eq!((polled.get(), g.running()), (0, 0));
}

async fn a_clean_up_task_is_refused_after_an_abort() {
    let (g, _ctx) = group();
    g.abort();
    assert!(!g.task().cleanup(HOUR).go(async { OK }).await.is_started());
    assert!(g.task().cleanup(HOUR).try_go(async { OK }).is_err());
    assert!(g.wait().await.is_err());
}

async fn a_clean_up_task_that_fails_is_reported() {
    let (g, _ctx) = group();
    g.cancel();
    g.named("undo")
        .cleanup(HOUR)
        .go(async { Err("cannot undo".to_owned()) });
    assert_eq!(g.wait().await, Err("cannot undo".to_owned()));
}

async fn a_clean_up_closure_begins_after_the_end() {
    let (g, _ctx) = group();
    g.set_grace(ms(5));
    g.go(std::future::pending());
    yields(5).await;
    g.cancel();
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..20 {
        let ran = ran.clone();
        g.task().cleanup(HOUR).go_blocking(move |ctx| {
            assert!(!ctx.is_done());
            std::thread::sleep(ms(2));
            ran.fetch_add(1, Ordering::SeqCst);
            OK
        });
    }
    assert!(g.wait().await.is_err());
    assert_eq!(ran.load(Ordering::SeqCst), 20);
}

async fn a_local_clean_up_task_survives_the_grace_period() {
    let local = LocalSet::new();
    let all = async {
        let (g, _ctx) = group();
        g.set_grace(ms(5));
        let count = Count::default();
        let cleaned = count.clone();
        g.go_local(std::future::pending());
        yields(5).await;
        g.cancel();
        g.task().cleanup(HOUR).go_local(async move {
            sleep(ms(50)).await;
            cleaned.add();
            OK
        });
        assert!(g.wait().await.is_err());
        assert_eq!(count.get(), 1);
    };
    local.run_until(all).await;
}

async fn a_tracked_future_has_the_options_of_its_builder() {
    let (g, ctx) = group();
    g.named("metrics")
        .non_fatal()
        .track(async { Err("refused".to_owned()) })
        .await;
    assert!(!ctx.is_done());
    g.named("listener").essential().track(async { OK }).await;
    assert_eq!(
        state(&ctx),
        "context cancelled: essential task listener has ended"
    );
    let background = g.task().background().track(obeys(ctx));
    let errors = g.wait_all();
    let (errors, ()) = futures::join!(errors, background);
    let errors = errors.unwrap_err();
    assert_eq!(
        (errors.len(), errors.iter().next().unwrap().name()),
        (1, Some("metrics"))
    );
}

/// The types that the documentation names are error types of a group.
#[test]
fn error_types_of_the_documentation_fit() {
    fn fits<E: errgroup::GroupError>() {
        let _ = Group::<E>::new();
    }
    fits::<anyhow::Error>();
    fits::<Box<dyn std::error::Error + Send + Sync>>();
    fits::<std::io::Error>();
    fits::<String>();
    fits::<&'static str>();
    fits::<ContextError>();
}
