//! The source of a fan-out's jobs: items, and the function that makes a future of each.
//!
//! A worker with a permit pulls its item itself, from the [shared iterator](super::shared_iter) and
//! outside the lock of the scheduler. So a slow iterator holds up that worker alone. If a stream
//! has no item yet, the worker that found it pending takes the stream out and waits for the item.
//! Other workers park meanwhile, and are woken when there is something to pull.
//!
//! A slow consumer uses up the limit as well: the items that run and the outcomes that wait for the
//! consumer are at most `limit` together.

mod end;
mod in_use;
mod look;
mod pull;
mod reporter;

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::Waker;
use std::time::Duration;

use super::call_site::CallSite;
use super::collect::Collector;
use super::item_counts::ItemCounts;
use super::item_tag::{ItemTag, Stopwatch};
use super::items::{ItemsKind, Next, SizeHint};
use super::parking::Parking;
use super::pulls::UnusedPermit;
use super::shared_iter::SharedIter;
use super::starts::Starts;
use super::worker::Worker;
use crate::scheduler::Scheduler;
use crate::scheduler::effects::Effects;
use crate::scheduler::effects::Observer;
use crate::scheduler::error::Label;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::permits::Permits;
use crate::scheduler::source::{Reach, Reclaimed, Rejected, Source, Tag};
use crate::scheduler::worker_wakers::WorkerWakers;
use crate::span::TaskSpan;
use crate::sync::{self, Arc};
pub(crate) use end::{drop_items, fail, take_collector};
pub(crate) use reporter::Report;
use reporter::Reporter;

/// The part of the source that the lock of the scheduler guards.
pub(crate) struct ItemSource<P, C, T, E> {
    /// Whether a worker waits for the next item or has found the iterator in use. Then no other
    /// worker is needed.
    blocked: bool,
    /// The waker of the worker that waits for the next item.
    puller: Option<Waker>,
    /// How many permits are out for pulls that have not got an item yet.
    pulling: usize,
    kind: ItemsKind,
    /// Whether a look for the end is due: the worker that runs the last item, by the iterator's own
    /// count, looks whether there is another one after the first poll of that item.
    looks_for_end: bool,
    parking: Parking,
    /// Of the workers that run one item each.
    worker_wakers: WorkerWakers,
    pub(crate) counts: ItemCounts<C>,
    reporter: Option<Reporter>,
    pull: PhantomData<fn() -> P>,
    results: PhantomData<fn() -> (T, E)>,
}

/// The part of the source that the workers share without that lock.
pub(crate) struct Shared<P> {
    pub(crate) call_site: CallSite,
    pub(crate) iter: SharedIter<P>,
    /// How long the items in flight may continue when the context is done; `None` if they are not
    /// dropped for that.
    pub(crate) grace: Option<Duration>,
    /// Whether a worker may keep its permit for its next item. Not if there is an `on_progress`,
    /// which is called at each start and each finish, or a handle that may lower the limit.
    keeps_permits: bool,
    pub(crate) kind: ItemsKind,
    /// Of the workers that run one item each.
    starts: Starts,
}

/// The iterator that a worker has taken out while it waits for the next item.
pub(crate) struct TakenIter<P>(Pin<Box<P>>);

/// Identifies a job of the source.
pub(crate) enum JobTag<W> {
    Item(ItemTag<W>),
    /// The calls of `on_progress`. They are not an item; the tag gives their panic its label.
    OnProgress,
    /// A destructor that has run on the blocking pool. It is not an item.
    Destructor,
    /// A permit for which no item was pulled.
    UnusedPermit,
}

impl<W: Stopwatch> Tag for JobTag<W> {
    fn started(&mut self) {}

    fn span(&self) -> Option<&TaskSpan> {
        match self {
            JobTag::Item(tag) => Some(&tag.span),
            JobTag::OnProgress | JobTag::Destructor | JobTag::UnusedPermit => None,
        }
    }

    fn close_span(&mut self) {
        if let JobTag::Item(tag) = self {
            tag.span.close();
        }
    }
}

impl<P: Next> Shared<P> {
    pub(crate) fn new(
        pull: Pin<Box<P>>,
        call_site: CallSite,
        grace: Option<Duration>,
        keeps_permits: bool,
    ) -> Shared<P> {
        Shared {
            kind: pull.kind(),
            call_site,
            iter: SharedIter::new(pull),
            grace,
            keeps_permits,
            starts: Starts::new(),
        }
    }
}

impl<P> Shared<P> {
    /// Returns whether a few items may get a worker of their own each, which runs no other one: the
    /// start of an item need not be reported at once.
    pub(crate) fn has_quiet_starts(&self) -> bool {
        self.kind == ItemsKind::Iterator && self.keeps_permits
    }

    /// Returns whether an iterator has no more items after one, by its own count.
    fn may_be_last(&self, left: SizeHint) -> bool {
        self.kind == ItemsKind::Iterator && left.1 == Some(0)
    }
}

impl<P, C, T, E> ItemSource<P, C, T, E>
where
    C: Collector<T, E>,
{
    pub(crate) fn new(
        mut collector: C,
        left: SizeHint,
        kind: ItemsKind,
        report: Option<Report>,
    ) -> Self {
        // Values of few items fit into what is reserved here.
        if let Some(few) = left.1.filter(|few| *few <= sync::FEW_ITEMS) {
            collector.expect(few);
        }
        ItemSource {
            blocked: false,
            puller: None,
            pulling: 0,
            kind,
            looks_for_end: false,
            parking: Parking::new(),
            worker_wakers: WorkerWakers::new(),
            counts: ItemCounts::new(collector, left),
            reporter: report.map(|call| Reporter {
                call: Some(call),
                due: 0,
            }),
            pull: PhantomData,
            results: PhantomData,
        }
    }

    /// Takes the `on_progress` and the collector, to be dropped outside the lock.
    pub(crate) fn take_all(&mut self) -> (Option<Reporter>, C) {
        let collector = std::mem::take(&mut self.counts.collector);
        (self.reporter.take(), collector)
    }

    /// Has the context cancelled, if the collector has decided the result.
    pub(crate) fn check_decided(&mut self, effects: &mut Effects) {
        effects.enough = effects.enough.or(self.counts.check_decided());
    }

    /// Returns whether an item may be pulled now.
    fn has_room(&self, permits: &Permits) -> bool {
        let held = permits
            .running()
            .saturating_add(self.counts.collector.waiting());
        self.counts.is_pulling() && !self.blocked && permits.is_free() && held < permits.limit()
    }
}

impl<P, C, T, E> Source for ItemSource<P, C, T, E>
where
    P: Next<Future: Future<Output = Result<T, E>> + Send + 'static> + Send + 'static,
    C: Collector<T, E, Collected: Send + 'static> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    type Error = E;
    type Value = C::Collected;
    type Tag = JobTag<C::Stopwatch>;
    /// There is no work that waits: an item starts when it is pulled.
    type Work = UnusedPermit;
    type Shared = Shared<P>;
    type Worker = Worker<Self>;

    /// Stopping drops no user code: a worker or the task that awaits the fan-out drops the
    /// iterator.
    const ABORTS_ANYWHERE: bool = true;
    const LENDS: bool = false;
    #[cfg(feature = "inspect")]
    const IS_A_CALL: bool = true;

    #[cfg(feature = "inspect")]
    fn name(shared: &Shared<P>) -> Option<String> {
        shared.call_site.name.clone().map(String::from)
    }

    fn worker(core: Arc<Scheduler<Self>>) -> Worker<Self> {
        Worker::searching(core)
    }

    fn start(&mut self, _: &mut Permits, _: &mut Effects) {}

    /// No worker is woken for an item that an iterator does not have by its own count, nor to see
    /// the end while a look for it is due. If nothing runs, a worker is needed whatever the count
    /// says: no other one would see the end.
    fn has_job(&self, permits: &Permits) -> bool {
        let is_needed = match self.counts.left() {
            _ if self.kind == ItemsKind::Stream || permits.running() == 0 => true,
            None => true,
            Some(0) => self.pulling == 0 && !self.looks_for_end,
            Some(left) => left > self.pulling,
        };
        is_needed && self.has_room(permits)
    }

    fn unpark_one(&mut self) -> Option<Waker> {
        self.parking.pop()
    }

    fn has_unstarted(&self) -> bool {
        self.counts.is_pulling()
    }

    fn failed(&mut self) {
        self.counts.fail();
    }

    fn accept(
        &mut self,
        tag: Self::Tag,
        collected: Option<C::Collected>,
        effects: &mut Effects,
    ) -> Option<Arc<dyn Observer>> {
        if let JobTag::Item(tag) = tag {
            if let Some(unneeded) = self.counts.collect(tag.number, collected) {
                effects.drop_later.push(Box::new(unneeded));
            }
            self.check_decided(effects);
            self.report_due(effects);
        }
        None
    }

    fn has_outcome(&self) -> bool {
        self.counts.collector.is_ready()
    }

    fn take_unstarted(
        &mut self,
        _: &mut Permits,
        effects: &mut Effects,
    ) -> Vec<(Self::Tag, UnusedPermit)> {
        self.counts.cut();
        effects.wake.extend(self.puller.take());
        effects.wake.extend(self.parking.drain());
        Vec::new()
    }

    fn dispose(core: &Arc<Scheduler<Self>>, _: Rejected<Self>) {
        core.return_permit();
    }

    fn reclaim(&mut self, _: Reach, effects: &mut Effects) -> Reclaimed<Self> {
        effects.wake.extend(self.worker_wakers.take_all());
        Reclaimed {
            works: Vec::new(),
            lost: Vec::new(),
            tasks: Vec::new(),
        }
    }

    fn has_report(&self) -> bool {
        let reporter = self.reporter.as_ref();
        reporter.is_some_and(|reporter| reporter.due > 0 && reporter.call.is_some())
    }

    fn is_reporting(&self) -> bool {
        let reporter = self.reporter.as_ref();
        reporter.is_some_and(|reporter| reporter.due > 0 || reporter.call.is_none())
    }

    fn report(core: &Arc<Scheduler<Self>>) {
        reporter::report(core);
    }

    fn describe(shared: &Shared<P>, tag: &Self::Tag) -> (Label, Duration) {
        match tag {
            JobTag::Item(tag) => tag.describe(&shared.call_site),
            JobTag::OnProgress => (shared.call_site.label("on_progress"), Duration::ZERO),
            JobTag::Destructor => (shared.call_site.label("a destructor"), Duration::ZERO),
            JobTag::UnusedPermit => (shared.call_site.label("a permit"), Duration::ZERO),
        }
    }
}
