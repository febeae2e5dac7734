//! A job that outlives its caller: 1,000 items in a stream of NATS JetStream, done by worker
//! processes that are killed, stopped and cancelled.
//!
//! ```sh
//! cargo run -p jobs -- run                   # three workers, and no fault
//! cargo run -p jobs -- run --fault kill      # a worker gets SIGKILL: others do its items
//! cargo run -p jobs -- run --fault term      # a worker gets SIGTERM: it gives its items back
//! cargo run -p jobs -- run --fault fail      # some items fail, and some always
//! cargo run -p jobs -- run --fault cancel    # the job is cancelled in every worker
//! ```
//!
//! It starts `nats-server` itself (Debian's package of that name), on loopback.
//!
//! To copy: `streams.rs` has the streams, `producer.rs` fills one, `worker.rs` is a worker from its
//! start to its end, `item.rs` does one message, and `cancel.rs` cancels the job. The others belong
//! to the demonstration: `work.rs` is what the items do, `server.rs` runs the server, `run.rs` the
//! processes and the fault, and `check.rs` counts what has become of the items.

mod cancel;
mod check;
mod item;
mod producer;
mod run;
mod server;
mod streams;
mod work;
mod worker;

use std::process::ExitCode;

use clap::Parser;

/// Jobs on NATS JetStream
#[derive(Parser)]
enum Cli {
    /// Do items until SIGTERM
    Worker(worker::Options),
    /// Start a server and workers, do a job, and check the results
    Run(run::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Worker(options) => worker::run(&options).await,
        Cli::Run(options) => run::run(&options).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
