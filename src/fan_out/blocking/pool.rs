//! What a fan-out has on the blocking pool, and the wait until that has ended.

use std::fmt;
use std::task::{self, Poll, Waker};

use crate::panic::{self, Payload};
use crate::scheduler::parcel;
use crate::span::{self, Span};
use crate::sync::{Arc, Handle, Mutex};

/// Counts what a fan-out has given to the pool.
#[expect(unnameable_types, reason = "a method of a sealed trait returns it")]
pub struct Pool {
    state: Mutex<State>,
}

struct State {
    /// How much the pool has, or will get, that holds user code.
    out: usize,
    /// How many closures have begun and have not handed their result to their item.
    begun: usize,
    /// The first panic of a destructor on the pool.
    panic: Option<Payload>,
    /// The task that waits for the fan-out, and what it waits for.
    waiter: Option<(Waker, WaitFor)>,
}

/// What the fan-out waits for. It is woken for a panic in any case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitFor {
    Panic,
    NoneBegun,
    /// Nothing of the fan-out is on the pool.
    Idle,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl State {
    fn is_ready(&self, wait_for: WaitFor) -> bool {
        let reached = match wait_for {
            WaitFor::Panic => false,
            WaitFor::NoneBegun => self.begun == 0,
            WaitFor::Idle => self.out == 0,
        };
        reached || self.panic.is_some()
    }
}

impl Pool {
    pub(crate) fn new() -> Arc<Pool> {
        Arc::new(Pool {
            state: Mutex::new(State {
                out: 0,
                begun: 0,
                panic: None,
                waiter: None,
            }),
        })
    }

    /// Waits. Is ready also if there is a panic to take.
    pub(crate) fn poll(&self, wait_for: WaitFor, cx: &mut task::Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let mut state = self.state.lock();
        let old = if state.is_ready(wait_for) {
            drop(state);
            panic::discard(waker);
            return Poll::Ready(());
        } else {
            state.waiter.replace((waker, wait_for))
        };
        drop(state);
        panic::discard(old);
        Poll::Pending
    }

    pub(crate) fn take_panic(&self) -> Option<Payload> {
        self.state.lock().panic.take()
    }

    pub(crate) fn has_panic(&self) -> bool {
        self.state.lock().panic.is_some()
    }

    /// Changes the state, and wakes the waiter if it has what it waits for.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        let output = change(&mut state);
        let is_ready = match &state.waiter {
            Some((_, wait_for)) => state.is_ready(*wait_for),
            None => false,
        };
        let waiter = if is_ready { state.waiter.take() } else { None };
        drop(state);
        if let Some((waker, _)) = waiter {
            panic::wake(waker);
        }
        output
    }

    /// Drops a value, and keeps the panic of its destructor if it is the first one.
    pub(super) fn drop_here<T>(&self, value: T) {
        if let Err(payload) = panic::catch(|| drop(value)) {
            let unkept = self.change(|state| match state.panic {
                None => {
                    state.panic = Some(payload);
                    None
                }
                Some(_) => Some(payload),
            });
            panic::discard(unkept);
        }
    }

    /// Has a value dropped on a thread of the pool, because its destructor may block. If there is
    /// no runtime, it is dropped here.
    pub(super) fn drop_there<T: Send + 'static>(self: &Arc<Self>, value: T) {
        let unwanted = Unwanted {
            value: Some(value),
            span: Span::current(),
            out: Out::new(self),
        };
        let runtime = match Handle::try_current() {
            Ok(runtime) => runtime,
            Err(_) => return drop(unwanted),
        };
        // Without a thread for it, there is no better place than this one.
        let (passed, refused) = parcel::hand_over(&runtime, unwanted, drop);
        panic::discard(passed);
        drop(refused);
    }
}

/// Counts something as out until it is dropped.
pub(super) struct Out {
    pool: Arc<Pool>,
}

impl Out {
    pub(super) fn new(pool: &Arc<Pool>) -> Out {
        pool.change(|state| state.out += 1);
        Out { pool: pool.clone() }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.pool.change(|state| state.out -= 1);
    }
}

/// Counts a closure as begun until it is dropped.
pub(super) struct Begun {
    pool: Arc<Pool>,
}

impl Begun {
    pub(super) fn new(pool: &Arc<Pool>) -> Begun {
        pool.change(|state| state.begun += 1);
        Begun { pool: pool.clone() }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.pool.change(|state| state.begun -= 1);
    }
}

/// A value that is to be dropped on the pool, in the span of the code that has dropped it.
struct Unwanted<T> {
    value: Option<T>,
    span: Span,
    out: Out,
}

impl<T> Drop for Unwanted<T> {
    fn drop(&mut self) {
        let _entered = span::enter_caller(&self.span);
        self.out.pool().drop_here(self.value.take());
    }
}

/// A value of the fan-out that is dropped on a thread of the pool.
pub(crate) struct DropThere<T: Send + 'static> {
    value: Option<T>,
    pool: Arc<Pool>,
    /// Whether its destructor does something.
    needs_thread: bool,
}

impl<T: Send + 'static> DropThere<T> {
    pub(super) fn new(value: T, needs_thread: bool, pool: &Arc<Pool>) -> DropThere<T> {
        DropThere {
            value: Some(value),
            pool: pool.clone(),
            needs_thread,
        }
    }

    pub(super) fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    pub(super) fn get_mut(&mut self) -> Option<&mut T> {
        self.value.as_mut()
    }
}

impl<T: Send + 'static> Drop for DropThere<T> {
    fn drop(&mut self) {
        match self.value.take() {
            Some(value) if self.needs_thread => self.pool.drop_there(value),
            value => drop(value),
        }
    }
}
