//! The stream of a fan-out's outcomes, as the caller gets it.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{self, Poll};

use futures_core::Stream;

/// The stream of a fan-out's outcomes: the result of each item, as it arrives.
///
/// The terminal operations of a fan-out that are streams return it:
/// [`stream`](crate::FanOut::stream), [`try_stream`](crate::FanOut::try_stream),
/// [`ordered_stream`](crate::FanOut::ordered_stream) and
/// [`indexed_stream`](crate::FanOut::indexed_stream).
///
/// Dropping it stops the items and does not wait for them. [`stop`](Outcomes::stop) stops them and
/// waits.
#[must_use = "a stream starts nothing until it is polled"]
pub struct Outcomes<S> {
    stream: S,
}

impl<S> Outcomes<S> {
    pub(crate) fn new(stream: S) -> Outcomes<S> {
        Outcomes { stream }
    }
}

impl<S: Stop> Outcomes<S> {
    /// Stops the fan-out, and returns when everything that it has started has ended.
    ///
    /// Cancels the context. The items in flight are dropped, after the
    /// [`grace`](crate::FanOut::grace) period if one is set, and no further item is pulled. When
    /// this returns, all destructors of the items, of the iterator and of the functions have run.
    /// Outcomes that were not taken are dropped.
    ///
    /// Returns at once if the stream was not polled yet, or has ended.
    ///
    /// # Panics
    ///
    /// Resumes the first panic of an item, of the function, of the iterator, of `on_progress`, or
    /// of the destructor of one of these, when everything else has been dropped, unless the stream
    /// has resumed it already.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream: the items in flight are then stopped without a grace
    /// period, and nothing waits for them. A panic of a destructor is then discarded.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, fan_out};
    /// use futures::StreamExt;
    /// # use std::sync::Arc;
    /// # use tokio::sync::Semaphore;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// # let pool = Arc::new(Semaphore::new(8));
    /// # let connections = pool.clone();
    /// let pages = fan_out(&Context::background(), 0.., move |_ctx, page: u32| {
    ///     let connections = connections.clone();
    ///     async move {
    ///         let _connection = connections.acquire().await;
    ///         # tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    ///         Ok::<_, String>(page)
    ///     }
    /// });
    /// let mut pages = pages.limit(8).stream();
    /// let first = pages.next().await;
    /// pages.stop().await;
    /// // Every connection has been given back.
    /// assert_eq!(pool.available_permits(), 8);
    /// # assert!(first.is_some());
    /// # }
    /// ```
    #[doc(alias("aclose", "shutdown", "abort"))]
    pub async fn stop(self) {
        let mut stream = self.stream;
        poll_fn(|cx| stream.poll_stop(cx)).await;
    }
}

impl<S: Stop> Stream for Outcomes<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<S::Item>> {
        Pin::new(&mut self.stream).poll_next(cx)
    }
}

impl<S> fmt::Debug for Outcomes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcomes").finish_non_exhaustive()
    }
}

/// A stream inside [`Outcomes`]. Only this crate implements it.
pub trait Stop: Stream + Unpin + Sealed {
    /// Stops the items at the first poll, and waits until they were dropped.
    #[doc(hidden)]
    fn poll_stop(&mut self, cx: &mut task::Context<'_>) -> Poll<()>;
}

/// Keeps other crates from implementing [`Stop`].
#[expect(unnameable_types, reason = "other crates must not name it")]
pub trait Sealed {}
