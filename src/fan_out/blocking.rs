//! Fan-outs whose function blocks: it runs on the blocking pool.
//!
//! An item is a future as in any fan-out. At its first poll it gives its call to the pool, and then
//! waits for the result. So limits, terminal operations and options are those of every fan-out.
//!
//! A call that runs cannot be stopped. So the items are not dropped when the context is done, as
//! those of other fan-outs are when their grace period is over: the fan-out waits until no call is
//! running, and then drops those whose call has not begun.
//!
//! A value that is used for blocking work may block in its destructor, and a client with a runtime
//! of its own panics there on a thread that polls tasks. So items, the iterator and the function
//! are dropped on the pool.
//!
//! # Invariants
//!
//! 1. A call is counted as begun before it looks whether the context is done, and until its item
//!    has the result. So when the context is done and none has begun, none will, and every result
//!    has been taken.
//! 2. Everything of the user that is on the pool, or on its way there, is counted as out, until its
//!    destructor has run. A terminal operation returns when nothing is out.
//! 3. A destructor that panics on the pool leaves its panic in `Pool`. The task that waits for the
//!    fan-out records it, as the panic of an item.

mod call;
mod pool;
mod wait;

use std::fmt;
use std::pin::Pin;
use std::task::{self, Poll};

use futures_core::Stream;

use super::items::Items;
use crate::context::Context;
use crate::sync::Arc;
pub use call::BlockingCall;
use pool::DropThere;
pub(crate) use pool::Pool;
pub(crate) use wait::{PoolEvent, PoolWait};

/// Returns the count of what will be on the pool, and the items and the function of a fan-out that
/// is made of a blocking function.
#[expect(clippy::type_complexity, reason = "the closure has no name")]
pub(crate) fn on_pool<I, F, T, E>(
    items: I,
    f: F,
) -> (
    Arc<Pool>,
    BlockingItems<I>,
    impl FnMut(Context, I::Item) -> BlockingCall<I::Item, F, T, E> + Send + use<I, F, T, E>,
)
where
    I: Iterator<Item: Send + 'static> + Send + 'static,
    F: Fn(Context, I::Item) -> Result<T, E> + Send + Sync + 'static,
{
    let pool = Pool::new();
    let items = DropThere::new(Items::new(items), std::mem::needs_drop::<I>(), &pool);
    let f = DropThere::new(Arc::new(f), std::mem::needs_drop::<F>(), &pool);
    let calls = pool.clone();
    let call = move |ctx, item| match f.get() {
        Some(f) => BlockingCall::new(ctx, item, f.clone(), &calls),
        None => unreachable!("the function is there until the drop"),
    };
    (pool, BlockingItems(items), call)
}

/// The items of a [`fan_out_blocking`](crate::fan_out_blocking()). They are dropped on the blocking
/// pool.
pub struct BlockingItems<I: Send + 'static>(DropThere<Items<I>>);

impl<I: Iterator + Send + 'static> Stream for BlockingItems<I> {
    type Item = I::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<I::Item>> {
        match self.0.get_mut() {
            Some(items) => Pin::new(items).poll_next(cx),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.get().map_or((0, Some(0)), Stream::size_hint)
    }
}

impl<I: Send + 'static> fmt::Debug for BlockingItems<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingItems").finish_non_exhaustive()
    }
}
