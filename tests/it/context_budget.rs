//! Futures that are ready at once yield to the other tasks, and a future sees that its context is
//! done even if something else uses up the cooperative budget.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::pin;
use std::time::Duration;

use errgroup::Context;
use futures::future::{Either, select};
use tokio::sync::oneshot;
use tokio::task::{consume_budget, yield_now};
use tokio::time::{self, Instant};

use crate::group_support::{both_flavours, group, in_time};
use crate::support::ms;

/// If a loop runs this many times, no other task was polled in between: without a limit it would
/// never return.
const TURNS: usize = 100_000;

/// Counts the rounds of a loop, and panics after too many.
#[derive(Default)]
struct Turns(Cell<usize>);

impl Turns {
    fn take(&self) {
        self.0.set(self.0.get() + 1);
        assert!(self.0.get() < TURNS, "no other task gets a turn");
    }
}

fn cancelled() -> Context {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with("stop");
    ctx
}

/// Retries for ever, and ignores that its context is done.
async fn reconnect(ctx: Context) {
    let turns = Turns::default();
    loop {
        turns.take();
        ctx.run(pending::<()>()).await.ok();
        ctx.sleep(ms(10)).await.ok();
    }
}

async fn wait_again(ctx: Context) {
    let turns = Turns::default();
    loop {
        turns.take();
        ctx.done().await;
    }
}

async fn wait_again_owned(ctx: Context) {
    let turns = Turns::default();
    loop {
        turns.take();
        ctx.done_owned().await;
    }
}

/// Uses up the budget in every poll.
async fn hog() -> Infallible {
    loop {
        consume_budget().await;
    }
}

/// Awaits `future`, with the other one polled before it each time.
async fn behind<F: Future>(first: impl Future<Output = Infallible>, future: F) -> F::Output {
    let (first, future) = (pin!(first), pin!(future));
    match in_time(select(first, future)).await {
        Either::Left((never, _)) => match never {},
        Either::Right((output, _)) => output,
    }
}

/// Runs the loop in a task, and aborts it.
async fn can_be_aborted(looping: impl Future<Output = ()> + Send + 'static) {
    let task = tokio::spawn(looping);
    yield_now().await;
    task.abort();
    let ended = in_time(task).await.unwrap_err();
    assert!(ended.is_cancelled(), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn a_loop_over_run_and_sleep_can_be_aborted_after_the_end() {
    can_be_aborted(reconnect(cancelled())).await;
    can_be_aborted(reconnect(
        Context::background().with_timeout(Duration::ZERO),
    ))
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_over_done_can_be_aborted_after_the_end() {
    can_be_aborted(wait_again(cancelled())).await;
    can_be_aborted(wait_again_owned(cancelled())).await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_ends_a_loop_that_swallows_the_end() {
    // A paused clock does not advance while a task is runnable.
    tokio::spawn(time::advance(ms(50)));
    let looping = time::timeout(ms(20), reconnect(cancelled()));
    in_time(looping).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_select_ends_a_loop_that_swallows_the_end() {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async { sender.send("shutdown").unwrap() });
    tokio::select! {
        biased;
        received = receiver => assert_eq!(received.unwrap(), "shutdown"),
        () = reconnect(cancelled()) => unreachable!("it never returns"),
    }
}

async fn a_grace_period_ends_a_loop_that_swallows_the_end() {
    let (g, ctx) = group();
    g.set_grace(Duration::ZERO);
    g.go(async {
        reconnect(ctx).await;
        Ok(())
    });
    g.cancel_with("stop");
    g.wait().await.unwrap_err();
}

async fn abort_ends_a_loop_that_swallows_the_end() {
    let (g, ctx) = group();
    for _ in 0..3 {
        let ctx = ctx.clone();
        g.go(async {
            reconnect(ctx).await;
            Ok(())
        });
    }
    g.cancel_with("stop");
    yield_now().await;
    g.abort();
    g.wait().await.unwrap_err();
}

both_flavours!(
    a_grace_period_ends_a_loop_that_swallows_the_end,
    abort_ends_a_loop_that_swallows_the_end,
);

#[tokio::test(start_paused = true)]
async fn nested_timeouts_end_at_the_outer_deadline() {
    let began = Instant::now();
    let ctx = Context::background().with_timeout(ms(320));
    let turns = Turns::default();
    let attempts = Cell::new(0);
    let call = ctx.run(async {
        loop {
            turns.take();
            if attempts.get() < 3 {
                attempts.set(attempts.get() + 1);
            }
            if let Ok(value) = ctx.with_timeout(ms(150)).run(pending::<()>()).await {
                return value;
            }
        }
    });
    assert!(in_time(call).await.unwrap_err().is_deadline_exceeded());
    assert_eq!((began.elapsed(), attempts.get()), (ms(320), 3));
}

#[tokio::test(start_paused = true)]
async fn nested_timeouts_in_a_select_end_at_the_outer_deadline() {
    let began = Instant::now();
    let ctx = Context::background().with_timeout(ms(320));
    let retry = async {
        let turns = Turns::default();
        loop {
            turns.take();
            ctx.with_timeout(ms(150)).done().await;
        }
    };
    // From the deadline on, the loop uses up the budget in each poll.
    let error = behind(retry, ctx.done()).await;
    assert!(error.is_deadline_exceeded());
    assert_eq!(began.elapsed(), ms(320));
}

#[tokio::test(start_paused = true)]
async fn run_sees_a_cancel_though_the_future_uses_up_the_budget() {
    let (ctx, guard) = Context::background().with_cancel();
    tokio::spawn(async move { guard.cancel_with("stop") });
    assert!(in_time(ctx.run(hog())).await.unwrap_err().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn run_sees_a_deadline_though_the_future_uses_up_the_budget() {
    let ctx = Context::background().with_timeout(ms(10));
    tokio::spawn(time::advance(ms(20)));
    let error = in_time(ctx.run(hog())).await.unwrap_err();
    assert!(error.is_deadline_exceeded());
}

/// The hog is polled first each time, so no budget is left for the other future.
#[tokio::test(start_paused = true)]
async fn done_sees_an_end_though_a_sibling_uses_up_the_budget() {
    let (live, guard) = Context::background().with_cancel();
    tokio::spawn(async move { guard.cancel_with("stop") });
    let late = Context::background().with_timeout(ms(10));
    tokio::spawn(time::advance(ms(20)));
    for ctx in [live, late, cancelled()] {
        for _ in 0..3 {
            behind(hog(), ctx.done()).await;
            behind(hog(), ctx.done_owned()).await;
            behind(hog(), ctx.run(pending::<()>())).await.unwrap_err();
        }
    }
}

#[cfg(feature = "tower")]
mod calls {
    use errgroup::tower::{ContextLayer, PropagateLayer};
    use http::{Request, Response};
    use tower::{Layer, Service, ServiceExt, service_fn};

    use super::*;
    use crate::tower_support::Script;

    /// Calls again and again, whatever the result.
    async fn call_again<S>(mut service: S)
    where
        S: Service<Request<Script>, Error: Send> + Send,
        S::Future: Send,
        S::Response: Send,
    {
        let turns = Turns::default();
        loop {
            turns.take();
            let Ok(service) = service.ready().await else {
                continue;
            };
            drop(service.call(Request::new(Script::new())).await);
        }
    }

    async fn handle<B>(_: Request<B>) -> Result<Response<Script>, Infallible> {
        pending().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_over_refused_calls_can_be_aborted() {
        let layer = PropagateLayer::new().context(&cancelled());
        can_be_aborted(call_again(layer.layer(service_fn(handle)))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_over_requests_without_time_can_be_aborted() {
        let late = Context::background().with_timeout(Duration::ZERO);
        let layer = ContextLayer::new(&late);
        can_be_aborted(call_again(layer.layer(service_fn(handle)))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_over_requests_to_a_stopped_server_can_be_aborted() {
        let layer = ContextLayer::new(&Context::background());
        layer.handlers().wait().await;
        let dropping = layer.clone().drop_on_disconnect();
        can_be_aborted(call_again(dropping.layer(service_fn(handle)))).await;
        can_be_aborted(call_again(layer.layer(service_fn(handle)))).await;
    }
}
