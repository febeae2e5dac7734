//! 100,000 lines through three stages, each with its own limit: read from a file, fetched from a
//! service, written to another file. `fan_out` and `fan_out_stream`.
//!
//! ```sh
//! cargo run --example pipeline
//! cargo run --example pipeline -- 1000000 records.txt
//! ```
//!
//! A slow stage slows down the stages before it, because an item is pulled only if there is room
//! for it. So the memory grows with the limits, and not with the number of lines.

#![allow(clippy::print_stdout)] // a program

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{env, process};

use errgroup::{Context, fan_out, fan_out_stream};
use tokio::time::sleep;

/// Runs all stages. The stream of one stage gives the items of the next. An error stops all stages.
async fn run(ctx: &Context, input: &Path, output: &Path) -> anyhow::Result<()> {
    let lines = BufReader::new(File::open(input)?).lines();
    let lines = lines.inspect(|_| LINES.enter());
    let keys = fan_out(ctx, lines, |_ctx, line| async move {
        Ok::<u64, anyhow::Error>(line?.parse()?)
    })
    .named("read")
    .limit(8)
    .try_stream();

    let records = fan_out_stream(ctx, keys, |_ctx, key| async move { fetch(key?).await })
        .named("fetch")
        .limit(64)
        .try_stream();

    let file = Arc::new(Mutex::new(BufWriter::new(File::create(output)?)));
    let to = Arc::clone(&file);
    fan_out_stream(ctx, records, move |_ctx, record| {
        let file = Arc::clone(&to);
        async move {
            file.lock().unwrap().write_all(record?.as_bytes())?;
            LINES.leave();
            print_memory(WRITTEN.fetch_add(1, Relaxed) + 1);
            Ok::<_, anyhow::Error>(())
        }
    })
    .named("write")
    .limit(2)
    .for_each()
    .await?;
    Ok(file.lock().unwrap().flush()?)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let count = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let folder = env::temp_dir().join(format!("errgroup-pipeline-{}", process::id()));
    fs::create_dir(&folder)?;
    let (input, output) = (folder.join("keys"), folder.join("records"));
    let output = arguments.next().map_or(output, PathBuf::from);
    let mut keys = BufWriter::new(File::create(&input)?);
    (0..count).try_for_each(|key| writeln!(keys, "{key}"))?;
    keys.flush()?;

    let start = Instant::now();
    let result = run(&Context::background(), &input, &output).await;
    fs::remove_dir_all(folder)?;
    result?;
    println!("{count} lines in {:.1?}", start.elapsed());
    let (requests, lines) = (&REQUESTS.most, &LINES.most);
    println!("at most {requests:?} requests at once, and {lines:?} lines in all stages");
    Ok(())
}

/// Stands for a request to a service.
async fn fetch(key: u64) -> anyhow::Result<String> {
    REQUESTS.enter();
    sleep(Duration::from_millis(1)).await;
    REQUESTS.leave();
    Ok(format!("{key} {}\n", key * key))
}

/// Prints the memory of the process after each 10,000 lines, on Linux.
fn print_memory(done: usize) {
    if done % 10_000 == 0 {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        println!(
            "resident memory after {done} lines: {}",
            line.unwrap_or("unknown").trim()
        );
    }
}

static WRITTEN: AtomicUsize = AtomicUsize::new(0);
static LINES: Gauge = Gauge::new();
static REQUESTS: Gauge = Gauge::new();

struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    const fn new() -> Gauge {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Gauge { now, most }
    }

    fn enter(&self) {
        let now = self.now.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(now, Relaxed);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Relaxed);
    }
}
