//! What has become of the items: counted, printed and checked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::{self, message::StreamMessage};
use errgroup::{Context, fan_out};

use crate::item::{CAUSE, ERROR, PAUSE, TRIED, TRIES};
use crate::producer::{TRACE, trace};
use crate::run::{Fault, Kind, Options};
use crate::streams::{self, DEAD, RESULTS};
use crate::worker::GRACE;

/// What was seen of the workers.
pub(crate) struct Seen {
    /// When they were started.
    pub(crate) started: SystemTime,
    /// The worker with the item in the middle.
    pub(crate) at: Option<usize>,
    /// Their output, from the fault on.
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) worker: usize,
    pub(crate) text: String,
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
    let (stored, letters) = (results.len(), dead.len());
    println!("{stored} results, {again} of them not at the first try; {letters} dead letters");
    if options.fault == Some(Fault::Cancel) {
        ensure!(stored < options.items, "the job was not cancelled");
        return check_cancel(seen);
    }
    for number in 0..options.items {
        let kind = options.kind(number);
        let (here, there) = match kind {
            Kind::Broken => (&dead, &results),
            _ => (&results, &dead),
        };
        let message = here.get(&number);
        let message = message.with_context(|| format!("item {number} is lost"))?;
        ensure!(
            !there.contains_key(&number),
            "item {number} is in two streams"
        );
        ensure!(
            header(message, TRACE) == trace(number),
            "item {number} has no trace"
        );
        let tries = tries(message);
        let is_right = match (kind, options.fault) {
            (Kind::Short, _) => true,
            (Kind::Long, Some(Fault::Kill | Fault::Term)) => tries > 1,
            // Kept for longer than `ack_wait`. One line came before the fault.
            (Kind::Long, None) => seen.count("has begun") <= 1,
            (Kind::Long, Some(_)) => seen.count("has begun") == 0,
            (Kind::Broken, _) => tries == TRIES && is_dead_letter(message, seen)?,
            (Kind::Flaky, _) => tries == 3,
        };
        ensure!(
            is_right,
            "item {number} is not right: {kind:?}, {tries} tries"
        );
    }
    println!("all {} items are there, and none twice", options.items);
    if let (Some(Fault::Term), Some(worker)) = (options.fault, seen.at) {
        seen.line(Some(worker), "drained: worker: ")?;
        let given = seen.line(
            Some(worker),
            ": given back: context cancelled: shutting down",
        )?;
        let begun = seen.line(None, "has begun")?;
        let took = begun.at.saturating_duration_since(given.at);
        let ack_wait = Duration::from_millis(options.ack_wait);
        ensure!(
            took < ack_wait * 3 / 4,
            "the item was not given back: {took:?}"
        );
    }
    if options.fault.is_none() {
        let times = results.values().map(|it| SystemTime::from(it.time));
        let (first, last) = (times.clone().min(), times.max());
        let took = last
            .unwrap_or(seen.started)
            .duration_since(first.unwrap_or(seen.started))?;
        println!("{:.0} items per second", stored as f64 / took.as_secs_f64());
    }
    Ok(())
}

/// Each worker has ended the tasks of the job before they were dropped, and says why.
fn check_cancel(seen: &Seen) -> anyhow::Result<()> {
    for worker in 0..3 {
        let text = "context cancelled: job cancelled: the customer has left; ";
        let line = &seen.line(Some(worker), text)?.text;
        let millis: f64 = line.split(' ').nth_back(1).unwrap_or_default().parse()?;
        let took = Duration::from_secs_f64(millis / 1e3);
        ensure!(took < GRACE, "worker {worker}: {line}");
    }
    Ok(())
}

/// True if it has its error and its cause, and is not there before the pauses between its tries.
fn is_dead_letter(letter: &StreamMessage, seen: &Seen) -> anyhow::Result<bool> {
    let age = SystemTime::from(letter.time).duration_since(seen.started)?;
    Ok(header(letter, ERROR) == "cannot write the page"
        && header(letter, CAUSE) == "disk full"
        && age >= PAUSE * (2_u32.pow(TRIES - 1) - 1))
}

impl Seen {
    fn count(&self, text: &str) -> usize {
        let lines = self.lines.iter();
        lines.filter(|line| line.text.contains(text)).count()
    }

    /// The first line with this text, of this worker or of any.
    fn line(&self, worker: Option<usize>, text: &str) -> anyhow::Result<&Line> {
        let of_worker = |line: &&Line| worker.is_none_or(|it| it == line.worker);
        let mut lines = self.lines.iter().filter(of_worker);
        let line = lines.find(|line| line.text.contains(text));
        line.with_context(|| format!("worker {worker:?} did not print: {text}"))
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
