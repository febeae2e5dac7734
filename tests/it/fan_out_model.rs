//! Compares random fan-outs with a model that goes from event to event: which outcomes there are,
//! in which order, and at which instant.
//!
//! Every duration has its own bit, so no two events share an instant, and the result is
//! deterministic.

use std::future::{Future, pending};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::Duration;

use errgroup::{Context, Errors, TaskErrorKind, fan_out, hedge};
use futures::{FutureExt, Stream, StreamExt};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngSeed, TestRunner, contextualize_config};
use tokio::time::{Instant, sleep, timeout};

use crate::group_support::*;

/// The maximum number of items. The low bits of durations belong to items, the next ones to the
/// pauses of the consumer.
const ITEMS: usize = 8;
const DEADLINE: u64 = 1 << (2 * ITEMS + 1);
const GRACE: u64 = 2 * DEADLINE;
const UNIT: u64 = 2 * GRACE;

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    All,
    ForEach,
    Settle,
    TryStream,
    Stream,
    OrderedStream,
    FirstOk,
    Quorum(usize),
}

impl End {
    fn is_stream(self) -> bool {
        matches!(self, End::TryStream | End::Stream | End::OrderedStream)
    }

    fn stops_at_a_failure(self) -> bool {
        matches!(self, End::All | End::ForEach | End::TryStream)
    }

    /// How many are enough.
    fn wanted(self) -> Option<usize> {
        match self {
            End::FirstOk => Some(1),
            End::Quorum(wanted) => Some(wanted),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Good,
    Bad,
    Panics,
    PanicsInF,
    Never,
}

#[derive(Debug, Clone)]
struct Case {
    end: End,
    local: bool,
    /// How long each takes, and how it ends.
    items: Vec<(u64, Act)>,
    /// Which call of the iterator panics.
    iterator_panics: Option<usize>,
    /// Whether the iterator knows how many are left.
    hinted: bool,
    limit: usize,
    grace: u64,
    deadline: Option<u64>,
    /// How long the consumer of a stream does something else after each outcome.
    pauses: Option<Vec<u64>>,
}

fn cases() -> impl Strategy<Value = Case> {
    let end = prop_oneof![
        Just(End::All),
        Just(End::ForEach),
        Just(End::Settle),
        Just(End::TryStream),
        Just(End::Stream),
        Just(End::OrderedStream),
        Just(End::FirstOk),
        (0..5_usize).prop_map(End::Quorum),
    ];
    let act = prop_oneof![
        24 => Just(Act::Good),
        6 => Just(Act::Bad),
        1 => Just(Act::Panics),
        1 => Just(Act::PanicsInF),
        1 => Just(Act::Never),
    ];
    // For once all fail.
    let acts = prop_oneof![
        6 => vec(act, 0..=ITEMS),
        1 => vec(Just(Act::Bad), 0..=ITEMS),
    ];
    let items = (acts, vec(0..8_u64, ITEMS));
    let limit = prop_oneof![3 => 1..6_usize, 1 => Just(usize::MAX)];
    let grace = prop_oneof![1 => Just(None), 1 => (0..6_u64).prop_map(Some)];
    let deadline = prop_oneof![
        4 => Just(None),
        4 => (0..20_u64).prop_map(Some),
    ];
    let pauses = prop_oneof![
        1 => Just(None),
        1 => vec(0..4_u64, ITEMS + 1).prop_map(Some),
    ];
    let iterator_panics = prop_oneof![
        9 => Just(None),
        1 => (0..=ITEMS).prop_map(Some),
    ];
    let flags = (any::<bool>(), any::<bool>());
    let all = (
        end,
        items,
        limit,
        grace,
        deadline,
        pauses,
        iterator_panics,
        flags,
    );
    all.prop_map(
        |(end, (acts, units), limit, grace, deadline, pauses, iterator_panics, flags)| {
            let (local, hinted) = flags;
            let never = acts.contains(&Act::Never);
            let last_resort = never.then_some(20);
            let own = |first: usize, units: &[u64]| -> Vec<u64> {
                let own = |(at, units)| UNIT * units + (1_u64 << (first + at));
                units.iter().copied().enumerate().map(own).collect()
            };
            Case {
                end,
                local,
                items: own(0, &units).into_iter().zip(acts).collect(),
                iterator_panics,
                hinted,
                limit,
                grace: grace.map_or(0, |units| UNIT * units + GRACE),
                deadline: deadline
                    .or(last_resort)
                    .map(|units| UNIT * units + DEADLINE),
                // On the caller's own task nothing makes progress while the consumer pauses.
                pauses: pauses
                    .filter(|_| end.is_stream() && !local)
                    .map(|units| own(ITEMS, &units)),
            }
        },
    )
}

type Given = Result<usize, String>;

/// The observable behaviour of a run, of the crate or of the model.
#[derive(Debug, PartialEq)]
struct Report {
    /// The results of a stream, and their instants.
    came: Vec<(u64, Given)>,
    last: Last,
    at: u64,
    /// How many futures were made.
    started: usize,
}

/// How it ended.
#[derive(Debug, PartialEq)]
enum Last {
    Panicked(String),
    Values(Vec<usize>),
    Settled(Vec<Given>),
    Failed(String),
    /// Also how many of them are said to have caused it.
    Errors(Vec<Failed>, usize),
    Nothing,
}

/// A failure of an item: its name, its text, and how long the item ran.
type Failed = (String, String, u64);

const CANCELLED: &str = "context cancelled";
const LATE: &str = "context deadline exceeded";

/// The model.
struct Model<'a> {
    case: &'a Case,
    now: u64,
    pulling: bool,
    exhausted: bool,
    /// How many have started.
    started: usize,
    /// Which item, since when, and until when if it ends.
    running: Vec<(usize, u64, Option<u64>)>,
    /// How the context ended.
    reason: Option<&'static str>,
    /// When what still runs is stopped.
    stop: Option<u64>,
    /// The first panic.
    panic: Option<String>,
    failures: Vec<Failed>,
    causes: usize,
    /// Successes, in order of completion.
    values: Vec<usize>,
    results: Vec<Option<Given>>,
    out_of_reach: bool,
    /// The outcomes that wait for the consumer, in order of completion. `None` is one that was
    /// stopped.
    waiting: Vec<(usize, Option<Given>)>,
    taken: usize,
    came: Vec<(u64, Given)>,
    /// The end of the consumer's pause.
    busy: u64,
    /// Whether the error at the end of a `try_stream` has been given.
    gave_error: bool,
}

impl Model<'_> {
    fn run(case: &Case) -> Report {
        let mut model = Model {
            case,
            now: 0,
            pulling: true,
            exhausted: false,
            started: 0,
            running: Vec::new(),
            reason: None,
            stop: None,
            panic: None,
            failures: Vec::new(),
            causes: 0,
            values: Vec::new(),
            results: vec![None; case.items.len()],
            out_of_reach: false,
            waiting: Vec::new(),
            taken: 0,
            came: Vec::new(),
            busy: 0,
            gave_error: false,
        };
        model.judge();
        loop {
            // Everything that happens at this instant. The consumer is first, because it makes
            // room.
            while model.take() || model.pull() {}
            if model.is_over() {
                return model.report();
            }
            model.next_event();
        }
    }

    /// Whether there is nothing left to happen.
    fn is_over(&self) -> bool {
        let gone = self.running.is_empty() && !self.pulling;
        gone && self.waiting.is_empty() && self.busy <= self.now
    }

    fn next_event(&mut self) {
        let mut events: Vec<u64> = self.running.iter().filter_map(|(_, _, end)| *end).collect();
        if !self.running.is_empty() {
            events.extend(self.stop);
        }
        if self.reason.is_none() && (self.pulling || !self.running.is_empty()) {
            events.extend(self.case.deadline);
        }
        if self.busy > self.now {
            events.push(self.busy);
        }
        self.now = *events.iter().min().expect("something happens");
        if self.case.deadline == Some(self.now) {
            self.end_context(LATE);
        } else if self.stop == Some(self.now) {
            self.stop_all();
        } else if let Some(at) = self.running.iter().position(|it| it.2 == Some(self.now)) {
            let (number, since, _) = self.running.remove(at);
            self.end_item(number, since);
        }
    }

    /// The consumer takes an outcome if one is ready. Returns whether it did.
    fn take(&mut self) -> bool {
        if self.busy > self.now {
            return false;
        }
        let next = self.taken;
        let at = match self.case.end {
            End::OrderedStream => self.waiting.iter().position(|(number, _)| *number == next),
            _ => (!self.waiting.is_empty()).then_some(0),
        };
        let given = match at {
            Some(at) => {
                self.taken += 1;
                match self.waiting.remove(at).1 {
                    Some(given) => given,
                    // It panics instead.
                    None if self.panic.is_some() => return true,
                    None => Err(self.reason().to_owned()),
                }
            }
            None if self.has_error_to_give() => {
                self.gave_error = true;
                Err(self.error().expect("there is one"))
            }
            None => return false,
        };
        self.came.push((self.now, given));
        if let Some(pauses) = &self.case.pauses {
            self.busy = self.now + pauses[self.came.len() - 1];
        }
        true
    }

    fn has_error_to_give(&self) -> bool {
        let last = self.case.end == End::TryStream && !self.gave_error && self.is_over();
        last && self.panic.is_none() && self.error().is_some()
    }

    /// Pulls the next item if there is room. Returns whether it did.
    fn pull(&mut self) -> bool {
        let has_room = self.running.len() + self.waiting.len() < self.case.limit;
        if !self.pulling || !(has_room || self.asks_for_end()) {
            return false;
        }
        if self.case.iterator_panics == Some(self.started) {
            self.panicked("the iterator".to_owned());
        } else if let Some(&(millis, act)) = self.case.items.get(self.started) {
            if act == Act::PanicsInF {
                self.panicked("f".to_owned());
            } else {
                let end = (act != Act::Never).then_some(self.now + millis);
                self.running.push((self.started, self.now, end));
                self.started += 1;
            }
        } else {
            self.exhausted = true;
            self.pulling = false;
        }
        self.judge();
        true
    }

    /// An iterator that says it has no more items is asked once more without room, unless the items
    /// run on the caller's task.
    fn asks_for_end(&self) -> bool {
        let says_end = self.case.hinted && self.started == self.case.items.len();
        says_end && self.started > 0 && !self.case.local
    }

    fn end_item(&mut self, number: usize, since: u64) {
        let (_, act) = self.case.items[number];
        let end = self.case.end;
        match act {
            Act::Good
                if end
                    .wanted()
                    .is_some_and(|wanted| self.values.len() >= wanted) => {}
            Act::Good => {
                self.values.push(number);
                self.give(number, Ok(number));
            }
            Act::Bad if end.stops_at_a_failure() || end.wanted().is_some() => {
                self.fail(number, since, format!("failed {number}"));
                if end.stops_at_a_failure() {
                    self.end_context(CANCELLED);
                }
            }
            Act::Bad => self.give(number, Err(format!("failed {number}"))),
            Act::Panics => {
                self.panicked(format!("panicked {number}"));
                self.give_stopped(number);
            }
            Act::PanicsInF | Act::Never => unreachable!("it does not end"),
        }
        self.judge();
    }

    fn give(&mut self, number: usize, given: Given) {
        self.results[number] = Some(given.clone());
        if self.case.end.is_stream() {
            self.waiting.push((number, Some(given)));
        }
    }

    fn give_stopped(&mut self, number: usize) {
        if self.case.end != End::TryStream {
            self.results[number] = Some(Err(self.reason().to_owned()));
            if self.case.end.is_stream() {
                self.waiting.push((number, None));
            }
        }
    }

    fn fail(&mut self, number: usize, since: u64, text: String) {
        if self.reason.is_none() {
            self.causes += 1;
        }
        let elapsed = self.now - since;
        self.failures
            .push((format!("item {number}"), text, elapsed));
    }

    fn panicked(&mut self, text: String) {
        self.panic.get_or_insert(text);
        self.end_context(CANCELLED);
    }

    /// The first end counts.
    fn end_context(&mut self, reason: &'static str) {
        if self.reason.is_some() {
            return;
        }
        self.reason = Some(reason);
        self.pulling = false;
        match self.case.grace {
            0 => self.stop_all(),
            grace => self.stop = Some(self.now + grace),
        }
    }

    fn stop_all(&mut self) {
        for (number, since, _) in std::mem::take(&mut self.running) {
            self.fail(number, since, self.reason().to_owned());
            self.give_stopped(number);
        }
    }

    fn reason(&self) -> &'static str {
        self.reason.expect("the context has ended")
    }

    /// How many items are left, as far as the iterator says.
    fn left(&self) -> Option<usize> {
        match self.exhausted {
            true => Some(0),
            false => self
                .case
                .hinted
                .then(|| self.case.items.len() - self.started),
        }
    }

    /// Ends the run if there are enough successes, or if there can no longer be enough.
    fn judge(&mut self) {
        let Some(wanted) = self.case.end.wanted() else {
            return;
        };
        let running = self.running.len();
        let most = self.left().map(|left| self.values.len() + running + left);
        if self.values.len() >= wanted {
            self.end_context(CANCELLED);
        } else if most.is_some_and(|most| most < wanted) {
            self.out_of_reach |= self.reason.is_none();
            self.end_context(CANCELLED);
        }
    }

    /// The error of what stops at the first.
    fn error(&self) -> Option<String> {
        match self.failures.first() {
            Some((_, text, _)) => Some(text.clone()),
            None => (!self.exhausted).then(|| self.reason().to_owned()),
        }
    }

    fn report(self) -> Report {
        let failed = |error| Last::Failed(error);
        let last = match (&self.panic, self.case.end) {
            (Some(text), _) => Last::Panicked(text.clone()),
            (None, End::All) => {
                let mut values = self.values.clone();
                values.sort_unstable();
                self.error().map_or(Last::Values(values), failed)
            }
            (None, End::ForEach) => self.error().map_or(Last::Nothing, failed),
            (None, End::Settle) => Last::Settled(self.settled()),
            (None, End::TryStream | End::Stream | End::OrderedStream) => Last::Nothing,
            (None, End::FirstOk | End::Quorum(_)) => self.enough(),
        };
        Report {
            came: self.came,
            last,
            at: self.now,
            started: self.started,
        }
    }

    fn settled(&self) -> Vec<Given> {
        let started = self.results.iter().take(self.started).flatten().cloned();
        let left = self.left().unwrap_or(0);
        let unheard = (0..left).map(|_| Err(self.reason().to_owned()));
        started.chain(unheard).collect()
    }

    fn enough(&self) -> Last {
        if self.case.end.wanted() == Some(self.values.len()) {
            return Last::Values(self.values.clone());
        }
        let failed = |(_, text, _): &(String, String, u64)| text != self.reason();
        let only_stopped = self.out_of_reach && !self.failures.iter().any(failed);
        if !self.failures.is_empty() && !only_stopped {
            return Last::Errors(self.failures.clone(), self.causes);
        }
        let name = match self.case.end.wanted() {
            Some(1) => "first_ok".to_owned(),
            wanted => format!("quorum of {}", wanted.unwrap_or(0)),
        };
        let text = match self.out_of_reach {
            true => "quorum not reached",
            false => self.reason(),
        };
        Last::Errors(vec![(name, text.to_owned(), 0)], 1)
    }
}

/// An iterator that may panic, or not know how many are left.
struct Numbers {
    next: usize,
    end: usize,
    panics: Option<usize>,
    hinted: bool,
}

impl Iterator for Numbers {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        assert!(self.next <= self.end, "it was asked again");
        if self.panics == Some(self.next) {
            resume_unwind(Box::new("the iterator"));
        }
        self.next += 1;
        (self.next <= self.end).then_some(self.next - 1)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next);
        match self.hinted {
            true => (left, Some(left)),
            false => (0, None),
        }
    }
}

fn millis_since(start: Instant) -> u64 {
    start.elapsed().as_millis() as u64
}

/// The future of an end: how it ended.
async fn whole<V>(future: impl Future<Output = V>, last: impl FnOnce(V) -> Last) -> Last {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(output) => last(output),
        Err(payload) => Last::Panicked(text(payload)),
    }
}

/// Collects the stream of an end into the result.
async fn each(
    mut stream: impl Stream<Item = Given> + Unpin,
    pauses: Option<&Vec<u64>>,
    came: &mut Vec<(u64, Given)>,
) -> Last {
    let start = Instant::now();
    loop {
        match AssertUnwindSafe(stream.next()).catch_unwind().await {
            Ok(Some(given)) => came.push((millis_since(start), given)),
            Ok(None) => return Last::Nothing,
            Err(payload) => return Last::Panicked(text(payload)),
        }
        if let Some(pauses) = pauses {
            sleep(Duration::from_millis(pauses[came.len() - 1])).await;
        }
    }
}

fn one(value: usize) -> Vec<usize> {
    vec![value]
}

fn failed(errors: Errors<String>) -> Last {
    let causes = errors.causes().count();
    let failed = |task: errgroup::TaskError<String>| {
        let name = task.name().expect("an item has a name").to_owned();
        let elapsed = task.elapsed().as_millis() as u64;
        let (stopped, text) = match task.into_kind() {
            TaskErrorKind::Failed(error) => (false, error),
            TaskErrorKind::Aborted(error) => (true, error.to_string()),
            TaskErrorKind::Panicked(panic) => panic!("a panic became an error: {panic:?}"),
        };
        (stopped, (name, text, elapsed))
    };
    let (mut stopped, failed): (Vec<_>, Vec<_>) = errors
        .into_iter()
        .map(failed)
        .partition(|(stopped, _)| *stopped);
    // They were stopped at one instant, in whichever order.
    stopped.sort();
    let all = failed.into_iter().chain(stopped);
    Last::Errors(all.map(|(_, failed)| failed).collect(), causes)
}

macro_rules! end {
    ($case:expr, $came:expr, $fan_out:expr) => {{
        let (fan_out, pauses) = ($fan_out, $case.pauses.as_ref());
        let values = |values| Last::Values(values);
        match $case.end {
            End::All => whole(fan_out.all(), |all| all.map_or_else(Last::Failed, values)).await,
            End::ForEach => {
                let done = |all: Result<(), _>| all.map_or_else(Last::Failed, |()| Last::Nothing);
                whole(fan_out.for_each(), done).await
            }
            End::Settle => whole(fan_out.settle(), Last::Settled).await,
            End::TryStream => each(fan_out.try_stream(), pauses, $came).await,
            End::Stream => each(fan_out.stream(), pauses, $came).await,
            End::OrderedStream => each(fan_out.ordered_stream(), pauses, $came).await,
            End::FirstOk => {
                let first = |first: Result<_, _>| first.map(one).map_or_else(failed, values);
                whole(fan_out.first_ok(), first).await
            }
            End::Quorum(wanted) => {
                let enough = |enough: Result<_, _>| enough.map_or_else(failed, values);
                whole(fan_out.quorum(wanted), enough).await
            }
        }
    }};
}

/// Runs the crate.
async fn run(case: &Case) -> Report {
    let (start, gauge, started) = (Instant::now(), Gauge::default(), Count::default());
    let mut ctx = Context::background();
    if let Some(millis) = case.deadline {
        ctx = ctx.with_timeout(Duration::from_millis(millis));
    }
    let numbers = Numbers {
        next: 0,
        end: case.items.len(),
        panics: case.iterator_panics,
        hinted: case.hinted,
    };
    let (items, in_flight, made) = (case.items.clone(), gauge.clone(), started.clone());
    let f = move |_: Context, number: usize| {
        let (millis, act) = items[number];
        if act == Act::PanicsInF {
            resume_unwind(Box::new("f"));
        }
        made.add();
        let alive = in_flight.enter();
        async move {
            let _alive = alive;
            sleep(Duration::from_millis(millis)).await;
            match act {
                Act::Good => Ok(number),
                Act::Bad => Err(format!("failed {number}")),
                Act::Never => pending().await,
                _ => resume_unwind(Box::new(format!("panicked {number}"))),
            }
        }
    };
    let fan_out = fan_out(&ctx, numbers, f).limit(case.limit);
    let fan_out = fan_out.grace(Duration::from_millis(case.grace));
    let mut came = Vec::new();
    let last = match case.local {
        true => end!(case, &mut came, fan_out.local()),
        false => end!(case, &mut came, fan_out),
    };
    assert_eq!(gauge.now(), 0, "something is still there");
    assert!(gauge.most() <= case.limit, "{} at once", gauge.most());
    Report {
        came,
        last,
        at: millis_since(start),
        started: started.get(),
    }
}

/// `PROPTEST_CASES` and `PROPTEST_RNG_SEED` change how many there are, and which.
fn against_the_model<S: Strategy>(strategy: S, check: impl AsyncFn(S::Value)) {
    let mut config = contextualize_config(Config {
        cases: 2_000,
        failure_persistence: None,
        ..Config::default()
    });
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(RandomState::new().hash_one(()));
    }
    eprintln!("PROPTEST_RNG_SEED={}", config.rng_seed);
    let checked = TestRunner::new(config).run(&strategy, |case| {
        // Longer than any run takes. The clock is paused, so a run that hangs fails at once.
        let patience = Duration::from_millis(UNIT << 12);
        let checked = current_thread().block_on(async { timeout(patience, check(case)).await });
        checked.expect("it hangs");
        Ok(())
    });
    checked.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn a_random_fan_out_does_what_the_model_does() {
    against_the_model(cases(), async |case| {
        let expected = Model::run(&case);
        assert_eq!(run(&case).await, expected);
    });
}

/// An iterator that says it has no more items is asked once more when the last one has been pulled.
#[test]
fn an_iterator_is_asked_for_its_end_at_its_last_item() {
    let ends = [
        End::All,
        End::ForEach,
        End::Settle,
        End::TryStream,
        End::Stream,
        End::OrderedStream,
        End::FirstOk,
        End::Quorum(2),
    ];
    let sizes = |end| (1..5_usize).map(move |items| (end, items));
    for (end, items) in ends.into_iter().flat_map(sizes) {
        for limit in 1..=items + 1 {
            // Item 0 takes the longest, and the last one ends first or second.
            let units = |at: usize| UNIT * [5, 3, 4, 2][at] + (1 << at);
            let case = Case {
                end,
                local: false,
                items: (0..items).map(|at| (units(at), Act::Good)).collect(),
                iterator_panics: Some(items),
                hinted: true,
                limit,
                grace: 0,
                deadline: None,
                pauses: end.is_stream().then(|| vec![1 << ITEMS; ITEMS + 1]),
            };
            let expected = Model::run(&case);
            let ran = current_thread().block_on(run(&case));
            assert_eq!(ran, expected, "{case:?}");
        }
    }
}

/// The delay of a hedge, and its attempts.
type Hedge = (u64, Vec<(u64, Act)>);

fn hedges() -> impl Strategy<Value = Hedge> {
    let act = prop_oneof![
        3 => Just(Act::Good),
        6 => Just(Act::Bad),
        1 => Just(Act::Panics),
        1 => Just(Act::PanicsInF),
    ];
    let attempts = vec((0..12_u64, act), 1..=ITEMS);
    (0..4_u64, attempts).prop_map(|(delay, attempts)| {
        let own = |(at, (units, act))| (UNIT * units + (1_u64 << at), act);
        let attempts = attempts.into_iter().enumerate().map(own).collect();
        // Above the bits of the attempts, and with room for as many delays.
        (UNIT * delay + (1 << ITEMS), attempts)
    })
}

/// The model of a hedge: how it ends, when, and how many attempts have started.
fn hedged((delay, attempts): &Hedge) -> (Last, u64, usize) {
    let (mut now, mut started, mut next) = (0, 0, 0);
    let mut running: Vec<(u64, usize, u64)> = Vec::new();
    let mut failures = Vec::new();
    loop {
        if let Some(&(millis, act)) = attempts.get(started) {
            if running.is_empty() || next == now {
                if act == Act::PanicsInF {
                    return (Last::Panicked("f".to_owned()), now, started);
                }
                running.push((now + millis, started, now));
                started += 1;
                next = now + delay;
            }
        }
        let Some(&(end, number, since)) = running.iter().min() else {
            let causes = failures.len();
            return (Last::Errors(failures, causes), now, started);
        };
        if started < attempts.len() && next < end {
            now = next;
            continue;
        }
        now = end;
        running.retain(|(end, _, _)| *end > now);
        match attempts[number].1 {
            Act::Good => return (Last::Values(one(number)), now, started),
            Act::Bad => {
                let text = format!("failed {number}");
                failures.push((format!("attempt[{number}]"), text, now - since));
            }
            _ => return (Last::Panicked(format!("panicked {number}")), now, started),
        }
    }
}

#[test]
fn a_random_hedge_does_what_the_model_does() {
    against_the_model(hedges(), async |case| {
        let (start, started) = (Instant::now(), Count::default());
        let ((delay, attempts), made) = (case.clone(), started.clone());
        let max = attempts.len();
        let f = move |_: Context, number: usize| {
            let (millis, act) = attempts[number];
            if act == Act::PanicsInF {
                resume_unwind(Box::new("f"));
            }
            made.add();
            async move {
                sleep(Duration::from_millis(millis)).await;
                match act {
                    Act::Good => Ok(number),
                    Act::Bad => Err(format!("failed {number}")),
                    _ => resume_unwind(Box::new(format!("panicked {number}"))),
                }
            }
        };
        let hedge = hedge(&Context::background(), Duration::from_millis(delay), max, f);
        let answer = |answer: Result<_, _>| answer.map(one).map_or_else(failed, Last::Values);
        let last = whole(hedge, answer).await;
        let seen = (last, millis_since(start), started.get());
        assert_eq!(seen, hedged(&case));
    });
}
