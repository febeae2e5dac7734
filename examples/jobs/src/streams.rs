//! The streams of the job: the items, their results, and the items that were given up.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use async_nats::jetstream::{self, Message};

/// A message stays until it is acknowledged. Its subject ends in its number: `items.7`.
pub(crate) const ITEMS: &str = "items";
/// The results, one for each item.
pub(crate) const RESULTS: &str = "results";
/// The dead letters: items that have failed too often.
pub(crate) const DEAD: &str = "dead";
/// All workers share one consumer, so each message is delivered to one of them.
const CONSUMER: &str = "workers";

/// Creates the streams. A message that is not acknowledged for `ack_wait` is delivered again.
pub(crate) async fn create(js: &jetstream::Context, ack_wait: Duration) -> anyhow::Result<()> {
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
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        ..pull::Config::default()
    };
    js.create_consumer_on_stream(config, ITEMS).await?;
    Ok(())
}

/// The consumer of the workers.
pub(crate) async fn consumer(js: &jetstream::Context) -> anyhow::Result<PullConsumer> {
    let consumer = js.get_consumer_from_stream(CONSUMER, ITEMS).await;
    consumer.context("the streams have not been created")
}

/// The number of an item, from the subject of its message.
pub(crate) fn number(subject: &str) -> anyhow::Result<usize> {
    let number = subject.split_once('.').and_then(|(_, it)| it.parse().ok());
    number.with_context(|| format!("{subject} has no number"))
}

/// How often a message has been delivered, this time included.
pub(crate) fn tries(message: &Message) -> anyhow::Result<u32> {
    let info = message.info().map_err(anyhow::Error::from_boxed)?;
    Ok(u32::try_from(info.delivered)?)
}
