//! What the items do: they wait, as if for a disk, or fail. Your work would be here.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use async_nats::jetstream::Message;
use errgroup::Context;

use crate::streams;

/// An item that takes this long says that it has begun.
const LONG: Duration = Duration::from_secs(1);

/// Does what the payload says: `wait 10` (milliseconds), `fail`, or `fail until 3` (deliveries).
/// Returns the result.
pub(crate) async fn run(ctx: &Context, message: &Message) -> anyhow::Result<String> {
    let payload = std::str::from_utf8(&message.payload)?;
    let tries = streams::tries(message)?;
    let words: Vec<_> = payload.split(' ').collect();
    match words[..] {
        ["wait", millis] => {
            let time = Duration::from_millis(millis.parse()?);
            if time >= LONG {
                println!("{} has begun, and takes {time:?}", message.subject);
            }
            ctx.sleep(time).await?;
        }
        ["fail", "until", enough] if tries >= enough.parse()? => {}
        ["fail", ..] => return Err(anyhow!("disk full")).context("cannot write the page"),
        _ => bail!("unknown work: {payload}"),
    }
    Ok(format!("done: {payload}"))
}
