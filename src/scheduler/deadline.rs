//! The timer of a deadline: it calls the scheduler when the deadline of its context has passed.
//!
//! A deadline that passes notifies nothing, so it has to be waited for. No task waits: the waker of
//! a timer calls the scheduler itself, on the thread that polls the timers of the runtime. So it
//! costs no spawn, and the deadline is kept while tasks and callers compute, as long as one worker
//! is free to poll the timers.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{self, Poll, Wake, Waker};

use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::panic;
use crate::sync::{Arc, Handle, Weak};

/// What is called when the timer fires.
pub(super) trait DeadlineObserver: Send + Sync {
    /// Handles that the deadline may have passed. A runtime that shuts down fires all its timers,
    /// so the observer looks at its context.
    fn deadline_passed(self: Arc<Self>);
}

/// A timer that runs. Dropping it stops it.
///
/// It is polled once, without regard to the budget of the calling task: without budget it would not
/// start.
pub(super) struct DeadlineTimer(
    #[expect(dead_code, reason = "it is held for its destructor")] Pin<Box<Sleep>>,
);

impl DeadlineTimer {
    /// Starts a timer on the runtime. Returns `None` if the timer has fired already.
    ///
    /// # Panics
    ///
    /// Panics if the runtime has no timer.
    pub(super) fn start(
        at: Instant,
        runtime: &Handle,
        observer: Weak<dyn DeadlineObserver>,
    ) -> Option<DeadlineTimer> {
        // The caller may be on a thread of no runtime, or of another one.
        let _entered = runtime.enter();
        let mut timer = Box::pin(sleep_until(at));
        let waker = Waker::from(Arc::new(CallObserver(observer)));
        let mut cx = task::Context::from_waker(&waker);
        match panic::catch(|| pin!(coop::unconstrained(&mut timer)).poll(&mut cx)) {
            Ok(Poll::Ready(())) => None,
            Ok(Poll::Pending) => Some(DeadlineTimer(timer)),
            // The runtime has shut down since the caller looked: tokio panics then. The tasks are
            // gone with it, so a timer that never fires does no harm.
            Err(payload) => {
                panic::discard(payload);
                Some(DeadlineTimer(timer))
            }
        }
    }
}

/// The waker of the timer. The observer owns the timer, so this does not keep the observer alive.
struct CallObserver(Weak<dyn DeadlineObserver>);

impl Wake for CallObserver {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // A panic would end the thread that runs the timers. This may be the last owner of the
        // observer, so its destructor runs inside, too.
        let called = panic::catch(|| {
            if let Some(observer) = self.0.upgrade() {
                observer.deadline_passed();
            }
        });
        if let Err(payload) = called {
            panic::discard(payload);
        }
    }
}
