//! A group's source: what `go` was given, first in, first out.
//!
//! ```text
//!     go ─► ready: have a ticket, wait for a place's next turn ─► places
//!       │     ▲
//!       │     │ a ticket is free
//!       └─► waiting:  7   8   9   10   next: 11
//!                     ▲
//!                    head
//! ```
//!
//! What has to wait is numbered, and starts in the order of the numbers. So an admission is a number: it has started when
//! `head` has passed it, and that costs nothing a task. When the context ends, `head` stops for good and what waits is
//! removed: those numbers never start.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Poll, Waker};

use super::admission::{LenderId, Tickets, Waiter};
use super::current;
use super::handle::{Admission, Lobby, Number};
use super::state::{After, Core, Source, Tag, Unstarted};
use crate::error::{ContextError, TryGoError};
use crate::panic;
use crate::sync::Arc;

/// Erased: a group holds futures of any type.
pub(crate) type Job<E> = Pin<Box<dyn Future<Output = Result<(), E>> + Send>>;

pub(crate) struct Queue<E> {
    ready: VecDeque<Entry<E>>,
    waiting: VecDeque<Waiting<E>>,
    /// The number of the first that waits, or of the next to come.
    head: Number,
    /// Whether the context has ended, and `head` stopped.
    cut: bool,
}

pub(crate) struct Entry<E> {
    site: Site,
    job: Job<E>,
}

struct Waiting<E> {
    entry: Entry<E>,
    /// Who awaits the admission.
    waiter: Option<Waiter>,
}

/// Where a task was started, which names it in messages.
#[derive(Clone, Copy)]
pub(crate) struct Site(pub(crate) &'static Location<'static>);

impl Tag for Site {}

impl Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task started at {}", self.0)
    }
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Queue<E> {
        Queue {
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            head: 0,
            cut: false,
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether it has been decided that `number` starts, or that it does not.
    fn decision(&self, number: Number) -> Option<bool> {
        if number < self.head {
            return Some(true);
        }
        self.cut.then_some(false)
    }

    fn waiter_of(&mut self, number: Number) -> Option<&mut Option<Waiter>> {
        let at = usize::try_from(number.checked_sub(self.head)?).ok()?;
        self.waiting.get_mut(at).map(|waiting| &mut waiting.waiter)
    }
}

impl<E> Source for Queue<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    type Error = E;
    type Value = ();
    type Tag = Site;
    type Job = Job<E>;
    type Supply = Entry<E>;

    fn start(&mut self, tickets: &mut Tickets, after: &mut After) {
        while !self.waiting.is_empty() && tickets.take() {
            let Some(Waiting { entry, waiter }) = self.waiting.pop_front() else {
                return;
            };
            self.head += 1;
            self.ready.push_back(entry);
            if let Some(waiter) = waiter {
                tickets.decide(waiter, &mut after.wake);
                // Its claim comes before what still waits.
                tickets.grant(&mut after.wake);
            }
        }
    }

    fn supply(&mut self, _: &mut Tickets, _ended: bool) -> Option<Entry<E>> {
        self.ready.pop_front()
    }

    fn has_supply(&self, _: &Tickets) -> bool {
        !self.ready.is_empty()
    }

    fn is_busy(&self) -> bool {
        false
    }

    fn has_unstarted(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn accept(&mut self, _: Site, (): ()) {}

    fn cut(&mut self, tickets: &mut Tickets, after: &mut After) -> Vec<Unstarted<Site, Job<E>>> {
        self.cut = true;
        let mut unstarted = Vec::with_capacity(self.waiting.len());
        for Waiting { entry, waiter } in self.waiting.drain(..) {
            if let Some(waiter) = waiter {
                tickets.decide(waiter, &mut after.wake);
            }
            unstarted.push(entry.into());
        }
        unstarted
    }

    fn reclaim(&mut self) -> Vec<Unstarted<Site, Job<E>>> {
        self.ready.drain(..).map(Unstarted::from).collect()
    }

    fn open(_: &Arc<Core<Self>>, supply: Entry<E>) -> Option<(Site, Job<E>)> {
        Some((supply.site, supply.job))
    }
}

impl<E> From<Entry<E>> for Unstarted<Site, Job<E>> {
    fn from(Entry { site, job }: Entry<E>) -> Self {
        Unstarted { tag: site, job }
    }
}

/// What `submit` decided under the lock.
enum Decision<E> {
    Started,
    Queued(Number),
    Refused(Entry<E>),
}

impl<E> Core<Queue<E>>
where
    E: From<ContextError> + Display + Send + 'static,
{
    /// Starts the job, or queues it.
    pub(crate) fn submit(self: &Arc<Self>, site: Site, job: Job<E>) -> Admission {
        let entry = Entry { site, job };
        let ended = self.ctx().is_done();
        let decision = self.with(|state, after| {
            if ended || !state.is_open() || state.source.cut {
                return Decision::Refused(entry);
            }
            state.count_in();
            if state.source.waiting.is_empty() && state.tickets.take() {
                state.source.ready.push_back(entry);
                state.call_scout(after);
                return Decision::Started;
            }
            let number = state.source.head + state.source.waiting.len() as Number;
            let waiter = None;
            state.source.waiting.push_back(Waiting { entry, waiter });
            state.watch(after);
            Decision::Queued(number)
        });
        match decision {
            Decision::Started => Admission::decided(true),
            Decision::Queued(number) => Admission::queued(self.clone(), number),
            Decision::Refused(entry) => {
                self.refuse(entry);
                Admission::decided(false)
            }
        }
    }

    /// Starts the future now, or hands it back.
    pub(crate) fn try_submit<F>(
        self: &Arc<Self>,
        site: Site,
        future: F,
    ) -> Result<(), TryGoError<F>>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let ended = self.ctx().is_done();
        let mut refused = None;
        // The ticket first: a future that is boxed could not be handed back.
        let taken = self.with(|state, _| {
            if ended || !state.is_open() || state.source.cut {
                refused = Some(TryGoError::Ended as fn(F) -> TryGoError<F>);
            } else if !state.source.waiting.is_empty() || !state.tickets.take() {
                refused = Some(TryGoError::Full as fn(F) -> TryGoError<F>);
            } else {
                state.count_in();
            }
            refused
        });
        if let Some(refuse) = taken {
            return Err(refuse(future));
        }
        let job: Job<E> = Box::pin(future);
        let entry = Entry { site, job };
        let aborted = self.with(|state, after| {
            if !state.is_open() {
                return Some(entry);
            }
            state.source.ready.push_back(entry);
            state.call_scout(after);
            None
        });
        if let Some(entry) = aborted {
            self.dispose(entry.into(), true);
        }
        Ok(())
    }

    /// The context has ended, so this never starts; it counts as ended, unless a wait is already over.
    fn refuse(self: &Arc<Self>, Entry { site, job }: Entry<E>) {
        let counts = self.with(|state, _| {
            let counts = !state.is_closed();
            if counts {
                state.count_in();
            }
            counts
        });
        let unstarted = Unstarted { tag: site, job };
        if counts {
            self.dispose(unstarted, false);
        } else {
            panic::discard(unstarted.job);
        }
    }
}

impl<E> Lobby for Core<Queue<E>>
where
    E: From<ContextError> + Display + Send + 'static,
{
    fn poll_decision(
        self: Arc<Self>,
        number: Number,
        lender: &mut Option<LenderId>,
        waker: &Waker,
    ) -> Poll<bool> {
        let ended = self.ctx().is_done();
        let mut new = Some(waker.clone());
        let here = current::lender(self.id());
        self.with(|state, after| {
            let decision = state.source.decision(number);
            let tickets = &mut state.tickets;
            // An admission that went on to another task is no longer what the first one waits for.
            if let Some(other) = lender.filter(|lender| here != Some(Some(*lender))) {
                tickets.give_up(other, decision.is_some());
                *lender = None;
            }
            let poll = match (decision, *lender) {
                (Some(started), None) => Poll::Ready(started),
                (Some(started), Some(id)) if tickets.resume(id, &mut new) => {
                    *lender = None;
                    Poll::Ready(started)
                }
                (Some(_), Some(_)) => Poll::Pending,
                (None, known) => {
                    if let (None, Some(named)) = (known, here) {
                        let named = tickets.begin_wait(named);
                        current::name(named);
                        *lender = Some(named);
                    }
                    let waiter = new.take().map(|waker| Waiter {
                        waker,
                        lender: *lender,
                    });
                    if let Some(slot) = state.source.waiter_of(number) {
                        let old = std::mem::replace(slot, waiter);
                        after.replaced.extend(old.map(|old| old.waker));
                    }
                    Poll::Pending
                }
            };
            after.replaced.extend(new.take());
            // A deadline of which nobody has told yet.
            after.cut_if(ended && poll.is_pending());
            poll
        })
    }

    fn give_up(self: Arc<Self>, number: Number, lender: Option<LenderId>) {
        let ended = self.ctx().is_done();
        self.with(|state, after| {
            let decided = state.source.decision(number).is_some();
            if let Some(waiter) = state.source.waiter_of(number).and_then(Option::take) {
                after.replaced.push(waiter.waker);
            }
            if let Some(lender) = lender {
                state.tickets.give_up(lender, decided);
                state.hand_out(ended, after);
            }
        });
    }

    fn decision(&self, number: Number) -> Option<bool> {
        self.read(|state| state.source.decision(number))
    }
}

/// A future that calls `start` in its place, when its task starts.
pub(crate) async fn deferred<C, F, T>(start: impl FnOnce(C) -> F, ctx: C) -> T
where
    F: Future<Output = T>,
{
    start(ctx).await
}
