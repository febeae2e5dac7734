//! How a worker pulls: it gets an item, waits for one, or finds that there are no more.

use std::pin::Pin;
use std::task::{self, Poll};

use super::{ItemSource, JobTag, Shared};
use crate::fan_out::collect::Collector;
use crate::fan_out::item_tag::ItemTag;
use crate::fan_out::items::{Next, SizeHint, drop_in, poll_peek, poll_pull};
use crate::fan_out::shared_iter::IterState;
use crate::panic::{self, Payload};
use crate::scheduler::Scheduler;
use crate::scheduler::current;
use crate::scheduler::source::{Outcome, Source};
use crate::sync::{Arc, MutexGuard};

/// The result of a pull from the shared iterator.
pub(super) enum SharedPull<P> {
    /// A job is in the slot: its number, and how many items are left.
    Item(usize, SizeHint),
    /// The stream has no item yet. It was taken out, for the worker to wait with.
    NotYet(Pin<Box<P>>),
    /// There are no more items, or there was a panic. It has been noted in the state.
    Nothing,
    /// Another worker uses the iterator.
    InUse,
}

/// Pulls an item and puts its future into the slot.
pub(super) fn pull<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    slot: Pin<&mut Option<P::Future>>,
    cx: &mut task::Context<'_>,
) -> SharedPull<P>
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    let mut polled = None;
    let pulled = pull_shared(core, slot, &mut polled, cx);
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
        Poll::Ready(Ok(Some(left))) => {
            state.left = left;
            SharedPull::Item(shared.iter.number(&mut state), left)
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
            fail(core, number, payload);
            close(core, pull);
            SharedPull::Nothing
        }
        Poll::Pending => match state.pull.take() {
            Some(pull) => SharedPull::NotYet(pull),
            None => SharedPull::InUse,
        },
    }
}

/// Looks whether an iterator really has no more items when it says so, whether there is a permit
/// for another one or not. Without this the end would be seen only when an item finishes, and the
/// iterator would be kept until then.
pub(super) fn look_for_end<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    cx: &mut task::Context<'_>,
) where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    core.with_state(|state| state.source.looks_for_end = false);
    match find_end(core, cx) {
        Some(count) => note_end(core, count),
        // Another worker uses the iterator, and may get an item. A searching worker sees the rest.
        None => core.with_effects(|state, effects| state.call_searcher(effects)),
    }
}

/// Looks like `look_for_end`, and leaves it to the caller to note the end. Returns how many items
/// there are if there are no more; the iterator has been dropped then.
pub(super) fn find_end<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    cx: &mut task::Context<'_>,
) -> Option<usize>
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    let shared = &core.shared;
    // Another worker that uses the iterator sees the end, or gets an item.
    let mut state = shared.iter.try_use()?;
    let mut count = None;
    match poll_peek(&mut state.pull, core.ctx(), &shared.call_site.span, cx) {
        Poll::Ready(Ok(None)) => {
            state.left = (0, Some(0));
            count = Some(shared.iter.pulled());
            drop(state);
        }
        Poll::Ready(Ok(Some(left))) => {
            state.left = left;
            drop(state);
            found_more(core, left);
        }
        Poll::Ready(Err(payload)) => break_off(core, state, payload),
        // Not of an iterator.
        Poll::Pending => drop(state),
    }
    if shared.iter.take_wake_request() {
        serve_wake_request(core);
    }
    count
}

/// Handles a panic of the iterator or the function.
#[cold]
fn break_off<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    mut state: MutexGuard<'_, IterState<P>>,
    payload: Payload,
) where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    let pull = state.pull.take();
    let number = core.shared.iter.number(&mut state);
    drop(state);
    fail(core, number, payload);
    close(core, pull);
}

/// Notes that there are more items than the iterator has said, and has a worker woken for them.
pub(super) fn found_more<P, C, T, E>(core: &Arc<Scheduler<ItemSource<P, C, T, E>>>, left: SizeHint)
where
    ItemSource<P, C, T, E>: Source,
{
    core.with_effects(|state, effects| {
        state.source.looks_for_end = false;
        state.source.counts.correct_left(left);
        state.call_searcher(effects);
    });
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

/// Registers the worker to wait for the next item. Returns false if no more items are pulled.
pub(super) fn wait<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    cx: &mut task::Context<'_>,
) -> bool
where
    ItemSource<P, C, T, E>: Source,
{
    let waker = cx.waker().clone();
    core.with_effects(|state, effects| {
        let source = &mut state.source;
        if !source.counts.is_pulling() {
            effects.stale_wakers.push(waker);
            return false;
        }
        effects.stale_wakers.extend(source.puller.replace(waker));
        source.blocked = true;
        true
    })
}

/// Notes that a worker that has waited for the next item has put the iterator back without a pull.
pub(super) fn stop_waiting<P, C, T, E>(core: &Arc<Scheduler<ItemSource<P, C, T, E>>>)
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    core.with_effects(|state, effects| {
        let source = &mut state.source;
        effects.stale_wakers.extend(source.puller.take());
    });
    core.shared.iter.take_wake_request();
    serve_wake_request(core);
}

/// Serves a request for a wake-up: the iterator is free, and a worker has found it in use. If the
/// fan-out is over meanwhile, drops the iterator.
pub(super) fn serve_wake_request<P, C, T, E>(core: &Arc<Scheduler<ItemSource<P, C, T, E>>>)
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    let is_open = core.with_effects(|state, effects| {
        state.source.blocked = false;
        state.call_searcher(effects);
        state.is_open()
    });
    if !is_open {
        close(core, core.shared.iter.take());
    }
}

/// Releases the iterator, which has no more items, and notes that.
fn exhaust<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    mut state: MutexGuard<'_, IterState<P>>,
) where
    ItemSource<P, C, T, E>: Source<Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    state.left = (0, Some(0));
    let count = core.shared.iter.pulled();
    drop(state);
    note_end(core, count);
}

/// Notes how many items there were, when there are no more.
fn note_end<P, C, T, E>(core: &Arc<Scheduler<ItemSource<P, C, T, E>>>, count: usize)
where
    ItemSource<P, C, T, E>: Source<Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    core.with_effects(|state, effects| {
        let source = &mut state.source;
        source.counts.exhaust(count);
        effects.stale_wakers.extend(source.puller.take());
        effects.wake.extend(source.parking.drain());
        source.check_decided(effects);
        state.wake_waiter(effects);
    });
}

/// Records a panic of the iterator or the function as that of an item.
fn fail<P, C, T, E>(core: &Arc<Scheduler<ItemSource<P, C, T, E>>>, number: usize, payload: Payload)
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    C: Collector<T, E>,
{
    core.with_state(|state| state.source.counts.break_at(number));
    let tag = ItemTag::unstarted(number, &core.shared.call_site);
    core.record_beside_jobs(&mut JobTag::Item(tag), Outcome::Panicked(payload));
}

/// Stops the pulling after a panic or after the end of the context, and drops the iterator.
pub(super) fn close<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    pull: Option<Pin<Box<P>>>,
) where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    if let Err(payload) = drop_in(&core.shared.call_site.span, pull) {
        fail(core, core.shared.iter.next_number(), payload);
    }
    core.with_effects(|state, effects| {
        let source = &mut state.source;
        source.counts.cut();
        effects.stale_wakers.extend(source.puller.take());
        effects.wake.extend(source.parking.drain());
        state.wake_waiter(effects);
    });
}
