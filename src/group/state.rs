//! The core that a group and a fan-out stand on: one state, its places, and what happens when something ends.
//!
//! ```text
//!     go, an iterator            Core                         tokio
//!          │              ┌──────────────────┐
//!          ▼              │ state (one lock) │        ┌─ JoinSet ────────┐
//!       Source ─ supply ─►│  tickets         │─ turn ─►  place: job, job… │
//!     (queue or feed)     │  source          │◄───────│  place: job, job… │
//!                         │  failures        │        └──────────────────┘
//!                         └──────────────────┘
//! ```
//!
//! A *place* is a task of the `JoinSet` that runs one job after another: it comes to the counter, hands in the ticket of
//! what has ended, and takes what is next. A bounded group so pays for a push and a pop, not for a spawn and a semaphore.
//! When there is nothing to take, the place leaves.
//!
//! # Invariants
//!
//! These are true at any time; those of the bookkeeping are in [`admission`](super::admission).
//!
//! 1. `open` counts what was accepted and has not ended. It goes down only after the job's destructor has run, its outcome
//!    is recorded, and its ticket is free: so whoever sees zero sees everything.
//! 2. `phase` only moves from `Open` to `Closed` (a wait saw the end) or `Aborted`. Nothing is accepted unless `Open`.
//! 3. No user code runs, and none is dropped, under a lock: what follows from a critical section (wakes, spawns, drains)
//!    is collected in [`After`] and done when the lock is released.
//! 4. Locks: `places` before `state`, because spawning on a dead runtime drops the place inside `spawn_on`. `state` is
//!    never held while another is taken.
//! 5. A place that is spawned holds no user code until it is polled. If it is dropped unpolled, the runtime is gone (or
//!    the core aborted): nothing will ever run, and what is left is disposed of, by whoever is not under a lock.
//! 6. If something could start, a scout is on its way or a place is in its turn (admission, 6).
//! 7. A failure sets the error, then ends the context, then gives its ticket back, then counts as ended. The cause is
//!    that of the first failure, whichever task comes to say so.
//! 8. An end of the context that is a cancel is told to the core while it has a queue (`watched`); an end that is a
//!    deadline is seen by one watcher task, which exists only while there is a queue and a deadline; a place that comes to
//!    the counter asks in any case.

use std::any::Any;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{self, Poll, Wake, Waker};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::admission::{LenderId, Tickets};
use super::failures::Failures;
use super::place::Place;
use crate::context::{CancelHandle, Cause, Context, DoneOwned, Note};
use crate::error::ContextError;
use crate::panic::{self, Payload};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Arc, Mutex, OnceLock, Weak};

static RUNTIME_GONE: Note = Note("the runtime of the tasks has shut down");
static TASK_ABORTED: Note = Note("the task was aborted");

/// Where a core gets its jobs from, and where their values go.
///
/// Methods that take `&mut self` run under the lock and call no user code.
pub(crate) trait Source: Send + Sized + 'static {
    type Error: From<ContextError> + Display + Send + 'static;
    /// What a job that succeeds gives.
    type Value: Send + 'static;
    /// What identifies a job while it runs.
    type Tag: Tag;
    type Job: Future<Output = Result<Self::Value, Self::Error>> + Send + 'static;
    /// What the counter hands to a place: a job, or what makes one outside the lock.
    type Supply: Send;

    /// Starts what may start: gives tickets to what is queued.
    fn start(&mut self, tickets: &mut Tickets, after: &mut After);
    /// Hands out what a place is to run next, with its ticket; nothing that would start now if the context `ended`.
    fn supply(&mut self, tickets: &mut Tickets, ended: bool) -> Option<Self::Supply>;
    /// Whether `supply` would hand something out now.
    fn has_supply(&self, tickets: &Tickets) -> bool;
    /// Whether a place that gets nothing should stay, because another place is about to bring more.
    fn is_busy(&self) -> bool;
    /// Whether something is left that has not started.
    fn has_unstarted(&self) -> bool;
    /// Keeps what a job gave.
    fn accept(&mut self, tag: Self::Tag, value: Self::Value);
    /// Removes what has not started and, the context having ended, never will.
    fn cut(
        &mut self,
        tickets: &mut Tickets,
        after: &mut After,
    ) -> Vec<Unstarted<Self::Tag, Self::Job>>;
    /// Removes what has started and has not been taken by a place.
    fn reclaim(&mut self) -> Vec<Unstarted<Self::Tag, Self::Job>>;

    /// Makes a job of what was supplied; outside the lock.
    fn open(core: &Arc<Core<Self>>, supply: Self::Supply) -> Option<(Self::Tag, Self::Job)>;
}

/// What identifies a job; displayed, it names the task in a message.
pub(crate) trait Tag: Display + Send {}

/// A job that was accepted and never polled, to be dropped outside the lock.
pub(crate) struct Unstarted<T, J> {
    pub(crate) tag: T,
    pub(crate) job: J,
}

/// How a job ended.
pub(crate) enum Outcome<S: Source> {
    Returned(Result<S::Value, S::Error>),
    Panicked(Payload),
    /// Dropped before its end, or before its start.
    Aborted,
}

/// What a failure does to the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnFailure {
    GoOn,
    EndContext,
    Abort,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closed,
    Aborted,
}

pub(crate) struct Core<S: Source> {
    ctx: Context,
    cancel: CancelHandle,
    on_failure: OnFailure,
    /// The runtime that the places run on: that of the first `go`.
    runtime: OnceLock<Handle>,
    places: Mutex<JoinSet<()>>,
    state: Mutex<State<S>>,
    /// Threads inside `spawn_place`. `SeqCst` with `scout_lost`: of a thread that leaves there and a scout that is dropped, at
    /// least one sees the other.
    spawning: AtomicUsize,
    scout_lost: AtomicBool,
}

pub(crate) struct State<S: Source> {
    pub(crate) tickets: Tickets,
    pub(crate) source: S,
    pub(crate) failures: Failures<S::Error>,
    phase: Phase,
    open: usize,
    /// The one who waits for the end.
    waiter: Option<Waker>,
    /// Places that stay for what another place is about to bring.
    parked: Vec<(ParkId, Waker)>,
    next_park: ParkId,
    /// Whether the context tells the core of its cancel.
    watched: bool,
    /// Whether the context has a deadline, of which nobody tells.
    timed: bool,
    watcher: Watcher,
}

/// Names one stay of a place at the counter.
pub(crate) type ParkId = u64;

enum Watcher {
    None,
    Starting,
    Waiting(Waker),
}

/// What follows from a critical section, to be done when the lock is released.
#[derive(Default)]
pub(crate) struct After {
    pub(crate) wake: Vec<Waker>,
    /// Wakers that were replaced: dropping one is a call into user code too.
    pub(crate) replaced: Vec<Waker>,
    /// Other user code that is not needed any more.
    pub(crate) garbage: Vec<Box<dyn Any + Send>>,
    spawn: bool,
    cut: bool,
    watch: bool,
}

impl After {
    /// Has what is queued removed: the context has ended, by a deadline of which nobody tells.
    pub(crate) fn cut_if(&mut self, ended: bool) {
        self.cut |= ended;
    }
}

/// What a place that came to the counter does next.
pub(crate) enum Turn<S: Source> {
    Run(S::Supply),
    Park,
    Leave,
}

/// What a place hands in: the ticket of a job that has ended, and what it gave.
pub(crate) struct HandIn<S: Source> {
    pub(crate) lender: Option<LenderId>,
    pub(crate) value: Option<(S::Tag, S::Value)>,
}

impl<S: Source> State<S> {
    /// Whether every task has ended and none will come.
    fn is_over(&self) -> bool {
        self.open == 0 && !self.source.has_unstarted()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether a wait has seen the end.
    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Counts a job in.
    pub(crate) fn count_in(&mut self) {
        self.open += 1;
    }

    pub(crate) fn wake_waiter(&mut self, after: &mut After) {
        if self.is_over() {
            after.wake.extend(self.waiter.take());
        }
    }

    /// Makes sure that somebody will come and look, if there is anything to be had.
    pub(crate) fn call_scout(&mut self, after: &mut After) {
        let wanted = self.phase == Phase::Open && self.source.has_supply(&self.tickets);
        if wanted && self.tickets.send_scout() {
            match self.parked.pop() {
                Some((_, waker)) => after.wake.push(waker),
                None => after.spawn = true,
            }
        }
    }

    /// Nothing more will be had: whoever stays for it may go.
    pub(crate) fn dismiss_parked(&mut self, after: &mut After) {
        after
            .wake
            .extend(self.parked.drain(..).map(|(_, waker)| waker));
    }

    /// Something has been queued: the end of the context must now be seen by somebody.
    pub(crate) fn watch(&mut self, after: &mut After) {
        after.watch = !self.watched || (self.timed && matches!(self.watcher, Watcher::None));
    }

    /// The queue may have emptied: then its watcher may go.
    fn relieve_watcher(&mut self, after: &mut After) {
        if !self.source.has_unstarted() && matches!(self.watcher, Watcher::Waiting(_)) {
            if let Watcher::Waiting(waker) = std::mem::replace(&mut self.watcher, Watcher::Starting)
            {
                after.wake.push(waker);
            }
        }
    }

    /// Tickets have become free: claims first, then what may start.
    pub(crate) fn hand_out(&mut self, ended: bool, after: &mut After) {
        self.tickets.grant(&mut after.wake);
        if !ended {
            self.source.start(&mut self.tickets, after);
        }
        self.relieve_watcher(after);
        self.call_scout(after);
    }

    /// Takes the ticket of a job that has ended, and keeps what it gave.
    fn hand_in(&mut self, hand_in: HandIn<S>, after: &mut After) {
        self.tickets.put_back(hand_in.lender);
        if let Some((tag, value)) = hand_in.value {
            self.source.accept(tag, value);
        }
        self.open -= 1;
        self.wake_waiter(after);
    }
}

impl<S: Source> Core<S> {
    pub(crate) fn new(
        source: S,
        ctx: Context,
        cancel: CancelHandle,
        limit: usize,
        on_failure: OnFailure,
    ) -> Arc<Core<S>> {
        let timed = ctx.deadline().is_some();
        Arc::new(Core {
            ctx,
            cancel,
            on_failure,
            runtime: OnceLock::new(),
            places: Mutex::new(JoinSet::new()),
            state: Mutex::new(State {
                tickets: Tickets::new(limit),
                source,
                failures: Failures::new(),
                phase: Phase::Open,
                open: 0,
                waiter: None,
                parked: Vec::new(),
                next_park: 0,
                watched: false,
                timed,
                watcher: Watcher::None,
            }),
            spawning: AtomicUsize::new(0),
            scout_lost: AtomicBool::new(false),
        })
    }

    pub(crate) fn ctx(&self) -> &Context {
        &self.ctx
    }

    /// The address, to tell cores apart.
    pub(crate) fn id(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).cast::<()>() as usize
    }

    /// A critical section, and then what follows from it.
    pub(crate) fn with<T>(
        self: &Arc<Self>,
        section: impl FnOnce(&mut State<S>, &mut After) -> T,
    ) -> T {
        let mut after = After::default();
        let output = section(&mut self.state.lock(), &mut after);
        self.follow(after);
        output
    }

    /// Looks at the state without consequences.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State<S>) -> T) -> T {
        look(&self.state.lock())
    }

    /// For `Debug`, which never blocks.
    pub(crate) fn try_read<T>(&self, look: impl FnOnce(&State<S>) -> T) -> Option<T> {
        self.state.try_lock().map(|state| look(&state))
    }

    fn follow(self: &Arc<Self>, after: After) {
        for waker in after.wake {
            // A waker that panics must not keep the next from being woken.
            if let Err(payload) = panic::catch(|| waker.wake()) {
                panic::discard(payload);
            }
        }
        drop(after.replaced);
        after.garbage.into_iter().for_each(panic::discard);
        if after.spawn {
            self.spawn_place();
        }
        if after.watch {
            self.watch_end();
        }
        if after.cut {
            self.cut();
        }
    }
}

/// Places.
impl<S: Source> Core<S> {
    /// Binds the core to the runtime that the caller is in, the first time.
    ///
    /// # Panics
    ///
    /// Outside a runtime, the first time.
    #[track_caller]
    pub(crate) fn bind(&self, what: &str) {
        if self.runtime.get().is_some() {
            return;
        }
        match Handle::try_current() {
            Ok(handle) => {
                let _ = self.runtime.set(handle);
            }
            Err(_) => panic!(
                "{what} called outside a tokio runtime: call it from a task, inside `Runtime::block_on`, or with \
                 `Handle::enter` held"
            ),
        }
    }

    fn spawn_place(self: &Arc<Self>) {
        let Some(runtime) = self.runtime.get() else {
            return;
        };
        self.spawning.fetch_add(1, Ordering::SeqCst);
        self.spawn_in(runtime, |core| Place::new(core.clone()));
        self.spawning.fetch_sub(1, Ordering::SeqCst);
        if self.scout_lost.load(Ordering::SeqCst) {
            self.abort(&RUNTIME_GONE);
        }
    }

    /// Spawns into the `JoinSet`, unless the core has closed: once a wait or an abort has locked `places` after setting the
    /// phase, nothing is added any more.
    fn spawn_in<F>(self: &Arc<Self>, runtime: &Handle, future: impl FnOnce(&Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut places = self.places.lock();
        // Places that have left are reaped as new ones come, so that a long life leaves nothing behind.
        while places.try_join_next().is_some() {}
        if self.read(State::is_open) {
            places.spawn_on(future(self), runtime);
        }
    }

    /// A scout was dropped before it came to the counter (invariant 5). If that happened inside `spawn_place`, the lock on
    /// `places` is held further up the stack, and `spawn_place` does the rest.
    pub(crate) fn lose_scout(self: &Arc<Self>) {
        if !self.read(State::is_open) {
            return;
        }
        self.scout_lost.store(true, Ordering::SeqCst);
        if self.spawning.load(Ordering::SeqCst) == 0 {
            self.abort(&RUNTIME_GONE);
        }
    }

    /// Starts what may start and has somebody look: for a source that has something from the start, and for what a place that
    /// left in mid-job has made room for.
    pub(crate) fn hand_out(self: &Arc<Self>) {
        let ended = self.ctx.is_done();
        self.with(|state, after| state.hand_out(ended, after));
    }

    /// A place comes to the counter, as a scout or with the ticket of what it has run.
    pub(crate) fn turn(self: &Arc<Self>, scouting: bool, hand_in: Option<HandIn<S>>) -> Turn<S> {
        let ended = self.ctx.is_done();
        self.with(|state, after| {
            if scouting {
                state.tickets.scout_arrived();
            }
            if let Some(hand_in) = hand_in {
                state.hand_in(hand_in, after);
            }
            if !state.is_open() {
                return Turn::Leave;
            }
            state.tickets.grant(&mut after.wake);
            if !ended {
                state.source.start(&mut state.tickets, after);
            }
            let supply = state.source.supply(&mut state.tickets, ended);
            state.relieve_watcher(after);
            state.call_scout(after);
            after.cut_if(ended && state.source.has_unstarted());
            match supply {
                Some(supply) => Turn::Run(supply),
                None if !ended && state.source.is_busy() => Turn::Park,
                None => Turn::Leave,
            }
        })
    }

    /// Lets a place stay until it is called, unless there is something to be had by now.
    pub(crate) fn park(self: &Arc<Self>, waker: &Waker) -> Option<ParkId> {
        let waker = waker.clone();
        self.with(|state, _| {
            if !state.is_open() || !state.source.is_busy() {
                return None;
            }
            state.next_park += 1;
            state.parked.push((state.next_park, waker));
            Some(state.next_park)
        })
    }

    /// Ends a stay. Says whether the place was called, and so is a scout.
    pub(crate) fn unpark(self: &Arc<Self>, id: ParkId) -> bool {
        self.with(
            |state, after| match state.parked.iter().position(|(parked, _)| *parked == id) {
                Some(at) => {
                    after.replaced.push(state.parked.swap_remove(at).1);
                    false
                }
                None => true,
            },
        )
    }

    /// Lends the ticket of a task that was polled, is pending, and awaits a decision of this core.
    pub(crate) fn lend(self: &Arc<Self>, lender: LenderId) {
        let ended = self.ctx.is_done();
        self.with(|state, after| {
            if state.tickets.lend(lender) {
                state.hand_out(ended, after);
            }
        });
    }
}

/// Ends.
impl<S: Source> Core<S> {
    /// Records how a job ended, and stops the others if it failed (invariant 7). Hands back what a success gave.
    pub(crate) fn record(self: &Arc<Self>, tag: &S::Tag, outcome: Outcome<S>) -> Option<S::Value> {
        let (error, text) = match outcome {
            Outcome::Returned(Ok(value)) => return Some(value),
            Outcome::Returned(Err(error)) => {
                let text = self.cause_text(|| error.to_string());
                (Ok(error), text)
            }
            Outcome::Panicked(payload) => {
                let text = self.cause_text(|| format!("{tag} panicked: {}", panic::text(&payload)));
                (Err(payload), text)
            }
            Outcome::Aborted => {
                let aborted = || ContextError::cancelled(Some(Cause::note(&TASK_ABORTED)));
                let stopped = self.ctx.err().unwrap_or_else(aborted);
                match panic::catch(|| S::Error::from(stopped)) {
                    Ok(error) => {
                        let text = self.cause_text(|| error.to_string());
                        (Ok(error), text)
                    }
                    Err(payload) => {
                        let text = self.cause_text(|| format!("{tag} was aborted"));
                        (Err(payload), text)
                    }
                }
            }
        };
        let cause = text.map(Cause::from);
        let (later, cause) = self.with(|state, _| {
            let later = match error {
                Ok(error) => state.failures.add_error(error),
                Err(payload) => state.failures.add_panic(payload),
            };
            (later, cause.map(|cause| state.failures.cause(cause)))
        });
        panic::discard(later);
        if let Some(cause) = cause {
            self.cancel.cancel_with(cause);
            if self.on_failure == OnFailure::Abort {
                self.cut();
                self.abort_places();
            }
        }
        None
    }

    /// The text that the context is to end with; `None` where there is nothing to end. It is the user's `Display`, which may
    /// panic.
    fn cause_text(&self, text: impl FnOnce() -> String) -> Option<String> {
        if self.on_failure == OnFailure::GoOn {
            return None;
        }
        let text = panic::catch(text).unwrap_or_else(|payload| {
            panic::discard(payload);
            "a task failed, and displaying its error panicked".to_owned()
        });
        Some(text)
    }

    /// The context has ended: what has not started never starts.
    pub(crate) fn cut(self: &Arc<Self>) {
        let unstarted = self.with(|state, after| {
            let unstarted = state.source.cut(&mut state.tickets, after);
            state.tickets.grant(&mut after.wake);
            state.relieve_watcher(after);
            state.dismiss_parked(after);
            state.wake_waiter(after);
            unstarted
        });
        for unstarted in unstarted {
            self.dispose(unstarted, false);
        }
    }

    /// Ends the context, and drops everything now: what waits, and what runs as soon as its present poll returns.
    pub(crate) fn abort(self: &Arc<Self>, why: &'static Note) {
        self.cancel.cancel_with(Cause::note(why));
        self.cut();
        self.abort_places();
    }

    fn abort_places(self: &Arc<Self>) {
        let unstarted = self.with(|state, _| {
            if state.phase == Phase::Open {
                state.phase = Phase::Aborted;
            }
            state.source.reclaim()
        });
        self.places.lock().abort_all();
        for unstarted in unstarted {
            self.dispose(unstarted, true);
        }
    }

    /// Drops what was never polled, and counts it as ended.
    pub(crate) fn dispose(
        self: &Arc<Self>,
        unstarted: Unstarted<S::Tag, S::Job>,
        has_ticket: bool,
    ) {
        let Unstarted { tag, job } = unstarted;
        let outcome = match panic::catch(|| drop(job)) {
            Ok(()) => Outcome::Aborted,
            Err(payload) => Outcome::Panicked(payload),
        };
        self.record(&tag, outcome);
        self.with(|state, after| {
            if has_ticket {
                state.tickets.put_back(None);
            }
            state.open -= 1;
            state.wake_waiter(after);
        });
    }

    /// Counts a job as ended whose place will not come to the counter any more.
    pub(crate) fn end_off_counter(
        self: &Arc<Self>,
        tag: S::Tag,
        outcome: Outcome<S>,
        lender: Option<LenderId>,
    ) {
        let value = self.record(&tag, outcome).map(|value| (tag, value));
        self.with(|state, after| state.hand_in(HandIn { lender, value }, after));
    }

    /// Waits until every task has ended and every place has gone. Nothing is accepted from then on.
    pub(crate) async fn over(self: &Arc<Self>) {
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            self.with(|state, after| {
                if !state.is_over() {
                    after.replaced.extend(state.waiter.replace(waker));
                    return Poll::Pending;
                }
                after.replaced.push(waker);
                if state.phase == Phase::Open {
                    state.phase = Phase::Closed;
                }
                Poll::Ready(())
            })
        })
        .await;
        // Taken out, so that nobody's waker is touched under the lock; nothing is added any more.
        let mut places = std::mem::take(&mut *self.places.lock());
        while places.join_next().await.is_some() {}
    }

    /// Asks everybody to stop.
    pub(crate) fn cancel(&self, cause: Option<Cause>) {
        match cause {
            Some(cause) => self.cancel.cancel_with(cause),
            None => self.cancel.cancel(),
        }
    }

    /// Ends the context of a core that is over.
    pub(crate) fn end_context(&self, why: &'static Note) {
        self.cancel.cancel_with(Cause::note(why));
    }

    /// The failures, once it is over.
    pub(crate) fn take_failures(self: &Arc<Self>) -> Failures<S::Error> {
        self.with(|state, _| std::mem::replace(&mut state.failures, Failures::new()))
    }
}

/// Seeing the end of the context while something is queued (invariant 8).
impl<S: Source> Core<S> {
    fn watch_end(self: &Arc<Self>) {
        let (watch, start) = self.with(|state, _| {
            let watch = !std::mem::replace(&mut state.watched, true);
            let start = state.timed && matches!(state.watcher, Watcher::None);
            if start {
                state.watcher = Watcher::Starting;
            }
            (watch, start)
        });
        if watch {
            let waker = Waker::from(Arc::new(CutOnWake(Arc::downgrade(self))));
            if self.ctx.wake_on_cancel(waker).is_err() {
                self.cut();
            }
        }
        if let (true, Some(runtime)) = (start, self.runtime.get()) {
            self.spawn_in(runtime, |core| WatchDeadline {
                done: core.ctx.done_owned(),
                core: core.clone(),
            });
        }
    }
}

/// How the context tells the core of a cancel, in the thread that cancels. Weak: the context is the core's own.
struct CutOnWake<S: Source>(Weak<Core<S>>);

impl<S: Source> Wake for CutOnWake<S> {
    fn wake(self: std::sync::Arc<Self>) {
        if let Some(core) = self.0.upgrade() {
            core.cut();
        }
    }
}

/// The watcher task. It leaves when the queue is empty.
struct WatchDeadline<S: Source> {
    core: Arc<Core<S>>,
    done: DoneOwned,
}

impl<S: Source> Future for WatchDeadline<S> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let needed = self.core.with(|state, after| {
            let needed = state.is_open() && state.source.has_unstarted();
            let watcher = match needed {
                true => Watcher::Waiting(waker),
                false => {
                    after.replaced.push(waker);
                    Watcher::None
                }
            };
            if let Watcher::Waiting(old) = std::mem::replace(&mut state.watcher, watcher) {
                after.replaced.push(old);
            }
            needed
        });
        if needed && Pin::new(&mut self.done).poll(cx).is_pending() {
            return Poll::Pending;
        }
        if needed {
            self.core.cut();
        }
        Poll::Ready(())
    }
}
