//! `Group::warn_stragglers`: when it says something, and what.

use std::fmt::{Debug, Write};
use std::future::pending;
use std::sync::{Arc, Mutex};

use tokio::time::{Instant, sleep};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::group_support::*;
use crate::support::ms;

/// The events of the thread, each with its time.
#[derive(Clone)]
struct Events(Instant, Arc<Mutex<Vec<(u64, String)>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, "{}={value} ", field.name()).unwrap();
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().fields().field("tasks").is_some() {
            let mut fields = Fields(event.metadata().level().to_string() + " ");
            event.record(&mut fields);
            let at = self.0.elapsed().as_millis() as u64;
            self.1.lock().unwrap().push((at, fields.0));
        }
    }
}

impl Events {
    fn begin() -> (Events, tracing::subscriber::DefaultGuard) {
        let events = Events(Instant::now(), Arc::default());
        let layer = tracing_subscriber::registry().with(events.clone());
        (events, tracing::subscriber::set_default(layer))
    }

    fn times(&self) -> Vec<u64> {
        self.1.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn it_warns_at_doubling_intervals_of_each_task_that_runs() {
    let (events, _guard) = Events::begin();
    let (g, _ctx) = group();
    g.set_name("slow");
    g.warn_stragglers(ms(1_000));
    for (name, takes) in [("short", 2_500), ("long", 9_000)] {
        g.named(name).go(async move {
            sleep(ms(takes)).await;
            OK
        });
    }
    g.cancel_with("shutting down");
    assert_eq!(g.wait().await, OK);
    sleep(ms(60_000)).await;
    assert_eq!(events.times(), [1_000, 2_000, 4_000, 8_000]);
    let said = events.1.lock().unwrap().clone();
    assert!(
        said.iter().all(|(_, text)| text.starts_with("WARN ")),
        "{said:?}"
    );
    assert!(
        said.iter().all(|(_, text)| text.contains("\"long\"")),
        "{said:?}"
    );
    let of_short = said.iter().filter(|(_, text)| text.contains("\"short\""));
    assert_eq!(of_short.count(), 2);
    for part in [
        "group=slow",
        "cause=shutting down",
        "elapsed=1s",
        "inspect_warn.rs",
    ] {
        assert!(said[0].1.contains(part), "{part} in {}", said[0].1);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_silent_if_the_tasks_end_in_time() {
    let (events, _guard) = Events::begin();
    let (g, _ctx) = group();
    g.warn_stragglers(ms(1_000));
    g.go_with(async |ctx| {
        ctx.done().await;
        sleep(ms(999)).await;
        OK
    });
    g.cancel();
    assert_eq!(g.wait().await, OK);
    sleep(ms(60_000)).await;
    assert!(events.times().is_empty());
}

#[tokio::test(start_paused = true)]
async fn it_is_silent_while_nothing_waits_for_the_group() {
    let (events, _guard) = Events::begin();
    let (g, _ctx) = group();
    g.warn_stragglers(ms(1_000));
    g.go(pending());
    g.cancel();
    sleep(ms(3_500)).await;
    assert!(events.times().is_empty());
    let waits = g.wait();
    let _ = tokio::time::timeout(ms(1_000), waits).await;
    // The wait was dropped, and the group with it.
    assert_eq!(events.times(), [4_000]);
    sleep(ms(60_000)).await;
    assert_eq!(events.times().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_warner_of_a_group_that_is_never_cancelled_ends_with_it() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.num_alive_tasks();
    let (g, _ctx) = group();
    g.warn_stragglers(ms(0));
    g.go(async { OK });
    assert_eq!(g.wait().await, OK);
    sleep(ms(10)).await;
    assert_eq!(metrics.num_alive_tasks(), before);
}
