//! Three results of different types, each from a task of its own.
//!
//! ```sh
//! cargo run --example typed_results
//! ```
//!
//! A page needs a user, a list of orders and an exchange rate. Each task returns a value of another
//! type. The body of the scope awaits the handles with `?`. If a task fails, the others stop, and
//! the scope returns the error of that task.

#![allow(clippy::print_stdout)] // a program

use std::time::Duration;

use errgroup::{Context, Group};

struct Page {
    user: String,
    orders: Vec<u32>,
    rate: f64,
}

async fn load_page(parent: &Context, user: u32) -> anyhow::Result<Page> {
    Group::scope(parent, async |g, _ctx| {
        let user = g.named("user").spawn_with(move |ctx| load_user(ctx, user));
        let orders = g.named("orders").spawn_with(load_orders);
        let rate = g.named("rate").spawn_with(load_rate);
        Ok(Page {
            user: user.await?,
            orders: orders.await?,
            rate: rate.await?,
        })
    })
    .await
}

async fn load_user(ctx: Context, user: u32) -> anyhow::Result<String> {
    ctx.sleep(Duration::from_millis(10)).await?;
    match user {
        1 => Ok("Ada".to_owned()),
        _ => anyhow::bail!("there is no user {user}"),
    }
}

async fn load_orders(ctx: Context) -> anyhow::Result<Vec<u32>> {
    ctx.sleep(Duration::from_millis(20)).await?;
    Ok(vec![17, 42])
}

async fn load_rate(ctx: Context) -> anyhow::Result<f64> {
    ctx.sleep(Duration::from_millis(30)).await?;
    Ok(1.08)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ctx = Context::background().with_timeout(Duration::from_secs(2));
    let Page { user, orders, rate } = load_page(&ctx, 1).await?;
    println!("{user} has the orders {orders:?}; the rate is {rate}");

    // The error is that of the task, and not that of a handle.
    match load_page(&ctx, 2).await {
        Ok(page) => anyhow::bail!("there is a page for {}", page.user),
        Err(error) => println!("no page: {error}"),
    }
    Ok(())
}
