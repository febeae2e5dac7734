//! A worker that reads a channel until it is closed or the context ends, and says which it was and what it left. And one that
//! computes without an await, and asks the context between the pieces.
//!
//! ```sh
//! cargo run --example process_stream
//! ```
//!
//! It is a check as well: it fails if a job is lost or done twice, or if a worker goes on for two seconds after its
//! context has ended.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use errgroup::{Context, ContextError, Group};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

type Job = u32;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out = &mut io::stdout();
    until_closed(out).await?;
    until_the_end(out).await?;
    between_pieces(out).await
}

/// What a worker has to say when it stops.
struct Report {
    done: Vec<Job>,
    /// Why it stopped before the channel was closed.
    why: Option<ContextError>,
    /// What was in the channel still: nobody's any more, so it is handed over.
    left: Vec<Job>,
}

/// Waits for the next job or for the end of `ctx`, whichever is first. A job that it has begun it finishes.
async fn work(ctx: &Context, mut jobs: mpsc::Receiver<Job>) -> Report {
    let mut done = Vec::new();
    let why = loop {
        // Dropping `recv` loses no job. An ended context takes none, though there may be one.
        match ctx.run(jobs.recv()).await {
            Ok(Some(job)) => {
                process(job).await;
                done.push(job);
            }
            Ok(None) => break None,
            Err(why) => break Some(why),
        }
    };
    // From here on `send` gives its job back.
    jobs.close();
    let mut left = Vec::new();
    while let Some(job) = jobs.recv().await {
        left.push(job);
    }
    Report { done, why, left }
}

/// Stands for what a job takes.
async fn process(_job: Job) {
    sleep(Duration::from_millis(2)).await;
}

/// The producer has thirty jobs, and goes.
async fn until_closed(out: &mut impl Write) -> anyhow::Result<()> {
    let (g, _ctx) = Group::<anyhow::Error>::with_context(Context::background());
    let (send, jobs) = mpsc::channel(8);
    let worker = g.context();
    let worker = g.spawn(async move { Ok(work(&worker, jobs).await) });
    g.go(async move {
        for job in 0..30 {
            send.send(job).await?;
        }
        Ok(())
    });
    g.wait().await?;

    let report = worker.take().context("no report")?;
    say(out, &report)?;
    ensure!(report.why.is_none() && report.left.is_empty(), "too early");
    ensure!(report.done.iter().copied().eq(0..30), "jobs are missing");
    Ok(())
}

/// The producer would go on for ever; the one for whom all this is done goes after 50 ms.
async fn until_the_end(out: &mut impl Write) -> anyhow::Result<()> {
    let (ctx, guard) = Context::background().with_cancel();
    let (send, jobs) = mpsc::channel(8);
    let g = Group::<anyhow::Error>::new();
    let worker = g.spawn({
        let ctx = ctx.clone();
        async move { Ok((work(&ctx, jobs).await, Instant::now())) }
    });
    let refused = g.spawn(async move {
        let mut job = 0;
        while send.send(job).await.is_ok() {
            job += 1;
        }
        Ok(job)
    });
    let gone = g.spawn(async move {
        sleep(Duration::from_millis(50)).await;
        guard.cancel_with("nobody reads the answers any more");
        Ok(Instant::now())
    });
    g.wait().await?;

    let (report, stopped) = worker.take().context("no report")?;
    let late = stopped - gone.take().context("nobody has gone")?;
    let refused = refused.take().context("the producer gives no answer")?;
    say(out, &report)?;
    writeln!(
        out,
        "  it stopped after {late:.1?}; job {refused} went back to the producer"
    )?;
    let all = report.done.iter().chain(&report.left).copied();
    ensure!(all.eq(0..refused), "a job is lost, or done twice");
    ensure!(report.why.is_some(), "nobody closed the channel");
    ensure!(late < Duration::from_secs(2), "that is late");
    Ok(())
}

fn say(out: &mut impl Write, report: &Report) -> anyhow::Result<()> {
    let why = match &report.why {
        None => "the channel was closed".to_owned(),
        Some(why) => format!("{:#}", anyhow::Error::from(why.clone())),
    };
    let (done, left) = (report.done.len(), report.left.len());
    writeln!(out, "{why}: {done} jobs done, {left} left")?;
    Ok(())
}

/// A computation on a thread of its own has no await at which it could be dropped: it asks.
async fn between_pieces(out: &mut impl Write) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_millis(50);
    let ctx = Context::background().with_deadline_cause(deadline, "the page is due");
    let (g, _ctx) = Group::<anyhow::Error>::with_context(ctx);
    let (send, mut primes) = mpsc::unbounded_channel();
    g.go_blocking(move |ctx| {
        for piece in 0..3_000 {
            ctx.check()?;
            send.send(primes_in(piece * PIECE))?;
        }
        Ok(())
    });
    let result = g.wait().await;
    let late = deadline.elapsed();

    let (mut pieces, mut found) = (0, 0);
    while let Some(primes) = primes.recv().await {
        pieces += 1;
        found += primes;
    }
    let why = result.err().context("it has run to its end")?;
    writeln!(
        out,
        "{why:#}: {found} primes in {pieces} pieces of {PIECE} numbers; it stopped after {late:.1?}"
    )?;
    ensure!(late < Duration::from_secs(2), "that is late");
    Ok(())
}

const PIECE: u32 = 1_000;

/// How many there are among so many numbers from `start` on.
fn primes_in(start: u32) -> usize {
    let is_prime = |n: &u32| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    (start..start + PIECE).filter(is_prime).count()
}
