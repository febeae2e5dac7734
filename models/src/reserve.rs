//! Reservations in races with the end of the context, a change of the limit, and their own drop.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use loom::thread;

use crate::{Group, block_on, check};

/// Polls a future once, with a waker that does nothing.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_reservation_that_waits_sees_the_end_of_the_context() {
    check(2, || {
        let g = Arc::new(Group::new());
        g.set_limit(0);
        let cancels = g.clone();
        let canceller = thread::spawn(move || cancels.cancel());
        assert!(block_on(g.reserve()).unwrap_err().is_cancelled());
        canceller.join().unwrap();
        assert_eq!((g.running(), g.queued()), (0, 0));
        let g = Arc::into_inner(g).unwrap();
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}

#[test]
fn a_permit_against_the_end_of_the_context_runs_or_is_refused() {
    check(2, || {
        let g = Arc::new(Group::new());
        g.set_limit(1);
        let ran = Arc::new(AtomicUsize::new(0));
        let permit = block_on(g.reserve()).unwrap();
        let cancels = g.clone();
        let canceller = thread::spawn(move || cancels.cancel());
        let runs = ran.clone();
        permit.go(async move {
            runs.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        canceller.join().unwrap();
        let g = Arc::into_inner(g).unwrap();
        let refused = usize::from(block_on(g.wait()).is_err());
        assert_eq!(ran.load(Ordering::SeqCst) + refused, 1);
    });
}

#[test]
fn a_reservation_that_waits_sees_a_raised_limit() {
    check(2, || {
        let g = Arc::new(Group::new());
        g.set_limit(0);
        let raises = g.clone();
        let raiser = thread::spawn(move || raises.set_limit(1));
        let permit = block_on(g.reserve()).unwrap();
        raiser.join().unwrap();
        assert_eq!(g.running(), 1);
        drop(permit);
        assert_eq!(g.running(), 0);
        let g = Arc::into_inner(g).unwrap();
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}

#[test]
fn a_reservation_dropped_while_it_is_granted_loses_no_permit() {
    check(2, || {
        let g = Arc::new(Group::new());
        g.set_limit(1);
        let permit = block_on(g.reserve()).unwrap();
        let mut dropped = Box::pin(g.reserve());
        assert!(poll_once(dropped.as_mut()).is_pending());
        let next = g.reserve();
        let granter = thread::spawn(move || drop(permit));
        drop(dropped);
        // Granted to the next one, whichever came first.
        drop(block_on(next).unwrap());
        granter.join().unwrap();
        assert_eq!((g.running(), g.queued()), (0, 0));
        let g = Arc::into_inner(g).unwrap();
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}

#[test]
fn a_reservation_that_waits_sees_the_end_of_the_wait() {
    check(2, || {
        let g = Group::new();
        g.set_limit(0);
        let reserve = g.reserve();
        let waiter = thread::spawn(move || assert_eq!(block_on(g.wait()), Ok(())));
        assert!(block_on(reserve).is_err());
        waiter.join().unwrap();
    });
}

#[test]
fn a_task_that_reserves_goes_on_with_that_permit() {
    check(1, || {
        let g = Group::new();
        g.set_limit(1);
        let (spawner, now) = (g.spawner(), Arc::new(AtomicUsize::new(0)));
        let runs = now.clone();
        g.go(async move {
            let permit = spawner.reserve().await.unwrap();
            let other = runs.clone();
            runs.fetch_add(1, Ordering::SeqCst);
            permit.go(async move {
                // Not while its starter is polled.
                assert_eq!(other.load(Ordering::SeqCst), 0);
                Ok(())
            });
            thread::yield_now();
            runs.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        });
        assert_eq!(block_on(g.wait()), Ok(()));
        assert_eq!(now.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_job_of_an_inner_group_reserves_on_behalf_of_its_task() {
    check(1, || {
        let g = Group::new();
        g.set_limit(1);
        let spawner = g.spawner();
        g.go(async move {
            let inner = Group::new();
            inner.go(async move {
                spawner.reserve().await.unwrap().go(async { Ok(()) });
                Ok(())
            });
            inner.wait().await
        });
        assert_eq!(block_on(g.wait()), Ok(()));
    });
}
