//! What is printed about a job.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::fleet::{Account, Fleet, Moment};
use crate::proto::{Answer, Tally};
use crate::work::NUMBERS;

/// One line an item.
///
/// # Errors
///
/// If it cannot be written.
pub fn list(out: &mut impl Write, answers: &[Answer]) -> io::Result<()> {
    for Answer { item, primes } in answers {
        writeln!(out, "item {item}: {primes}")?;
    }
    Ok(())
}

/// The sum of the answers.
///
/// # Errors
///
/// If it cannot be written.
pub fn summary(out: &mut impl Write, answers: &[Answer], wall: Duration) -> io::Result<()> {
    let primes: u64 = answers.iter().map(|answer| answer.primes).sum();
    let items = answers.len() as u64;
    let below = items * NUMBERS;
    writeln!(
        out,
        "{items} items in {wall:.1?}: {primes} primes below {below}"
    )
}

/// What the coordinator has seen of each worker.
///
/// # Errors
///
/// If it cannot be written.
pub fn fleet(out: &mut impl Write, fleet: &Fleet) -> io::Result<()> {
    for (index, state) in fleet.states().iter().enumerate() {
        write!(out, "  worker {index}: {} answers", state.answers)?;
        match &state.lost {
            None => writeln!(out)?,
            Some(why) => {
                let left = state.left_over;
                writeln!(out, "; lost, and {left} items left to others: {why}")?;
            }
        }
    }
    Ok(())
}

/// Prints the counts of each worker, and when its last task ended: after the failure, or after the
/// coordinator returned.
///
/// # Errors
///
/// If it cannot be written.
pub fn settled(out: &mut impl Write, accounts: &[Account], returned: Instant) -> io::Result<()> {
    let tallies = accounts.iter().map(|account| account.tally);
    let sum = tallies.reduce(add).unwrap_or_default();
    writeln!(out, "the workers that are left: {sum}")?;
    let last_end = accounts.iter().filter_map(|account| account.last_end).max();
    let failure = accounts
        .iter()
        .filter_map(|account| account.last_failure)
        .min();
    if let (Some(failure), Some(last_end)) = (failure, last_end) {
        writeln!(out, "  the failure: 0 ms ± {}", ms(failure.error))?;
        writeln!(
            out,
            "  fan_out has returned here: {}",
            after(failure, returned, Duration::ZERO)
        )?;
        writeln!(
            out,
            "  the last task of any worker has ended: {}",
            after(failure, last_end.at, last_end.error)
        )?;
    }
    Ok(())
}

fn after(failure: Moment, at: Instant, error: Duration) -> String {
    let elapsed = at.saturating_duration_since(failure.at);
    format!("{} ± {}", ms(elapsed), ms(failure.error + error))
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1e3)
}

fn add(a: Tally, b: Tally) -> Tally {
    Tally {
        started: a.started + b.started,
        done: a.done + b.done,
        failed: a.failed + b.failed,
        cut_off_by_failure: a.cut_off_by_failure + b.cut_off_by_failure,
        cut_off_by_client: a.cut_off_by_client + b.cut_off_by_client,
        cut_off_by_deadline: a.cut_off_by_deadline + b.cut_off_by_deadline,
        cut_off_by_stop: a.cut_off_by_stop + b.cut_off_by_stop,
    }
}
