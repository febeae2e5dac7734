//! Faults to try on a job that runs.

use nix::sys::signal::Signal;

use crate::fleet::Fleet;
use crate::spawned::Spawned;

/// What happens to the busiest worker when half of the answers are there.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Fault {
    /// One of its items fails
    Fail,
    /// It is killed: SIGKILL
    Kill,
    /// It stops answering: SIGSTOP
    Stop,
    /// It is asked to stop: SIGTERM
    Term,
}

/// Waits for half of the results, and injects the fault. Returns the worker that has it.
///
/// # Errors
///
/// If the worker has exited.
pub async fn inject(
    fault: Fault,
    fleet: &Fleet,
    items: u64,
    workers: &mut [Spawned],
) -> anyhow::Result<usize> {
    let mut answers = fleet.answers();
    drop(
        answers
            .wait_for(|&answers| answers as u64 >= items / 2)
            .await?,
    );
    let busiest = fleet.busiest();
    let worker = &mut workers[busiest];
    match fault {
        Fault::Fail => worker.fail().await?,
        Fault::Kill => worker.signal(Signal::SIGKILL)?,
        Fault::Stop => worker.signal(Signal::SIGSTOP)?,
        Fault::Term => worker.signal(Signal::SIGTERM)?,
    }
    Ok(busiest)
}
