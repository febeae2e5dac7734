//! Pulls the next item of a local run, and polls it for the first time.

use std::fmt::Display;
use std::future::Future;
use std::task::{self, Poll, ready};

use super::LocalRun;
use super::in_flight::InFlight;
use crate::context::ContextError;
use crate::fan_out::collect::Collector;
use crate::fan_out::item_tag::ItemTag;
use crate::fan_out::items::{Next, poll_pull};
use crate::fan_out::progress::Progress;
use crate::panic;
use crate::scheduler::job;

impl<P, Fut, C, T, E, R> LocalRun<P, Fut, C, T, E, R>
where
    P: Next<Future = Fut>,
    Fut: Future<Output = Result<T, E>>,
    C: Collector<T, E>,
    E: From<ContextError> + Display,
    R: FnMut(Progress),
{
    /// Polls for the next item, and puts it into a slot. Returns `None` if there was no item.
    pub(super) fn poll_pull(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<usize>> {
        // Two instances of the function, so that a big future is boxed at once and is not in the
        // stack frames below.
        if const { job::is_big::<Fut>() } {
            self.poll_pull_as(Box::pin, InFlight::push_big, cx)
        } else {
            self.poll_pull_as(|future| future, InFlight::push_small, cx)
        }
    }

    #[inline]
    fn poll_pull_as<F, Wrap, Push>(
        &mut self,
        wrap: Wrap,
        push: Push,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<usize>>
    where
        Wrap: FnOnce(Fut) -> F,
        Push: FnOnce(&mut InFlight<Fut, C::Stopwatch>, ItemTag<C::Stopwatch>, Option<F>) -> usize,
    {
        let mut item = None;
        let put = |future| item = Some(wrap(future));
        let caller = &self.call_site.span;
        match ready!(poll_pull(&mut self.pull, put, self.ctx.get(), caller, cx)) {
            Ok(Some(left)) => {
                let number = self.counts.started();
                self.counts.start(number, left);
                let tag = ItemTag::started(number, &self.call_site);
                let slot = push(&mut self.in_flight, tag, item);
                self.check_decided();
                self.report();
                return Poll::Ready(Some(slot));
            }
            Ok(None) => {
                self.counts.exhaust(self.counts.started());
                self.check_decided();
            }
            Err(payload) => {
                // There is a future if the size hint panicked.
                panic::discard(item);
                self.fail_pull(payload);
            }
        }
        Poll::Ready(None)
    }

    /// Polls a new item, unless its pull has ended the context: then the item is left to the grace
    /// period. Returns whether the run may poll other items in this step.
    #[inline]
    pub(super) fn poll_first(&mut self, slot: Option<usize>) -> bool {
        let has_ended = self.ctx.has_ended();
        let Some(slot) = slot else { return !has_ended };
        if has_ended {
            self.in_flight.wake(slot);
            return false;
        }
        match self.in_flight.poll_slot(slot, &mut self.turn) {
            Some(item) => {
                self.end_item(item);
                !self.ctx.has_ended()
            }
            None => true,
        }
    }
}
