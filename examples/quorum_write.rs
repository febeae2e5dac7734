//! A write to five replicas that is done when three have acknowledged it, with `quorum`.
//!
//! ```sh
//! cargo run --example quorum_write
//! ```
//!
//! The first write succeeds without the slow replica, whose call is dropped. The second fails as
//! soon as three replicas have failed. A write that was dropped may have happened or not.

#![allow(clippy::print_stdout)] // a program

use std::time::{Duration, Instant};

use anyhow::bail;
use errgroup::{Context, fan_out};
use tokio::time::sleep;

// One thread polls all calls one after another, so the order is that of the latencies.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let ctx = Context::background();
    write(&ctx, [after(600), DEAD, after(10), SLOW, after(300)]).await;
    write(&ctx, [SLOW, DEAD, DEAD, SLOW, DEAD]).await;
}

/// Writes to all replicas, and prints the three that acknowledged first, or why three did not.
async fn write(ctx: &Context, replicas: [Replica; 5]) {
    let start = Instant::now();
    let named = ["a", "b", "c", "d", "e"].into_iter().zip(replicas);
    let written = fan_out(ctx, named, |_ctx, (name, replica)| replica.put(name))
        .named("replica")
        .quorum(3)
        .await;
    let wall = start.elapsed();
    match written {
        Ok(names) => println!("acknowledged by {} after {wall:.0?}", names.join(", ")),
        Err(errors) => {
            println!("failed after {wall:.0?}: {errors}");
            errors.iter().for_each(|error| println!("  {error}"));
        }
    }
}

#[derive(Clone, Copy)]
enum Replica {
    AcknowledgesAfter(Duration),
    Dead,
}

const DEAD: Replica = Replica::Dead;
const SLOW: Replica = after(20_000);

const fn after(millis: u64) -> Replica {
    Replica::AcknowledgesAfter(Duration::from_millis(millis))
}

impl Replica {
    /// Stands for a request to the replica.
    async fn put(self, name: &str) -> anyhow::Result<&str> {
        let mut sent = Sent {
            name,
            has_ended: false,
        };
        if let Replica::AcknowledgesAfter(latency) = self {
            sleep(latency).await;
        }
        sent.has_ended = true;
        match self {
            Replica::AcknowledgesAfter(_) => Ok(name),
            Replica::Dead => bail!("{name}: connection refused"),
        }
    }
}

/// A request in flight. It prints if it is dropped before it has ended.
struct Sent<'a> {
    name: &'a str,
    has_ended: bool,
}

impl Drop for Sent<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            println!("  {}: the call was dropped", self.name);
        }
    }
}
