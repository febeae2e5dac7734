//! Names of tasks: a name is given before the task is started, and its failure shows it.

use std::borrow::Cow;

use errgroup::{Ready, TaskBuilder, TryGoError};
use tokio::task::LocalSet;

use crate::group_support::*;

both_flavours![
    every_way_to_start_a_task_takes_a_name,
    every_way_to_start_a_task_by_a_spawner_takes_a_name,
    the_cause_of_a_panic_names_the_task,
    a_name_may_be_text_of_any_kind,
    a_name_is_for_the_next_task_alone,
    a_name_alone_starts_nothing,
    the_name_of_a_task_that_never_started_is_in_its_error,
    a_named_start_is_as_start,
    a_named_try_go_returns_the_future,
    a_name_after_the_drop_of_its_group_starts_nothing,
];

const WAYS: [&str; 8] = [
    "go",
    "go_with",
    "go_cancellable",
    "try_go",
    "go_blocking",
    "go_local",
    "spawn",
    "start",
];

fn fails() -> std::future::Ready<Result<(), String>> {
    std::future::ready(Err("boom".to_owned()))
}

/// Starts a failing task with this method, and names it after the method.
async fn start(way: &str, named: TaskBuilder<String>) {
    match way {
        "go" => drop(named.go(fails())),
        "go_with" => drop(named.go_with(|_| fails())),
        "go_cancellable" => drop(named.go_cancellable(fails())),
        "try_go" => named.try_go(fails()).map_err(drop).unwrap(),
        "go_blocking" => drop(named.go_blocking(|_| Err("boom".to_owned()))),
        "go_local" => drop(named.go_local(fails())),
        "spawn" => drop(named.spawn(fails())),
        "start" => {
            let ready = named.start(|_, ready| async move {
                ready.ok(());
                tokio::task::yield_now().await;
                Err("boom".to_owned())
            });
            ready.await.unwrap();
        }
        way => unreachable!("{way}"),
    }
}

async fn assert_names(spawner: bool) {
    for way in WAYS {
        let set = LocalSet::new();
        let errors = set.run_until(async {
            let (g, _ctx) = group();
            let named = match spawner {
                true => g.spawner().named(way),
                false => g.named(way),
            };
            start(way, named).await;
            g.wait_all().await.unwrap_err()
        });
        let errors = errors.await;
        assert_eq!(errors.len(), 1, "{way}");
        let error = errors.iter().next().unwrap();
        assert_eq!((error.name(), error.site().file()), (Some(way), file!()));
        let text = format!("task \"{way}\" (started at {}", file!());
        assert!(errors.to_string().starts_with(&text), "{errors}");
    }
}

async fn every_way_to_start_a_task_takes_a_name() {
    assert_names(false).await;
}

async fn every_way_to_start_a_task_by_a_spawner_takes_a_name() {
    assert_names(true).await;
}

/// The cause of the context after a panic in a task of this name, started with this method.
async fn cause_of_panic(way: &str) -> String {
    async fn panics() -> Result<(), String> {
        panic!("at step {}", 3)
    }

    let set = LocalSet::new();
    let cause = set.run_until(async {
        let (g, ctx) = group();
        let named = g.named(way.to_owned());
        match way {
            "go" => drop(named.go(panics())),
            "go_with" => drop(named.go_with(|_| panics())),
            "go_cancellable" => drop(named.go_cancellable(panics())),
            "try_go" => named.try_go(panics()).map_err(drop).unwrap(),
            "go_blocking" => drop(named.go_blocking(|_| panic!("at step {}", 3))),
            "go_local" => drop(named.go_local(panics())),
            "spawn" => drop(named.spawn(panics())),
            "start" => {
                let start = named.start(|_, ready: Ready<()>| async move {
                    let _ready = ready;
                    panics().await
                });
                assert!(start.await.is_err());
            }
            way => unreachable!("{way}"),
        }
        assert_eq!(text(panic_of(g.wait()).await), "at step 3");
        ctx.cause().unwrap().to_string()
    });
    cause.await
}

async fn the_cause_of_a_panic_names_the_task() {
    for way in WAYS {
        let cause = cause_of_panic(way).await;
        let begin = format!("task \"{way}\" (started at {}", file!());
        assert!(cause.starts_with(&begin), "{cause}");
        assert!(cause.ends_with(") panicked: at step 3"), "{cause}");
    }
}

async fn a_name_may_be_text_of_any_kind() {
    let g = limited(1);
    g.named("a literal").go(fails());
    g.named(format!("{} {}", "a", "string")).go(fails());
    g.named(Cow::Borrowed("a cow")).go(fails());
    g.named("").go(fails());
    g.named("\"quoted\"\n").go(fails());
    let errors = g.wait_all().await.unwrap_err();
    let mut names: Vec<_> = errors.iter().map(|error| error.name().unwrap()).collect();
    names.sort();
    let all = ["", "\"quoted\"\n", "a cow", "a literal", "a string"];
    assert_eq!(names, all);
    for error in &errors {
        assert!(!error.to_string().contains('\n'), "one line in a log");
    }
}

async fn a_name_is_for_the_next_task_alone() {
    let g = G::new();
    let named = g.named("named");
    g.go(fails());
    until(|| g.running() == 0).await;
    named.go(fails());
    until(|| g.running() == 0).await;
    g.go(fails());
    let errors = g.wait_all().await.unwrap_err();
    let names: Vec<_> = errors.iter().map(|error| error.name()).collect();
    assert_eq!(names, [None, Some("named"), None]);
}

async fn a_name_alone_starts_nothing() {
    let (g, _ctx) = group();
    let named = g.named("unused");
    assert_eq!(
        format!("{named:?}"),
        "TaskBuilder { name: Some(\"unused\"), .. }"
    );
    drop(named);
    assert_eq!((g.running(), g.queued()), (0, 0));
    assert_eq!(g.wait().await, OK);
}

async fn the_name_of_a_task_that_never_started_is_in_its_error() {
    let set = LocalSet::new();
    let errors = set.run_until(async {
        let g = limited(0);
        g.named("go").go(fails());
        g.named("go_blocking").go_blocking(|_| Ok(()));
        g.named("go_local").go_local(fails());
        drop(g.named("spawn").spawn(fails()));
        g.cancel();
        g.named("refused").go(fails());
        g.wait_all().await.unwrap_err()
    });
    let errors = errors.await;
    let mut names: Vec<_> = errors.iter().map(|error| error.name().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["go", "go_blocking", "go_local", "refused", "spawn"]);
}

async fn a_named_start_is_as_start() {
    let (g, ctx) = group();
    let before = g.named("server").start(|_, _: Ready<()>| fails());
    assert_eq!(before.await.unwrap_err(), "boom");
    assert!(!ctx.is_done());
    let after = g.named("server").start(|_, ready| async move {
        ready.ok(8080);
        Err("reset".to_owned())
    });
    assert_eq!(after.await, Ok(8080));
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors.to_string().starts_with("task \"server\" "));
    assert!(errors.to_string().ends_with(": reset"));
}

async fn a_named_try_go_returns_the_future() {
    let g = limited(0);
    let full = g.named("it").try_go(async { Ok(7) }.map_ok());
    assert!(matches!(full, Err(TryGoError::Full(_))));
    g.cancel();
    let ended = g.named("it").try_go(async { Ok(7) }.map_ok());
    assert!(matches!(ended, Err(TryGoError::Ended(_))));
    assert_eq!(g.wait().await, OK);
}

/// Discards the `Ok` of a future.
trait MapOk: Future<Output = Result<i32, String>> + Sized {
    async fn map_ok(self) -> Result<(), String> {
        self.await.map(drop)
    }
}

impl<F: Future<Output = Result<i32, String>>> MapOk for F {}

async fn a_name_after_the_drop_of_its_group_starts_nothing() {
    let (g, _ctx) = group();
    let spawner = g.spawner();
    let early = g.named("made while it lived");
    drop(g);
    let (probe, run) = (Probe::default(), || async { OK });
    assert!(!early.go(probe.wrap(run())).await.is_started());
    let late = spawner.named("it");
    assert!(!late.go(probe.wrap(run())).await.is_started());
    let late = spawner.named("it").try_go(probe.wrap(run()));
    assert!(matches!(late, Err(TryGoError::Ended(_))));
    drop(late);
    assert!(spawner.named("it").spawn(probe.wrap(run())).await.is_err());
    let start = spawner.named("it").start(|_, _: Ready<()>| fails());
    assert_eq!(start.await.unwrap_err(), "context cancelled");
    assert_eq!(probe.polled(), 0);
    probe.assert_all_dropped();
}
