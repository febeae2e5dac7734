//! How a worker pulls: it gets an item, waits for one, or finds that there are no more.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use super::end::{close, exhaust, fail_pull};
use super::in_use::{leave_in_use, return_unused, serve_wake_request, stop_waiting, wait};
use super::look::{find_end, found_more, look_for_end};
use super::{ItemSource, JobTag, Shared, TakenIter};
use crate::fan_out::collect::Collector;
use crate::fan_out::item_tag::{ItemTag, Stopwatch};
use crate::fan_out::items::{Next, SizeHint, poll_pull};
use crate::fan_out::parking::Parking;
use crate::fan_out::pulls::{Pulled, PulledItem, Pulls};
use crate::fan_out::starts::Starts;
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::current;
use crate::scheduler::effects::Effects;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::permits::Permits;
use crate::scheduler::source::{JobOutput, Outcome, Source};
use crate::scheduler::worker_wakers::WorkerWakers;
use crate::sync::Arc;

/// The result of a pull from the shared iterator.
pub(super) enum SharedPull<P> {
    /// An item is in the slot: its number.
    Item(usize),
    /// The stream has no item yet. It was taken out, for the worker to wait with.
    NotYet(Pin<Box<P>>),
    /// There are no more items, or there was a panic. It has been noted in the state.
    Nothing,
    /// Another worker uses the iterator.
    InUse,
}

/// Pulls an item, puts its future into the slot, and sets `left` to how many items are left.
///
/// `left` is not part of the result. Each function that passes it on would copy it with a load of
/// 16 bytes right after it was written as words, for which the processor waits.
pub(super) fn pull<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    slot: Pin<&mut Option<P::Future>>,
    left: &mut SizeHint,
    cx: &mut task::Context<'_>,
) -> SharedPull<P>
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    let mut polled = None;
    let pulled = pull_shared(core, slot, left, &mut polled, cx);
    // The stream may have awaited tasks of a group. What follows from that wakes other tasks, so it
    // is done when the iterator is free.
    match polled {
        // The item that was pulled does not wait for the tasks that the stream waited for.
        Some(Poll::Ready(())) => {
            current::end_poll(true, cx);
            current::forget();
        }
        Some(Poll::Pending) => current::end_poll(false, cx),
        None => {}
    }
    pulled
}

/// Pulls an item with the lock of the iterator held. Sets `polled` if the stream was polled.
fn pull_shared<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    mut slot: Pin<&mut Option<P::Future>>,
    left: &mut SizeHint,
    polled: &mut Option<Poll<()>>,
    cx: &mut task::Context<'_>,
) -> SharedPull<P>
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    let shared = &core.shared;
    let Some(mut state) = shared.iter.try_use() else {
        return SharedPull::InUse;
    };
    let pulled = current::poll_if_allowed(cx, |cx| {
        let put = |future| slot.set(Some(future));
        poll_pull(&mut state.pull, put, core.ctx(), &shared.call_site.span, cx)
    });
    *polled = pulled.as_ref().map(|pulled| match pulled {
        Poll::Ready(_) => Poll::Ready(()),
        Poll::Pending => Poll::Pending,
    });
    match pulled.unwrap_or(Poll::Pending) {
        Poll::Ready(Ok(Some(now_left))) => {
            state.left = now_left;
            *left = now_left;
            SharedPull::Item(shared.iter.number(&mut state))
        }
        Poll::Ready(Ok(None)) => {
            exhaust(core, state);
            SharedPull::Nothing
        }
        Poll::Ready(Err(payload)) => {
            let pull = state.pull.take();
            let number = shared.iter.number(&mut state);
            drop(state);
            // The slot has a future if the size hint panicked.
            panic::discard(panic::catch(|| slot.set(None)));
            fail_pull(core, number, payload);
            close(core, pull);
            SharedPull::Nothing
        }
        Poll::Pending => match state.pull.take() {
            Some(pull) => SharedPull::NotYet(pull),
            None => SharedPull::InUse,
        },
    }
}

/// Counts an item as started and has the next worker woken. Returns false if the item must not run,
/// because the fan-out was stopped meanwhile.
pub(super) fn start<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    number: usize,
    left: SizeHint,
) -> bool
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    C: Collector<T, E>,
{
    let shared = &core.shared;
    core.with_effects(|state, effects| {
        let source = &mut state.source;
        source.counts.start(number, left);
        source.blocked = false;
        source.pulling -= 1;
        source.looks_for_end |= shared.may_be_last(left);
        // If another worker has found the items exhausted meanwhile, this item is among them and
        // runs.
        if source.counts.is_cut() {
            return false;
        }
        effects.stale_wakers.extend(source.puller.take());
        source.check_decided(effects);
        source.report_due(effects);
        state.call_searcher(effects);
        true
    })
}

impl<S: Pulls> PulledItem<S> {
    /// An item that starts now. `left` items are left after it.
    fn new<P, W>(shared: &Shared<P>, number: usize, left: SizeHint) -> Self
    where
        S: Source<Tag = JobTag<W>>,
        P: Next,
        W: Stopwatch,
    {
        PulledItem {
            tag: JobTag::Item(ItemTag::started(number, &shared.call_site)),
            may_be_last: shared.may_be_last(left),
        }
    }
}

impl<P, C, T, E> Pulls for ItemSource<P, C, T, E>
where
    P: Next<Future: Future<Output = Result<T, E>> + Send + 'static> + Send + 'static,
    C: Collector<T, E, Collected: Send + 'static> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    type Item = P::Future;
    type Taken = TakenIter<P>;

    const BATCHES: bool = C::BATCHES;

    fn take_permit(&mut self, permits: &mut Permits) -> bool {
        let takes = self.has_room(permits) && permits.take();
        self.pulling += usize::from(takes);
        takes
    }

    fn permit_returned(&mut self) {
        self.pulling -= 1;
    }

    fn most_left(&self) -> Option<usize> {
        self.counts.left()
    }

    fn is_pulling(&self) -> bool {
        self.counts.is_pulling()
    }

    fn cancel_look(&mut self) {
        self.looks_for_end = false;
    }

    fn block(&mut self) {
        self.blocked = true;
    }

    fn parking(&mut self) -> &mut Parking {
        &mut self.parking
    }

    fn starts(shared: &Shared<P>) -> &Starts {
        &shared.starts
    }

    fn worker_wakers(&mut self) -> &mut WorkerWakers {
        &mut self.worker_wakers
    }

    fn report_start(&mut self, tag: &Self::Tag, left: SizeHint) {
        self.pulling -= 1;
        if let JobTag::Item(tag) = tag {
            self.counts.start(tag.number, left);
        }
    }

    fn reached_end(&mut self, count: Option<usize>) -> bool {
        let Some(count) = count else {
            return false;
        };
        self.counts.exhaust(count);
        !self.parking.is_empty()
    }

    fn wake_if_ended(&mut self, effects: &mut Effects) {
        if !self.counts.is_pulling() {
            effects.wake.extend(self.parking.drain());
        }
    }

    fn may_pull(core: &Arc<Scheduler<Self>>) -> bool {
        !core.ctx().is_done() && core.read(|state| state.source.counts.is_pulling())
    }

    fn pull(
        core: &Arc<Scheduler<Self>>,
        taken: Option<TakenIter<P>>,
        mut slot: Pin<&mut Option<P::Future>>,
        left: &mut SizeHint,
        cx: &mut task::Context<'_>,
    ) -> Pulled<Self> {
        if let Some(TakenIter(pull)) = taken {
            let (is_pulling, is_over_limit) = core.read(|state| {
                let permits = &state.permits;
                let is_over_limit = permits.running() > permits.limit();
                (state.source.counts.is_pulling(), is_over_limit)
            });
            if !is_pulling {
                close(core, Some(pull));
                core.return_permit();
                return Pulled::Nothing;
            }
            core.shared.iter.put_back(Some(pull));
            if is_over_limit {
                // The limit was lowered meanwhile. The item comes when there is a permit again.
                core.return_permit();
                stop_waiting(core);
                return Pulled::Nothing;
            }
        }
        match pull(core, slot.as_mut(), left, cx) {
            SharedPull::InUse => Pulled::InUse,
            SharedPull::Item(number) => {
                let item = PulledItem::new(&core.shared, number, *left);
                if start(core, number, *left) {
                    return Pulled::Item(item);
                }
                let outcome = Outcome::of_drop(panic::catch(|| slot.set(None)));
                core.complete_elsewhere(item.tag, outcome, None);
                close(core, core.shared.iter.take());
                Pulled::Nothing
            }
            SharedPull::NotYet(pull) => {
                if wait(core, cx) {
                    return Pulled::Pending(TakenIter(pull));
                }
                close(core, Some(pull));
                core.return_permit();
                Pulled::Nothing
            }
            SharedPull::Nothing => {
                core.return_permit();
                Pulled::Nothing
            }
        }
    }

    fn pull_on(
        core: &Arc<Scheduler<Self>>,
        slot: Pin<&mut Option<P::Future>>,
        left: &mut SizeHint,
        cx: &mut task::Context<'_>,
    ) -> Option<PulledItem<Self>> {
        if !core.shared.keeps_permits || core.is_aborted() || core.ctx().is_done() {
            return None;
        }
        let next = match pull(core, slot, left, cx) {
            SharedPull::Item(number) => Some(PulledItem::new(&core.shared, number, *left)),
            SharedPull::NotYet(pull) => {
                core.shared.iter.put_back(Some(pull));
                None
            }
            SharedPull::InUse | SharedPull::Nothing => return None,
        };
        if core.shared.iter.take_wake_request() {
            serve_wake_request(core);
        }
        next
    }

    fn pull_one(
        core: &Arc<Scheduler<Self>>,
        slot: Pin<&mut Option<P::Future>>,
        left: &mut SizeHint,
        cx: &mut task::Context<'_>,
    ) -> Option<PulledItem<Self>> {
        if core.is_aborted() || core.ctx().is_done() {
            return_unused(core);
            return None;
        }
        match pull(core, slot, left, cx) {
            SharedPull::Item(number) => {
                if core.shared.iter.take_wake_request() {
                    serve_wake_request(core);
                }
                Some(PulledItem::new(&core.shared, number, *left))
            }
            SharedPull::Nothing => {
                return_unused(core);
                None
            }
            SharedPull::NotYet(pull) => {
                core.shared.iter.put_back(Some(pull));
                leave_in_use(core);
                None
            }
            SharedPull::InUse => {
                leave_in_use(core);
                None
            }
        }
    }

    fn find_end(core: &Arc<Scheduler<Self>>, cx: &mut task::Context<'_>) -> Option<usize> {
        find_end(core, cx)
    }

    fn found_more(core: &Arc<Scheduler<Self>>, left: SizeHint) {
        found_more(core, left);
    }

    fn look_for_end(core: &Arc<Scheduler<Self>>, cx: &mut task::Context<'_>) {
        look_for_end(core, cx);
    }

    fn pulled(core: &Scheduler<Self>) -> usize {
        core.shared.iter.pulled()
    }

    fn look_again(core: &Arc<Scheduler<Self>>) {
        if core.shared.iter.request_wake() {
            serve_wake_request(core);
        }
    }

    fn abandon(core: &Arc<Scheduler<Self>>, taken: TakenIter<P>) {
        close(core, Some(taken.0));
        core.return_permit();
    }

    fn output(result: Result<T, E>) -> JobOutput<Self> {
        C::classify(result)
    }

    fn tag_of_permit() -> Self::Tag {
        JobTag::UnusedPermit
    }
}
