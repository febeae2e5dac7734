//! Three ways to get results out of tasks: handles that are read after `wait`, a handle that a sibling awaits, and the
//! results of one function over many items, in their order.
//!
//! ```sh
//! cargo run --example results
//! ```
//!
//! It is a check as well: it fails if a result is not there, out of order, or late.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use errgroup::{Context, Group, fetch_all};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out = &mut io::stdout();
    let ctx = Context::background();
    read_after_wait(&ctx, out).await?;
    awaited_by_a_sibling(&ctx, out).await?;
    awaited_in_vain(out).await?;
    in_order(&ctx, out).await
}

/// Each handle has a type of its own. Once `wait` is `Ok`, every value is there.
async fn read_after_wait(ctx: &Context, out: &mut impl Write) -> anyhow::Result<()> {
    let (g, _ctx) = Group::<anyhow::Error>::with_context(ctx);
    let name = g.spawn(async { Ok(after(30, "Ada").await) });
    let orders = g.spawn(async { Ok(after(20, vec![17, 42]).await) });
    let balance = g.spawn(async { Ok(after(10, 12.5).await) });
    g.wait().await?;

    let values = (name.take(), orders.take(), balance.take());
    let (Some(name), Some(orders), Some(balance)) = values else {
        bail!("wait was Ok, and yet a value is missing");
    };
    writeln!(
        out,
        "read after wait:       {name}, orders {orders:?}, balance {balance}"
    )?;
    Ok(())
}

/// The price needs the rate, and waits for that task alone.
async fn awaited_by_a_sibling(ctx: &Context, out: &mut impl Write) -> anyhow::Result<()> {
    let (g, _ctx) = Group::<anyhow::Error>::with_context(ctx);
    let rate = g.spawn(async { Ok(after(30, 1.08).await) });
    let price = g.spawn(async {
        let net = after(10, 25.0).await;
        match rate.await {
            Some(rate) => Ok(net * rate),
            None => bail!("no rate, no price"),
        }
    });
    g.wait().await?;

    let price: f64 = price
        .take()
        .context("wait was Ok, and yet the price is missing")?;
    writeln!(out, "awaited by a sibling:  the price is {price}")?;
    ensure!(price == 27.0, "that is wrong");
    Ok(())
}

/// When the rate fails, the price learns so at once, while others are still at work; and `wait` says why.
async fn awaited_in_vain(out: &mut impl Write) -> anyhow::Result<()> {
    let start = Instant::now();
    let g = Group::<anyhow::Error>::new(); // in this one a failure stops nobody
    let rate = g.spawn::<f64, _>(async { bail!(after(20, "the exchange is closed").await) });
    let learned = g.spawn(async move {
        ensure!(rate.await.is_none(), "a rate came from a closed exchange");
        Ok(start.elapsed())
    });
    g.go(async {
        sleep(Duration::from_millis(500)).await;
        Ok(())
    });
    let Err(error) = g.wait().await else {
        bail!("the exchange was closed, and yet wait was Ok");
    };
    let wall = start.elapsed();

    let Some(learned) = learned.take() else {
        return Err(error);
    };
    writeln!(
        out,
        "awaited in vain:       known after {learned:.0?}, the last task ended after {wall:.0?}"
    )?;
    writeln!(out, "                       error: {error}")?;
    ensure!(
        learned < wall / 2,
        "the sibling learned of the failure late"
    );
    Ok(())
}

/// The later items are the quicker ones; the results are in the order of the items nevertheless.
async fn in_order(ctx: &Context, out: &mut impl Write) -> anyhow::Result<()> {
    let squares = fetch_all(ctx, 4, 1..=8, |_ctx, n| async move {
        Ok::<u64, anyhow::Error>(after(90 - 10 * n, n * n).await)
    })
    .await?;
    writeln!(out, "in the items' order:   {squares:?}")?;
    ensure!(squares == [1, 4, 9, 16, 25, 36, 49, 64], "out of order");
    Ok(())
}

/// Stands for a call that takes so many milliseconds.
async fn after<T>(milliseconds: u64, value: T) -> T {
    sleep(Duration::from_millis(milliseconds)).await;
    value
}
