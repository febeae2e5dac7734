//! A fan-out's source: an iterator of items and the function that makes a future of each.
//!
//! Both are user code, so neither runs under the lock. The place that is to start the next item takes the two *out* of the
//! state, together with a ticket, pulls one item, and puts them back: at most one place pulls at a time, and a slow iterator
//! holds up that place alone. Places that come meanwhile stay parked, and are called when there is something to pull.

use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::AbortHandle;

use crate::context::Context;
use crate::error::{ContextError, Label, TaskErrorKind};
use crate::group::admission::Tickets;
use crate::group::core::Core;
use crate::group::source::{Observer, Outcome, Source, Tag};
use crate::group::state::After;
use crate::panic;
use crate::sync::Arc;

pub(crate) struct Feed<P, T, E> {
    /// `None` while a place pulls, and once nothing more is to be pulled.
    pull: Option<Box<P>>,
    stage: Stage,
    /// The number of items pulled.
    pulled: usize,
    site: &'static Location<'static>,
    values: Vec<Option<T>>,
    error: PhantomData<fn() -> E>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Pulling,
    /// The iterator has given its last item.
    Exhausted,
    /// A failure or the end of the context came first.
    Cut,
}

impl Stage {
    fn ended(self) -> Stage {
        match self {
            Stage::Pulling => Stage::Exhausted,
            ended => ended,
        }
    }
}

/// The iterator and the function.
pub(crate) struct Pull<I, F> {
    items: I,
    f: F,
}

impl<I, F> Pull<I, F> {
    pub(crate) fn new(items: I, f: F) -> Self {
        Pull { items, f }
    }
}

/// Makes the next future, if there is a next item.
pub(crate) trait Next: Send + 'static {
    type Future;

    fn next(&mut self, ctx: Context) -> Option<Self::Future>;
}

impl<I, F, Fut, T, E> Next for Pull<I, F>
where
    I: Iterator + Send + 'static,
    F: FnMut(Context, I::Item) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>>,
{
    type Future = Item<Fut>;

    fn next(&mut self, ctx: Context) -> Option<Item<Fut>> {
        let item = self.items.next()?;
        Some(Item {
            future: (self.f)(ctx, item),
        })
    }
}

pin_project! {
    /// The future of one item, as a job.
    pub(crate) struct Item<Fut> {
        #[pin]
        future: Fut,
    }
}

impl<Fut, T, E> Future for Item<Fut>
where
    Fut: Future<Output = Result<T, E>>,
{
    type Output = Result<T, TaskErrorKind<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().future.poll(cx));
        Poll::Ready(result.map_err(TaskErrorKind::Failed))
    }
}

/// The number of an item, and where the fan-out was called.
pub(crate) struct Index {
    number: usize,
    site: &'static Location<'static>,
}

impl Tag for Index {
    fn started(&mut self) {}

    fn describe(&self) -> (Label, Duration) {
        let label = Label {
            name: Some(format!("item {}", self.number).into()),
            site: self.site,
        };
        // Nobody asks a fan-out yet how long its items ran.
        (label, Duration::ZERO)
    }
}

impl<P, T, E> Feed<P, T, E> {
    pub(crate) fn new(pull: P, site: &'static Location<'static>) -> Self {
        Feed {
            site,
            pull: Some(Box::new(pull)),
            stage: Stage::Pulling,
            pulled: 0,
            values: Vec::new(),
            error: PhantomData,
        }
    }

    /// That of the next item.
    fn index(&self) -> Index {
        Index {
            number: self.pulled,
            site: self.site,
        }
    }

    /// The values in the order of the items, if every item gave one.
    pub(crate) fn take_values(&mut self) -> Option<Vec<T>> {
        if self.stage != Stage::Exhausted {
            return None;
        }
        std::mem::take(&mut self.values).into_iter().collect()
    }
}

impl<P, T, E> Source for Feed<P, T, E>
where
    P: Next<Future: Future<Output = Result<T, TaskErrorKind<E>>> + Send + 'static>,
    T: Send + 'static,
    E: From<ContextError> + Display + Send + 'static,
{
    type Error = E;
    type Value = T;
    type Tag = Index;
    type Job = P::Future;
    type Supply = Box<P>;
    /// What is pulled starts at once.
    type Work = ();

    fn start(&mut self, _: &mut Tickets, _: &mut After) {}

    fn supply(&mut self, tickets: &mut Tickets, ended: bool) -> Option<Box<P>> {
        if ended || !self.has_supply(tickets) {
            return None;
        }
        let pull = self.pull.take()?;
        tickets.take();
        Some(pull)
    }

    fn has_supply(&self, tickets: &Tickets) -> bool {
        self.pull.is_some() && tickets.is_free()
    }

    fn is_busy(&self) -> bool {
        self.stage == Stage::Pulling
    }

    fn has_unstarted(&self) -> bool {
        self.stage == Stage::Pulling
    }

    fn accept(&mut self, index: Index, value: Option<T>) -> Option<Arc<dyn Observer>> {
        if self.values.len() <= index.number {
            self.values.resize_with(index.number + 1, || None);
        }
        self.values[index.number] = value;
        None
    }

    fn cut(&mut self, _: &mut Tickets, after: &mut After) -> Vec<(Index, ())> {
        if self.stage == Stage::Pulling {
            self.stage = Stage::Cut;
        }
        if let Some(pull) = self.pull.take() {
            after.garbage.push(pull);
        }
        Vec::new()
    }

    fn reclaim(&mut self, _: &mut Vec<AbortHandle>) -> Vec<(Index, ())> {
        Vec::new()
    }

    fn open(core: &Arc<Core<Self>>, pull: Box<P>) -> Option<(Index, P::Future)> {
        let ctx = core.ctx().clone();
        let mut pull = Some(pull);
        let next = panic::catch(|| {
            let made = pull.as_mut().and_then(|pull| pull.next(ctx));
            if made.is_none() {
                // Here, where a panic in their destructors is seen.
                drop(pull.take());
            }
            made
        });
        let made = match next {
            Ok(made) => made,
            Err(payload) => {
                let index = core.read(|state| state.source.index());
                core.record(&index, Outcome::Panicked(payload));
                None
            }
        };
        core.with(|state, after| {
            let feed = &mut state.source;
            // Nothing more is pulled: the last item came, or a failure (a panic just now, too) or the end of the context.
            if made.is_none() || feed.stage == Stage::Cut {
                feed.stage = feed.stage.ended();
                if let Some(pull) = pull {
                    after.garbage.push(pull);
                }
                if let Some(job) = made {
                    after.garbage.push(Box::new(job));
                }
                state.tickets.put_back(None, &mut after.replaced);
                state.dismiss_parked(after);
                state.wake_waiter(after);
                return None;
            }
            let index = feed.index();
            feed.pulled += 1;
            feed.pull = pull;
            state.count_in();
            state.call_scout_from_place(after);
            made.map(|job| (index, job))
        })
    }
}
