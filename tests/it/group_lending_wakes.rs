//! Claims on a lent permit that end in an unusual way, and permits that become free in one: what
//! waits for the permit is woken all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use errgroup::{Permit, Spawner};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::group_support::*;

both_flavours![
    a_claim_of_a_closure_that_drops_another_awaitable,
    an_await_of_a_closure_on_whose_behalf_a_job_is_polled,
    a_job_elsewhere_whose_task_is_dropped_with_its_group,
    a_job_elsewhere_whose_closure_ends,
    a_clone_outside_of_what_a_closure_has_claimed_for,
    a_closure_that_claims_during_the_last_poll_before_an_abort,
    a_closure_that_claims_while_refused_work_is_dropped,
    a_start_that_is_deferred_by_a_deferred_start,
];

/// Awaits `future`, and counts its polls.
async fn counted<F: Future>(polls: Count, future: F) -> F::Output {
    let mut future = Box::pin(future);
    std::future::poll_fn(|cx| {
        let polled = future.poll_unpin(cx);
        polls.add();
        polled
    })
    .await
}

/// Blocks this thread until `condition` is true. Returns whether it was in time.
fn block_until(condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > Duration::from_secs(5) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Starts a task that runs until the gate opens. Returns how often it has started.
fn holds_until(
    gate: &Gate,
    started: &Count,
) -> impl Future<Output = Result<usize, String>> + use<> {
    let (gate, started) = (gate.clone(), started.clone());
    async move {
        started.add();
        gate.pass().await;
        Ok(1)
    }
}

/// The closure's first handle is decided, and claims the permit, which the task of the second one
/// has. Then the closure drops the second handle, and has its permit again.
async fn a_claim_of_a_closure_that_drops_another_awaitable() {
    let g = limited(1);
    let (s, held, drops) = (g.spawner(), Gate::new(), Gate::new());
    let (runs, polls) = (Count::default(), Count::default());
    let holds = holds_until(&held, &runs);
    let continues = Count::default();
    let (is_dropped, polled, continued) = (drops.clone(), polls.clone(), continues.clone());
    g.go_blocking(move |_| {
        let decided = s.spawn(async { Ok(2) });
        let dropped = s.spawn(holds);
        let drops = async {
            tokio::select! {
                _ = dropped => false,
                () = is_dropped.pass() => true,
            }
        };
        let waits_for_the_task = async { block_until(|| runs.get() == 1) };
        let both = async { futures::join!(decided, drops, waits_for_the_task) };
        let (decided, dropped, in_time) = Handle::current().block_on(counted(polled, both));
        assert!(in_time && dropped && matches!(decided, Ok(2)));
        continued.add();
        OK
    });
    // In the second poll it finds the decision.
    until(|| polls.get() == 2).await;
    drops.open();
    // The closure continues although the task still has a permit.
    until(|| continues.get() == 1).await;
    held.open();
    assert_eq!(g.wait().await, OK);
}

/// The job elsewhere is polled under the closure's permit while the closure begins to await a task.
async fn an_await_of_a_closure_on_whose_behalf_a_job_is_polled() {
    let (g, elsewhere) = (limited(1), limited(1));
    let (s, other) = (g.spawner(), elsewhere.spawner());
    let (opens, polls) = (Gate::new(), Count::default());
    let (opened, polled) = (opens.clone(), polls.clone());
    g.go_blocking(move |_| {
        let of = s.clone();
        let job = other.spawn(async move {
            let awaited = of.spawn(async { OK });
            drop(of);
            let _ = awaited.await;
            opens.open();
            assert!(block_until(|| polls.get() >= 1));
            OK
        });
        let awaits = async {
            opened.pass().await;
            let mut list: FuturesUnordered<_> = [s.spawn(async { Ok(3) })].into_iter().collect();
            counted(polled, list.next()).await.unwrap().unwrap()
        };
        let both = async { futures::join!(job, awaits) };
        let (job, third) = Handle::current().block_on(both);
        assert!(job.is_ok() && third == 3);
        OK
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(elsewhere.wait().await, OK);
}

/// A job of `elsewhere` that awaits a task of `s`, behind which another one takes the permit for
/// good. When the job is woken, it claims the permit of a task of `s` that awaits the job.
fn waits_for_a_task_of(
    s: Spawner<String>,
    runs: &Count,
    held: &Gate,
) -> impl Future<Output = Result<(), String>> + use<> {
    let holds = holds_until(held, runs);
    async move {
        let awaited = s.spawn(async { Ok(()) });
        drop(s.spawn(holds));
        drop(s);
        awaited.await.map_err(|why| why.to_string())
    }
}

async fn a_job_elsewhere_whose_task_is_dropped_with_its_group() {
    let (g, elsewhere) = (limited(1), limited(1));
    let (runs, held) = (Count::default(), Gate::new());
    let (s, waits) = (
        elsewhere.spawner(),
        waits_for_a_task_of(g.spawner(), &runs, &held),
    );
    g.go(async move { s.spawn(waits).await.map_err(|why| why.to_string()) });
    until(|| runs.get() == 1).await;
    yields(20).await;
    drop(g);
    assert_eq!(elsewhere.wait().await, OK);
}

async fn a_job_elsewhere_whose_closure_ends() {
    let (g, elsewhere) = (limited(1), limited(1));
    let (runs, held, ends) = (Count::default(), Gate::new(), Gate::new());
    let (s, waits) = (
        elsewhere.spawner(),
        waits_for_a_task_of(g.spawner(), &runs, &held),
    );
    let ended = ends.clone();
    let has_ended = Arc::new(AtomicBool::new(false));
    let sets = has_ended.clone();
    g.go_blocking(move |_| {
        let job = s.spawn(waits);
        Handle::current().block_on(async {
            tokio::select! {
                _ = job => {}
                () = ended.pass() => {}
            }
        });
        sets.store(true, Ordering::SeqCst);
        OK
    });
    until(|| runs.get() == 1).await;
    yields(20).await;
    ends.open();
    // The job goes on although the permit is held.
    assert_eq!(elsewhere.wait().await, OK);
    until(|| has_ended.load(Ordering::SeqCst)).await;
    held.open();
    assert_eq!(g.wait().await, OK);
}

/// A shared future has one waker of its own, for the closure and for the clone outside.
async fn a_clone_outside_of_what_a_closure_has_claimed_for() {
    let g = limited(1);
    let (s, held, ends) = (g.spawner(), Gate::new(), Gate::new());
    let (runs, polls) = (Count::default(), Count::default());
    let (holds, ended, polled) = (holds_until(&held, &runs), ends.clone(), polls.clone());
    let (send, receive) = oneshot::channel();
    g.go_blocking(move |_| {
        let shared = s.spawn(async { Ok(2) }).shared();
        assert!(send.send(shared.clone()).is_ok());
        drop(s.spawn(holds));
        let awaits = async {
            tokio::select! {
                biased;
                () = ended.pass() => {}
                _ = shared => {}
            }
        };
        let waits_for_the_task = async { block_until(|| runs.get() == 1) };
        let both = async { futures::join!(awaits, waits_for_the_task) };
        Handle::current().block_on(counted(polled, both));
        OK
    });
    let outside = receive.await.unwrap();
    until(|| polls.get() >= 2).await;
    let awaits = tokio::spawn(outside);
    yields(20).await;
    ends.open();
    assert_eq!(awaits.await.unwrap().unwrap(), 2);
    held.open();
    assert_eq!(g.wait().await, OK);
}

/// The abort comes during the poll in which the task ends that has the closure's permit.
async fn a_closure_that_claims_during_the_last_poll_before_an_abort() {
    let g = Arc::new(limited(1));
    let (s, aborts, gate, polls) = (g.spawner(), g.clone(), Gate::new(), Count::default());
    let (gated, polled) = (gate.clone(), polls.clone());
    let is_started = Arc::new(AtomicBool::new(false));
    let started = is_started.clone();
    g.go_blocking(move |_| {
        let admission = s.go(async move {
            gated.pass().await;
            aborts.abort();
            OK
        });
        let admission = Handle::current().block_on(counted(polled, admission));
        started.store(admission.is_started(), Ordering::SeqCst);
        OK
    });
    // In the second poll it finds the decision.
    until(|| polls.get() == 2).await;
    gate.open();
    assert_eq!(g.close_and_wait().await, OK);
    assert!(is_started.load(Ordering::SeqCst));
}

/// The destructor of work that never runs waits until the closure has continued.
async fn a_closure_that_claims_while_refused_work_is_dropped() {
    let g = limited(1);
    let (s, gate, polls) = (g.spawner(), Gate::new(), Count::default());
    let (gated, polled) = (gate.clone(), polls.clone());
    let [continues, in_time] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (continued, was_in_time) = (continues.clone(), in_time.clone());
    g.go_blocking(move |_| {
        let admission = s.go(async move {
            gated.pass().await;
            Err("the cause".to_owned())
        });
        let waits = OnDrop(move || {
            let in_time = block_until(|| continued.load(Ordering::SeqCst));
            was_in_time.store(in_time, Ordering::SeqCst);
        });
        drop(s.go(async move {
            let _waits = waits;
            OK
        }));
        Handle::current().block_on(counted(polled, admission));
        continues.store(true, Ordering::SeqCst);
        OK
    });
    until(|| polls.get() == 2).await;
    gate.open();
    assert_eq!(g.wait().await, Err("the cause".to_owned()));
    assert!(in_time.load(Ordering::SeqCst));
}

struct StartsOnDrop(Option<Permit<String>>, Count);

impl Drop for StartsOnDrop {
    fn drop(&mut self) {
        let dropped = OnDrop({
            let count = self.1.clone();
            move || _ = count.add()
        });
        if let Some(permit) = self.0.take() {
            permit.go(async move {
                let _dropped = dropped;
                OK
            });
        }
    }
}

/// The task runs on two reserved permits. In its last poll it starts a task with each: the second
/// one in the destructor of the first one, which is refused.
async fn a_start_that_is_deferred_by_a_deferred_start() {
    let g = limited(2);
    let (s, held) = (g.spawner(), Gate::new());
    let (runs, dropped) = (Count::default(), Count::default());
    let counted = dropped.clone();
    g.go(holds_until(&held, &runs).map(|ended| ended.map(drop)));
    until(|| runs.get() == 1).await;
    let reserved = Count::default();
    let reserves = reserved.clone();
    g.go(async move {
        let reserve = || s.reserve().inspect(|_| _ = reserves.add());
        let (first, second) = futures::join!(reserve(), reserve());
        let (first, second) = (first.unwrap(), second.unwrap());
        s.cancel();
        let starts = StartsOnDrop(Some(second), counted);
        first.go(async move {
            let _starts = starts;
            OK
        });
        OK
    });
    until(|| reserved.get() == 1).await;
    held.open();
    g.idle().await;
    assert_eq!((g.running(), dropped.get()), (0, 1));
    assert!(g.close_and_wait().await.is_err());
}
