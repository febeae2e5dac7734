//! Work that a call has started runs although the caller blocks its thread.
//!
//! tokio keeps the task that a thread spawned or woke last in a slot from which no other thread
//! takes it. In each test, a task of the runtime makes a call of the crate, and then blocks its
//! thread until another thread has done the work of that call. A defect hangs until the timeout.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use errgroup::{Context, Spawner, fan_out, fetch_all};
use futures::StreamExt;
use tokio::task::yield_now;

use crate::group_support::*;
use crate::support::compute;

/// Runs `body` in a task, on two and on eight workers.
#[track_caller]
fn on_a_worker<F>(body: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    for workers in [2, 8] {
        on_threads(workers, &body);
    }
}

/// Says that something has happened, or been dropped.
fn signal() -> (Said, Receiver<()>) {
    let (says, said) = channel();
    (Said(says), said)
}

#[derive(Clone)]
struct Said(Sender<()>);

impl Said {
    fn say(&self) {
        let _ = self.0.send(());
    }
}

struct SaysOnDrop(Said);

impl Drop for SaysOnDrop {
    fn drop(&mut self) {
        self.0.say();
    }
}

/// Starts or queues a task that never ends, and says when it has been dropped.
fn dropped_task(g: &G) -> Receiver<()> {
    let (says, said) = signal();
    let held = SaysOnDrop(says);
    g.go(async move {
        std::future::pending::<()>().await;
        drop(held);
        Ok(())
    });
    said
}

/// Blocks the thread, as a computation would.
#[track_caller]
fn block_until(said: &Receiver<()>) {
    said.recv_timeout(PATIENCE / 12)
        .expect("another thread does it meanwhile");
}

/// Starts tasks and computes in turns, and then blocks until all but the last task have run: that
/// one may stay in the slot, as with `tokio::spawn`.
fn start_and_compute(s: &Spawner<String>, tasks: usize) {
    let (says, said) = signal();
    for _ in 0..tasks {
        let says = says.clone();
        s.go(async move {
            says.say();
            Ok(())
        });
        compute();
    }
    (1..tasks).for_each(|_| block_until(&said));
}

#[test]
fn all_tasks_but_the_last_start_while_their_starter_computes() {
    on_a_worker(|| async {
        let (g, _ctx) = group();
        start_and_compute(&g.spawner(), 200);
        assert_eq!(g.wait().await, OK);
    });
}

#[test]
fn all_but_the_last_start_while_their_starter_task_computes() {
    on_a_worker(|| async {
        let g = limited(2);
        let s = g.spawner();
        g.go(async move {
            start_and_compute(&s, 200);
            Ok(())
        });
        assert_eq!(g.wait().await, OK);
    });
}

#[test]
fn tasks_started_together_run_while_their_starter_computes() {
    on_a_worker(|| async {
        for tasks in 2..20 {
            let (g, _ctx) = group();
            let (says, said) = signal();
            for _ in 0..tasks {
                let says = says.clone();
                g.go(async move {
                    says.say();
                    Ok(())
                });
            }
            block_until(&said);
            assert_eq!(g.wait().await, OK);
        }
    });
}

#[test]
fn a_blocking_closure_begins_while_its_starter_computes() {
    on_a_worker(|| async {
        let (g, _ctx) = group();
        let (says, said) = signal();
        g.go_blocking(move |_| {
            says.say();
            Ok(())
        });
        block_until(&said);
        assert_eq!(g.wait().await, OK);
    });
}

#[test]
fn tasks_that_block_each_get_a_thread() {
    // A task that runs must not keep the next one from being found.
    on_a_worker(|| async {
        let (g, _ctx) = group();
        let mut gates = Vec::new();
        let (says, said) = signal();
        for _ in 0..2 {
            let says = says.clone();
            let (opens, gate) = channel::<()>();
            gates.push(opens);
            g.go(async move {
                says.say();
                let _ = gate.recv();
                Ok(())
            });
        }
        // The starter is idle from here on, so each task has a thread.
        let waits = tokio::spawn(g.wait());
        tokio::task::spawn_blocking(move || {
            block_until(&said);
            block_until(&said);
            drop(gates);
        });
        assert_eq!(waits.await.unwrap(), OK);
    });
}

#[test]
fn a_starter_that_computes_does_not_delay_what_others_start() {
    on_a_worker(|| async {
        let (g, _ctx) = group();
        let s = g.spawner();
        let (says, said) = signal();
        let (started, has_started) = signal();
        let other = tokio::spawn(async move {
            while has_started.try_recv().is_err() {
                yield_now().await;
            }
            assert_eq!(s.spawn(async { Ok(7) }).await.unwrap(), 7);
            says.say();
        });
        g.go(async { Ok(()) });
        started.say();
        block_until(&said);
        other.await.unwrap();
        assert_eq!(g.wait().await, OK);
    });
}

#[test]
fn a_raised_limit_starts_queued_tasks_while_the_caller_computes() {
    on_a_worker(|| async {
        let g = limited(0);
        let (says, said) = signal();
        g.go(async move {
            says.say();
            Ok(())
        });
        yield_now().await;
        g.set_limit(1);
        block_until(&said);
        assert_eq!(g.wait().await, OK);
    });
}

#[test]
fn a_cancel_drops_queued_tasks_while_its_caller_computes() {
    on_a_worker(|| async {
        let g = limited(0);
        let said = dropped_task(&g);
        yield_now().await;
        g.cancel();
        block_until(&said);
        assert!(g.wait().await.is_err());
    });
}

#[test]
fn an_abort_drops_queued_tasks_while_its_caller_computes() {
    on_a_worker(|| async {
        let g = limited(0);
        let said = dropped_task(&g);
        yield_now().await;
        g.abort();
        block_until(&said);
        assert!(g.wait().await.is_err());
    });
}

/// Waits in a way after which no worker polls the timers of the runtime: the one that did has left
/// them to poll this task, and has woken no other.
async fn wake_from_a_timer() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[test]
fn a_queue_is_dropped_at_its_deadline_while_its_starter_computes() {
    on_a_worker(|| async {
        wake_from_a_timer().await;
        let deadline = Context::background().with_timeout(Duration::from_millis(5));
        let (g, _ctx) = G::with_context(&deadline);
        g.set_limit(0);
        let said = dropped_task(&g);
        block_until(&said);
        assert!(g.wait().await.is_err());
    });
}

#[test]
fn a_queue_is_dropped_at_its_deadline_while_a_worker_computes() {
    on_a_worker(|| async {
        let deadline = Context::background().with_timeout(Duration::from_millis(200));
        let (g, _ctx) = G::with_context(&deadline);
        g.set_limit(1);
        g.go(std::future::pending());
        wake_from_a_timer().await;
        // The task is queued by a thread outside of the runtime.
        let said = std::thread::scope(|scope| scope.spawn(|| dropped_task(&g)).join().unwrap());
        block_until(&said);
        g.abort();
        assert!(g.wait().await.is_err());
    });
}

#[test]
fn a_grace_is_kept_while_the_starter_computes() {
    on_a_worker(|| async {
        wake_from_a_timer().await;
        let deadline = Context::background().with_timeout(Duration::from_millis(5));
        let (g, _ctx) = G::with_context(&deadline);
        g.set_grace(Duration::from_millis(1));
        let said = dropped_task(&g);
        block_until(&said);
        assert!(g.wait().await.is_err());
    });
}

#[test]
fn a_grace_is_kept_while_the_canceller_computes() {
    on_a_worker(|| async {
        wake_from_a_timer().await;
        let (g, _ctx) = group();
        let (says, said) = signal();
        let held = SaysOnDrop(says);
        let runs = Count::default();
        let counts = runs.clone();
        g.go(async move {
            counts.add();
            std::future::pending::<()>().await;
            drop(held);
            Ok(())
        });
        until(|| runs.get() == 1).await;
        g.set_grace(Duration::from_millis(1));
        g.cancel();
        block_until(&said);
        assert!(g.wait().await.is_err());
    });
}

#[test]
fn a_fan_out_runs_while_its_task_computes() {
    on_a_worker(|| async {
        let (says, said) = signal();
        let ctx = Context::background();
        let items = fetch_all(&ctx, 2, 0..2, move |_, _| {
            let says = says.clone();
            async move {
                says.say();
                Ok::<_, String>(())
            }
        });
        let compute = async move {
            block_until(&said);
            block_until(&said);
        };
        let (done, ()) = tokio::join!(items, compute);
        assert!(done.is_ok());
    });
}

/// Items that never end, each of which says when it is dropped.
fn items_of(count: usize, says: Said) -> Vec<impl Future<Output = Result<(), String>> + Send> {
    let says = std::iter::repeat_n(says, count);
    says.map(|says| async move {
        let _held = SaysOnDrop(says);
        std::future::pending().await
    })
    .collect()
}

#[test]
fn a_fan_out_is_stopped_at_its_deadline_while_its_task_computes() {
    for count in [1, 3, 20] {
        on_a_worker(|| async move {
            wake_from_a_timer().await;
            let (says, said) = signal();
            // Long enough that all items have started: those that have not are dropped by the call.
            let ctx = Context::background().with_timeout(Duration::from_millis(300));
            let items = items_of(count, says);
            let run = fetch_all(&ctx, count, items, |_, item| item);
            let compute = async move {
                for _ in 0..count {
                    block_until(&said);
                }
            };
            let (done, ()) = tokio::join!(run, compute);
            assert!(done.is_err());
        });
    }
}

#[test]
fn a_stream_runs_on_while_its_consumer_computes() {
    on_a_worker(|| async {
        let (says, said) = signal();
        let ctx = Context::background();
        let items = fan_out(&ctx, 0..50, move |_, item| {
            let says = says.clone();
            async move {
                says.say();
                Ok::<_, String>(item)
            }
        });
        let mut items = items.limit(1).ordered_stream();
        for item in 0..49 {
            assert_eq!(items.next().await, Some(Ok(item)));
            block_until(&said);
            if item == 0 {
                block_until(&said);
            }
        }
    });
}
