//! The three stages: lines are read, what they name is fetched, and what came is written.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use errgroup::{Context, Progress, fan_out, fan_out_stream};

use crate::meter::{Inside, Meter};
use crate::pool::Pool;

pub(crate) const READ: usize = 8;
pub(crate) const FETCH: usize = 64;
pub(crate) const WRITE: usize = 2;

/// How many lines each stage has at work; and how many are on their way in all, those that wait for the next stage included.
#[derive(Default, Clone)]
pub(crate) struct Meters {
    pub(crate) read: Meter,
    pub(crate) fetch: Meter,
    pub(crate) write: Meter,
    pub(crate) all: Meter,
}

/// A line on its way: read as a key, and later the record that was fetched for it.
struct Way<T>(T, Inside);

/// Runs the lines of `input` through the stages, into `output`. The stream of one stage is the items of the next, and what
/// fails in any of them stops all.
///
/// What a stage has at work and what waits there for the next stage are together within its limit.
pub(crate) async fn run(
    ctx: &Context,
    input: &Path,
    output: &Path,
    pool: Arc<Pool>,
    meters: &Meters,
    on_progress: impl FnMut(Progress) + Send + 'static,
) -> anyhow::Result<()> {
    let Meters {
        read,
        fetch,
        write,
        all,
    } = meters.clone();
    let file = Arc::new(Mutex::new(BufWriter::new(File::create(output)?)));

    // Each is pulled when a place of the first stage is free for it, and not before.
    let lines = BufReader::new(File::open(input)?)
        .lines()
        .map(move |line| Way(line, all.enter()));
    let keys = fan_out(ctx, lines, move |_ctx, Way(line, inside)| {
        read.during(async move {
            let line = line?;
            let key: u64 = line
                .parse()
                .with_context(|| format!("{line:?} is no key"))?;
            Ok::<_, anyhow::Error>(Way(key, inside))
        })
    })
    .named("read")
    .limit(READ)
    .try_stream();

    let records = fan_out_stream(ctx, keys, move |_ctx, key| {
        let pool = Arc::clone(&pool);
        fetch.during(async move {
            let Way(key, inside) = key?;
            let record = pool
                .fetch(key)
                .await
                .with_context(|| format!("fetching {key}"))?;
            Ok::<_, anyhow::Error>(Way(record, inside))
        })
    })
    .named("fetch")
    .limit(FETCH)
    .try_stream();

    let written = Arc::clone(&file);
    fan_out_stream(ctx, records, move |_ctx, record| {
        let file = Arc::clone(&written);
        write.during(async move {
            let Way(record, _inside) = record?;
            // Into a buffer mostly; what reaches the disk is short enough for a worker to wait for.
            file.lock().unwrap().write_all(record.as_bytes())?;
            Ok::<_, anyhow::Error>(())
        })
    })
    .named("write")
    .limit(WRITE)
    .on_progress(on_progress)
    .for_each()
    .await?;

    file.lock().unwrap().flush()?;
    Ok(())
}
