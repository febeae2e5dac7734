//! A chain of contexts.

use errgroup::{CancelGuard, Context};

/// A context this many `with_cancel` below the root, and the guards that keep it from being
/// cancelled.
pub(crate) fn chain(depth: usize) -> (Context, Vec<CancelGuard>) {
    let mut ctx = Context::background();
    let guards = (0..depth)
        .map(|_| {
            let (child, guard) = ctx.with_cancel();
            ctx = child;
            guard
        })
        .collect();
    (ctx, guards)
}
