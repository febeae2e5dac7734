//! Bodies that end early: an upload that is cut off never passes `ctx.check()`, and a response that
//! is too short is not finished.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use errgroup::tower::{ClientGone, ContextLayer, RequestFinished};
use errgroup::{Context, ContextError};
use http::{Request, Response};
use http_body_util::BodyExt;

use crate::support::{err, ms, state};
use crate::tower_support::{
    FINISHED, GONE, Script, UPLOAD_BROKEN, context_of, get, next, ok, respond, send,
};

fn layer() -> ContextLayer {
    ContextLayer::new(&Context::background())
}

/// Reads a body as tonic does, for which an error is the same as the end. Returns what `check` says
/// then.
async fn read_to_the_end(
    request: Request<errgroup::tower::RequestBody<Script>>,
) -> Result<(), ContextError> {
    let ctx = context_of(&request);
    let mut body = request.into_body();
    while let Some(Ok(_)) = body.frame().await {}
    ctx.check()
}

#[tokio::test(start_paused = true)]
async fn a_broken_upload_fails_the_check_whatever_ended_before() {
    for before in ["nothing", "the deadline", "the server"] {
        for upload in [
            Script::new().data("half").fails(),
            Script::new().size(9).data("half"),
        ] {
            let (server, guard) = Context::background().with_cancel();
            let mut request = Request::post("/");
            if before == "the deadline" {
                request = request.header("grpc-timeout", "50m");
            }
            let committed = Arc::new(Mutex::new(None));
            let layer = ContextLayer::new(&server);
            let mut call = send(&layer, request.body(upload).unwrap(), |request| {
                let committed = committed.clone();
                async move {
                    tokio::time::sleep(ms(100)).await;
                    let checked = read_to_the_end(request).await;
                    *committed.lock().unwrap() = Some(checked.is_ok());
                    ok(Script::new())
                }
            });
            assert!(call.poll().is_pending());
            if before == "the server" {
                guard.cancel_with("SIGTERM");
            }
            let _ = call.await;
            tokio::time::sleep(ms(200)).await;
            assert_eq!(*committed.lock().unwrap(), Some(false), "{before}");
        }
    }
}

#[test]
fn an_upload_that_is_too_short_says_so() {
    let shown = Arc::new(Mutex::new(None));
    let upload = Request::post("/")
        .body(Script::new().size(9).data("half"))
        .unwrap();
    let mut call = send(&layer(), upload, |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        async move {
            assert!(read_to_the_end(request).await.is_err());
            ok(Script::new().knows_its_end())
        }
    });
    assert!(call.poll().is_ready());
    let ctx = shown.lock().unwrap().take().unwrap();
    assert!(ctx.caused_by::<ClientGone>() && !ctx.caused_by::<RequestFinished>());
    assert_eq!(
        state(&ctx),
        "context cancelled: client disconnected before the request's body was complete: the body \
         ended 5 bytes before its announced length"
    );
}

#[test]
fn a_broken_upload_has_the_error_of_the_body_as_its_source() {
    let shown = Arc::new(Mutex::new(None));
    let upload = Request::post("/").body(Script::new().fails()).unwrap();
    let mut call = send(&layer(), upload, |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        async move {
            assert!(read_to_the_end(request).await.is_err());
            ok(Script::new().knows_its_end())
        }
    });
    assert!(call.poll().is_ready());
    let ctx = shown.lock().unwrap().take().unwrap();
    assert_eq!(state(&ctx), UPLOAD_BROKEN);
    assert!(err(&ctx).caused_by::<io::Error>());
    assert!(ctx.cause().unwrap().source().unwrap().is::<io::Error>());
}

#[test]
fn a_response_that_is_too_short_is_not_finished() {
    const TOO_SHORT: &str =
        "context cancelled: the response's body is shorter than its content-length";
    let with_length = |body| Response::builder().header("content-length", "9").body(body);
    for (body, polls, end) in [
        (Script::new().data("too short"), 1, FINISHED),
        (Script::new().data("short"), 2, TOO_SHORT),
        (Script::new().data("short").trailers(), 2, TOO_SHORT),
        (Script::new().data("short").knows_its_end(), 1, TOO_SHORT),
        (Script::new().knows_its_end(), 0, TOO_SHORT),
        // The server drops it.
        (Script::new().data("short"), 1, GONE),
    ] {
        let (ctx, mut response) = respond(&layer(), get(), with_length(body).unwrap());
        for _ in 0..polls {
            next(response.body_mut());
        }
        drop(response);
        assert_eq!(state(&ctx), end);
        assert_eq!(ctx.caused_by::<RequestFinished>(), end == FINISHED);
    }
    // A response to HEAD announces a body that is not sent.
    let head = Request::head("/").body(Script::new()).unwrap();
    let (ctx, response) = respond(
        &layer(),
        head,
        with_length(Script::new().knows_its_end()).unwrap(),
    );
    drop(response);
    assert_eq!(state(&ctx), FINISHED);
}

#[test]
fn a_body_that_fails_keeps_its_error() {
    let shown = Arc::new(Mutex::new(None));
    let mut call = send(&layer(), get(), |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        std::future::ready(Ok::<_, Infallible>(Response::new(Script::new().fails())))
    });
    let Poll::Ready(Ok(response)) = call.poll() else {
        panic!("the handler is ready");
    };
    let mut body = response.into_body();
    let mut frame = tokio_test::task::spawn(body.frame());
    let Poll::Ready(Some(Err(error))) = frame.poll() else {
        panic!("the body fails");
    };
    assert_eq!(error.to_string(), "broken off");
    assert!(error.source().unwrap().is::<io::Error>());
    let ctx = shown.lock().unwrap().take().unwrap();
    assert!(ctx.caused_by::<io::Error>());
    assert_eq!(
        state(&ctx),
        "context cancelled: the response's body failed: broken off"
    );
}
