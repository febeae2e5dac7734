//! A layer that drops its handlers, as hyper does: at a disconnect and at the deadline, but not at
//! the server's end.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{self, pending};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use errgroup::Context;
use errgroup::tower::{ContextLayer, DropOnDisconnect, Handlers};
use http::Response;
use tokio::time::{self, Instant};

use crate::support::{GOING_ON, OnDrop, ms, state};
use crate::tower_support::{
    FINISHED, GONE, Script, TIME_OF_CLIENT, context_of, get, next, ok, only, send_dropping, within,
};

type Answer = Result<Response<Script>, Infallible>;

fn layer() -> (ContextLayer<DropOnDisconnect>, Handlers) {
    let layer = ContextLayer::new(&Context::background()).drop_on_disconnect();
    let layer = layer.grace(ms(100));
    let handlers = layer.handlers();
    (layer, handlers)
}

#[tokio::test(start_paused = true)]
async fn a_handler_need_not_be_send_and_may_borrow() {
    let (layer, _handlers) = layer();
    let (log, text) = (Rc::new(RefCell::new(Vec::new())), "borrowed".to_owned());
    let answered = send_dropping(&layer, get(), |request| {
        let (ctx, log, text) = (context_of(&request), log.clone(), &text);
        async move {
            time::sleep(ms(1)).await;
            log.borrow_mut().push(text.as_str());
            assert_eq!(state(&ctx), GOING_ON);
            ok(Script::new().data("done").knows_its_end())
        }
    })
    .await;
    assert_eq!(next(answered.unwrap().body_mut()), "done");
    assert_eq!(*log.borrow(), ["borrowed"]);
}

#[tokio::test(start_paused = true)]
async fn it_is_dropped_at_a_disconnect_and_at_the_deadline() {
    for (request, end) in [(get(), GONE), (within("50m"), TIME_OF_CLIENT)] {
        let (layer, handlers) = layer();
        let seen = Arc::new(Mutex::new(String::new()));
        let mut call = send_dropping(&layer, request, |request| {
            let (ctx, seen) = (context_of(&request), seen.clone());
            async move {
                let _on_drop = OnDrop(move || *seen.lock().unwrap() = state(&ctx));
                pending::<Answer>().await
            }
        });
        assert!(call.poll().is_pending());
        assert_eq!((handlers.running(), handlers.lingering()), (1, 0));
        time::advance(ms(40)).await;
        assert!(call.poll().is_pending());
        if end == TIME_OF_CLIENT {
            time::advance(ms(10)).await;
            assert!(matches!(call.poll(), Poll::Ready(Ok(late)) if late.status() == 504));
            assert_eq!(handlers.running(), 0);
        }
        drop(call);
        assert_eq!(
            *seen.lock().unwrap(),
            end,
            "the context is done before the drop"
        );
        assert_eq!((handlers.running(), handlers.lingering()), (0, 0));
        let drained = only(handlers.wait().await);
        assert_eq!((drained.finished(), drained.aborted().len()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_servers_end_it_has_its_grace() {
    let (layer, handlers) = layer();
    let quick = send_dropping(&layer, get(), |request| async move {
        context_of(&request).done().await;
        ok(Script::new().data("in good order"))
    });
    let slow = send_dropping(&layer, get(), |_| pending::<Answer>());
    let gone = send_dropping(&layer, get(), |_| pending::<Answer>());
    let (mut quick, mut slow, mut gone) = (quick, slow, gone);
    assert!(quick.poll().is_pending() && slow.poll().is_pending() && gone.poll().is_pending());
    let began = Instant::now();
    let leave = async {
        time::sleep(ms(50)).await;
        drop(gone);
    };
    let (drained, quick, slow, ()) = tokio::join!(handlers.wait(), quick, slow, leave);
    assert_eq!(began.elapsed(), ms(100));
    assert_eq!(
        (quick.unwrap().status(), slow.unwrap().status()),
        (200.try_into().unwrap(), 503.try_into().unwrap())
    );
    // One has returned, and one was dropped by the server with its connection.
    let drained = only(drained);
    assert_eq!((drained.stopped(), drained.aborted().len()), (2, 1));
    assert_eq!(
        drained.to_string(),
        "handlers: 2 stopped, 1 aborted (GET /, after 100.0ms)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_finished_ends_its_context() {
    let (layer, _handlers) = layer();
    let shown = Arc::new(Mutex::new(None));
    let call = send_dropping(&layer, get(), |request| {
        *shown.lock().unwrap() = Some(context_of(&request));
        future::ready(ok(Script::new().knows_its_end()))
    });
    call.await.unwrap();
    assert_eq!(state(shown.lock().unwrap().as_ref().unwrap()), FINISHED);
}
