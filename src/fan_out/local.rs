//! A run on the caller's own task, for futures that borrow or are not `Send`.
//!
//! It has the same counts and the same collectors as a run on workers. One task polls all items, so
//! nothing moves while that task does not poll the run.

mod end;
mod failures;
mod in_flight;
#[cfg(feature = "inspect")]
mod inspected;
mod pull;
mod slots;
mod turn;
mod wakes;

use std::fmt::Display;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use tokio::task::coop;
use tokio::time::Sleep;

use super::call_site::CallSite;
use super::causes::FAN_OUT_STOPPED;
use super::collect::{Collector, RunSummary, StreamCollector, Taken, reason};
use super::item_counts::ItemCounts;
use super::items::Next;
use super::limit::{Limit, Steering};
use super::progress::Progress;
use super::run::Run;
use crate::context::ContextError;
use crate::context::{Cause, Context, OwnedContext};
use crate::panic;
use crate::scheduler::failures::Failures;
use crate::sync;
use in_flight::InFlight;
use slots::{Ended, Polled};
use turn::Turn;

/// A run of items on the task that polls it.
///
/// The type of the items' futures is a parameter of its own, and neither the struct nor its `Drop`
/// requires `P: Next`. Otherwise the compiler would have to show that a closure over borrowed items
/// is a function for every lifetime, to see whether this is `Send` inside another future. It cannot
/// show that, and reports that the "implementation of `FnOnce` is not general enough".
pub(crate) struct LocalRun<P, Fut, C, T, E, R>
where
    C: Collector<T, E>,
{
    ctx: OwnedContext,
    in_flight: InFlight<Fut, C::Stopwatch>,
    turn: Turn,
    pull: Option<Pin<Box<P>>>,
    counts: ItemCounts<C>,
    failures: Failures<E>,
    report: Option<Box<R>>,
    call_site: CallSite,
    /// The limit, as it was read last.
    limit: usize,
    /// `None` if no handle can change the limit.
    steering: Option<Steering>,
    grace: Duration,
    stage: Stage,
    #[cfg(feature = "inspect")]
    inspected: inspected::InspectedRun,
    result: PhantomData<fn() -> T>,
}

// Nothing is pinned in place: the futures are in boxes of `in_flight`, and the iterator and the
// timer are in boxes.
impl<P, Fut, C: Collector<T, E>, T, E, R> Unpin for LocalRun<P, Fut, C, T, E, R> {}

/// An item that has returned or has panicked.
type EndedItem<Fut, W> = Ended<<Fut as Future>::Output, W>;

enum Stage {
    Unstarted,
    Running,
    /// The context is done. The items in flight may continue until the timer fires.
    WindingDown(Pin<Box<Sleep>>),
    /// The context is done, and the items in flight were dropped.
    Stopped,
    Finished,
}

/// The result of one step of the run.
enum Step {
    /// Something has changed, so the run takes another step.
    Moved,
    /// The run is over.
    Over,
}

impl<P, Fut, C, T, E, R> LocalRun<P, Fut, C, T, E, R>
where
    P: Next<Future = Fut>,
    Fut: Future<Output = Result<T, E>>,
    C: Collector<T, E>,
    E: From<ContextError> + Display,
    R: FnMut(Progress),
{
    pub(crate) fn new(
        parent: &Context,
        pull: Pin<Box<P>>,
        collector: C,
        report: Option<Box<R>>,
        call_site: CallSite,
        limit: Limit,
        grace: Duration,
    ) -> Self {
        let (limit, steering) = limit.into_run();
        let ctx = OwnedContext::child_of(parent);
        #[cfg(feature = "inspect")]
        let inspected = {
            let steering = steering.as_ref().map(Steering::handle);
            inspected::register(ctx.get(), &call_site, limit, steering, grace)
        };
        LocalRun {
            #[cfg(feature = "inspect")]
            inspected,
            ctx,
            in_flight: InFlight::new(),
            turn: Turn::new(),
            counts: ItemCounts::new(collector, pull.size_hint()),
            pull: Some(pull),
            failures: Failures::new(),
            report,
            call_site,
            limit,
            steering,
            grace,
            stage: Stage::Unstarted,
            result: PhantomData,
        }
    }

    /// Runs until there is an outcome for the consumer or the run is over. Yields when it has run
    /// for as long as one poll may take.
    fn poll_on(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let polled = self.poll_steps(cx);
        if polled.is_pending() {
            self.turn.end();
        }
        polled
    }

    fn poll_steps(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        loop {
            // An outcome that is ready is handed out even if the budget is used up.
            if !self.counts.collector.is_ready() && self.turn.is_used_up() {
                return yield_now(cx);
            }
            // The loop ends: each step changes something and consumes the task's budget.
            let budget = ready!(coop::poll_proceed(cx));
            let is_over =
                !self.counts.collector.is_ready() && matches!(ready!(self.step(cx)), Step::Over);
            budget.made_progress();
            if is_over || self.counts.collector.is_ready() {
                return Poll::Ready(());
            }
        }
    }

    fn step(&mut self, cx: &mut task::Context<'_>) -> Poll<Step> {
        if matches!(self.stage, Stage::Unstarted) {
            self.stage = Stage::Running;
            self.check_decided();
        }
        match &mut self.stage {
            Stage::Unstarted | Stage::Running => {
                if self.ctx.is_done() {
                    self.wind_down();
                    return Poll::Ready(Step::Moved);
                }
            }
            Stage::WindingDown(timer) => {
                if timer.as_mut().poll(cx).is_ready() {
                    self.stop();
                    return Poll::Ready(Step::Moved);
                }
            }
            Stage::Stopped => {}
            Stage::Finished => return Poll::Ready(Step::Over),
        }
        // Starts one item and then polls those that were woken. If all items were started first, an
        // infinite iterator would keep the others from being polled again. If those that were woken
        // came first, items that wake themselves would keep the others from being started.
        let mut pulled = false;
        if let Some(steering) = &self.steering {
            self.limit = steering.limit();
        }
        if self.has_room() {
            if let Poll::Ready(slot) = self.poll_pull(cx) {
                pulled = true;
                if !self.poll_first(slot) {
                    return Poll::Ready(Step::Moved);
                }
            }
        }
        match self.in_flight.poll_woken(&mut self.turn) {
            Polled::Ended(item) => {
                self.end_item(item);
                Poll::Ready(if self.is_over() {
                    Step::Over
                } else {
                    Step::Moved
                })
            }
            _ if pulled => Poll::Ready(Step::Moved),
            Polled::UsedUp => yield_now(cx),
            Polled::Idle if self.is_over() => Poll::Ready(Step::Over),
            Polled::Idle => self.wait(cx),
        }
    }

    /// Waits for an item in flight or for the end of the context. What else the run waits for, the
    /// next item or the timer of the grace period, has the waker already.
    fn wait(&mut self, cx: &mut task::Context<'_>) -> Poll<Step> {
        if matches!(self.stage, Stage::Running) && self.ctx.poll_parent_done(cx).is_ready() {
            self.wind_down();
            return Poll::Ready(Step::Moved);
        }
        let steering = self.steering.as_ref();
        if steering.is_some_and(|it| !it.wake_at_change(self.limit, cx.waker())) {
            return Poll::Ready(Step::Moved);
        }
        if self.in_flight.wait(cx.waker()) {
            Poll::Pending
        } else {
            Poll::Ready(Step::Moved)
        }
    }

    /// Returns whether no item is in flight and none is to be pulled.
    fn is_over(&self) -> bool {
        !self.counts.is_pulling() && self.in_flight.len() == 0
    }

    /// Returns whether an item may be pulled now.
    fn has_room(&self) -> bool {
        let held = self.in_flight.len() + self.counts.collector.waiting();
        self.counts.is_pulling() && held < self.limit
    }

    /// Counts an item that has returned or panicked as finished.
    #[inline]
    fn end_item(&mut self, item: EndedItem<Fut, C::Stopwatch>) {
        match item.result.map(C::classify) {
            Ok(Ok(collected)) => self.collect(item.tag.number, Some(collected)),
            Ok(Err(kind)) => self.end_failed(&item.tag, kind),
            Err(payload) => self.end_panicked(&item.tag, payload),
        }
    }

    /// Counts an item as finished, and hands its value to the collector.
    #[inline]
    fn collect(&mut self, number: usize, collected: Option<C::Collected>) {
        panic::discard(self.counts.collect(number, collected));
        self.check_decided();
        self.report();
    }

    /// Cancels the context if the collector has decided the result.
    fn check_decided(&mut self) {
        if let Some(why) = self.counts.check_decided() {
            self.end_context(Cause::from_static(why));
        }
    }

    /// Cancels the context. A panic of a waker that this wakes is discarded: it is not the fault of
    /// an item.
    fn end_context(&mut self, cause: Cause) {
        if let Err(payload) = panic::catch(|| self.ctx.cancel(cause)) {
            panic::discard(payload);
        }
        self.note_end();
    }

    /// Notes for a recorder how the context has ended.
    #[inline]
    fn note_end(&self) {
        #[cfg(feature = "inspect")]
        self.inspected.note_end();
    }

    /// Calls `on_progress`, if there is one.
    #[inline]
    fn report(&mut self) {
        if self.report.is_some() {
            self.call_report();
        }
    }
}

impl<P, Fut, C, T, E, R> Run<T, E> for LocalRun<P, Fut, C, T, E, R>
where
    P: Next<Future = Fut>,
    Fut: Future<Output = Result<T, E>>,
    C: Collector<T, E>,
    E: From<ContextError> + Display,
    R: FnMut(Progress),
{
    type Collector = C;

    fn poll_over(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        self.poll_on(cx)
    }

    fn poll_outcome(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Taken<C, T, E>>>
    where
        C: StreamCollector<T, E>,
    {
        ready!(self.poll_on(cx));
        Poll::Ready(self.counts.collector.take())
    }

    fn stop(&mut self) {
        if let Stage::Unstarted = self.stage {
            self.counts.cut();
            self.stage = Stage::Stopped;
        }
        self.end_context(Cause::from_static(&FAN_OUT_STOPPED));
    }

    fn has_panicked(&self) -> bool {
        self.failures.has_panicked()
    }

    fn reason(&self) -> ContextError {
        reason(self.ctx.get().err())
    }

    fn finish(&mut self) -> (C, RunSummary<E>) {
        self.end()
    }
}

/// Returns pending, and has the task polled again after the runtime's timers and sockets.
fn yield_now<T>(cx: &mut task::Context<'_>) -> Poll<T> {
    sync::wake_after_driver(cx);
    Poll::Pending
}
