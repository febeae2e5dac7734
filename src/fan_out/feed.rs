//! A fan-out's source: an iterator or a stream of items, and the function that makes a future of each.
//!
//! Both are user code, so neither runs under the lock. The place that is to start the next item takes the two *out* of the
//! state, together with a ticket, pulls one item, and puts them back: at most one place pulls at a time, and a slow iterator
//! holds up that place alone. Where items are quick, it pulls several, each with a ticket: see
//! [`round`](crate::group::round). A stream that has no item yet is waited for by the place that has it in hand. Places that
//! come meanwhile stay parked, and are called when there is something to pull.
//!
//! A consumer that is slow holds tickets too: what runs and what waits for it are together at most `limit`.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Progress;
use super::end::{End, Origin};
use super::items::{Item, Next, SizeHint, poll_pull};
use super::ledger::Ledger;
use crate::error::{ContextError, Label};
use crate::group::admission::Tickets;
use crate::group::core::Core;
use crate::group::current::{self, Frame};
use crate::group::source::{Observer, Opened, Outcome, Source, Tag};
use crate::group::state::After;
use crate::panic::{self, Payload};
use crate::sync::Arc;

pub(crate) struct Feed<P: Next, C, T, E> {
    /// `None` while a place pulls, and once nothing more is to be pulled.
    pull: Option<Pin<Box<P>>>,
    /// The place that waits for the next item.
    puller: Option<Waker>,
    /// What was pulled, has its ticket, and has come back: the place that was to run it has another that waits.
    ready: VecDeque<(Index, Item<P::Future, C>)>,
    pub(crate) ledger: Ledger<C>,
    reporter: Option<Reporter>,
    results: PhantomData<fn() -> (T, E)>,
}

/// Who wants to know how far it has come. Called outside the lock, by one place at a time: whoever finds it here.
pub(crate) struct Reporter {
    call: Option<Report>,
    /// How many calls are due.
    due: usize,
}

pub(crate) type Report = Box<dyn FnMut(Progress) + Send>;

/// What a place is handed.
pub(crate) enum Supply<P: Next, C> {
    Ready(Index, Item<P::Future, C>),
    Pull(Hand<P>),
}

/// What a place has in hand while it pulls.
pub(crate) struct Hand<P> {
    pull: Pin<Box<P>>,
    tickets: usize,
    /// The number of the next item.
    next: usize,
    /// Whether it has waited for that one.
    waited: bool,
}

impl<P: Next, C> From<Hand<P>> for Supply<P, C> {
    fn from(hand: Hand<P>) -> Supply<P, C> {
        Supply::Pull(hand)
    }
}

/// Which item it is; `None` is the `on_progress` of them all.
pub(crate) struct Index {
    number: Option<usize>,
    started: Option<Instant>,
}

impl Index {
    /// That of an item which never starts.
    fn of(number: usize) -> Index {
        Index {
            number: Some(number),
            started: None,
        }
    }
}

impl Tag for Index {
    fn started(&mut self) {}
}

impl<P, C, T, E> Feed<P, C, T, E>
where
    P: Next,
    C: End<T, E>,
{
    pub(crate) fn new(pull: Pin<Box<P>>, end: C, report: Option<Report>) -> Self {
        Feed {
            ledger: Ledger::new(end, pull.size_hint()),
            pull: Some(pull),
            puller: None,
            ready: VecDeque::new(),
            reporter: report.map(|call| Reporter {
                call: Some(call),
                due: 0,
            }),
            results: PhantomData,
        }
    }

    /// What is left of the user's code, and what came out: to be dropped outside the lock.
    pub(crate) fn take_all(&mut self) -> (Option<Pin<Box<P>>>, Option<Reporter>, C) {
        let end = std::mem::take(&mut self.ledger.end);
        (self.pull.take(), self.reporter.take(), end)
    }

    pub(crate) fn judge(&mut self, after: &mut After) {
        after.enough = after.enough.or(self.ledger.judge());
    }

    /// So many have started or ended.
    fn note(&mut self, events: usize, after: &mut After) {
        if let Some(reporter) = &mut self.reporter {
            reporter.due += events;
            after.report = true;
        }
    }

    /// How many may be pulled now.
    fn room(&self, tickets: &Tickets) -> usize {
        if self.pull.is_none() || !self.ledger.is_pulling() || !tickets.is_free() {
            return 0;
        }
        let held = tickets.running().saturating_add(self.ledger.end.waiting());
        tickets.limit().saturating_sub(held)
    }

    fn take_report(&mut self) -> Option<(Report, Progress)> {
        let reporter = self.reporter.as_mut()?;
        let due = reporter.due.checked_sub(1)?;
        let call = reporter.call.take()?;
        reporter.due = due;
        Some((call, self.ledger.progress()))
    }
}

impl<P, C, T, E> Source for Feed<P, C, T, E>
where
    P: Next<Future: Future<Output = Result<T, E>> + Send + 'static> + Send + 'static,
    C: End<T, E, Kept: Send + 'static> + Send + 'static,
    T: Send + 'static,
    E: From<ContextError> + Display + Send + 'static,
{
    type Error = E;
    type Value = C::Kept;
    type Tag = Index;
    type Job = Item<P::Future, C>;
    type Supply = Supply<P, C>;
    /// What is pulled starts at once, and is that.
    type Work = Item<P::Future, C>;
    type Wait = Hand<P>;
    type Origin = Origin;

    const IN_ROUNDS: bool = C::IN_ROUNDS;

    /// What is left of the items is dropped by whoever waits for the end.
    fn stops_anywhere(&self) -> bool {
        self.ready.is_empty()
    }

    fn start(&mut self, _: &mut Tickets, _: &mut After) {}

    fn supply(&mut self, tickets: &mut Tickets, ended: bool, most: usize) -> Option<Supply<P, C>> {
        if let Some((index, job)) = self.ready.pop_front() {
            return Some(Supply::Ready(index, job));
        }
        let room = self.room(tickets);
        if ended || room == 0 {
            return None;
        }
        let pull = self.pull.take()?;
        // Not all of them: others may want to run some, too.
        let most = most.min(tickets.limit().div_ceil(2)).min(room);
        Some(Supply::Pull(Hand {
            pull,
            tickets: tickets.take_some(most),
            next: self.ledger.next(),
            waited: false,
        }))
    }

    fn has_supply(&self, tickets: &Tickets) -> bool {
        !self.ready.is_empty() || self.room(tickets) > 0
    }

    fn take_back(&mut self, jobs: VecDeque<(Index, Item<P::Future, C>)>) {
        for job in jobs.into_iter().rev() {
            self.ready.push_front(job);
        }
    }

    fn is_busy(&self) -> bool {
        self.ledger.is_pulling()
    }

    fn has_unstarted(&self) -> bool {
        self.ledger.is_pulling()
    }

    fn failed(&mut self) {
        self.ledger.fail();
    }

    fn accept(
        &mut self,
        index: Index,
        kept: Option<C::Kept>,
        after: &mut After,
    ) -> Option<Arc<dyn Observer>> {
        if let Some(number) = index.number {
            if let Some(unneeded) = self.ledger.accept(number, kept) {
                after.garbage.push(Box::new(unneeded));
            }
            self.judge(after);
            self.note(1, after);
        }
        None
    }

    fn has_outcome(&self) -> bool {
        self.ledger.end.is_ready()
    }

    fn cut(&mut self, _: &mut Tickets, after: &mut After) -> Vec<(Index, Item<P::Future, C>)> {
        self.ledger.cut();
        after.wake.extend(self.puller.take());
        Vec::new()
    }

    fn reclaim(&mut self, _: &mut Vec<AbortHandle>) -> Vec<(Index, Item<P::Future, C>)> {
        self.ready.drain(..).collect()
    }

    fn describe(origin: &Origin, index: &Index) -> (Label, Duration) {
        let elapsed = index.started.map_or(Duration::ZERO, |at| at.elapsed());
        let label = match index.number {
            Some(number) => origin.label_of(number),
            None => origin.label("on_progress"),
        };
        (label, elapsed)
    }

    fn open(
        core: &Arc<Core<Self>>,
        supply: Supply<P, C>,
        more: &mut VecDeque<(Index, Item<P::Future, C>)>,
        cx: &mut task::Context<'_>,
    ) -> Opened<Self> {
        let hand = match supply {
            Supply::Ready(index, job) => return Opened::Job(index, job),
            Supply::Pull(hand) => hand,
        };
        let mut pull = Some(hand.pull);
        let (tickets, next) = (hand.tickets, hand.next);
        if hand.waited && !core.read(|state| state.source.ledger.is_pulling()) {
            return close(core, pull, tickets, 0, None);
        }
        let mut frame = core.origin.outer.get().map(Frame::pull);
        let mut left = (0, None);
        while more.len() < tickets {
            let pulled = current::polling(&mut frame, || poll_pull(&mut pull, core.ctx(), cx));
            match pulled {
                Poll::Ready(Ok(Some((future, then_left)))) => {
                    let index = Index {
                        number: Some(next + more.len()),
                        started: C::TIMED.then(Instant::now),
                    };
                    more.push_back((index, Item::new(future)));
                    left = then_left;
                }
                Poll::Pending if more.is_empty() => return wait(core, pull, tickets, next, cx),
                // `None`: it is gone.
                Poll::Pending | Poll::Ready(Ok(None)) => break,
                Poll::Ready(Err(payload)) => {
                    let unstarted = discard(more);
                    return close(core, pull, tickets, unstarted, Some(payload));
                }
            }
        }
        let items = more.len();
        if !start(core, &mut pull, tickets, items, left) {
            let unstarted = discard(more);
            return close(core, pull, tickets, unstarted, None);
        }
        match more.pop_front() {
            Some((index, job)) => Opened::Job(index, job),
            None => Opened::Nothing,
        }
    }

    fn frame(core: &Arc<Core<Self>>) -> Option<Frame> {
        core.origin.outer.get().map(Frame::item)
    }

    /// Dropped in mid-wait: aborted, or its runtime shut down.
    fn abandon(core: &Arc<Core<Self>>, hand: Hand<P>) {
        close(core, Some(hand.pull), hand.tickets, 0, None);
    }

    fn report(core: &Arc<Core<Self>>) {
        // Ends: each round is due because something has started or ended, and each of these is due once.
        while let Some((mut call, progress)) = core.with(|state, _| state.source.take_report()) {
            if let Err(payload) = panic::catch(|| call(progress)) {
                panic::discard(call);
                let whole = Index {
                    number: None,
                    started: None,
                };
                core.record(&whole, Outcome::Panicked(payload));
                return;
            }
            let unneeded = core.with(|state, _| match &mut state.source.reporter {
                Some(reporter) => reporter.call.replace(call),
                None => Some(call),
            });
            panic::discard(unneeded);
        }
    }
}

/// Drops items that were pulled and are not started any more. Says how many.
fn discard<J>(items: &mut VecDeque<J>) -> usize {
    let unstarted = items.len();
    items.drain(..).for_each(panic::discard);
    unstarted
}

/// Counts items in, puts back what pulls them, if there is more, and has the next place called; unless there is no reason any
/// more to start anything.
fn start<P, C, T, E>(
    core: &Arc<Core<Feed<P, C, T, E>>>,
    pull: &mut Option<Pin<Box<P>>>,
    tickets: usize,
    items: usize,
    left: SizeHint,
) -> bool
where
    Feed<P, C, T, E>: Source,
    P: Next,
    C: End<T, E>,
{
    core.with(|state, after| {
        let feed = &mut state.source;
        if !feed.ledger.is_pulling() {
            return false;
        }
        feed.ledger.start(items, left);
        feed.pull = pull.take();
        let exhausted = feed.pull.is_none();
        if exhausted {
            feed.ledger.exhaust();
        }
        after.replaced.extend(feed.puller.take());
        feed.judge(after);
        feed.note(items, after);
        state.count_in(items);
        state.tickets.return_unused(tickets - items);
        if exhausted {
            state.dismiss_parked(after);
            state.wake_waiter(after);
        }
        state.call_scout_from_place(after);
        true
    })
}

/// There is no item yet. The place waits for it, with one ticket, unless there is no reason any more.
fn wait<P, C, T, E>(
    core: &Arc<Core<Feed<P, C, T, E>>>,
    mut pull: Option<Pin<Box<P>>>,
    tickets: usize,
    next: usize,
    cx: &mut task::Context<'_>,
) -> Opened<Feed<P, C, T, E>>
where
    Feed<P, C, T, E>: Source<Tag = Index, Wait = Hand<P>>,
    P: Next,
    C: End<T, E>,
{
    let waker = cx.waker().clone();
    let waits = core.with(|state, after| {
        let feed = &mut state.source;
        if !feed.ledger.is_pulling() {
            after.replaced.push(waker);
            return false;
        }
        after.replaced.extend(feed.puller.replace(waker));
        state.tickets.return_unused(tickets - 1);
        true
    });
    match pull.take() {
        Some(pull) if waits => Opened::Wait(Hand {
            pull,
            tickets: 1,
            next,
            waited: true,
        }),
        pull => close(core, pull, tickets, 0, None),
    }
}

/// Nothing more is pulled: a panic came, or the end of the context. Gives the tickets back. So many were pulled and
/// are not started.
fn close<P, C, T, E>(
    core: &Arc<Core<Feed<P, C, T, E>>>,
    pull: Option<Pin<Box<P>>>,
    tickets: usize,
    unstarted: usize,
    panicked: Option<Payload>,
) -> Opened<Feed<P, C, T, E>>
where
    Feed<P, C, T, E>: Source<Tag = Index>,
    P: Next,
    C: End<T, E>,
{
    let left = match &pull {
        Some(pull) => panic::catch(|| pull.size_hint()).unwrap_or((0, None)),
        None => (0, Some(0)),
    };
    let dropped = panic::catch(|| drop(pull)).err();
    for payload in [panicked, dropped].into_iter().flatten() {
        let index = core.read(|state| Index::of(state.source.ledger.next()));
        core.record(&index, Outcome::Panicked(payload));
    }
    core.with(|state, after| {
        let feed = &mut state.source;
        feed.ledger.leave(unstarted, left);
        after.replaced.extend(feed.puller.take());
        state.tickets.return_unused(tickets);
        state.dismiss_parked(after);
        state.wake_waiter(after);
    });
    Opened::Nothing
}
