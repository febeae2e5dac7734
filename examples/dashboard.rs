//! Three services under one deadline, with `settle`: the page shows each response that arrived, and
//! for each service that failed or missed the deadline, the error.
//!
//! ```sh
//! cargo run --example dashboard
//! ```

#![allow(clippy::print_stdout)] // a program

use std::future::pending;
use std::time::{Duration, Instant};

use anyhow::bail;
use errgroup::{Context, ContextError, fan_out};
use tokio::time::sleep;

#[tokio::main]
async fn main() {
    let start = Instant::now();
    let panels = load(&Context::background()).await;
    println!("The page is ready after {:.0?}:", start.elapsed());
    for (service, panel) in SERVICES.iter().zip(panels) {
        match panel {
            Ok(text) => println!("  {service:<8} {text}"),
            Err(error) if is_late(&error) => println!("  {service:<8} (too slow: {error:#})"),
            Err(error) => println!("  {service:<8} (failed: {error:#})"),
        }
    }
}

const SERVICES: [&str; 3] = ["orders", "stock", "weather"];

/// Calls all services. Returns one result for each, at the deadline at the latest.
async fn load(parent: &Context) -> Vec<anyhow::Result<String>> {
    let ctx = parent.with_timeout_cause(Duration::from_millis(400), "the page is due");
    fan_out(&ctx, SERVICES, |_ctx, service| call(service))
        .settle()
        .await
}

/// Stands for an HTTP request.
async fn call(service: &str) -> anyhow::Result<String> {
    match service {
        "orders" => sleep(Duration::from_millis(20)).await,
        "stock" => pending().await, // it hangs, and is dropped here at the deadline
        _ => {
            sleep(Duration::from_millis(50)).await;
            bail!("the server answered 503 Service Unavailable");
        }
    }
    Ok("17 open, 3 of them since yesterday".to_owned())
}

/// Whether the deadline passed before the service answered.
fn is_late(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<ContextError>()
        .is_some_and(ContextError::is_deadline_exceeded)
}
