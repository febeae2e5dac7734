//! Warns of tasks that still run long after the end of their context.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::read::snapshot;
use crate::registry::GroupId;

/// Emits an event that names each task of the group that still runs. Returns false if none does.
fn warn_once(group: GroupId, cancelled: Instant) -> bool {
    let snapshot = snapshot();
    let stragglers = snapshot.stragglers();
    let own: Vec<_> = stragglers
        .iter()
        .filter(|straggler| straggler.group.id == group)
        .map(|straggler| straggler.task.to_string())
        .collect();
    let Some(first) = stragglers.iter().find(|it| it.group.id == group) else {
        return false;
    };
    warn!(
        target: "errgroup",
        group = first.group.name,
        site = first.group.site,
        cause = first.ended.cause,
        elapsed = ?cancelled.elapsed(),
        tasks = own.join("; "),
        "tasks still run after the cancellation",
    );
    true
}

/// Warns after `after`, and then each time that the time since the end has doubled, until no task
/// of the group runs any more. `is_waited_for` returns `None` when the group is over.
pub(crate) async fn warn_stragglers(
    group: GroupId,
    after: Duration,
    is_waited_for: impl Fn() -> Option<bool>,
) {
    let cancelled = Instant::now();
    let mut after = after;
    loop {
        sleep(after.saturating_sub(cancelled.elapsed())).await;
        match is_waited_for() {
            None => return,
            Some(false) => {}
            Some(true) if !warn_once(group, cancelled) => return,
            Some(true) => {}
        }
        // At least a millisecond, so that a time of zero does not make a busy loop.
        after = after.saturating_mul(2).max(Duration::from_millis(1));
    }
}
