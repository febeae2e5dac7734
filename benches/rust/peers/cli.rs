//! The command line.

use std::time::Duration;

use crate::rounds::Rounds;

/// Measures errgroup next to its peers, round by round in one process, and prints a line for each
/// row: its name, our time, the peer's time, their ratio, and the limit of the ratio.
///
/// Exits with status 1 if a row is over its limit. The limits are for 2 workers. With another
/// number, rows that depend on it are shown for information.
#[derive(clap::Parser)]
#[command(name = "peers", bin_name = "cargo bench -p benches --bench peers --")]
pub(crate) struct Cli {
    /// Only the rows whose name or peer contains this text
    #[arg(long, value_name = "SUBSTRING")]
    pub(crate) only: Option<String>,

    /// Fewer rounds, to check that it works; the figures mean nothing
    #[arg(long)]
    pub(crate) quick: bool,

    /// The number of workers; may be given several times. By default 2, and then 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    workers: Vec<u8>,

    /// How long to measure a row; a few rows take longer
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=600),
        conflicts_with = "quick"
    )]
    seconds: u16,

    /// One JSON document instead of the table
    #[arg(long)]
    pub(crate) json: bool,

    /// Passed by cargo to every benchmark; has no effect
    #[arg(long, hide = true)]
    bench: bool,
}

impl Cli {
    pub(crate) fn workers(&self) -> Vec<usize> {
        if self.workers.is_empty() {
            return vec![2, 1];
        }
        self.workers.iter().copied().map(usize::from).collect()
    }

    pub(crate) fn rounds(&self) -> Rounds {
        if self.quick {
            Rounds {
                budget: Duration::from_millis(200),
                least: 3,
                most: 31,
            }
        } else {
            Rounds {
                budget: Duration::from_secs(self.seconds.into()),
                least: 9,
                most: 201,
            }
        }
    }
}
