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
//! To copy: `job.rs` has the streams, fills one, and cancels the job; `worker.rs` is a worker from
//! its start to its end; `item.rs` does one message. The others belong to the demonstration:
//! `work.rs` is what the items do, and `run.rs` starts a server and the processes, injects the
//! fault, and counts what has become of the items.

mod item;
mod job;
mod run;
mod work;
mod worker;

use anyhow::Result;
use clap::Parser;

/// Jobs on NATS JetStream
#[derive(Parser)]
enum Cli {
    /// Do items until SIGTERM
    Worker { server: String },
    /// Start a server and workers, do a job, and check the results
    Run(run::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse() {
        Cli::Worker { server } => worker::run(&server).await,
        Cli::Run(options) => run::run(&options).await,
    }
}
