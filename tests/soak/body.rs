//! The futures that scenarios run: each has a guard, which records its end.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{self, Poll};

use crate::policy::GiveBack;
use crate::record::Fate;
use crate::watch;
use crate::world::{Fault, Guard, Token};

pub(crate) type Inner = Pin<Box<dyn Future<Output = Result<(), ()>> + Send>>;

/// What is run: a task of a group, or an item of a fan-out.
pub(crate) struct Body {
    inner: Inner,
    /// Dropped before the guard, whose body counts until then.
    gives_back: Option<GiveBack>,
    guard: Guard,
}

impl Body {
    pub(crate) fn new(guard: Guard, inner: Inner) -> Body {
        Body {
            inner,
            gives_back: None,
            guard,
        }
    }

    pub(crate) fn giving_back(mut self, gives_back: Option<GiveBack>) -> Body {
        self.gives_back = gives_back;
        self
    }

    /// `try_go` gave it back.
    pub(crate) fn handed_back(mut self) {
        self.guard.hand_back();
    }
}

impl Future for Body {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.guard.polled();
        let polled = catch_unwind(AssertUnwindSafe(|| self.inner.as_mut().poll(cx)));
        let output = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => output,
            Err(payload) => {
                watch::boom(&*payload);
                self.guard.end(Fate::Panicked);
                resume_unwind(Box::new(self.guard.boom()))
            }
        };
        Poll::Ready(match output {
            Ok(()) => {
                self.guard.end(Fate::Ok);
                Ok(())
            }
            Err(()) => {
                self.guard.end(Fate::Failed);
                Err(Fault::Own(self.guard.id()))
            }
        })
    }
}

/// The same, with a value.
pub(crate) struct Valued(pub(crate) Body);

impl Future for Valued {
    type Output = Result<Token, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.0).poll(cx);
        polled.map(|ended| ended.map(|()| self.0.guard.token()))
    }
}
