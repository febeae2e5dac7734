//! axum: the context as an extractor, its error as a response.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use errgroup::tower::{ContextLayer, MissingContext};
use errgroup::{Context, ContextError};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;

async fn ask(app: Router, request: Request<Body>) -> (StatusCode, String) {
    let response: Response<Body> = app.oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn within(timeout: &str) -> Request<Body> {
    let request = Request::get("/").header("grpc-timeout", timeout);
    request.body(Body::empty()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_handler_receives_the_context_of_its_request() {
    struct Name(&'static str);
    let server = Context::background().with_value(Name("the server's"));
    let handler = async |ctx: Context| {
        let name = ctx.value::<Name>().unwrap().0;
        format!("{name}, {:?}", ctx.remaining())
    };
    let app = Router::new()
        .route("/", get(handler))
        .layer(ContextLayer::new(&server));
    let (status, text) = ask(app, within("250m")).await;
    assert_eq!(
        (status.as_u16(), &*text),
        (200, "the server's, Some(250ms)")
    );
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_dropped_receives_its_context_too() {
    let layer = ContextLayer::new(&Context::background()).drop_on_disconnect();
    let handlers = layer.handlers();
    let handler = async |ctx: Context| format!("{:?}", ctx.remaining());
    let app = Router::new().route("/", get(handler)).layer(layer);
    let (status, text) = ask(app, within("250m")).await;
    assert_eq!((status.as_u16(), &*text), (200, "Some(250ms)"));
    assert_eq!(handlers.running(), 0);
    assert_eq!(handlers.wait().await.phases()[0].finished(), 0);
}

#[tokio::test]
async fn without_the_layer_the_response_says_what_to_do() {
    let app = Router::new().route("/", get(async |_: Context| "never"));
    let (status, text) = ask(app, within("250m")).await;
    assert_eq!(status, 500);
    assert_eq!(text, MissingContext.to_string());
    assert!(text.contains(".layer(errgroup::tower::ContextLayer::new(&ctx))"));

    let app = Router::new().route(
        "/",
        get(async |ctx: Result<Context, MissingContext>| ctx.map_or("none", |_| "some")),
    );
    assert_eq!(ask(app, within("250m")).await.1, "none");

    let app = Router::new().route(
        "/",
        get(async |ctx: Option<Context>| ctx.map_or("none", |_| "some")),
    );
    assert_eq!(ask(app.clone(), within("250m")).await.1, "none");
    let layer = ContextLayer::new(&Context::background());
    assert_eq!(ask(app.layer(layer), within("250m")).await.1, "some");
}

#[tokio::test]
async fn an_error_of_a_context_is_a_response_without_its_cause() {
    let stopped = async || {
        let (ctx, guard) = Context::background().with_cancel();
        guard.cancel_with("the database at 10.0.0.7 is down");
        ctx.run(async {}).await
    };
    let late = async || -> Result<(), ContextError> {
        Context::background().with_timeout(Duration::ZERO).check()
    };
    let bare = async || -> Result<(), StatusCode> {
        Context::background().with_timeout(Duration::ZERO).check()?;
        Ok(())
    };
    let app = Router::new()
        .route("/stopped", get(stopped))
        .route("/late", get(late))
        .route("/bare", get(bare));
    for (path, status, text) in [
        ("/stopped", 503, "context cancelled"),
        ("/late", 504, "context deadline exceeded"),
        ("/bare", 504, ""),
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = ask(app.clone(), request).await;
        assert_eq!((answer.0.as_u16(), &*answer.1), (status, text));
    }
}
