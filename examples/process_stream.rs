//! A worker that reads jobs from a channel until the channel is closed or the context is done. Then
//! it returns the jobs that are left.
//!
//! ```sh
//! cargo run --example process_stream
//! ```

#![allow(clippy::print_stdout)] // a program

use std::time::Duration;

use errgroup::{Context, ContextError, Group};
use tokio::sync::mpsc;
use tokio::time::sleep;

type Job = u32;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ctx = Context::background();
    run(&ctx, 30).await?;
    run(
        &ctx.with_timeout_cause(Duration::from_millis(50), "the page is due"),
        1_000,
    )
    .await
}

/// A producer of `count` jobs and a worker, under a context.
async fn run(ctx: &Context, count: Job) -> anyhow::Result<()> {
    let (send, jobs) = mpsc::channel(8);
    // Not derived from `ctx`: the producer is not stopped, but sees that the channel is closed.
    let (g, _ctx) = Group::<anyhow::Error>::with_context(Context::background());
    let worker = g.spawn({
        let ctx = ctx.clone();
        async move { Ok(work(&ctx, jobs).await) }
    });
    let refused = g.spawn(async move {
        for job in 0..count {
            if send.send(job).await.is_err() {
                return Ok(Some(job));
            }
        }
        Ok(None)
    });
    g.wait().await?;

    let Some((done, left, why)) = worker.take() else {
        return Ok(());
    };
    match why {
        None => println!(
            "the channel was closed: {} jobs done, {} left",
            done.len(),
            left.len()
        ),
        Some(why) => {
            let why = anyhow::Error::from(why);
            println!("{why:#}: {} jobs done, {} left", done.len(), left.len());
        }
    }
    let accepted = refused.take().flatten().unwrap_or(count);
    println!(
        "  jobs accepted: {accepted}; in order: {}",
        done.iter().chain(&left).copied().eq(0..accepted)
    );
    Ok(())
}

/// Works until the channel is closed or `ctx` is done. A job that has begun is finished. Returns
/// the jobs that are done, those that are left, and the reason for an early end.
async fn work(
    ctx: &Context,
    mut jobs: mpsc::Receiver<Job>,
) -> (Vec<Job>, Vec<Job>, Option<ContextError>) {
    let mut done = Vec::new();
    let why = loop {
        // Dropping `recv` loses no job.
        match ctx.run(jobs.recv()).await {
            Ok(Some(job)) => {
                sleep(Duration::from_millis(2)).await;
                done.push(job);
            }
            Ok(None) => break None,
            Err(why) => break Some(why),
        }
    };
    jobs.close(); // from now on `send` fails, and returns its job
    let mut left = Vec::new();
    while let Some(job) = jobs.recv().await {
        left.push(job);
    }
    (done, left, why)
}
