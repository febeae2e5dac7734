//! A fan-out's source: an iterator of items and the function that makes a future of each.
//!
//! Both are user code, so neither runs under the lock. The place that is to start the next item takes the two *out* of the
//! state, together with a ticket, pulls one item, and puts them back: at most one place pulls at a time, and a slow iterator
//! holds up that place alone. Places that come meanwhile stay parked, and are called when there is something to pull.

use std::fmt::{self, Display};
use std::future::Future;
use std::marker::PhantomData;

use crate::context::Context;
use crate::error::ContextError;
use crate::group::admission::Tickets;
use crate::group::state::{After, Core, Outcome, Source, Tag, Unstarted};
use crate::panic;
use crate::sync::Arc;

pub(crate) struct Feed<P, T, E> {
    /// `None` while a place pulls, and once nothing more is to be pulled.
    pull: Option<Box<P>>,
    stage: Stage,
    /// The number of items pulled.
    pulled: usize,
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

impl<I, F, Fut> Next for Pull<I, F>
where
    I: Iterator + Send + 'static,
    F: FnMut(Context, I::Item) -> Fut + Send + 'static,
{
    type Future = Fut;

    fn next(&mut self, ctx: Context) -> Option<Fut> {
        self.items.next().map(|item| (self.f)(ctx, item))
    }
}

/// The number of an item, which names its task in messages.
pub(crate) struct Index(usize);

impl Tag for Index {}

impl Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task of item {}", self.0)
    }
}

impl<P, T, E> Feed<P, T, E> {
    pub(crate) fn new(pull: P) -> Self {
        Feed {
            pull: Some(Box::new(pull)),
            stage: Stage::Pulling,
            pulled: 0,
            values: Vec::new(),
            error: PhantomData,
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
    P: Next<Future: Future<Output = Result<T, E>> + Send + 'static>,
    T: Send + 'static,
    E: From<ContextError> + Display + Send + 'static,
{
    type Error = E;
    type Value = T;
    type Tag = Index;
    type Job = P::Future;
    type Supply = Box<P>;

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

    fn accept(&mut self, Index(index): Index, value: T) {
        if self.values.len() <= index {
            self.values.resize_with(index + 1, || None);
        }
        self.values[index] = Some(value);
    }

    fn cut(&mut self, _: &mut Tickets, after: &mut After) -> Vec<Unstarted<Index, P::Future>> {
        if self.stage == Stage::Pulling {
            self.stage = Stage::Cut;
        }
        if let Some(pull) = self.pull.take() {
            after.garbage.push(pull);
        }
        Vec::new()
    }

    fn reclaim(&mut self) -> Vec<Unstarted<Index, P::Future>> {
        Vec::new()
    }

    fn open(core: &Arc<Core<Self>>, mut pull: Box<P>) -> Option<(Index, P::Future)> {
        let ctx = core.ctx().clone();
        let next = panic::catch(|| pull.next(ctx));
        let made = match next {
            Ok(made) => made,
            Err(payload) => {
                let index = core.read(|state| state.source.pulled);
                core.record(&Index(index), Outcome::Panicked(payload));
                None
            }
        };
        core.with(|state, after| {
            let feed = &mut state.source;
            // Nothing more is pulled: the last item came, or a failure (a panic just now, too) or the end of the context.
            if made.is_none() || feed.stage == Stage::Cut {
                feed.stage = feed.stage.ended();
                after.garbage.push(pull);
                if let Some(job) = made {
                    after.garbage.push(Box::new(job));
                }
                state.tickets.put_back(None);
                state.dismiss_parked(after);
                state.wake_waiter(after);
                return None;
            }
            let index = Index(feed.pulled);
            feed.pulled += 1;
            feed.pull = Some(pull);
            state.count_in();
            state.call_scout(after);
            made.map(|job| (index, job))
        })
    }
}
