//! Two operations of which neither is of use without the other: the first fails after 100 ms, and the second halts at
//! once, with the first one's error as its cause.
//!
//! ```sh
//! cargo run --example dependent_operations
//! ```
//!
//! It is a check as well: it fails if the second works on for two seconds, or does not learn why it was to stop.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use errgroup::{Cause, Context, Group};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out = &mut io::stdout();
    let start = Instant::now();
    let (halted, halt) = oneshot::channel();

    let (g, _ctx) = Group::<anyhow::Error>::with_context(Context::background());
    g.go(reserve());
    g.go_with(|ctx| async move {
        let result = charge(&ctx).await;
        let _ = halted.send((Instant::now(), ctx.cause()));
        result
    });
    let Err(first) = g.wait().await else {
        bail!("nothing was in stock, and yet wait was Ok");
    };
    let wall = start.elapsed();

    // Whatever the second made of it: what wait gives is the first error.
    let (at, cause): (Instant, Option<Cause>) = halt.await?;
    let cause = cause.context("the second does not know why it halted")?;
    let at = at - start;
    writeln!(out, "first:  failed: {first}")?;
    writeln!(out, "second: halted after {at:.1?}, because: {cause}")?;
    writeln!(out, "both had ended after {wall:.1?}")?;
    ensure!(
        cause.to_string() == first.to_string(),
        "that is another cause"
    );
    ensure!(
        wall < Duration::from_secs(2),
        "the second worked on for nobody"
    );
    Ok(())
}

/// Fails after 100 ms.
async fn reserve() -> anyhow::Result<()> {
    sleep(Duration::from_millis(100)).await;
    bail!("out of stock")
}

/// Ten seconds in steps of 100 ms; between them, and in them, it can halt.
async fn charge(ctx: &Context) -> anyhow::Result<()> {
    for _step in 0..100 {
        ctx.sleep(Duration::from_millis(100)).await?;
    }
    Ok(())
}
