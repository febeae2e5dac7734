//! The deadline of a request: which header or setting it has, and that it holds up to the end of
//! the body.

use std::convert::Infallible;
use std::future::{self, pending};
use std::io;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use errgroup::tower::{ClientGone, ContextLayer, grpc_code_of, status_of};
use errgroup::{Context, ContextError};
use futures::FutureExt;
use http::{HeaderName, Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{self, Instant};
use tower::{Layer, Service, service_fn};

use crate::support::{Drops, GOING_ON, HOUR, chain, err, ms, state};
use crate::tower_support::{
    FINISHED, GONE, Script, TIME_OF_CLIENT, TIME_OF_SERVER, context_of, get, grpc, next, ok,
    respond, send, send_dropping, within,
};

const X_REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout");

fn layer() -> ContextLayer {
    ContextLayer::new(&Context::background())
}

/// How long a request has when it arrives.
fn time_of(layer: &ContextLayer, request: Request<Script>) -> Option<Duration> {
    let (ctx, _) = respond(layer, request, Response::new(Script::new()));
    ctx.deadline().map(|at| at.duration_since(Instant::now()))
}

#[tokio::test(start_paused = true)]
async fn the_time_is_the_clients_capped_by_the_servers() {
    let capped = layer().max_timeout(ms(500));
    assert_eq!(time_of(&layer(), get()), None);
    assert_eq!(time_of(&layer(), within("300m")), Some(ms(300)));
    assert_eq!(time_of(&layer(), within("9H")), Some(ms(9 * 3_600_000)));
    assert_eq!(time_of(&capped, get()), Some(ms(500)));
    assert_eq!(time_of(&capped, within("300m")), Some(ms(300)));
    assert_eq!(time_of(&capped, within("9H")), Some(ms(500)));
    assert_eq!(time_of(&capped, within("soon")), Some(ms(500)));
}

#[tokio::test(start_paused = true)]
async fn of_several_headers_the_shortest_time_holds() {
    let both = |grpc: &str, other: &str| {
        let request = Request::get("/").header("grpc-timeout", grpc);
        let request = request.header(X_REQUEST_TIMEOUT, other);
        request.body(Script::new()).unwrap()
    };
    let layer = layer().header(X_REQUEST_TIMEOUT);
    assert_eq!(time_of(&layer, both("300m", "0.2")), Some(ms(200)));
    assert_eq!(time_of(&layer, both("100m", "0.2")), Some(ms(100)));
    assert_eq!(time_of(&layer, both("nonsense", "0.2")), Some(ms(200)));
    let twice = Request::get("/").header("grpc-timeout", "2S");
    let twice = twice.header("grpc-timeout", "1S").body(Script::new());
    assert_eq!(time_of(&layer, twice.unwrap()), Some(ms(1_000)));
}

#[tokio::test(start_paused = true)]
async fn the_servers_own_deadline_is_a_requests_deadline() {
    let server = Context::background().with_timeout(ms(100));
    let layer = ContextLayer::new(&server).max_timeout(ms(500));
    let mut call = send(&layer, get(), |_| {
        pending::<Result<Response<Script>, Infallible>>()
    });
    assert!(call.poll().is_pending());
    time::advance(ms(100)).await;
    assert!(call.is_woken());
    assert_eq!(call.await.unwrap().status(), 504);
}

#[tokio::test(start_paused = true)]
async fn of_nested_layers_the_earlier_deadline_is_the_cause() {
    let outer = layer().max_timeout(ms(100));
    for (inner, time) in [
        (layer(), 100),
        (layer().max_timeout(ms(500)), 100),
        (layer().max_timeout(ms(50)), 50),
    ] {
        let shown = Arc::new(Mutex::new(None));
        let handler = service_fn(|request: Request<_>| {
            *shown.lock().unwrap() = Some(context_of(&request));
            pending::<Result<Response<Script>, Infallible>>()
        });
        let mut service = outer.layer(inner.layer(handler));
        let mut call = tokio_test::task::spawn(service.call(get()));
        assert!(call.poll().is_pending());
        time::advance(ms(time - 1)).await;
        assert!(call.poll().is_pending());
        time::advance(ms(1)).await;
        assert!(call.is_woken());
        let Poll::Ready(Ok(response)) = call.poll() else {
            panic!("the time is up");
        };
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        let ctx = shown.lock().unwrap().take().unwrap();
        assert_eq!(state(&ctx), TIME_OF_SERVER);
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_handler_is_dropped_and_the_answer_is_504() {
    let (drops, shown) = (Drops::default(), Arc::new(Mutex::new(None)));
    let layer = layer().drop_on_disconnect();
    let mut call = send_dropping(&layer, within("300m"), |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        let counted = drops.counted();
        async move {
            let _counted = counted;
            pending::<Result<Response<Script>, Infallible>>().await
        }
    });
    assert!(call.poll().is_pending());
    time::advance(ms(299)).await;
    assert!(call.poll().is_pending());
    assert_eq!(drops.count(), 0);
    time::advance(ms(1)).await;
    assert!(call.is_woken());
    let Poll::Ready(Ok(mut response)) = call.poll() else {
        panic!("the time is up");
    };
    assert_eq!(drops.count(), 1);
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(response.body().is_end_stream());
    assert_eq!(response.body().size_hint().exact(), Some(0));
    assert_eq!(next(response.body_mut()), "end");
    let ctx = shown.lock().unwrap().take().unwrap();
    drop((call, response));
    assert_eq!(state(&ctx), TIME_OF_CLIENT);
    assert!(err(&ctx).is_deadline_exceeded());
}

#[tokio::test(start_paused = true)]
async fn grpc_is_answered_with_status_4_in_trailers_only() {
    for (content_type, version) in [
        ("application/grpc", Version::HTTP_2),
        ("application/grpc+proto", Version::HTTP_2),
        ("application/grpc-web+proto", Version::HTTP_11),
    ] {
        let mut request = grpc("300m");
        *request.version_mut() = version;
        request
            .headers_mut()
            .insert("content-type", content_type.parse().unwrap());
        let mut call = send(&layer(), request, |_| {
            pending::<Result<Response<Script>, Infallible>>()
        });
        assert!(call.poll().is_pending());
        time::advance(ms(300)).await;
        let response = call.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], content_type);
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(
            response.headers()["grpc-message"],
            "context deadline exceeded"
        );
        assert!(response.body().is_end_stream());
    }
}

#[tokio::test(start_paused = true)]
async fn the_cause_names_the_cap_of_the_server() {
    let layer = layer().max_timeout(ms(100));
    for request in [get(), within("1S")] {
        let (ctx, response) = respond(&layer, request, Response::new(Script::new().waits()));
        time::advance(ms(100)).await;
        drop(response);
        assert_eq!(state(&ctx), TIME_OF_SERVER);
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_request_does_not_reach_the_handler() {
    let mut called = false;
    let mut send_late = |request| {
        let mut call = send(&layer(), request, |_| {
            called = true;
            future::ready(ok(Script::new()))
        });
        match call.poll() {
            Poll::Ready(Ok(response)) => response,
            _ => panic!("there is nothing to wait for"),
        }
    };
    assert_eq!(send_late(within("0n")).status(), 504);
    assert_eq!(send_late(grpc("0S")).headers()["grpc-status"], "4");
    assert!(!called);
}

/// A naive layer would poll the handler first, and return its response to the same deadline.
#[tokio::test(start_paused = true)]
async fn a_handler_that_sees_the_deadline_cannot_answer_any_more() {
    let mut call = send(&layer(), within("300m"), |request| async move {
        let ctx = context_of(&request);
        ctx.done().await;
        let response = Response::builder().status(StatusCode::BAD_GATEWAY);
        Ok::<_, Infallible>(response.body(Script::new()).unwrap())
    });
    assert!(call.poll().is_pending());
    time::advance(ms(300)).await;
    assert_eq!(call.await.unwrap().status(), 504);

    let mut call = send(&layer(), within("300m"), |request| async move {
        let error = context_of(&request).done().await;
        Err::<Response<Script>, _>(io::Error::from(error))
    });
    assert!(call.poll().is_pending());
    time::advance(ms(300)).await;
    assert_eq!(call.await.unwrap().status(), 504);
}

/// By the real clock: it must pass within one poll.
#[tokio::test]
async fn a_response_found_after_the_deadline_is_discarded() {
    let shown = Arc::new(Mutex::new(None));
    let mut call = send(&layer(), within("1m"), |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        async move {
            let ctx = context_of(&request);
            while ctx.check().is_ok() {
                std::hint::spin_loop();
            }
            ok(Script::new())
        }
    });
    let Poll::Ready(Ok(response)) = call.poll() else {
        panic!("the handler does not wait");
    };
    assert_eq!(response.status(), 504);
    assert_eq!(
        state(shown.lock().unwrap().as_ref().unwrap()),
        TIME_OF_CLIENT
    );
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_the_cause_is_the_deadline() {
    let script = || Script::new().data("one").waits();
    // The client disconnects.
    let (ctx, response) = respond(&layer(), within("300m"), Response::new(script()));
    time::advance(ms(300)).await;
    drop(response);
    assert_eq!(state(&ctx), TIME_OF_CLIENT);
    // Before there is a response.
    let shown = Arc::new(Mutex::new(None));
    let mut call = send(&layer(), within("300m"), |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        pending::<Result<Response<Script>, Infallible>>()
    });
    assert!(call.poll().is_pending());
    time::advance(ms(300)).await;
    drop(call);
    let ctx = shown.lock().unwrap().take().unwrap();
    assert_eq!(state(&ctx), TIME_OF_CLIENT);
    // The upload breaks off.
    let mut upload = within("300m");
    *upload.body_mut() = Script::new().fails();
    let mut kept = None;
    let mut call = send(&layer(), upload, |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        kept = Some(request.into_body());
        pending::<Result<Response<Script>, Infallible>>()
    });
    assert!(call.poll().is_pending());
    time::advance(ms(300)).await;
    assert!(
        kept.take()
            .unwrap()
            .frame()
            .now_or_never()
            .unwrap()
            .unwrap()
            .is_err()
    );
    let ctx = shown.lock().unwrap().take().unwrap();
    assert!(!ctx.caused_by::<ClientGone>());
    assert_eq!(state(&ctx), TIME_OF_CLIENT);
    // The server stops.
    let (server, guard) = Context::background().with_cancel();
    let (ctx, _response) = respond(
        &ContextLayer::new(&server),
        within("300m"),
        Response::new(script()),
    );
    time::advance(ms(300)).await;
    guard.cancel_with("SIGTERM");
    assert_eq!(state(&ctx), TIME_OF_CLIENT);
}

#[tokio::test(start_paused = true)]
async fn before_the_deadline_the_cause_is_the_first_one() {
    let script = || Script::new().data("one").waits();
    let (ctx, response) = respond(&layer(), within("300m"), Response::new(script()));
    time::advance(ms(299)).await;
    drop(response);
    time::advance(ms(1)).await;
    assert_eq!(state(&ctx), GONE);

    let whole = Response::new(Script::new().knows_its_end());
    let (ctx, _response) = respond(&layer(), within("300m"), whole);
    time::advance(ms(300)).await;
    assert_eq!(state(&ctx), FINISHED);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_drops_a_handler_that_ignored_a_cancel() {
    let (server, guard) = Context::background().with_cancel();
    let layer = ContextLayer::new(&server);
    let mut call = send(&layer, within("300m"), |_| {
        pending::<Result<Response<Script>, Infallible>>()
    });
    assert!(call.poll().is_pending());
    guard.cancel_with("SIGTERM");
    assert!(call.poll().is_pending());
    time::advance(ms(300)).await;
    assert!(call.is_woken());
    assert_eq!(call.await.unwrap().status(), 504);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_a_body_ends_it_with_an_error() {
    let drops = Drops::default();
    let counted = drops.counted();
    let script = Script::new().data("one").waits().on_drop(|| drop(counted));
    let (ctx, response) = respond(&layer(), within("300m"), Response::new(script));
    let mut body = response.into_body();
    assert_eq!(next(&mut body), "one");
    let mut frame = tokio_test::task::spawn(body.frame());
    assert!(frame.poll().is_pending());
    time::advance(ms(299)).await;
    assert!(!frame.is_woken());
    assert_eq!(state(&ctx), GOING_ON);
    time::advance(ms(1)).await;
    assert!(frame.is_woken());
    let error = frame.await.unwrap().unwrap_err();
    assert!(
        error
            .downcast_ref::<ContextError>()
            .unwrap()
            .is_deadline_exceeded()
    );
    assert_eq!(chain(&*error), TIME_OF_CLIENT);
    assert_eq!(drops.count(), 1);
    assert!(body.is_end_stream());
    assert_eq!(next(&mut body), "end");
    drop(body);
    assert_eq!(state(&ctx), TIME_OF_CLIENT);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_a_grpc_stream_ends_it_with_status_4() {
    let script = Script::new().data("one").waits();
    let (ctx, response) = respond(&layer(), grpc("300m"), Response::new(script));
    let mut body = response.into_body();
    assert_eq!(next(&mut body), "one");
    assert_eq!(next(&mut body), "nothing yet");
    time::advance(ms(300)).await;
    assert_eq!(next(&mut body), "trailers: grpc-status 4");
    assert_eq!(state(&ctx), TIME_OF_CLIENT);
    assert!(body.is_end_stream());
    assert_eq!(next(&mut body), "end");
}

/// HTTP/1.1 and gRPC-web have no HTTP trailers: they would be lost on the way, and the body would
/// look complete.
#[tokio::test(start_paused = true)]
async fn grpc_over_what_has_no_trailers_is_broken_off() {
    for (content_type, version) in [
        ("application/grpc", Version::HTTP_11),
        ("application/grpc-web", Version::HTTP_2),
        ("application/grpc-web+proto", Version::HTTP_11),
    ] {
        let mut request = grpc("300m");
        *request.version_mut() = version;
        request
            .headers_mut()
            .insert("content-type", content_type.parse().unwrap());
        let script = Script::new().data("one").waits();
        let (_, response) = respond(&layer(), request, Response::new(script));
        let mut body = response.into_body();
        assert_eq!(next(&mut body), "one");
        time::advance(ms(300)).await;
        assert_eq!(next(&mut body), "error: context deadline exceeded");
    }
}

#[tokio::test(start_paused = true)]
async fn grpc_that_is_shorter_than_announced_is_broken_off() {
    for (announced, end) in [
        (Some(6), "error: context deadline exceeded"),
        (Some(3), "trailers"),
        (None, "trailers"),
    ] {
        let script = Script::new().data("one").waits();
        let response = Response::new(match announced {
            Some(size) => script.size(size),
            None => script,
        });
        let (_, response) = respond(&layer(), grpc("300m"), response);
        let mut body = response.into_body();
        assert_eq!(next(&mut body), "one");
        time::advance(ms(300)).await;
        assert!(next(&mut body).starts_with(end));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_always_has_more_is_ended_too() {
    let script = Script::new().endless();
    let (_, response) = respond(&layer(), within("300m"), Response::new(script));
    let mut body = response.into_body();
    for _ in 0..3 {
        assert_eq!(next(&mut body), "more");
        time::advance(ms(100)).await;
    }
    assert_eq!(next(&mut body), "error: context deadline exceeded");
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_there_are_can_be_waited_for() {
    let huge = || {
        let request = Request::get("/").header(X_REQUEST_TIMEOUT, "9".repeat(60) + "h");
        request.body(Script::new()).unwrap()
    };
    let layer = layer().header(X_REQUEST_TIMEOUT);
    for layer in [layer.clone(), layer.max_timeout(Duration::MAX)] {
        for request in [|| within("99999999H"), huge, get] {
            let mut call = send(&layer, request(), |_| {
                pending::<Result<Response<Script>, Infallible>>()
            });
            assert!(call.poll().is_pending());
            let response = Response::new(Script::new().waits());
            let (ctx, mut response) = respond(&layer, request(), response);
            assert_eq!(next(response.body_mut()), "nothing yet");
            time::advance(HOUR).await;
            assert!(call.poll().is_pending());
            assert_eq!(next(response.body_mut()), "nothing yet");
            assert_eq!(state(&ctx), GOING_ON);
        }
    }
}

/// It needs no runtime either.
#[test]
fn a_request_that_is_answered_at_once_needs_no_timer() {
    let script = Script::new().data("one").knows_its_end();
    let (ctx, mut response) = respond(&layer(), within("300S"), Response::new(script));
    assert_eq!(next(response.body_mut()), "one");
    assert_eq!(state(&ctx), FINISHED);
}

#[test]
fn an_error_of_a_context_has_a_status() {
    let (gone, guard) = Context::background().with_cancel();
    guard.cancel_with(ClientGone::new());
    let (stopped, guard) = Context::background().with_cancel();
    guard.cancel_with("SIGTERM");
    let late = Context::background().with_timeout(Duration::ZERO);
    // A deadline stays one, whatever its cause says.
    let odd = Context::background().with_timeout_cause(Duration::ZERO, ClientGone::new());
    for (ctx, status, code) in [
        (gone, 499, 1),
        (stopped, 503, 14),
        (late, 504, 4),
        (odd, 504, 4),
    ] {
        let error = err(&ctx);
        assert_eq!(status_of(&error), status);
        assert_eq!(grpc_code_of(&error), code);
        assert_eq!(StatusCode::from(error), status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_function_gives_a_request_more_or_less_time() {
    let layer = layer()
        .max_timeout(ms(500))
        .max_timeout_with(|request| match request.uri.path() {
            "/events" => Some(HOUR),
            "/quick" => Some(ms(20)),
            _ => None,
        });
    for (path, asked, left) in [
        ("/", None, ms(500)),
        ("/events", None, HOUR),
        ("/quick", None, ms(20)),
        // The shorter of the two applies, as with `max_timeout`.
        ("/quick", Some("100m"), ms(20)),
        ("/events", Some("100m"), ms(100)),
    ] {
        let mut request = Request::get(path);
        if let Some(asked) = asked {
            request = request.header("grpc-timeout", asked);
        }
        let request = request.body(Script::new()).unwrap();
        let mut seen = None;
        let call = send(&layer, request, |request| {
            seen = context_of(&request).remaining();
            std::future::ready(ok(Script::new()))
        });
        drop(call);
        assert_eq!(seen, Some(left), "{path} {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_untrusted_client_sets_no_deadline_and_passes_no_baggage() {
    use errgroup::tower::Carried;

    let layer = layer()
        .header(X_REQUEST_TIMEOUT)
        .max_timeout(ms(500))
        .untrusted();
    let request = Request::get("/")
        .header("grpc-timeout", "1m")
        .header(X_REQUEST_TIMEOUT, "0")
        .header("baggage", "admin=true")
        .header("traceparent", "00-1-1-01");
    let mut seen = None;
    let call = send(&layer, request.body(Script::new()).unwrap(), |request| {
        let ctx = context_of(&request);
        let carried = ctx.value::<Carried>().unwrap();
        let names: Vec<_> = carried.iter().map(|(name, _)| name.to_string()).collect();
        seen = Some((ctx.remaining(), names));
        std::future::ready(ok(Script::new()))
    });
    drop(call);
    assert_eq!(seen, Some((Some(ms(500)), vec!["traceparent".to_owned()])));
}
