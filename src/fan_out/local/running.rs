//! An item that runs on the caller's task: in its span, and with nothing getting out that its destructor panics with.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_util::stream::FuturesUnordered;
use pin_project_lite::pin_project;

use crate::error::TaskErrorKind;
use crate::fan_out::end::{End, Stopwatch};
use crate::fan_out::items::Item;
use crate::group::job;
use crate::group::poll_budget::PollBudget;
use crate::panic::{self, Payload};
use crate::sync::{Arc, Mutex};
use crate::tracing::{self, Span};

/// Which item it is.
#[derive(Clone)]
pub(super) struct Entry<W> {
    pub(super) number: usize,
    /// `None` for one that never starts.
    pub(super) started: Option<W>,
    pub(super) span: Span,
}

impl<W: Stopwatch> Entry<W> {
    pub(super) fn elapsed(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |watch| watch.elapsed())
    }
}

/// What the items share with the fan-out that polls them.
pub(super) struct Shared {
    /// What the destructors of items panicked with.
    pub(super) panics: Mutex<Vec<(usize, Payload)>>,
    /// What the fan-out has used since it last gave its task's other code a turn. It goes on over
    /// several outcomes of a stream, since a consumer may take them all in one poll.
    budget: Mutex<Option<PollBudget>>,
}

impl Shared {
    pub(super) fn new() -> Arc<Shared> {
        Arc::new(Shared {
            panics: Mutex::new(Vec::new()),
            budget: Mutex::new(None),
        })
    }

    /// Whether the fan-out has polled items for long enough.
    pub(super) fn is_used_up(&self) -> bool {
        let mut budget = self.budget.lock();
        budget.get_or_insert_with(PollBudget::start).is_used_up()
    }

    fn add_step(&self) {
        if let Some(budget) = &mut *self.budget.lock() {
            budget.add_step();
        }
    }

    /// The task gets a turn.
    pub(super) fn end_poll(&self) {
        *self.budget.lock() = None;
    }
}

pin_project! {
    pub(super) struct Running<Fut, C, W> {
        entry: Entry<W>,
        shared: Arc<Shared>,
        #[pin]
        item: Option<Item<Fut, C>>,
    }

    impl<Fut, C, W> PinnedDrop for Running<Fut, C, W> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let item = &mut this.item;
            let entered = tracing::enter(Some(&this.entry.span));
            let dropped = panic::catch(|| item.set(None));
            drop(entered);
            if let Err(payload) = dropped {
                this.shared.panics.lock().push((this.entry.number, payload));
            }
        }
    }
}

impl<Fut, C, W> Future for Running<Fut, C, W>
where
    Item<Fut, C>: Future,
    W: Stopwatch,
{
    type Output = (Entry<W>, Result<<Item<Fut, C> as Future>::Output, Payload>);

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.shared.is_used_up() {
            // It is its turn in the next poll of the fan-out.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let entered = tracing::enter(Some(&this.entry.span));
        let polled = job::poll_to_end(this.item, cx);
        drop(entered);
        this.shared.add_step();
        let ended = ready!(polled);
        Poll::Ready((this.entry.clone(), ended))
    }
}

/// The items in flight.
pub(super) struct InFlight<Fut, C, W>(FuturesUnordered<Running<Fut, C, W>>);

impl<Fut, C, W> InFlight<Fut, C, W> {
    pub(super) fn new() -> Self {
        InFlight(FuturesUnordered::new())
    }

    pub(super) fn push(
        &mut self,
        entry: Entry<W>,
        item: Option<Item<Fut, C>>,
        shared: Arc<Shared>,
    ) {
        self.0.push(Running {
            entry,
            shared,
            item,
        });
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl<Fut, C, W: Clone> InFlight<Fut, C, W> {
    /// Which items they are.
    pub(super) fn entries(&self) -> Vec<Entry<W>> {
        let items = Pin::new(&self.0).iter_pin_ref();
        items.map(|item| item.entry.clone()).collect()
    }
}

impl<Fut, C, W, T, E> InFlight<Fut, C, W>
where
    Fut: Future<Output = Result<T, E>>,
    C: End<T, E>,
    W: Stopwatch,
{
    /// The next one that has ended; `None` if there is none in flight.
    pub(super) fn poll_ended(
        &mut self,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Ended<C, T, E, W>>> {
        Pin::new(&mut self.0).poll_next(cx)
    }
}

/// An item that has ended, and how.
type Ended<C, T, E, W> = (
    Entry<W>,
    Result<Result<<C as End<T, E>>::Kept, TaskErrorKind<E>>, Payload>,
);
