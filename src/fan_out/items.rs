//! The items of a fan-out, and the function that makes a future of each.

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use futures_core::Stream;
use pin_project_lite::pin_project;

use crate::context::Context;
use crate::panic::{self, Payload};
use crate::span::{self, Span};

/// A stream of the items of an iterator. It is always ready.
///
/// [`fan_out`](crate::fan_out()) makes it of its iterator.
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
    /// The items and the function. Neither is taken out before the drop.
    pub(crate) struct Pull<S, F, Fut> {
        f: Function<F>,
        #[pin]
        items: Option<S>,
        kind: ItemsKind,
        // The future of an item that came although the iterator had said that there were no more.
        peeked: Option<Box<Fut>>,
    }

    impl<S, F, Fut> PinnedDrop for Pull<S, F, Fut> {
        // One after the other: two destructors that panic in one drop would abort the process.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let peeked = panic::catch(|| *this.peeked = None);
            let items = panic::first(peeked, panic::catch(|| this.items.set(None)));
            let f = panic::catch(|| *this.f = Function::Gone);
            if let Err(payload) = panic::first(items, f) {
                panic::resume(payload);
            }
        }
    }
}

/// The function that makes a future of each item.
enum Function<F> {
    Called(F),
    /// The limit is 0, so it is never called, and there may be no item.
    Unused {
        _f: F,
    },
    Gone,
}

/// Where the items come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ItemsKind {
    /// An iterator, which is always ready.
    Iterator,
    Stream,
}

impl<S, F, Fut> Pull<S, F, Fut> {
    pub(crate) fn new(items: S, f: F, kind: ItemsKind) -> Self {
        Pull {
            f: Function::Called(f),
            items: Some(items),
            kind,
            peeked: None,
        }
    }

    /// Makes one for a limit of 0, which panics if there is an item.
    pub(crate) fn stuck(items: S, f: F, kind: ItemsKind) -> Self {
        Pull {
            f: Function::Unused { _f: f },
            items: Some(items),
            kind,
            peeked: None,
        }
    }
}

/// Polls for an item where there may be none, because the limit is 0.
#[cold]
fn poll_none<S: Stream>(items: Pin<&mut S>, cx: &mut task::Context<'_>) -> Poll<bool> {
    let item = ready!(items.poll_next(cx));
    if item.is_some() {
        panic::discard(item);
        panic!(
            "a fan-out with a limit of 0 never starts its items: pass at least 1, pass `None` for \
             no limit, or take a `limit_handle` to raise the limit later"
        );
    }
    Poll::Ready(false)
}

/// Makes a future of each item.
pub(crate) trait Next {
    type Future;

    /// Waits for the next item, makes a future of it, and passes the future to `put`. Returns
    /// whether there was an item. The future is not returned, since each return and each `Poll`
    /// around it would copy it.
    fn poll_next(
        self: Pin<&mut Self>,
        ctx: &Context,
        cx: &mut task::Context<'_>,
        put: impl FnOnce(Self::Future),
    ) -> Poll<bool>;

    /// Looks whether there is another item, and keeps its future for the next pull.
    fn poll_peek(self: Pin<&mut Self>, ctx: &Context, cx: &mut task::Context<'_>) -> Poll<bool>;

    /// Returns how many items are left.
    fn size_hint(&self) -> SizeHint;

    /// Returns where the items come from.
    fn kind(&self) -> ItemsKind;
}

/// Bounds of a number of items, as `Iterator::size_hint` has them.
pub(crate) type SizeHint = (usize, Option<usize>);

impl<S, F, Fut> Next for Pull<S, F, Fut>
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
    ) -> Poll<bool> {
        let this = self.project();
        let Some(items) = this.items.as_pin_mut() else {
            unreachable!("the items are pulled after they were dropped");
        };
        let Function::Called(f) = this.f else {
            return poll_none(items, cx);
        };
        if let Some(future) = this.peeked.take() {
            put(*future);
            return Poll::Ready(true);
        }
        match ready!(items.poll_next(cx)) {
            Some(item) => {
                put(f(ctx.clone(), item));
                Poll::Ready(true)
            }
            None => Poll::Ready(false),
        }
    }

    fn poll_peek(self: Pin<&mut Self>, ctx: &Context, cx: &mut task::Context<'_>) -> Poll<bool> {
        let this = self.project();
        let (items, f) = (this.items.as_pin_mut(), this.f);
        if let (None, Some(items), Function::Called(f)) = (&this.peeked, items, f) {
            let item = ready!(items.poll_next(cx));
            *this.peeked = item.map(|item| Box::new(f(ctx.clone(), item)));
        }
        Poll::Ready(this.peeked.is_some())
    }

    fn size_hint(&self) -> SizeHint {
        let (least, most) = self.items.as_ref().map_or((0, Some(0)), S::size_hint);
        let peeked = usize::from(self.peeked.is_some());
        (
            least.saturating_add(peeked),
            most.and_then(|most| most.checked_add(peeked)),
        )
    }

    fn kind(&self) -> ItemsKind {
        self.kind
    }
}

/// Pulls the next future, passes it to `put`, and returns how many items are left.
///
/// Returns `None` after the last item. Then `pull` is dropped here, so that a panic of its
/// destructor is caught. User code runs in the span of the fan-out's caller. A panic is returned as
/// an error.
#[inline]
pub(crate) fn poll_pull<P: Next>(
    pull: &mut Option<Pin<Box<P>>>,
    put: impl FnOnce(P::Future),
    ctx: &Context,
    caller: &Span,
    cx: &mut task::Context<'_>,
) -> Poll<Result<Option<SizeHint>, Payload>> {
    poll_caught(pull, caller, |it| it.poll_next(ctx, cx, put))
}

/// Looks whether there is another item. Like `poll_pull`, it returns `None` after the last item and
/// then drops `pull`.
pub(crate) fn poll_peek<P: Next>(
    pull: &mut Option<Pin<Box<P>>>,
    ctx: &Context,
    caller: &Span,
    cx: &mut task::Context<'_>,
) -> Poll<Result<Option<SizeHint>, Payload>> {
    poll_caught(pull, caller, |it| it.poll_peek(ctx, cx))
}

/// Polls for an item in the caller's span, and catches a panic. After the last item, drops `pull`.
#[inline]
fn poll_caught<P: Next>(
    pull: &mut Option<Pin<Box<P>>>,
    caller: &Span,
    poll: impl FnOnce(Pin<&mut P>) -> Poll<bool>,
) -> Poll<Result<Option<SizeHint>, Payload>> {
    let entered = span::enter_caller(caller);
    let polled = panic::catch(|| {
        let Some(it) = pull else {
            return Poll::Ready(None);
        };
        if ready!(poll(it.as_mut())) {
            return Poll::Ready(Some(it.size_hint()));
        }
        *pull = None;
        Poll::Ready(None)
    });
    drop(entered);
    match polled {
        Ok(next) => next.map(Ok),
        Err(payload) => Poll::Ready(Err(payload)),
    }
}

/// Drops a value that the caller gave, in the caller's span. Returns the panic of its destructor.
pub(crate) fn drop_in<T>(caller: &Span, given: T) -> Result<(), Payload> {
    let _entered = span::enter_caller(caller);
    panic::catch(|| drop(given))
}
