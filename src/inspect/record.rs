//! Records what happens, and shows it as a timeline.

use std::fmt;
use std::sync::Arc;

use super::timeline::Timeline;
use super::{chrome, html};
use crate::registry::recording::Recording;

/// Starts to record what the groups and tasks of the process do, until the recorder is dropped.
///
/// Recorded are the end of each task and item with its start and its outcome, and the end of each
/// group's context with its cause, unless its tasks had been waited for by then. A task *ended*
/// without an error, *failed* with one, *stopped* with one because its context was done, *panicked*
/// or was *aborted*. A start is not an event of its own: the tasks that still run are added when
/// the recording is read.
///
/// A handler of a `ContextLayer` has these outcomes, too. It is one task from its request to its
/// end, also if it goes on without its client. A response is no failure, even if it comes too late.
/// Of the error of the service, which may be of any type, the text is not known. *Aborted* is a
/// handler that was dropped before it had returned, and the text says why: its grace period was
/// over, or in a layer that drops its handlers its deadline; too many handlers lingered; its
/// connection, the server or the runtime was dropped.
///
/// Each thread that runs tasks keeps its last `capacity` events in a ring of its own, so threads
/// rarely meet. A new thread takes the ring of one that has ended. An event takes about 100 bytes,
/// the name of its task as many as it has, and the text of a failure or a cause at most 500. Of the
/// path of a request, at most 256 bytes are in a name. The rings grow to that size as they are
/// filled.
///
/// One recorder records at a time: the newest. An older one keeps what it has. A task that ends
/// while recorders change may be missed.
///
/// ```
/// # #[cfg(feature = "inspect")]
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use errgroup::{Context, Group, inspect};
///
/// let recorder = inspect::record(10_000);
/// let (g, _ctx) = Group::<String>::with_context(Context::background());
/// g.set_name("pages");
/// g.named("index").go(async { Ok(()) });
/// g.named("about").go(async { Err("disk full".to_owned()) });
/// assert!(g.wait().await.is_err());
///
/// let trace = recorder.to_chrome_json(); // for https://ui.perfetto.dev
/// assert!(trace.contains("disk full"));
/// let page = recorder.to_html();
/// assert!(page.contains("about"));
/// # }
/// # #[cfg(not(feature = "inspect"))]
/// # fn main() {}
/// ```
///
/// # Panics
///
/// Panics if `capacity` is 0.
#[track_caller]
pub fn record(capacity: usize) -> Recorder {
    assert!(
        capacity > 0,
        "a recorder with capacity 0 keeps nothing: pass the number of events to keep of each \
         thread, for example 10,000"
    );
    Recorder {
        recording: Recording::start(capacity),
    }
}

/// Keeps the last events of the groups and tasks of the process: see [`record`].
///
/// Dropping it ends the recording and frees what was recorded. It can be read at any time and from
/// any thread, while it records and after a newer one has taken its place. To read it copies the
/// rings, and holds up a thread that ends a task meanwhile for the copy of its own.
///
/// A [`snapshot`](super::snapshot) shows the present instead, with what each task waits for.
#[must_use = "dropping the recorder ends the recording"]
pub struct Recorder {
    recording: Arc<Recording>,
}

impl Recorder {
    /// Returns the timeline as JSON in the trace event format of Chrome, which
    /// <https://ui.perfetto.dev> and `chrome://tracing` open.
    ///
    /// A group, scope or fan-out is a process there, and its tasks are complete events in lanes,
    /// each of which has one task at a time. Failures, panics, aborts and cancellations are instant
    /// events. The arguments of a task are its id (`task`), `kind`, `site`, `outcome`,
    /// `has_started` and the text of its `failure`; those of a cancellation are its `cause` and the
    /// id of the task in which the group was made (`made_in`). Time begins with the first event.
    ///
    /// It shows names, causes and paths of source files, so do not serve it on a public port.
    pub fn to_chrome_json(&self) -> String {
        chrome::trace(&Timeline::read(&self.recording)).to_string()
    }

    /// Returns the timeline as a page: a row for each task, by group, with marks for failures and
    /// cancellations; the view can be zoomed, moved and searched. It is one file, and makes no
    /// request. What follows a `#` in its address is searched for.
    ///
    /// It shows names, causes and paths of source files, so do not serve it on a public port.
    pub fn to_html(&self) -> String {
        html::timeline(&Timeline::read(&self.recording))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.recording.stop();
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("capacity", &self.recording.capacity())
            .field("records", &self.recording.is_active())
            .finish_non_exhaustive()
    }
}
