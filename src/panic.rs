//! The only file that catches and resumes panics.
//!
//! The rules for panics of tasks are the same in the whole crate:
//!
//! - The call that waits, `wait` or a fan-out, resumes the panic with its payload.
//! - The first panic wins. Later ones are counted as failures, and their payloads are discarded.
//! - The context of the siblings is cancelled at the instant of the panic, as at a failure.
//! - The call that resumes the panic does so only after every task has ended.
//!
//! With `panic = "abort"` nothing is ever caught here, and no other code depends on it.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{self, AssertUnwindSafe};
use std::task::Waker;

/// The payload of a panic.
pub(crate) type Payload = Box<dyn Any + Send>;

/// Runs `f` and returns its panic as a value.
///
/// `AssertUnwindSafe` is right because of what the callers do after a panic: they do not use again
/// what `f` was working on, except to drop it.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Payload> {
    panic::catch_unwind(AssertUnwindSafe(f))
}

/// Resumes a panic that was caught, without calling the panic hook a second time.
pub(crate) fn resume(payload: Payload) -> ! {
    panic::resume_unwind(payload)
}

/// Returns the text of a panic, or a placeholder if its payload is not a text.
pub(crate) fn text(payload: &Payload) -> Cow<'static, str> {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        Cow::Borrowed(text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        Cow::Owned(text.clone())
    } else {
        Cow::Borrowed("(a panic whose payload is not text)")
    }
}

/// Wakes `waker`, and discards its panic. A waker is user code, and its panic must not keep the
/// caller from waking the others.
pub(crate) fn wake(waker: Waker) {
    if let Err(payload) = catch(|| waker.wake()) {
        discard(payload);
    }
}

/// Drops `value`, and discards a panic of its destructor, where there is no caller to resume it in.
///
/// A payload may itself panic when it is dropped, and so may the payload of *that* panic. The
/// second payload is leaked, so that this function returns.
pub(crate) fn discard<T>(value: T) {
    if !std::mem::needs_drop::<T>() {
        return;
    }
    if let Err(payload) = catch(|| drop(value)) {
        if let Err(second) = catch(|| drop(payload)) {
            std::mem::forget(second);
        }
    }
}

/// Combines the outcome of a piece of work with the outcome of dropping it afterwards. Of two
/// panics, the first one wins.
#[inline]
pub(crate) fn first<T>(
    ended: Result<T, Payload>,
    dropped: Result<(), Payload>,
) -> Result<T, Payload> {
    match dropped {
        Ok(()) => ended,
        Err(payload) => Err(first_of(ended, payload)),
    }
}

#[cold]
fn first_of<T>(ended: Result<T, Payload>, dropped: Payload) -> Payload {
    match ended {
        Ok(output) => {
            discard(output);
            dropped
        }
        Err(payload) => {
            discard(dropped);
            payload
        }
    }
}
