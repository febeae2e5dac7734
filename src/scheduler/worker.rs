//! A worker: a task of the `JoinSet` that runs one job after another.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;

use super::Scheduler;
use super::backoff::Backoff;
use super::batch::Batch;
use super::current::{self, CurrentJob};
use super::job::poll_job;
use super::permits::Yielded;
use super::poll_budget::PollBudget;
use super::source::{Opened, Outcome, Source, Tag};
use super::state::{Completion, ParkId, Turn};
use crate::panic;
use crate::sync::Arc;

pin_project! {
    /// Comes to the counter, runs what it gets, comes again; leaves when there is nothing to be had.
    pub(crate) struct Worker<S: Source> {
        core: Arc<Scheduler<S>>,
        at: At,
        wait: Option<S::Wait>,
        tag: Option<S::Tag>,
        #[pin]
        job: Option<S::Job>,
        // On the thread while this is polled.
        current: Option<CurrentJob>,
    }

    impl<S: Source> PinnedDrop for Worker<S> {
        // The accounting for a worker that is dropped in mid-life: aborted, or its runtime shut down.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(tag) = this.tag.take() {
                let outcome = Outcome::of_drop(panic::catch(|| this.job.set(None)));
                let lender = this.current.as_mut().and_then(CurrentJob::renew);
                this.core.end_off_counter(tag, outcome, lender);
                return;
            }
            // What it has pulled from may have waited.
            this.current.iter_mut().for_each(CurrentJob::forget);
            if let Some(wait) = this.wait.take() {
                S::abandon(this.core, wait);
                return;
            }
            match *this.at {
                At::Left => {}
                At::OnTheWay(_) => this.core.lose_searcher(),
                At::Parked(id) => {
                    if this.core.unpark(id) {
                        this.core.lose_searcher();
                    }
                }
                // Between polls it has a job, waits for one, is parked, or a searcher is on its way.
                At::Work => {}
            }
        }
    }
}

/// Where a worker is.
#[derive(Clone, Copy)]
pub(crate) enum At {
    /// A searcher, that has not come to the counter yet.
    OnTheWay(Backoff),
    Work,
    Parked(ParkId),
    Left,
}

impl<S: Source> Worker<S> {
    pub(crate) fn new(core: Arc<Scheduler<S>>) -> Self {
        let current = CurrentJob::new(core.clone());
        let backoff = Backoff::new(S::pulled(&core));
        Worker {
            core,
            at: At::OnTheWay(backoff),
            wait: None,
            tag: None,
            job: None,
            current: Some(current),
        }
    }
}

impl<S: Source> Future for Worker<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let mut searching = match *this.at {
            At::OnTheWay(backoff) => match this.core.back_off(backoff, cx) {
                Some(backoff) => {
                    *this.at = At::OnTheWay(backoff);
                    return Poll::Pending;
                }
                None => true,
            },
            At::Parked(id) => this.core.unpark(id),
            At::Work => false,
            At::Left => return Poll::Ready(()),
        };
        *this.at = At::Work;
        let _on_thread = current::enter(this.current, cx.waker());
        let mut batch = Batch::new();
        let mut budget = match this.tag {
            Some(_) => PollBudget::start_with_job(),
            None => PollBudget::start(),
        };
        loop {
            if this.tag.is_none() && this.wait.is_none() && budget.is_used_up() {
                this.core.keep_earlier(&mut batch);
                *this.at = match this.core.yield_worker(batch.take_last()) {
                    Yielded::AsSearcher => At::OnTheWay(Backoff::new(S::pulled(this.core))),
                    Yielded::AsWorker => At::Work,
                    Yielded::Leaves => {
                        *this.at = At::Left;
                        return Poll::Ready(());
                    }
                };
                this.core.wake_behind_others(cx);
                return Poll::Pending;
            }
            budget.add_step();
            if this.tag.is_none() {
                let turn = match this.wait.take() {
                    Some(wait) => Turn::Run(wait.into()),
                    None => {
                        let turn = this.core.turn(std::mem::take(&mut searching), &mut batch);
                        // What a destructor or a report may have awaited is none of the next job's.
                        current::forget();
                        turn
                    }
                };
                let opened = match turn {
                    Turn::Run(supply) => S::open(this.core, supply, this.job.as_mut(), cx),
                    Turn::Dispose(rejected) => {
                        S::dispose(this.core, rejected);
                        Opened::Nothing
                    }
                    Turn::Report => {
                        S::report(this.core);
                        Opened::Nothing
                    }
                    Turn::Park => Opened::Later { in_use: false },
                    Turn::Leave => {
                        this.core.reap();
                        *this.at = At::Left;
                        return Poll::Ready(());
                    }
                };
                match opened {
                    Opened::Job(mut tag) => {
                        tag.started();
                        *this.tag = Some(tag);
                    }
                    Opened::Nothing => continue,
                    Opened::Wait(wait) => {
                        *this.wait = Some(wait);
                        return Poll::Pending;
                    }
                    Opened::Later { in_use } => match this.core.park(cx.waker(), in_use) {
                        Some(id) => {
                            *this.at = At::Parked(id);
                            return Poll::Pending;
                        }
                        None => continue,
                    },
                }
            }
            let span = this.tag.as_ref().and_then(S::Tag::span);
            let Poll::Ready(outcome) = poll_job(this.job.as_mut(), span, cx) else {
                this.core.keep_earlier(&mut batch);
                return Poll::Pending;
            };
            let Some(mut tag) = this.tag.take() else {
                continue;
            };
            let value = this.core.record(&mut tag, outcome);
            let lender = current::renew();
            // A failure is handed in at once, and so is a permit that may have been lent.
            let goes_on = value.is_some() && lender.is_none() && batch.goes_on();
            if goes_on && !budget.is_used_up() {
                *this.tag = S::another(this.core, this.job.as_mut(), cx);
                if this.tag.is_some() {
                    batch.add(tag, value);
                    continue;
                }
            }
            batch.end(Completion { lender, tag, value });
        }
    }
}
