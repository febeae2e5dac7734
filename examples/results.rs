//! Three ways to get results out of tasks: handles that are read after `wait`, a handle that
//! another task awaits, and the results of one function over many items, in their order.
//!
//! ```sh
//! cargo run --example results
//! ```

#![allow(clippy::print_stdout)] // a program

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use errgroup::{Context, Group, fetch_all};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ctx = Context::background();
    read_after_wait(&ctx).await?;
    awaited_by_a_sibling(&ctx).await?;
    failed().await;

    // The later items are faster. The results are in the order of the items.
    let squares = fetch_all(&ctx, 4, 1..=8, |_ctx, n| async move {
        Ok::<u64, anyhow::Error>(after(90 - 10 * n, n * n).await)
    });
    println!("in the items' order:   {:?}", squares.await?);
    Ok(())
}

/// Each handle has its own type. After `wait` has returned `Ok`, each value is there.
async fn read_after_wait(ctx: &Context) -> anyhow::Result<()> {
    let (g, _ctx) = Group::<anyhow::Error>::with_context(ctx);
    let name = g.spawn(async { Ok(after(30, "Ada").await) });
    let orders = g.spawn(async { Ok(after(20, vec![17, 42]).await) });
    g.wait().await?;
    let (name, orders) = name
        .take()
        .zip(orders.take())
        .context("a value is missing")?;
    println!("read after wait:       {name}, orders {orders:?}");
    Ok(())
}

/// The price needs the rate. It waits for that task only.
async fn awaited_by_a_sibling(ctx: &Context) -> anyhow::Result<()> {
    let (g, _ctx) = Group::<anyhow::Error>::with_context(ctx);
    let rate = g.spawn(async { Ok(after(30, 1.08).await) });
    let price = g.spawn(async {
        let net = after(10, 25.0).await;
        Ok(net * rate.await.context("no rate")?)
    });
    g.wait().await?;
    let price: f64 = price.take().context("no price")?;
    println!("awaited by a sibling:  the price is {price}");
    Ok(())
}

/// If the awaited task fails, its handle resolves to `None` at once, and `wait` returns the error.
async fn failed() {
    let start = Instant::now();
    let g = Group::<anyhow::Error>::new(); // a failure does not cancel its tasks
    let rate = g.spawn::<f64, _>(async { bail!(after(20, "the exchange is closed").await) });
    g.go(async move {
        if rate.await.is_none() {
            println!("there is no rate:      known after {:.0?}", start.elapsed());
        }
        Ok(())
    });
    g.go(async {
        sleep(Duration::from_millis(500)).await;
        Ok(())
    });
    if let Err(error) = g.wait().await {
        println!(
            "                       {error}, says wait after {:.0?}",
            start.elapsed()
        );
    }
}

/// Stands for a call that takes this many milliseconds.
async fn after<T>(milliseconds: u64, value: T) -> T {
    sleep(Duration::from_millis(milliseconds)).await;
    value
}
