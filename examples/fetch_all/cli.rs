//! The command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use reqwest::Url;

use crate::client::PLAIN_ONLY;

/// Fetches pages over plain HTTP, a few at a time, and stops at the first that fails.
///
/// Without a URL it shows that on a server of its own: once with sound pages, and once with one that answers 500.
#[derive(clap::Parser)]
pub(crate) struct Cli {
    /// The pages to fetch
    #[arg(value_name = "URL", value_parser = http_url)]
    urls: Vec<Url>,

    /// A file that lists them, one a line; blank lines and # comments are skipped
    #[arg(long, value_name = "PATH", conflicts_with = "urls")]
    file: Option<PathBuf>,

    /// How many to fetch at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = positive)]
    pub(crate) limit: usize,

    /// When to give up, all in all: 250ms, 1.5s, 2m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// How many pages the demonstration has
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = positive, conflicts_with_all = ["urls", "file"])]
    pub(crate) pages: usize,
}

impl Cli {
    /// The URLs asked for, every one of them sound; `None` asks for the demonstration.
    pub(crate) fn urls(&self) -> anyhow::Result<Option<Vec<Url>>> {
        match &self.file {
            Some(path) => read_list(path).map(Some),
            None if self.urls.is_empty() => Ok(None),
            None => Ok(Some(self.urls.clone())),
        }
    }
}

fn read_list(path: &Path) -> anyhow::Result<Vec<Url>> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    let urls = (1..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| http_url(line).with_context(|| format!("{name}:{number}: {line}")))
        .collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(!urls.is_empty(), "{name} lists no URL");
    Ok(urls)
}

fn http_url(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).map_err(|error| anyhow!("not a URL: {error}"))?;
    let scheme = url.scheme();
    ensure!(scheme == "http", "the scheme is {scheme}, but {PLAIN_ONLY}");
    Ok(url)
}

fn positive(text: &str) -> anyhow::Result<usize> {
    let number = text.parse()?;
    ensure!(number > 0, "must be at least 1");
    Ok(number)
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: Option<f64> = text[..text.len() - unit.len()].parse().ok();
    let seconds = match unit {
        "ms" => Some(0.001),
        "s" => Some(1.0),
        "m" => Some(60.0),
        _ => None,
    };
    number
        .zip(seconds)
        .and_then(|(number, seconds)| Duration::try_from_secs_f64(number * seconds).ok())
        .context("write it as 250ms, 1.5s or 2m")
}
