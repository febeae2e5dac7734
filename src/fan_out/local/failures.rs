//! The failures of a local run: errors and panics of items, and panics of the iterator, of the
//! function and of `on_progress`.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use super::LocalRun;
use crate::context::ContextError;
use crate::fan_out::collect::Collector;
use crate::fan_out::item_tag::ItemTag;
use crate::fan_out::items::Next;
use crate::fan_out::progress::Progress;
use crate::panic::{self, Payload};
use crate::scheduler::calls::Failure;
use crate::scheduler::error::{Label, Panic, TaskErrorKind};
use crate::span::{self, TaskSpan};

impl<P, Fut, C, T, E, R> LocalRun<P, Fut, C, T, E, R>
where
    P: Next<Future = Fut>,
    Fut: Future<Output = Result<T, E>>,
    C: Collector<T, E>,
    E: From<ContextError> + Display,
    R: FnMut(Progress),
{
    /// Records a panic of the iterator or the function as that of an item.
    pub(super) fn fail_pull(&mut self, payload: Payload) {
        let number = self.counts.started();
        self.counts.break_at(number);
        let tag = ItemTag::unstarted(number, &self.call_site);
        self.fail(&tag, TaskErrorKind::Panicked(Panic::new(payload)));
    }

    /// Records the panic of an item, and counts it as finished.
    pub(super) fn end_panicked(&mut self, tag: &ItemTag<C::Stopwatch>, payload: Payload) {
        self.end_failed(tag, TaskErrorKind::Panicked(Panic::new(payload)));
    }

    /// Records the failure of an item, and counts it as finished.
    pub(super) fn end_failed(&mut self, tag: &ItemTag<C::Stopwatch>, kind: TaskErrorKind<E>) {
        self.fail(tag, kind);
        self.collect(tag.number, None);
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

    pub(super) fn call_report(&mut self) {
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
    pub(super) fn fail_report(&mut self, payload: Payload) {
        let label = self.call_site.label("on_progress");
        let kind = TaskErrorKind::Panicked(Panic::new(payload));
        self.record(None, label, Duration::ZERO, kind);
    }
}
