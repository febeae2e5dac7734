//! The job: a fan-out over batches, each of which is done by as many workers as it takes.

use std::collections::BTreeSet;
use std::error::Error;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;

use errgroup::{Context, ContextError, fan_out};
use tonic::{Code, Status};

use crate::fleet::{Fleet, Lease, NoWorkerLeft};
use crate::proto::Answer;

/// What is to be done.
#[derive(Debug, Clone, clap::Args)]
pub struct Job {
    /// How many items there are
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub items: u64,

    /// How many of them a worker is given at once
    #[arg(long, value_name = "N", default_value = "25")]
    pub batch: NonZeroU32,

    /// How many batches a worker has at once
    #[arg(long, value_name = "N", default_value = "2")]
    pub per_worker: NonZeroUsize,
}

/// Why the job has no result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The deadline passed, or the job was cancelled.
    #[error(transparent)]
    Stopped(#[from] ContextError),
    /// No worker is left that could do it.
    #[error(transparent)]
    NoWorkerLeft(#[from] NoWorkerLeft),
    /// An item cannot be done, wherever it is tried.
    #[error("worker {worker}: {message}")]
    Failed {
        /// Who says so.
        worker: usize,
        /// What it says.
        message: String,
    },
    /// A worker answered what it was not asked, or twice, or not at all.
    #[error("worker {worker} does not keep to the protocol: {what}")]
    Protocol {
        /// Which one.
        worker: usize,
        /// What it did.
        what: String,
    },
}

/// Does the job, and gives the answers in the order of the items, one for each.
///
/// The first failure on any worker cancels the fan-out's context: each call is dropped, and its
/// worker drops the items. A worker that is lost is not a failure while another one is left.
///
/// # Errors
///
/// The first failure; the end of the context, if that comes first.
pub async fn run(ctx: &Context, fleet: &Arc<Fleet>, job: &Job) -> Result<Vec<Answer>, Failure> {
    let (items, size) = (job.items, u64::from(job.batch.get()));
    let batches = (0..items.div_ceil(size)).map(move |n| n * size..items.min((n + 1) * size));
    let at_once = job.per_worker.get() * fleet.size();
    let fleet = Arc::clone(fleet);
    let answers = fan_out(ctx, batches, move |ctx, batch| {
        let fleet = Arc::clone(&fleet);
        async move { finish(&ctx, &fleet, batch.collect()).await }
    })
    .limit(at_once)
    .named("batch")
    .all()
    .await?;
    Ok(answers.into_iter().flatten().collect())
}

/// Does one batch. The results that a lost worker has sent count. Only the other items go to the
/// next worker.
async fn finish(
    ctx: &Context,
    fleet: &Arc<Fleet>,
    mut open: BTreeSet<u64>,
) -> Result<Vec<Answer>, Failure> {
    let mut answers = Vec::with_capacity(open.len());
    while !open.is_empty() {
        let worker = fleet.lease()?;
        match attempt(ctx, &worker, &mut open, &mut answers).await {
            Ok(()) => {}
            Err(Ended::Lost(why)) => worker.lost(open.len(), &why),
            Err(Ended::Failed(failure)) => return Err(failure),
        }
    }
    answers.sort_unstable_by_key(|answer| answer.item);
    Ok(answers)
}

/// How an attempt went wrong.
enum Ended {
    /// The worker, or the way to it, is no more.
    Lost(Status),
    Failed(Failure),
}

/// One worker's attempt at what is open of a batch.
async fn attempt(
    ctx: &Context,
    worker: &Lease,
    open: &mut BTreeSet<u64>,
    answers: &mut Vec<Answer>,
) -> Result<(), Ended> {
    let ended = |status| ended(ctx, worker, status);
    let protocol = |what| {
        let worker = worker.index();
        Ended::Failed(Failure::Protocol { worker, what })
    };
    let asked = open.iter().copied().collect();
    let mut stream = worker.run(ctx, asked).await.map_err(ended)?;
    while let Some(answer) = stream.message().await.map_err(ended)? {
        if !open.remove(&answer.item) {
            return Err(protocol(format!("item {} is not open", answer.item)));
        }
        answers.push(answer);
        worker.answered();
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(protocol(format!("{} items have no answer", open.len())))
    }
}

/// Says why the call ended: the context is done, the job cannot be done, or the worker is lost.
///
/// A status that the worker sent has no source. One that was created here, because the connection
/// failed, has one. A worker that stops sends `Unavailable`.
fn ended(ctx: &Context, worker: &Lease, status: Status) -> Ended {
    if let Some(why) = ctx.err() {
        return Ended::Failed(why.into());
    }
    if status.code() == Code::Unavailable || status.source().is_some() {
        return Ended::Lost(status);
    }
    Ended::Failed(Failure::Failed {
        worker: worker.index(),
        message: status.message().to_owned(),
    })
}
