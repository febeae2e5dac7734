//! One item: how it runs, and what it can fail with.

use std::sync::Arc;
use std::time::Duration;

use errgroup::tower::grpc_code_of;
use errgroup::{Context, ContextError};
use tokio::sync::Semaphore;
use tonic::{Code, Status};

use super::Options;
use super::ledger::Ledger;
use crate::proto::{Answer, Settled};
use crate::work;

/// Why an item has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Stopped(#[from] ContextError),
    #[error("item {0} is broken")]
    Broken(u64),
}

/// A worker that stops sends `Unavailable`: another one may do the item. The error of an item fails
/// the job.
impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        let code = match &failure {
            Failure::Stopped(why) => Code::from(grpc_code_of(why)),
            Failure::Broken(_) => Code::Aborted,
        };
        Status::new(code, format!("{:#}", anyhow::Error::from(failure)))
    }
}

/// What the items of all calls share.
pub(super) struct Items {
    ledger: Ledger,
    pace: Duration,
    /// How many may still come to their end; each takes one for good.
    ends: Semaphore,
    /// How many are to fail; each that does takes one for good.
    failures: Semaphore,
}

impl Items {
    pub(super) fn new(options: &Options) -> Items {
        Items {
            ledger: Ledger::default(),
            pace: options.pace,
            ends: Semaphore::new(options.stall_after.unwrap_or(Semaphore::MAX_PERMITS)),
            failures: Semaphore::new(0),
        }
    }

    /// One of those that run fails, or else the next that starts.
    pub(super) fn let_one_fail(&self) {
        self.failures.add_permits(1);
    }

    pub(super) async fn settled(&self) -> Settled {
        self.ledger.settled().await
    }

    pub(super) fn summary(&self) -> String {
        self.ledger.tally().to_string()
    }

    /// Runs an item of `call`; `ctx` is that of its fan-out.
    pub(super) async fn run(
        self: Arc<Self>,
        call: Context,
        ctx: Context,
        item: u64,
    ) -> Result<Answer, Failure> {
        let entry = self.ledger.enter(call);
        tokio::select! {
            biased;
            () = take(&self.failures) => {
                entry.failed();
                Err(Failure::Broken(item))
            }
            answer = self.answer(&ctx, item) => {
                let answer = answer?;
                entry.done();
                Ok(answer)
            }
        }
    }

    async fn answer(&self, ctx: &Context, item: u64) -> Result<Answer, ContextError> {
        take(&self.ends).await;
        ctx.sleep(self.pace).await?;
        let primes = work::primes(ctx, item)?;
        Ok(Answer { item, primes })
    }
}

async fn take(permits: &Semaphore) {
    match permits.acquire().await {
        Ok(permit) => permit.forget(),
        Err(_) => unreachable!("no semaphore here is ever closed"),
    }
}
