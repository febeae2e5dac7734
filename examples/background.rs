//! A lease that is renewed while jobs run, and given back when they have ended.
//!
//! ```sh
//! cargo run --example background
//! ```
//!
//! The renewal is a background task: it takes no permit, and `wait` ends it when the last job has
//! ended. The give-back is a clean-up task: it runs even if a job has failed and the context is
//! done. The second run shows that: its lease is lost, which stops the jobs.

#![allow(clippy::print_stdout)] // a program

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use errgroup::{Context, Group};

/// A lease in a service for locks.
struct Lease {
    renewals: AtomicU32,
    /// The service refuses the renewal after this many.
    lost_after: u32,
}

impl Lease {
    async fn renew(&self) -> anyhow::Result<()> {
        let renewals = self.renewals.fetch_add(1, Ordering::Relaxed) + 1;
        anyhow::ensure!(renewals <= self.lost_after, "the lease is lost");
        Ok(())
    }

    async fn give_back(&self) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        println!("  the lease was given back");
        Ok(())
    }
}

async fn run_jobs(parent: &Context, lease: Arc<Lease>) -> anyhow::Result<()> {
    let (g, _ctx) = Group::<anyhow::Error>::with_context(parent);
    g.set_limit(2);

    let renewed = lease.clone();
    g.named("renewal").background().go_with(|ctx| async move {
        while ctx.sleep(Duration::from_millis(10)).await.is_ok() {
            renewed.renew().await?;
        }
        Ok(())
    });
    let spawner = g.spawner();
    g.named("give-back").background().go_with(|ctx| async move {
        ctx.done().await;
        // The context is done now, so this takes a task that may still run.
        let give_back = spawner.named("give-back").cleanup(Duration::from_secs(1));
        give_back.go(async move { lease.give_back().await });
        Ok(())
    });

    for number in 1..=6 {
        g.named(format!("job {number}")).go_with(|ctx| async move {
            ctx.sleep(Duration::from_millis(20)).await?;
            Ok(())
        });
    }
    g.wait().await
}

#[tokio::main]
async fn main() {
    for lost_after in [u32::MAX, 2] {
        let renewals = AtomicU32::new(0);
        let lease = Arc::new(Lease {
            renewals,
            lost_after,
        });
        match run_jobs(&Context::background(), lease).await {
            Ok(()) => println!("all jobs have ended"),
            Err(error) => println!("stopped: {error}"),
        }
    }
}
