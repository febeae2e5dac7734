//! What the items do: they wait, as if for a disk, or fail. Your work would be here.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use errgroup::Context;

/// An item that takes this long says that it has begun.
const LONG: Duration = Duration::from_secs(1);

/// Does what the payload says: `wait 10` (milliseconds), or `fail 2` (tries, before it succeeds).
/// Returns the result.
pub(crate) async fn run(ctx: &Context, item: &str, payload: &str, tries: u32) -> Result<String> {
    match payload.split_once(' ') {
        Some(("wait", millis)) => {
            let time = Duration::from_millis(millis.parse()?);
            if time >= LONG {
                println!("{item} has begun, and takes {time:?}");
            }
            ctx.sleep(time).await?;
        }
        Some(("fail", failures)) if tries > failures.parse()? => {}
        Some(("fail", _)) => return Err(anyhow!("disk full")).context("cannot write the page"),
        _ => bail!("unknown work: {payload}"),
    }
    Ok(format!("done: {payload}"))
}
