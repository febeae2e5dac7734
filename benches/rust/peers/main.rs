//! The cost of errgroup next to hand-written code, to similar libraries, and to Go, in one table.
//!
//! ```sh
//! cargo bench -p benches --bench peers # the table, with 2 and 1 workers
//! cargo bench -p benches --bench peers -- --workers 2 --only go    # some rows of it
//! cargo bench -p benches --features axum --bench peers -- --only axum # the rows of an HTTP server
//! cargo bench -p benches --bench peers -- --quick                  # to see that it works
//! cargo bench -p benches --bench peers -- --json                   # for a program
//! ```
//!
//! Both sides of a row are measured in turn, in this process, and their ratio has a limit. The exit
//! status is 1 if a row is over its limit. `benches/README.md` explains the figures.

mod bytes;
mod chain;
mod cli;
mod context;
mod fetch;
mod go;
mod heartbeat;
mod http;
mod rounds;
#[cfg(feature = "axum")]
mod server;
mod spawn;
mod table;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use cli::Cli;
use table::Table;
use workload::Workers;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The number of rows that are over their limit.
fn run(cli: &Cli) -> anyhow::Result<usize> {
    let mut table = Table::new(cli);
    for count in cli.workers() {
        table.begin(Some(count));
        let workers = Workers::new(count)?;
        spawn::rows(&mut table, &workers)?;
        fetch::rows(&mut table, &workers)?;
        heartbeat::rows(&mut table, &workers)?;
        context::cancel_rows(&mut table, &workers)?;
        http::rows(&mut table, &workers)?;
        #[cfg(feature = "axum")]
        server::rows(&mut table, &workers)?;
        go::rows(&mut table, &workers)?;
    }
    table.begin(None);
    context::rows(&mut table)?;
    bytes::rows(&mut table)?;
    go::context_rows(&mut table)?;
    Ok(table.finish()?)
}
