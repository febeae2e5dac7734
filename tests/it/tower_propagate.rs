//! A call is made in a context: it sends the time that is left, fails at once when none is left,
//! and ends with the context.

use std::convert::Infallible;
use std::future::{self, Future, pending};
use std::io;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use errgroup::tower::{BoxError, CallBody, CallFuture, Carried, ContextLayer, PropagateLayer};
use errgroup::{Context, ContextError};
use http::{HeaderName, Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time;
use tokio_test::task::Spawn;
use tower::{Layer, Service, service_fn};

use crate::support::{Drops, GOING_ON, chain, ms, state};
use crate::tower_support::{Script, context_of, get, grpc, next, respond, within};

/// A call through `layer` to `server`, which has not been polled.
fn call<F, E>(
    layer: &PropagateLayer,
    request: Request<Script>,
    server: impl FnMut(Request<Script>) -> F,
) -> Spawn<CallFuture<F>>
where
    F: Future<Output = Result<Response<Script>, E>>,
    E: Into<BoxError>,
{
    tokio_test::task::spawn(layer.layer(service_fn(server)).call(request))
}

fn of(ctx: &Context, mut request: Request<Script>) -> Request<Script> {
    request.extensions_mut().insert(ctx.clone());
    request
}

/// The value of a header of the request that is sent, or `None` if no request or no such header is
/// sent.
fn sent(layer: &PropagateLayer, request: Request<Script>, name: &str) -> Option<String> {
    let mut value = None;
    let answer = call(layer, request, |request| {
        let sent = request.headers().get(name);
        value = sent.map(|sent| sent.to_str().unwrap().to_owned());
        future::ready(Ok::<_, Infallible>(Response::new(Script::new())))
    })
    .poll();
    assert!(answer.is_ready());
    drop(answer);
    value
}

/// The body of the response to a call.
fn answered(ctx: &Context, request: Request<Script>, body: Script) -> CallBody<Script> {
    let mut body = Some(body);
    let answer = call(&PropagateLayer::new(), of(ctx, request), |_| {
        future::ready(Ok::<_, Infallible>(Response::new(body.take().unwrap())))
    })
    .poll();
    match answer {
        Poll::Ready(Ok(response)) => response.into_body(),
        _ => panic!("the server is ready"),
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_is_left_is_sent_less_the_margin() {
    let ctx = Context::background().with_timeout(ms(300));
    let layer = PropagateLayer::new();
    let timeout = |layer: &PropagateLayer| sent(layer, of(&ctx, get()), "grpc-timeout");
    assert_eq!(timeout(&layer).unwrap(), "300000u");
    assert_eq!(timeout(&layer.clone().margin(ms(50))).unwrap(), "250000u");
    time::advance(ms(200)).await;
    // Nine digits in nanoseconds are one too many.
    assert_eq!(timeout(&layer).unwrap(), "100000u");
    assert_eq!(timeout(&layer.margin(ms(50))).unwrap(), "50000000n");
}

#[tokio::test(start_paused = true)]
async fn it_is_sent_in_the_headers_that_were_added_too() {
    let ctx = Context::background().with_timeout(ms(300));
    let layer = PropagateLayer::new()
        .header(HeaderName::from_static("x-request-timeout"))
        .header(HeaderName::from_static("connect-timeout-ms"));
    let header = |name| sent(&layer, of(&ctx, get()), name).unwrap();
    assert_eq!(header("grpc-timeout"), "300000u");
    assert_eq!(header("x-request-timeout"), "300ms");
    assert_eq!(header("connect-timeout-ms"), "300");
}

#[tokio::test(start_paused = true)]
async fn a_shorter_time_that_the_request_has_stays() {
    let ctx = Context::background().with_timeout(ms(300));
    let layer = PropagateLayer::new();
    let timeout = |present| sent(&layer, of(&ctx, within(present)), "grpc-timeout").unwrap();
    assert_eq!(timeout("100m"), "100m");
    assert_eq!(timeout("9H"), "300000u");
    assert_eq!(timeout("nonsense"), "300000u");
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_or_a_context_no_time_is_added() {
    let layer = PropagateLayer::new();
    let (ctx, _guard) = Context::background().with_cancel();
    assert_eq!(sent(&layer, of(&ctx, get()), "grpc-timeout"), None);
    assert_eq!(sent(&layer, get(), "grpc-timeout"), None);
    assert_eq!(sent(&layer, within("9H"), "grpc-timeout").unwrap(), "9H");
}

#[tokio::test(start_paused = true)]
async fn the_context_of_the_request_wins_over_that_of_the_layer() {
    let (ours, theirs) = (ms(100), ms(200));
    let layer = PropagateLayer::new().context(&Context::background().with_timeout(ours));
    let ctx = Context::background().with_timeout(theirs);
    let timeout = |request| sent(&layer, request, "grpc-timeout").unwrap();
    assert_eq!(timeout(get()), "100000u");
    assert_eq!(timeout(of(&ctx, get())), "200000u");
}

#[tokio::test(start_paused = true)]
async fn when_nothing_is_left_the_call_fails_at_once_and_is_not_made() {
    let (cancelled, guard) = Context::background().with_cancel();
    guard.cancel_with("the other one failed");
    let late = Context::background().with_timeout(Duration::ZERO);
    let short = Context::background().with_timeout(ms(50));
    for (ctx, end, code) in [
        (cancelled, "context cancelled: the other one failed", "1"),
        (late, "context deadline exceeded", "4"),
        (
            short,
            "context deadline exceeded: no time is left for the call",
            "4",
        ),
    ] {
        let layer = PropagateLayer::new().margin(ms(50));
        let refuse = |request| {
            call(
                &layer,
                of(&ctx, request),
                |_| -> future::Ready<Result<_, Infallible>> { panic!("the service is not called") },
            )
            .poll()
        };
        let Poll::Ready(Err(error)) = refuse(get()) else {
            panic!("it is refused");
        };
        assert!(error.downcast_ref::<ContextError>().is_some());
        assert_eq!(chain(&*error), end);
        let Poll::Ready(Ok(response)) = refuse(grpc("9H")) else {
            panic!("a gRPC status is a response");
        };
        assert_eq!(response.headers()["grpc-status"], code);
        assert_eq!(response.headers()["content-type"], "application/grpc+proto");
        assert!(response.body().is_end_stream());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_with_its_context_and_is_dropped() {
    for (request, end) in [(get(), "error"), (grpc("9H"), "grpc-status 4")] {
        let drops = Drops::default();
        let ctx = Context::background().with_timeout(ms(300));
        let mut call = call(&PropagateLayer::new(), of(&ctx, request), |_| {
            let counted = drops.counted();
            async move {
                let _counted = counted;
                pending::<Result<Response<Script>, Infallible>>().await
            }
        });
        assert!(call.poll().is_pending());
        time::advance(ms(299)).await;
        assert!(!call.is_woken());
        assert_eq!(drops.count(), 0);
        time::advance(ms(1)).await;
        assert!(call.is_woken());
        let answer = call.poll();
        assert_eq!(drops.count(), 1);
        match answer {
            Poll::Ready(Err(error)) => {
                assert_eq!(chain(&*error), "context deadline exceeded");
                assert_eq!(end, "error");
            }
            Poll::Ready(Ok(response)) => {
                assert_eq!(response.headers()["grpc-status"], "4");
                assert_eq!(end, "grpc-status 4");
            }
            Poll::Pending => panic!("it was woken"),
        }
    }
}

#[test]
fn a_cancel_ends_a_call_at_once() {
    let (ctx, guard) = Context::background().with_cancel();
    let never = |_| pending::<Result<Response<Script>, Infallible>>();
    let layer = PropagateLayer::new();
    let mut plain = call(&layer, of(&ctx, get()), never);
    let mut grpc = call(&layer, of(&ctx, grpc("9H")), never);
    assert!(plain.poll().is_pending() && grpc.poll().is_pending());
    guard.cancel_with("the other one failed");
    assert!(plain.is_woken() && grpc.is_woken());
    let Poll::Ready(Err(error)) = plain.poll() else {
        panic!("the context has ended");
    };
    assert_eq!(chain(&*error), "context cancelled: the other one failed");
    let Poll::Ready(Ok(response)) = grpc.poll() else {
        panic!("the context has ended");
    };
    assert_eq!(response.headers()["grpc-status"], "1");
    assert_eq!(response.headers()["grpc-message"], "context cancelled");
}

#[test]
fn an_error_of_the_inner_client_passes_as_it_is() {
    let answer = call(&PropagateLayer::new(), get(), |_| {
        future::ready(Err::<Response<Script>, _>(io::Error::other("refused")))
    })
    .poll();
    let Poll::Ready(Err(error)) = answer else {
        panic!("the server has failed");
    };
    assert_eq!(
        error.downcast_ref::<io::Error>().unwrap().to_string(),
        "refused"
    );
}

/// tonic's `Channel` reads the header that it sends, and then fails with `Code::Cancelled`.
#[tokio::test(start_paused = true)]
async fn a_client_that_fails_at_the_sent_time_is_the_deadline() {
    let ctx = Context::background().with_timeout(ms(300));
    let layer = PropagateLayer::new().margin(ms(100));
    let fail_after = |time: u64, request| {
        call(&layer, of(&ctx, request), move |_| async move {
            time::sleep(ms(time)).await;
            Err::<Response<Script>, _>(io::Error::other("Timeout expired"))
        })
    };
    let (mut early, mut plain) = (fail_after(199, get()), fail_after(200, get()));
    let mut grpc = fail_after(200, grpc("9H"));
    assert!(early.poll().is_pending() && plain.poll().is_pending() && grpc.poll().is_pending());
    let error = early.await.unwrap_err();
    assert_eq!(chain(&*error), "Timeout expired");
    let error = plain.await.unwrap_err();
    assert!(
        error
            .downcast_ref::<ContextError>()
            .unwrap()
            .is_deadline_exceeded()
    );
    assert_eq!(chain(&*error), "context deadline exceeded: Timeout expired");
    assert_eq!(grpc.await.unwrap().headers()["grpc-status"], "4");
    assert_eq!(state(&ctx), GOING_ON);
}

#[tokio::test(start_paused = true)]
async fn the_context_holds_to_the_end_of_the_responses_body() {
    let drops = Drops::default();
    let ctx = Context::background().with_timeout(ms(300));
    let counted = drops.counted();
    let script = Script::new().data("one").waits().on_drop(|| drop(counted));
    let mut body = answered(&ctx, get(), script);
    assert_eq!(next(&mut body), "one");
    let mut frame = tokio_test::task::spawn(body.frame());
    assert!(frame.poll().is_pending());
    time::advance(ms(300)).await;
    assert!(frame.is_woken());
    let error = frame.await.unwrap().unwrap_err();
    assert!(
        error
            .downcast_ref::<ContextError>()
            .unwrap()
            .is_deadline_exceeded()
    );
    assert_eq!(drops.count(), 1);
    assert!(body.is_end_stream());
    assert_eq!(next(&mut body), "end");
}

#[tokio::test(start_paused = true)]
async fn a_grpc_stream_ends_with_the_status_of_the_contexts_end() {
    let (ctx, guard) = Context::background().with_cancel();
    for (ctx, status) in [(ctx.with_timeout(ms(300)), 4), (ctx.clone(), 1)] {
        let mut body = answered(&ctx, grpc("9H"), Script::new().data("one").waits());
        assert_eq!(next(&mut body), "one");
        assert_eq!(next(&mut body), "nothing yet");
        time::advance(ms(300)).await;
        if status == 1 {
            guard.cancel();
        }
        assert_eq!(next(&mut body), format!("trailers: grpc-status {status}"));
        assert_eq!(next(&mut body), "end");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_always_has_more_ends_too() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut body = answered(&ctx, get(), Script::new().endless());
    assert_eq!(next(&mut body), "more");
    guard.cancel();
    assert_eq!(next(&mut body), "error: context cancelled");
}

#[test]
fn a_body_that_has_ended_stays_so() {
    let (ctx, guard) = Context::background().with_cancel();
    let mut body = answered(&ctx, get(), Script::new().data("all").size(3));
    assert_eq!(body.size_hint().exact(), Some(3));
    assert_eq!(
        (next(&mut body), next(&mut body)),
        ("all".into(), "end".into())
    );
    guard.cancel();
    assert_eq!(next(&mut body), "end");
}

/// It does not fail if the context is done before the body is polled for `None`.
#[test]
fn a_body_that_is_complete_is_not_cut() {
    let data = || Script::new().data("all");
    for request in [get, || grpc("9H")] {
        for (script, last) in [
            (data().trailers(), Some("trailers: grpc-status 0")),
            (data().knows_its_end(), Some("all")),
            (Script::new().knows_its_end(), None),
        ] {
            let (ctx, guard) = Context::background().with_cancel();
            let mut body = answered(&ctx, request(), script);
            while last.is_some_and(|last| next(&mut body) != last) {}
            guard.cancel();
            assert_eq!(next(&mut body), "end");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_there_are_can_be_sent_and_waited_for() {
    let ctx = Context::background().with_timeout(Duration::MAX);
    let layer = PropagateLayer::new();
    assert!(sent(&layer, of(&ctx, get()), "grpc-timeout").is_some());
    let never = |_| pending::<Result<Response<Script>, Infallible>>();
    assert!(call(&layer, of(&ctx, get()), never).poll().is_pending());
    // Nothing is left of that.
    let layer = layer.margin(Duration::MAX);
    assert!(call(&layer, of(&ctx, get()), never).poll().is_ready());
    assert!(call(&layer, get(), never).poll().is_pending());
}

/// A gateway: the request is received through one layer, and the call for it is sent through the
/// other.
#[tokio::test(start_paused = true)]
async fn the_carried_headers_of_a_request_are_sent_with_its_calls() {
    let request = Request::get("/")
        .header("grpc-timeout", "300m")
        .header("traceparent", "00-1-2-01")
        .header("baggage", "a=1")
        .header("baggage", "b=2")
        .header("x-request-id", "7")
        .header("cookie", "secret")
        .body(Script::new())
        .unwrap();
    // A header that is carried by default is not sent twice: two `traceparent` headers would be
    // invalid.
    let server = ContextLayer::new(&Context::background())
        .carry(HeaderName::from_static("x-request-id"))
        .carry(HeaderName::from_static("traceparent"));
    let (ctx, _response) = respond(&server, request, Response::new(Script::new().waits()));
    let carried = ctx.value::<Carried>().unwrap();
    assert_eq!(carried.iter().count(), 4);

    let went_out = Arc::new(Mutex::new(None));
    let go = |layer: PropagateLayer, request| {
        let answer = call(&layer, of(&ctx, request), |request| {
            *went_out.lock().unwrap() = Some(request.headers().clone());
            future::ready(Ok::<_, Infallible>(Response::new(Script::new())))
        })
        .poll();
        assert!(answer.is_ready());
        went_out.lock().unwrap().take().unwrap()
    };
    time::advance(ms(100)).await;
    let headers = go(PropagateLayer::new(), get());
    assert_eq!(headers["grpc-timeout"], "200000u");
    assert_eq!(headers["traceparent"], "00-1-2-01");
    assert_eq!(headers["x-request-id"], "7");
    let baggage: Vec<_> = headers.get_all("baggage").iter().collect();
    assert_eq!(baggage, ["a=1", "b=2"]);
    assert!(!headers.contains_key("cookie"));

    // What a tracing library has written is not replaced.
    let mut traced = get();
    let own = "00-1-3-01".parse().unwrap();
    traced.headers_mut().insert("traceparent", own);
    let headers = go(PropagateLayer::new(), traced);
    assert_eq!(
        headers.get_all("traceparent").iter().collect::<Vec<_>>(),
        ["00-1-3-01"]
    );
    assert_eq!(headers["x-request-id"], "7");

    let headers = go(PropagateLayer::new().without_carried(), get());
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["grpc-timeout"]);
}

/// Two hops: the second server has the time that the first one had left.
#[tokio::test(start_paused = true)]
async fn a_deadline_propagates_from_server_to_server() {
    let inner = ContextLayer::new(&Context::background());
    let remaining = Arc::new(Mutex::new(None));
    let leaf = {
        let remaining = remaining.clone();
        service_fn(
            move |request: Request<errgroup::tower::RequestBody<Script>>| {
                *remaining.lock().unwrap() = context_of(&request).remaining();
                pending::<Result<Response<Script>, Infallible>>()
            },
        )
    };
    let mut client = PropagateLayer::new()
        .margin(ms(20))
        .layer(inner.layer(leaf));
    let outer = ContextLayer::new(&Context::background());
    let mut call = crate::tower_support::send(&outer, within("300m"), |request| {
        let ctx = context_of(&request);
        let answer = client.call(of(&ctx, get()));
        async move {
            time::sleep(ms(100)).await;
            let answer = answer.await?;
            // The margin is left to report what happened there.
            assert_eq!(answer.status(), 504);
            assert_eq!(state(&ctx), GOING_ON);
            Ok::<_, BoxError>(Response::builder().status(502).body(Script::new()).unwrap())
        }
    });
    assert!(call.poll().is_pending());
    assert_eq!(*remaining.lock().unwrap(), Some(ms(280)));
    let response = call.await.unwrap();
    assert_eq!(response.status(), 502);
}
