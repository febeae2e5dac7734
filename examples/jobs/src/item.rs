//! One message, from its delivery to the answer that the server gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{AckKind, PublishMessage};
use async_nats::jetstream::{Context as JetStream, Message};
use errgroup::{Context, Group, Spawner};

use crate::job::{DEAD, ITEMS, JobCancelled, RESULTS, TRACE};
use crate::work;

/// An item that fails when it has been delivered this often is given up. The server counts
/// deliveries, also those after which a worker has given the item back or was killed.
const TRIES: u32 = 5;
/// An item is given up unseen when it has been delivered this often: it may kill its workers.
const DELIVERIES: u32 = 4 * TRIES;
/// The pause after the first failure. Each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(50);

/// The headers of results and dead letters.
pub(crate) const TRIED: &str = "Tries";
pub(crate) const ERROR: &str = "Error";
pub(crate) const CAUSE: &str = "Cause";

/// The trace of an item, a value of its context.
struct Trace(String);

/// How items are done. A clone is cheap.
#[derive(Clone)]
pub(crate) struct Items {
    pub(crate) js: JetStream,
    pub(crate) ack_wait: Duration,
    /// Of the worker's group: its report names the items.
    pub(crate) tasks: Spawner<anyhow::Error>,
}

impl Items {
    /// Runs an item and answers its message. A failure of the item is the answer. An error of this
    /// function, or of the tracked task, is one of the connection, and ends the worker.
    pub(crate) async fn run(self, ctx: Context, message: Result<Message>) -> Result<()> {
        let message = Arc::new(message?);
        let trace = message.headers.as_ref().and_then(|all| all.get(TRACE));
        let ctx = ctx.with_value(Trace(trace.map(ToString::to_string).unwrap_or_default()));
        let task = self.tasks.named(message.subject.to_string());
        let run = task.track(async {
            let outcome = self.attempt(&ctx, &message).await;
            let answer = match &outcome {
                Ok(()) => AckKind::Ack,
                Err(error) => self.after_error(&ctx, &message, error).await?,
            };
            let answered = message.ack_with(answer).await;
            answered.map_err(anyhow::Error::from_boxed)?;
            if outcome.is_err() {
                ctx.check()?; // if the context is done, the report counts the item as stopped
            }
            Ok(())
        });
        run.await;
        Ok(())
    }

    /// Does the work and stores its result, while a background task keeps the message. The first of
    /// them that fails ends the other.
    async fn attempt(&self, ctx: &Context, message: &Arc<Message>) -> Result<()> {
        let tries = tries(message)?;
        ensure!(tries <= DELIVERIES, "delivered too often");
        let (g, ctx) = Group::<anyhow::Error>::with_context(ctx);
        let keep = keep(ctx.clone(), Arc::clone(message), self.ack_wait);
        g.task().name("ack_wait").background().go(keep);
        let (items, message) = (self.clone(), Arc::clone(message));
        g.go(async move {
            let payload = std::str::from_utf8(&message.payload)?;
            let work = work::run(&ctx, &message.subject, payload, tries);
            let result = PublishMessage::build().payload(ctx.run(work).await??.into());
            items.publish(&ctx, &message, RESULTS, result).await
        });
        g.wait().await
    }

    /// Publishes a result or a dead letter, with the item's trace, unless an earlier try has: the
    /// server accepts the first message of a subject only. (A key-value bucket does the same in
    /// `create`.)
    async fn publish(
        &self,
        ctx: &Context,
        item: &Message,
        stream: &str,
        message: PublishMessage,
    ) -> Result<()> {
        let message = message
            .expected_last_subject_sequence(0)
            .header(TRACE, ctx.value::<Trace>().map_or("", |trace| &trace.0))
            .header(TRIED, tries(item)?.to_string());
        let subject = item.subject.replacen(ITEMS, stream, 1);
        match self.js.send_publish(subject, message).await?.await {
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(()),
            stored => stored.map(drop).context("not stored"),
        }
    }

    /// Decides what the server is to do with the message of an item that has no result.
    async fn after_error(
        &self,
        ctx: &Context,
        message: &Message,
        error: &anyhow::Error,
    ) -> Result<AckKind> {
        let (subject, tries) = (&message.subject, tries(message)?);
        if ctx.is_done() {
            println!("{subject}: stopped: {error:#}");
            let is_over = ctx.caused_by::<JobCancelled>();
            // If only this worker stops, another one gets the message at once.
            return Ok(if is_over {
                AckKind::Term
            } else {
                AckKind::Nak(None)
            });
        }
        if tries < TRIES {
            let pause = PAUSE * 2_u32.pow(tries - 1);
            println!("{subject}: try {tries} has failed, the next is in {pause:?}: {error:#}");
            return Ok(AckKind::Nak(Some(pause)));
        }
        println!("{subject}: try {tries} has failed, the last: {error:#}");
        let letter = PublishMessage::build()
            .header(ERROR, one_line(&error.to_string()))
            .header(CAUSE, one_line(&error.root_cause().to_string()))
            .payload(message.payload.clone());
        self.publish(ctx, message, DEAD, letter).await?;
        Ok(AckKind::Term)
    }
}

/// Extends the `ack_wait` of a message three times before it is over. Fails if the server has not
/// confirmed that in time: then it delivers the message again, and this try has to end.
async fn keep(ctx: Context, message: Arc<Message>, ack_wait: Duration) -> Result<()> {
    let mut until = Instant::now() + ack_wait;
    while ctx.sleep(ack_wait / 4).await.is_ok() {
        let asked = Instant::now();
        let in_time = ctx.with_deadline_cause(until, "the message was not kept: ack_wait is over");
        let kept = in_time.run(message.double_ack_with(AckKind::Progress));
        kept.await?.map_err(anyhow::Error::from_boxed)?;
        until = asked + ack_wait;
    }
    Ok(())
}

/// How often a message has been delivered, this time included.
fn tries(message: &Message) -> Result<u32> {
    let info = message.info().map_err(anyhow::Error::from_boxed)?;
    Ok(u32::try_from(info.delivered)?)
}

/// A header is one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
