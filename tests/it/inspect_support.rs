//! What the modules about a recorder share: the recorder itself, and the trace that it returns.
//!
//! `record` waits for the other tests that need a recorder, of which one records at a time.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use errgroup::inspect::{self, Recorder};
use serde_json::Value;

use crate::support::ms;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The right to have a recorder. A test that waits for it blocks its thread, which is its own.
pub(crate) struct Alone(
    #[expect(dead_code, reason = "held for its destructor")] MutexGuard<'static, ()>,
);

pub(crate) fn alone() -> Alone {
    let alone = ONE_AT_A_TIME.lock();
    Alone(alone.unwrap_or_else(PoisonError::into_inner))
}

/// A recorder that no other one takes the place of.
pub(crate) struct Records {
    recorder: Recorder,
    _alone: Alone,
}

pub(crate) fn record(capacity: usize) -> Records {
    Records {
        _alone: alone(),
        recorder: inspect::record(capacity),
    }
}

/// A trace, which has been checked against the rules of its format.
pub(crate) struct Trace(pub(crate) Vec<Value>);

impl Records {
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    pub(crate) fn trace(&self) -> Trace {
        Trace::of(&self.recorder)
    }
}

impl Trace {
    pub(crate) fn of(recorder: &Recorder) -> Trace {
        let trace: Value = serde_json::from_str(&recorder.to_chrome_json()).unwrap();
        assert_eq!(trace["displayTimeUnit"], "ms");
        let events = trace["traceEvents"].as_array().unwrap().clone();
        check_format(&events);
        Trace(events)
    }

    /// The process of the group, which is named `kind "name"`.
    pub(crate) fn pid(&self, group: &str) -> Option<u64> {
        let mut events = self.0.iter();
        let found = events.find(|it| it["name"] == "process_name" && it["args"]["name"] == group);
        found.map(|it| it["pid"].as_u64().unwrap())
    }

    /// The events of the group with this phase.
    pub(crate) fn events(&self, group: &str, phase: &str) -> Vec<&Value> {
        let pid = self.pid(group);
        let all = self.0.iter().filter(|it| it["ph"] == phase);
        all.filter(|it| it["pid"].as_u64() == pid).collect()
    }

    /// The bars of the group: name, start after that of the first one, length, outcome.
    pub(crate) fn bars(&self, group: &str) -> Vec<(String, Duration, Duration, String)> {
        let bars = self.events(group, "X");
        let first = bars.first().map_or(Duration::ZERO, |bar| time(&bar["ts"]));
        let values = bars.iter().map(|bar| {
            (
                text(&bar["name"]),
                time(&bar["ts"]) - first,
                time(&bar["dur"]),
                text(&bar["args"]["outcome"]),
            )
        });
        values.collect()
    }

    /// The marks of the group: name, and text or cause.
    pub(crate) fn marks(&self, group: &str) -> Vec<(String, String)> {
        let marks = self.events(group, "i").into_iter();
        let texts = marks.map(|mark| {
            let args = &mark["args"];
            let said = args.get("text").or(args.get("cause")).unwrap();
            (text(&mark["name"]), text(said))
        });
        texts.collect()
    }

    pub(crate) fn names(&self, group: &str) -> Vec<String> {
        self.bars(group).into_iter().map(|bar| bar.0).collect()
    }
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The time of an event, which is a fraction of microseconds in JSON. The difference of two such
/// fractions is not exact, so they are compared as whole nanoseconds.
pub(crate) fn time(value: &Value) -> Duration {
    Duration::from_nanos((value.as_f64().unwrap() * 1_000.0).round() as u64)
}

pub(crate) fn bar(
    name: &str,
    start: u64,
    length: u64,
    outcome: &str,
) -> (String, Duration, Duration, String) {
    (name.into(), ms(start), ms(length), outcome.into())
}

pub(crate) fn mark(name: &str, said: &str) -> (String, String) {
    (name.into(), said.into())
}

/// Checks what the trace event format demands of each event.
fn check_format(events: &[Value]) {
    let (mut processes, mut threads) = (HashSet::new(), HashMap::new());
    let mut last = 0.0;
    let mut ends: HashMap<u64, f64> = HashMap::new();
    for event in events {
        let (pid, tid) = (
            event["pid"].as_u64().expect("pid"),
            event["tid"].as_u64().expect("tid"),
        );
        let name = event["name"].as_str().expect("name");
        assert!(event["args"].is_object(), "{event}");
        if event["ph"] == "M" {
            match name {
                "process_name" => assert!(processes.insert(pid), "two names: {event}"),
                "thread_name" => {
                    assert_eq!(threads.insert(tid, pid), None, "two names: {event}");
                }
                "process_sort_index" | "thread_sort_index" => {
                    assert!(event["args"]["sort_index"].is_u64());
                    continue;
                }
                _ => panic!("unknown metadata: {event}"),
            }
            assert!(event["args"]["name"].is_string(), "{event}");
            continue;
        }
        assert!(processes.contains(&pid), "a process without name: {event}");
        assert_eq!(threads.get(&tid), Some(&pid), "a lane without name");
        let ts = event["ts"].as_f64().expect("ts");
        assert!(ts >= last, "not in order: {event}");
        last = ts;
        match event["ph"].as_str() {
            Some("X") => {
                let end = ts + event["dur"].as_f64().expect("dur");
                let before = ends.insert(tid, end).unwrap_or(0.0);
                // A nanosecond for the rounding of the sum.
                assert!(end >= ts && ts >= before - 0.001, "it overlaps: {event}");
                for key in ["task", "kind", "site", "outcome", "has_started"] {
                    assert!(!event["args"][key].is_null(), "{key}: {event}");
                }
            }
            Some("i") => assert!(event["s"] == "t" || event["s"] == "p", "{event}"),
            _ => panic!("unknown phase: {event}"),
        }
    }
}
