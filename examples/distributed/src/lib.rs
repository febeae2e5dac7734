//! One fan-out over several processes: the parts of the program `distributed`, which `main.rs`
//! explains.
//!
//! ```text
//!   coordinator                        worker (one of N processes)
//!   fan_out: batches, 2 a worker       fan_out: the items of a batch, 8 at once
//!      └─ PropagateLayer ── gRPC ──► ContextLayer ─┘
//!         what is left of the time,     a context for the call: it ends at that deadline, when the
//!         as `grpc-timeout`             client disconnects, and when the worker stops
//!   ◄── an answer an item, as they are done ──
//! ```

pub mod coordinator;
pub mod fault;
pub mod fleet;
pub mod report;
pub mod spawned;
pub mod work;
pub mod worker;

/// The messages, the client and the server, as generated from `proto/worker.proto`.
pub mod proto {
    tonic::include_proto!("distributed.v1");
}
