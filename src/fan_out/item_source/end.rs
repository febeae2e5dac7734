//! How the pulling ends: there are no more items, there was a panic, or the context is done. Then
//! the iterator and the function are dropped.

use std::pin::Pin;

use super::{ItemSource, JobTag, Shared};
use crate::fan_out::collect::Collector;
use crate::fan_out::item_tag::ItemTag;
use crate::fan_out::items::{Next, drop_in};
use crate::fan_out::shared_iter::IterState;
use crate::panic::Payload;
use crate::scheduler::Scheduler;
use crate::scheduler::source::{Outcome, Source};
use crate::sync::{Arc, MutexGuard};

/// Releases the iterator, which has no more items, and notes that.
pub(super) fn exhaust<P, C, T, E>(
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
pub(super) fn note_end<P, C, T, E>(core: &Arc<Scheduler<ItemSource<P, C, T, E>>>, count: usize)
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
pub(super) fn fail_pull<P, C, T, E>(
    core: &Arc<Scheduler<ItemSource<P, C, T, E>>>,
    number: usize,
    payload: Payload,
) where
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
        fail_pull(core, core.shared.iter.next_number(), payload);
    }
    core.with_effects(|state, effects| {
        let source = &mut state.source;
        source.counts.cut();
        effects.stale_wakers.extend(source.puller.take());
        effects.wake.extend(source.parking.drain());
        state.wake_waiter(effects);
    });
}

/// Takes the collector when no item runs any more. Drops the iterator, the function and the
/// `on_progress`; a panic of their destructors is recorded as a failure.
pub(crate) fn take_collector<P, C, T, E>(core: &Arc<Scheduler<ItemSource<P, C, T, E>>>) -> C
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    drop_items(core);
    let (reporter, collector) = core.with_state(|state| state.source.take_all());
    if let Err(payload) = drop_in(&core.shared.call_site.span, reporter) {
        core.record_beside_jobs(&mut JobTag::OnProgress, Outcome::Panicked(payload));
    }
    collector
}

/// Drops the iterator and the function when no item runs any more, unless that was done already. A
/// panic of their destructors is recorded as a failure.
pub(crate) fn drop_items<P, C, T, E>(core: &Arc<Scheduler<ItemSource<P, C, T, E>>>)
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    P: Next,
    C: Collector<T, E>,
{
    let pull = core.shared.iter.take();
    if pull.is_some() {
        close(core, pull);
    }
}

/// Records a panic of a destructor that has run on another thread.
pub(crate) fn fail<P, C, T, E>(core: &Arc<Scheduler<ItemSource<P, C, T, E>>>, payload: Payload)
where
    ItemSource<P, C, T, E>: Source<Tag = JobTag<C::Stopwatch>, Shared = Shared<P>>,
    C: Collector<T, E>,
{
    core.record_beside_jobs(&mut JobTag::Destructor, Outcome::Panicked(payload));
}
