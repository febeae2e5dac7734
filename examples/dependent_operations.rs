//! Two operations that are of no use without each other. The first fails after 100 ms. The second
//! stops at once, with the error of the first as its cause.
//!
//! ```sh
//! cargo run --example dependent_operations
//! ```

#![allow(clippy::print_stdout)] // a program

use std::time::{Duration, Instant};

use anyhow::bail;
use errgroup::{Context, Group};
use tokio::time::sleep;

#[tokio::main]
async fn main() {
    let start = Instant::now();
    let (g, _ctx) = Group::<anyhow::Error>::with_context(Context::background());
    g.go(reserve());
    g.go_with(move |ctx| async move {
        let result = charge(&ctx).await;
        if let Some(cause) = ctx.cause() {
            println!(
                "second: stopped after {:.1?}, because: {cause}",
                start.elapsed()
            );
        }
        result
    });
    // The first error, when both have ended.
    if let Err(error) = g.wait().await {
        println!("first:  failed: {error}");
    }
    println!("both ended after {:.1?}", start.elapsed());
}

/// Fails after 100 ms.
async fn reserve() -> anyhow::Result<()> {
    sleep(Duration::from_millis(100)).await;
    bail!("out of stock")
}

/// Takes ten seconds, in 100 steps. It stops between and during the steps.
async fn charge(ctx: &Context) -> anyhow::Result<()> {
    for _step in 0..100 {
        ctx.sleep(Duration::from_millis(100)).await?;
    }
    Ok(())
}
