//! A run on workers: tasks of the runtime run the items, many at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use tokio::task::coop;

use super::blocking::{Pool, PoolEvent, PoolWait};
use super::call_site::CallSite;
use super::causes::{FAN_OUT_DROPPED, FAN_OUT_FINISHED, FAN_OUT_STOPPED};
use super::collect::{Collector, RunSummary, StreamCollector, Taken, reason};
use super::item_source::{self, ItemSource, Report, Shared};
use super::items::{Next, drop_in};
use super::limit::{Limit, Steering};
use super::run::Run;
use crate::context::Context;
use crate::context::ContextError;
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::group_error::GroupError;
use crate::scheduler::source::Reach;
use crate::sync::{self, Arc, JoinSet};

/// A run of items on workers. The first poll starts it; dropping it aborts the items.
pub(crate) struct SpawnedRun<P, C, T, E>
where
    P: Next<Future: Future<Output = Result<T, E>> + Send + 'static> + Send + 'static,
    C: Collector<T, E, Collected: Send + 'static> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    core: Arc<Scheduler<ItemSource<P, C, T, E>>>,
    stage: Stage,
    /// `None` if no handle can change the limit.
    steering: Option<Steering>,
    /// `None` if the items do not block.
    pool: Option<Box<PoolWait>>,
}

/// What happens to the items in flight when the context is done.
pub(crate) enum AtEnd {
    /// They are dropped after a grace period.
    Drop(Duration),
    /// Their calls are on the pool, and are waited for.
    WaitFor(Arc<Pool>),
}

enum Stage {
    Unstarted,
    /// Holds the workers once every item has finished and the workers are being joined.
    Running(Option<JoinSet<()>>),
    Finished,
}

impl<P, C, T, E> SpawnedRun<P, C, T, E>
where
    P: Next<Future: Future<Output = Result<T, E>> + Send + 'static> + Send + 'static,
    C: Collector<T, E, Collected: Send + 'static> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    pub(crate) fn new(
        parent: &Context,
        pull: Pin<Box<P>>,
        collector: C,
        report: Option<Report>,
        call_site: CallSite,
        limit: Limit,
        at_end: AtEnd,
    ) -> Self {
        let (ctx, guard) = parent.with_cancel();
        let (limit, steering) = limit.into_run();
        let (grace, pool) = match at_end {
            AtEnd::Drop(grace) => (Some(grace), None),
            AtEnd::WaitFor(pool) => (None, Some(Box::new(PoolWait::new(pool, &ctx)))),
        };
        let keeps_permits = report.is_none() && steering.is_none();
        let shared = Shared::new(pull, call_site, grace, keeps_permits);
        let source = ItemSource::new(collector, shared.iter.left(), shared.kind, report);
        let core = Scheduler::new(source, shared, (ctx, guard.disarm()), limit, C::ON_FAILURE);
        #[cfg(feature = "inspect")]
        core.register(
            &core.shared.call_site.span,
            crate::registry::GroupKind::FanOut,
            core.shared.call_site.site,
        );
        SpawnedRun {
            core,
            stage: Stage::Unstarted,
            steering,
            pool,
        }
    }

    /// Starts the run at the first poll.
    fn start(&mut self) {
        if let Stage::Unstarted = self.stage {
            self.core.bind("a fan-out");
            self.stage = Stage::Running(None);
            self.core.with_effects(|state, effects| {
                state.source.check_decided(effects);
                if let Some(grace) = self.core.shared.grace {
                    state.begin_with_grace(grace);
                }
            });
            self.core.subscribe();
            let has_spawned = match &self.steering {
                // No permit is taken before its item is pulled: the limit may be lowered meanwhile.
                Some(steering) => {
                    steering.follow(self.core.clone());
                    self.core.spawn_first(0)
                }
                None if C::BATCHES && self.core.shared.has_quiet_starts() => {
                    self.core.spawn_one_item_workers(sync::FEW_ITEMS)
                }
                None => self.core.spawn_first(sync::FEW_ITEMS),
            };
            if !has_spawned {
                self.core.start_ready();
            }
            // After the spawns, which wake other workers, or show that the runtime has shut down.
            self.core.start_deadline_timer();
        }
    }

    /// Waits until every item has finished and every worker has been joined.
    fn poll_gone(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        if self.pool.is_some() {
            return self.poll_gone_from_pool(cx);
        }
        self.poll_joined(cx)
    }

    fn poll_joined(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        match &mut self.stage {
            Stage::Running(leaving) => self.core.poll_joined(leaving, cx),
            Stage::Unstarted | Stage::Finished => Poll::Ready(()),
        }
    }

    /// Waits for the items of a fan-out that blocks, and until nothing of it is on the pool.
    #[cold]
    fn poll_gone_from_pool(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        // The loop ends: a panic is recorded once each, the items are aborted once, and then
        // nothing is left but to wait.
        loop {
            let is_joined = self.poll_joined(cx).is_ready();
            let Some(pool) = &mut self.pool else {
                return Poll::Ready(());
            };
            if is_joined {
                item_source::drop_items(&self.core);
            }
            match ready!(pool.poll(is_joined, cx)) {
                PoolEvent::Panicked(payload) => item_source::fail(&self.core, payload),
                PoolEvent::NoneBegins => self.core.abort_workers(Reach::All),
                PoolEvent::Idle => return Poll::Ready(()),
            }
        }
    }
}

impl<P, C, T, E> Run<T, E> for SpawnedRun<P, C, T, E>
where
    P: Next<Future: Future<Output = Result<T, E>> + Send + 'static> + Send + 'static,
    C: Collector<T, E, Collected: Send + 'static> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    type Collector = C;

    fn poll_over(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        self.start();
        ready!(self.poll_gone(cx));
        ready!(coop::poll_proceed(cx)).made_progress();
        Poll::Ready(())
    }

    fn poll_outcome(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<Taken<C, T, E>>>
    where
        C: StreamCollector<T, E>,
    {
        self.start();
        let budget = ready!(coop::poll_proceed(cx));
        let taken = self.core.with_effects(|state, effects| {
            let taken = state.source.counts.collector.take();
            if taken.is_some() {
                // There is room for another item. The consumer may block its thread now, so a
                // worker is woken at once.
                state.call_searcher(effects);
            }
            taken
        });
        if taken.is_none() {
            ready!(self.poll_gone(cx));
        }
        budget.made_progress();
        Poll::Ready(taken)
    }

    fn stop(&mut self) {
        if let Stage::Unstarted = self.stage {
            self.core.with_effects(|state, _| state.source.counts.cut());
            self.stage = Stage::Running(None);
        }
        self.core.end_context(&FAN_OUT_STOPPED);
    }

    fn has_panicked(&self) -> bool {
        let pool = self.pool.as_ref();
        self.core.read(|state| state.failures.has_panicked())
            || pool.is_some_and(|pool| pool.has_panicked())
    }

    fn reason(&self) -> ContextError {
        reason(self.core.ctx().err())
    }

    fn finish(&mut self) -> (C, RunSummary<E>) {
        self.stage = Stage::Finished;
        let error = self.core.ctx().err();
        self.core.end_context_if_seen(&FAN_OUT_FINISHED);
        // Before the failures are taken: a panic of a destructor becomes one of them.
        let collector = item_source::take_collector(&self.core);
        let shared = &self.core.shared;
        let left = shared.iter.left().1;
        let (failures, exhausted, decided) = self.core.with_state(|state| {
            let counts = &state.source.counts;
            let (exhausted, decided) = (counts.is_exhausted(), counts.is_decided());
            (state.take_failures(), exhausted, decided)
        });
        let summary = RunSummary {
            failures,
            exhausted,
            left,
            error,
            decided,
            call_site: shared.call_site.clone(),
        };
        (collector, summary)
    }
}

impl<P, C, T, E> Drop for SpawnedRun<P, C, T, E>
where
    P: Next<Future: Future<Output = Result<T, E>> + Send + 'static> + Send + 'static,
    C: Collector<T, E, Collected: Send + 'static> + Send + 'static,
    T: Send + 'static,
    E: GroupError,
{
    fn drop(&mut self) {
        if let Stage::Finished = self.stage {
            return;
        }
        self.core.abort(&FAN_OUT_DROPPED);
        let (reporter, collector) = self.core.with_state(|state| state.source.take_all());
        let shared = &self.core.shared;
        panic::discard(drop_in(&shared.call_site.span, shared.iter.take()));
        panic::discard(drop_in(&shared.call_site.span, reporter));
        panic::discard(collector);
    }
}
