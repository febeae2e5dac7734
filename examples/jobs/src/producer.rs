//! The producer: publishes the items, and then is not needed any more.

use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use errgroup::{Context, fan_out};

use crate::streams::ITEMS;

/// The header of W3C's Trace Context.
pub(crate) const TRACE: &str = "traceparent";

/// Publishes the items. When it returns, the server has stored all of them.
pub(crate) async fn produce(
    ctx: &Context,
    js: &jetstream::Context,
    items: Vec<String>,
) -> anyhow::Result<()> {
    let js = js.clone();
    fan_out(ctx, items.into_iter().enumerate(), move |_ctx, item| {
        let js = js.clone();
        async move {
            let (number, work) = item;
            let message = PublishMessage::build()
                // If the producer publishes it again, the server discards the second one.
                .message_id(format!("item {number}"))
                .header(TRACE, trace(number))
                .payload(work.into());
            let stored = js.send_publish(format!("{ITEMS}.{number}"), message);
            stored.await?.await?;
            Ok::<_, anyhow::Error>(())
        }
    })
    .limit(256)
    .for_each()
    .await
}

/// The trace of an item. A real producer has one from its tracing library.
pub(crate) fn trace(number: usize) -> String {
    format!("00-{:032x}-{:016x}-01", number + 1, 1)
}
