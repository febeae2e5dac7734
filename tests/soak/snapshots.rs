//! With feature `inspect`: takes snapshots during a scenario, and none is left of it afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use errgroup::inspect::snapshot;

use crate::watch::fail;

/// Between two snapshots, so that the scenario has most of the machine.
const PAUSE: Duration = Duration::from_micros(100);

/// A thread that takes snapshots until it is stopped.
pub(crate) struct Reader {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Reader {
    pub(crate) fn start() -> Reader {
        let is_over = Arc::new(AtomicBool::new(false));
        let stops = is_over.clone();
        let thread = thread::spawn(move || {
            while !stops.load(Ordering::Relaxed) {
                let taken = snapshot();
                let (stragglers, suspects) = (taken.stragglers().len(), taken.suspects().len());
                let text = taken.to_string();
                if text.is_empty() || text.lines().count() < stragglers.max(suspects) {
                    fail(format_args!("a snapshot leaves something out: {text}"));
                }
                thread::sleep(PAUSE);
            }
        });
        Reader { is_over, thread }
    }

    /// Stops the thread. Everything of the scenario has ended.
    pub(crate) fn stop(self) {
        self.is_over.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            fail(format_args!("a snapshot panicked"));
        }
        let left = snapshot();
        if !left.groups.is_empty() {
            fail(format_args!("a snapshot shows what has ended: {left}"));
        }
    }
}
