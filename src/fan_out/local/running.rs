//! An item that runs on the caller's task: in its span, and with nothing getting out that its destructor panics with.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::fan_out::end::Stopwatch;
use crate::fan_out::items::Item;
use crate::group::job;
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

/// What the destructors of items panicked with.
pub(super) type Dropped = Arc<Mutex<Vec<(usize, Payload)>>>;

pin_project! {
    pub(super) struct Running<Fut, C, W> {
        entry: Entry<W>,
        dropped: Dropped,
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
                this.dropped.lock().push((this.entry.number, payload));
            }
        }
    }
}

impl<Fut, C, W> Running<Fut, C, W> {
    pub(super) fn new(entry: Entry<W>, item: Option<Item<Fut, C>>, dropped: Dropped) -> Self {
        Running {
            entry,
            dropped,
            item,
        }
    }

    pub(super) fn entry(&self) -> &Entry<W> {
        &self.entry
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
        let entered = tracing::enter(Some(&this.entry.span));
        let polled = job::poll_to_end(this.item, cx);
        drop(entered);
        let ended = ready!(polled);
        Poll::Ready((this.entry.clone(), ended))
    }
}
