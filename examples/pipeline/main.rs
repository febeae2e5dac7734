//! A pipeline of three stages, each with a limit of its own: 100,000 lines are read from a file, what they name is
//! fetched, and what came is written to another. `fan_out` and `fan_out_stream`, with memory that stays flat.
//!
//! ```sh
//! cargo run --example pipeline
//! cargo run --example pipeline -- --items 1000000
//! ```
//!
//! A stage that is slow holds up those before it: nothing is pulled for which there is no room. Memory does not grow
//! with the number of lines, but with the sum of the limits.
//!
//! It is a check as well: every line must be there at the end, once and unchanged; no stage may exceed its limit, nor all
//! together their sum; and from a tenth of the way to the end the process may not grow (where it can be seen: on Linux).
//!
//! What concerns errgroup is in `stages.rs`.

mod meter;
mod pool;
mod server;
mod stages;

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Parser;
use errgroup::{Context, Group, Progress};

use pool::Pool;
use stages::Meters;

/// Growth that is none: the allocator's pages come and go.
const SLACK: u64 = 4 * 1024;

/// Reads keys from a file, fetches a record for each, and writes the records to another file.
#[derive(Parser)]
struct Cli {
    /// How many lines go through
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    items: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { items } = Cli::parse();
    let out = &mut io::stdout();
    let folder = Folder::create()?;
    let (input, output) = (folder.0.join("keys"), folder.0.join("records"));
    write_keys(&input, items)?;

    let (g, ctx) = Group::with_context(Context::background());
    let pool = Arc::new(Pool::new(server::start(&g, &ctx).await?));
    let meters = Meters::default();
    let at_a_tenth = Arc::new(OnceLock::new());

    let start = Instant::now();
    let on_progress = {
        let at_a_tenth = Arc::clone(&at_a_tenth);
        move |progress: Progress| {
            if progress.done >= items / 10 {
                at_a_tenth.get_or_init(meter::resident);
            }
        }
    };
    stages::run(
        &ctx,
        &input,
        &output,
        Arc::clone(&pool),
        &meters,
        on_progress,
    )
    .await?;
    let (wall, at_the_end) = (start.elapsed(), meter::resident());
    g.cancel();
    g.wait().await?;

    let opened = pool.opened();
    writeln!(
        out,
        "{items} lines in {wall:.1?}, over {opened} connections"
    )?;
    ensure!(opened <= stages::FETCH, "too many connections");
    show_meters(out, &meters)?;
    if let (Some(Some(before)), Some(after)) = (at_a_tenth.get(), at_the_end) {
        writeln!(
            out,
            "  resident memory: {before} KiB at 10 %, {after} KiB at the end"
        )?;
        ensure!(after < before + SLACK, "memory has grown");
    }
    let checksum = verify(&output, items)?;
    writeln!(
        out,
        "  every line is there: {items}, checksum {checksum:016x}"
    )?;
    Ok(())
}

fn show_meters(out: &mut impl Write, meters: &Meters) -> anyhow::Result<()> {
    let Meters {
        read,
        fetch,
        write,
        all,
    } = meters;
    let sum = stages::READ + stages::FETCH + stages::WRITE;
    writeln!(out, "  {:<22} {:>6} {:>8}", "in flight", "limit", "at most")?;
    for (name, limit, meter) in [
        ("read", stages::READ, read),
        ("fetch", stages::FETCH, fetch),
        ("write", stages::WRITE, write),
        ("all, and between them", sum, all),
    ] {
        let most = meter.most();
        writeln!(out, "  {name:<22} {limit:>6} {most:>8}")?;
        ensure!(most <= limit, "{name}: that is above the limit");
    }
    Ok(())
}

fn write_keys(path: &Path, items: usize) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for key in 0..items {
        writeln!(file, "{key}")?;
    }
    file.flush()
}

/// Checks that the file holds the record of every key, in whatever order, and gives the sum of the lines' hashes.
fn verify(path: &Path, items: usize) -> anyhow::Result<u64> {
    let mut lines = 0;
    let mut sum = 0_u64;
    for line in BufReader::new(File::open(path)?).lines() {
        lines += 1;
        sum = sum.wrapping_add(hash(&line?));
    }
    let expected = (0..items).fold(0_u64, |sum, key| {
        sum.wrapping_add(hash(server::record(key as u64).trim_end()))
    });
    ensure!(
        lines == items,
        "{lines} lines came out, and {items} went in"
    );
    ensure!(
        sum == expected,
        "the lines are not those that they should be"
    );
    Ok(sum)
}

fn hash(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.hash(&mut hasher);
    hasher.finish()
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn create() -> anyhow::Result<Folder> {
        let path = env::temp_dir().join(format!("errgroup-pipeline-{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
