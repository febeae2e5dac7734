//! The items that run on the caller's task. Each is polled and dropped in its span, and a panic of
//! its destructor is caught.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use futures_core::Stream;
use futures_util::stream::FuturesUnordered;
use pin_project_lite::pin_project;

use crate::fan_out::item_tag::{ItemTag, Stopwatch};
use crate::panic::{self, Payload};
use crate::scheduler::job;
use crate::scheduler::poll_budget::PollBudget;
use crate::sync::{Arc, Mutex};
use crate::tracing;

/// The state that the items share with the run that polls them.
pub(super) struct PollState {
    /// The panics of destructors, each with the number of its item.
    pub(super) panics: Mutex<Vec<(usize, Payload)>>,
    /// The budget that the run has used since it last yielded. It spans several outcomes of a
    /// stream, since a consumer may take them all in one poll of its task.
    budget: Mutex<Option<PollBudget>>,
}

impl PollState {
    pub(super) fn new() -> Arc<PollState> {
        Arc::new(PollState {
            panics: Mutex::new(Vec::new()),
            budget: Mutex::new(None),
        })
    }

    /// Returns whether the run has polled items for as long as one poll may take.
    pub(super) fn is_used_up(&self) -> bool {
        let mut budget = self.budget.lock();
        budget.get_or_insert_with(PollBudget::start).is_used_up()
    }

    /// Counts a poll of an item.
    fn add_step(&self) {
        if let Some(budget) = &mut *self.budget.lock() {
            budget.add_step();
        }
    }

    /// Resets the budget: the run returns pending.
    pub(super) fn end_poll(&self) {
        *self.budget.lock() = None;
    }
}

pin_project! {
    /// An item in flight.
    pub(super) struct Running<Fut, W> {
        tag: ItemTag<W>,
        poll_state: Arc<PollState>,
        #[pin]
        item: Option<Fut>,
    }

    impl<Fut, W> PinnedDrop for Running<Fut, W> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let item = &mut this.item;
            let entered = tracing::enter(Some(&this.tag.span));
            let dropped = panic::catch(|| item.set(None));
            drop(entered);
            if let Err(payload) = dropped {
                this.poll_state.panics.lock().push((this.tag.number, payload));
            }
        }
    }
}

impl<Fut, W> Running<Fut, W> {
    pub(super) fn new(tag: ItemTag<W>, item: Option<Fut>, poll_state: Arc<PollState>) -> Self {
        Running {
            tag,
            poll_state,
            item,
        }
    }
}

impl<Fut: Future, W: Stopwatch> Future for Running<Fut, W> {
    type Output = EndedItem<Fut, W>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.poll_state.is_used_up() {
            // It is polled in the next poll of the run.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let entered = tracing::enter(Some(&this.tag.span));
        let polled = job::poll_to_end(this.item, cx);
        drop(entered);
        this.poll_state.add_step();
        let ended = ready!(polled);
        Poll::Ready((this.tag.clone(), ended))
    }
}

/// The tag of an item that has finished, and its result or panic.
pub(super) type EndedItem<Fut, W> = (ItemTag<W>, Result<<Fut as Future>::Output, Payload>);

/// The items in flight. A big future is boxed as soon as it is made. Otherwise each call on its way
/// into the list would copy it, which needs a multiple of its size on the stack.
pub(super) enum InFlight<Fut, W> {
    Small(FuturesUnordered<Running<Fut, W>>),
    Big(FuturesUnordered<Running<Pin<Box<Fut>>, W>>),
}

impl<Fut, W> InFlight<Fut, W> {
    pub(super) fn new() -> Self {
        if job::is_big::<Fut>() {
            InFlight::Big(FuturesUnordered::new())
        } else {
            InFlight::Small(FuturesUnordered::new())
        }
    }

    #[inline]
    pub(super) fn push_small(&mut self, item: Running<Fut, W>) {
        match self {
            InFlight::Small(list) => list.push(item),
            InFlight::Big(_) => unreachable!("a big future is boxed"),
        }
    }

    pub(super) fn push_big(&mut self, item: Running<Pin<Box<Fut>>, W>) {
        match self {
            InFlight::Small(_) => unreachable!("a small future is not boxed"),
            InFlight::Big(list) => list.push(item),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            InFlight::Small(list) => list.len(),
            InFlight::Big(list) => list.len(),
        }
    }

    /// Drops all items.
    pub(super) fn clear(&mut self) {
        match self {
            InFlight::Small(list) => list.clear(),
            InFlight::Big(list) => list.clear(),
        }
    }
}

impl<Fut, W: Clone> InFlight<Fut, W> {
    /// Returns the tags of the items.
    pub(super) fn tags(&self) -> Vec<ItemTag<W>> {
        match self {
            InFlight::Small(list) => tags(list),
            InFlight::Big(list) => tags(list),
        }
    }
}

fn tags<F, W: Clone>(list: &FuturesUnordered<Running<F, W>>) -> Vec<ItemTag<W>> {
    let items = Pin::new(list).iter_pin_ref();
    items.map(|item| item.tag.clone()).collect()
}

impl<Fut: Future, W: Stopwatch> InFlight<Fut, W> {
    /// Polls for the next item that has finished; `None` if no item is in flight.
    #[inline]
    pub(super) fn poll_ended(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<EndedItem<Fut, W>>> {
        match self {
            InFlight::Small(list) => Pin::new(list).poll_next(cx),
            InFlight::Big(list) => Pin::new(list).poll_next(cx),
        }
    }
}
