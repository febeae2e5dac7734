//! What a recorder and a snapshot show of the handlers of a layer: one task for each, with its
//! outcome.
//!
//! Both see the whole process, in which other tests run. So each handler has a path of its own.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};
use std::time::Duration;

use errgroup::inspect::{self, GroupSnapshot, TaskKind, TaskSnapshot, TaskState};
use errgroup::tower::{ContextLayer, RequestBody, ResponseBody};
use errgroup::{Context, Group};
use futures::FutureExt;
use http::{Request, Response};
use tokio::time::{self, sleep};
use tokio_test::task::Spawn;
use tower::{Layer, Service, service_fn};

use crate::inspect_support::{Records, record, text, time};
use crate::support::{OnDrop, ms, waker};
use crate::tower_support::{Script, context_of};

const FAILED: &str = "the request's handler failed";
const GONE: &str = "client disconnected";
const GRACE_IS_OVER: &str = "its grace period is over";
const TIME_OF_CLIENT: &str = "the time that the client allows for the request has passed";

type Handler = Pin<Box<dyn Future<Output = Result<Response<Script>, String>> + Send>>;
type Call = Spawn<Pin<Box<dyn Future<Output = Result<Response<ResponseBody<Script>>, String>>>>>;

/// What a layer does with a handler whose client has disconnected.
#[derive(Debug, Clone, Copy)]
enum Mode {
    Lingers,
    Drops,
}

const BOTH: [Mode; 2] = [Mode::Lingers, Mode::Drops];

fn layer() -> ContextLayer {
    ContextLayer::new(&Context::background()).grace(ms(100))
}

/// A request to this path, through a layer, to a handler.
fn call<F>(
    mode: Mode,
    layer: &ContextLayer,
    request: Request<Script>,
    handler: impl Fn(Request<RequestBody<Script>>) -> F,
) -> Call
where
    F: Future<Output = Result<Response<Script>, String>> + Send + 'static,
{
    let inner = service_fn(|request| -> Handler { Box::pin(handler(request)) });
    tokio_test::task::spawn(match mode {
        Mode::Lingers => Box::pin(layer.layer(inner).call(request)),
        Mode::Drops => {
            let layer = layer.clone().drop_on_disconnect();
            Box::pin(layer.layer(inner).call(request))
        }
    })
}

/// A request to `/record/NAME/MODE`.
fn get(name: &str, mode: Mode) -> Request<Script> {
    let request = Request::get(format!("/record/{name}/{mode:?}"));
    request.body(Script::new()).unwrap()
}

/// The same with 50 milliseconds.
fn hurried(name: &str, mode: Mode) -> Request<Script> {
    let mut request = get(name, mode);
    let headers = request.headers_mut();
    headers.insert("grpc-timeout", "50m".parse().unwrap());
    request
}

/// The only bar of the handler at this path: its kind, its length, its outcome, and what the mark
/// of its failure says.
fn bar(records: &Records, name: &str, mode: Mode) -> (String, Duration, String, String) {
    let trace = records.trace();
    let name = format!("GET /record/{name}/{mode:?}");
    let bars = trace.0.iter().filter(|it| it["ph"] == "X");
    let bars: Vec<_> = bars.filter(|it| it["name"] == name.as_str()).collect();
    assert_eq!(bars.len(), 1, "the bars of {name}");
    let args = &bars[0]["args"];
    let marks = trace.0.iter().filter(|it| it["ph"] == "i");
    let marks = marks.filter(|it| it["args"]["task"] == args["task"]);
    let said: Vec<_> = marks.map(|it| text(&it["args"]["text"])).collect();
    assert_eq!(args["failure"].as_str(), said.first().map(|it| &**it));
    (
        text(&args["kind"]),
        time(&bars[0]["dur"]),
        text(&args["outcome"]),
        said.join(", "),
    )
}

#[track_caller]
fn check(records: &Records, name: &str, mode: Mode, outcome: &str, said: &str) {
    let (_, _, was, text) = bar(records, name, mode);
    assert_eq!((&*was, &*text), (outcome, said), "{name}, {mode:?}");
}

/// Polls a handler that panics.
fn poll_to_panic(mut call: Call) {
    let polled = catch_unwind(AssertUnwindSafe(|| drop(call.poll())));
    assert!(polled.is_err());
}

/// Moves the clock during a poll.
fn block_for(millis: u64) {
    let _ = time::advance(ms(millis)).now_or_never();
}

/// Lets every task that is ready run.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

fn ok() -> Result<Response<Script>, String> {
    Ok(Response::new(Script::new()))
}

fn failed() -> Result<Response<Script>, String> {
    Err("no disk".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_response_is_no_failure_even_if_it_comes_too_late() {
    let records = record(1_000);
    for mode in BOTH {
        let answers = call(mode, &layer(), get("answers", mode), async |_| {
            sleep(ms(30)).await;
            ok()
        });
        assert!(answers.await.is_ok());
        check(&records, "answers", mode, "ended", "");
        assert_eq!(bar(&records, "answers", mode).1, ms(30));

        let late = call(mode, &layer(), hurried("late", mode), async |_| {
            block_for(60);
            ok()
        });
        assert_eq!(late.await.unwrap().status(), 504);
        check(&records, "late", mode, "ended", "");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_is_a_failure_or_the_end_of_one_that_was_stopped() {
    let records = record(1_000);
    for mode in BOTH {
        let fails = call(mode, &layer(), get("fails", mode), async |_| failed());
        assert_eq!(fails.await.unwrap_err(), "no disk");
        check(&records, "fails", mode, "failed", FAILED);

        let (server, guard) = Context::background().with_cancel();
        let below = ContextLayer::new(&server);
        let mut stops = call(mode, &below, get("stops", mode), |request| async move {
            context_of(&request).done().await;
            failed()
        });
        assert!(stops.poll().is_pending());
        guard.cancel();
        assert!(stops.await.is_err());
        check(&records, "stops", mode, "stopped", FAILED);

        let late = call(mode, &layer(), hurried("slow", mode), async |_| {
            block_for(60);
            failed()
        });
        assert_eq!(late.await.unwrap().status(), 504);
        check(&records, "slow", mode, "stopped", FAILED);
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_recorded_with_its_text() {
    let records = record(1_000);
    for mode in BOTH {
        let in_poll = async |_| -> Result<_, String> { panic!("a bug") };
        poll_to_panic(call(mode, &layer(), get("bug", mode), in_poll));
        check(&records, "bug", mode, "panicked", "a bug");

        let made = catch_unwind(AssertUnwindSafe(|| {
            let in_call = |_| -> Handler { panic!("a bug in {}", "call") };
            call(mode, &layer(), get("call", mode), in_call)
        }));
        assert!(made.is_err());
        check(&records, "call", mode, "panicked", "a bug in call");

        // The destructor of one that has returned, in time or too late.
        for (name, work) in [("drop_in_time", 0), ("drop_too_late", 60)] {
            let at_end = call(mode, &layer(), hurried(name, mode), |_| {
                let bomb = OnDrop(|| panic!("a bug in a drop"));
                poll_fn(move |_| {
                    let _bomb = &bomb;
                    block_for(work);
                    Poll::Ready(ok())
                })
            });
            poll_to_panic(at_end);
            check(&records, name, mode, "panicked", "a bug in a drop");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_dropped_was_aborted() {
    let records = record(1_000);
    for mode in BOTH {
        let unpolled = call(mode, &layer(), get("unpolled", mode), async |_| {
            pending().await
        });
        sleep(ms(20)).await;
        drop(unpolled);
        check(&records, "unpolled", mode, "aborted", GONE);
        assert_eq!(bar(&records, "unpolled", mode).1, ms(20));
    }
    let mode = Mode::Drops;
    let mut gone = call(mode, &layer(), get("gone", mode), async |_| pending().await);
    assert!(gone.poll().is_pending());
    drop(gone);
    check(&records, "gone", mode, "aborted", GONE);

    let expired = call(mode, &layer(), hurried("expired", mode), async |_| {
        pending().await
    });
    assert_eq!(expired.await.unwrap().status(), 504);
    check(&records, "expired", mode, "aborted", TIME_OF_CLIENT);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_aborted_in_its_connection_says_why() {
    let records = record(1_000);
    for mode in BOTH {
        let layer = layer();
        let slow = call(mode, &layer, get("slow_end", mode), async |_| {
            pending().await
        });
        let (_, slow) = tokio::join!(layer.handlers().wait(), slow);
        assert_eq!(slow.unwrap().status(), 503);
        check(&records, "slow_end", mode, "aborted", GRACE_IS_OVER);
        assert_eq!(bar(&records, "slow_end", mode).1, ms(100));
    }
}

/// A handler that has lost its client after 40 milliseconds.
async fn linger<F>(layer: &ContextLayer, name: &str, handler: impl Fn(Context) -> F)
where
    F: Future<Output = Result<Response<Script>, String>> + Send + 'static,
{
    let request = get(name, Mode::Lingers);
    let mut call = call(Mode::Lingers, layer, request, |it| handler(context_of(&it)));
    assert!(call.poll().is_pending());
    sleep(ms(40)).await;
    drop(call);
    settle().await;
}

#[tokio::test(start_paused = true)]
async fn one_without_its_client_has_one_bar_up_to_its_end() {
    let records = record(1_000);
    let layer = layer();
    let check = |name: &str, length: u64, outcome: &str, said: &str| {
        let expected = ("lingering".into(), ms(length), outcome.into(), said.into());
        assert_eq!(bar(&records, name, Mode::Lingers), expected, "{name}");
    };
    linger(&layer, "returns", async |_| {
        sleep(ms(70)).await;
        ok()
    })
    .await;
    sleep(ms(100)).await;
    check("returns", 70, "ended", "");

    linger(&layer, "stopped", async |ctx: Context| {
        ctx.done().await;
        failed()
    })
    .await;
    check("stopped", 40, "stopped", FAILED);

    linger(&layer, "panics", async |ctx: Context| {
        ctx.done().await;
        panic!("a bug")
    })
    .await;
    check("panics", 40, "panicked", "a bug");

    linger(&layer, "deaf", async |_| pending().await).await;
    sleep(ms(200)).await;
    check("deaf", 140, "aborted", GRACE_IS_OVER);

    // The first takes the only place.
    let narrow = layer.clone().max_lingering(1);
    linger(&narrow, "first", async |_| pending().await).await;
    linger(&narrow, "second", async |_| pending().await).await;
    let (kind, length, outcome, said) = bar(&records, "second", Mode::Lingers);
    assert_eq!((&*kind, length), ("handler", ms(40)));
    assert_eq!((&*outcome, &*said), ("aborted", "too many handlers linger"));
    sleep(ms(200)).await;

    let dropped = ContextLayer::new(&Context::background());
    linger(&dropped, "server", async |_| pending().await).await;
    drop(dropped);
    settle().await;
    check("server", 40, "aborted", "the server was dropped");
}

/// The handler at this path in the tree, and its group.
fn in_tree(name: &str) -> Option<(GroupSnapshot, TaskSnapshot)> {
    let name = format!("GET /record/{name}");
    let groups = inspect::snapshot().groups;
    let find = |group: GroupSnapshot| {
        let tasks = &mut group.tasks.iter();
        let task = tasks
            .find(|task| task.name.as_ref() == Some(&name))?
            .clone();
        Some((group, task))
    };
    groups.into_iter().find_map(find)
}

#[tokio::test(start_paused = true)]
async fn it_stays_the_same_task_without_its_client() {
    let layer = layer();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut call = call(Mode::Lingers, &layer, get("tree", Mode::Lingers), |_| {
        let seen = seen.clone();
        async move {
            for _ in 0..2 {
                let below = Group::<String>::new();
                below.set_name("below a handler");
                below.go(pending());
                seen.lock().unwrap().push(inspect::task_id());
                sleep(ms(50)).await;
            }
            ok()
        }
    });
    assert!(call.poll().is_pending());
    let (group, inside) = in_tree("tree/Lingers").unwrap();
    assert_eq!((inside.kind, group.running), (TaskKind::Handler, 1));
    assert_eq!(inside.groups.len(), 1);
    sleep(ms(40)).await;
    drop(call);
    settle().await;
    sleep(ms(20)).await;
    let (group, after) = in_tree("tree/Lingers").unwrap();
    assert_eq!((after.kind, group.running), (TaskKind::Lingering, 1));
    assert_eq!((after.id, &after.site), (inside.id, &inside.site));
    assert_eq!((after.age, after.groups.len()), (ms(60), 1));
    assert!(
        group
            .to_string()
            .starts_with("handlers at tests/it/inspect_handlers.rs:")
    );
    assert!(
        after
            .to_string()
            .starts_with("lingering handler \"GET /record/tree/Lingers\" #")
    );
    sleep(ms(50)).await;
    assert!(in_tree("tree/Lingers").is_none());
    let seen = seen.lock().unwrap();
    assert_eq!(*seen, [Some(inside.id); 2]);
}

#[tokio::test(start_paused = true)]
async fn it_has_left_the_tree_when_a_wait_is_told() {
    for (name, is_lingering) in [("told", false), ("told_late", true)] {
        let layer = layer();
        let request = get(name, Mode::Lingers);
        let mut call = call(Mode::Lingers, &layer, request, async |_| {
            sleep(ms(50)).await;
            ok()
        });
        assert!(call.poll().is_pending());
        let path = format!("{name}/Lingers");
        assert!(in_tree(&path).is_some());
        let seen = Arc::new(Mutex::new(None));
        let saw = seen.clone();
        let look = waker(move || *saw.lock().unwrap() = Some(in_tree(&path).is_some()));
        let mut wait = Box::pin(layer.handlers().wait());
        let cx = &mut task::Context::from_waker(&look);
        assert!(wait.as_mut().poll(cx).is_pending());
        if is_lingering {
            drop(call);
            sleep(ms(60)).await;
        } else {
            assert!(call.await.is_ok());
        }
        assert_eq!(*seen.lock().unwrap(), Some(false), "{name}");
        assert!(wait.as_mut().poll(cx).is_ready());
    }
}

/// What the stragglers say of the handler at this path.
fn straggler(name: &str) -> Option<(TaskState, String, Option<Duration>, String)> {
    let name = format!("GET /record/{name}");
    let tree = inspect::snapshot();
    let late = tree.stragglers();
    let late = late
        .iter()
        .find(|it| it.task.name.as_ref() == Some(&name))?;
    let ended = late.ended;
    Some((
        late.task.state,
        ended.cause.clone(),
        ended.ago,
        late.task.to_string(),
    ))
}

#[tokio::test(start_paused = true)]
async fn one_that_ignores_the_end_of_its_context_is_a_straggler() {
    let layer = layer();
    // Its client has disconnected.
    linger(&layer, "client", async |_| pending().await).await;
    sleep(ms(50)).await;
    let (state, cause, ago, line) = straggler("client/Lingers").unwrap();
    assert_eq!(
        (state, &*cause, ago),
        (TaskState::InGrace, GONE, Some(ms(50)))
    );
    let said = ": STILL RUNNING in its grace period, started 90 ms ago, cancelled 50 ms ago \
                (client disconnected)";
    assert!(line.ends_with(said), "{line}");
    sleep(ms(100)).await;
    assert_eq!(straggler("client/Lingers"), None);

    for mode in BOTH {
        // The server stops.
        let (server, guard) = Context::background().with_cancel();
        let below = ContextLayer::new(&server).grace(ms(100));
        let name = format!("server/{mode:?}");
        let mut call = call(mode, &below, get("server", mode), async |_| pending().await);
        assert!(call.poll().is_pending());
        assert_eq!(straggler(&name), None);
        sleep(ms(10)).await;
        guard.cancel_with("the server restarts");
        // It is so before the handler is polled again, and after.
        for _ in 0..2 {
            sleep(ms(20)).await;
            let (state, cause, ago, _) = straggler(&name).unwrap();
            assert_eq!(
                (state, &*cause),
                (TaskState::InGrace, "the server restarts")
            );
            assert!(ago.is_some());
            assert!(call.poll().is_pending());
        }
        let (group, _) = in_tree(&name).unwrap();
        assert!(group.ended.is_none() && group.is_waited_for);
        assert!(!group.to_string().contains("not waited for"));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_blocks_its_thread_is_a_straggler() {
    let (server, guard) = Context::background().with_cancel();
    let layer = ContextLayer::new(&server).grace(ms(100));
    let stop = guard.disarm();
    let seen = Arc::new(Mutex::new(None));
    let saw = seen.clone();
    let mut call = call(
        Mode::Lingers,
        &layer,
        get("blocks", Mode::Lingers),
        move |_| {
            let (saw, stop) = (saw.clone(), stop.clone());
            async move {
                // In its first poll.
                stop.cancel();
                block_for(30);
                *saw.lock().unwrap() = straggler("blocks/Lingers");
                ok()
            }
        },
    );
    assert!(call.poll().is_ready());
    let (state, cause, ago, _) = seen.lock().unwrap().take().unwrap();
    assert_eq!((state, &*cause), (TaskState::InGrace, "context cancelled"));
    assert_eq!(ago, Some(ms(30)));
}

#[tokio::test(start_paused = true)]
async fn a_client_does_not_choose_how_much_of_its_path_is_kept() {
    let records = record(1_000);
    let layer = layer();
    let long = "long".repeat(10_000);
    let path = format!("{long}/{:?}", Mode::Lingers);
    linger(&layer, &long, async |_| pending().await).await;
    let tree = serde_json::to_string(&inspect::snapshot()).unwrap();
    assert!(tree.contains(&path[..200]) && !tree.contains(&path[..300]));
    sleep(ms(200)).await;
    let trace = records.recorder().to_chrome_json();
    assert!(trace.contains(&path[..200]) && !trace.contains(&path[..300]));
}

#[tokio::test(start_paused = true)]
async fn a_value_of_the_context_may_panic_when_it_is_dropped() {
    struct Bomb(#[expect(dead_code, reason = "held for its destructor")] OnDrop<fn()>);
    let layer = layer();
    let bomb = Arc::new(Bomb(OnDrop(|| panic!("a bug in a value"))));
    let with_bomb = Context::background().with_value(bomb);
    let mut request = get("value", Mode::Lingers);
    request.extensions_mut().insert(with_bomb);
    let mut call = call(Mode::Lingers, &layer, request, |request| {
        // Only the registry has the context at the end.
        drop(request);
        async {
            sleep(ms(50)).await;
            ok()
        }
    });
    assert!(call.poll().is_pending());
    drop(call);
    let waited = time::timeout(ms(10_000), layer.handlers().wait()).await;
    assert_eq!(waited.unwrap().phases()[0].left_running(), 0);
}
