//! Counts what the handlers of the site see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a test waits for something that should happen soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often each event has happened.
#[derive(Clone, Default)]
pub(crate) struct Log {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    counts: Mutex<BTreeMap<String, usize>>,
    changed: Notify,
}

impl Log {
    pub(crate) fn add(&self, event: impl Into<String>) {
        *self
            .inner
            .counts
            .lock()
            .unwrap()
            .entry(event.into())
            .or_default() += 1;
        self.inner.changed.notify_waiters();
    }

    pub(crate) fn count(&self, event: &str) -> usize {
        let counts = self.inner.counts.lock().unwrap();
        counts.get(event).copied().unwrap_or_default()
    }

    /// Returns the events that begin with `prefix`.
    pub(crate) fn events(&self, prefix: &str) -> Vec<String> {
        let counts = self.inner.counts.lock().unwrap();
        let events = counts.keys().filter(|event| event.starts_with(prefix));
        events.cloned().collect()
    }

    /// Waits until `event` has happened `count` times, and panics if it happens more often.
    pub(crate) async fn until(&self, event: &str, count: usize) {
        self.until_true(|log| log.count(event) >= count).await;
        assert_eq!(self.count(event), count, "{event}: {}", self.shown());
    }

    /// Waits until `condition` holds.
    pub(crate) async fn until_true(&self, condition: impl Fn(&Log) -> bool) {
        let holds = async {
            loop {
                let changed = self.inner.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if condition(self) {
                    return;
                }
                changed.await;
            }
        };
        if timeout(PATIENCE, holds).await.is_err() {
            panic!(
                "not within {PATIENCE:?}; the site has seen {}",
                self.shown()
            );
        }
    }

    fn shown(&self) -> String {
        format!("{:?}", self.inner.counts.lock().unwrap())
    }
}
