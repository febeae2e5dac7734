//! What has become of the items: counted, printed and checked.

use std::collections::BTreeMap;
use std::process::ExitStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::{self, message::StreamMessage};
use errgroup::{Context, fan_out};

use crate::item::{CAUSE, ERROR, PAUSE, TRIED, TRIES};
use crate::producer::{TRACE, trace};
use crate::run::{Fault, Options};
use crate::streams::{self, DEAD, RESULTS};
use crate::worker::GRACE;

/// What was seen of the workers.
pub(crate) struct Seen {
    /// When they were started.
    pub(crate) started: SystemTime,
    /// The worker with the fault.
    pub(crate) at: Option<usize>,
    pub(crate) statuses: Vec<ExitStatus>,
    /// Their output, from the fault on.
    pub(crate) lines: Vec<(usize, String)>,
}

/// Fails if an item is lost or has two results, or if the fault had another effect than it should.
pub(crate) async fn check(
    ctx: &Context,
    js: &jetstream::Context,
    options: &Options,
    seen: &Seen,
) -> anyhow::Result<()> {
    let results = read(ctx, js, RESULTS).await?;
    let dead = read(ctx, js, DEAD).await?;
    let again = results.values().filter(|it| tries(it) > 1).count();
    let (stored, lost) = (results.len(), dead.len());
    println!("{stored} results, {again} of them not at the first try; {lost} dead letters");
    for (&number, message) in results.iter().chain(&dead) {
        let is_right = header(message, TRACE) == trace(number);
        ensure!(is_right, "item {number} has lost its trace");
    }
    let killed = (options.fault == Some(Fault::Kill))
        .then_some(seen.at)
        .flatten();
    for (index, status) in seen.statuses.iter().enumerate() {
        let is_right = status.success() || killed == Some(index);
        ensure!(is_right, "worker {index}: {status}");
    }
    if options.fault == Some(Fault::Cancel) {
        ensure!(stored < options.items, "the job was not cancelled");
        return check_cancel(seen);
    }
    for number in 0..options.items {
        let is_right = results.contains_key(&number) != options.is_broken(number)
            && dead.contains_key(&number) == options.is_broken(number);
        ensure!(is_right, "item {number} is lost, or not where it should be");
    }
    println!("all {} items are there, and none twice", options.items);

    let middle = tries(&results[&options.middle()]);
    match options.fault {
        Some(Fault::Kill) => ensure!(middle > 1, "the killed worker had nothing"),
        Some(Fault::Term) => {
            ensure!(middle > 1, "the worker has not given its item back");
            let item = format!("items.{}: given back: ", options.middle());
            seen.line(seen.at, &item)?;
            seen.line(seen.at, "drained: worker: ")?;
        }
        _ => ensure!(middle == 1, "the item in the middle was delivered again"),
    }
    if options.fault == Some(Fault::Fail) {
        for (number, message) in &results {
            let is_right = !options.is_flaky(*number) || tries(message) == 3;
            ensure!(is_right, "item {number}: tried {} times", tries(message));
        }
        check_dead(&dead, seen)?;
    }
    if options.fault.is_none() {
        print_rate(&results);
    }
    Ok(())
}

/// Each worker has ended the tasks of the job, soon, and says why.
fn check_cancel(seen: &Seen) -> anyhow::Result<()> {
    for index in 0..seen.statuses.len() {
        let text = "context cancelled: job cancelled: the customer has left; ";
        let line = seen.line(Some(index), text)?;
        let millis = line.split(' ').nth_back(1).unwrap_or_default();
        let is_soon = Duration::from_secs_f64(millis.parse::<f64>()? / 1e3) < GRACE;
        ensure!(is_soon, "worker {index} did not stop its tasks: {line}");
    }
    Ok(())
}

/// Each dead letter has its error, its cause, and the pauses between its tries.
fn check_dead(dead: &BTreeMap<usize, StreamMessage>, seen: &Seen) -> anyhow::Result<()> {
    let started = i128::try_from(seen.started.duration_since(UNIX_EPOCH)?.as_nanos())?;
    let pauses = PAUSE * (2_u32.pow(TRIES - 1) - 1);
    for (number, letter) in dead {
        let (error, cause) = (header(letter, ERROR), header(letter, CAUSE));
        let is_right = (error, cause) == ("cannot write the page", "disk full");
        ensure!(is_right, "item {number}: {error}: {cause}");
        let tries = tries(letter);
        ensure!(tries == TRIES, "item {number}: tried {tries} times");
        let age = letter.time.unix_timestamp_nanos() - started;
        let is_right = age >= i128::try_from(pauses.as_nanos())?;
        ensure!(is_right, "item {number} was tried again without a pause");
    }
    Ok(())
}

fn print_rate(results: &BTreeMap<usize, StreamMessage>) {
    let times = results.values().map(|it| it.time.unix_timestamp_nanos());
    let (first, last) = (times.clone().min(), times.max());
    let nanos = last.unwrap_or_default() - first.unwrap_or_default();
    let rate = results.len() as f64 / (nanos.max(1) as f64 / 1e9);
    println!("{rate:.0} items per second");
}

impl Seen {
    /// The line of a worker that begins so.
    fn line(&self, worker: Option<usize>, begin: &str) -> anyhow::Result<&str> {
        let of_worker =
            |(index, line): &&(usize, String)| Some(*index) == worker && line.starts_with(begin);
        let line = self.lines.iter().find(of_worker);
        let line = line.with_context(|| format!("worker {worker:?} did not print: {begin}"))?;
        Ok(&line.1)
    }
}

/// The messages of a stream, by item. Fails if an item has two.
async fn read(
    ctx: &Context,
    js: &jetstream::Context,
    name: &str,
) -> anyhow::Result<BTreeMap<usize, StreamMessage>> {
    let stream = js.get_stream(name).await?;
    let last = stream.cached_info().state.last_sequence;
    let messages = fan_out(ctx, 1..=last, move |_ctx, sequence| {
        let stream = stream.clone();
        async move { Ok::<_, anyhow::Error>(stream.get_raw_message(sequence).await?) }
    });
    let mut by_item = BTreeMap::new();
    for message in messages.limit(64).all().await? {
        let number = streams::number(&message.subject)?;
        let earlier = by_item.insert(number, message);
        ensure!(earlier.is_none(), "item {number} is in `{name}` twice");
    }
    Ok(by_item)
}

fn tries(message: &StreamMessage) -> u32 {
    header(message, TRIED).parse().unwrap_or_default()
}

fn header<'a>(message: &'a StreamMessage, name: &str) -> &'a str {
    message.headers.get(name).map_or("", |value| value.as_str())
}
