//! The iterator while one worker has it: that worker waits for the next item, or others have found
//! the iterator in use. Also how a worker of one item returns its permit when it has pulled none.

use std::task;

use super::end::close;
use super::{ItemSource, JobTag, Shared};
use crate::fan_out::collect::Collector;
use crate::fan_out::items::Next;
use crate::fan_out::pulls::Pulls;
use crate::scheduler::Scheduler;
use crate::scheduler::source::Source;
use crate::sync::Arc;

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

/// Returns the permit of a worker of one item that gets none, for a pull that has found nothing.
pub(super) fn return_unused<S: Pulls>(scheduler: &Arc<Scheduler<S>>) {
    let ended = scheduler.ctx().is_done();
    scheduler.with_effects(|state, effects| {
        state.return_unused_permit(effects);
        // A deadline that has passed notifies nothing, so the pulling may have to be stopped here.
        state.reject_if_ended(ended, effects);
    });
}

/// Returns the permit of a worker of one item that has found the iterator in use, and leaves.
/// See invariant 4 of [`one_item`](crate::fan_out::one_item).
pub(super) fn leave_in_use<S: Pulls>(scheduler: &Arc<Scheduler<S>>) {
    scheduler.with_effects(|state, effects| {
        state.source.block();
        state.return_unused_permit(effects);
    });
    S::look_again(scheduler);
}
