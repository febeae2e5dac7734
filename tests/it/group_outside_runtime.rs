//! Methods that need a runtime panic with a message outside of one, and the others work without.

use errgroup::{Context, fetch_all};

use crate::group_support::*;

fn assert_says_so(what: &str, call: impl FnOnce()) {
    let message = text(panic_in(call));
    let expected = format!("{what} called outside a tokio runtime");
    assert!(message.starts_with(&expected), "{message}");
}

#[test]
fn go_outside_a_runtime_panics_and_says_so() {
    let g = G::new();
    assert_says_so("go", || {
        g.go(async { Ok(()) });
    });
    assert_says_so("go_with", || {
        g.go_with(|_| async { Ok(()) });
    });
    assert_says_so("try_go", || {
        let _ = g.try_go(async { Ok(()) });
    });
}

#[test]
fn a_spawner_outside_a_runtime_panics_and_says_so() {
    let g = G::new();
    let spawner = g.spawner();
    assert_says_so("go", || {
        spawner.go(async { Ok(()) });
    });
    assert_says_so("go_with", || {
        spawner.go_with(|_| async { Ok(()) });
    });
    assert_says_so("try_go", || {
        let _ = spawner.try_go(async { Ok(()) });
    });
}

#[test]
fn a_fan_out_polled_outside_a_runtime_panics_and_says_so() {
    let ctx = Context::background();
    let all = fetch_all(&ctx, 1, [1], |_, item| async move { Ok::<_, String>(item) });
    assert_says_so("a fan-out", || {
        let mut all = Box::pin(all);
        let _ = poll_with(&mut all, std::task::Waker::noop());
    });
}

#[test]
fn after_such_a_panic_the_group_works() {
    let g = limited(1);
    let probe = Probe::default();
    let refused = probe.wrap(async { Ok(()) });
    panic_in(|| {
        g.go(refused);
    });
    assert_eq!((g.running(), g.queued()), (0, 0));
    probe.assert_all_dropped();
    current_thread().block_on(async {
        g.go(probe.wrap(async { Ok(()) }));
        assert_eq!(g.wait().await, OK);
    });
}

#[test]
fn what_starts_nothing_needs_no_runtime() {
    let (g, ctx) = group();
    g.set_limit(3);
    assert_eq!((g.limit(), g.running(), g.queued()), (Some(3), 0, 0));
    let _ = (g.spawner(), format!("{g:?}"));
    g.cancel();
    g.abort();
    assert!(ctx.is_done());
    let mut wait = Box::pin(g.wait());
    assert!(poll_with(&mut wait, std::task::Waker::noop()).is_ready());
}

#[test]
fn later_tasks_run_on_the_runtime_of_the_first() {
    let runtime = current_thread();
    let (g, ended) = (limited(2), Count::default());
    runtime.block_on(async {
        g.go(async { Ok(()) });
    });
    let counted = ended.clone();
    g.go(async move {
        counted.add();
        Ok(())
    });
    assert_eq!(runtime.block_on(g.wait()), OK);
    assert_eq!(ended.get(), 1);
}
