//! The calls of `on_progress`.

use super::{ItemSource, JobTag, Shared};
use crate::fan_out::collect::Collector;
use crate::fan_out::progress::Progress;
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::effects::Effects;
use crate::scheduler::source::{Outcome, Source};
use crate::span;
use crate::sync::Arc;

/// The `on_progress` of the fan-out. It is called outside the lock, by one worker at a time: the
/// one that takes it out of here.
pub(crate) struct Reporter {
    /// `None` while a worker calls it.
    pub(super) call: Option<Report>,
    /// How many calls are due.
    pub(super) due: usize,
}

pub(crate) type Report = Box<dyn FnMut(Progress) + Send>;

impl<P, C, T, E> ItemSource<P, C, T, E>
where
    C: Collector<T, E>,
{
    /// Makes a call of `on_progress` due: an item has started or finished.
    pub(super) fn report_due(&mut self, effects: &mut Effects) {
        if let Some(reporter) = &mut self.reporter {
            reporter.due += 1;
            effects.report = true;
        }
    }

    /// Takes the `on_progress` and the counts to call it with, if a call is due and no worker makes
    /// one.
    pub(super) fn take_report(&mut self) -> Option<(Report, Progress)> {
        let reporter = self.reporter.as_mut()?;
        let due = reporter.due.checked_sub(1)?;
        let call = reporter.call.take()?;
        reporter.due = due;
        Some((call, self.counts.progress()))
    }
}

/// Makes the calls that are due.
pub(super) fn report<P, C, T, E>(core: &Arc<Scheduler<ItemSource<P, C, T, E>>>)
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    C: Collector<T, E>,
{
    while let Some((mut call, progress)) = core.with_state(|state| state.source.take_report()) {
        let entered = span::enter_caller(&core.shared.call_site.span);
        let called = panic::catch(|| call(progress));
        drop(entered);
        if let Err(payload) = called {
            panic::discard(call);
            core.record_beside_jobs(&mut JobTag::OnProgress, Outcome::Panicked(payload));
            core.with_effects(|state, effects| {
                state.source.reporter = None;
                state.wake_waiter(effects);
            });
            return;
        }
        let mut call = Some(call);
        let runtime_lost = core.with_effects(|state, effects| {
            if let Some(reporter) = &mut state.source.reporter {
                reporter.call = call.take();
            }
            state.wake_waiter(effects);
            // A worker makes the reports that became due during this one.
            state.call_searcher(effects);
            state.runtime_lost
        });
        panic::discard(call);
        // Without a runtime no worker can be woken, so this thread makes all the reports.
        if !runtime_lost {
            return;
        }
    }
}
