//! The handlers of a layer as a phase of a drain.

use std::borrow::Cow;
use std::pin::Pin;
use std::task::{self, Poll};

use super::Handlers;
use crate::context::Cause;
use crate::group::drain::sealed::{Draining, IntoPhase};
use crate::group::drain::{DrainPhase, DrainedPhase, SHUTTING_DOWN};

impl DrainPhase for Handlers {}

impl IntoPhase for Handlers {
    fn into_phase(self) -> Box<dyn Draining> {
        Box::new(HandlersPhase {
            handlers: self,
            idle: None,
        })
    }
}

struct HandlersPhase {
    handlers: Handlers,
    /// Waits for the last handler. `None` before the first poll.
    idle: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Draining for HandlersPhase {
    /// Does nothing: a server may answer any number of requests before its phase begins.
    fn observe(&mut self) {}

    fn begin(&mut self) {
        self.handlers.shared.counts.close();
    }

    fn cancel(&mut self) {
        self.handlers
            .shared
            .cancel(Cause::from_static(&SHUTTING_DOWN));
    }

    fn abort(&mut self) {
        self.handlers.shared.abort();
    }

    fn poll_ended(&mut self, cx: &mut task::Context<'_>) -> Poll<()> {
        let counts = &self.handlers.shared.counts;
        let idle = self.idle.get_or_insert_with(|| {
            let counts = counts.clone();
            Box::pin(async move { counts.idle().await })
        });
        if counts.running() == 0 {
            return Poll::Ready(());
        }
        idle.as_mut().poll(cx)
    }

    fn into_report(self: Box<Self>, name: Cow<'static, str>) -> DrainedPhase {
        let counts = &self.handlers.shared.counts;
        counts.report(name)
    }
}
