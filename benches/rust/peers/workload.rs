//! What the rows share: a runtime with a number of workers, the bodies of tasks, and clocks.

use std::future::Future;
use std::hint::black_box;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

pub(crate) type Done = Result<(), String>;

/// A runtime with a number of workers. The driving loop is a task on them, so no other thread takes
/// part.
pub(crate) struct Workers {
    runtime: Runtime,
}

impl Workers {
    pub(crate) fn new(count: usize) -> std::io::Result<Workers> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(count)
            .enable_all()
            .build()?;
        Ok(Workers { runtime })
    }

    /// Runs `work` as a task, and returns its output.
    pub(crate) fn run<F>(&self, work: F) -> F::Output
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        match self.runtime.block_on(self.runtime.spawn(work)) {
            Ok(output) => output,
            Err(error) => panic!("a row failed: {error}"),
        }
    }
}

/// Nanoseconds for each of `count` from `start` until now.
pub(crate) fn each(start: Instant, count: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Ends at its first poll.
pub(crate) async fn at_once() -> Done {
    Ok(())
}

pub(crate) async fn yields_once() -> Done {
    yield_now().await;
    Ok(())
}

/// A computation of a given length: a number of loop steps, calibrated once.
#[derive(Clone, Copy)]
pub(crate) struct Spin {
    steps: u64,
}

impl Spin {
    /// The fastest of several tries gives the length of a step: any other program that ran
    /// meanwhile made it longer.
    pub(crate) fn calibrated(length: Duration) -> Spin {
        const PROBE: u64 = 100_000;
        let probe = || {
            let start = Instant::now();
            Spin { steps: PROBE }.run(1);
            start.elapsed()
        };
        let quickest = (0..50).map(|_| probe()).min().unwrap_or(length);
        let steps = PROBE as f64 * length.div_duration_f64(quickest);
        Spin {
            steps: steps as u64,
        }
    }

    pub(crate) fn run(self, seed: u64) -> u64 {
        let mut x = black_box(seed) | 1;
        for _ in 0..self.steps {
            // Each step needs the result of the one before, so that neither the compiler nor the
            // core runs two at once.
            x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (x >> 29);
        }
        black_box(x)
    }
}
