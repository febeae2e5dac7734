//! What may go wrong when a handler is moved away from its connection: no runtime, a runtime that
//! shuts down, panics, too many of them, layers in layers.

use std::convert::Infallible;
use std::future::{self, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use errgroup::tower::{ContextLayer, Handlers, RequestBody};
use errgroup::{Context, Group};
use http::{Request, Response};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{self, Instant};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{Drops, HOUR, OnDrop, PATIENCE, ms, poll_with, state, tasks_end, waker};
use crate::tower_support::{
    GONE, Script, UPLOAD_BROKEN, context_of, get, ok, only, send, send_dropping,
};

type Answer = Result<Response<Script>, Infallible>;

fn layer() -> (ContextLayer, Handlers) {
    let layer = ContextLayer::new(&Context::background()).grace(ms(100));
    let handlers = layer.handlers();
    (layer, handlers)
}

fn runtimes() -> [Runtime; 2] {
    let mut threads = Builder::new_multi_thread();
    let threads = threads.worker_threads(2).enable_all().build().unwrap();
    let one = Builder::new_current_thread().enable_all().build().unwrap();
    [threads, one]
}

#[test]
fn without_a_runtime_the_handler_is_dropped_and_reported() {
    let (layer, handlers) = layer();
    let drops = Drops::default();
    let mut call = send(&layer, get(), |_| {
        let counted = drops.counted();
        async move {
            let _counted = counted;
            pending::<Answer>().await
        }
    });
    assert!(call.poll().is_pending());
    assert_eq!((handlers.running(), handlers.lingering()), (1, 0));
    drop(call);
    assert_eq!(drops.count(), 1);
    assert_eq!((handlers.running(), handlers.lingering()), (0, 0));
    let drained = only(tokio_test::block_on(handlers.wait()));
    assert_eq!(drained.aborted().len(), 1);
}

#[test]
fn a_runtime_that_shuts_down_drops_each_handler_once() {
    for runtime in runtimes() {
        let (layer, handlers) = layer();
        let drops = Drops::default();
        let begun = Arc::new(tokio::sync::Barrier::new(21));
        for _ in 0..20 {
            let (layer, counted, begun) = (layer.clone(), drops.counted(), begun.clone());
            runtime.spawn(async move {
                let mut counted = Some(counted);
                let service = service_fn(move |_: Request<RequestBody<Script>>| {
                    let (counted, begun) = (counted.take(), begun.clone());
                    async move {
                        let _counted = counted;
                        begun.wait().await;
                        pending::<Answer>().await
                    }
                });
                layer.layer(service).oneshot(get()).await
            });
        }
        runtime.block_on(begun.wait());
        assert_eq!(handlers.running(), 20);
        drop(runtime);
        assert_eq!(drops.count(), 20);
        assert_eq!((handlers.running(), handlers.lingering()), (0, 0));
        assert_eq!(
            only(tokio_test::block_on(handlers.wait())).aborted().len(),
            20
        );
    }
}

#[test]
fn a_runtime_that_is_gone_does_not_disturb_the_next_one() {
    let (layer, handlers) = layer();
    for runtime in runtimes().into_iter().chain(runtimes()) {
        runtime.block_on(async {
            let mut call = send(&layer, get(), |request| async move {
                context_of(&request).done().await;
                ok(Script::new())
            });
            assert!(call.poll().is_pending());
            drop(call);
            let ended = async {
                while handlers.running() > 0 {
                    tokio::task::yield_now().await;
                }
            };
            time::timeout(PATIENCE, ended).await.unwrap();
        });
    }
    assert_eq!(handlers.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_by_a_panic_lingers() {
    let (layer, handlers) = layer();
    let seen = Arc::new(Mutex::new(String::new()));
    let mut call = send(&layer, get(), |request| {
        let seen = seen.clone();
        async move {
            let ctx = context_of(&request);
            ctx.done().await;
            *seen.lock().unwrap() = state(&ctx);
            ok(Script::new())
        }
    });
    assert!(call.poll().is_pending());
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _call = call;
        panic!("the connection's bug")
    }));
    assert!(panicked.is_err());
    let drained = only(handlers.wait().await);
    assert_eq!(*seen.lock().unwrap(), GONE);
    assert_eq!((drained.stopped(), drained.errors().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_has_panicked_is_not_polled_again() {
    let (layer, handlers) = layer();
    let mut call = send(&layer, get(), |_| {
        let mut polls = 0;
        future::poll_fn(move |_| -> std::task::Poll<Answer> {
            polls += 1;
            assert!(polls < 2, "a bug");
            std::task::Poll::Pending
        })
    });
    assert!(call.poll().is_pending());
    assert!(catch_unwind(AssertUnwindSafe(|| call.poll())).is_err());
    drop(call);
    assert_eq!((handlers.running(), handlers.lingering()), (0, 0));
    assert_eq!(only(handlers.wait().await).errors().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_linger_at_once() {
    let layer = ContextLayer::new(&Context::background()).max_lingering(2);
    let handlers = layer.handlers();
    let drops = Drops::default();
    let leave = || {
        let mut call = send(&layer, get(), |_| {
            let counted = drops.counted();
            async move {
                let _counted = counted;
                time::sleep(ms(10)).await;
                ok(Script::new())
            }
        });
        assert!(call.poll().is_pending());
        drop(call);
    };
    for _ in 0..100 {
        leave();
    }
    assert_eq!((drops.count(), handlers.lingering()), (98, 2));
    time::sleep(ms(11)).await;
    assert_eq!((drops.count(), handlers.lingering()), (100, 0));
    leave();
    assert_eq!(handlers.lingering(), 1);
    let drained = only(handlers.wait().await);
    assert_eq!((drained.stopped(), drained.aborted().len()), (1, 98));
}

#[tokio::test(start_paused = true)]
async fn of_two_layers_one_moves_the_handler_and_the_grace_counts_once() {
    let (outer, outside) = layer();
    let inner = ContextLayer::new(&Context::background()).grace(ms(100));
    let inside = inner.handlers();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let began = Instant::now();
    let service = {
        let seen = seen.clone();
        outer.layer(
            inner.layer(service_fn(move |request: Request<RequestBody<_>>| {
                let (ctx, seen) = (context_of(&request), seen.clone());
                async move {
                    let on_drop = OnDrop(|| {
                        let end = (state(&ctx), began.elapsed());
                        seen.lock().unwrap().push(end);
                    });
                    pending::<()>().await;
                    drop(on_drop);
                    ok(Script::new())
                }
            })),
        )
    };
    let mut call = tokio_test::task::spawn(service.oneshot(get()));
    assert!(call.poll().is_pending());
    drop(call);
    assert_eq!((outside.lingering(), inside.lingering()), (1, 0));
    time::sleep(ms(150)).await;
    assert_eq!((outside.running(), inside.running()), (0, 0));
    assert_eq!(*seen.lock().unwrap(), [(GONE.to_owned(), ms(100))]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_whose_context_ends_otherwise_has_a_grace_too() {
    let (layer, handlers) = layer();
    let upload = Request::post("/upload")
        .body(Script::new().fails())
        .unwrap();
    let shown = Arc::new(Mutex::new(None));
    let began = Instant::now();
    let call = send(&layer, upload, |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        async move {
            use http_body_util::BodyExt;
            assert!(request.into_body().collect().await.is_err());
            pending::<Answer>().await
        }
    });
    // The client still waits: a layer outside has broken the upload, say.
    let response = call.await.unwrap();
    assert_eq!(
        (response.status().as_u16(), began.elapsed()),
        (503, ms(100))
    );
    assert_eq!(
        state(shown.lock().unwrap().as_ref().unwrap()),
        UPLOAD_BROKEN
    );
    let drained = only(handlers.wait().await);
    assert_eq!(
        drained.aborted()[0].to_string(),
        "POST /upload, after 100.0ms"
    );
}

#[tokio::test(start_paused = true)]
async fn a_grace_begins_with_the_end_and_not_when_that_is_observed() {
    use http_body_util::BodyExt;

    let (layer, _handlers) = layer();
    let upload = Request::post("/").body(Script::new().fails()).unwrap();
    let body = Arc::new(Mutex::new(None));
    let mut call = send(&layer, upload, |request| {
        *body.lock().unwrap() = Some(request.into_body());
        pending::<Answer>()
    });
    assert!(call.poll().is_pending());
    // Another task reads the body, and the connection is busy for a while.
    let mut body = body.lock().unwrap().take().unwrap();
    assert!(body.frame().await.unwrap().is_err());
    time::advance(ms(60)).await;
    assert!(call.poll().is_pending());
    let began = Instant::now();
    assert_eq!(call.await.unwrap().status(), 503);
    assert_eq!(began.elapsed(), ms(40));
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_although_a_call_is_not_polled() {
    let (layer, handlers) = layer();
    let mut call = send(&layer, get(), |_| pending::<Answer>());
    assert!(call.poll().is_pending());
    let began = Instant::now();
    let drained = only(handlers.clone().wait().await);
    assert_eq!(began.elapsed(), ms(1_100));
    assert_eq!((drained.left_running(), drained.finished()), (1, 0));
    assert_eq!(drained.to_string(), "handlers: 1 still running");
    // Its time is over when the server drops it.
    drop(call);
    let drained = only(handlers.wait().await);
    assert_eq!((drained.left_running(), drained.aborted().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_aborts_what_lingers() {
    let layer = ContextLayer::new(&Context::background()).grace(HOUR);
    let drops = Drops::default();
    let mut calls: Vec<_> = (0..3)
        .map(|_| {
            let counted = drops.counted();
            let mut counted = Some(counted);
            send(&layer, get(), move |_| {
                let counted = counted.take();
                async move {
                    let _counted = counted;
                    pending::<Answer>().await
                }
            })
        })
        .collect();
    assert!(calls.iter_mut().all(|call| call.poll().is_pending()));
    calls.truncate(1);
    drop(layer);
    time::sleep(ms(1)).await;
    // A response future is a handle, too.
    assert_eq!(drops.count(), 0);
    drop(calls);
    tasks_end().await;
    assert_eq!(drops.count(), 3);
}

/// A worker of the layer's group polls the handler, whose own group has a limit.
#[tokio::test(start_paused = true)]
async fn a_group_with_a_limit_goes_on_inside_a_handler_that_lingers() {
    let layer = ContextLayer::new(&Context::background()).grace(HOUR);
    let handlers = layer.handlers();
    let done = Arc::new(Mutex::new(0));
    let mut call = send(&layer, get(), |request| {
        let (ctx, done) = (context_of(&request), done.clone());
        async move {
            let group = Group::<String>::new();
            group.set_limit(1);
            for _ in 0..5 {
                let (spawner, ctx, done) = (group.spawner(), ctx.clone(), done.clone());
                group.go(async move {
                    ctx.done().await;
                    let inner = spawner.spawn(async { Ok(1) }).await;
                    *done.lock().unwrap() += inner.unwrap();
                    Ok(())
                });
            }
            group.wait().await.unwrap();
            ok(Script::new())
        }
    });
    assert!(call.poll().is_pending());
    tokio::task::yield_now().await;
    drop(call);
    let drained = only(time::timeout(HOUR, handlers.wait()).await.unwrap());
    assert_eq!((drained.stopped(), *done.lock().unwrap()), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_is_dropped_too_late_has_no_time_left() {
    let (server, guard) = Context::background().with_cancel();
    let layer = ContextLayer::new(&server).grace(ms(100));
    let handlers = layer.handlers();
    let mut calls = [50, 100].map(|_| send(&layer, get(), |_| pending::<Answer>()));
    assert!(calls.iter_mut().all(|call| call.poll().is_pending()));
    guard.cancel_with("SIGTERM");
    // The grace began when the server was stopped, and not when the client left.
    let [early, late] = calls;
    time::sleep(ms(50)).await;
    drop(early);
    assert_eq!(handlers.lingering(), 1);
    time::sleep(ms(51)).await;
    assert_eq!(handlers.lingering(), 0);
    drop(late);
    assert_eq!((handlers.running(), handlers.lingering()), (0, 0));
    let drained = only(handlers.wait().await);
    let elapsed: Vec<_> = drained.aborted().iter().map(|it| it.age()).collect();
    assert_eq!(elapsed, [ms(100), ms(101)]);
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_layer_share_their_handlers() {
    let layer = ContextLayer::new(&Context::background());
    let other = layer.clone().max_timeout(Duration::from_secs(1));
    let mut calls = [
        send(&layer, get(), |_| pending::<Answer>()),
        send(&other, get(), |_| pending::<Answer>()),
    ];
    assert!(calls.iter_mut().all(|call| call.poll().is_pending()));
    assert_eq!(layer.handlers().running(), 2);
    time::sleep(Duration::from_secs(1)).await;
    let [mut first, second] = calls;
    assert!(first.poll().is_pending());
    assert_eq!(second.await.unwrap().status(), 504);
    assert_eq!(layer.handlers().lingering(), 1);
}

/// A layer lives as long as its server, so a listener that a request leaves there leaks.
#[tokio::test(start_paused = true)]
async fn a_request_that_was_cancelled_leaves_no_waker_in_its_layer() {
    let (lingering, _handlers) = layer();
    let dropping = layer().0.drop_on_disconnect();
    for grace_is_over in [true, false] {
        let held = Arc::new(());
        let holds = held.clone();
        let waker = waker(move || _ = &holds);
        let (outer, guard) = Context::background().with_cancel();
        let mut request = [get(), get()];
        request.iter_mut().for_each(|request| {
            request.extensions_mut().insert(outer.clone());
        });
        let [first, second] = request;
        let mut lingers = send(&lingering, first, |_| pending::<Answer>());
        let mut drops = send_dropping(&dropping, second, |_| pending::<Answer>());
        assert!(poll_with(&mut *lingers, &waker).is_pending());
        assert!(poll_with(&mut *drops, &waker).is_pending());
        guard.cancel();
        assert!(poll_with(&mut *lingers, &waker).is_pending());
        assert!(poll_with(&mut *drops, &waker).is_pending());
        if grace_is_over {
            time::sleep(ms(101)).await;
            assert!(poll_with(&mut *lingers, &waker).is_ready());
            assert!(poll_with(&mut *drops, &waker).is_ready());
        }
        drop((lingers, drops, outer, waker));
        assert_eq!(
            Arc::strong_count(&held),
            1,
            "grace is over: {grace_is_over}"
        );
    }
}

#[test]
fn a_request_that_is_refused_is_never_counted() {
    let (layer, handlers) = layer();
    tokio_test::block_on(handlers.clone().wait());
    let refuse = move || {
        for _ in 0..20_000 {
            let mut call = send(&layer, get(), async |_| ok(Script::new()));
            assert!(call.poll().is_ready());
        }
    };
    // Several, so that the count is moved between processors in the middle of a request.
    let threads: Vec<_> = (0..3).map(|_| std::thread::spawn(refuse.clone())).collect();
    while !threads.iter().all(|it| it.is_finished()) {
        assert_eq!(handlers.running(), 0);
    }
    threads.into_iter().for_each(|it| it.join().unwrap());
}
