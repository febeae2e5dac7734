//! A fan-out's source: an iterator or a stream of items, and the function that makes a future of each.
//!
//! Both are user code, so neither runs under the lock. The place that is to start the next item takes the two *out* of the
//! state, together with a ticket, pulls one item, and puts them back: at most one place pulls at a time, and a slow iterator
//! holds up that place alone. A stream that has no item yet is waited for by the place that has it in hand. Places that
//! come meanwhile stay parked, and are called when there is something to pull.
//!
//! A consumer that is slow holds tickets too: what runs and what waits for it are together at most `limit`.

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

pub(crate) struct Feed<P, C, T, E> {
    /// `None` while a place pulls, and once nothing more is to be pulled.
    pull: Option<Pin<Box<P>>>,
    /// The place that waits for the next item.
    puller: Option<Waker>,
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

/// What a place takes out to pull the next item.
pub(crate) struct Supply<P> {
    pull: Pin<Box<P>>,
    waited: bool,
}

pub(crate) struct Wait<P>(Pin<Box<P>>);

impl<P> From<Wait<P>> for Supply<P> {
    fn from(Wait(pull): Wait<P>) -> Supply<P> {
        Supply { pull, waited: true }
    }
}

/// Which item it is; `None` is the `on_progress` of them all.
pub(crate) struct Index {
    number: Option<usize>,
    started: Option<Instant>,
}

impl Index {
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

    fn note(&mut self, after: &mut After) {
        if let Some(reporter) = &mut self.reporter {
            reporter.due += 1;
            after.report = true;
        }
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
    type Supply = Supply<P>;
    /// What is pulled starts at once.
    type Work = ();
    type Wait = Wait<P>;
    type Origin = Origin;

    /// What is left of the items is dropped by whoever waits for the end.
    const STOPS_ANYWHERE: bool = true;

    fn start(&mut self, _: &mut Tickets, _: &mut After) {}

    fn supply(&mut self, tickets: &mut Tickets, ended: bool) -> Option<Supply<P>> {
        if ended || !self.has_supply(tickets) {
            return None;
        }
        let pull = self.pull.take()?;
        tickets.take();
        let waited = false;
        Some(Supply { pull, waited })
    }

    fn has_supply(&self, tickets: &Tickets) -> bool {
        let held = self.ledger.end.waiting();
        self.pull.is_some()
            && self.ledger.is_pulling()
            && tickets.is_free()
            && tickets.running().saturating_add(held) < tickets.limit()
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
            self.note(after);
        }
        None
    }

    fn has_outcome(&self) -> bool {
        self.ledger.end.is_ready()
    }

    fn cut(&mut self, _: &mut Tickets, after: &mut After) -> Vec<(Index, ())> {
        self.ledger.cut();
        after.wake.extend(self.puller.take());
        Vec::new()
    }

    fn reclaim(&mut self, _: &mut Vec<AbortHandle>) -> Vec<(Index, ())> {
        Vec::new()
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
        Supply { pull, waited }: Supply<P>,
        cx: &mut task::Context<'_>,
    ) -> Opened<Self> {
        if waited && !core.read(|state| state.source.ledger.is_pulling()) {
            return close(core, Some(pull), None);
        }
        let mut pull = Some(pull);
        let mut frame = core.origin.outer.get().map(Frame::pull);
        let pulled = current::polling(&mut frame, || poll_pull(&mut pull, core.ctx(), cx));
        match pulled {
            Poll::Ready(Ok(Some((future, left)))) => start(core, pull, Item::new(future), left),
            Poll::Ready(Ok(None)) => {
                core.with(|state, after| {
                    state.source.ledger.exhaust();
                    state.source.judge(after);
                });
                close(core, pull, None)
            }
            Poll::Pending => {
                let waker = cx.waker().clone();
                let waits = core.with(|state, after| {
                    let feed = &mut state.source;
                    if !feed.ledger.is_pulling() {
                        after.replaced.push(waker);
                        return false;
                    }
                    after.replaced.extend(feed.puller.replace(waker));
                    true
                });
                match pull {
                    Some(pull) if waits => Opened::Wait(Wait(pull)),
                    pull => close(core, pull, None),
                }
            }
            Poll::Ready(Err(payload)) => close(core, pull, Some(payload)),
        }
    }

    fn frame(core: &Arc<Core<Self>>) -> Frame {
        Frame::item(core.origin.outer.get().cloned())
    }

    /// Dropped in mid-wait: aborted, or its runtime shut down.
    fn abandon(core: &Arc<Core<Self>>, Wait(pull): Wait<P>) {
        close(core, Some(pull), None);
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

/// Counts an item in, and has the next place called; unless there is no reason any more to start it.
fn start<P, C, T, E>(
    core: &Arc<Core<Feed<P, C, T, E>>>,
    mut pull: Option<Pin<Box<P>>>,
    job: Item<P::Future, C>,
    left: SizeHint,
) -> Opened<Feed<P, C, T, E>>
where
    Feed<P, C, T, E>: Source<Tag = Index, Job = Item<P::Future, C>>,
    P: Next,
    C: End<T, E>,
{
    let number = core.with(|state, after| {
        let feed = &mut state.source;
        if !feed.ledger.is_pulling() {
            return None;
        }
        let number = feed.ledger.start(left);
        feed.pull = pull.take();
        after.replaced.extend(feed.puller.take());
        feed.judge(after);
        feed.note(after);
        state.count_in();
        state.call_scout_from_place(after);
        Some(number)
    });
    let Some(number) = number else {
        panic::discard(job);
        return close(core, pull, None);
    };
    let index = Index {
        number: Some(number),
        started: C::TIMED.then(Instant::now),
    };
    Opened::Job(index, job)
}

/// Nothing more is pulled: the last item came, a panic did, or the end of the context. Gives the ticket back.
fn close<P, C, T, E>(
    core: &Arc<Core<Feed<P, C, T, E>>>,
    pull: Option<Pin<Box<P>>>,
    panicked: Option<Payload>,
) -> Opened<Feed<P, C, T, E>>
where
    Feed<P, C, T, E>: Source<Tag = Index>,
    P: Next,
    C: End<T, E>,
{
    let left = pull
        .as_ref()
        .and_then(|pull| panic::catch(|| pull.size_hint()).ok());
    let dropped = panic::catch(|| drop(pull)).err();
    for payload in [panicked, dropped].into_iter().flatten() {
        let index = core.read(|state| Index::of(state.source.ledger.next()));
        core.record(&index, Outcome::Panicked(payload));
    }
    core.with(|state, after| {
        let feed = &mut state.source;
        if let Some(left) = left {
            feed.ledger.leave(left);
        }
        feed.ledger.cut();
        after.replaced.extend(feed.puller.take());
        state.tickets.put_back(None, &mut after.replaced);
        state.dismiss_parked(after);
        state.wake_waiter(after);
    });
    Opened::Nothing
}
