//! The end of a job by hand: a message on a subject that every worker is subscribed to.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use async_nats::{HeaderMap, Subscriber, jetstream};
use errgroup::{CancelHandle, Context};
use futures_util::StreamExt;

use crate::streams::ITEMS;

const SUBJECT: &str = "cancel";
const SENT: &str = "Sent";

/// The cause of the end of a job's context.
#[derive(Debug, thiserror::Error)]
#[error("job cancelled: {reason}")]
pub(crate) struct JobCancelled {
    reason: String,
    /// On the system's clock, so it is of use on one machine only.
    sent: SystemTime,
}

impl JobCancelled {
    /// The time since the cancel was published.
    pub(crate) fn age(&self) -> Duration {
        self.sent.elapsed().unwrap_or_default()
    }
}

/// Cancels the job. First the items are deleted that no worker has begun: a worker that is not
/// connected now does not receive the message, and must not find items later.
pub(crate) async fn cancel(js: &jetstream::Context, reason: &str) -> anyhow::Result<()> {
    js.get_stream(ITEMS).await?.purge().await?;
    let mut headers = HeaderMap::new();
    let sent = SystemTime::now().duration_since(UNIX_EPOCH)?;
    headers.insert(SENT, sent.as_nanos().to_string());
    let client = js.client();
    client
        .publish_with_headers(SUBJECT, headers, reason.to_owned().into())
        .await?;
    Ok(client.flush().await?)
}

/// Subscribes to cancels. The server sees it before the requests for messages that follow.
pub(crate) async fn subscribe(js: &jetstream::Context) -> anyhow::Result<Subscriber> {
    Ok(js.client().subscribe(SUBJECT).await?)
}

/// Cancels the context of the job when a message comes. A background task of the worker.
pub(crate) async fn observe(
    ctx: Context,
    mut cancels: Subscriber,
    job: CancelHandle,
) -> anyhow::Result<()> {
    while let Ok(message) = ctx.run(cancels.next()).await {
        let message = message.context("the subscription to cancels has ended")?;
        let sent = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(SENT));
        let sent = sent.context("a cancel has no time")?.as_str().parse()?;
        job.cancel_with(JobCancelled {
            reason: String::from_utf8_lossy(&message.payload).into_owned(),
            sent: UNIX_EPOCH + Duration::from_nanos(sent),
        });
    }
    Ok(())
}
