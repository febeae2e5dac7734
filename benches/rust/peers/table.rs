//! The table: what a row is, whether it is within its limit, and how it is printed.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::cli::Cli;
use crate::rounds::{Paired, Rounds};

/// The number of workers that the limits are for.
const LIMITED_WORKERS: usize = 2;

/// The work, its peer, and the limit of the ratio. A row without a limit is for information.
pub(crate) struct Row {
    work: String,
    peer: String,
    limit: Option<f64>,
    stretch: Option<f64>,
}

impl Row {
    pub(crate) fn new(work: impl Into<String>, peer: impl Into<String>) -> Row {
        Row {
            work: work.into(),
            peer: peer.into(),
            limit: None,
            stretch: None,
        }
    }

    pub(crate) fn at_most(mut self, limit: f64) -> Row {
        self.limit = Some(limit);
        self
    }

    /// The ratio that is wished for.
    pub(crate) fn stretch(mut self, stretch: f64) -> Row {
        self.stretch = Some(stretch);
        self
    }
}

/// The figure that is compared with the limit.
#[derive(Clone, Copy, PartialEq)]
enum Measure {
    /// How many times the peer's.
    Ratio,
    /// How many bytes more than the peer's.
    Over,
}

struct Outcome {
    row: Row,
    workers: Option<usize>,
    unit: &'static str,
    measure: Measure,
    paired: Paired,
}

impl Outcome {
    fn measured(&self) -> f64 {
        match self.measure {
            Measure::Ratio => self.paired.ratio,
            Measure::Over => self.paired.ours - self.paired.peer,
        }
    }

    fn limit(&self) -> Option<f64> {
        let applies = self
            .workers
            .is_none_or(|workers| workers == LIMITED_WORKERS);
        self.row.limit.filter(|_| applies)
    }

    fn is_over(&self) -> bool {
        self.limit().is_some_and(|limit| self.measured() > limit)
    }

    fn verdict(&self) -> &'static str {
        let stretch = self.row.stretch;
        match self.limit() {
            None => "",
            Some(_) if self.is_over() => "OVER",
            Some(_) if stretch.is_some_and(|stretch| self.measured() <= stretch) => "ok, stretch",
            Some(_) => "ok",
        }
    }

    fn json(&self) -> Value {
        let Paired {
            ours,
            peer,
            middle_half: (low, high),
            rounds,
            ..
        } = self.paired;
        json!({
            "work": self.row.work,
            "peer": self.row.peer,
            "workers": self.workers,
            "unit": self.unit,
            "ours": ours,
            "peers": peer,
            "compared": match self.measure {
                Measure::Ratio => "ratio",
                Measure::Over => "difference",
            },
            "measured": self.measured(),
            "middle_half": (rounds > 1).then_some([low, high]),
            "rounds": rounds,
            "limit": self.limit(),
            "stretch": self.row.stretch,
            "verdict": self.verdict(),
        })
    }
}

/// The requested rows, as they are measured.
pub(crate) struct Table {
    only: Option<String>,
    silent: bool,
    rounds: Rounds,
    workers: Option<usize>,
    /// The heading of a part, until a row of it is shown.
    head: Option<String>,
    outcomes: Vec<Outcome>,
    left_out: Vec<(String, String)>,
}

impl Table {
    pub(crate) fn new(cli: &Cli) -> Table {
        Table {
            only: cli.only.as_deref().map(str::to_lowercase),
            silent: cli.json,
            rounds: cli.rounds(),
            workers: None,
            head: None,
            outcomes: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// The rows that follow are measured with this many workers, or without any.
    pub(crate) fn begin(&mut self, workers: Option<usize>) {
        self.workers = workers;
        let part = match workers {
            None => "with no runtime".to_owned(),
            Some(1) => "1 worker".to_owned(),
            Some(count) => format!("{count} workers"),
        };
        self.head = Some(line([
            &part,
            "next to",
            "ours",
            "peer's",
            "ratio",
            "limit",
            "",
            "middle half of the rounds",
        ]));
    }

    pub(crate) fn workers(&self) -> usize {
        self.workers.unwrap_or(LIMITED_WORKERS)
    }

    /// Whether the row was requested.
    pub(crate) fn wants(&self, row: &Row) -> bool {
        self.only.as_ref().is_none_or(|only| {
            row.work.to_lowercase().contains(only) || row.peer.to_lowercase().contains(only)
        })
    }

    /// Measures both sides, which return nanoseconds.
    pub(crate) fn pair(
        &mut self,
        row: Row,
        ours: impl FnMut() -> f64,
        peer: impl FnMut() -> f64,
    ) -> io::Result<()> {
        self.pair_for(1, self.rounds.least, row, ours, peer)
    }

    /// The same with `budgets` times the budget, and at least this many rounds.
    pub(crate) fn pair_for(
        &mut self,
        budgets: u32,
        least: usize,
        row: Row,
        ours: impl FnMut() -> f64,
        peer: impl FnMut() -> f64,
    ) -> io::Result<()> {
        if !self.wants(&row) {
            return Ok(());
        }
        let rounds = Rounds {
            budget: self.rounds.budget * budgets,
            least,
            ..self.rounds
        };
        self.enter(row, "ns", Measure::Ratio, rounds.pair(ours, peer))
    }

    /// Adds a row in bytes; the limit applies to the difference.
    pub(crate) fn bytes_over(&mut self, row: Row, ours: f64, peer: f64) -> io::Result<()> {
        self.enter_bytes(row, Measure::Over, ours, peer)
    }

    /// Adds a row in bytes; the limit applies to the ratio.
    pub(crate) fn bytes_ratio(&mut self, row: Row, ours: f64, peer: f64) -> io::Result<()> {
        self.enter_bytes(row, Measure::Ratio, ours, peer)
    }

    fn enter_bytes(&mut self, row: Row, measure: Measure, ours: f64, peer: f64) -> io::Result<()> {
        if !self.wants(&row) {
            return Ok(());
        }
        let ratio = ours / peer;
        let paired = Paired {
            ours,
            peer,
            ratio,
            middle_half: (ratio, ratio),
            rounds: 1,
        };
        self.enter(row, "B", measure, paired)
    }

    fn enter(
        &mut self,
        row: Row,
        unit: &'static str,
        measure: Measure,
        paired: Paired,
    ) -> io::Result<()> {
        let outcome = Outcome {
            row,
            workers: self.workers,
            unit,
            measure,
            paired,
        };
        self.show(shown(&outcome))?;
        self.outcomes.push(outcome);
        Ok(())
    }

    /// Prints that a requested row is left out, and why.
    pub(crate) fn leave_out(&mut self, row: &Row, why: &str) -> io::Result<()> {
        if !self.wants(row) {
            return Ok(());
        }
        let name = format!("{} next to {}", row.work, row.peer);
        self.show(format!("left out: {name}: {why}"))?;
        self.left_out.push((name, why.to_owned()));
        Ok(())
    }

    /// Prints the sum, or everything as JSON. Returns the number of rows over their limit.
    pub(crate) fn finish(self) -> io::Result<usize> {
        let over = self.outcomes.iter().filter(|row| row.is_over()).count();
        let limited = self.outcomes.iter().filter(|row| row.limit().is_some());
        self.say(format!(
            "\n{over} of {} rows with a limit are over it",
            limited.count()
        ))?;
        if self.silent {
            let rows: Vec<_> = self.outcomes.iter().map(Outcome::json).collect();
            let left_out: Vec<_> = self
                .left_out
                .iter()
                .map(|(row, why)| json!({ "row": row, "why": why }))
                .collect();
            let document = json!({ "rows": rows, "left_out": left_out, "over": over });
            writeln!(io::stdout(), "{document:#}")?;
        }
        Ok(over)
    }

    /// One line of a part.
    fn show(&mut self, line: String) -> io::Result<()> {
        if let Some(head) = self.head.take() {
            self.say(format!("\n{head}"))?;
        }
        self.say(line)
    }

    fn say(&self, text: impl AsRef<str>) -> io::Result<()> {
        if self.silent {
            return Ok(());
        }
        writeln!(io::stdout(), "{}", text.as_ref())
    }
}

fn shown(outcome: &Outcome) -> String {
    let Paired {
        ours,
        peer,
        middle_half: (low, high),
        rounds,
        ..
    } = outcome.paired;
    let show = match outcome.unit {
        "ns" => nanoseconds,
        _ => bytes,
    };
    let compared = |value: f64| match outcome.measure {
        Measure::Ratio => format!("{value:.2}"),
        Measure::Over => format!("{value:+.0} B"),
    };
    let spread = match rounds {
        1 => String::new(),
        _ => format!("{low:.2} to {high:.2} of {rounds}"),
    };
    let limit = outcome.limit().map(compared).unwrap_or_default();
    line([
        &outcome.row.work,
        &outcome.row.peer,
        &show(ours),
        &show(peer),
        &compared(outcome.measured()),
        &limit,
        outcome.verdict(),
        &spread,
    ])
}

fn line(columns: [&str; 8]) -> String {
    let [work, peer, ours, theirs, ratio, limit, verdict, spread] = columns;
    let line = format!(
        "{work:<42} {peer:<30} {ours:>9} {theirs:>9} {ratio:>7} {limit:>7}  {verdict:<11}  {spread}"
    );
    line.trim_end().to_owned()
}

fn nanoseconds(value: f64) -> String {
    match value {
        ..10.0 => format!("{value:.2} ns"),
        ..100.0 => format!("{value:.1} ns"),
        ..10_000.0 => format!("{value:.0} ns"),
        ..10_000_000.0 => format!("{:.1} us", value / 1e3),
        _ => format!("{:.1} ms", value / 1e6),
    }
}

fn bytes(value: f64) -> String {
    format!("{value:.0} B")
}
