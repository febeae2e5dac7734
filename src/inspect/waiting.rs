//! What a task waits for, in its own words.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use pin_project_lite::pin_project;

#[cfg(feature = "inspect")]
use crate::registry;

/// Names what a task waits for while `future` is pending.
///
/// The label appears in the snapshot, beside the task in which the future is polled: `waits for "db
/// pool" for 3.1 s`. Outside a task of this crate it is not shown. Without feature `inspect`, this
/// returns `future` in a wrapper that only polls it, and `label` is dropped.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// # async fn get_connection() -> u32 { 7 }
/// let connection = errgroup::inspect::waiting("db pool", get_connection()).await;
/// # assert_eq!(connection, 7);
/// # }
/// ```
///
/// # Cancel safety
///
/// This has the cancel safety of `future`.
pub fn waiting<F: Future>(label: impl Into<Cow<'static, str>>, future: F) -> Waiting<F> {
    Waiting {
        future,
        note: Note::new(label),
    }
}

pin_project! {
    /// The future of [`waiting`].
    #[must_use = "a future does nothing unless it is awaited"]
    pub struct Waiting<F> {
        #[pin]
        future: F,
        note: Note,
    }
}

impl<F: Future> Future for Waiting<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let polled = this.future.poll(cx);
        this.note.set(polled.is_pending());
        polled
    }
}

impl<F> fmt::Debug for Waiting<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

/// The note in the registry. It is there while the future is pending.
#[cfg(feature = "inspect")]
struct Note {
    label: Cow<'static, str>,
    waits: Option<registry::Waits>,
}

#[cfg(feature = "inspect")]
impl Note {
    fn new(label: impl Into<Cow<'static, str>>) -> Note {
        Note {
            label: label.into(),
            waits: None,
        }
    }

    fn set(&mut self, is_pending: bool) {
        if !is_pending {
            self.waits = None;
        } else if self.waits.is_none() {
            self.waits = registry::Waits::begin(self.label.clone());
        }
    }
}

#[cfg(not(feature = "inspect"))]
struct Note;

#[cfg(not(feature = "inspect"))]
impl Note {
    fn new(_: impl Into<Cow<'static, str>>) -> Note {
        Note
    }

    fn set(&mut self, _: bool) {}
}
