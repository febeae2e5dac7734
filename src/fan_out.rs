//! Fan-out: one function over many items, on the places of the group.

mod feed;

use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::pin::{Pin, pin};
use std::task::Poll;

use crate::context::{Context, Note};
use crate::error::ContextError;
use crate::group::core::{Core, OnFailure};
use crate::group::source::Source;
use crate::sync::Arc;
use feed::{Feed, Pull};

static FAN_OUT_ENDED: Note = Note("the fan-out has ended");
static FAN_OUT_DROPPED: Note = Note("the fan-out was dropped");

/// Calls `f` for every item, at most `limit` at once, and gives the results in the order of the items.
///
/// Each call gets the helper's own context, a child of `ctx`. The first error ends that context, drops what is in flight,
/// waits until it is gone, and is returned; items that were not pulled by then never are. So when this returns, nothing that it
/// started is still running.
///
/// `items` is any `IntoIterator`, infinite or slow ones included. An item is pulled when there is a place for it, not
/// before. The iterator and `f` run on the runtime's workers, one call at a time. `usize::MAX` is no limit.
///
/// If `ctx` ends, what is in flight is dropped, as at an error: give it only what may be dropped at an await.
///
/// The future does not borrow `ctx`, and starts nothing until it is polled.
///
/// # Errors
///
/// The first error in order of completion. If `ctx` ends before the last item is done, `E::from` of its
/// [`ContextError`].
///
/// # Panics
///
/// If `limit` is 0. When polled outside a tokio runtime. A panic in `f`, in one of its futures, or in the iterator is resumed
/// with its payload when everything else is gone.
///
/// # Cancel safety
///
/// Dropping the future ends its context and aborts what is in flight: nothing is polled again once its present poll
/// returns. Results that were there are lost.
///
/// # Examples
///
/// ```
/// use errgroup::{Context, fetch_all};
///
/// # async fn fetch(url: &str) -> anyhow::Result<usize> { Ok(url.len()) }
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> anyhow::Result<()> {
/// let ctx = Context::background();
/// let urls = ["http://a.example", "http://bc.example"];
///
/// let lengths = fetch_all(&ctx, 8, urls, |ctx, url| async move {
///     // The context reaches the deepest call, and stops what knows nothing of contexts.
///     ctx.run(fetch(url)).await?
/// })
/// .await?;
/// assert_eq!(lengths, [16, 17]);
/// # Ok(()) }
/// ```
#[track_caller]
pub fn fetch_all<I, F, Fut, T, E>(
    ctx: &Context,
    limit: usize,
    items: I,
    f: F,
) -> impl Future<Output = Result<Vec<T>, E>> + Send + use<I, F, Fut, T, E>
where
    I: IntoIterator<IntoIter: Send + 'static>,
    F: FnMut(Context, I::Item) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: From<ContextError> + Display + Send + 'static,
{
    assert!(
        limit > 0,
        "fetch_all with a limit of 0 would never pull an item: pass at least 1, or usize::MAX for no limit"
    );
    let (ctx, guard) = ctx.with_cancel();
    let pull = Pull::new(items.into_iter(), f);
    let site = Location::caller();
    async move {
        let cancel = guard.disarm();
        let feed = Feed::new(pull, site);
        let core = Core::new(feed, ctx.clone(), cancel, limit, OnFailure::Abort);
        let running = AbortOnDrop(core);
        let core = &running.0;
        core.bind("fetch_all");
        core.hand_out();
        over_or_aborted(core).await;
        core.end_context(&FAN_OUT_ENDED);
        core.take_failures().into_result()?;
        match core.with(|state, _| state.source.take_values()) {
            Some(values) => Ok(values),
            None => Err(E::from(ctx.err().unwrap_or_else(|| {
                unreachable!("a fan-out stops early only at a failure or at the end of its context")
            }))),
        }
    }
}

/// Waits until everything has ended; at the end of the context it drops what is in flight, and waits for that.
async fn over_or_aborted<S: Source>(core: &Arc<Core<S>>) {
    let mut over = pin!(core.over());
    let mut done = core.ctx().done();
    let mut aborted = false;
    poll_fn(|cx| {
        if over.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !aborted && Pin::new(&mut done).poll(cx).is_ready() {
            aborted = true;
            core.abort(&FAN_OUT_ENDED);
            return over.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await;
}

/// The future of a fan-out, dropped, stops what it started.
struct AbortOnDrop<S: Source>(Arc<Core<S>>);

impl<S: Source> Drop for AbortOnDrop<S> {
    fn drop(&mut self) {
        self.0.abort(&FAN_OUT_DROPPED);
    }
}
