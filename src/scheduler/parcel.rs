//! A job on its way to a thread of the blocking pool.
//!
//! A runtime that has shut down drops what is given to its pool, in some versions of tokio while it
//! holds the pool's lock. A job is user code, so one that the pool drops while it is being handed
//! over stays here, and the caller gets it back where no lock is held.

use crate::panic::{self, Payload};
use crate::sync::{Arc, Handle, Mutex};

/// The caller's half of a job.
struct Parcel<J>(Arc<Mutex<Stage<J>>>);

enum Stage<J> {
    /// The caller is giving the job to the pool.
    Passing(J),
    /// The pool has dropped its half without running the job.
    Refused(J),
    /// The caller has returned, and the pool has the job.
    Passed(J),
    Taken,
}

/// Gives a job to the blocking pool, on a thread of which `run` is called with it. If the runtime
/// shuts down before that, the job is dropped.
///
/// Returns the job if the pool has refused it, and the panic of an attempt to start a thread.
pub(crate) fn hand_over<J: Send + 'static>(
    runtime: &Handle,
    job: J,
    run: impl FnOnce(J) + Send + 'static,
) -> (Result<(), Payload>, Option<J>) {
    let stage = Arc::new(Mutex::new(Stage::Passing(job)));
    let (parcel, on_pool) = (Parcel(stage.clone()), PoolHalf(stage));
    // This panics if the system cannot start a thread.
    let passed = panic::catch(|| {
        runtime.spawn_blocking(move || {
            if let Some(job) = on_pool.take() {
                run(job);
            }
        });
    });
    (passed, parcel.passed())
}

impl<J> Parcel<J> {
    /// Notes that the hand-over is done. Returns the job if the pool has refused it.
    fn passed(&self) -> Option<J> {
        let mut stage = self.0.lock();
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Refused(job) => Some(job),
            Stage::Passing(job) => {
                *stage = Stage::Passed(job);
                None
            }
            Stage::Passed(_) | Stage::Taken => None,
        }
    }
}

/// The pool's half of a job.
struct PoolHalf<J>(Arc<Mutex<Stage<J>>>);

impl<J> PoolHalf<J> {
    /// Takes the job for the thread that runs it.
    fn take(&self) -> Option<J> {
        match std::mem::replace(&mut *self.0.lock(), Stage::Taken) {
            Stage::Passing(job) | Stage::Passed(job) => Some(job),
            Stage::Refused(_) | Stage::Taken => None,
        }
    }

    /// Notes that the pool drops the job. Returns it, unless the caller will get it.
    fn refuse(&self) -> Option<J> {
        let mut stage = self.0.lock();
        match std::mem::replace(&mut *stage, Stage::Taken) {
            Stage::Passing(job) => {
                *stage = Stage::Refused(job);
                None
            }
            Stage::Passed(job) => Some(job),
            Stage::Refused(_) | Stage::Taken => None,
        }
    }
}

impl<J> Drop for PoolHalf<J> {
    fn drop(&mut self) {
        drop(self.refuse());
    }
}
