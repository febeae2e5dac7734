//! Contexts that a signal cancels. The tests have their own process, because they raise signals in
//! it.
#![cfg(all(feature = "signal", unix))]

use std::io;
use std::process::{self, Command};
use std::time::{Duration, Instant};

use errgroup::Context;
use tokio::runtime::Handle;
use tokio::signal::unix::SignalKind;
use tokio::task::yield_now;

/// How long a test waits for a task to end before it fails, as in tests/it/support.rs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sends a signal to this process. A context must listen to it, since the default action kills the
/// process.
fn raise(name: &str) {
    let pid = process::id().to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(status.expect("`kill` is there").success());
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

async fn tasks_end() {
    let began = Instant::now();
    while tasks() > 0 {
        assert!(began.elapsed() < PATIENCE, "a task is still alive");
        yield_now().await;
    }
}

#[tokio::test]
async fn a_shutdown_signal_ends_the_context_and_the_cause_names_it() {
    for name in ["TERM", "INT"] {
        let ctx = Context::background().with_shutdown_signals().unwrap();
        let below = ctx.with_value("below");
        assert!(!ctx.is_done());
        raise(name);
        let error = below.done().await;
        assert!(error.is_cancelled());
        assert_eq!(
            error.cause().unwrap().to_string(),
            format!("received SIG{name}")
        );
        assert_eq!(
            ctx.cause().unwrap().to_string(),
            format!("received SIG{name}")
        );
        tasks_end().await;
    }
}

#[tokio::test]
async fn with_signals_listens_to_the_given_signals_and_names_them() {
    let kinds = || [SignalKind::user_defined1(), SignalKind::user_defined2()];
    for name in ["USR1", "USR2"] {
        let ctx = Context::background().with_signals(kinds()).unwrap();
        raise(name);
        let error = ctx.done().await;
        assert_eq!(
            error.cause().unwrap().to_string(),
            format!("received SIG{name}")
        );
    }
}

#[tokio::test]
async fn a_signal_ends_every_listening_context_but_not_the_parent() {
    let (parent, _guard) = Context::background().with_cancel();
    let [one, two] = [(); 2].map(|()| parent.with_signals([SignalKind::hangup()]).unwrap());
    raise("HUP");
    one.done().await;
    two.done().await;
    assert!(!parent.is_done());
}

#[tokio::test]
async fn the_end_of_the_parent_propagates_and_wins_if_it_is_first() {
    let (parent, guard) = Context::background().with_cancel();
    let ctx = parent.with_signals([SignalKind::alarm()]).unwrap();
    guard.cancel_with("stop");
    raise("ALRM");
    assert_eq!(ctx.done().await.cause().unwrap().to_string(), "stop");
    tasks_end().await;
    assert_eq!(ctx.cause().unwrap().to_string(), "stop");
}

#[tokio::test]
async fn the_task_that_listens_ends_when_the_context_is_dropped() {
    // This test raises no such signal.
    let quiet = [SignalKind::window_change()];
    let ctx = Context::background().with_signals(quiet).unwrap();
    let clone = ctx.clone();
    yield_now().await;
    drop(ctx);
    yield_now().await;
    assert_eq!(tasks(), 1, "a clone is still there");
    drop(clone);
    tasks_end().await;
}

#[tokio::test]
async fn a_child_keeps_the_task_that_listens() {
    let ctx = Context::background()
        .with_signals([SignalKind::quit()])
        .unwrap();
    let child = ctx.with_value("child");
    drop(ctx);
    raise("QUIT");
    assert_eq!(
        child.done().await.cause().unwrap().to_string(),
        "received SIGQUIT"
    );
}

#[tokio::test]
async fn a_signal_that_cannot_be_listened_to_is_an_error() {
    const SIGKILL: i32 = 9;
    let kill = SignalKind::from_raw(SIGKILL);
    let with_kill = Context::background().with_signals([SignalKind::terminate(), kill]);
    assert!(with_kill.is_err());
    assert_eq!(tasks(), 0);
}

#[tokio::test]
async fn no_signal_at_all_is_an_error() {
    let error = Context::background().with_signals([]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_context_that_listens_prints_that_it_does() {
    let ctx = Context::background().with_shutdown_signals().unwrap();
    assert_eq!(ctx.to_string(), "context.Background.WithSignals");
}
