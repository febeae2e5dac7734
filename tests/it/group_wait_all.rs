//! `wait_all` returns every failure of a group, in order, with its kind.

use std::error::Error;
use std::panic::panic_any;
use std::time::Duration;

use errgroup::{Context, ContextError, Errors, Group, Panic, TaskErrorKind};

use crate::group_support::*;

both_flavours![
    a_group_in_which_nothing_failed_is_ok,
    the_failures_are_in_the_order_in_which_the_tasks_ended,
    each_has_the_name_and_the_line_of_its_task,
    each_has_its_kind,
    a_panic_is_an_entry_and_is_not_resumed,
    causing_failures_are_listed_apart_from_obeying_ones,
    in_a_new_group_every_failure_causes,
    what_is_stopped_by_a_cancel_is_no_cause,
    the_first_1024_are_kept_whole_and_the_others_counted,
    a_late_panic_is_kept_in_any_case,
    later_panics_beyond_the_first_are_counted_too,
    it_is_readable_in_a_log,
    a_panic_is_said_first_in_the_log,
    the_chain_of_sources_says_why,
    with_anyhow_the_whole_chain_is_printed,
    the_failures_are_iterated_by_reference_and_by_value,
    errors_convert_into_other_error_types,
    the_context_has_ended_afterwards,
];

/// This file, as it is named in the site of a task.
fn at(line: u32) -> String {
    format!("{}:{line}:", file!())
}

/// Tasks that fail one after the other, each when the last has ended.
async fn one_after_the_other(g: &G, tasks: usize) {
    for number in 0..tasks {
        g.go(async move { Err(number.to_string()) });
        until(|| g.running() == 0).await;
    }
}

fn kinds<E: std::fmt::Display>(errors: &Errors<E>) -> Vec<String> {
    let kind = |error: &errgroup::TaskError<E>| error.kind().to_string();
    errors.iter().map(kind).collect()
}

async fn a_group_in_which_nothing_failed_is_ok() {
    let (g, _ctx) = group();
    assert!(g.wait_all().await.is_ok());

    let (g, ctx) = group();
    for _ in 0..10 {
        let ctx = ctx.clone();
        g.go(async move {
            ctx.done().await;
            Ok(())
        });
    }
    g.cancel();
    assert!(g.wait_all().await.is_ok());
}

async fn the_failures_are_in_the_order_in_which_the_tasks_ended() {
    let g = G::new();
    let gates: Vec<_> = (0..5).map(|_| Gate::new()).collect();
    for (number, gate) in gates.iter().enumerate() {
        let gate = gate.clone();
        g.go(async move {
            gate.pass().await;
            Err(number.to_string())
        });
    }
    for (ended, number) in [3, 1, 4, 0, 2].into_iter().enumerate() {
        gates[number].open();
        until(|| g.running() == 4 - ended).await;
    }
    assert_eq!(
        kinds(&g.wait_all().await.unwrap_err()),
        ["3", "1", "4", "0", "2"]
    );
}

async fn each_has_the_name_and_the_line_of_its_task() {
    let fails = || async { Err::<(), _>("boom".to_owned()) };
    let set = tokio::task::LocalSet::new();
    let names_and_lines = set.run_until(async {
        let g = G::new();
        let s = g.spawner();
        let line = line!();
        g.go(fails());
        g.go_with(move |_| fails());
        g.go_cancellable(fails());
        g.try_go(fails()).map_err(drop).unwrap();
        g.go_blocking(|_| Err("boom".to_owned()));
        g.go_local(fails());
        drop(g.spawn(fails()));
        g.named("a name").go(fails());
        s.go(fails());
        s.named("another").go(fails());
        let errors = g.wait_all().await.unwrap_err();
        let mut all: Vec<_> = errors
            .iter()
            .map(|error| {
                assert_eq!(error.site().file(), file!());
                let line = error.site().line() - line;
                (line, error.name().map(str::to_owned))
            })
            .collect();
        all.sort();
        all
    });
    let mut expected: Vec<_> = (1..=10).map(|line| (line, None)).collect();
    expected[7].1 = Some("a name".to_owned());
    expected[9].1 = Some("another".to_owned());
    assert_eq!(names_and_lines.await, expected);
}

async fn each_has_its_kind() {
    let g = G::new();
    g.go(async { Err("boom".to_owned()) });
    until(|| g.running() == 0).await;
    g.go(async { panic_any(7_u32) });
    until(|| g.running() == 0).await;
    g.go(std::future::pending());
    g.cancel_with("enough");
    g.abort();
    let errors = g.wait_all().await.unwrap_err();
    let mut kinds = errors.into_iter().map(errgroup::TaskError::into_kind);
    assert!(matches!(kinds.next(), Some(TaskErrorKind::Failed(error)) if error == "boom"));
    let Some(TaskErrorKind::Panicked(panic)) = kinds.next() else {
        panic!("the second panicked");
    };
    assert_eq!(panic.into_payload().downcast_ref(), Some(&7_u32));
    let Some(TaskErrorKind::Aborted(error)) = kinds.next() else {
        panic!("the third was aborted");
    };
    assert_eq!(error.cause().unwrap().to_string(), "enough");
    assert!(kinds.next().is_none());
}

async fn a_panic_is_an_entry_and_is_not_resumed() {
    fn is_sync<T: Send + Sync>(_: &T) {}

    let (g, _ctx) = group();
    g.go(async { panic!("at step {}", 3) });
    let errors = g.wait_all().await.unwrap_err();
    let TaskErrorKind::Panicked(panic) = errors.iter().next().unwrap().kind() else {
        panic!("{errors:?}");
    };
    is_sync::<Panic>(panic);
    is_sync(&errors);
    assert_eq!(
        (panic.text(), panic.to_string().as_str()),
        ("at step 3", "at step 3")
    );
    assert_eq!(format!("{panic:?}"), "Panic(\"at step 3\")");
    let Some(TaskErrorKind::Panicked(panic)) = errors.into_iter().next().map(|e| e.into_kind())
    else {
        unreachable!();
    };
    assert_eq!(text(panic.into_payload()), "at step 3");

    let (g, _ctx) = group();
    g.go(async { panic_any(7) });
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(
        kinds(&errors),
        ["panicked: (a panic whose payload is not text)"]
    );
}

async fn causing_failures_are_listed_apart_from_obeying_ones() {
    let g = limited(4);
    let after = |kind: &'static str| {
        g.named(kind).go_with(move |ctx| async move {
            let end = ctx.done().await;
            assert!(kind != "panics", "a bug");
            Err(end.to_string())
        })
    };
    after("obeys");
    after("panics");
    g.named("is dropped").go_cancellable(std::future::pending());
    g.named("fails").go(async {
        yields(10).await;
        Err("boom".to_owned())
    });
    g.named("is queued").go(async { Ok(()) });
    let errors = g.wait_all().await.unwrap_err();
    let names = |errors: Vec<&errgroup::TaskError<String>>| {
        let mut names: Vec<_> = errors
            .iter()
            .map(|e| e.name().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(errors.causes().collect()), ["fails", "panics"]);
    let obeyed = ["is dropped", "is queued", "obeys"];
    assert_eq!(names(errors.cancelled().collect()), obeyed);
    assert_eq!(errors.causes().next().unwrap().name(), Some("fails"));
    assert_eq!(errors.len(), 5);
}

async fn in_a_new_group_every_failure_causes() {
    let g = G::new();
    one_after_the_other(&g, 5).await;
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(
        (errors.causes().count(), errors.cancelled().count()),
        (5, 0)
    );
    assert_eq!(kinds(&errors), ["0", "1", "2", "3", "4"]);
}

async fn what_is_stopped_by_a_cancel_is_no_cause() {
    let g = limited(0);
    for _ in 0..5 {
        g.go(async { Ok(()) });
    }
    g.cancel();
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!(
        (errors.causes().count(), errors.cancelled().count()),
        (0, 5)
    );
    assert!(errors.only_cancelled());
}

async fn the_first_1024_are_kept_whole_and_the_others_counted() {
    for (failing, kept, omitted) in [(1_023, 1_023, 0), (1_024, 1_024, 0), (1_500, 1_024, 476)] {
        let g = G::new();
        g.set_limit(1);
        for number in 0..failing {
            g.go(async move { Err(number.to_string()) });
        }
        let errors = g.wait_all().await.unwrap_err();
        assert_eq!((errors.len(), errors.omitted()), (kept, omitted));
        let numbers = errors.iter().map(|error| error.kind().to_string());
        assert!(numbers.eq((0..kept).map(|number| number.to_string())));
    }
}

/// A group with limit 1, in which these fail one after the other; `true` panics.
async fn fail_in_order(panics: impl IntoIterator<Item = bool>) -> Errors<String> {
    let g = G::new();
    g.set_limit(1);
    for (number, panics) in panics.into_iter().enumerate() {
        g.go(async move {
            if panics {
                panic_any(format!("panic {number}"));
            }
            Err(number.to_string())
        });
    }
    g.wait_all().await.unwrap_err()
}

async fn a_late_panic_is_kept_in_any_case() {
    let errors = fail_in_order((0..1_200).map(|number| number == 1_100)).await;
    assert_eq!((errors.len(), errors.omitted()), (1_025, 175));
    let last = errors.iter().next_back().unwrap();
    assert_eq!(last.kind().to_string(), "panicked: panic 1100");
    assert_eq!(errors.causes().count(), 1_025);

    // `wait` resumes it, too.
    let g = G::new();
    g.set_limit(1);
    for number in 0..1_200 {
        g.go(async move {
            assert!(number != 1_100, "the panic");
            Err(number.to_string())
        });
    }
    assert_eq!(text(panic_of(g.wait()).await), "the panic");
}

async fn later_panics_beyond_the_first_are_counted_too() {
    let errors = fail_in_order((0..1_100).map(|number| number == 3 || number >= 1_050)).await;
    assert_eq!((errors.len(), errors.omitted()), (1_024, 76));
    let errors = fail_in_order((0..1_100).map(|number| number >= 1_050)).await;
    assert_eq!((errors.len(), errors.omitted()), (1_025, 75));
}

async fn it_is_readable_in_a_log() {
    let (g, _ctx) = group();
    let line = line!() + 1;
    g.named("fetch").go(async { Err("disk full".to_owned()) });
    let errors = g.wait_all().await.unwrap_err();
    let text = errors.to_string();
    assert!(text.starts_with(&format!("task \"fetch\" (started at {}", at(line))));
    assert!(text.ends_with("): disk full"), "{text}");
    assert_eq!(text, errors.iter().next().unwrap().to_string());

    // Without a name.
    let (g, _ctx) = group();
    let line = line!() + 1;
    g.go(async { Err("disk full".to_owned()) });
    let text = g.wait_all().await.unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("task started at {}", at(line))),
        "{text}"
    );
    assert!(text.ends_with(": disk full"), "{text}");

    // With the kinds of the other failures.
    let g = limited(9);
    for _ in 0..3 {
        g.go_with(|ctx| async move { Err(ctx.done().await.to_string()) });
    }
    for _ in 0..4 {
        g.go_cancellable(std::future::pending());
    }
    g.go_with(|ctx| async move {
        ctx.done().await;
        Ok(())
    });
    g.named("fetch").go(async {
        yields(10).await;
        Err("disk full".to_owned())
    });
    for _ in 0..2 {
        g.go(async { Ok(()) });
    }
    let text = g.wait_all().await.unwrap_err().to_string();
    assert!(text.starts_with("task \"fetch\" (started at "), "{text}");
    let others = ": disk full (3 failed when asked to stop, 6 were stopped)";
    assert!(text.ends_with(others), "{text}");

    // In a new group, and with more than are kept.
    let text = fail_in_order((0..1_030).map(|_| false)).await.to_string();
    let others = ": 0 (1023 more failed, 6 more are not listed)";
    assert!(text.ends_with(others), "{text}");
}

async fn a_panic_is_said_first_in_the_log() {
    let text = fail_in_order([false, true, false, true]).await.to_string();
    let end = ": panicked: panic 1 (1 more panicked, 2 more failed)";
    assert!(text.ends_with(end), "{text}");
}

async fn the_chain_of_sources_says_why() {
    // The entry of a user's error contains the text of that error.
    let errors = fail_in_order([false]).await;
    assert!(errors.source().is_none());
    assert!(errors.iter().next().unwrap().source().is_none());

    #[derive(Debug, thiserror::Error)]
    #[error("out of memory")]
    struct OutOfMemory;

    let (g, _ctx) = group();
    g.go(std::future::pending());
    g.cancel_with(OutOfMemory);
    g.abort();
    let errors = g.wait_all().await.unwrap_err();
    assert!(errors.to_string().ends_with(" was stopped: out of memory"));
    // The text contains the cause, so the source is that of the cause.
    assert!(errors.source().is_none());
    let entry = errors.iter().next().unwrap();
    assert!(entry.source().is_none());
    // The cause itself, not a wrapper.
    assert!(entry.kind().source().unwrap().is::<OutOfMemory>());
    let report = format!("{:#}", anyhow::Error::from(errors));
    assert!(report.ends_with(" was stopped: out of memory"), "{report}");
}

async fn with_anyhow_the_whole_chain_is_printed() {
    use anyhow::Context as _;

    let (g, _ctx) = Group::<anyhow::Error>::with_context(Context::background());
    g.named("fetch").go(async {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err(refused).context("asking the registry")
    });
    let errors = g.wait_all().await.unwrap_err();
    let end = ": asking the registry: connection refused";
    assert!(errors.to_string().ends_with(end), "{errors}");
    assert!(errors.iter().next().unwrap().to_string().ends_with(end));
    let report = format!("{:#}", anyhow::Error::from(errors));
    assert!(report.ends_with(end), "{report}");
    assert_eq!(report.matches("connection refused").count(), 1);
}

async fn the_failures_are_iterated_by_reference_and_by_value() {
    let errors = fail_in_order([false; 3]).await;
    let mut by_reference = 0;
    for error in &errors {
        assert_eq!(error.kind().to_string(), by_reference.to_string());
        by_reference += 1;
    }
    assert_eq!((by_reference, errors.iter().len(), errors.len()), (3, 3, 3));
    let backwards: Vec<_> = errors.iter().rev().map(|e| e.kind().to_string()).collect();
    assert_eq!(backwards, ["2", "1", "0"]);
    let by_value: Vec<_> = errors
        .into_iter()
        .map(|error| match error.into_kind() {
            TaskErrorKind::Failed(error) => error,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(by_value, ["0", "1", "2"]);
}

async fn errors_convert_into_other_error_types() {
    async fn fails() -> anyhow::Result<()> {
        let g = G::new();
        g.go(async { Err("boom".to_owned()) });
        g.wait_all().await?;
        Ok(())
    }
    let error = fails().await.unwrap_err();
    assert_eq!(error.downcast_ref::<Errors<String>>().unwrap().len(), 1);

    async fn boxed() -> Result<(), Box<dyn Error + Send + Sync>> {
        let (g, _ctx) = Group::<ContextError>::with_context(Context::background());
        g.go_with(|ctx| async move { Err(ctx.done().await) });
        g.cancel();
        g.wait_all().await?;
        Ok(())
    }
    let text = boxed().await.unwrap_err().to_string();
    assert!(text.ends_with(": context cancelled"), "{text}");
}

async fn the_context_has_ended_afterwards() {
    for fails in [false, true] {
        let g = G::new();
        let ctx = g.context();
        g.go(async move {
            if fails {
                Err("boom".to_owned())
            } else {
                Ok(())
            }
        });
        until(|| g.running() == 0).await;
        assert!(!ctx.is_done());
        assert_eq!(g.wait_all().await.is_err(), fails);
        assert_eq!(
            ctx.cause().unwrap().to_string(),
            "the group's wait has finished"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn elapsed_is_from_the_start_to_the_end() {
    let second = Duration::from_secs(1);
    let sleeps = move |name: &'static str, time: u32| async move {
        tokio::time::sleep(time * second).await;
        Err::<(), _>(name.to_owned())
    };
    let g = G::new();
    g.set_limit(1);
    g.named("first").go(sleeps("first", 2));
    // Queued for two seconds, which do not count.
    g.named("second").go(sleeps("second", 3));
    let lends = g.spawner();
    g.named("third").go(async move {
        // Waits count, also where it lends.
        let _ = lends.spawn(sleeps("sibling", 4)).await;
        Err("third".to_owned())
    });
    let panics = g.named("panics");
    panics.go(async move {
        tokio::time::sleep(second).await;
        panic!("a bug")
    });
    tokio::time::sleep(60 * second).await;
    g.set_limit(0);
    g.named("never").go(async { Ok(()) });
    tokio::time::sleep(second).await;
    g.cancel();
    let errors = in_time(g.wait_all()).await.unwrap_err();
    let elapsed = |name| {
        let error = errors.iter().find(|error| error.name() == name);
        error.unwrap().elapsed().as_secs_f64()
    };
    assert_eq!(elapsed(Some("first")), 2.0);
    assert_eq!(elapsed(Some("second")), 3.0);
    assert_eq!(elapsed(None), 4.0);
    assert_eq!(elapsed(Some("panics")), 1.0);
    // It lends from the start. The panicking task may run in between.
    assert!([4.0, 5.0].contains(&elapsed(Some("third"))));
    assert_eq!(elapsed(Some("never")), 0.0);
}

#[tokio::test(start_paused = true)]
async fn elapsed_of_an_aborted_task_is_how_long_it_ran() {
    let (g, _ctx) = group();
    g.go(std::future::pending());
    g.go_cancellable(std::future::pending());
    let set = tokio::task::LocalSet::new();
    set.run_until(async {
        g.go_local(std::future::pending());
        tokio::time::sleep(Duration::from_secs(7)).await;
    })
    .await;
    g.abort();
    let (errors, ()) = futures::join!(in_time(g.wait_all()), set);
    let errors = errors.unwrap_err();
    assert_eq!(errors.len(), 3);
    for error in &errors {
        assert_eq!(error.elapsed(), Duration::from_secs(7));
    }
}
