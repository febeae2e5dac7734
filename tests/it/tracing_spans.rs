//! What a subscriber sees: the span of each task, inside the span in which its group was made, the
//! span of each item, inside the span in which its fan-out was made, and an event for what stops
//! one. The functions and iterators that the crate runs are in the span of their caller.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Duration;

use errgroup::fan_out::Items;
use errgroup::{Context, FanOut, Group, Progress, fan_out, fan_out_stream, hedge};
use futures::FutureExt;
use futures::future::BoxFuture;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::set_default;
use tracing::{Dispatch, Event, Instrument, Subscriber, info, info_span};
use tracing_subscriber::layer::{Context as In, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::fan_out_support::each_end;
use crate::group_support::{G, Gate, OK};

/// The log, one line for each event, `LEVEL root/task{name=a}: message error=boom`, and for each
/// `open` and `close` of a span.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// The lines that begin with none of these.
    fn events(&self) -> Vec<String> {
        let spans = ["open", "close", "follow"];
        let mut lines = self.lines();
        lines.retain(|line| !spans.iter().any(|span| line.starts_with(span)));
        lines
    }

    fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|it| *it == line).count()
    }

    /// Runs `body` with a subscriber that writes here, for everything on this thread.
    async fn of<T>(&self, most: LevelFilter, body: impl Future<Output = T>) -> T {
        // With one subscriber only, tracing caches whether a callsite is enabled by the thread that
        // reaches it first, and the threads of other tests have no subscriber. So there are always
        // two.
        static ANOTHER: OnceLock<Dispatch> = OnceLock::new();
        ANOTHER.get_or_init(|| Dispatch::new(Registry::default().with(LevelFilter::OFF)));
        let _default = set_default(Registry::default().with(most).with(self.clone()));
        body.await
    }
}

#[derive(Default)]
struct Fields(HashMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

/// The files in which tasks are started: this one, and the one for handlers that linger.
const SITES: [&str; 2] = ["tracing_spans.rs:", "handlers.rs:"];

/// A span's name with what sets it apart.
struct Named(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Log {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: In<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if attributes.metadata().target() == "errgroup" {
            let site = &fields.0["site"];
            assert!(SITES.iter().any(|file| site.contains(file)), "{site}");
        }
        let mut named = attributes.metadata().name().to_owned();
        for field in ["name", "number"] {
            if let Some(value) = fields.0.get(field) {
                named += &format!("{{{field}={value}}}");
            }
        }
        let span = ctx.span(id).unwrap();
        span.extensions_mut().insert(Named(named));
        self.push(format!("open {}", path(Some(span))));
    }

    fn on_event(&self, event: &Event<'_>, ctx: In<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = event.metadata().level();
        if fields.0["message"].starts_with("task ") {
            assert!(fields.0["site"].contains(SITES[0]));
            assert!(fields.0.contains_key("elapsed"));
        }
        let mut line = format!("{level} {}:", path(ctx.event_span(event)));
        for field in [
            "message", "error", "panic", "cause", "method", "path", "reason",
        ] {
            if let Some(value) = fields.0.get(field) {
                line += &match field {
                    "message" => format!(" {value}"),
                    _ => format!(" {field}={value}"),
                };
            }
        }
        self.push(line);
    }

    fn on_follows_from(&self, span: &Id, follows: &Id, ctx: In<'_, S>) {
        let (span, follows) = (path(ctx.span(span)), path(ctx.span(follows)));
        self.push(format!("follow {span} from {follows}"));
    }

    fn on_close(&self, id: Id, ctx: In<'_, S>) {
        self.push(format!("close {}", path(ctx.span(&id))));
    }
}

fn path<'a, S: LookupSpan<'a>>(
    span: Option<tracing_subscriber::registry::SpanRef<'a, S>>,
) -> String {
    let names = span.iter().flat_map(|span| span.scope().from_root());
    let names = names.map(|span| span.extensions().get::<Named>().unwrap().0.clone());
    names.collect::<Vec<_>>().join("/")
}

async fn log(text: &'static str) -> Result<(), String> {
    tokio::task::yield_now().await;
    info!("{text}");
    Ok(())
}

#[tokio::test]
async fn a_tasks_span_is_in_that_of_its_group_and_follows_its_start() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let g = {
            let _server = info_span!("server").entered();
            G::new()
        };
        {
            let _request = info_span!("request").entered();
            g.named("a").go(log("from a"));
        }
        let spawner = g.spawner();
        g.go(async move {
            spawner.named("inner").go(log("from inside"));
            Ok(())
        });
        g.wait().await.unwrap();
    })
    .await;
    let mut events = said.events();
    events.sort_unstable();
    assert_eq!(
        events,
        [
            "INFO server/task{name=\"a\"}: from a",
            "INFO server/task{name=\"inner\"}: from inside"
        ]
    );
    let lines = said.lines();
    let with = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((with("open"), with("close")), (5, 5));
    assert_eq!(with("follow"), 2);
    assert_eq!(said.count("follow server/task{name=\"a\"} from request"), 1);
    let inner = "follow server/task{name=\"inner\"} from server/task";
    assert_eq!(said.count(inner), 1);
}

/// Starts a long-lived task in `g` with each method that a request can use.
fn start_for_long(g: &G, way: usize, gate: &Gate) {
    let gate = gate.clone();
    let task = async move {
        gate.pass().await;
        tracing::warn!("over");
        Ok(())
    };
    match way {
        0 => _ = g.go(task),
        1 => _ = g.go_cancellable(task),
        2 => _ = g.spawner().go_with(|_| task),
        3 => _ = g.spawn(task),
        4 => _ = g.go_local(task),
        5 => assert!(g.try_go(task).is_ok()),
        _ => {
            let start = g.start(|_, ready| {
                ready.ok(());
                task
            });
            // Until it has been started.
            assert!(start.now_or_never().is_none());
        }
    }
}

/// 100 requests, each of which starts a task that outlives it.
async fn assert_requests_close(most: LevelFilter, in_span: &str) {
    let local = tokio::task::LocalSet::new();
    for way in 0..7 {
        let said = Log::default();
        let requests = async {
            let g = {
                let _server = tracing::warn_span!("server").entered();
                G::new()
            };
            let gate = Gate::new();
            for _ in 0..100 {
                let _request = tracing::warn_span!("request").entered();
                start_for_long(&g, way, &gate);
            }
            assert_eq!(said.count("close request"), 100, "way {way}");
            assert_eq!(said.count("close server"), 0);
            gate.open();
            g.wait().await.unwrap();
            assert_eq!(said.count(&format!("WARN {in_span}: over")), 100);
            assert_eq!(said.count("close server"), 1);
        };
        said.of(most, local.run_until(requests)).await;
    }
}

#[tokio::test]
async fn a_long_task_does_not_keep_its_callers_span_open() {
    assert_requests_close(LevelFilter::TRACE, "server/task").await;
}

#[tokio::test]
async fn nor_does_it_where_the_spans_of_tasks_are_filtered_out() {
    assert_requests_close(LevelFilter::WARN, "server").await;
}

#[tokio::test]
async fn a_blocking_task_does_not_keep_its_callers_span_open() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let g = G::new();
        let (go_on, waits) = std::sync::mpsc::channel::<()>();
        {
            let _request = info_span!("request").entered();
            g.go_blocking(move |_| {
                waits.recv().unwrap();
                Ok(())
            });
        }
        assert_eq!(said.count("close request"), 1);
        go_on.send(()).unwrap();
        g.wait().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_group_that_is_made_in_a_task_is_inside_that_task() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let g = G::new();
        g.named("outer").go(async {
            let body = async |g: &G, _| {
                g.named("inner").go(log("from inside"));
                Err::<(), _>("the body".to_owned())
            };
            _ = G::scope(&Context::background(), body).await;
            Ok(())
        });
        g.wait().await.unwrap();
    })
    .await;
    let (outer, body) = ["outer", "the body of the scope"]
        .map(|name| format!("task{{name={name:?}}}"))
        .into();
    assert_eq!(
        said.events(),
        [
            format!("WARN {outer}/{body}: task failed error=the body"),
            format!("INFO {outer}/task{{name=\"inner\"}}: from inside")
        ]
    );
}

/// Logs when it is dropped.
struct Logs(&'static str);

impl Drop for Logs {
    fn drop(&mut self) {
        info!("drop of {}", self.0);
    }
}

/// Items that log, and whose function and `on_progress` do.
fn logging(ctx: &Context) -> impl FnOnce() -> LoggingFanOut {
    let ctx = ctx.clone();
    move || {
        let items = Logs("the iterator");
        let items = (0..2).inspect(move |_| {
            let _ = &items;
            info!("next");
        });
        let function = Logs("f");
        let f = move |_: Context, item: i32| {
            let _ = &function;
            info!("f");
            async move {
                if item == 0 {
                    Ok(())
                } else {
                    Err("no".to_owned())
                }
            }
            .boxed()
        };
        let told = Logs("on_progress");
        let report = move |_: Progress| {
            let _ = &told;
            info!("on_progress");
        };
        let items: Box<dyn Iterator<Item = i32> + Send> = Box::new(items);
        let f: LoggingFunction = Box::new(f);
        let report: Box<dyn FnMut(Progress) + Send> = Box::new(report);
        fan_out(&ctx, items, f).limit(1).on_progress(report)
    }
}

type LoggingFunction =
    Box<dyn FnMut(Context, i32) -> BoxFuture<'static, Result<(), String>> + Send>;
type LoggingFanOut = FanOut<
    Items<Box<dyn Iterator<Item = i32> + Send>>,
    LoggingFunction,
    Box<dyn FnMut(Progress) + Send>,
>;

/// Asserts that all of these were logged, and only in the span of the request.
#[track_caller]
fn assert_in_request(said: &Log, texts: &[&str]) {
    let mut events = said.events();
    events.retain(|event| event.starts_with("INFO"));
    events.sort_unstable();
    events.dedup();
    let mut expected: Vec<_> = texts
        .iter()
        .map(|text| format!("INFO request: {text}"))
        .collect();
    expected.sort_unstable();
    assert_eq!(events, expected);
}

const ALL_OF_A_FAN_OUT: [&str; 6] = [
    "next",
    "f",
    "on_progress",
    "drop of the iterator",
    "drop of f",
    "drop of on_progress",
];

#[tokio::test]
async fn the_iterator_f_and_on_progress_run_in_the_callers_span() {
    for end in each_end() {
        let said = Log::default();
        said.of(LevelFilter::TRACE, async {
            // Made in the request, and awaited elsewhere.
            let fan_out = info_span!("request").in_scope(logging(&Context::background()));
            end.of(fan_out).instrument(info_span!("elsewhere")).await;
        })
        .await;
        assert_in_request(&said, &ALL_OF_A_FAN_OUT);
        assert_eq!(said.count("close request"), 1);
    }
}

#[tokio::test]
async fn a_dropped_fan_out_drops_its_parts_in_the_callers_span() {
    for end in each_end() {
        let said = Log::default();
        said.of(LevelFilter::TRACE, async {
            let fan_out = info_span!("request").in_scope(logging(&Context::background()));
            let mut end = end.of(fan_out);
            // One of the ends resolves at once.
            let _elsewhere = info_span!("elsewhere").entered();
            _ = futures::poll!(&mut end);
            drop(end);
        })
        .await;
        let mut events = said.events();
        events.retain(|event| event.contains("drop of"));
        events.sort_unstable();
        assert_eq!(
            events,
            [
                "INFO request: drop of f",
                "INFO request: drop of on_progress",
                "INFO request: drop of the iterator"
            ]
        );
    }
}

#[tokio::test]
async fn the_stream_of_a_fan_out_runs_in_the_callers_span() {
    for local in [false, true] {
        let said = Log::default();
        said.of(LevelFilter::TRACE, async {
            let mut polls = 0;
            let dropped = Logs("the stream");
            let items = futures::stream::poll_fn(move |cx| {
                let _ = &dropped;
                info!("poll");
                polls += 1;
                if polls % 2 == 1 {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready((polls < 6).then_some(()))
            });
            let request = info_span!("request");
            let fan_out = request
                .in_scope(|| fan_out_stream(&Context::background(), items, |_, ()| async { OK }));
            drop(request);
            let ended = if local {
                fan_out.local().for_each().await
            } else {
                fan_out.for_each().await
            };
            ended.unwrap();
        })
        .await;
        assert_in_request(&said, &["poll", "drop of the stream"]);
    }
}

#[tokio::test]
async fn the_function_of_a_hedge_runs_in_the_callers_span() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let dropped = Logs("f");
        let request = info_span!("request");
        let hedge = request.in_scope(|| {
            hedge(&Context::background(), Duration::ZERO, 2, move |_, _| {
                let _ = &dropped;
                info!("f");
                async { OK }
            })
        });
        drop(request);
        hedge.await.unwrap();
    })
    .await;
    assert_in_request(&said, &["f", "drop of f"]);
}

#[tokio::test]
async fn the_function_of_after_func_runs_in_the_callers_span() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let (ctx, guard) = Context::background().with_cancel();
        info_span!("request").in_scope(|| {
            let dropped = Logs("f");
            ctx.after_func(move || {
                let _ = &dropped;
                info!("f");
            });
        });
        drop(guard);
        while said.count("close request") == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_in_request(&said, &["f", "drop of f"]);
}

#[tokio::test]
async fn without_spans_of_items_an_item_is_in_the_callers_span() {
    let said = Log::default();
    said.of(LevelFilter::WARN, async {
        let g = G::new();
        let fails = async { Err("boom".to_owned()) };
        g.go(fails).await;
        let _ = g.wait().await;
        let request = tracing::warn_span!("request");
        let items = async {
            let warns = |_, _: i32| async {
                tracing::warn!("careful");
                Ok::<_, String>(())
            };
            fan_out(&Context::background(), 0..1, warns)
                .for_each()
                .await
        };
        items.instrument(request).await.unwrap();
    })
    .await;
    assert_eq!(
        said.events(),
        ["WARN : task failed error=boom", "WARN request: careful"]
    );
}

#[tokio::test]
async fn each_way_to_start_a_task_has_its_span() {
    let said = Log::default();
    let local = tokio::task::LocalSet::new();
    said.of(
        LevelFilter::TRACE,
        local.run_until(async {
            let (g, _ctx) = G::with_context(Context::background());
            g.named("go_with").go_with(|_| log("1")).await;
            g.named("cancellable").go_cancellable(log("2")).await;
            assert!(g.named("try_go").try_go(log("3")).is_ok());
            g.named("local").go_local(log("4")).await;
            g.named("spawn").spawn(log("5"));
            let start = g.named("start").start(|_, ready| async {
                ready.ok(());
                log("6").await
            });
            start.await.unwrap();
            g.wait().await.unwrap();
        }),
    )
    .await;
    let mut events = said.events();
    events.sort_unstable();
    assert_eq!(
        events,
        [
            "INFO task{name=\"cancellable\"}: 2",
            "INFO task{name=\"go_with\"}: 1",
            "INFO task{name=\"local\"}: 4",
            "INFO task{name=\"spawn\"}: 5",
            "INFO task{name=\"start\"}: 6",
            "INFO task{name=\"try_go\"}: 3",
        ]
    );
}

#[tokio::test]
async fn a_closure_on_the_blocking_pool_is_in_its_span() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let g = G::new();
        // The threads of the pool have no subscriber of their own. The span brings its own.
        g.named("query").go_blocking(move |_| {
            tracing::dispatcher::with_default(&dispatch, || info!("on the pool"));
            Ok(())
        });
        g.wait().await.unwrap();
    })
    .await;
    assert_eq!(said.events(), ["INFO task{name=\"query\"}: on the pool"]);
}

#[tokio::test]
async fn an_item_runs_in_a_span_inside_that_of_the_fan_outs_caller() {
    for local in [false, true] {
        let said = Log::default();
        said.of(LevelFilter::TRACE, async {
            let request = info_span!("request");
            let item = |_, _: i32| log("an item");
            async {
                let items = fan_out(&Context::background(), 0..2, item).limit(1);
                match local {
                    true => items.named("page").local().for_each().await,
                    false => items.named("page").for_each().await,
                }
            }
            .instrument(request)
            .await
            .unwrap();
        })
        .await;
        assert_eq!(
            said.events(),
            [
                "INFO request/item{name=\"page\"}{number=0}: an item",
                "INFO request/item{name=\"page\"}{number=1}: an item"
            ]
        );
    }
}

#[tokio::test]
async fn a_failure_a_panic_and_an_abort_are_events_in_the_tasks_span() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let (g, _ctx) = G::with_context(Context::background());
        g.named("fails").go(async { Err("disk full".to_owned()) });
        g.named("stopped").go_cancellable(std::future::pending());
        let _ = g.wait_all().await;
        let (g, _ctx) = G::with_context(Context::background());
        g.named("panics")
            .go(async { std::panic::panic_any("whoops") });
        let waited = std::panic::AssertUnwindSafe(g.wait()).catch_unwind().await;
        assert!(waited.is_err());
    })
    .await;
    assert_eq!(
        said.events(),
        [
            "WARN task{name=\"fails\"}: task failed error=disk full",
            "DEBUG task{name=\"stopped\"}: task aborted error=context cancelled cause=disk full",
            "ERROR task{name=\"panics\"}: task panicked panic=whoops",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn aborted_never_started_and_dropped_tasks_are_events_too() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let g = G::new();
        g.set_limit(1);
        g.named("aborted").go(std::future::pending()).await;
        g.named("queued").go(std::future::pending());
        g.abort();
        let _ = g.wait_all().await;

        let (g, _ctx) = G::with_context(Context::background().with_timeout(Duration::ZERO));
        g.set_grace(Duration::ZERO);
        g.named("late").go(std::future::pending());
        let _ = g.wait_all().await;

        let g = G::new();
        g.named("panics")
            .go(async { std::panic::panic_any("whoops") })
            .await;
        tokio::task::yield_now().await;
        drop(g);
    })
    .await;
    assert_eq!(
        said.events(),
        [
            "DEBUG task{name=\"aborted\"}: task aborted error=context cancelled \
             cause=the group was aborted",
            "DEBUG task{name=\"queued\"}: task aborted error=context cancelled \
             cause=the group was aborted",
            "DEBUG task{name=\"late\"}: task aborted error=context deadline exceeded",
            "ERROR task{name=\"panics\"}: task panicked panic=whoops",
        ]
    );
}

#[cfg(feature = "tower")]
#[tokio::test]
async fn a_request_is_an_event_only_if_it_did_not_end_well() {
    use crate::tower_support::{Script, get, next, respond};
    use errgroup::tower::ContextLayer;
    use http::Response;

    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let layer = ContextLayer::new(&Context::background());
        for script in [
            Script::new().knows_its_end(),
            Script::new().data("one").size(3),
            Script::new().data("one").waits(),
        ] {
            let (_, mut response) = respond(&layer, get(), Response::new(script));
            next(response.body_mut());
            drop(response);
        }
    })
    .await;
    assert_eq!(
        said.lines(),
        ["DEBUG : client disconnected method=GET path=/"]
    );
}

#[cfg(feature = "tower")]
#[tokio::test(start_paused = true)]
async fn what_happens_to_a_handler_is_an_event_in_its_requests_span() {
    use crate::support::ms;
    use crate::tower_support::{Script, context_of, ok, send};
    use errgroup::tower::ContextLayer;
    use http::Request;

    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let layer = ContextLayer::new(&Context::background()).grace(ms(100));
        let handlers = layer.handlers();
        for path in ["/gone", "/late", "/slow", "/panics"] {
            let request = Request::post(path);
            let request = match path {
                "/late" => request.header("grpc-timeout", "50m"),
                _ => request,
            };
            let request = request.body(Script::new()).unwrap();
            let span = info_span!("request").entered();
            let mut call = send(&layer, request, move |request| async move {
                let ctx = context_of(&request);
                info!("at work");
                ctx.done().await;
                match path {
                    "/slow" => std::future::pending().await,
                    "/panics" => std::panic::panic_any("whoops"),
                    _ => info!("cleans up"),
                }
                ok(Script::new())
            });
            assert!(call.poll().is_pending());
            drop(span);
            match path {
                "/late" => assert_eq!(call.await.unwrap().status(), 504),
                _ => drop(call),
            }
            tokio::time::sleep(ms(200)).await;
        }
        assert_eq!(handlers.running(), 0);
    })
    .await;
    let at = |event: &str, path: &str| format!("{event} method=POST path={path}");
    let line = |level: &str, text: String| format!("{level} request: {text}");
    let begin = line("INFO", "at work".to_owned());
    let events: Vec<_> = said.events();
    assert_eq!(
        events,
        [
            begin.clone(),
            line("DEBUG", at("client disconnected", "/gone")),
            line("INFO", "cleans up".to_owned()),
            begin.clone(),
            line("INFO", at("request timed out", "/late")),
            line("INFO", "cleans up".to_owned()),
            begin.clone(),
            line("DEBUG", at("client disconnected", "/slow")),
            line("WARN", at("handler aborted", "/slow")) + " reason=its grace period is over",
            begin,
            line("DEBUG", at("client disconnected", "/panics")),
            "ERROR request: handler panicked panic=whoops method=POST path=/panics".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_failure_a_panic_and_an_abort_are_events_in_the_items_span() {
    for local in [false, true] {
        let said = Log::default();
        said.of(LevelFilter::TRACE, async {
            for panics in [false, true] {
                let item = move |_, item: i32| async move {
                    match (item, panics) {
                        (0, _) => std::future::pending().await,
                        (_, true) => std::panic::panic_any("whoops"),
                        (_, false) => Err::<(), _>("disk full".to_owned()),
                    }
                };
                let items = fan_out(&Context::background(), 0..2, item).named("page");
                let ended = async {
                    match local {
                        true => items.local().for_each().await,
                        false => items.for_each().await,
                    }
                };
                let ended = std::panic::AssertUnwindSafe(ended).catch_unwind().await;
                assert_eq!(ended.is_err(), panics);
            }
        })
        .await;
        let [failed, stopped, panicked, stopped_too] = &said.events()[..] else {
            panic!("{:?}", said.events())
        };
        let (first, second) = (
            "item{name=\"page\"}{number=0}",
            "item{name=\"page\"}{number=1}",
        );
        let aborted = format!("DEBUG {first}: task aborted error=context cancelled cause=");
        assert_eq!(
            *failed,
            format!("WARN {second}: task failed error=disk full")
        );
        assert_eq!(*stopped, format!("{aborted}disk full"));
        assert_eq!(
            *panicked,
            format!("ERROR {second}: task panicked panic=whoops")
        );
        assert!(
            stopped_too.starts_with(&format!("{aborted}task \"page[1]\" ")),
            "{stopped_too}"
        );
        let lines = said.lines();
        let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!((count("open item"), count("close item")), (4, 4));
    }
}

#[tokio::test]
async fn only_the_first_cancel_is_an_event_and_it_has_the_cause() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let _admin = info_span!("admin").entered();
        let (ctx, guard) = Context::background().with_cancel();
        guard.cancel_with("the user pressed stop");
        guard.cancel();
        drop(guard);
        let g = Group::<String>::with_context(&ctx).0;
        g.cancel();
        let h = G::new();
        h.cancel();
    })
    .await;
    assert_eq!(
        said.events(),
        [
            "DEBUG admin: context cancelled cause=the user pressed stop",
            "DEBUG admin: context cancelled"
        ]
    );
}

#[tokio::test]
async fn the_event_of_a_cause_has_its_whole_chain() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let (_ctx, guard) = Context::background().with_cancel();
        guard.cancel_with(anyhow::anyhow!("disk full").context("cannot save"));
    })
    .await;
    assert_eq!(
        said.events(),
        ["DEBUG : context cancelled cause=cannot save: disk full"]
    );
}

#[tokio::test]
async fn a_dropped_guard_and_the_end_of_a_group_are_no_events() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let (_ctx, guard) = Context::background().with_cancel();
        drop(guard);
        G::new().wait().await.unwrap();
        let none = fan_out(&Context::background(), 0..0, |_, _| log("never"));
        none.for_each().await.unwrap();
    })
    .await;
    assert_eq!(said.lines(), [""; 0]);
}

/// Panics whenever a span is created.
struct Panics;

impl<S: Subscriber> Layer<S> for Panics {
    fn on_enter(&self, _: &Id, _: In<'_, S>) {
        std::panic::panic_any("a subscriber")
    }

    fn on_follows_from(&self, _: &Id, _: &Id, _: In<'_, S>) {
        std::panic::panic_any("a subscriber")
    }

    fn on_close(&self, _: Id, _: In<'_, S>) {
        std::panic::panic_any("a subscriber")
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_panics_loses_nothing() {
    let ended = async {
        let g = G::new();
        let spawner = g.spawner();
        let handle = g.spawn(async move {
            // It follows from this one.
            let inner = spawner.spawn(async { Ok(7) });
            Ok(inner.await.unwrap())
        });
        g.go(async { Err("boom".to_owned()) });
        let value = handle.await;
        (value.unwrap(), g.wait().await)
    };
    let _default = set_default(Registry::default().with(Panics));
    let ended = tokio::time::timeout(Duration::from_secs(3_600), ended);
    assert_eq!(ended.await, Ok((7, Err("boom".to_owned()))));
    let ctx = Context::background();
    let items = || {
        fan_out(
            &ctx,
            0..3,
            |_, item: i32| async move { Ok::<_, String>(item) },
        )
    };
    assert_eq!(items().on_progress(|_| ()).all().await, Ok(vec![0, 1, 2]));
    let local = items().on_progress(|_| ()).local();
    assert_eq!(local.all().await, Ok(vec![0, 1, 2]));
}
