//! One message, from its delivery to the answer that the server gets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{AckKind, PublishMessage};
use async_nats::jetstream::{self, Message};
use errgroup::{Context, Group, Spawner};

use crate::cancel::JobCancelled;
use crate::producer::TRACE;
use crate::streams::{self, DEAD, RESULTS};
use crate::work;

/// An item that fails when it has been delivered this often is given up. The server counts
/// deliveries, also those after which a worker has given the item back or was killed.
pub(crate) const TRIES: u32 = 5;
/// An item is given up unseen when it has been delivered this often: it may kill its workers.
const DELIVERIES: u32 = 4 * TRIES;
/// The pause after the first failure. Each further one is twice as long.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The headers of results and dead letters.
pub(crate) const TRIED: &str = "Tries";
pub(crate) const ERROR: &str = "Error";
pub(crate) const CAUSE: &str = "Cause";

/// The trace of an item, a value of its context.
struct Trace(String);

/// How items are done. A clone is cheap.
#[derive(Clone)]
pub(crate) struct Items {
    js: jetstream::Context,
    ack_wait: Duration,
    /// Of the worker's group: its report names the items.
    tasks: Spawner<anyhow::Error>,
}

impl Items {
    pub(crate) fn new(
        js: jetstream::Context,
        ack_wait: Duration,
        tasks: Spawner<anyhow::Error>,
    ) -> Items {
        Items {
            js,
            ack_wait,
            tasks,
        }
    }

    /// Runs an item and answers its message. A failure of the item is the answer. An error of this
    /// function, or of the tracked task, is one of the connection, and ends the worker.
    pub(crate) async fn run(
        self,
        ctx: Context,
        message: anyhow::Result<Message>,
    ) -> anyhow::Result<()> {
        let message = Arc::new(message?);
        let trace = message.headers.as_ref().and_then(|all| all.get(TRACE));
        let trace = Trace(trace.map(ToString::to_string).unwrap_or_default());
        let ctx = ctx.with_value(trace);
        let task = self.tasks.named(message.subject.to_string());
        let run = task.track(async {
            let outcome = self.attempt(&ctx, &message).await;
            let answer = self.answer(&ctx, &message, &outcome).await?;
            let answered = message.ack_with(answer).await;
            answered.map_err(anyhow::Error::from_boxed)?;
            match outcome {
                Err(_) => Ok(ctx.check()?), // stopped, if the context is done
                Ok(()) => Ok(()),
            }
        });
        run.await;
        Ok(())
    }

    /// Does the work and stores its result, while a background task keeps the message. The first of
    /// them that fails ends the other.
    async fn attempt(&self, ctx: &Context, message: &Arc<Message>) -> anyhow::Result<()> {
        let tries = streams::tries(message)?;
        anyhow::ensure!(tries <= DELIVERIES, "delivered too often");
        let (g, ctx) = Group::<anyhow::Error>::with_context(ctx);
        let keep = keep(ctx.clone(), Arc::clone(message), self.ack_wait);
        g.task().name("ack_wait").background().go(keep);
        let (items, message) = (self.clone(), Arc::clone(message));
        g.go(async move {
            let result = ctx.run(work::run(&ctx, &message)).await??;
            items.store(&ctx, &message, result).await
        });
        g.wait().await
    }

    /// Stores a result, unless an earlier try has: the server accepts the first message of a
    /// subject only. (A key-value bucket does the same in `create`.)
    async fn store(&self, ctx: &Context, message: &Message, result: String) -> anyhow::Result<()> {
        let stored = self.publish(RESULTS, ctx, message, PublishMessage::build(), result);
        stored.await
    }

    /// Publishes a message about an item, with its trace, as the first of its subject.
    async fn publish(
        &self,
        stream: &str,
        ctx: &Context,
        item: &Message,
        message: PublishMessage,
        payload: String,
    ) -> anyhow::Result<()> {
        let trace = ctx.value::<Trace>().map_or("", |trace| &trace.0);
        let message = message
            .expected_last_subject_sequence(0)
            .header(TRACE, trace)
            .header(TRIED, streams::tries(item)?.to_string())
            .payload(payload.into());
        let subject = format!("{stream}.{}", streams::number(&item.subject)?);
        match self.js.send_publish(subject, message).await?.await {
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(()),
            stored => stored.map(drop).context("not stored"),
        }
    }

    /// Decides what the server is to do with the message.
    async fn answer(
        &self,
        ctx: &Context,
        message: &Message,
        outcome: &anyhow::Result<()>,
    ) -> anyhow::Result<AckKind> {
        let Err(error) = outcome else {
            return Ok(AckKind::Ack);
        };
        if ctx.caused_by::<JobCancelled>() {
            return Ok(AckKind::Term);
        }
        if ctx.is_done() {
            // This worker stops. Another one gets the message at once.
            println!("{}: given back: {error:#}", message.subject);
            return Ok(AckKind::Nak(None));
        }
        let tries = streams::tries(message)?;
        println!("{}: try {tries} has failed: {error:#}", message.subject);
        if tries < TRIES {
            return Ok(AckKind::Nak(Some(PAUSE * 2_u32.pow(tries - 1))));
        }
        let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
        let letter = PublishMessage::build()
            .header(ERROR, one_line(&error.to_string()))
            .header(CAUSE, one_line(&causes.join(": ")));
        let payload = String::from_utf8_lossy(&message.payload).into_owned();
        self.publish(DEAD, ctx, message, letter, payload).await?;
        Ok(AckKind::Term)
    }
}

/// Extends the `ack_wait` of a message three times before it is over. Fails if the server has not
/// confirmed that in time: then it delivers the message again, and this try has to end.
async fn keep(ctx: Context, message: Arc<Message>, ack_wait: Duration) -> anyhow::Result<()> {
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

/// A header is one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
