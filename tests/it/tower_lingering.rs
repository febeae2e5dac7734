//! Handlers that run on without their client: they are cancelled, have a grace period, are aborted
//! after it, and a shutdown waits for them.

use std::convert::Infallible;
use std::future::{self, Future};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::Context;
use errgroup::tower::{ContextLayer, Handlers, RequestBody};
use futures::FutureExt;
use http::{Request, Response};
use tokio::time::{self, Instant};

use crate::support::{Drops, GOING_ON, HOUR, OnDrop, ms, state, tasks_end};
use crate::tower_support::{
    FINISHED, GONE, Script, TIME_OF_CLIENT, context_of, get, grpc, next, ok, only, send, within,
};

fn layer() -> (ContextLayer, Handlers) {
    layer_of(&Context::background())
}

fn layer_of(server: &Context) -> (ContextLayer, Handlers) {
    let layer = ContextLayer::new(server).grace(ms(100));
    let handlers = layer.handlers();
    (layer, handlers)
}

type Answer = Result<Response<Script>, Infallible>;
type Log = Arc<Mutex<Vec<String>>>;
type Working = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A handler that works for this many milliseconds, even if it is cancelled, and logs how it ended.
fn works(log: &Log, work: u64) -> impl FnMut(Request<RequestBody<Script>>) -> Working + use<> {
    let log = log.clone();
    move |request| {
        let (ctx, log) = (context_of(&request), log.clone());
        Box::pin(async move {
            let mut left = Left {
                ctx,
                log,
                how: "aborted",
            };
            time::sleep(ms(work)).await;
            left.how = "finished";
            ok(Script::new().data("done").knows_its_end())
        })
    }
}

/// Logs how its handler ended, when the handler is dropped.
struct Left {
    ctx: Context,
    log: Log,
    how: &'static str,
}

impl Drop for Left {
    fn drop(&mut self) {
        let entry = format!("{}: {}", self.how, state(&self.ctx));
        self.log.lock().unwrap().push(entry);
    }
}

fn logged(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

/// Lets every task that is ready run.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_comes_through_as_the_handler_made_it() {
    let (layer, handlers) = layer();
    let log = Log::default();
    let mut response = send(&layer, get(), works(&log, 50)).await.unwrap();
    assert_eq!(next(response.body_mut()), "done");
    assert_eq!(logged(&log), [format!("finished: {GOING_ON}")]);
    let failed = send(&layer, get(), |_| {
        future::ready(Err::<Response<Script>, _>(io::Error::other("no disk")))
    });
    assert_eq!(failed.await.unwrap_err().to_string(), "no disk");
    let drained = only(handlers.wait().await);
    assert_eq!((drained.finished(), drained.aborted().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_cancels_the_context_but_drops_no_handler() {
    let (layer, handlers) = layer();
    let log = Log::default();
    let mut call = send(&layer, get(), works(&log, 80));
    assert!(call.poll().is_pending());
    settle().await;
    time::advance(ms(10)).await;
    assert_eq!(handlers.running(), 1);
    drop(call);
    settle().await;
    assert_eq!(logged(&log), [""; 0]);
    time::advance(ms(70)).await;
    settle().await;
    assert_eq!(logged(&log), [format!("finished: {GONE}")]);
    assert_eq!(handlers.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_runs_on_after_its_grace_is_aborted() {
    let (layer, handlers) = layer();
    let log = Log::default();
    let mut call = send(&layer, get(), works(&log, 1_000));
    assert!(call.poll().is_pending());
    settle().await;
    time::advance(ms(200)).await;
    drop(call);
    settle().await;
    time::advance(ms(99)).await;
    settle().await;
    assert_eq!(logged(&log), [""; 0]);
    time::advance(ms(1)).await;
    settle().await;
    assert_eq!(logged(&log), [format!("aborted: {GONE}")]);
    assert_eq!(handlers.running(), 0);
}

/// tokio lets no timer fire in a poll that has used up its budget.
#[tokio::test(start_paused = true)]
async fn a_handler_that_is_always_ready_is_aborted_too() {
    async fn never_rests(_: Request<RequestBody<Script>>) -> Result<Response<Script>, Infallible> {
        loop {
            tokio::task::consume_budget().await;
        }
    }
    let (layer, handlers) = layer();
    let mut call = send(&layer, get(), never_rests);
    assert!(call.poll().is_pending());
    settle().await;
    drop(call);
    settle().await;
    time::advance(ms(99)).await;
    settle().await;
    assert_eq!(handlers.running(), 1);
    time::advance(ms(1)).await;
    settle().await;
    assert_eq!(handlers.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_grace_may_be_for_ever() {
    let layer = ContextLayer::new(&Context::background()).grace(Duration::MAX);
    let handlers = layer.handlers();
    let log = Log::default();
    let mut call = send(&layer, get(), works(&log, 1_000_000));
    assert!(call.poll().is_pending());
    settle().await;
    drop(call);
    let drained = only(handlers.wait().await);
    assert_eq!((drained.stopped(), drained.aborted().len()), (1, 0));
    assert_eq!(logged(&log), [format!("finished: {GONE}")]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_was_never_polled_is_dropped() {
    let (layer, handlers) = layer();
    let shown = Arc::new(Mutex::new(None));
    let call = send(&layer, get(), |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        async { future::pending::<Answer>().await }
    });
    assert_eq!(handlers.running(), 1);
    drop(call);
    assert_eq!((handlers.running(), handlers.lingering()), (0, 0));
    assert_eq!(state(shown.lock().unwrap().as_ref().unwrap()), GONE);
    assert_eq!(only(handlers.wait().await).aborted().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_client_gets_an_error_the_handler_a_grace() {
    let (layer, handlers) = layer();
    let log = Log::default();
    let began = Instant::now();
    let plain = send(&layer, within("50m"), works(&log, 149)).await.unwrap();
    assert_eq!((plain.status().as_u16(), began.elapsed()), (504, ms(50)));
    time::sleep(ms(100)).await;
    assert_eq!(logged(&log), [format!("finished: {TIME_OF_CLIENT}")]);

    let grpc = send(&layer, grpc("50m"), works(&log, 151)).await.unwrap();
    assert_eq!(grpc.headers()["grpc-status"], "4");
    assert_eq!(handlers.running(), 1);
    time::sleep(ms(100)).await;
    settle().await;
    assert_eq!(logged(&log), [format!("aborted: {TIME_OF_CLIENT}")]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_request_does_not_reach_the_handler() {
    let (layer, _handlers) = layer();
    let call = send(
        &layer,
        within("0n"),
        |_| -> future::Ready<Result<_, Infallible>> { panic!("the service is not called") },
    );
    assert_eq!(call.await.unwrap().status(), 504);
}

#[tokio::test(start_paused = true)]
async fn the_body_ends_with_its_connection() {
    let (layer, _handlers) = layer();
    let shown = Arc::new(Mutex::new(None));
    let call = send(&layer, get(), |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        future::ready(ok(Script::new().data("one").data("two")))
    });
    let mut response = call.await.unwrap();
    let ctx = shown.lock().unwrap().take().unwrap();
    assert_eq!(next(response.body_mut()), "one");
    assert_eq!(state(&ctx), GOING_ON);
    drop(response);
    assert_eq!(state(&ctx), GONE);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_over_ends_its_context() {
    let (layer, _handlers) = layer();
    let shown = Arc::new(Mutex::new(None));
    let call = send(&layer, get(), |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        future::ready(ok(Script::new().knows_its_end()))
    });
    call.await.unwrap();
    assert_eq!(state(shown.lock().unwrap().as_ref().unwrap()), FINISHED);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_handlers_of_disconnected_clients() {
    let (server, guard) = Context::background().with_cancel();
    let (layer, handlers) = layer_of(&server);
    let log = Log::default();
    let mut quick = send(&layer, get(), works(&log, 50));
    let slow = Request::post("/orders?card=1234")
        .body(Script::new())
        .unwrap();
    let mut slow = send(&layer, slow, works(&log, 1_000));
    assert!(quick.poll().is_pending() && slow.poll().is_pending());
    settle().await;
    drop((quick, slow));
    time::advance(ms(20)).await;
    settle().await;
    let began = Instant::now();
    guard.cancel_with("SIGTERM");
    let drained = only(handlers.wait().await);
    // Each has its own grace period, which begins when its client disconnects.
    assert_eq!(began.elapsed(), ms(80));
    assert_eq!(
        logged(&log),
        [format!("finished: {GONE}"), format!("aborted: {GONE}")]
    );
    assert_eq!(drained.stopped(), 1);
    let [aborted] = drained.aborted() else {
        panic!("one was aborted");
    };
    assert_eq!(aborted.name(), Some("POST /orders"));
    assert!(aborted.site().file().ends_with("tower_lingering.rs"));
    assert_eq!(aborted.age(), ms(100));
    assert_eq!(aborted.to_string(), "POST /orders, after 100.0ms");
    tasks_end().await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_cancels_running_handlers_and_is_bounded() {
    let (layer, handlers) = layer();
    let log = Log::default();
    let mut call = send(&layer, get(), works(&log, 1_000));
    assert!(call.poll().is_pending());
    settle().await;
    let began = Instant::now();
    // The client is still there.
    let (drained, response) = tokio::join!(handlers.wait(), call);
    let drained = only(drained);
    assert_eq!(began.elapsed(), ms(100));
    assert_eq!(drained.aborted().len(), 1);
    assert_eq!(drained.left_running(), 0);
    assert_eq!(
        logged(&log),
        ["aborted: context cancelled: the server shuts down"]
    );
    assert_eq!(response.unwrap().status(), 503);
    // The next client gets the same response, without a handler.
    let late = send(&layer, get(), works(&log, 1)).await.unwrap();
    assert_eq!(late.status(), 503);
    let late = send(&layer, grpc("9H"), works(&log, 1)).await.unwrap();
    assert_eq!(late.headers()["grpc-status"], "14");
    assert_eq!(logged(&log), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_finishes_in_the_grace_of_a_shutdown_answers() {
    let (server, guard) = Context::background().with_cancel();
    let (layer, handlers) = layer_of(&server);
    let log = Log::default();
    let mut call = send(&layer, get(), works(&log, 90));
    assert!(call.poll().is_pending());
    settle().await;
    guard.cancel_with("SIGTERM");
    let (drained, response) = tokio::join!(handlers.wait(), call);
    let drained = only(drained);
    assert_eq!(drained.stopped(), 1);
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!(logged(&log), ["finished: context cancelled: SIGTERM"]);
}

#[tokio::test(start_paused = true)]
async fn handlers_aborted_before_the_wait_are_kept_up_to_a_bound() {
    let layer = ContextLayer::new(&Context::background()).max_lingering(0);
    let handlers = layer.handlers();
    for number in 0..1_030 {
        let path = format!("/{number}{}", "/long".repeat(100));
        let request = Request::get(path).body(Script::new()).unwrap();
        let mut call = send(&layer, request, |_| future::pending::<Answer>());
        assert!(call.poll().is_pending());
        drop(call);
    }
    let mut last = send(&layer, get(), |_| future::pending::<Answer>());
    assert!(last.poll().is_pending());
    let wait = handlers.wait();
    let mut wait = tokio_test::task::spawn(wait);
    assert!(wait.poll().is_pending());
    drop(last);
    let drained = only(wait.await);
    // One came after the call of `wait`, and took no place.
    assert_eq!((drained.aborted().len(), drained.omitted()), (1_025, 6));
    assert!(
        drained.aborted()[0]
            .name()
            .unwrap()
            .starts_with("GET /6/long")
    );
    assert_eq!(
        drained.aborted()[0].name().unwrap().len(),
        "GET ".len() + 256
    );
    assert_eq!(drained.aborted()[1_024].name(), Some("GET /"));
    assert!(
        drained
            .to_string()
            .starts_with("handlers: 1025 aborted (GET /6/")
    );
}

/// Cancel safety.
#[tokio::test(start_paused = true)]
async fn dropping_the_wait_aborts_and_loses_nothing() {
    let (layer, handlers) = layer();
    let log = Log::default();
    let mut call = send(&layer, get(), works(&log, 50));
    let mut slow = send(&layer, get(), works(&log, 1_000));
    assert!(call.poll().is_pending() && slow.poll().is_pending());
    drop(slow);
    settle().await;
    let mut wait = Box::pin(handlers.clone().wait());
    assert!(wait.as_mut().now_or_never().is_none());
    drop(wait);
    assert_eq!(logged(&log), [""; 0]);
    // A second call has all of it.
    let (drained, response) = tokio::join!(handlers.wait(), call);
    let drained = only(drained);
    assert_eq!(response.unwrap().status(), 200);
    assert_eq!((drained.stopped(), drained.aborted().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn without_the_handle_handlers_are_dropped_with_the_layer() {
    let (layer, handlers) = layer();
    drop(handlers);
    let log = Log::default();
    let mut call = send(&layer, get(), works(&log, 10));
    assert!(call.poll().is_pending());
    assert_eq!(call.await.unwrap().status(), 200);
    logged(&log);

    let mut call = send(&layer, get(), works(&log, 10));
    assert!(call.poll().is_pending());
    settle().await;
    drop((layer, call));
    tasks_end().await;
    assert_eq!(logged(&log), [format!("aborted: {GONE}")]);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_resumed_where_the_response_is_awaited() {
    let (layer, handlers) = layer();
    let shown = Arc::new(Mutex::new(None));
    let mut call = send(&layer, get(), |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        async {
            tokio::task::yield_now().await;
            if true {
                panic!("a bug")
            } else {
                ok(Script::new())
            }
        }
    });
    assert!(call.poll().is_pending());
    settle().await;
    let payload = catch_unwind(AssertUnwindSafe(|| call.poll())).unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"a bug"));
    drop(call);
    assert_eq!(
        state(shown.lock().unwrap().as_ref().unwrap()),
        "context cancelled: the request's handler panicked"
    );
    // No other request is affected, and it was reported once.
    let log = Log::default();
    assert_eq!(
        send(&layer, get(), works(&log, 1)).await.unwrap().status(),
        200
    );
    assert_eq!(only(handlers.wait().await).errors().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_that_is_not_awaited_is_counted() {
    let (layer, handlers) = layer();
    for in_destructor in [false, true] {
        let mut call = send(&layer, get(), move |request| async move {
            let _bug = OnDrop(move || assert!(!in_destructor, "a bug"));
            context_of(&request).done().await;
            assert!(in_destructor, "a bug");
            ok(Script::new())
        });
        assert!(call.poll().is_pending());
        settle().await;
        drop(call);
        settle().await;
    }
    // A response that is not taken.
    let mut call = send(&layer, get(), |request| async move {
        context_of(&request).done().await;
        ok(Script::new().on_drop(|| panic!("a bug")))
    });
    assert!(call.poll().is_pending());
    settle().await;
    drop(call);
    settle().await;
    let drained = only(handlers.wait().await);
    assert_eq!((drained.errors().len(), drained.aborted().len()), (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_disconnect_at_any_moment_leave_no_handler() {
    let drops = Drops::default();
    let finished = Arc::new(AtomicUsize::new(0));
    let layer = ContextLayer::new(&Context::background()).grace(HOUR);
    let handlers = layer.handlers();
    for round in 0..2_000 {
        let mut call = send(&layer, get(), |request| {
            let (counted, finished) = (drops.counted(), finished.clone());
            async move {
                let _counted = counted;
                let ctx = context_of(&request);
                for _ in 0..round % 7 {
                    tokio::task::yield_now().await;
                }
                if round % 3 == 0 {
                    ctx.done().await;
                }
                finished.fetch_add(1, Ordering::SeqCst);
                ok(Script::new().knows_its_end())
            }
        });
        for _ in 0..round % 5 {
            if call.poll().is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
    }
    let drained = only(handlers.wait().await);
    assert_eq!(drops.count(), 2_000);
    // A handler that was not polled did not begin.
    assert_eq!(finished.load(Ordering::SeqCst), 1_600);
    assert_eq!((drained.aborted().len(), drained.errors().len()), (0, 0));
}
