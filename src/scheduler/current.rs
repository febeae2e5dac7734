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
//!
//! This file has what every poll needs. The rest is needed only if a job waits: the permits of its
//! polls (`lender`), its waits for other schedulers (`abroad`), and the functions that awaitables
//! call (`awaitable`).

mod abroad;
mod awaitable;
mod lender;

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::task::{self, Poll, Waker};

use super::permits::lending::{LenderId, Lending};
use crate::sync::{Arc, thread_static};
use abroad::Abroad;
pub(crate) use awaitable::{
    How, claimant_abroad, defer, is_job_of, note_own, own_lender, own_poll, register_own_lender,
    wait_for_all, wait_for_job, wait_for_permit,
};

/// A job that is polled, and what it waits for. A worker runs one job at a time, so it has one
/// value for all its jobs, which is on the thread while the worker is polled.
pub(crate) struct CurrentJob {
    /// The scheduler of the job.
    scheduler: Arc<dyn Lending>,
    /// Its id, from the first time that it waits.
    lender: Option<LenderId>,
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

/// How often a job that seems to wait is polled again.
const PROBES: usize = 2;

thread_static! {
    // Not dropped with its thread, since a job leaves the thread at the end of its poll. So the
    // thread needs no destructor for it, and finds it at once.
    static CURRENT: ManuallyDrop<Cell<Option<CurrentJob>>> = ManuallyDrop::new(Cell::new(None));
}
thread_static! {
    // Whether that job has waited. It is a variable of its own because most polls need to read
    // nothing else.
    static HAS_NOTED: Cell<bool> = Cell::new(false);
}
thread_static! {
    // How that job is polled. As a field of the job it would be written right before the job is
    // moved, and the processor would wait for it.
    static POLLED: Cell<Polled> = Cell::new(Polled::Blocking);
}

impl CurrentJob {
    pub(crate) fn new(scheduler: Arc<dyn Lending>) -> CurrentJob {
        CurrentJob {
            scheduler,
            lender: None,
            waits: false,
            abroad: None,
        }
    }

    /// Returns whether the job has waited.
    fn has_noted(&self) -> bool {
        self.lender.is_some() || self.abroad.is_some()
    }
}

/// Keeps a job on the thread until this is dropped.
pub(crate) struct Entered<'a> {
    /// Holds the job that was on the thread before, if there was one.
    job: &'a mut Option<CurrentJob>,
    /// How that one is polled.
    polled_before: Polled,
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
    let polled_before = POLLED.with(|it| it.replace(polled));
    swap(job);
    Entered { job, polled_before }
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        POLLED.with(|it| it.set(self.polled_before));
        swap(self.job);
    }
}

/// Exchanges the job for the one that is on the thread.
#[inline]
fn swap(job: &mut Option<CurrentJob>) {
    HAS_NOTED.with(|it| it.set(job.as_ref().is_some_and(CurrentJob::has_noted)));
    let before = CURRENT.with(|current| current.replace(job.take()));
    // That is `None`, so nothing is forgotten, and no destructor is compiled in.
    std::mem::forget(std::mem::replace(job, before));
}

/// Polls the job on this thread. `poll` must not unwind. A job that must not be polled yet is
/// pending.
#[inline]
pub(crate) fn poll<T>(
    cx: &mut task::Context<'_>,
    mut poll: impl FnMut(&mut task::Context<'_>) -> Poll<T>,
) -> Poll<T> {
    if has_noted() && !begin_poll(cx.waker()) {
        return Poll::Pending;
    }
    let polled = poll(cx);
    // One branch for all that follows, so that the output of other jobs is not moved once more. A
    // move reads 16 bytes right after they were written as two words, for which the processor
    // waits: a trivial item of a fan-out took 7 ns longer.
    if has_noted() {
        return probe_and_end(polled, cx, poll);
    }
    polled
}

/// Performs the rest of `poll` for a job that has waited.
#[cold]
fn probe_and_end<T>(
    mut polled: Poll<T>,
    cx: &mut task::Context<'_>,
    poll: impl FnMut(&mut task::Context<'_>) -> Poll<T>,
) -> Poll<T> {
    if polled.is_pending() {
        polled = probe(cx, poll);
    }
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
    start_deferred();
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

/// Starts what was deferred to the end of the poll. A start that is refused drops its future here,
/// whose destructor may start another job, which is deferred, too. Ends when no destructor does.
fn start_deferred() {
    while let Some(deferred) = look(CurrentJob::take_deferred) {
        deferred.into_iter().for_each(|start| start());
    }
}

/// Prepares for the next job on this thread. Returns the id of the last job, if it has waited.
#[inline]
pub(crate) fn renew() -> Option<LenderId> {
    if has_noted() {
        // Since the end of the last poll, user code has run: it has told of the outcome.
        start_deferred();
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

/// Returns how the job on this thread is polled.
fn how_polled() -> Polled {
    POLLED.with(Cell::get)
}

/// Returns whether the job on this thread has waited. Most jobs have not, and cost no more than
/// this.
#[inline]
fn has_noted() -> bool {
    HAS_NOTED.with(Cell::get)
}

fn look<T>(look: impl FnOnce(&mut CurrentJob) -> Option<T>) -> Option<T> {
    let looked = CURRENT.try_with(|current| {
        let mut job = current.take()?;
        let seen = look(&mut job);
        HAS_NOTED.with(|it| it.set(job.has_noted()));
        current.set(Some(job));
        seen
    });
    looked.ok().flatten()
}
