//! The parts of an item source that its workers use.

use std::future::Future;
use std::pin::Pin;
use std::task;

use super::items::SizeHint;
use super::parking::Parking;
use super::starts::Starts;
use crate::scheduler::Scheduler;
use crate::scheduler::effects::Effects;
use crate::scheduler::permits::Permits;
use crate::scheduler::source::{JobOutput, Source};
use crate::scheduler::worker_wakers::WorkerWakers;
use crate::sync::Arc;

/// The parts of an item source that its workers use. It has one implementation; the trait names
/// that one type, with its four parameters and their bounds, by one letter.
pub(crate) trait Pulls: Source<Work = UnusedPermit> {
    /// The future of an item.
    type Item: Future + Send + 'static;
    /// The stream, in the hands of the worker that waits for its next item.
    type Taken: Send + 'static;

    /// Whether a worker may run several items on one permit.
    const BATCHES: bool;

    /// Takes a permit to pull, if an item may be pulled now. Under the lock.
    fn take_permit(&mut self, permits: &mut Permits) -> bool;
    /// Notes that the permit of a pull has led to no item. Under the lock.
    fn permit_returned(&mut self);
    /// Returns at most how many items are left to be pulled, if that is known. Under the lock.
    fn most_left(&self) -> Option<usize>;
    /// Returns whether more items will come. Under the lock.
    fn is_pulling(&self) -> bool;
    /// Notes that no look for the end is due any more. Under the lock.
    fn cancel_look(&mut self);
    /// Notes that a worker has found the iterator in use: no other worker is needed until it is
    /// free. Under the lock.
    fn block(&mut self);
    /// The workers that are parked. Under the lock.
    fn parking(&mut self) -> &mut Parking;
    /// The starts of the workers that run one item each.
    fn starts(shared: &Self::Shared) -> &Starts;
    /// The wakers of the workers that run one item each. Under the lock.
    fn worker_wakers(&mut self) -> &mut WorkerWakers;
    /// Counts an item that was pulled with `pull_one` as started. Under the lock.
    fn report_start(&mut self, tag: &Self::Tag, left: SizeHint);
    /// Notes how many items there are, if a look for the end has found it. Returns whether workers
    /// are parked, which `wake_if_ended` wakes. Under the lock.
    fn reached_end(&mut self, count: Option<usize>) -> bool;
    /// Wakes the workers that are parked if no item is pulled any more. Under the lock.
    fn wake_if_ended(&mut self, effects: &mut Effects);

    /// Returns whether an item may still be pulled.
    fn may_pull(scheduler: &Arc<Scheduler<Self>>) -> bool;
    /// Pulls an item with a permit, puts its future into the slot, and sets `left` to how many
    /// items are left.
    fn pull(
        scheduler: &Arc<Scheduler<Self>>,
        taken: Option<Self::Taken>,
        slot: Pin<&mut Option<Self::Item>>,
        left: &mut SizeHint,
        cx: &mut task::Context<'_>,
    ) -> Pulled<Self>;
    /// Pulls the next item of a batch, if there is one at once.
    fn pull_on(
        scheduler: &Arc<Scheduler<Self>>,
        slot: Pin<&mut Option<Self::Item>>,
        left: &mut SizeHint,
        cx: &mut task::Context<'_>,
    ) -> Option<PulledItem<Self>>;
    /// Pulls the item of a worker that runs no other one. Returns `None` if it gets none; its
    /// permit has been returned then.
    fn pull_one(
        scheduler: &Arc<Scheduler<Self>>,
        slot: Pin<&mut Option<Self::Item>>,
        left: &mut SizeHint,
        cx: &mut task::Context<'_>,
    ) -> Option<PulledItem<Self>>;
    /// Looks whether there is another item after the last one that such a worker has pulled.
    /// Returns how many items there are if there is none, for `reached_end`.
    fn find_end(scheduler: &Arc<Scheduler<Self>>, cx: &mut task::Context<'_>) -> Option<usize>;
    /// Notes that there are more items than the iterator has said, and has a worker woken for them.
    fn found_more(scheduler: &Arc<Scheduler<Self>>, left: SizeHint);
    /// Looks whether there is another item, after one that may be the last.
    fn look_for_end(scheduler: &Arc<Scheduler<Self>>, cx: &mut task::Context<'_>);
    /// Returns how many items have been pulled so far. Takes no lock.
    fn pulled(scheduler: &Scheduler<Self>) -> usize;
    /// Has a worker woken if the iterator became free just before this worker parked.
    fn look_again(scheduler: &Arc<Scheduler<Self>>);
    /// Drops the stream that a worker had when it was dropped.
    fn abandon(scheduler: &Arc<Scheduler<Self>>, taken: Self::Taken);
    /// Returns the output of an item as the collector keeps it.
    fn output(output: <Self::Item as Future>::Output) -> JobOutput<Self>;
    /// Returns a tag for a permit without an item.
    fn tag_of_permit() -> Self::Tag;
}

/// The result of a pull.
pub(crate) enum Pulled<S: Pulls> {
    Item(PulledItem<S>),
    /// There is no item. The permit has been returned.
    Nothing,
    /// The stream is pending. The worker keeps the permit and waits with the stream.
    Pending(S::Taken),
    /// Another worker uses the iterator. The permit has not been returned.
    InUse,
}

/// An item, whose future is in the slot.
pub(crate) struct PulledItem<S: Pulls> {
    pub(crate) tag: S::Tag,
    /// Whether there are no more items by the iterator's own count.
    pub(crate) may_be_last: bool,
}

/// The permit of a worker that was dropped before it pulled.
pub(crate) struct UnusedPermit;
