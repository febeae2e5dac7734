//! The handlers of a layer as a phase of a `Drain`.

use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::tower::{ContextLayer, Handlers};
use errgroup::{Context, Drain, Group};
use http::{Request, Response};
use tokio::time::{Instant, sleep};

use crate::support::{HOUR, OnDrop, ms, state};
use crate::tower_support::{Script, context_of, get, ok, send};

type Answer = Result<Response<Script>, Infallible>;

fn layer() -> (ContextLayer, Handlers) {
    let layer = ContextLayer::new(&Context::background()).grace(HOUR);
    let handlers = layer.handlers();
    (layer, handlers)
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn an_idle_layer_takes_no_time() {
    let (_layer, handlers) = layer();
    let begin = Instant::now();
    let report = Drain::within(HOUR).phase("http", handlers).run().await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(report.to_string(), "http: idle");
}

#[tokio::test(start_paused = true)]
async fn handlers_finish_are_cancelled_and_are_aborted() {
    let (layer, handlers) = layer();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let quick = send(&layer, get(), |_| async {
        sleep(s(2)).await;
        ok(Script::new())
    });
    let obeys = send(&layer, get(), |request| {
        let seen = seen.clone();
        async move {
            let ctx = context_of(&request);
            ctx.done().await;
            seen.lock().unwrap().push(state(&ctx));
            ok(Script::new())
        }
    });
    let deaf = Request::post("/orders").body(Script::new()).unwrap();
    let deaf = send(&layer, deaf, |_| pending::<Answer>());
    let gone = Request::get("/gone").body(Script::new()).unwrap();
    let mut gone = send(&layer, gone, |_| pending::<Answer>());
    assert!(gone.poll().is_pending());
    drop(gone);
    let calls = tokio::spawn(async move { tokio::join!(quick, obeys, deaf) });
    while handlers.running() < 4 {
        tokio::task::yield_now().await;
    }
    let begin = Instant::now();
    let report = Drain::within(s(10)).phase("http", handlers).run().await;
    assert_eq!(begin.elapsed(), s(10));
    let phase = &report.phases()[0];
    assert_eq!((phase.finished(), phase.stopped()), (1, 1), "{report}");
    assert_eq!((phase.left_running(), phase.errors().len()), (0, 0));
    let mut aborted: Vec<_> = phase
        .aborted()
        .iter()
        .map(|it| it.name().unwrap())
        .collect();
    aborted.sort_unstable();
    assert_eq!(aborted, ["GET /gone", "POST /orders"]);
    assert!(phase.aborted()[0].site().file().ends_with("tower_drain.rs"));
    assert_eq!(*seen.lock().unwrap(), ["context cancelled: shutting down"]);
    let (quick, obeys, deaf) = calls.await.unwrap();
    let statuses = [quick, obeys, deaf].map(|it| it.unwrap().status().as_u16());
    assert_eq!(statuses, [200, 200, 503]);
    let late = send(&layer, get(), |_| pending::<Answer>()).await.unwrap();
    assert_eq!(late.status(), 503);
}

#[tokio::test(start_paused = true)]
async fn the_grace_of_the_layer_may_end_before_the_phase() {
    let layer = ContextLayer::new(&Context::background()).grace(s(1));
    let handlers = layer.handlers();
    let mut call = send(&layer, get(), |_| pending::<Answer>());
    assert!(call.poll().is_pending());
    let call = tokio::spawn(call);
    let begin = Instant::now();
    let report = handlers_of("http", handlers).run().await;
    assert_eq!(begin.elapsed(), s(6));
    assert_eq!(report.phases()[0].aborted()[0].age(), s(6));
    assert_eq!(call.await.unwrap().unwrap().status(), 503);
}

fn handlers_of(name: &'static str, handlers: Handlers) -> Drain {
    Drain::within(s(10)).phase(name, handlers)
}

#[tokio::test(start_paused = true)]
async fn handlers_whose_context_was_done_before_are_aborted_in_time() {
    let (server, guard) = Context::background().with_cancel();
    let layer = ContextLayer::new(&server).grace(HOUR);
    let handlers = layer.handlers();
    let mut call = send(&layer, get(), |_| pending::<Answer>());
    assert!(call.poll().is_pending());
    let call = tokio::spawn(call);
    guard.cancel_with("SIGTERM");
    sleep(s(1)).await;
    let begin = Instant::now();
    let report = handlers_of("http", handlers).run().await;
    assert_eq!(begin.elapsed(), s(10));
    assert_eq!(report.phases()[0].aborted().len(), 1);
    assert_eq!(call.await.unwrap().unwrap().status(), 503);
}

#[tokio::test(start_paused = true)]
async fn a_trigger_aborts_the_handlers_at_once() {
    let (layer, handlers) = layer();
    let dropped = Arc::new(Mutex::new(false));
    let drops = dropped.clone();
    let mut call = send(&layer, get(), move |_| {
        let on_drop = OnDrop({
            let drops = drops.clone();
            move || *drops.lock().unwrap() = true
        });
        async move {
            let _on_drop = on_drop;
            pending::<Answer>().await
        }
    });
    assert!(call.poll().is_pending());
    drop(call);
    let workers = Group::<String>::new();
    workers.go(pending());
    let begin = Instant::now();
    let report = Drain::within(HOUR)
        .phase("workers", workers)
        .phase("http", handlers)
        .abort_on(sleep(ms(5)))
        .run()
        .await;
    assert_eq!(begin.elapsed(), ms(5));
    assert!(*dropped.lock().unwrap());
    for phase in report.phases() {
        assert_eq!(phase.aborted().len(), 1, "{report}");
    }
    let text = report.to_string();
    assert!(
        text.ends_with("http: 1 aborted (GET /, after 5.0ms)"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_handler_without_a_client_is_an_error() {
    let (layer, handlers) = layer();
    let mut call = send(&layer, get(), |request| async move {
        context_of(&request).done().await;
        if true {
            panic!("a bug")
        }
        ok(Script::new())
    });
    assert!(call.poll().is_pending());
    drop(call);
    let report = handlers_of("http", handlers).run().await;
    let error = &report.phases()[0].errors()[0];
    assert_eq!(
        (error.name(), error.text()),
        (Some("GET /"), "panicked: a bug")
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_dropped_aborts_no_handler() {
    let (layer, handlers) = layer();
    let mut call = send(&layer, get(), |_| async {
        sleep(s(3)).await;
        ok(Script::new())
    });
    assert!(call.poll().is_pending());
    let drain = handlers_of("http", handlers.clone()).run();
    assert!(tokio::time::timeout(s(1), drain).await.is_err());
    assert_eq!(call.await.unwrap().status(), 200);
    assert_eq!(handlers.running(), 0);
}
