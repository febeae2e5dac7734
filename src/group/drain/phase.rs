//! What can be a phase of a drain: a group.

use std::borrow::Cow;
use std::task::{self, Poll};

use super::report::{DrainedPhase, Tally};
use super::sealed::{Draining, IntoPhase};
use super::{SHUTTING_DOWN, text_of};
use crate::context::ContextError;
use crate::group::Group;
use crate::group::name::{GROUP_ABORTED, why};
use crate::panic;
use crate::scheduler::error::{TaskError, TaskErrorKind};
use crate::scheduler::failures::Failures;
use crate::scheduler::group_error::GroupError;

/// What can be a phase of a [`Drain`](crate::Drain): a [`Group`], or with feature `tower` the
/// `Handlers` of a `ContextLayer`. No other type can implement it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a phase of a drain",
    label = "is neither a `Group` nor, with feature `tower`, the `Handlers` of a `ContextLayer`"
)]
pub trait DrainPhase: IntoPhase {}

pub(crate) mod sealed {
    use std::borrow::Cow;
    use std::task::{self, Poll};

    use crate::group::drain::report::DrainedPhase;

    #[expect(unnameable_types, reason = "it seals `DrainPhase`")]
    pub trait IntoPhase {
        fn into_phase(self) -> Box<dyn Draining>;
    }

    /// A phase that is being drained. `observe` is called first, and then `begin`, each once.
    #[expect(unnameable_types, reason = "it seals `DrainPhase`")]
    pub trait Draining: Send {
        /// Begins to count how the work ends. An earlier phase may still be drained.
        fn observe(&mut self);
        /// Accepts no more work.
        fn begin(&mut self);
        /// Asks the work to stop. A second call has no effect.
        fn cancel(&mut self);
        /// Aborts what is left.
        fn abort(&mut self);
        /// Waits until all work has ended or, after `abort`, all that can be aborted.
        fn poll_ended(&mut self, cx: &mut task::Context<'_>) -> Poll<()>;
        fn into_report(self: Box<Self>, name: Cow<'static, str>) -> DrainedPhase;
    }
}

impl<E> DrainPhase for Group<E> where E: GroupError {}

impl<E> IntoPhase for Group<E>
where
    E: GroupError,
{
    fn into_phase(self) -> Box<dyn Draining> {
        Box::new(GroupPhase {
            g: self,
            before: Failures::new(),
        })
    }
}

struct GroupPhase<E>
where
    E: GroupError,
{
    g: Group<E>,
    /// The failures from before the drain.
    before: Failures<E>,
}

impl<E> Draining for GroupPhase<E>
where
    E: GroupError,
{
    fn observe(&mut self) {
        self.before = self.g.scheduler.open_ledger();
    }

    fn begin(&mut self) {
        self.g.scheduler.begin_drain();
    }

    fn cancel(&mut self) {
        self.g.scheduler.cancel_drain(&SHUTTING_DOWN);
    }

    fn abort(&mut self) {
        let scheduler = &self.g.scheduler;
        scheduler.abort_drain();
        scheduler.abort_with(why(scheduler, &GROUP_ABORTED));
    }

    fn poll_ended(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        self.g.scheduler.poll_drained(cx)
    }

    fn into_report(self: Box<Self>, name: Cow<'static, str>) -> DrainedPhase {
        let GroupPhase { g, before } = *self;
        let entries = g.scheduler.end_drain();
        let mut tally = Tally {
            finished: entries.finished,
            stopped: entries.stopped,
            left_running: entries.left_running,
            ..Tally::default()
        };
        let stop = g.scheduler.ctx().err();
        for failures in [before, entries.failures] {
            let (tasks, omitted) = failures.into_parts();
            tally.omitted += omitted;
            for task in tasks {
                enter(&task, stop.as_ref(), &mut tally);
                panic::discard(task);
            }
        }
        let aborted = entries.aborted.into_iter().map(Into::into);
        tally.aborted.extend(aborted);
        let blocking = entries.blocking.into_iter().map(Into::into);
        tally.blocking.extend(blocking);
        DrainedPhase::new(name, tally)
    }
}

/// Enters a failure in the report. `stop` is the error of the group's context.
fn enter<E>(task: &TaskError<E>, stop: Option<&ContextError>, tally: &mut Tally)
where
    E: GroupError,
{
    match task.kind() {
        TaskErrorKind::Aborted(_) if task.was_running() => tally.aborted.push(task.into()),
        TaskErrorKind::Aborted(_) => tally.stopped += 1,
        TaskErrorKind::Failed(error) => {
            let text = text_of(error);
            if !task.is_cause() && is_obedience::<E>(&text, stop) {
                tally.stopped += 1;
            } else {
                tally.add_error(task.into(), text);
            }
        }
        TaskErrorKind::Panicked(panic) => {
            tally.add_error(task.into(), format!("panicked: {panic}"));
        }
    }
}

/// Returns whether an error only says that the context is done: it reads as the context's error
/// does. The type of the error says nothing, since a group knows only that it displays.
fn is_obedience<E>(text: &str, stop: Option<&ContextError>) -> bool
where
    E: GroupError,
{
    stop.is_some_and(|stop| {
        let as_returned = panic::catch(|| E::from(stop.clone()));
        match as_returned {
            Ok(error) => {
                let is_same = text_of(&error) == text;
                panic::discard(error);
                is_same
            }
            Err(payload) => {
                panic::discard(payload);
                false
            }
        }
    })
}
