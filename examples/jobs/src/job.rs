//! A job as its producer sees it: it creates the streams, publishes the items, and may cancel them.
//! The producer is not needed after that.

use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream::Context as JetStream;
use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use errgroup::{Context, fan_out};

/// The items. A message stays until it is acknowledged. Its subject ends in its number: `items.7`.
pub(crate) const ITEMS: &str = "items";
/// The results, one for each item: `results.7`.
pub(crate) const RESULTS: &str = "results";
/// The dead letters, items that have failed too often: `dead.7`.
pub(crate) const DEAD: &str = "dead";
/// All workers share one consumer, so each message is delivered to one of them.
const CONSUMER: &str = "workers";
/// The subject of cancels. Every worker is subscribed to it.
pub(crate) const CANCELS: &str = "cancels";
/// The header of W3C's Trace Context.
pub(crate) const TRACE: &str = "traceparent";

/// The cause of the end of a job's context.
#[derive(Debug, thiserror::Error)]
#[error("job cancelled: {0}")]
pub(crate) struct JobCancelled(pub(crate) String);

/// Creates the streams. A message that is not acknowledged for `ack_wait` is delivered again.
pub(crate) async fn create(js: &JetStream, ack_wait: Duration) -> Result<()> {
    for (name, retention) in [
        (ITEMS, RetentionPolicy::WorkQueue),
        (RESULTS, RetentionPolicy::Limits),
        (DEAD, RetentionPolicy::Limits),
    ] {
        js.create_stream(Config {
            name: name.into(),
            subjects: vec![format!("{name}.>")],
            retention,
            ..Config::default()
        })
        .await?;
    }
    let config = pull::Config {
        durable_name: Some(CONSUMER.into()),
        ack_wait,
        ..pull::Config::default()
    };
    js.create_consumer_on_stream(config, ITEMS).await?;
    Ok(())
}

/// The consumer of the workers.
pub(crate) async fn consumer(js: &JetStream) -> Result<PullConsumer> {
    let consumer = js.get_consumer_from_stream(CONSUMER, ITEMS).await;
    consumer.context("the streams have not been created")
}

/// Publishes the items. When it returns, the server has stored all of them.
pub(crate) async fn produce(ctx: &Context, js: &JetStream, items: Vec<String>) -> Result<()> {
    let js = js.clone();
    let published = fan_out(ctx, items.into_iter().enumerate(), move |_ctx, item| {
        let (js, (number, work)) = (js.clone(), item);
        async move {
            let message = PublishMessage::build()
                // If the producer publishes it again, the server discards the second one.
                .message_id(format!("item {number}"))
                .header(TRACE, trace(number))
                .payload(work.into());
            let stored = js.send_publish(format!("{ITEMS}.{number}"), message);
            stored.await?.await?;
            Ok::<_, anyhow::Error>(())
        }
    });
    published.limit(256).for_each().await
}

/// The trace of an item. A real producer has one from its tracing library.
pub(crate) fn trace(number: usize) -> String {
    format!("00-{:032x}-{:016x}-01", number + 1, 1)
}

/// Cancels the job. First the items are deleted: a worker that is not connected now does not
/// receive the message, and must not find items later.
pub(crate) async fn cancel(js: &JetStream, reason: &str) -> Result<()> {
    js.get_stream(ITEMS).await?.purge().await?;
    let client = js.client();
    client.publish(CANCELS, reason.to_owned().into()).await?;
    Ok(client.flush().await?)
}
