//! The only file that touches unwinding.
//!
//! Four questions, answered once for the whole crate:
//!
//! - *Who sees a panic?* Whoever waits: `wait` and the fan-outs resume it with its payload.
//! - *Which one wins?* The first. Later ones are counted as failures, their payloads discarded.
//! - *Do the siblings run on?* They are asked to stop at the instant of the panic, as at a failure.
//! - *When does the call that resumes it return?* When every task has ended.
//!
//! With `panic = "abort"` nothing here ever catches anything, and nothing else depends on it.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{self, AssertUnwindSafe};
use std::task::Waker;

/// What a panic carries.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Runs `f` and hands back its panic as a value.
///
/// `AssertUnwindSafe` holds because of what callers do with a panic: they never touch again what `f` was working on,
/// except to drop it.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Payload> {
    panic::catch_unwind(AssertUnwindSafe(f))
}

/// Goes on with a panic that was caught, without calling the panic hook a second time.
pub(crate) fn resume(payload: Payload) -> ! {
    panic::resume_unwind(payload)
}

/// The text of a panic, where it has one.
pub(crate) fn text(payload: &Payload) -> Cow<'static, str> {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        Cow::Borrowed(text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        Cow::Owned(text.clone())
    } else {
        Cow::Borrowed("(a panic whose payload is not text)")
    }
}

/// Wakes somebody, user code that may panic, where that must not undo what is being done for everybody else.
pub(crate) fn wake(waker: Waker) {
    if let Err(payload) = catch(|| waker.wake()) {
        discard(payload);
    }
}

/// Drops `value`, user code whose destructor may panic, where nobody could be told of that panic.
///
/// A payload may itself panic when it is dropped, and so may the payload of *that*; the second one is leaked, so that
/// this ends.
pub(crate) fn discard<T>(value: T) {
    if let Err(payload) = catch(|| drop(value)) {
        if let Err(second) = catch(|| drop(payload)) {
            std::mem::forget(second);
        }
    }
}

/// How something ended that was dropped after it: of two panics, the first is the one that counts.
pub(crate) fn first<T>(
    ended: Result<T, Payload>,
    dropped: Result<(), Payload>,
) -> Result<T, Payload> {
    match (ended, dropped) {
        (Ok(output), Ok(())) => Ok(output),
        (Err(payload), dropped) => {
            discard(dropped);
            Err(payload)
        }
        (Ok(output), Err(payload)) => {
            discard(output);
            Err(payload)
        }
    }
}
