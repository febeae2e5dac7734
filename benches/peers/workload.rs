//! What the rows have in common: a runtime of so many workers, the bodies of tasks, and clocks.

use std::future::Future;
use std::hint::black_box;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now;

pub(crate) type Done = Result<(), String>;

/// A runtime of so many workers. The driving loop is a task on them too, so that no further thread takes part.
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

    /// Runs `work` as a task, and gives what it gives.
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

/// Computation of a certain length: so many steps of a loop, counted out once.
#[derive(Clone, Copy)]
pub(crate) struct Spin {
    steps: u64,
}

impl Spin {
    /// The quickest of several tries says how long a step is: anything else that ran meanwhile made it longer.
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
            // A step needs the one before, so that no compiler and no core runs two at a time.
            x = x.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (x >> 29);
        }
        black_box(x)
    }
}
