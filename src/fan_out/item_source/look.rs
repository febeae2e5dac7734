//! The look for the end after the last item, by the iterator's own count.

use std::task::{self, Poll};

use super::end::{close, fail_pull, note_end};
use super::in_use::serve_wake_request;
use super::{ItemSource, JobTag, Shared};
use crate::fan_out::collect::Collector;
use crate::fan_out::items::{Next, SizeHint, poll_peek};
use crate::fan_out::shared_iter::IterState;
use crate::panic::Payload;
use crate::scheduler::Scheduler;
use crate::scheduler::source::Source;
use crate::sync::{Arc, MutexGuard};

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
    fail_pull(core, number, payload);
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
