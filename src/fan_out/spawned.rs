//! A run on workers: tasks of the runtime run the items, many at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use tokio::task::coop;

use super::call_site::CallSite;
use super::causes::{FAN_OUT_DROPPED, FAN_OUT_FINISHED};
use super::collect::{Collector, ItemOutcome, RunSummary, StreamCollector, reason};
use super::item_source::{self, ItemSource, Report, Shared};
use super::items::{Next, drop_in};
use super::run::Run;
use crate::context::Context;
use crate::context::ContextError;
use crate::panic;
use crate::scheduler::Scheduler;
use crate::scheduler::source::GroupError;
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
        limit: usize,
        grace: Duration,
    ) -> Self {
        let (ctx, guard) = parent.with_cancel();
        let shared = Shared::new(pull, call_site, grace, report.is_some());
        let source = ItemSource::new(collector, shared.iter.left(), shared.kind, report);
        SpawnedRun {
            core: Scheduler::new(source, shared, (ctx, guard.disarm()), limit, C::ON_FAILURE),
            stage: Stage::Unstarted,
        }
    }

    /// Starts the run at the first poll.
    fn start(&mut self) {
        if let Stage::Unstarted = self.stage {
            self.core.bind("a fan-out");
            self.stage = Stage::Running(None);
            self.core.with_effects(|state, effects| {
                state.source.check_decided(effects);
                state.begin_with_grace(self.core.shared.grace, effects);
            });
            let has_spawned = if C::BATCHES && self.core.shared.has_quiet_starts() {
                self.core.spawn_one_item_workers(sync::FEW_ITEMS)
            } else {
                self.core.spawn_first(sync::FEW_ITEMS)
            };
            if !has_spawned {
                self.core.start_ready();
            }
        }
    }

    /// Waits until every item has finished and every worker has been joined.
    fn poll_gone(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        match &mut self.stage {
            Stage::Running(leaving) => self.core.poll_joined(leaving, cx),
            Stage::Unstarted | Stage::Finished => Poll::Ready(()),
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

    fn poll_outcome(&mut self, cx: &mut task::Context<'_>) -> Poll<Option<ItemOutcome<T, E>>>
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

    fn has_panicked(&self) -> bool {
        self.core.read(|state| state.failures.has_panicked())
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
