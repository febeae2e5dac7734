//! A group that idles and closes, in races with the ends and the starts of its tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use errgroup::Context;
use loom::thread;

use crate::{Group, block_on, check};

/// Counts the tasks that have ended. It uses the atomics of std, which are not part of the model.
#[derive(Clone, Default)]
struct Ended(Arc<AtomicUsize>);

impl Ended {
    async fn run(self) -> Result<(), String> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn a_caller_of_idle_sees_the_last_end() {
    check(3, || {
        let g = Group::new();
        let ended = Ended::default();
        g.go(ended.clone().run());
        block_on(g.idle());
        assert_eq!((ended.count(), g.running()), (1, 0));
    });
}

#[test]
fn two_callers_of_idle_see_the_last_end() {
    check(2, || {
        let g = Arc::new(Group::new());
        let ended = Ended::default();
        g.go(ended.clone().run());
        let (other, counts) = (g.clone(), ended.clone());
        let waits = thread::spawn(move || {
            block_on(other.idle());
            assert_eq!(counts.count(), 1);
        });
        block_on(g.idle());
        assert_eq!(ended.count(), 1);
        waits.join().unwrap();
    });
}

#[test]
fn a_task_started_during_a_close_runs_or_is_refused() {
    check(3, || {
        let (g, ctx) = Group::with_context(Context::background());
        let ended = Ended::default();
        let (spawner, runs) = (g.spawner(), ended.clone());
        let starts = thread::spawn(move || {
            spawner.go(runs.run());
        });
        g.close();
        let late = g.go(async { panic!("started after the close") });
        assert!(!block_on(late.into_future()).is_started());
        starts.join().unwrap();
        assert!(!ctx.is_done());
        let refused = match block_on(g.wait_all()) {
            Ok(()) => 0,
            Err(errors) => errors.len(),
        };
        assert_eq!(ended.count() + refused, 2);
    });
}

#[test]
fn two_callers_of_close_and_wait_get_one_error() {
    check(2, || {
        let g = Arc::new(Group::new());
        g.go(async { Err("no".to_owned()) });
        let other = g.clone();
        let waits = thread::spawn(move || block_on(other.close_and_wait()).is_err());
        let failed = block_on(g.close_and_wait()).is_err();
        assert!(failed != waits.join().unwrap());
        assert!(g.context().is_done());
    });
}
