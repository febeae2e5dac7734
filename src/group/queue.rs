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

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::admission::{LenderId, Tickets, Waiter};
use super::blocking::{self, BlockingJob};
use super::core::Core;
use super::current;
use super::handle::{Admission, Lobby, Number};
use super::job::{self, Job};
use super::local::{LocalId, Seat};
use super::source::{Lending, Observer, Source, Tag};
use super::state::After;
use crate::error::{ContextError, Label, TryGoError};
use crate::panic;
use crate::sync::Arc;

pub(crate) struct Queue<E> {
    ready: VecDeque<Entry<E>>,
    waiting: VecDeque<Waiting<E>>,
    /// The number of the first that waits, or of the next to come.
    head: Number,
    /// Whether the context has ended, and `head` stopped.
    cut: bool,
    /// The local tasks, which are in no `JoinSet`.
    locals: BTreeMap<LocalId, AbortHandle>,
}

/// What `go` was given.
pub(crate) struct Entry<E> {
    pub(crate) task: Task,
    pub(crate) work: Work<E>,
}

pub(crate) enum Work<E> {
    Future(Job<E>),
    Blocking(BlockingJob<E>),
}

/// What takes a turn in the queue: a job that a place will run, or a local task that runs by itself once it may.
pub(crate) enum Turnee<E> {
    Entry(Entry<E>),
    Seat(Arc<Seat>),
}

struct Waiting<E> {
    turnee: Turnee<E>,
    /// Who awaits the admission.
    waiter: Option<Waiter>,
}

/// A task, as it is known while it waits and runs.
pub(crate) struct Task {
    pub(crate) label: Label,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) local: Option<LocalId>,
    started: Option<Instant>,
}

impl Task {
    pub(crate) fn new(label: Label, observer: Option<Arc<dyn Observer>>) -> Task {
        Task {
            label,
            observer,
            local: None,
            started: None,
        }
    }
}

impl Tag for Task {
    fn started(&mut self) {
        self.started = Some(Instant::now());
    }

    fn describe(&self) -> (Label, Duration) {
        let elapsed = self.started.map_or(Duration::ZERO, |at| at.elapsed());
        (self.label.clone(), elapsed)
    }

    fn hand_over_failure(&self) -> bool {
        self.observer
            .as_ref()
            .is_some_and(|observer| observer.takes_failure())
    }
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Queue<E> {
        Queue {
            ready: VecDeque::new(),
            waiting: VecDeque::new(),
            head: 0,
            cut: false,
            locals: BTreeMap::new(),
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

    /// Starts what has been given a ticket. Says whether it took the ticket: a local task may have gone meanwhile.
    fn begin(&mut self, turnee: Turnee<E>, after: &mut After) -> bool {
        match turnee {
            Turnee::Entry(entry) => {
                self.ready.push_back(entry);
                true
            }
            Turnee::Seat(seat) => seat.admit(after),
        }
    }
}

impl<E> Source for Queue<E>
where
    E: From<ContextError> + Display + Send + 'static,
{
    type Error = E;
    type Value = ();
    type Tag = Task;
    type Job = Job<E>;
    type Supply = Entry<E>;
    type Work = Work<E>;

    fn start(&mut self, tickets: &mut Tickets, after: &mut After) {
        while !self.waiting.is_empty() && tickets.is_free() {
            let Some(Waiting { turnee, waiter }) = self.waiting.pop_front() else {
                return;
            };
            self.head += 1;
            if self.begin(turnee, after) {
                tickets.take();
            }
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

    fn accept(&mut self, task: Task, _: Option<()>) -> Option<Arc<dyn Observer>> {
        if let Some(local) = task.local {
            self.locals.remove(&local);
        }
        task.observer
    }

    fn cut(&mut self, tickets: &mut Tickets, after: &mut After) -> Vec<(Task, Work<E>)> {
        self.cut = true;
        let mut unstarted = Vec::with_capacity(self.waiting.len());
        for Waiting { turnee, waiter } in self.waiting.drain(..) {
            if let Some(waiter) = waiter {
                tickets.decide(waiter, &mut after.wake);
            }
            match turnee {
                Turnee::Entry(Entry { task, work }) => unstarted.push((task, work)),
                Turnee::Seat(seat) => seat.refuse(after),
            }
        }
        unstarted
    }

    fn reclaim(&mut self, aborted: &mut Vec<AbortHandle>) -> Vec<(Task, Work<E>)> {
        aborted.extend(self.locals.values().cloned());
        self.ready
            .drain(..)
            .map(|Entry { task, work }| (task, work))
            .collect()
    }

    fn open(core: &Arc<Core<Self>>, Entry { task, work }: Entry<E>) -> Option<(Task, Job<E>)> {
        match work {
            Work::Future(job) => Some((task, job)),
            Work::Blocking(job) => {
                blocking::run(core, task, job);
                None
            }
        }
    }
}

/// What `submit` decided under the lock.
enum Decision<E> {
    Started,
    Queued(Number),
    Refused(Turnee<E>),
}

impl<E> Core<Queue<E>>
where
    E: From<ContextError> + Display + Send + 'static,
{
    /// Starts a job, or queues it.
    pub(crate) fn submit(self: &Arc<Self>, task: Task, work: Work<E>) -> Admission {
        self.take_in(Turnee::Entry(Entry { task, work }), None)
    }

    /// Starts a local task, or queues it.
    pub(crate) fn submit_local(
        self: &Arc<Self>,
        seat: Arc<Seat>,
        id: LocalId,
        abort: AbortHandle,
    ) -> Admission {
        if !seat.take() {
            return Admission::decided(false);
        }
        self.take_in(Turnee::Seat(seat), Some((id, abort)))
    }

    fn take_in(
        self: &Arc<Self>,
        turnee: Turnee<E>,
        local: Option<(LocalId, AbortHandle)>,
    ) -> Admission {
        let ended = self.ctx().is_done();
        let decision = self.with(|state, after| {
            if ended || !state.is_open() || state.source.cut {
                return Decision::Refused(turnee);
            }
            state.count_in();
            state.source.locals.extend(local);
            if state.source.waiting.is_empty() && state.tickets.is_free() {
                if state.source.begin(turnee, after) {
                    state.tickets.take();
                }
                state.call_scout(after);
                state.watch_grace(after);
                return Decision::Started;
            }
            let number = state.source.head + state.source.waiting.len() as Number;
            let waiter = None;
            state.source.waiting.push_back(Waiting { turnee, waiter });
            state.watch(after);
            Decision::Queued(number)
        });
        match decision {
            Decision::Started => Admission::decided(true),
            Decision::Queued(number) => Admission::queued(self.clone(), number),
            Decision::Refused(turnee) => {
                self.refuse(turnee);
                Admission::decided(false)
            }
        }
    }

    /// Starts the future now, or hands it back.
    pub(crate) fn try_submit<F>(
        self: &Arc<Self>,
        label: Label,
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
        let entry = Entry {
            task: Task::new(label, None),
            work: Work::Future(Box::pin(job::of_future(future, job::result))),
        };
        let aborted = self.with(|state, after| {
            if !state.is_open() {
                return Some(entry);
            }
            state.source.ready.push_back(entry);
            state.call_scout(after);
            None
        });
        if let Some(entry) = aborted {
            self.dispose(entry.task, entry.work, true);
        }
        Ok(())
    }

    /// The context has ended, so this never starts; it counts as ended, unless a wait is already over.
    fn refuse(self: &Arc<Self>, turnee: Turnee<E>) {
        let counts = self.with(|state, after| {
            let counts = !state.is_closed();
            if counts {
                state.count_in();
            }
            if let Turnee::Seat(seat) = &turnee {
                match counts {
                    true => seat.refuse(after),
                    false => seat.dismiss(after),
                }
            }
            counts
        });
        match turnee {
            Turnee::Entry(Entry { task, work }) if counts => self.dispose(task, work, false),
            Turnee::Entry(Entry { task, work }) => {
                panic::discard(work);
                if let Some(observer) = task.observer {
                    observer.ended(&**self);
                }
            }
            Turnee::Seat(_) => {}
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
        let here = current::lender(Lending::id(&*self));
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
                (Some(_), Some(_)) => {
                    tickets.grant(&mut after.wake);
                    Poll::Pending
                }
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
        self.try_read(|state| state.source.decision(number))
            .flatten()
    }
}
