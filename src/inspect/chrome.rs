//! A timeline in the trace event format of Chrome, which Perfetto opens.
//!
//! Each group is a process, and each lane of it a thread. The tasks of a lane do not overlap, as
//! the format demands of the events of one thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;
use serde_json::{Value, json};

use super::text::group_kind;
use super::timeline::{Bar, GroupRows, Timeline, micros};

/// A trace event. An argument that is `None` is left out.
#[derive(Serialize)]
struct Event {
    ph: &'static str,
    name: String,
    cat: &'static str,
    pid: u64,
    tid: u64,
    /// Microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    ts: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    /// The scope of an instant event: `t` is its thread, `p` its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<&'static str>,
    args: Value,
}

/// Returns the trace: names first, then the events in the order of their times.
pub(super) fn trace(timeline: &Timeline) -> Value {
    let mut names = Vec::new();
    let mut events = Vec::new();
    // Unique in the whole trace, because not every reader takes it as a number within its process.
    let mut last_tid = 0;
    for group in &timeline.groups {
        let mut name = |what: &str, tid: u64, args: Value| {
            names.push(Event {
                ph: "M",
                name: what.into(),
                cat: "__metadata",
                pid: group.id,
                tid,
                ts: None,
                dur: None,
                s: None,
                args,
            });
        };
        last_tid += 1;
        let own = last_tid;
        name("process_name", own, json!({ "name": title(group) }));
        name("process_sort_index", own, json!({ "sort_index": group.id }));
        name("thread_name", own, json!({ "name": "the group" }));
        events.extend(cancelled(group, own));
        let mut lanes = Lanes::default();
        for task in &group.tasks {
            let lane = lanes.place(task);
            let tid = own + 1 + lane as u64;
            if tid > last_tid {
                last_tid = tid;
                name(
                    "thread_name",
                    tid,
                    json!({ "name": format!("lane {}", lane + 1) }),
                );
                name("thread_sort_index", tid, json!({ "sort_index": lane }));
            }
            events.push(complete(group, task, tid));
            events.extend(failure(group, task, tid));
        }
    }
    // A stable sort: two events of one time stay in the order in which they were found.
    events.sort_by(|a, b| f64::total_cmp(&a.ts.unwrap_or(0.0), &b.ts.unwrap_or(0.0)));
    names.extend(events);
    json!({ "traceEvents": names, "displayTimeUnit": "ms" })
}

/// The lanes of a group.
#[derive(Default)]
struct Lanes {
    /// When the last task of a lane ends.
    busy: BinaryHeap<Reverse<(u64, usize)>>,
    free: BinaryHeap<Reverse<usize>>,
}

impl Lanes {
    /// Returns the first lane that is free when the task starts. The tasks come in the order of
    /// their starts.
    fn place(&mut self, task: &Bar) -> usize {
        while let Some(Reverse((end, lane))) = self.busy.peek().copied() {
            if end > task.start {
                break;
            }
            self.busy.pop();
            self.free.push(Reverse(lane));
        }
        let lane = match self.free.pop() {
            Some(Reverse(lane)) => lane,
            None => self.busy.len(),
        };
        self.busy.push(Reverse((task.end, lane)));
        lane
    }
}

fn title(group: &GroupRows) -> String {
    let kind = group.kind.map_or("group", group_kind);
    match (&group.name, &group.site) {
        (Some(name), _) => format!("{kind} {name:?}"),
        (None, Some(site)) => format!("{kind} at {site}"),
        (None, None) => format!("{kind} #{}", group.id),
    }
}

fn complete(group: &GroupRows, task: &Bar, tid: u64) -> Event {
    Event {
        ph: "X",
        name: task_name(task),
        cat: "task",
        pid: group.id,
        tid,
        ts: Some(micros(task.start)),
        dur: Some(micros(task.end - task.start)),
        s: None,
        args: json!({
            "task": task.id,
            "kind": task.kind,
            "site": task.site,
            "outcome": task.outcome,
            "has_started": task.has_started,
            "failure": task.failure.as_ref().map(|mark| &mark.text),
        }),
    }
}

/// Returns the mark of a failure.
fn failure(group: &GroupRows, task: &Bar, tid: u64) -> Option<Event> {
    let mark = task.failure.as_ref()?;
    Some(Event {
        ph: "i",
        name: format!("{} {}", task_name(task), task.outcome.as_str()),
        cat: task.outcome.as_str(),
        pid: group.id,
        tid,
        ts: Some(micros(mark.at)),
        dur: None,
        s: Some("t"),
        args: json!({ "task": task.id, "text": mark.text }),
    })
}

/// Returns the mark of the end of the context.
fn cancelled(group: &GroupRows, tid: u64) -> Option<Event> {
    let mark = group.cancelled.as_ref()?;
    Some(Event {
        ph: "i",
        name: "cancelled".into(),
        cat: "cancel",
        pid: group.id,
        tid,
        ts: Some(micros(mark.at)),
        dur: None,
        s: Some("p"),
        args: json!({ "cause": mark.text, "made_in": group.made_in }),
    })
}

fn task_name(task: &Bar) -> String {
    match &task.name {
        Some(name) => name.clone(),
        None => format!("task #{}", task.id),
    }
}
