//! Tasks on the blocking pool: they are under the same limit and rules, but cannot be aborted.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use errgroup::{Context, TaskErrorKind};
use tokio::runtime::{Builder, Runtime};

use crate::group_support::*;

both_flavours![
    it_receives_the_context_of_the_group,
    it_runs_on_a_thread_of_the_pool,
    its_admission_says_that_it_has_started,
    it_is_under_the_same_limit,
    it_is_in_the_same_queue_first_in_first_out,
    it_may_start_siblings,
    a_task_that_awaits_its_admission_lends_its_permit,
    its_error_ends_the_context_and_is_the_error,
    its_panic_cancels_the_context_and_is_resumed_by_wait,
    a_panic_of_what_it_holds_is_its_panic,
    one_that_runs_is_not_aborted_by_an_abort_and_wait_waits,
    one_that_runs_is_not_aborted_by_a_grace_and_wait_waits,
    one_that_runs_is_not_aborted_when_the_group_is_dropped,
    one_that_runs_is_not_aborted_when_wait_is_dropped,
    one_that_is_queued_never_starts_after_the_end,
    after_the_end_nothing_starts,
    what_it_holds_is_dropped_when_wait_returns,
    a_closure_that_never_begins_may_block_in_its_destructor,
    a_refused_closure_may_block_in_its_destructor,
    an_aborted_closure_may_block_in_its_destructor,
    a_closure_of_a_dropped_group_may_block_in_its_destructor,
];

/// A blocking task that reports when it runs, and returns when the test lets it.
struct Held {
    runs: Receiver<Context>,
    end: Sender<Result<(), String>>,
    ended: Count,
}

fn hold(g: &G) -> Held {
    let (says, runs) = channel();
    let (end, told) = channel();
    let ended = Count::default();
    let counted = ended.clone();
    g.go_blocking(move |ctx| {
        let _ = says.send(ctx);
        let told = told.recv().unwrap_or(Ok(()));
        counted.add();
        told
    });
    Held { runs, end, ended }
}

impl Held {
    /// Its context, once it runs.
    async fn runs(&self) -> Context {
        loop {
            if let Ok(ctx) = self.runs.try_recv() {
                return ctx;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn it_receives_the_context_of_the_group() {
    let (g, ctx) = group();
    let held = hold(&g);
    let given = held.runs().await;
    assert!(!given.is_done());
    g.cancel_with("enough");
    assert_eq!(given.cause().unwrap().to_string(), "enough");
    assert!(ctx.is_done());
    held.end.send(Ok(())).unwrap();
    assert_eq!(g.wait().await, OK);
}

async fn it_runs_on_a_thread_of_the_pool() {
    let (g, _ctx) = group();
    let here = thread::current().id();
    g.go_blocking(move |_| match thread::current().id() == here {
        true => Err("it blocks the runtime".to_owned()),
        false => Ok(()),
    });
    assert_eq!(g.wait().await, OK);
}

async fn its_admission_says_that_it_has_started() {
    let g = limited(1);
    let held = hold(&g);
    let mut queued = g.go_blocking(|_| Ok(()));
    held.runs().await;
    assert!(futures::poll!(&mut queued).is_pending());
    assert_eq!((g.running(), g.queued()), (1, 1));
    assert!(g.try_go(async { Ok(()) }).is_err());
    held.end.send(Ok(())).unwrap();
    assert!(queued.await.is_started());
    assert_eq!(g.wait().await, OK);
}

async fn it_is_under_the_same_limit() {
    for limit in 1..4 {
        let (g, gauge, ran) = (limited(limit), Gauge::default(), Count::default());
        for task in 0..40 {
            let (gauge, ran) = (gauge.clone(), ran.clone());
            match task % 2 {
                0 => g.go_blocking(move |_| {
                    let _alive = gauge.enter();
                    thread::yield_now();
                    ran.add();
                    Ok(())
                }),
                _ => g.go(async move {
                    let _alive = gauge.enter();
                    yields(3).await;
                    ran.add();
                    Ok(())
                }),
            };
        }
        assert_eq!(g.wait().await, OK);
        assert_eq!(ran.get(), 40);
        assert!(gauge.most() <= limit, "{} at limit {limit}", gauge.most());
    }
}

async fn it_is_in_the_same_queue_first_in_first_out() {
    let (g, log) = (limited(1), Log::new());
    for task in 0..20 {
        let log = log.clone();
        match task % 3 {
            0 => g.go(async move {
                tokio::task::yield_now().await;
                log.add(task);
                Ok(())
            }),
            _ => g.go_blocking(move |_| {
                log.add(task);
                Ok(())
            }),
        };
    }
    assert_eq!(g.wait().await, OK);
    assert!(log.get().into_iter().eq(0..20), "{:?}", log.get());
}

async fn it_may_start_siblings() {
    let (g, ran) = (limited(1), Count::default());
    let (spawner, counted) = (g.spawner(), ran.clone());
    g.go_blocking(move |_| {
        for _ in 0..10 {
            let counted = counted.clone();
            spawner.go_blocking(move |_| {
                counted.add();
                Ok(())
            });
        }
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(ran.get(), 10);
}

async fn a_task_that_awaits_its_admission_lends_its_permit() {
    let (g, log) = (limited(1), Log::new());
    let (spawner, logs) = (g.spawner(), log.clone());
    g.go(async move {
        let blocking = logs.clone();
        let admission = spawner.go_blocking(move |_| {
            blocking.add("the closure");
            Ok(())
        });
        assert!(admission.await.is_started());
        logs.add("the task");
        Ok(())
    });
    assert_eq!(g.wait().await, OK);
    assert_eq!(log.get(), ["the closure", "the task"]);
}

async fn its_error_ends_the_context_and_is_the_error() {
    let (g, ctx) = group();
    let (sibling, failing) = (hold(&g), hold(&g));
    let seen = sibling.runs().await;
    failing.end.send(Err("boom".to_owned())).unwrap();
    ctx.done().await;
    assert_eq!(seen.cause().unwrap().to_string(), "boom");
    sibling.end.send(Err("obeyed".to_owned())).unwrap();
    assert_eq!(g.wait().await.unwrap_err(), "boom");
}

async fn its_panic_cancels_the_context_and_is_resumed_by_wait() {
    let (g, ctx) = group();
    let sibling = hold(&g);
    sibling.runs().await;
    g.named("import").go_blocking(|_| panic!("at row {}", 3));
    ctx.done().await;
    let cause = ctx.cause().unwrap().to_string();
    assert!(cause.contains("\"import\"") && cause.ends_with("panicked: at row 3"));
    sibling.end.send(Err("obeyed".to_owned())).unwrap();
    assert_eq!(text(panic_of(g.wait()).await), "at row 3");
}

async fn a_panic_of_what_it_holds_is_its_panic() {
    let (g, _ctx) = group();
    let bomb = OnDrop(|| panic!("in drop"));
    g.go_blocking(move |_| {
        let _bomb = bomb;
        Ok(())
    });
    assert_eq!(text(panic_of(g.wait()).await), "in drop");

    let g = limited(0);
    let bomb = OnDrop(|| panic!("in the queue"));
    g.go_blocking(move |_| {
        let _bomb = bomb;
        Ok(())
    });
    g.cancel();
    assert_eq!(text(panic_of(g.wait()).await), "in the queue");
}

/// Asserts that `wait` waits for the closure, whose result still counts.
async fn assert_wait_waits(g: G, held: Held) {
    let mut wait = Box::pin(g.wait());
    for _ in 0..100 {
        assert!(futures::poll!(&mut wait).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(held.ended.get(), 0);
    held.end.send(Err("its own".to_owned())).unwrap();
    assert_eq!(wait.await.unwrap_err(), "its own");
    assert_eq!(held.ended.get(), 1);
}

async fn one_that_runs_is_not_aborted_by_an_abort_and_wait_waits() {
    let g = limited(2);
    let held = hold(&g);
    let ctx = held.runs().await;
    g.abort();
    assert_eq!(ctx.cause().unwrap().to_string(), "the group was aborted");
    assert_eq!(g.running(), 1, "it still runs, and still counts");
    assert_wait_waits(g, held).await;
}

async fn one_that_runs_is_not_aborted_by_a_grace_and_wait_waits() {
    let (g, _ctx) = group();
    g.set_grace(Duration::ZERO);
    let (held, probe) = (hold(&g), Probe::default());
    held.runs().await;
    let mut g = Some(g);
    let sibling = probe.wrap(std::future::pending());
    g.iter().for_each(|g| g.cancel());
    assert!(!g.as_ref().unwrap().go(sibling).await.is_started());
    yields(50).await;
    let g = g.take().unwrap();
    assert_eq!(g.running(), 1);
    let errors = async {
        let mut wait = Box::pin(g.wait_all());
        for _ in 0..100 {
            assert!(futures::poll!(&mut wait).is_pending());
            tokio::task::yield_now().await;
        }
        held.end.send(Err("its own".to_owned())).unwrap();
        wait.await.unwrap_err()
    };
    let kinds: Vec<_> = errors.await.iter().map(|e| e.kind().to_string()).collect();
    assert_eq!(kinds, ["context cancelled", "its own"]);
    probe.assert_all_dropped();
}

async fn one_that_runs_is_not_aborted_when_the_group_is_dropped() {
    let (g, _ctx) = group();
    let held = hold(&g);
    let ctx = held.runs().await;
    drop(g);
    assert_eq!(ctx.cause().unwrap().to_string(), "the group was dropped");
    yields(20).await;
    assert_eq!(held.ended.get(), 0);
    held.end.send(Ok(())).unwrap();
    until(|| held.ended.get() == 1).await;
}

async fn one_that_runs_is_not_aborted_when_wait_is_dropped() {
    for polls in 0..4 {
        let (g, _ctx) = group();
        let held = hold(&g);
        let ctx = held.runs().await;
        let mut wait = Box::pin(g.wait());
        for _ in 0..polls {
            assert!(futures::poll!(&mut wait).is_pending());
        }
        drop(wait);
        assert!(ctx.is_done());
        held.end.send(Ok(())).unwrap();
        until(|| held.ended.get() == 1).await;
    }
}

async fn one_that_is_queued_never_starts_after_the_end() {
    let g = limited(1);
    let (held, ran) = (hold(&g), Count::default());
    held.runs().await;
    let queued: Vec<_> = (0..5)
        .map(|_| {
            let ran = ran.clone();
            g.go_blocking(move |_| {
                ran.add();
                Ok(())
            })
        })
        .collect();
    g.cancel();
    held.end.send(Ok(())).unwrap();
    for admission in queued {
        assert!(!admission.await.is_started());
    }
    let errors = g.wait_all().await.unwrap_err();
    assert_eq!((errors.len(), ran.get()), (5, 0));
    for error in &errors {
        assert!(matches!(error.kind(), TaskErrorKind::Aborted(_)));
        assert_eq!(error.elapsed(), Duration::ZERO);
    }
}

async fn after_the_end_nothing_starts() {
    let (g, _ctx) = group();
    let ran = Count::default();
    g.cancel();
    let counted = ran.clone();
    let admission = g.go_blocking(move |_| {
        counted.add();
        Ok(())
    });
    assert!(!admission.await.is_started());
    assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
    assert_eq!(ran.get(), 0);

    let (g, _ctx) = group();
    let spawner = g.spawner();
    drop(g);
    assert!(!spawner.go_blocking(|_| Ok(())).await.is_started());
}

async fn what_it_holds_is_dropped_when_wait_returns() {
    for _ in 0..100 {
        let (g, gone) = (limited(2), Count::default());
        for _ in 0..5 {
            let gone = gone.clone();
            let holds = OnDrop(move || {
                thread::yield_now();
                gone.add();
            });
            g.go_blocking(move |_| {
                let _holds = &holds;
                Ok(())
            });
        }
        assert_eq!(g.wait().await, OK);
        assert_eq!(gone.get(), 5);
    }
}

/// A runtime with one thread in its blocking pool.
fn one_blocking_thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// A closure that runs, and one that has started and waits for the only thread.
async fn one_waits_for_a_thread(g: &G) -> (Held, Count) {
    let held = hold(g);
    held.runs().await;
    let ran = Count::default();
    let counted = ran.clone();
    let admission = g.go_blocking(move |ctx| {
        counted.add();
        Ok(ctx.check()?)
    });
    assert!(admission.await.is_started());
    until(|| g.running() == 2).await;
    yields(20).await;
    assert_eq!(ran.get(), 0);
    (held, ran)
}

#[test]
fn one_that_waits_for_a_thread_is_dropped_by_an_abort() {
    // The worker thread runs on the blocking pool, too, but does not count against its limit.
    let runtime = one_blocking_thread();
    runtime.block_on(in_time(async {
        let (g, _ctx) = group();
        let (held, ran) = one_waits_for_a_thread(&g).await;
        g.abort();
        held.end.send(Ok(())).unwrap();
        assert_eq!(g.wait().await.unwrap_err(), "context cancelled");
        assert_eq!((held.ended.get(), ran.get()), (1, 0));
    }));
}

#[test]
fn one_that_waits_for_a_thread_never_begins_after_a_cancel() {
    let runtime = one_blocking_thread();
    runtime.block_on(in_time(async {
        let (g, _ctx) = group();
        let (held, ran) = one_waits_for_a_thread(&g).await;
        g.cancel();
        held.end.send(Ok(())).unwrap();
        let errors = g.wait_all().await.unwrap_err();
        assert_eq!((held.ended.get(), ran.get()), (1, 0));
        let kind = errors.into_iter().next().unwrap().into_kind();
        assert!(matches!(kind, TaskErrorKind::Aborted(_)));
    }));
}

#[test]
fn a_runtime_that_shuts_down_does_not_keep_wait_from_ending() {
    let runtime = one_blocking_thread();
    let (g, held, ran, queued) = runtime.block_on(in_time(async {
        let (g, _ctx) = group();
        let (held, ran) = one_waits_for_a_thread(&g).await;
        g.set_limit(2);
        let queued = Count::default();
        for _ in 0..3 {
            let queued = queued.clone();
            g.go_blocking(move |_| {
                queued.add();
                Ok(())
            });
        }
        (g, held, ran, queued)
    }));
    runtime.shutdown_background();
    held.end.send(Ok(())).unwrap();
    let errors = two_workers().block_on(in_time(g.wait_all())).unwrap_err();
    // When the thread is free again, it may still run the second closure, which the pool has. A
    // closure in the queue of the group never starts.
    assert_eq!((held.ended.get(), queued.get()), (1, 0));
    assert!(ran.get() <= 1);
    assert!([3, 4].contains(&errors.len()));
    for error in &errors {
        assert!(error.kind().to_string().starts_with("context cancelled"));
    }
}

#[test]
fn after_a_runtime_shutdown_it_does_not_start_and_wait_ends() {
    let runtime = two_workers();
    let g = runtime.block_on(async {
        let g = limited(2);
        g.go(async { Ok(()) });
        until(|| g.running() == 0).await;
        g
    });
    drop(runtime);
    let ran = Count::default();
    for _ in 0..5 {
        let ran = ran.clone();
        g.go_blocking(move |_| {
            ran.add();
            Ok(())
        });
    }
    let error = current_thread().block_on(in_time(g.wait())).unwrap_err();
    assert_eq!((error.as_str(), ran.get()), ("context cancelled", 0));
}

/// Blocks in its destructor, as a synchronous client with a runtime of its own does: that panics on
/// a thread that polls tasks.
struct Client(Count);

impl Drop for Client {
    fn drop(&mut self) {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {});
        self.0.add();
    }
}

fn uses(client: Client) -> impl FnOnce(Context) -> Result<(), String> + Send + 'static {
    move |_| {
        drop(client);
        Ok(())
    }
}

async fn a_closure_that_never_begins_may_block_in_its_destructor() {
    let (g, _ctx) = group();
    g.set_limit(0);
    let dropped = Count::default();
    for _ in 0..3 {
        g.go_blocking(uses(Client(dropped.clone())));
    }
    g.cancel_with("enough");
    // Not the panic of a destructor.
    assert_eq!(g.wait().await, Err("context cancelled".to_owned()));
    assert_eq!(dropped.get(), 3, "they were dropped when `wait` returns");
}

async fn a_refused_closure_may_block_in_its_destructor() {
    let (g, _ctx) = group();
    let dropped = Count::default();
    g.cancel();
    assert!(
        !g.go_blocking(uses(Client(dropped.clone())))
            .await
            .is_started()
    );
    assert!(g.wait().await.is_err());
    assert_eq!(dropped.get(), 1);
}

async fn an_aborted_closure_may_block_in_its_destructor() {
    let (g, _ctx) = group();
    g.set_limit(0);
    let dropped = Count::default();
    g.go_blocking(uses(Client(dropped.clone())));
    g.abort();
    assert_eq!(g.wait().await, Err("context cancelled".to_owned()));
    until(|| dropped.get() == 1).await;
}

async fn a_closure_of_a_dropped_group_may_block_in_its_destructor() {
    let (g, _ctx) = group();
    g.set_limit(0);
    let dropped = Count::default();
    g.go_blocking(uses(Client(dropped.clone())));
    let s = g.spawner();
    drop(g);
    until(|| dropped.get() == 1).await;
    // The group has been dropped, so the closure is refused.
    s.go_blocking(uses(Client(dropped.clone())));
    until(|| dropped.get() == 2).await;
}

/// The only thread of the pool, taken by something else.
struct TakenThread {
    end: Sender<()>,
}

impl TakenThread {
    fn take() -> TakenThread {
        let (end, ended) = channel();
        let (says, has_begun) = channel();
        tokio::task::spawn_blocking(move || {
            let _ = says.send(());
            let _ = ended.recv();
        });
        has_begun.recv().unwrap();
        TakenThread { end }
    }

    fn give_back(self) {
        self.end.send(()).unwrap();
    }
}

#[test]
fn a_closure_that_waits_for_a_thread_does_not_outlast_an_abort() {
    one_blocking_thread().block_on(in_time(async {
        let thread = TakenThread::take();
        let (g, _ctx) = group();
        let dropped = Count::default();
        for _ in 0..3 {
            g.go_blocking(uses(Client(dropped.clone())));
        }
        until(|| g.running() == 3).await;
        yields(20).await;
        g.abort();
        assert_eq!(g.wait().await, Err("context cancelled".to_owned()));
        assert_eq!(dropped.get(), 0, "the thread is still taken");
        thread.give_back();
        until(|| dropped.get() == 3).await;
    }));
}

#[test]
fn a_closure_that_waits_for_a_thread_does_not_outlast_a_grace() {
    one_blocking_thread().block_on(in_time(async {
        let thread = TakenThread::take();
        let (g, _ctx) = group();
        g.set_grace(Duration::from_millis(1));
        g.set_limit(2);
        let dropped = Count::default();
        for _ in 0..3 {
            g.go_blocking(uses(Client(dropped.clone())));
        }
        until(|| g.running() == 2).await;
        g.cancel();
        assert_eq!(g.wait().await, Err("context cancelled".to_owned()));
        thread.give_back();
        until(|| dropped.get() == 3).await;
    }));
}

#[test]
fn closures_that_wait_for_a_thread_never_begin_after_a_failure() {
    one_blocking_thread().block_on(in_time(async {
        let thread = TakenThread::take();
        let (g, _ctx) = group();
        let began = Count::default();
        for _ in 0..40 {
            let began = began.clone();
            g.go_blocking(move |_| {
                began.add();
                Err("the first failure".to_owned())
            });
        }
        until(|| g.running() == 40).await;
        thread.give_back();
        assert_eq!(g.wait().await, Err("the first failure".to_owned()));
        assert_eq!(began.get(), 1);
    }));
}

#[test]
fn a_closure_that_waits_for_a_thread_is_dropped_at_a_deadline() {
    one_blocking_thread().block_on(in_time(async {
        let thread = TakenThread::take();
        let deadline = Context::background().with_timeout(Duration::from_millis(5));
        let (g, ctx) = G::with_context(&deadline);
        let began = Count::default();
        let counted = began.clone();
        g.go_blocking(move |_| {
            counted.add();
            Ok(())
        });
        ctx.done().await;
        thread.give_back();
        let error = g.wait().await.unwrap_err();
        assert_eq!((began.get(), &*error), (0, "context deadline exceeded"));
    }));
}
