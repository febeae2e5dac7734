//! Adding a duration to an instant.

use std::time::Duration;

use tokio::time::Instant;

/// Returns `at + duration`, or an instant thirty years after `at` if that is earlier.
///
/// Thirty years stand for "never". `Duration::MAX` cannot be added to an instant, and `sleep` of
/// tokio takes the same span for it.
pub(crate) fn deadline_after(at: Instant, duration: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(86_400 * 365 * 30);
    // The fallback is never taken: an instant has room for thirty years.
    at.checked_add(duration.min(FAR)).unwrap_or(at)
}
