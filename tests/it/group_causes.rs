//! Causes, names and texts: `set_name`, `set_cause_with`, which failures are causes, `scope_all`,
//! and what a spawner steers.

use errgroup::{Cause, Context, ContextError, Errors, Group};
use tokio::time::sleep;

use crate::group_support::*;
use crate::support::{Down, ms};

both_flavours! {
    the_name_is_in_the_causes_that_mention_the_group,
    a_later_name_replaces_an_earlier_one,
    the_cause_is_made_from_the_error,
    by_default_the_cause_is_the_text_of_the_error,
    the_function_is_not_called_for_a_panic_or_without_a_context,
    a_panic_of_the_function_is_a_cause_that_says_so,
    a_stopped_task_names_the_reason,
    failures_before_the_end_are_causes,
    after_a_cancel_from_outside_only_panics_are_causes,
    scope_all_returns_the_value,
    scope_all_returns_every_failure,
    in_scope_all_a_panic_is_an_entry,
    scope_all_waits_for_its_tasks,
    a_spawner_watches_and_steers_its_group,
    a_spawner_of_a_group_that_is_gone_reads_zeros,
}

fn cause_of(ctx: &Context) -> String {
    ctx.cause().unwrap().to_string()
}

async fn the_name_is_in_the_causes_that_mention_the_group() {
    let named = || {
        let (g, ctx) = group();
        g.set_name("ingest");
        (g, ctx)
    };
    let (g, ctx) = named();
    g.abort();
    assert_eq!(cause_of(&ctx), "group \"ingest\" was aborted");
    let (g, ctx) = named();
    drop(g);
    assert_eq!(cause_of(&ctx), "group \"ingest\" was dropped");
    let (g, ctx) = named();
    g.wait().await.unwrap();
    assert_eq!(cause_of(&ctx), "the wait of group \"ingest\" has finished");
    let (g, ctx) = named();
    g.wait_all().await.unwrap();
    assert_eq!(cause_of(&ctx), "the wait of group \"ingest\" has finished");
    let (g, ctx) = named();
    g.close_and_wait().await.unwrap();
    assert_eq!(cause_of(&ctx), "the wait of group \"ingest\" has finished");
    let (g, _ctx) = named();
    g.close();
    g.go(async { OK });
    let errors = g.wait_all().await.unwrap_err();
    let text = errors.to_string();
    assert!(
        text.ends_with("was stopped: group \"ingest\" is closed"),
        "{text}"
    );
    let (g, _ctx) = named();
    let report = g.drain(ms(100)).await;
    assert_eq!(report.phases()[0].name(), "ingest");
}

async fn a_later_name_replaces_an_earlier_one() {
    let (g, ctx) = group();
    g.set_name("one");
    g.set_name(format!("t{}", "wo"));
    drop(g);
    assert_eq!(cause_of(&ctx), "group \"two\" was dropped");
}

#[derive(Debug, Clone, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Down(#[from] Down),
    #[error(transparent)]
    Stopped(#[from] ContextError),
}

async fn the_cause_is_made_from_the_error() {
    let (g, ctx) = Group::with_context(Context::background());
    g.set_cause_with(|error: &Failed| Cause::from(error.clone()));
    let sees = ctx.clone();
    g.go(async move { Err(sees.done().await.into()) });
    g.go(async { Err(Down("eu-1").into()) });
    let failed = g.wait().await.unwrap_err();
    assert!(matches!(failed, Failed::Down(_)));
    assert!(ctx.caused_by::<Failed>());
    assert_eq!(cause_of(&ctx), "eu-1 is down");
}

async fn by_default_the_cause_is_the_text_of_the_error() {
    let (g, ctx) = Group::<Failed>::with_context(Context::background());
    g.go(async { Err(Down("eu-1").into()) });
    assert!(g.wait().await.is_err());
    assert!(!ctx.caused_by::<Failed>());
    assert_eq!(cause_of(&ctx), "eu-1 is down");
}

async fn the_function_is_not_called_for_a_panic_or_without_a_context() {
    let (g, ctx) = group();
    g.set_cause_with(|_| Cause::from("from the function"));
    g.go(async { panic!("a bug") });
    assert!(g.wait_all().await.is_err());
    assert!(cause_of(&ctx).ends_with("panicked: a bug"));

    let (g, calls) = (G::new(), Count::default());
    let counts = calls.clone();
    g.set_cause_with(move |_| {
        counts.add();
        Cause::from("from the function")
    });
    g.go(async { Err("no".to_owned()) });
    g.idle().await;
    assert!(!g.context().is_done());
    assert_eq!(calls.get(), 0);
}

async fn a_panic_of_the_function_is_a_cause_that_says_so() {
    let (g, ctx) = group();
    g.set_cause_with(|_| panic!("a bug"));
    g.named("x").go(async { Err("no".to_owned()) });
    assert_eq!(g.wait().await, Err("no".to_owned()));
    let cause = cause_of(&ctx);
    assert!(cause.starts_with("task \"x\" (started at "), "{cause}");
    assert!(
        cause.ends_with(" failed, and making its cause panicked"),
        "{cause}"
    );
}

async fn a_stopped_task_names_the_reason() {
    let (g, _ctx) = group();
    g.named("x").go_cancellable(std::future::pending());
    g.cancel_with("shutting down");
    let text = g.wait_all().await.unwrap_err().to_string();
    assert!(text.starts_with("task \"x\" (started at "), "{text}");
    assert!(text.ends_with(") was stopped: shutting down"), "{text}");

    let (g, _ctx) = group();
    g.go_cancellable(std::future::pending());
    g.cancel();
    let text = g.wait_all().await.unwrap_err().to_string();
    assert!(text.ends_with(" was stopped: context cancelled"), "{text}");

    let (g, _ctx) = G::with_context(Context::background().with_timeout(ms(1)));
    g.go_cancellable(std::future::pending());
    let text = g.wait_all().await.unwrap_err().to_string();
    assert!(
        text.ends_with(" was stopped: context deadline exceeded"),
        "{text}"
    );
}

fn counts(errors: &Errors<String>) -> (usize, usize, bool) {
    let (causes, others) = (errors.causes().count(), errors.cancelled().count());
    (causes, others, errors.only_cancelled())
}

async fn failures_before_the_end_are_causes() {
    let (g, ctx) = group();
    let sees = ctx.clone();
    g.go(async move { Err(sees.done().await.into()) });
    g.go(async { Err("no".to_owned()) });
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(counts(&errors), (1, 1, false));

    let g = G::new();
    g.go(async { Err("one".to_owned()) });
    g.go(async { Err("two".to_owned()) });
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(counts(&errors), (2, 0, false));
}

async fn after_a_cancel_from_outside_only_panics_are_causes() {
    let (parent, guard) = Context::background().with_cancel();
    let (g, ctx) = G::with_context(&parent);
    let panics = ctx.clone();
    g.go_cancellable(std::future::pending());
    g.go(async move { Err(ctx.done().await.into()) });
    guard.cancel();
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(counts(&errors), (0, 2, true));

    let (g, ctx) = G::with_context(Context::background().with_timeout(ms(1)));
    g.go(async move {
        ctx.done().await;
        Err("late".to_owned())
    });
    assert_eq!(counts(&g.wait_all().await.unwrap_err()), (0, 1, true));

    let (g, _ctx) = G::with_context(panics);
    g.go(async { OK });
    g.go(async { panic!("a bug") });
    drop(parent);
    let errors = g.wait_all().await.unwrap_err();
    assert!(errors.only_cancelled(), "neither began");

    let (g, ctx) = group();
    g.go(async move {
        ctx.done().await;
        panic!("a bug")
    });
    g.cancel();
    assert_eq!(counts(&g.wait_all().await.unwrap_err()), (1, 0, false));
}

async fn scope_all_returns_the_value() {
    let scope = G::scope_all(&Context::background(), async |g, _| {
        g.go(async { OK });
        Ok(7)
    });
    assert_eq!(scope.await.unwrap(), 7);
}

async fn scope_all_returns_every_failure() {
    let failed = G::scope_all(&Context::background(), async |g, ctx| {
        g.named("a").go(async move { Err(ctx.done().await.into()) });
        Err::<(), _>("the body's".to_owned())
    });
    let errors = failed.await.unwrap_err();
    let names: Vec<_> = errors.iter().map(|it| it.name().unwrap()).collect();
    assert_eq!(names, ["the body of the scope", "a"]);
    assert_eq!(counts(&errors), (1, 1, false));
}

async fn in_scope_all_a_panic_is_an_entry() {
    let body = G::scope_all(&Context::background(), async |_, _| -> Result<(), String> {
        panic!("the body")
    });
    let text = body.await.unwrap_err().to_string();
    assert!(text.ends_with("panicked: the body"), "{text}");
    let task = G::scope_all(&Context::background(), async |g, _| {
        g.go(async { panic!("the task") });
        OK
    });
    let text = task.await.unwrap_err().to_string();
    assert!(text.ends_with("panicked: the task"), "{text}");
}

async fn scope_all_waits_for_its_tasks() {
    let ended = Count::default();
    let scope = G::scope_all(&Context::background(), async |g, _| {
        let ended = ended.clone();
        g.go(async move {
            sleep(ms(5)).await;
            ended.add();
            OK
        });
        Err::<(), _>("early".to_owned())
    });
    assert_eq!(scope.await.unwrap_err().len(), 1);
    assert_eq!(ended.get(), 1);
}

async fn a_spawner_watches_and_steers_its_group() {
    let (g, ctx) = group();
    let (s, gate) = (g.spawner(), Gate::new());
    assert_eq!(s.limit(), None);
    s.set_limit(1);
    assert_eq!((s.limit(), g.limit()), (Some(1), Some(1)));
    for _ in 0..3 {
        let gate = gate.clone();
        s.go(async move {
            gate.pass().await;
            OK
        });
    }
    assert_eq!((s.running(), s.queued()), (1, 2));
    s.set_limit(None);
    assert_eq!((s.running(), s.queued()), (3, 0));
    assert!(!s.context().is_done());
    s.cancel_with("enough");
    assert_eq!(cause_of(&ctx), "enough");
    assert_eq!(cause_of(&s.context()), "enough");
    gate.open();
    assert_eq!(g.wait().await, OK);

    let (g, ctx) = group();
    g.spawner().cancel();
    assert!(ctx.is_done());
}

async fn a_spawner_of_a_group_that_is_gone_reads_zeros() {
    let (g, ctx) = group();
    let s = g.spawner();
    g.go(async { OK });
    g.wait().await.unwrap();
    s.set_limit(3);
    s.cancel_with("too late");
    assert_eq!((s.limit(), s.running(), s.queued()), (Some(0), 0, 0));
    assert_eq!(cause_of(&s.context()), "the group's wait has finished");
    assert_eq!(cause_of(&ctx), "the group's wait has finished");
}
