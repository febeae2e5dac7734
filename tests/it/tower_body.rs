//! What counts as the end of a response body. A complete body is a success even if it is not polled
//! for the final `None`, and a short body is none.

use std::sync::atomic::Ordering;

use errgroup::Context;
use errgroup::tower::{ContextLayer, ResponseBody};
use http::{Request, Response, StatusCode};
use http_body::Body;

use crate::support::{GOING_ON, state};
use crate::tower_support::{FINISHED, GONE, Script, get, next, respond};

fn layer() -> ContextLayer {
    ContextLayer::new(&Context::background())
}

fn answer(response: Response<Script>) -> (Context, ResponseBody<Script>) {
    let (ctx, response) = respond(&layer(), get(), response);
    (ctx, response.into_body())
}

#[test]
fn an_empty_body_is_a_success_without_a_poll() {
    let (ctx, body) = answer(Response::new(Script::new().knows_its_end()));
    assert!(body.is_end_stream());
    drop(body);
    assert_eq!(state(&ctx), FINISHED);
}

#[test]
fn a_body_that_ended_with_a_frame_needs_no_further_poll() {
    let script = Script::new().data("one").data("two").knows_its_end();
    let (ctx, mut body) = answer(Response::new(script));
    assert_eq!(next(&mut body), "one");
    assert_eq!(state(&ctx), GOING_ON);
    assert!(!body.is_end_stream());
    assert_eq!(next(&mut body), "two");
    assert!(body.is_end_stream());
    drop(body);
    assert_eq!(state(&ctx), FINISHED);
}

/// A body that is received from another server and passed on does so.
#[test]
fn a_body_that_learns_of_its_end_between_two_polls_is_a_success() {
    for script in [Script::new(), Script::new().data("one")] {
        let knows = script.knowledge_of_its_end();
        let (ctx, mut body) = answer(Response::new(script));
        let _one = next(&mut body);
        knows.store(true, Ordering::SeqCst);
        // A server checks `is_end_stream` before it polls again, and drops the body if it has
        // ended.
        while !body.is_end_stream() {
            assert_eq!(next(&mut body), "end");
        }
        drop(body);
        assert_eq!(state(&ctx), FINISHED);
    }
}

#[test]
fn trailers_are_the_end() {
    let (ctx, mut body) = answer(Response::new(Script::new().data("one").trailers()));
    assert_eq!(next(&mut body), "one");
    assert_eq!(state(&ctx), GOING_ON);
    assert_eq!(next(&mut body), "trailers: grpc-status 0");
    drop(body);
    assert_eq!(state(&ctx), FINISHED);
}

#[test]
fn none_is_the_end() {
    let (ctx, mut body) = answer(Response::new(Script::new().data("one")));
    assert_eq!(next(&mut body), "one");
    assert_eq!(state(&ctx), GOING_ON);
    assert_eq!(next(&mut body), "end");
    assert_eq!(state(&ctx), FINISHED);
    assert_eq!(next(&mut body), "end");
}

#[test]
fn as_many_bytes_as_the_header_announced_are_the_whole_of_it() {
    let response = || {
        let response = Response::builder().header("content-length", "6");
        response
            .body(Script::new().data("one").data("two"))
            .unwrap()
    };
    let (ctx, mut body) = answer(response());
    assert_eq!(
        (next(&mut body), next(&mut body)),
        ("one".into(), "two".into())
    );
    // The producer of the body may still be running.
    assert_eq!(state(&ctx), GOING_ON);
    drop(body);
    assert_eq!(state(&ctx), FINISHED);

    let (ctx, mut body) = answer(response());
    assert_eq!(next(&mut body), "one");
    drop(body);
    assert_eq!(state(&ctx), GONE);
}

#[test]
fn as_many_bytes_as_the_size_hint_announced_are_the_whole_of_it() {
    let script = || Script::new().data("one").data("two").size(6);
    let (ctx, mut body) = answer(Response::new(script()));
    assert_eq!(body.size_hint().exact(), Some(6));
    assert_eq!(
        (next(&mut body), next(&mut body)),
        ("one".into(), "two".into())
    );
    drop(body);
    assert_eq!(state(&ctx), FINISHED);

    let (ctx, body) = answer(Response::new(script()));
    drop(body);
    assert_eq!(state(&ctx), GONE);

    let (ctx, body) = answer(Response::new(Script::new().size(0)));
    drop(body);
    assert_eq!(state(&ctx), FINISHED);
}

#[test]
fn where_http_has_no_body_none_is_missed() {
    let script = || Script::new().data("never sent");
    let head = Request::head("/").body(Script::new()).unwrap();
    let (ctx, response) = respond(&layer(), head, Response::new(script()));
    drop(response);
    assert_eq!(state(&ctx), FINISHED);

    for (status, end) in [
        (StatusCode::SWITCHING_PROTOCOLS, FINISHED),
        (StatusCode::NO_CONTENT, FINISHED),
        (StatusCode::NOT_MODIFIED, FINISHED),
        (StatusCode::OK, GONE),
        (StatusCode::NOT_FOUND, GONE),
    ] {
        let response = Response::builder().status(status).body(script()).unwrap();
        let (ctx, body) = answer(response);
        drop(body);
        assert_eq!(state(&ctx), end, "{status}");
    }
}

#[test]
fn a_body_that_fails_is_not_a_disconnect() {
    let (ctx, mut body) = answer(Response::new(Script::new().data("one").fails()));
    assert_eq!(next(&mut body), "one");
    assert_eq!(next(&mut body), "error: broken off");
    drop(body);
    assert_eq!(
        state(&ctx),
        "context cancelled: the response's body failed: broken off"
    );
}

#[test]
fn the_response_is_otherwise_what_the_handler_made() {
    let response = Response::builder()
        .status(418)
        .header("x-pot", "short and stout")
        .body(Script::new().data("tea").size(3))
        .unwrap();
    let (_, response) = respond(&layer(), get(), response);
    assert_eq!(response.status(), 418);
    assert_eq!(response.headers()["x-pot"], "short and stout");
    assert_eq!(response.body().size_hint().exact(), Some(3));
}
