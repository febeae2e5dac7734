//! What a fan-out runs on: items, one at a time, and the function that makes a future of each.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use futures_core::Stream;
use pin_project_lite::pin_project;

use crate::context::Context;
use crate::panic::{self, Payload};
use crate::tracing::{self, Span};

/// The items of an iterator, as a stream that is always ready: what [`fan_out`](crate::fan_out()) makes of an iterator.
pub struct Items<I>(I);

impl<I> Items<I> {
    pub(crate) fn new(items: I) -> Self {
        Items(items)
    }
}

// The iterator is never pinned.
impl<I> Unpin for Items<I> {}

impl<I: Iterator> Stream for Items<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<I::Item>> {
        Poll::Ready(self.0.next())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<I> fmt::Debug for Items<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

pin_project! {
    /// The items and the function. Each is there until the drop.
    pub(crate) struct Pull<S, F> {
        f: Option<F>,
        #[pin]
        items: Option<S>,
    }

    impl<S, F> PinnedDrop for Pull<S, F> {
        // One after the other: if both destructors panicked in passing, the process would end.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let items = panic::catch(|| this.items.set(None));
            let f = panic::catch(|| *this.f = None);
            if let Err(payload) = panic::first(items, f) {
                panic::resume(payload);
            }
        }
    }
}

impl<S, F> Pull<S, F> {
    pub(crate) fn new(items: S, f: F) -> Self {
        Pull {
            f: Some(f),
            items: Some(items),
        }
    }
}

/// Makes a future of each item.
pub(crate) trait Next {
    type Future;

    /// Makes the next future when there is a next item, and hands it to `put`. It is not returned:
    /// each return and each `Poll` around it would copy it.
    fn poll_next(
        self: Pin<&mut Self>,
        ctx: &Context,
        cx: &mut task::Context<'_>,
        put: impl FnOnce(Self::Future),
    ) -> Poll<Option<()>>;

    /// How many are still to come.
    fn size_hint(&self) -> SizeHint;
}

/// As that of an iterator.
pub(crate) type SizeHint = (usize, Option<usize>);

impl<S, F, Fut> Next for Pull<S, F>
where
    S: Stream,
    F: FnMut(Context, S::Item) -> Fut,
{
    type Future = Fut;

    #[inline]
    fn poll_next(
        self: Pin<&mut Self>,
        ctx: &Context,
        cx: &mut task::Context<'_>,
        put: impl FnOnce(Fut),
    ) -> Poll<Option<()>> {
        let this = self.project();
        let (Some(items), Some(f)) = (this.items.as_pin_mut(), this.f) else {
            unreachable!("what is pulled from has been dropped");
        };
        match ready!(items.poll_next(cx)) {
            Some(item) => {
                put(f(ctx.clone(), item));
                Poll::Ready(Some(()))
            }
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.items.as_ref().map_or((0, Some(0)), S::size_hint)
    }
}

/// Pulls the next future, hands it to `put`, and says how many are still to come; `None` after the last one, when `pull` is
/// dropped, here, where a panic of its destructor is seen. All of it runs in the span of the
/// fan-out's caller.
#[inline]
pub(crate) fn poll_pull<P: Next>(
    pull: &mut Option<Pin<Box<P>>>,
    put: impl FnOnce(P::Future),
    ctx: &Context,
    caller: &Span,
    cx: &mut task::Context<'_>,
) -> Poll<Result<Option<SizeHint>, Payload>> {
    let entered = tracing::enter(Some(caller));
    let pulled = panic::catch(|| {
        let Some(it) = pull else {
            return Poll::Ready(None);
        };
        match ready!(it.as_mut().poll_next(ctx, cx, put)) {
            Some(()) => Poll::Ready(Some(it.size_hint())),
            None => {
                *pull = None;
                Poll::Ready(None)
            }
        }
    });
    drop(entered);
    match pulled {
        Ok(next) => next.map(Ok),
        Err(payload) => Poll::Ready(Err(payload)),
    }
}

/// Drops what the caller gave, in the caller's span. Returns the panic of a destructor.
pub(crate) fn drop_in<T>(caller: &Span, given: T) -> Result<(), Payload> {
    let _entered = tracing::enter(Some(caller));
    panic::catch(|| drop(given))
}
