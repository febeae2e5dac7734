//! What a subscriber is told: the span of each task, inside that of whoever started it, and what stops one.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use errgroup::{Context, Group, fan_out};
use futures::FutureExt;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::set_default;
use tracing::{Dispatch, Event, Instrument, Subscriber, info, info_span};
use tracing_subscriber::layer::{Context as In, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

type G = Group<String>;

/// What was said, a line each: `LEVEL root/task{name=a}: message error=boom`, and `open` and `close` of spans.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// Those that are neither `open` nor `close`.
    fn events(&self) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| !line.starts_with("open") && !line.starts_with("close"));
        lines
    }

    /// Runs `body` with a subscriber that writes here, for everything on this thread.
    async fn of<T>(&self, most: LevelFilter, body: impl Future<Output = T>) -> T {
        // Where there is one subscriber alone, tracing asks that of whatever thread comes first to a place in the code whether the
        // place is wanted; and on the threads of other tests that is none. So there are always two.
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

/// Whence tasks are started: here, and for a detached handler.
const SITES: [&str; 2] = ["tracing_spans.rs:", "detached.rs:"];

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
        for field in ["message", "error", "panic", "cause"] {
            if let Some(value) = fields.0.get(field) {
                line += &match field {
                    "message" => format!(" {value}"),
                    _ => format!(" {field}={value}"),
                };
            }
        }
        self.push(line);
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
async fn a_task_runs_in_a_span_inside_that_of_whoever_started_it() {
    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let g = G::new();
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
            "INFO request/task{name=\"a\"}: from a",
            "INFO task/task{name=\"inner\"}: from inside"
        ]
    );
    let lines = said.lines();
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("open")).count(),
        4
    );
    assert_eq!(
        lines
            .iter()
            .filter(|line| line.starts_with("close"))
            .count(),
        4
    );
}

#[tokio::test]
async fn where_the_spans_of_tasks_are_not_wanted_a_task_is_in_that_of_whoever_started_it() {
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
            let start = g.named("start").start(|ready| async {
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
        // The pool has threads of its own, on which nobody has set a subscriber: a span brings its own.
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
async fn what_is_aborted_or_never_started_or_not_waited_for_is_told_of_too() {
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
            "DEBUG task{name=\"queued\"}: task aborted error=context cancelled cause=the group was aborted",
            "DEBUG task{name=\"aborted\"}: task aborted error=context cancelled cause=the group was aborted",
            "DEBUG task{name=\"late\"}: task aborted error=context deadline exceeded",
            "ERROR task{name=\"panics\"}: task panicked panic=whoops",
        ]
    );
}

#[cfg(feature = "tower")]
#[tokio::test]
async fn of_a_request_nothing_is_said_but_that_it_did_not_end_well() {
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
        ["DEBUG : context cancelled cause=client disconnected"]
    );
}

#[cfg(feature = "tower")]
#[tokio::test(start_paused = true)]
async fn a_detached_handler_runs_in_a_span_inside_that_of_its_request() {
    use crate::tower_support::{Script, get, ok};
    use errgroup::tower::ContextLayer;
    use tower::{Layer, ServiceExt, service_fn};

    let said = Log::default();
    said.of(LevelFilter::TRACE, async {
        let (layer, _handlers) = ContextLayer::new(&Context::background()).detached(Duration::MAX);
        let service = layer.layer(service_fn(|_| async {
            info!("at work");
            ok(Script::new().knows_its_end())
        }));
        let answered = service.oneshot(get()).instrument(info_span!("request"));
        answered.await.unwrap();
    })
    .await;
    assert_eq!(said.events(), ["INFO request/task: at work"]);
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
async fn a_cancel_is_an_event_with_its_cause_where_it_happens_and_only_the_first() {
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
async fn a_guard_that_is_dropped_and_a_group_that_ends_say_nothing() {
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

/// Panics whenever it is told of a span.
struct Panics;

impl<S: Subscriber> Layer<S> for Panics {
    fn on_enter(&self, _: &Id, _: In<'_, S>) {
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
        let handle = g.spawn(async { Ok(7) });
        g.go(async { Err("boom".to_owned()) });
        let value = handle.await;
        (value.unwrap(), g.wait().await)
    };
    let _default = set_default(Registry::default().with(Panics));
    let ended = tokio::time::timeout(Duration::from_secs(3_600), ended);
    assert_eq!(ended.await, Ok((7, Err("boom".to_owned()))));
}
