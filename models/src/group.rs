//! Ends, starts, limits and failures of a group in races with each other.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll, Wake, Waker};

use errgroup::Context;
use loom::thread;

use crate::{Group, block_on, check};

/// Counts the running tasks. It uses the atomics of std, which are not part of the model.
#[derive(Clone, Default)]
struct Gauge {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
}

impl Gauge {
    async fn run(self) -> Result<(), String> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        yield_once().await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        self.ended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[test]
fn a_wait_sees_the_end_of_the_last_task() {
    check(2, || {
        let g = Group::new();
        let gauge = Gauge::default();
        g.go(gauge.clone().run());
        assert_eq!(block_on(g.wait()), Ok(()));
        assert_eq!(gauge.ended(), 1);
    });
}

#[test]
fn a_wait_sees_the_ends_of_two() {
    check(2, || {
        let g = Group::new();
        let gauge = Gauge::default();
        g.go(gauge.clone().run());
        g.go(gauge.clone().run());
        assert_eq!(block_on(g.wait()), Ok(()));
        assert_eq!(gauge.ended(), 2);
    });
}

#[test]
fn a_task_queued_while_the_last_worker_exits_is_run() {
    check(3, || {
        let g = Group::new();
        g.set_limit(1);
        let gauge = Gauge::default();
        g.go(async { Ok(()) });
        g.go(gauge.clone().run());
        assert_eq!(block_on(g.wait()), Ok(()));
        assert_eq!((gauge.ended(), gauge.most()), (1, 1));
    });
}

#[test]
fn a_task_queued_during_a_search_does_not_wait_for_that_job() {
    check(1, || {
        let g = Group::new();
        let (ctx, guard) = Context::background().with_cancel();
        // The first one gets a worker of its own, the second one a worker that was spawned to
        // search.
        for ctx in [ctx.clone(), ctx] {
            g.go(async move {
                ctx.done().await;
                Ok(())
            });
        }
        g.go(async move {
            drop(guard);
            Ok(())
        });
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}

#[test]
fn a_task_queued_by_a_task_is_run() {
    check(2, || {
        let g = Group::new();
        g.set_limit(1);
        let gauge = Gauge::default();
        let (spawner, child) = (g.spawner(), gauge.clone());
        g.go(async move {
            spawner.go(child.run());
            Ok(())
        });
        assert_eq!(block_on(g.wait()), Ok(()));
        assert_eq!(gauge.ended(), 1);
    });
}

#[test]
fn an_admission_resolves_when_its_task_starts() {
    check(2, || {
        let g = Group::new();
        g.set_limit(1);
        g.go(async { Ok(()) });
        let admitted = block_on(g.go(async { Ok(()) }).into_future());
        assert!(admitted.is_started());
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}

#[test]
fn a_raised_limit_starts_queued_tasks() {
    check(2, || {
        let g = Arc::new(Group::new());
        g.set_limit(0);
        let gauge = Gauge::default();
        let raises = g.clone();
        let raiser = thread::spawn(move || raises.set_limit(1));
        g.go(gauge.clone().run());
        raiser.join().unwrap();
        let g = Arc::into_inner(g).unwrap();
        assert_eq!(block_on(g.wait()), Ok(()));
        assert_eq!((gauge.ended(), gauge.most()), (1, 1));
    });
}

#[test]
fn a_limit_changed_while_a_worker_exits_loses_no_task() {
    check(2, || {
        let g = Arc::new(Group::new());
        g.set_limit(1);
        let gauge = Gauge::default();
        g.go(gauge.clone().run());
        let changes = g.clone();
        let changer = thread::spawn(move || {
            changes.set_limit(0);
            changes.set_limit(1);
        });
        g.go(gauge.clone().run());
        changer.join().unwrap();
        let g = Arc::into_inner(g).unwrap();
        assert_eq!(block_on(g.wait()), Ok(()));
        assert_eq!((gauge.ended(), gauge.most()), (2, 1));
    });
}

#[test]
fn a_task_that_awaits_an_admission_lends_and_claims_its_permit() {
    check(2, || {
        let g = Group::new();
        g.set_limit(1);
        let gauge = Gauge::default();
        let (spawner, child) = (g.spawner(), gauge.clone());
        let lends = gauge.clone();
        g.go(async move {
            let admitted = spawner.go(child.run()).await;
            assert!(admitted.is_started());
            lends.run().await
        });
        assert_eq!(block_on(g.wait()), Ok(()));
        assert_eq!((gauge.ended(), gauge.most()), (2, 1));
    });
}

#[test]
fn a_task_lends_while_its_inner_group_awaits_a_sibling() {
    check(1, || {
        let g = Group::new();
        g.set_limit(1);
        let spawner = g.spawner();
        g.go(async move {
            let inner = Group::new();
            inner.go(async move {
                assert_eq!(spawner.spawn(async { Ok(7) }).await.unwrap(), 7);
                Ok(())
            });
            inner.wait().await
        });
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}

/// The handle is polled once with a waker that does nothing, and dropped while it is decided.
#[test]
fn a_dropped_handle_does_not_keep_its_task_from_lending() {
    struct Nowhere;
    impl Wake for Nowhere {
        fn wake(self: Arc<Self>) {}
    }
    check(1, || {
        let g = Group::new();
        g.set_limit(1);
        let gauge = Gauge::default();
        let (spawner, child) = (g.spawner(), gauge.clone());
        g.go(async move {
            let mut handle = spawner.spawn(async { Ok(7) });
            let waker = Waker::from(Arc::new(Nowhere));
            let polled = Pin::new(&mut handle).poll(&mut task::Context::from_waker(&waker));
            assert!(polled.is_pending());
            drop(handle);
            let admitted = spawner.go(child.run()).await;
            assert!(admitted.is_started());
            Ok(())
        });
        assert_eq!(block_on(g.wait()), Ok(()));
        assert_eq!((gauge.ended(), gauge.most()), (1, 1));
    });
}

#[test]
fn two_handles_awaited_at_once_both_resolve() {
    check(2, || {
        let g = Group::new();
        g.set_limit(1);
        let gauge = Gauge::default();
        let (spawner, child, lends) = (g.spawner(), gauge.clone(), gauge.clone());
        g.go(async move {
            let mut one = spawner.spawn(async { Ok(1) });
            let mut two = Some(spawner.go(child.run()));
            let (mut first, mut second) = (None, None);
            poll_fn(|cx| {
                if first.is_none() {
                    if let Poll::Ready(value) = Pin::new(&mut one).poll(cx) {
                        first = Some(value);
                    }
                }
                if let Some(Poll::Ready(admitted)) = two.as_mut().map(|it| Pin::new(it).poll(cx)) {
                    second = Some(admitted.is_started());
                    two = None;
                }
                match (&first, second) {
                    (Some(Ok(1)), Some(true)) => Poll::Ready(()),
                    _ => Poll::Pending,
                }
            })
            .await;
            lends.run().await
        });
        assert_eq!(block_on(g.wait()), Ok(()));
        assert_eq!((gauge.ended(), gauge.most()), (2, 1));
    });
}

#[test]
fn a_task_that_lends_receives_the_value_of_its_sibling() {
    check(2, || {
        let g = Group::new();
        g.set_limit(1);
        let spawner = g.spawner();
        g.go(async move {
            let handle = spawner.spawn(async { Ok(7) });
            assert_eq!(handle.await.unwrap(), 7);
            Ok(())
        });
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}

#[test]
fn a_task_stopped_by_its_handle_while_it_ends_ends_once() {
    check(2, || {
        let g = Group::new();
        let gauge = Gauge::default();
        let task = gauge.clone();
        let handle = g.spawn(async move {
            task.run().await?;
            Ok(7)
        });
        handle.abort();
        // The value, if the task was quicker. In any case the handle resolves.
        match block_on(handle) {
            Ok(value) => assert_eq!((value, gauge.ended()), (7, 1)),
            Err(error) => assert!(error.is_cancelled()),
        }
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}

#[test]
fn a_task_stopped_by_its_handle_while_it_begins_to_wait_is_dropped() {
    check(2, || {
        let g = Group::new();
        let handle = g.spawn::<(), _>(std::future::pending());
        let stopper = thread::spawn(move || {
            handle.abort();
            handle
        });
        assert_eq!(block_on(g.wait()), Ok(()));
        assert!(stopper.join().unwrap().is_finished());
    });
}

#[test]
fn a_task_stopped_in_the_queue_while_it_starts_ends_once() {
    check(2, || {
        let g = Group::new();
        g.set_limit(1);
        g.go(async { Ok(()) });
        let gauge = Gauge::default();
        let task = gauge.clone();
        let handle = g.spawn(async move {
            task.run().await?;
            Ok(7)
        });
        handle.abort();
        match block_on(handle) {
            Ok(value) => assert_eq!((value, gauge.ended()), (7, 1)),
            Err(error) => assert!(error.is_cancelled()),
        }
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}

#[test]
fn a_background_task_is_ended_by_the_end_of_the_last_other_task() {
    check(2, || {
        let (g, ctx) = Group::with_context(Context::background());
        g.task().background().go(async move {
            ctx.done().await;
            Ok(())
        });
        g.go(async {
            yield_once().await;
            Ok(())
        });
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}

/// The task ends in its first poll: one that is pending needs a timer, which no model has. The
/// starter keeps the group alive: `Weak` is not modelled.
#[test]
fn a_clean_up_task_started_during_the_last_end_is_waited_for() {
    check(2, || {
        let g = Arc::new(Group::new());
        let cleaned = Arc::new(AtomicUsize::new(0));
        let (group, clean) = (g.clone(), cleaned.clone());
        let starter = thread::spawn(move || {
            let builder = group.task().cleanup(std::time::Duration::MAX);
            let admission = builder.go(async move {
                clean.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            block_on(admission).is_started()
        });
        g.cancel();
        let waited = block_on(g.close_and_wait());
        let was_cleaned = cleaned.load(Ordering::SeqCst) == 1;
        let is_started = starter.join().unwrap();
        // Either the wait has waited for it, or it was refused.
        assert_eq!(waited, Ok(()));
        assert_eq!(was_cleaned, is_started);
    });
}

#[test]
fn of_an_error_and_a_panic_the_first_is_the_cause() {
    quiet();
    check(2, || {
        let (g, ctx) = Group::with_context(Context::background());
        g.go(async { Err("the error".to_owned()) });
        g.go(async { panic!("the panic") });
        let errors = block_on(g.wait_all()).unwrap_err();
        let first = errors.iter().next().unwrap().to_string();
        let cause = ctx.cause().unwrap().to_string();
        let is_panic = |text: &str| text.contains("the panic");
        assert_eq!(is_panic(&first), is_panic(&cause), "{first}; {cause}");
    });
}

#[test]
fn the_error_is_set_when_a_sibling_sees_the_cancel() {
    check(2, || {
        let (g, ctx) = Group::with_context(Context::background());
        let sees = ctx.clone();
        g.go(async move {
            let error = sees.done().await;
            assert_eq!(error.cause().unwrap().to_string(), "no");
            Err("obeyed".to_owned())
        });
        g.go(async { Err("no".to_owned()) });
        assert_eq!(block_on(g.wait()), Err("no".to_owned()));
    });
}

#[test]
fn a_task_queued_during_the_first_failure_gets_no_permit() {
    check(2, || {
        let (g, _ctx) = Group::with_context(Context::background());
        g.set_limit(1);
        g.go(async { Err("no".to_owned()) });
        let late = Gauge::default();
        g.go(late.clone().run());
        assert_eq!(block_on(g.wait()), Err("no".to_owned()));
        assert_eq!(late.ended(), 0);
    });
}

#[test]
fn a_task_queued_during_a_cancel_resolves_as_not_started() {
    check(2, || {
        let (ctx, guard) = Context::background().with_cancel();
        let (g, _ctx) = Group::with_context(&ctx);
        g.set_limit(0);
        let gauge = Gauge::default();
        let admission = g.go(gauge.clone().run());
        let cancels = thread::spawn(move || guard.cancel());
        assert!(!block_on(admission.into_future()).is_started());
        cancels.join().unwrap();
        assert!(block_on(g.wait()).is_err());
        assert_eq!(gauge.ended(), 0);
    });
}

#[test]
fn a_group_dropped_while_its_task_ends_stops_all_tasks() {
    check(2, || {
        let (g, ctx) = Group::with_context(Context::background());
        g.set_limit(1);
        g.go(async { Ok(()) });
        g.go(std::future::pending());
        drop(g);
        assert!(ctx.is_done());
    });
}

#[test]
fn a_group_dropped_while_its_task_begins_to_wait_stops_the_task() {
    check(3, || {
        let (g, ctx) = Group::with_context(Context::background());
        g.go(std::future::pending());
        drop(g);
        assert!(ctx.is_done());
    });
}

#[test]
fn a_task_started_during_an_abort_is_dropped() {
    check(3, || {
        let (g, _ctx) = Group::with_context(Context::background());
        let spawner = g.spawner();
        let starter = thread::spawn(move || {
            spawner.go(std::future::pending());
        });
        g.abort();
        starter.join().unwrap();
        assert!(block_on(g.wait()).is_err());
    });
}

/// The panics of tasks are part of a model, so they are not printed in each of its thousands of
/// runs.
fn quiet() {
    let printed = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<&str>();
        if text != Some(&"the panic") {
            printed(info);
        }
    }));
}
