//! The handlers that a layer runs: how many there are, a group for those that run on without their
//! client, and the public handle with which a shutdown waits for them.

mod answer;
mod counts;
mod lingering;
mod phase;
mod tally;

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{self, Instant};

use super::cause::{ClientGone, SERVER_STOPS};
use super::request_line::RequestLine;
use super::scope::Scope;
use crate::context::{CancelHandle, Cause, Context, ContextError, deadline_after};
use crate::group::Group;
use crate::group::drain::{Drained, DrainedError, DrainedTask};
use crate::registry::Entry;
use crate::span::Span;
use crate::sync::Arc;
use crate::tracing::Failure;
pub(super) use answer::Answer;
use counts::Counts;
use lingering::Lingering;
use tally::Ended;

/// The time that [`Handlers::wait`] waits on after the last grace period is over, for handlers that
/// are being aborted.
const SLACK: Duration = Duration::from_secs(1);

/// The state that the clones of a layer, its services and the handles share. When the last of them
/// is dropped, the group is dropped, and aborts the handlers that linger.
pub(super) struct Shared {
    counts: Arc<Counts>,
    /// Runs the handlers that linger.
    group: Group<ContextError>,
    /// The context from which the contexts of the requests are derived, and what cancels it.
    ctx: Context,
    stop: CancelHandle,
    /// Done when the handlers that are inside their connections are to be aborted.
    aborted: Context,
    abort: CancelHandle,
    /// Where the layer was made.
    site: &'static Location<'static>,
}

impl Shared {
    /// Returns the state of a new layer, with a context below the server's.
    #[track_caller]
    pub(super) fn new(server: &Context) -> Shared {
        let (aborted, abort) = Context::background().with_cancel();
        let (ctx, guard) = server.with_cancel();
        // The grace period of a handler begins at this instant.
        ctx.record_end_time();
        let group = Group::new();
        #[cfg(feature = "inspect")]
        group.set_kind(crate::registry::GroupKind::Handlers);
        Shared {
            counts: Arc::new(Counts::new()),
            group,
            ctx,
            stop: guard.disarm(),
            aborted,
            abort: abort.disarm(),
            site: Location::caller(),
        }
    }

    pub(super) fn ctx(&self) -> &Context {
        &self.ctx
    }

    /// Cancels the contexts of all handlers.
    fn cancel(&self, why: Cause) {
        self.counts.cancel();
        self.stop.cancel_with(why);
    }

    /// Aborts all handlers, whose contexts are done: those that linger, and those that are inside
    /// their connections.
    fn abort(&self) {
        self.abort.cancel();
        self.group.abort();
    }

    /// Enters a handler that begins as a task of the group.
    fn enter(&self, line: &RequestLine, ctx: &Context) -> Entry {
        #[cfg(feature = "inspect")]
        return self.group.enter_handler(line.name(), self.site, ctx);
        #[cfg(not(feature = "inspect"))]
        {
            let _ = (line, ctx);
            Entry::none()
        }
    }

    fn entry(&self, line: &RequestLine, elapsed: Duration) -> DrainedTask {
        tally::entry(line, elapsed, self.site)
    }
}

/// A handler that is inside its connection. It is counted as running until this is dropped.
pub(super) struct InFlight {
    /// `None` after the handler was moved to the group.
    shared: Option<Arc<Shared>>,
    ended: Ended,
    /// The handler as a task of the group. It is moved with the handler.
    entry: Entry,
}

/// Tells what the output of a handler is to a recorder. The type of its error need not be known
/// where the handler is moved.
pub(super) type AnswerOf<F> = fn(&<F as Future>::Output) -> Answer;

/// A handler that may go on without its client, and until when.
pub(super) struct Rest<F: Future> {
    pub(super) handler: Pin<Box<F>>,
    pub(super) answer: AnswerOf<F>,
    pub(super) line: RequestLine,
    pub(super) caller: Span,
    pub(super) began: Instant,
    pub(super) until: Instant,
}

impl InFlight {
    /// Counts a handler that begins, or returns `None` if [`Handlers::wait`] was called.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        line: &RequestLine,
        ctx: &Context,
    ) -> Option<InFlight> {
        shared.counts.enter().then(|| InFlight {
            shared: Some(shared.clone()),
            ended: Ended::Otherwise,
            entry: shared.enter(line, ctx),
        })
    }

    /// Runs code of the handler, whose scope this is: a call, a poll or a drop. If it panics, its
    /// context is cancelled, and the panic is recorded and resumed.
    pub(super) fn run<T>(&self, scope: &mut Scope, code: impl FnOnce() -> T) -> T {
        self.entry.run(|| scope.run(code))
    }

    /// Records that the handler has returned. Call it after the handler has been dropped.
    pub(super) fn returned(mut self, answer: Answer, ctx: &Context) {
        answer.note(&self.entry, || ctx.is_done());
        self.ended = Ended::Returned;
    }

    /// Records that the handler was dropped because the deadline of its context has passed.
    pub(super) fn expired(self, error: ContextError) {
        let cause = error.cause().map(|cause| cause as &dyn fmt::Display);
        let reason = &error;
        self.entry.failed(Failure::Abort { reason, cause }, true);
    }

    /// Returns the context that is done when the handlers are to be aborted.
    pub(super) fn aborted_by(&self) -> Option<&Context> {
        self.shared.as_ref().map(|shared| &shared.aborted)
    }

    /// Records that the handler was aborted. Call it after the handler has been dropped.
    pub(super) fn aborted(mut self, line: &RequestLine, began: Instant, reason: &str) {
        self.entry.failed(aborted_for(&reason), true);
        if let Some(shared) = &self.shared {
            self.ended = Ended::Aborted(shared.entry(line, began.elapsed()));
        }
    }

    /// Moves the handler to the group, where it runs until it returns or its time is over.
    ///
    /// If `most` handlers linger already, if its time is over, or outside a runtime, the handler is
    /// dropped at once.
    pub(super) fn linger<F>(mut self, rest: Rest<F>, most: usize)
    where
        F: Future + Send + 'static,
    {
        let Some(shared) = self.shared.take() else {
            return;
        };
        let reason = if rest.until <= Instant::now() {
            Some("its grace period is over")
        } else if tokio::runtime::Handle::try_current().is_err() {
            Some("there is no runtime")
        } else if !shared.counts.enter_lingering(most) {
            Some("too many handlers linger")
        } else {
            None
        };
        if let Some(reason) = reason {
            let Rest {
                handler,
                line,
                caller,
                began,
                ..
            } = rest;
            self.shared = Some(shared);
            {
                let _entered = crate::span::enter_caller(&caller);
                self.entry.run(|| drop(handler));
            }
            line.emit_abort(&caller, began.elapsed(), reason);
            self.aborted(&line, began, reason);
            return;
        }
        let entry = std::mem::replace(&mut self.entry, Entry::none());
        entry.lingers();
        let task = shared.group.named(rest.line.name());
        #[cfg(feature = "inspect")]
        let task = task.without_entry();
        task.go(Lingering::new(
            rest,
            entry,
            shared.counts.clone(),
            shared.site,
        ));
    }
}

/// Returns the failure of a handler that was dropped half-way.
fn aborted_for(reason: &dyn fmt::Display) -> Failure<'_> {
    Failure::Abort {
        reason,
        cause: None,
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            let ended = std::mem::replace(&mut self.ended, Ended::Otherwise);
            if let Ended::Otherwise = ended {
                // Unless its panic or its deadline has been recorded.
                self.entry.failed(aborted_for(&ClientGone::new()), true);
            }
            // Before a task that waits for the handlers learns of it.
            self.entry.close();
            shared.counts.leave(ended);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("running", &self.counts.running())
            .field("lingering", &self.counts.lingering())
            .finish_non_exhaustive()
    }
}

/// A handle to the handlers that run inside a [`ContextLayer`](super::ContextLayer), with which the
/// server's shutdown waits for them.
///
/// It is made by [`ContextLayer::handlers`](super::ContextLayer::handlers). A clone is a handle to
/// the same handlers. Keep one until the end of `main`: when the last clone of the layer, of its
/// services and of this handle is dropped, the handlers that linger are aborted.
#[derive(Clone)]
#[must_use = "call `wait().await` after the server has stopped, to wait for the handlers"]
pub struct Handlers {
    shared: Arc<Shared>,
    grace: Duration,
}

impl Handlers {
    pub(super) fn new(shared: &Arc<Shared>, grace: Duration) -> Handlers {
        Handlers {
            shared: shared.clone(),
            grace,
        }
    }

    /// Returns the number of handlers that have begun and not ended: those inside their
    /// connections, and those that [linger](Handlers::lingering).
    ///
    /// The number may have changed by the time that it is used.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.counts.running()
    }

    /// Returns the number of handlers that run on although their response is no longer needed: the
    /// client has disconnected, or has received a timeout response.
    ///
    /// The number may have changed by the time that it is used.
    #[must_use]
    pub fn lingering(&self) -> usize {
        self.shared.counts.lingering()
    }

    /// Cancels the context of every handler, waits until all have ended, and returns a report.
    ///
    /// From this call on, the response to a new request is 503, or `grpc-status: 14`. Call it when
    /// the server has stopped accepting requests.
    ///
    /// It waits for the layer's grace period at most, which begins when the context of a handler is
    /// done. If the server's context was cancelled before this call, the grace period has begun
    /// before it, too. A handler that is still running then is aborted. If its client waits, the
    /// response is 503.
    ///
    /// A handler that blocks its thread, or whose response future is not polled, cannot be aborted.
    /// A second after the grace period, this returns all the same;
    /// [`left_running`](crate::DrainedPhase::left_running) says how many there are.
    ///
    /// The report has one phase, `handlers`. Its tasks are named by method and path, of which at
    /// most 256 bytes are kept: `POST /orders`. Their contexts are cancelled at once, so those that
    /// returned are counted as [`stopped`](crate::DrainedPhase::stopped). All handlers are in it
    /// that were aborted since the layer was made, and of those from before this call the last
    /// 1,024. So are the panics that no response future could resume, because the client had
    /// disconnected or had received a timeout response.
    ///
    /// To shut the handlers down in one time budget with other parts of the program, pass them to
    /// [`Drain::phase`](crate::Drain::phase). There they may finish by themselves before their
    /// contexts are cancelled, and are aborted at the end of their grace period or of the phase's
    /// time, whichever comes first.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime, or in one without a timer, if a handler is running.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts nothing and loses nothing, unless this was the last handle. New
    /// requests are still refused. The report of a later call has the same aborts.
    pub async fn wait(self) -> Drained {
        let counts = &self.shared.counts;
        counts.close();
        self.shared.cancel(Cause::from_static(&SERVER_STOPS));
        if counts.running() > 0 {
            let stopped = self.shared.ctx.ended_at().unwrap_or_else(Instant::now);
            let until = deadline_after(deadline_after(stopped, self.grace), SLACK);
            let _ = time::timeout_at(until, counts.idle()).await;
        }
        Drained::new(vec![counts.report("handlers")])
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers")
            .field("running", &self.running())
            .field("lingering", &self.lingering())
            .finish_non_exhaustive()
    }
}
