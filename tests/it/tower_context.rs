//! Each request has a context, which is cancelled with a cause when no client waits for the
//! response any more.

use std::convert::Infallible;
use std::future::{self, pending};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};

use errgroup::tower::{ClientGone, ContextLayer, RequestFinished};
use errgroup::{Context, Group};
use http::{Request, Response};
use http_body_util::BodyExt;
use tower::{Layer, Service, service_fn};

use crate::support::{Drops, GOING_ON, OnDrop, err, ms, state, tasks_end};
use crate::tower_support::{
    FINISHED, GONE, Script, UPLOAD_BROKEN, context_of, get, next, ok, respond, send,
};

/// A handler that shows its context and never answers.
fn never(
    shown: &Arc<Mutex<Option<Context>>>,
) -> impl FnMut(
    Request<errgroup::tower::RequestBody<Script>>,
) -> future::Pending<Result<Response<Script>, Infallible>>
+ use<> {
    let shown = shown.clone();
    move |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        pending()
    }
}

#[track_caller]
fn taken(shown: &Mutex<Option<Context>>) -> Context {
    let ctx = shown.lock().unwrap().take();
    ctx.expect("the handler has shown it")
}

#[test]
fn each_request_has_a_context_of_its_own_below_the_servers() {
    struct Version(u8);
    let (server, guard) = Context::background().with_value(Version(7)).with_cancel();
    let layer = ContextLayer::new(&server);
    let shown = Arc::default();
    let first = send(&layer, get(), never(&shown));
    let first_ctx = taken(&shown);
    let _second = send(&layer, get(), never(&shown));
    let second_ctx = taken(&shown);

    assert_eq!(first_ctx.value::<Version>().map(|it| it.0), Some(7));
    drop(first);
    assert_eq!(state(&first_ctx), GONE);
    assert_eq!(state(&second_ctx), GOING_ON);
    guard.cancel_with("SIGTERM");
    assert_eq!(state(&second_ctx), "context cancelled: SIGTERM");
}

#[test]
fn a_request_with_a_context_gets_a_child_of_it_and_the_servers() {
    struct Version(u8);
    for end in ["the other's", "the server's", "the client's"] {
        let (server, guard) = Context::background().with_cancel();
        let (outer, outer_guard) = Context::background().with_value(Version(7)).with_cancel();
        let shown = Arc::default();
        let mut request = get();
        request.extensions_mut().insert(outer.clone());
        let call = send(&ContextLayer::new(&server), request, never(&shown));
        let ctx = taken(&shown);
        assert_eq!(ctx.value::<Version>().map(|it| it.0), Some(7));
        assert_eq!(state(&ctx), GOING_ON);
        match end {
            "the server's" => guard.cancel_with(end),
            "the client's" => drop(call),
            _ => outer_guard.cancel_with(end),
        }
        let seen = state(&ctx);
        match end {
            "the client's" => assert_eq!((seen, state(&outer)), (GONE.into(), GOING_ON.into())),
            _ => assert_eq!(seen, format!("context cancelled: {end}")),
        }
    }
}

#[test]
fn the_context_ends_when_the_response_future_is_dropped() {
    let shown = Arc::default();
    let layer = ContextLayer::new(&Context::background());
    let mut call = send(&layer, get(), never(&shown));
    let ctx = taken(&shown);
    assert!(call.poll().is_pending());
    assert_eq!(state(&ctx), GOING_ON);
    drop(call);
    assert_eq!(state(&ctx), GONE);
    assert!(err(&ctx).is_cancelled());
    let cause = ctx.cause().unwrap();
    assert_eq!(cause.to_string(), "client disconnected");
    assert!(cause.downcast_ref::<ClientGone>().is_some());
    assert!(ctx.caused_by::<ClientGone>() && err(&ctx).caused_by::<ClientGone>());
    assert!(!ctx.caused_by::<RequestFinished>());
}

#[test]
fn it_ends_if_the_response_future_was_never_polled() {
    let shown = Arc::default();
    let layer = ContextLayer::new(&Context::background());
    drop(send(&layer, get(), never(&shown)));
    assert_eq!(state(&taken(&shown)), GONE);
}

#[test]
fn it_has_ended_by_the_time_the_handler_is_dropped() {
    let seen = Arc::new(Mutex::new(String::new()));
    let layer = ContextLayer::new(&Context::background());
    let mut call = send(&layer, get(), |request| {
        let (ctx, seen) = (context_of(&request), seen.clone());
        let on_drop = OnDrop(move || *seen.lock().unwrap() = state(&ctx));
        async move {
            let _on_drop = on_drop;
            pending::<Result<Response<Script>, Infallible>>().await
        }
    });
    assert!(call.poll().is_pending());
    drop(call);
    assert_eq!(*seen.lock().unwrap(), GONE);
}

#[test]
fn the_context_ends_when_the_body_is_dropped_half_way() {
    let layer = ContextLayer::new(&Context::background());
    let body = Script::new().data("one").waits();
    let (ctx, mut response) = respond(&layer, get(), Response::new(body));
    assert_eq!(state(&ctx), GOING_ON);
    assert_eq!(next(response.body_mut()), "one");
    assert_eq!(next(response.body_mut()), "nothing yet");
    assert_eq!(state(&ctx), GOING_ON);
    drop(response);
    assert_eq!(state(&ctx), GONE);
}

#[test]
fn it_has_ended_by_the_time_the_body_is_dropped() {
    let seen = Arc::new(Mutex::new(String::new()));
    let layer = ContextLayer::new(&Context::background());
    let call = send(&layer, get(), |request| {
        let (ctx, seen) = (context_of(&request), seen.clone());
        let body = Script::new().on_drop(move || *seen.lock().unwrap() = state(&ctx));
        future::ready(ok(body))
    })
    .poll();
    drop(call);
    assert_eq!(*seen.lock().unwrap(), GONE);
}

#[tokio::test]
async fn a_broken_upload_ends_the_context_before_the_body() {
    let layer = ContextLayer::new(&Context::background());
    let upload = Request::post("/")
        .body(Script::new().data("half").fails())
        .unwrap();
    let mut call = send(&layer, upload, |request| async move {
        let ctx = context_of(&request);
        let mut body = request.into_body();
        let half = body.frame().await.unwrap().unwrap();
        assert_eq!(half.into_data().unwrap(), b"half");
        assert_eq!(state(&ctx), GOING_ON);
        let error = body.frame().await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "broken off");
        assert!(error.source().unwrap().is::<io::Error>());
        assert_eq!(state(&ctx), UPLOAD_BROKEN);
        assert!(ctx.caused_by::<ClientGone>() && ctx.caused_by::<io::Error>());
        ok(Script::new().knows_its_end())
    });
    // It is no success although the handler then responds.
    assert!(call.poll().is_ready());
}

#[test]
fn a_complete_upload_cancels_nothing() {
    let layer = ContextLayer::new(&Context::background());
    let upload = Script::new().data("all of it").trailers().size(9);
    let upload = Request::post("/").body(upload).unwrap();
    let mut call = send(&layer, upload, |request| async move {
        let ctx = context_of(&request);
        assert_eq!(http_body::Body::size_hint(request.body()).exact(), Some(9));
        let all = request.into_body().collect().await.unwrap();
        assert!(all.trailers().is_some());
        assert_eq!(all.to_bytes(), "all of it");
        assert_eq!(state(&ctx), GOING_ON);
        ok(Script::new())
    });
    assert!(call.poll().is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_cancel_of_the_server_does_not_drop_the_handler() {
    let (server, guard) = Context::background().with_cancel();
    let layer = ContextLayer::new(&server);
    let mut call = send(&layer, get(), |request| async move {
        let ctx = context_of(&request);
        let error = ctx.done().await;
        tokio::time::sleep(ms(50)).await;
        let why = error.cause().unwrap().to_string();
        assert_eq!(why, "SIGTERM");
        ok(Script::new().data("in good order"))
    });
    assert!(call.poll().is_pending());
    guard.cancel_with("SIGTERM");
    let mut response = call.await.unwrap();
    assert_eq!(next(response.body_mut()), "in good order");
    assert_eq!(next(response.body_mut()), "end");
}

#[test]
fn a_request_after_the_servers_end_has_a_done_context() {
    let (server, guard) = Context::background().with_cancel();
    guard.cancel_with("SIGTERM");
    let (ctx, mut response) = respond(
        &ContextLayer::new(&server),
        get(),
        Response::new(Script::new().data("the last one")),
    );
    assert_eq!(state(&ctx), "context cancelled: SIGTERM");
    assert_eq!(next(response.body_mut()), "the last one");
}

#[tokio::test]
async fn a_task_spawned_with_the_context_ends_with_the_request() {
    let layer = ContextLayer::new(&Context::background());
    let drops = Drops::default();
    let mut call = send(&layer, get(), |request| {
        let (ctx, counted) = (context_of(&request), drops.counted());
        async move {
            tokio::spawn(async move {
                let _counted = counted;
                let error = ctx.run(pending::<()>()).await.unwrap_err();
                assert_eq!(
                    error.cause().unwrap().to_string(),
                    "the request is finished"
                );
            });
            ok(Script::new().knows_its_end())
        }
    });
    assert!(call.poll().is_ready());
    tasks_end().await;
    assert_eq!(drops.count(), 1);
}

#[tokio::test]
async fn a_group_of_a_request_stops_when_the_client_disconnects() {
    let layer = ContextLayer::new(&Context::background());
    let causes = Arc::new(Mutex::new(Vec::new()));
    let mut call = send(&layer, get(), |request| {
        let (ctx, causes) = (context_of(&request), causes.clone());
        async move {
            let (g, ctx) = Group::<String>::with_context(&ctx);
            for _ in 0..3 {
                let (ctx, causes) = (ctx.clone(), causes.clone());
                g.go(async move {
                    let on_drop = OnDrop(|| causes.lock().unwrap().push(state(&ctx)));
                    ctx.done().await;
                    drop(on_drop);
                    Ok(())
                });
            }
            g.wait().await.unwrap();
            ok(Script::new())
        }
    });
    assert!(call.poll().is_pending());
    tokio::task::yield_now().await;
    drop(call);
    tasks_end().await;
    assert_eq!(*causes.lock().unwrap(), [GONE; 3]);
}

#[test]
fn an_error_of_the_handler_is_not_a_disconnect() {
    let shown = Arc::new(Mutex::new(None));
    let layer = ContextLayer::new(&Context::background());
    let answer = send(&layer, get(), |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        future::ready(Err::<Response<Script>, _>(io::Error::other("no disk")))
    })
    .poll();
    let Poll::Ready(Err(error)) = answer else {
        panic!("the handler has failed");
    };
    assert_eq!(error.to_string(), "no disk");
    assert_eq!(
        state(&taken(&shown)),
        "context cancelled: the request's handler failed"
    );
}

#[test]
fn a_panic_is_not_a_disconnect_wherever_it_is() {
    const PANICKED: &str = "context cancelled: the request's handler panicked";
    let layer = ContextLayer::new(&Context::background());
    let shown = Arc::new(Mutex::new(None));
    let show = |request: &Request<_>| *shown.lock().unwrap() = Some(context_of(request));

    // In the call.
    let call = catch_unwind(AssertUnwindSafe(|| {
        send(
            &layer,
            get(),
            |request| -> future::Ready<Result<_, Infallible>> {
                show(&request);
                panic!("a bug");
            },
        )
    }));
    assert!(call.is_err());
    assert_eq!(state(&taken(&shown)), PANICKED);

    // In a poll. The code that catches the panic may drop the future much later.
    let mut call = send(&layer, get(), |request| {
        show(&request);
        async {
            if true {
                panic!("a bug")
            } else {
                ok(Script::new())
            }
        }
    });
    assert!(catch_unwind(AssertUnwindSafe(|| call.poll())).is_err());
    drop(call);
    assert_eq!(state(&taken(&shown)), PANICKED);

    // In the body.
    let (ctx, mut response) = respond(&layer, get(), Response::new(Script::new().panics()));
    let body = response.body_mut();
    assert!(catch_unwind(AssertUnwindSafe(|| next(body))).is_err());
    drop(response);
    assert_eq!(state(&ctx), PANICKED);
}

#[test]
fn an_end_is_final() {
    let layer = ContextLayer::new(&Context::background());
    let body = Script::new().data("all").knows_its_end();
    let (ctx, mut response) = respond(&layer, get(), Response::new(body));
    assert_eq!(next(response.body_mut()), "all");
    assert_eq!(state(&ctx), FINISHED);
    assert!(ctx.caused_by::<RequestFinished>() && !ctx.caused_by::<ClientGone>());
    assert_eq!(next(response.body_mut()), "end");
    drop(response);
    assert_eq!(state(&ctx), FINISHED);
}

#[test]
fn the_service_is_ready_when_the_inner_one_is() {
    struct Busy(u32);
    impl Service<Request<errgroup::tower::RequestBody<Script>>> for Busy {
        type Response = Response<Script>;
        type Error = io::Error;
        type Future = future::Ready<io::Result<Response<Script>>>;

        fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<io::Result<()>> {
            self.0 -= 1;
            match self.0 {
                2 => Poll::Pending,
                1 => Poll::Ready(Ok(())),
                _ => Poll::Ready(Err(io::Error::other("gone"))),
            }
        }

        fn call(&mut self, _: Request<errgroup::tower::RequestBody<Script>>) -> Self::Future {
            unreachable!("the service is not called")
        }
    }
    let mut service = ContextLayer::new(&Context::background()).layer(Busy(3));
    let mut task = tokio_test::task::spawn(());
    let mut ready = || task.enter(|cx, _| Service::<Request<Script>>::poll_ready(&mut service, cx));
    assert!(ready().is_pending());
    assert!(matches!(ready(), Poll::Ready(Ok(()))));
    assert!(matches!(ready(), Poll::Ready(Err(_))));
}

#[tokio::test]
async fn one_layer_serves_many_requests_and_leaves_nothing() {
    let drops = Drops::default();
    let server = Context::background().with_value(drops.counted());
    let layer = ContextLayer::new(&server);
    let mut service = layer.layer(service_fn(
        async |request: Request<errgroup::tower::RequestBody<Script>>| {
            let ctx = context_of(&request);
            let waits = ctx.run(pending::<()>());
            let _ = tokio::time::timeout(ms(1), waits).await;
            ok(Script::new().knows_its_end())
        },
    ));
    let calls: Vec<_> = (0..100).map(|_| service.call(get())).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().status(), 200);
    }
    drop((layer, service, server));
    assert_eq!(drops.count(), 1);
}
