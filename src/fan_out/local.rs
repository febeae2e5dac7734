//! A run on the caller's own task, for futures that borrow or are not `Send`.
//!
//! It has the same counts and the same collectors as a run on workers. One task polls all items, so
//! nothing moves while that task does not poll the run.

mod in_flight;
#[cfg(feature = "inspect")]
mod inspected;
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
use super::causes::{FAN_OUT_DROPPED, FAN_OUT_FINISHED, FAN_OUT_STOPPED};
use super::collect::{Collector, RunSummary, StreamCollector, Taken, reason};
use super::item_counts::ItemCounts;
use super::item_tag::ItemTag;
use super::items::{Next, drop_in, poll_pull};
use super::limit::{Limit, Steering};
use super::progress::Progress;
use super::run::Run;
use crate::context::ContextError;
use crate::context::{Cause, Context, OwnedContext};
use crate::panic::{self, Payload};
use crate::scheduler::calls::Failure;
use crate::scheduler::error::{Label, Panic, TaskErrorKind};
use crate::scheduler::failures::Failures;
use crate::scheduler::job;
use crate::span::{self, TaskSpan};
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
        let inspected = inspected::register(ctx.get(), &call_site, limit);
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

    /// Polls for the next item, and puts it into a slot. Returns `None` if there was no item.
    fn poll_pull(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<usize>> {
        // Two instances of the function, so that a big future is boxed at once and is not in the
        // stack frames below.
        if const { job::is_big::<Fut>() } {
            self.poll_pull_as(Box::pin, InFlight::push_big, cx)
        } else {
            self.poll_pull_as(|future| future, InFlight::push_small, cx)
        }
    }

    #[inline]
    fn poll_pull_as<F, Wrap, Push>(
        &mut self,
        wrap: Wrap,
        push: Push,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<usize>>
    where
        Wrap: FnOnce(Fut) -> F,
        Push: FnOnce(&mut InFlight<Fut, C::Stopwatch>, ItemTag<C::Stopwatch>, Option<F>) -> usize,
    {
        let mut item = None;
        let put = |future| item = Some(wrap(future));
        let caller = &self.call_site.span;
        match ready!(poll_pull(&mut self.pull, put, self.ctx.get(), caller, cx)) {
            Ok(Some(left)) => {
                let number = self.counts.started();
                self.counts.start(number, left);
                let tag = ItemTag::started(number, &self.call_site);
                let slot = push(&mut self.in_flight, tag, item);
                self.check_decided();
                self.report();
                return Poll::Ready(Some(slot));
            }
            Ok(None) => {
                self.counts.exhaust(self.counts.started());
                self.check_decided();
            }
            Err(payload) => {
                // There is a future if the size hint panicked.
                panic::discard(item);
                self.fail_pull(payload);
            }
        }
        Poll::Ready(None)
    }

    /// Polls a new item, unless its pull has ended the context: then the item is left to the grace
    /// period. Returns whether the run may poll other items in this step.
    #[inline]
    fn poll_first(&mut self, slot: Option<usize>) -> bool {
        let has_ended = self.ctx.has_ended();
        let Some(slot) = slot else { return !has_ended };
        if has_ended {
            self.in_flight.wake(slot);
            return false;
        }
        match self.in_flight.poll_slot(slot, &mut self.turn) {
            Some(item) => {
                self.end_item(item);
                !self.ctx.has_ended()
            }
            None => true,
        }
    }

    /// Records a panic of the iterator or the function as that of an item.
    fn fail_pull(&mut self, payload: Payload) {
        let number = self.counts.started();
        self.counts.break_at(number);
        let tag = ItemTag::unstarted(number, &self.call_site);
        self.fail(&tag, TaskErrorKind::Panicked(Panic::new(payload)));
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

    /// Records the panic of an item, and counts it as finished.
    fn end_panicked(&mut self, tag: &ItemTag<C::Stopwatch>, payload: Payload) {
        self.end_failed(tag, TaskErrorKind::Panicked(Panic::new(payload)));
    }

    /// Records the failure of an item, and counts it as finished.
    fn end_failed(&mut self, tag: &ItemTag<C::Stopwatch>, kind: TaskErrorKind<E>) {
        self.fail(tag, kind);
        self.collect(tag.number, None);
    }

    /// Counts an item as finished, and hands its value to the collector.
    #[inline]
    fn collect(&mut self, number: usize, collected: Option<C::Collected>) {
        panic::discard(self.counts.collect(number, collected));
        self.check_decided();
        self.report();
    }

    /// Records the failure of an item.
    fn fail(&mut self, tag: &ItemTag<C::Stopwatch>, kind: TaskErrorKind<E>) {
        let (label, elapsed) = tag.describe(&self.call_site);
        self.record(Some(&tag.span), label, elapsed, kind);
    }

    /// Records a failure, and cancels the context if the collector stops at such a failure. The
    /// event is emitted in `span`.
    fn record(
        &mut self,
        span: Option<&TaskSpan>,
        label: Label,
        elapsed: Duration,
        kind: TaskErrorKind<E>,
    ) {
        let failure = Failure {
            label,
            elapsed,
            kind,
            ended: self.ctx.is_done(),
            was_running: false,
            ends_context: true,
            on_pool: None,
        };
        let entered = span::enter(span);
        if let Some(span) = span {
            span.failed(failure.kind.as_failure(), failure.ended);
        }
        let cause = failure.report(C::ON_FAILURE, None);
        drop(entered);
        if failure.is_own() {
            self.counts.fail();
        }
        let (unkept, cause) = self.failures.record(failure, cause);
        panic::discard(unkept);
        if let Some(cause) = cause {
            self.end_context(cause);
        }
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

    fn call_report(&mut self) {
        let Some(report) = &mut self.report else {
            return;
        };
        let progress = self.counts.progress();
        let entered = span::enter_caller(&self.call_site.span);
        let called = panic::catch(|| report(progress));
        drop(entered);
        if let Err(payload) = called {
            let unneeded = self.report.take();
            panic::discard(unneeded);
            self.fail_report(payload);
        }
    }

    /// Records a panic of `on_progress`.
    fn fail_report(&mut self, payload: Payload) {
        let label = self.call_site.label("on_progress");
        let kind = TaskErrorKind::Panicked(Panic::new(payload));
        self.record(None, label, Duration::ZERO, kind);
    }

    /// Stops the pulling, since the context is done. The items in flight are dropped when the grace
    /// period is over.
    fn wind_down(&mut self) {
        self.note_end();
        self.counts.cut();
        if self.grace.is_zero() {
            self.stop();
        } else {
            self.stage = Stage::WindingDown(Box::pin(tokio::time::sleep(self.grace)));
        }
    }

    /// Drops the items in flight and counts them as finished: first those whose destructors
    /// panicked.
    fn stop(&mut self) {
        self.stage = Stage::Stopped;
        let mut aborted = Vec::new();
        for (tag, dropped) in self.in_flight.stop() {
            match dropped {
                Ok(()) => aborted.push(tag),
                Err(payload) => self.end_panicked(&tag, payload),
            }
        }
        let error = reason(self.ctx.get().err());
        for tag in aborted {
            self.end_failed(&tag, TaskErrorKind::Aborted(error.clone()));
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
        self.stage = Stage::Finished;
        let error = self.ctx.get().err();
        let cause = Cause::from_static(&FAN_OUT_FINISHED);
        if let Err(payload) = panic::catch(|| self.ctx.cancel_if_seen(cause)) {
            panic::discard(payload);
        }
        // Before the failures are taken: a panic of a destructor becomes one of them.
        let (pull, report) = self.drop_inputs();
        if let Err(payload) = pull {
            self.fail_pull(payload);
        }
        if let Err(payload) = report {
            self.fail_report(payload);
        }
        let summary = RunSummary {
            failures: std::mem::replace(&mut self.failures, Failures::new()),
            exhausted: self.counts.is_exhausted(),
            left: self.counts.left(),
            error,
            decided: self.counts.is_decided(),
            call_site: self.call_site.clone(),
        };
        (std::mem::take(&mut self.counts.collector), summary)
    }
}

impl<P, Fut, C: Collector<T, E>, T, E, R> LocalRun<P, Fut, C, T, E, R> {
    /// Drops the iterator with the function, and `on_progress`, one after the other. Two
    /// destructors that panic in one drop would abort the process. Returns the panics.
    fn drop_inputs(&mut self) -> (Result<(), Payload>, Result<(), Payload>) {
        let caller = &self.call_site.span;
        let pull = drop_in(caller, self.pull.take());
        (pull, drop_in(caller, self.report.take()))
    }
}

impl<P, Fut, C, T, E, R> Drop for LocalRun<P, Fut, C, T, E, R>
where
    C: Collector<T, E>,
{
    /// Cancels the context before it drops the items in flight, so that their destructors see it
    /// done.
    fn drop(&mut self) {
        if !matches!(self.stage, Stage::Finished) {
            let _ = panic::catch(|| self.ctx.cancel(Cause::from_static(&FAN_OUT_DROPPED)))
                .map_err(panic::discard);
        }
        self.in_flight.stop().into_iter().for_each(panic::discard);
        let (pull, report) = self.drop_inputs();
        panic::discard(pull);
        panic::discard(report);
    }
}

/// Returns pending, and has the task polled again after the runtime's timers and sockets.
fn yield_now<T>(cx: &mut task::Context<'_>) -> Poll<T> {
    sync::wake_after_driver(cx);
    Poll::Pending
}
