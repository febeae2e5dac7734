//! The job that is polled on this thread. An awaitable uses it to find the task that waits for it.
//!
//! A worker puts its [`CurrentJob`] on the thread for the length of each of its polls. An
//! admission, a task handle, or the end of a group or a fan-out that is polled inside and is
//! pending notes that the job waits for it. The worker lends the permit when the job's poll has
//! ended. A future that `tokio::spawn` runs is a task of its own, and is not found.
//!
//! # Whether a task still waits
//!
//! That an awaitable was polled does not mean that the task waits for it. `select!` may have taken
//! another branch in the same poll; the task then waits for something else and must keep its
//! permit. So a job that seems to wait is polled again at once, and it counts as waiting if it
//! polls an awaitable again. That is done twice: a `yield_now` in another branch is ready in the
//! first of these polls, and the task continues behind it. A future may be polled at any time, so
//! this changes nothing else.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::task::{self, Poll, Waker};

use super::permits::Permits;
use super::permits::lending::Lending;
use super::permits::lending::{
    ActsFor, Claimant, Edge, Lasts, LenderId, Part, SchedulerId, Target, all_asked, all_awaiters,
};
use super::wakers::Wakers;
use crate::sync::{Arc, Weak, thread_static};

/// A job that is polled, and what it waits for. A worker runs one job at a time, so it has one
/// value for all its jobs, which is on the thread while the worker is polled.
pub(crate) struct CurrentJob {
    /// The scheduler of the job.
    scheduler: Arc<dyn Lending>,
    /// Its id, from the first time that it waits.
    lender: Option<LenderId>,
    polled: Polled,
    /// Whether it waits for its own scheduler in this poll.
    waits: bool,
    /// `None` for a job that does not wait for another scheduler.
    abroad: Option<Box<Abroad>>,
}

/// How a job is polled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Polled {
    With(WakerId),
    /// It is a blocking closure, which is never polled.
    Blocking,
}

/// Identifies the task that a waker wakes. tokio's wakers differ only in their data. The wakers of
/// lists have other data, because each points to its own list.
#[derive(Clone, Copy, PartialEq, Eq)]
struct WakerId {
    data: usize,
}

impl WakerId {
    fn of(waker: &Waker) -> WakerId {
        WakerId {
            data: waker.data().addr(),
        }
    }
}

/// What a job waits for in other schedulers, and what it starts when its poll has ended.
#[derive(Default)]
struct Abroad {
    /// The edges that were pending in this poll.
    pending: Vec<Edge>,
    /// The edges of the last poll, as the schedulers know them.
    edges: Vec<Edge>,
    /// The tasks on whose behalf the job waited. It is polled only with their permits.
    acts_for: Vec<ActsFor>,
    /// Starts of jobs with permits under which this poll runs.
    deferred: Vec<Deferred>,
}

/// The start of a job that waits until a poll has ended. It must not unwind.
pub(crate) type Deferred = Box<dyn FnOnce() + Send>;

/// How often a job that seems to wait is polled again.
const PROBES: usize = 2;

thread_static! {
    // Not dropped with its thread, since a job leaves the thread at the end of its poll. So the
    // thread needs no destructor for it, and finds it at once.
    static CURRENT: Cell<ManuallyDrop<Option<CurrentJob>>> = Cell::new(ManuallyDrop::new(None));
}
thread_static! {
    // Whether that job has waited. It is a variable of its own because most polls need to read
    // nothing else.
    static HAS_NOTED: Cell<bool> = Cell::new(false);
}

impl CurrentJob {
    pub(crate) fn new(scheduler: Arc<dyn Lending>) -> CurrentJob {
        CurrentJob {
            scheduler,
            lender: None,
            polled: Polled::Blocking,
            waits: false,
            abroad: None,
        }
    }

    /// Reserves the permits under which the job is polled: its own, and those of the tasks on whose
    /// behalf it waited. If one of them is lent, `waker` is woken when it is granted again.
    fn begin_poll(&mut self, waker: &Waker) -> bool {
        let Some(lender) = self.lender else {
            return true;
        };
        let begin = |permits: &mut Permits| permits.begin_poll(lender, Claimant::Task);
        let Some(abroad) = &mut self.abroad else {
            return reserve(&self.scheduler, lender, Claimant::Task, waker, begin);
        };
        let claimant = Claimant::Job(self.scheduler.id(), lender);
        abroad.find_tasks(&*self.scheduler, claimant);
        let acts_for = &abroad.acts_for;
        // Its own permit first, and then outwards. In the other order, the job would keep the
        // permit of an outer group while it waits for a permit of an inner group, whose tasks may
        // need the outer one.
        let has_all = reserve(&self.scheduler, lender, Claimant::Task, waker, |_| {})
            && acts_for
                .iter()
                .all(|task| reserve(&task.scheduler, task.lender, claimant, waker, |_| {}));
        if has_all {
            for task in acts_for {
                task.scheduler
                    .read(&mut |permits| permits.begin_poll(task.lender, claimant));
            }
            self.scheduler.read(&mut |permits| begin(permits));
        }
        has_all
    }

    /// Ends a poll in which the job was pending, and lends the permits of the tasks that wait.
    fn end_poll(&mut self, waker: &Waker) {
        let has_pending = self
            .abroad
            .as_ref()
            .is_some_and(|it| !it.pending.is_empty());
        if self.lender.is_none() && !has_pending {
            return;
        }
        let lender = self.register_lender();
        let waits = self.waits;
        let scheduler = &self.scheduler;
        // The edges come first, and the search comes second: invariant 2 of `lending`.
        if let Some(abroad) = &mut self.abroad {
            abroad.publish(scheduler, lender);
        }
        scheduler
            .clone()
            .update(&mut |permits, _| permits.end_own_poll(lender, waits, waker));
        if let Some(abroad) = &mut self.abroad {
            abroad.lend(scheduler, lender);
            abroad.acts_for.drain(..).for_each(|task| task.end_poll());
        }
    }

    /// Returns whether this poll runs under the permit of that task of `scheduler`.
    fn is_polled_under(&self, scheduler: SchedulerId, lender: LenderId) -> bool {
        let is_own = self.scheduler.id() == scheduler && self.lender == Some(lender);
        let mut acts_for = self.abroad.iter().flat_map(|abroad| &abroad.acts_for);
        is_own || acts_for.any(|task| task.scheduler.id() == scheduler && task.lender == lender)
    }

    /// Ends the poll in which the job has finished.
    fn end_last_poll(&mut self) {
        for task in self.leave_abroad() {
            task.end_poll();
        }
    }

    /// Prepares for the next job. Returns the id of the last job, if it has waited.
    pub(crate) fn renew(&mut self) -> Option<LenderId> {
        self.waits = false;
        let scheduler = self.scheduler.id();
        let claimant = self.lender.map(|lender| Claimant::Job(scheduler, lender));
        for task in self.leave_abroad() {
            claimant.into_iter().for_each(|it| task.abandon(it));
        }
        self.lender.take()
    }

    /// Prepares for the next job if the last one has no permit to release.
    pub(crate) fn forget(&mut self) {
        if let Some(lender) = self.renew() {
            let mut unneeded = Wakers::default();
            self.scheduler
                .read(&mut |permits| permits.forget_waits(lender, &mut unneeded));
        }
    }

    /// Removes the edges to other schedulers. Returns the tasks on whose behalf the job waited.
    fn leave_abroad(&mut self) -> Vec<ActsFor> {
        let Some(mut abroad) = self.abroad.take() else {
            return Vec::new();
        };
        if let Some(lender) = self.lender {
            for edge in abroad.edges.drain(..) {
                let me = (self.scheduler.id(), lender, edge.target.part);
                if let Some(other) = edge.scheduler.upgrade() {
                    other.read(&mut |permits| permits.remove_awaiter(me));
                }
            }
        }
        abroad.acts_for
    }

    /// Returns the id of the job. Registers it as a lender the first time.
    fn register_lender(&mut self) -> LenderId {
        let scheduler = self.scheduler.clone();
        self.lender_or_register(|polled| {
            let mut lender = 0;
            scheduler.read(&mut |permits| lender = polled.register_lender(permits));
            lender
        })
    }

    /// Returns the id of the job. Calls `new` to register it the first time.
    fn lender_or_register(&mut self, new: impl FnOnce(Polled) -> LenderId) -> LenderId {
        *self.lender.get_or_insert_with(|| new(self.polled))
    }

    /// Returns whether the job has waited.
    pub(crate) fn has_noted(&self) -> bool {
        self.lender.is_some() || self.abroad.is_some()
    }

    /// Forgets what was pending in this poll, so that the next poll shows whether the job waits.
    /// Returns `None` if no further poll is needed. After an abort there is none: the poll during
    /// which the abort came is the last one.
    fn begin_probe(&mut self) -> Option<()> {
        let probes = self.seems_to_wait() && !self.scheduler.is_aborted();
        probes.then(|| self.forget_pending())
    }

    /// Returns whether the job seems to wait, so that a second poll must show whether it does.
    fn seems_to_wait(&self) -> bool {
        if self.waits {
            return true;
        }
        let pending = self.abroad.iter().flat_map(|abroad| &abroad.pending);
        let mut is_awaited = false;
        if pending
            .into_iter()
            .any(|edge| edge.lasts == Lasts::ThisPoll)
        {
            self.scheduler
                .read(&mut |permits| is_awaited = permits.has_awaiters());
        }
        is_awaited
    }

    fn forget_pending(&mut self) {
        self.waits = false;
        if let Some(abroad) = &mut self.abroad {
            abroad.pending.retain(|edge| edge.lasts == Lasts::TheJob);
        }
    }

    /// Notes that the job waits for another scheduler. A blocking closure has no end of a poll, so
    /// the schedulers are informed at once.
    fn wait_for(&mut self, edge: Edge) {
        let abroad = self.abroad.get_or_insert_default();
        let known = abroad
            .pending
            .iter_mut()
            .find(|it| it.target == edge.target);
        match known {
            Some(known) if edge.lasts == Lasts::ThisPoll || known.lasts == edge.lasts => return,
            Some(known) => *known = edge,
            None => abroad.pending.push(edge),
        }
        if self.polled == Polled::Blocking {
            let lender = self.register_lender();
            if let Some(abroad) = &mut self.abroad {
                abroad.publish(&self.scheduler, lender);
                abroad.lend(&self.scheduler, lender);
            }
        }
    }

    fn how(&self, waker: &Waker) -> How {
        match self.polled {
            Polled::Blocking => How::Blocking,
            Polled::With(own) if own == WakerId::of(waker) => How::WithOwnWaker,
            Polled::With(_) => How::InList,
        }
    }
}

impl Polled {
    fn register_lender(self, permits: &mut Permits) -> LenderId {
        match self {
            Polled::With(_) => permits.register_lender(),
            Polled::Blocking => permits.register_blocking_lender(),
        }
    }
}

/// Reserves a permit, and calls `then` under the same lock. If the permit is lent, `waker` is woken
/// when it is granted again.
fn reserve(
    scheduler: &Arc<dyn Lending>,
    lender: LenderId,
    claimant: Claimant,
    waker: &Waker,
    then: impl Fn(&mut Permits),
) -> bool {
    let mut waker = Some(waker.clone());
    let mut is_reserved = false;
    scheduler.clone().update(&mut |permits, unneeded| {
        if let Some(waker) = waker.take() {
            is_reserved = permits.reserve(lender, claimant, waker, unneeded);
        }
        if is_reserved {
            then(permits);
        }
        permits.must_withdraw_claims()
    });
    is_reserved
}

impl Abroad {
    /// Finds the tasks on whose behalf the job waited: the nearest ones of each scheduler. Gives up
    /// the permits of tasks that were found before and are not found any more.
    fn find_tasks(&mut self, scheduler: &dyn Lending, claimant: Claimant) {
        let before = std::mem::take(&mut self.acts_for);
        if !self.edges.is_empty() {
            let awaits = |id| self.edges.iter().any(|edge| edge.target.scheduler == id);
            for task in all_awaiters(scheduler, awaits) {
                let id = task.scheduler.id();
                // One permit of each scheduler is enough, even if several of its tasks wait for
                // this job.
                let is_known = self.acts_for.iter().any(|it| it.scheduler.id() == id);
                if awaits(id) && !is_known {
                    self.acts_for.push(task);
                }
            }
        }
        for task in before {
            let is_it =
                |it: &ActsFor| it.lender == task.lender && it.scheduler.id() == task.scheduler.id();
            if !self.acts_for.iter().any(is_it) {
                task.abandon(claimant);
            }
        }
    }

    /// Informs the schedulers of the edges that have changed since the last poll.
    fn publish(&mut self, scheduler: &Arc<dyn Lending>, lender: LenderId) {
        let mut edges = std::mem::take(&mut self.pending);
        let before = std::mem::take(&mut self.edges);
        let had: Vec<Target> = before.iter().map(|edge| edge.target).collect();
        let mut ended = Vec::new();
        for edge in before {
            let lasts = edge.lasts == Lasts::TheJob && edge.scheduler.strong_count() > 0;
            match edges.iter_mut().find(|it| it.target == edge.target) {
                Some(again) if lasts => again.lasts = Lasts::TheJob,
                Some(_) => {}
                None if lasts => edges.push(edge),
                None => ended.push(edge),
            }
        }
        self.edges = edges;
        let begun = self.edges.iter().filter(|edge| !had.contains(&edge.target));
        let begun: Vec<&Edge> = begun.collect();
        if ended.is_empty() && begun.is_empty() {
            return;
        }
        scheduler.read(&mut |permits| {
            for edge in &ended {
                permits.end_abroad(lender, edge.target);
            }
            for edge in &begun {
                permits.begin_abroad(lender, edge);
            }
        });
        let me = |edge: &Edge| (scheduler.id(), lender, edge.target.part);
        for edge in &ended {
            if let Some(other) = edge.scheduler.upgrade() {
                other.read(&mut |permits| permits.remove_awaiter(me(edge)));
            }
        }
        for edge in begun {
            if let Some(other) = edge.scheduler.upgrade() {
                other.read(&mut |permits| permits.add_awaiter(me(edge), Arc::downgrade(scheduler)));
            }
        }
    }

    /// Lends the permits of tasks that wait for their own scheduler because of what this job waits
    /// for. These may be its own task, and tasks that wait for its scheduler.
    fn lend(&self, scheduler: &Arc<dyn Lending>, lender: LenderId) {
        let edges = self.edges.iter();
        let asked = all_asked(
            edges
                .map(|it| (it.target.part, it.scheduler.clone()))
                .collect(),
        );
        let own = ActsFor {
            scheduler: scheduler.clone(),
            lender,
        };
        let awaiters = all_awaiters(&**scheduler, |_| false);
        for task in awaiters.into_iter().chain([own]) {
            if asked.contains(&task.scheduler.id()) {
                task.lend();
            }
        }
    }
}

/// Keeps a job on the thread until this is dropped.
pub(crate) struct Entered<'a> {
    /// Holds the job that was on the thread before, if there was one.
    job: &'a mut Option<CurrentJob>,
}

/// Puts a job on the thread for one poll of a worker, whichever jobs the worker runs in that poll.
#[inline]
pub(crate) fn enter<'a>(job: &'a mut Option<CurrentJob>, waker: &Waker) -> Entered<'a> {
    enter_as(job, Polled::With(WakerId::of(waker)))
}

/// Puts a blocking closure on the thread.
pub(crate) fn enter_blocking(job: &mut Option<CurrentJob>) -> Entered<'_> {
    enter_as(job, Polled::Blocking)
}

#[inline]
fn enter_as(job: &mut Option<CurrentJob>, polled: Polled) -> Entered<'_> {
    if let Some(job) = job {
        job.polled = polled;
    }
    swap(job);
    Entered { job }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        swap(self.job);
    }
}

/// Exchanges the job for the one that is on the thread.
#[inline]
fn swap(job: &mut Option<CurrentJob>) {
    HAS_NOTED.with(|it| it.set(job.as_ref().is_some_and(CurrentJob::has_noted)));
    let before = CURRENT.with(|current| current.replace(ManuallyDrop::new(job.take())));
    *job = ManuallyDrop::into_inner(before);
}

/// Polls the job on this thread. `poll` must not unwind. A job that must not be polled yet is
/// pending.
#[inline]
pub(crate) fn poll<T>(
    cx: &mut task::Context<'_>,
    poll: impl FnMut(&mut task::Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let Some(polled) = poll_if_allowed(cx, poll) else {
        return Poll::Pending;
    };
    end_poll(polled.is_ready(), cx);
    polled
}

/// Performs the first half of `poll`. Returns `None` if the job must not be polled yet. Otherwise
/// the caller calls `end_poll`, which is the second half.
#[inline]
pub(crate) fn poll_if_allowed<T>(
    cx: &mut task::Context<'_>,
    mut poll: impl FnMut(&mut task::Context<'_>) -> Poll<T>,
) -> Option<Poll<T>> {
    if has_noted() && !begin_poll(cx.waker()) {
        return None;
    }
    let polled = poll(cx);
    if polled.is_pending() && has_noted() {
        return Some(probe(cx, poll));
    }
    Some(polled)
}

#[cold]
fn begin_poll(waker: &Waker) -> bool {
    look(|job| Some(job.begin_poll(waker))).unwrap_or(true)
}

/// Polls a pending job again, to see whether it waits.
#[cold]
fn probe<T>(
    cx: &mut task::Context<'_>,
    mut poll: impl FnMut(&mut task::Context<'_>) -> Poll<T>,
) -> Poll<T> {
    for _ in 0..PROBES {
        if look(CurrentJob::begin_probe).is_none() {
            break;
        }
        let polled = poll(cx);
        if polled.is_ready() {
            return polled;
        }
    }
    Poll::Pending
}

/// Performs the second half of `poll`.
#[inline]
pub(crate) fn end_poll(is_ready: bool, cx: &mut task::Context<'_>) {
    if has_noted() {
        end_noted_poll(is_ready, cx.waker());
    }
}

#[cold]
fn end_noted_poll(is_ready: bool, waker: &Waker) {
    let deferred = look(|job| Some(std::mem::take(&mut job.abroad.as_mut()?.deferred)));
    for start in deferred.unwrap_or_default() {
        start();
    }
    look(|job| {
        if is_ready {
            job.end_last_poll();
        } else {
            job.end_poll(waker);
        }
        job.waits = false;
        Some(())
    });
}

/// Prepares for the next job on this thread. Returns the id of the last job, if it has waited.
#[inline]
pub(crate) fn renew() -> Option<LenderId> {
    if has_noted() {
        return look(CurrentJob::renew);
    }
    None
}

/// Prepares for the next job if the last one has no permit to release.
#[inline]
pub(crate) fn forget() {
    if has_noted() {
        look(|job| {
            job.forget();
            Some(())
        });
    }
}

/// Returns whether the job on this thread has waited. Most jobs have not, and cost no more than
/// this.
#[inline]
fn has_noted() -> bool {
    HAS_NOTED.with(Cell::get)
}

/// How a job polls an awaitable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    WithOwnWaker,
    /// With the waker of a list, which polls it only when that waker was woken.
    InList,
    Blocking,
}

/// Returns how the job on this thread polls with this waker, if it is a job of `scheduler`. Takes
/// no lock.
pub(crate) fn own_poll(scheduler: SchedulerId, waker: &Waker) -> Option<How> {
    let how = look(|job| (job.scheduler.id() == scheduler).then(|| job.how(waker)));
    how.filter(|_| !wakes_nothing(waker))
}

/// Returns whether a job of that scheduler runs on this thread.
pub(crate) fn is_job_of(scheduler: SchedulerId) -> bool {
    look(|job| Some(job.scheduler.id() == scheduler)).unwrap_or(false)
}

/// Registers the job on this thread as a lender. The permits are those of its scheduler. Called
/// under the lock of the scheduler.
pub(crate) fn register_own_lender(permits: &mut Permits) -> Option<LenderId> {
    look(|job| Some(job.lender_or_register(|polled| polled.register_lender(permits))))
}

/// Defers the start of a job until the poll on this thread has ended, if that poll runs under the
/// permit of that task of `scheduler`. Otherwise returns the start.
pub(crate) fn defer(
    scheduler: SchedulerId,
    lender: LenderId,
    start: Deferred,
) -> Result<(), Deferred> {
    let mut start = Some(start);
    look(|job| {
        let is_polled = matches!(job.polled, Polled::With(_));
        if is_polled && job.is_polled_under(scheduler, lender) {
            let abroad = job.abroad.get_or_insert_default();
            abroad.deferred.extend(start.take());
        }
        Some(())
    });
    start.map_or(Ok(()), Err)
}

/// Returns the id of the job on this thread, if it is a job of `scheduler` and has waited.
pub(crate) fn own_lender(scheduler: SchedulerId) -> Option<LenderId> {
    look(|job| job.lender.filter(|_| job.scheduler.id() == scheduler))
}

/// Returns the job on this thread as a claimant, if it is a job of another scheduler than
/// `scheduler` and is polled with a waker that wakes something. Must not be called under a lock.
pub(crate) fn claimant_abroad(scheduler: SchedulerId, waker: &Waker) -> Option<Claimant> {
    look(|job| {
        let is_abroad = job.scheduler.id() != scheduler && !wakes_nothing(waker);
        if !is_abroad || job.polled == Polled::Blocking {
            return None;
        }
        Some(Claimant::Job(job.scheduler.id(), job.register_lender()))
    })
}

/// Notes that the job on this thread waits for its own scheduler in this poll.
pub(crate) fn note_own() {
    look(|job| {
        job.waits = true;
        Some(())
    });
}

/// Returns whether the waker does nothing: such a poll reads the state, and does not wait.
fn wakes_nothing(waker: &Waker) -> bool {
    waker.will_wake(Waker::noop()) || waker.will_wake(futures_util::task::noop_waker_ref())
}

/// Notes that the job on this thread, if there is one, waits for all jobs of `scheduler`. Must not
/// be called under a lock.
pub(crate) fn wait_for_all<C: Lending + 'static>(scheduler: &Arc<C>, waker: &Waker) {
    wait_for(scheduler.id(), Part::All, waker, || weak(scheduler));
}

/// Notes that the job on this thread, if there is one, waits for a permit of `scheduler`. Must not
/// be called under a lock.
pub(crate) fn wait_for_permit<C: Lending + 'static>(scheduler: &Arc<C>, waker: &Waker) {
    wait_for(scheduler.id(), Part::One, waker, || weak(scheduler));
}

/// Notes that the job on this thread, if there is one, waits for a job of `scheduler`. Must not be
/// called under a lock.
pub(crate) fn wait_for_job(scheduler: &Arc<dyn Lending>, waker: &Waker) {
    wait_for(scheduler.id(), Part::One, waker, || {
        Arc::downgrade(scheduler)
    });
}

fn weak<C: Lending + 'static>(scheduler: &Arc<C>) -> Weak<dyn Lending> {
    let scheduler: Arc<dyn Lending> = scheduler.clone();
    Arc::downgrade(&scheduler)
}

/// Notes that the job waits for another scheduler. A wait for its own scheduler is noted in the
/// waiter instead.
fn wait_for(
    id: SchedulerId,
    part: Part,
    waker: &Waker,
    scheduler: impl FnOnce() -> Weak<dyn Lending>,
) {
    look(|job| {
        if job.scheduler.id() == id || wakes_nothing(waker) {
            return None;
        }
        let lasts = match job.how(waker) {
            How::WithOwnWaker => Lasts::ThisPoll,
            How::InList | How::Blocking => Lasts::TheJob,
        };
        let target = Target {
            scheduler: id,
            part,
        };
        let scheduler = scheduler();
        job.wait_for(Edge {
            target,
            scheduler,
            lasts,
        });
        Some(())
    });
}

fn look<T>(look: impl FnOnce(&mut CurrentJob) -> Option<T>) -> Option<T> {
    let looked = CURRENT.try_with(|current| {
        let mut job = ManuallyDrop::into_inner(current.replace(ManuallyDrop::new(None)))?;
        let seen = look(&mut job);
        HAS_NOTED.with(|it| it.set(job.has_noted()));
        current.set(ManuallyDrop::new(Some(job)));
        seen
    });
    looked.ok().flatten()
}
