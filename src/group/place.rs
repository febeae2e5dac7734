//! A place: a task of the `JoinSet` that runs one job after another.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};

use pin_project_lite::pin_project;
use tokio::task::coop;

use super::admission::LenderId;
use super::core::Core;
use super::current;
use super::source::{JobOutput, Lending, Outcome, Source, Tag};
use super::state::{HandIn, ParkId, Turn};
use crate::panic;
use crate::sync::Arc;

pin_project! {
    /// Comes to the counter, runs what it gets, comes again; leaves when there is nothing to be had.
    ///
    /// It yields by tokio's cooperative budget, one unit a job, or 100,000 jobs that are ready at once would starve the
    /// runtime.
    pub(crate) struct Place<S: Source> {
        core: Arc<Core<S>>,
        at: At,
        tag: Option<S::Tag>,
        #[pin]
        job: Option<S::Job>,
        // The job's name as a lender.
        lender: Option<LenderId>,
    }

    impl<S: Source> PinnedDrop for Place<S> {
        // The accounting for a place that is dropped in mid-life: aborted, or its runtime shut down.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(tag) = this.tag.take() {
                let outcome = Outcome::of_drop(panic::catch(|| this.job.set(None)));
                this.core.end_off_counter(tag, outcome, this.lender.take());
                return;
            }
            match *this.at {
                At::Left => {}
                At::OnTheWay => this.core.lose_scout(),
                At::Parked(id) => {
                    if this.core.unpark(id) {
                        this.core.lose_scout();
                    }
                }
                // Not between polls: in them it has a job, is parked, or leaves.
                At::Work => {}
            }
        }
    }
}

/// Where a place is.
#[derive(Clone, Copy)]
enum At {
    /// Spawned as a scout, not polled yet.
    OnTheWay,
    Work,
    Parked(ParkId),
    Left,
}

impl<S: Source> Place<S> {
    pub(crate) fn new(core: Arc<Core<S>>) -> Self {
        Place {
            core,
            at: At::OnTheWay,
            tag: None,
            job: None,
            lender: None,
        }
    }
}

impl<S: Source> Future for Place<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let mut scouting = match *this.at {
            At::OnTheWay => true,
            At::Parked(id) => this.core.unpark(id),
            At::Work => false,
            At::Left => return Poll::Ready(()),
        };
        *this.at = At::Work;
        let mut hand_in = None;
        loop {
            if this.tag.is_none() {
                match this
                    .core
                    .turn(std::mem::take(&mut scouting), hand_in.take())
                {
                    Turn::Run(supply) => match S::open(this.core, supply) {
                        Some((mut tag, job)) => {
                            tag.started();
                            *this.tag = Some(tag);
                            this.job.set(Some(job));
                        }
                        None => continue,
                    },
                    Turn::Dispose(stopped) => {
                        this.core.dispose_stopped(stopped);
                        continue;
                    }
                    Turn::Park => match this.core.park(cx.waker()) {
                        Some(id) => {
                            *this.at = At::Parked(id);
                            return Poll::Pending;
                        }
                        None => continue,
                    },
                    Turn::Leave => {
                        this.core.reap();
                        *this.at = At::Left;
                        return Poll::Ready(());
                    }
                }
            }
            ready!(coop::poll_proceed(cx)).made_progress();

            if let Some(lender) = *this.lender {
                this.core.begin_poll(lender);
            }
            let outcome = match poll_job(this.core, this.job.as_mut(), this.lender, cx) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => {
                    if let Some(lender) = *this.lender {
                        this.core.lend(lender);
                    }
                    return Poll::Pending;
                }
            };
            let Some(tag) = this.tag.take() else { continue };
            let value = this.core.record(&tag, outcome);
            let lender = this.lender.take();
            hand_in = Some(HandIn { lender, tag, value });
        }
    }
}

/// Polls the job; once it is ready, it is dropped, and a panic of either is how it ended.
pub(crate) fn poll_job<S: Source, J: Future<Output = JobOutput<S>>>(
    core: &Arc<Core<S>>,
    mut job: Pin<&mut Option<J>>,
    lender: &mut Option<LenderId>,
    cx: &mut task::Context<'_>,
) -> Poll<Outcome<S>> {
    let polled = current::polling(Lending::id(&**core), lender, || {
        panic::catch(|| match job.as_mut().as_pin_mut() {
            Some(job) => job.poll(cx),
            None => Poll::Pending,
        })
    });
    let ended = match polled {
        Ok(poll) => Ok(ready!(poll)),
        Err(payload) => Err(payload),
    };
    let dropped = panic::catch(|| job.set(None));
    Poll::Ready(match (ended, dropped) {
        (Ok(output), Ok(())) => Outcome::Returned(output),
        // The first panic is the one that counts.
        (Err(payload), dropped) => {
            panic::discard(dropped);
            Outcome::Panicked(payload)
        }
        (Ok(output), Err(payload)) => {
            panic::discard(output);
            Outcome::Panicked(payload)
        }
    })
}
