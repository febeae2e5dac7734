//! One request over many services: a tree of gRPC calls under one deadline.
//!
//! ```text
//!   client ── gateway ──┬── service 0 ── 8 calls ──┐
//!                       ├── service 1 ── 8 calls ──┼── two shards, balanced by tonic
//!                       └── service 2 ── 8 calls ──┘
//! ```
//!
//! ```sh
//! cargo run -p distributed -- run                  # all 24 calls of the shards succeed
//! cargo run -p distributed -- run --fault fail     # one of them fails, and the others stop
//! cargo run -p distributed -- run --fault kill     # the client is killed: all of them stop
//! cargo run -p distributed -- run --fault stop     # the client stops answering: the same
//! cargo run -p distributed -- run --fault deadline # the time is over, at each level
//! ```
//!
//! To copy: `node.rs` is a service, and `client.rs` makes calls. The others belong to the
//! demonstration: `tally.rs` counts the calls of a service, and `run.rs` starts the processes.

mod client;
mod node;
mod run;
mod tally;

use std::process::ExitCode;

use clap::Parser;

/// The messages, the client and the server, as generated from `proto/tree.proto`.
#[allow(unreachable_pub)] // generated
mod proto {
    tonic::include_proto!("distributed.v1");
}

/// One request over many services
#[derive(Parser)]
enum Cli {
    /// Serve, until SIGTERM
    Node(node::Options),
    /// Make one call to a gateway
    Call(client::Options),
    /// Start all services and a client, and inject a fault
    Run(run::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Node(options) => node::run(options).await,
        Cli::Call(options) => client::run(options).await,
        Cli::Run(options) => run::run(options).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
