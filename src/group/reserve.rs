//! Reservations: the future that waits for a permit before there is work.
//!
//! # Invariants
//!
//! 1. A reservation that has to wait has a position in the group's queue like any task, and is
//!    decided like a local task, by its [`PermitWait`]. It is not counted as open: a join of the
//!    group waits neither for a reservation nor for its permit, and refuses what still waits when
//!    it is over. `idle` and `close_and_wait` wait for both.
//! 2. From the grant on, the permit is counted as in use, whether its owner has been polled or not.
//!    It is passed to a [`Permit`], or given back when the reservation is dropped. The lock of the
//!    scheduler decides which comes first, the grant or the drop.
//! 3. A reservation that is polled after the context is done resolves to the error of the context,
//!    also if its permit was granted before.
//! 4. `Queue` counts the permits that background tasks have reserved and that are out. If no other
//!    permit keeps `close_and_wait` waiting, the context is cancelled: the task may keep its permit
//!    until then, and a reservation that waits behind it is refused. A permit that anything else
//!    has reserved is used or dropped first.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker, ready};

use tokio::task::coop;

use super::background;
use super::error::{GROUP_DROPPED, stopped};
use super::permit::Permit;
use super::permit_wait::{PermitWait, Stage};
use super::queue::{Queue, Queued};
use crate::context::ContextError;
use crate::scheduler::Scheduler;
use crate::scheduler::current;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::lease::Lease;
use crate::scheduler::permits::lending::{Lending, Waiter};
use crate::sync::Arc;

/// The future of [`reserve`](crate::Group::reserve).
pub(super) struct Reserve<E>
where
    E: GroupError,
{
    state: State<E>,
}

enum State<E>
where
    E: GroupError,
{
    /// It was not polled yet. `None` if the group was dropped.
    New(Option<Arc<Scheduler<Queue<E>>>>),
    Waiting(Waiting<E>),
    Done,
}

/// A reservation in the queue. When it is dropped, it leaves the queue, or gives its permit back.
struct Waiting<E>
where
    E: GroupError,
{
    scheduler: Arc<Scheduler<Queue<E>>>,
    wait: Arc<PermitWait>,
    lease: Lease,
}

impl<E> Reserve<E>
where
    E: GroupError,
{
    pub(super) fn new(scheduler: Option<Arc<Scheduler<Queue<E>>>>) -> Reserve<E> {
        Reserve {
            state: State::New(scheduler),
        }
    }
}

impl<E> Future for Reserve<E>
where
    E: GroupError,
{
    type Output = Result<Permit<E>, ContextError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let budget = ready!(coop::poll_proceed(cx));
        if let State::New(scheduler) = &mut self.state {
            self.state = match scheduler.take() {
                Some(scheduler) => {
                    scheduler.bind("reserve");
                    State::Waiting(Waiting::enter(scheduler))
                }
                None => State::Done,
            };
        }
        let reserved = match &mut self.state {
            State::Waiting(waiting) => ready!(waiting.poll(cx.waker())),
            State::New(_) | State::Done => Err(stopped(&GROUP_DROPPED)),
        };
        self.state = State::Done;
        budget.made_progress();
        Poll::Ready(reserved)
    }
}

impl<E> Waiting<E>
where
    E: GroupError,
{
    /// Takes a permit if one is free, or a position in the queue.
    fn enter(scheduler: Arc<Scheduler<Queue<E>>>) -> Waiting<E> {
        let id = Lending::id(&*scheduler);
        let wait = PermitWait::of_reservation(background::is_polled(id));
        wait.begin();
        let ended = scheduler.ctx().is_done();
        let lender = current::own_lender(id);
        scheduler.with_effects(|state, effects| {
            if ended || !state.takes_new() {
                wait.refuse(effects);
            } else if state.source.waiting() == 0 && state.permits.take() {
                state.source.admit(&wait, effects);
                if let Some(lender) = lender {
                    state.permits.attach(lender, wait.reserved_id());
                }
            } else {
                let queued = Queued::Reserved(wait.clone());
                wait.set_number(scheduler.queue_up(queued, state, effects));
            }
        });
        Waiting {
            scheduler,
            wait,
            lease: Lease::None,
        }
    }

    fn poll(&mut self, waker: &Waker) -> Poll<Result<Permit<E>, ContextError>> {
        let Waiting {
            scheduler,
            wait,
            lease,
        } = self;
        let id = Lending::id(&**scheduler);
        let ended = scheduler.ctx().is_done();
        let how = current::own_poll(id, waker);
        let job = current::claimant_abroad(id, waker);
        let mut new = Some(waker.clone());
        let granted = scheduler.with_effects(|state, effects| {
            let (queue, permits) = (&mut state.source, &mut state.permits);
            if let Some(granted) = wait.decision() {
                if granted {
                    // A blocking closure has its own permit back, beyond the limit if none is free:
                    // it cannot run on this one, whose use it could not outlast.
                    lease.end(true, permits, &mut effects.wakers());
                    permits.take_granted(wait.reserved_id());
                } else if !lease.resume(permits, &mut new, &mut effects.wakers()) {
                    return Poll::Pending;
                }
                effects.stale_wakers.extend(new.take());
                wait.leave();
                return Poll::Ready(granted);
            }
            let (lent, is_free) = lease.wait(how, permits);
            let position = wait.number().and_then(|number| queue.position_at(number));
            if let Some(position) = position {
                let waiter = new.take().map(|waker| Waiter { waker, lent });
                let old = std::mem::replace(&mut position.waiter, waiter);
                position.job = job.map(Box::new);
                queue.expects_more = true;
                effects.stale_wakers.extend(old.map(|old| old.waker));
            }
            if is_free {
                state.start_ready(ended, effects);
            }
            // A deadline may have passed without a notification: the queue is closed here.
            effects.reject_unstarted_if(ended);
            Poll::Pending
        });
        if granted.is_pending() {
            current::wait_for_permit(scheduler, waker);
        }
        let permit = ready!(granted).then(|| Permit::new(scheduler.clone(), wait.clone()));
        Poll::Ready(match permit {
            Some(permit) if !ended => Ok(permit),
            permit => {
                drop(permit);
                Err(scheduler.why_refused())
            }
        })
    }
}

impl<E> Drop for Waiting<E>
where
    E: GroupError,
{
    fn drop(&mut self) {
        let Waiting {
            scheduler,
            wait,
            lease,
        } = self;
        let ended = scheduler.ctx().is_done();
        scheduler.with_effects(|state, effects| {
            let is_decided = wait.decision().is_some();
            let is_free = match wait.leave() {
                Stage::Waiting => {
                    let number = wait.number();
                    let position = number.and_then(|number| state.source.position_at(number));
                    let waiter = position.and_then(|position| position.waiter.take());
                    effects
                        .stale_wakers
                        .extend(waiter.map(|waiter| waiter.waker));
                    state.source.forget(wait, &mut state.permits, effects);
                    false
                }
                Stage::Admitted => {
                    state.source.end_reservation(wait);
                    state.permits.give_back(wait.reserved_id())
                }
                Stage::New | Stage::Refused | Stage::Dismissed | Stage::Left => false,
            };
            lease.end(is_decided, &mut state.permits, &mut effects.wakers());
            if is_free {
                state.start_ready(ended, effects);
            }
            state.relieve_watcher(effects);
            state.wake_waiter(effects);
        });
    }
}
