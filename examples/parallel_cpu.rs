//! Computes a checksum of each file of a folder on all cores, with a progress bar.
//!
//! ```sh
//! cargo run --release --example parallel_cpu          # the sources of this crate
//! cargo run --release --example parallel_cpu -- /usr/share/doc
//! ```
//!
//! The function blocks: it reads files and computes. So it runs on the blocking pool, as many calls
//! at once as there are cores. After a minute it gives up: no further file begins, and those that
//! are being read stop at their next block.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use errgroup::{Context, Progress, fan_out_blocking};
use indicatif::{ProgressBar, ProgressStyle};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os()
        .nth(1)
        .map_or("src".into(), PathBuf::from);
    let files = files_in(&folder)?;
    let ctx = Context::background().with_timeout(Duration::from_secs(60));

    let bar = ProgressBar::new(files.len() as u64);
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} files")?);
    let moves = bar.clone();
    let sums = fan_out_blocking(&ctx, files.clone(), |ctx, path| {
        checksum(&ctx, &path).with_context(|| format!("cannot read {}", path.display()))
    })
    .named("file")
    .on_progress(move |progress: Progress| moves.set_position(progress.done as u64))
    .all()
    .await;
    bar.finish_and_clear();

    let mut out = io::stdout().lock();
    for (path, (sum, bytes)) in files.iter().zip(sums?) {
        writeln!(out, "{sum:016x} {bytes:>9} {}", path.display())?;
    }
    Ok(())
}

/// The FNV-1a hash of a file, and its length. Looks at the context after each block.
fn checksum(ctx: &Context, path: &Path) -> anyhow::Result<(u64, u64)> {
    let (mut file, mut block) = (File::open(path)?, vec![0; 64 * 1024]);
    let (mut sum, mut bytes) = (0xcbf2_9ce4_8422_2325_u64, 0);
    loop {
        ctx.check()?;
        let read = file.read(&mut block)?;
        if read == 0 {
            return Ok((sum, bytes));
        }
        for byte in &block[..read] {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        bytes += read as u64;
    }
}

/// The files of a folder and of those in it, by name.
fn files_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder);
        for entry in entries.with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}
