//! The search for a [`ContextError`](super::ContextError) inside another error.
//!
//! An error that displays as a `ContextError` (`#[error(transparent)]`, or a task's error) returns
//! that error's *source* as its own, so a walk along `source()` passes the `ContextError` by. The
//! type of the outer error is not known, so it cannot be looked into. But its `source()` calls that
//! of the `ContextError`, which returns itself while a search is on.

use std::cell::Cell;
use std::error::Error;

use super::cause::inside;
use crate::sync::thread_static;

thread_static! {
    static SEARCHING: Cell<bool> = Cell::new(false);
}

/// Returns whether this thread is inside `next`.
pub(crate) fn is_searching() -> bool {
    SEARCHING.with(Cell::get)
}

/// Returns the next error of a search: the one inside a wrapper, or the source.
pub(super) fn next<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    inside(error).or_else(|| {
        let _search = Search::begin();
        error.source()
    })
}

/// Ends the search when it is dropped, also at a panic of a `source()`.
struct Search {
    outer: bool,
}

impl Search {
    fn begin() -> Search {
        Search {
            outer: SEARCHING.with(|searching| searching.replace(true)),
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        SEARCHING.with(|searching| searching.set(self.outer));
    }
}
