//! What the ends of fan-outs have given, and the checks of that.

use std::thread;

use errgroup::{Errors, TaskErrorKind};

use crate::plan::FanOutEnd;
use crate::record::Fate;
use crate::script::Payload;
use crate::watch::{boom, fail, step};
use crate::world::{Fault, Token, World};

/// What an end gave.
pub(crate) enum Got {
    All(Result<Vec<Token>, Fault>),
    ForEach(Result<(), Fault>),
    Settled(Vec<Result<Token, Fault>>),
    Streamed {
        outcomes: Vec<Result<Token, Fault>>,
        end: StreamEnd,
    },
    First(Result<Token, Errors<Fault>>),
    Quorum(Result<Vec<Token>, Errors<Fault>>),
}

/// How a consumer has left a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// It saw its end.
    Whole,
    /// It stopped it, and waited.
    Stopped,
    /// It dropped it.
    Left,
}

/// `clean`: nothing but the items decided the result, so it is certain.
pub(crate) fn verdict(
    ended: thread::Result<Got>,
    world: &World,
    end: FanOutEnd,
    count: usize,
    clean: bool,
) -> Option<Payload> {
    step("checking what a fan-out gave");
    world.returned("a fan-out");
    let records = world.records();
    let of = |fate| {
        records
            .iter()
            .filter(move |record| record.fate == fate)
            .count()
    };
    let (succeeded, failed, panicked) = (of(Fate::Ok), of(Fate::Failed), of(Fate::Panicked));
    let wrong = |what: &str| -> ! {
        fail(format_args!("{end:?} of {count} items {what}: {records:?}"));
    };
    let got = match ended {
        Ok(got) => got,
        Err(payload) => {
            let boom = boom(&*payload);
            if !world.owns(boom) || records[boom.id].fate != Fate::Panicked {
                wrong("gave a panic of no item");
            }
            world.holds(0, "a panic");
            return Some(payload);
        }
    };
    if panicked > 0 {
        wrong("hides a panic");
    }
    let (values, errors) = flatten(got, count, clean, succeeded, failed, &|what| wrong(what));
    world.holds(values.len(), "a fan-out");
    let mut seen = vec![0; records.len()];
    for value in &values {
        seen[value.id] += 1;
        if records[value.id].fate != Fate::Ok {
            wrong("gave the value of one that has none");
        }
    }
    for error in errors {
        if let Fault::Own(id) = error {
            seen[id] += 1;
            if records[id].fate != Fate::Failed {
                wrong("gave the error of one that has none");
            }
        }
    }
    if seen.iter().any(|times| *times > 1) {
        wrong("gave an outcome twice");
    }
    let ordered = matches!(
        end,
        FanOutEnd::All | FanOutEnd::Settle | FanOutEnd::OrderedStream
    );
    if ordered && !values.is_sorted_by_key(|value| value.id) {
        wrong("is out of order");
    }
    None
}

/// The values and the errors, if there are as many as there should be.
fn flatten(
    got: Got,
    count: usize,
    clean: bool,
    succeeded: usize,
    failed: usize,
    wrong: &dyn Fn(&str),
) -> (Vec<Token>, Vec<Fault>) {
    let expect = |holds: bool, what: &str| {
        if clean && !holds {
            wrong(what);
        }
    };
    match got {
        Got::All(Ok(values)) => {
            // Also where the context ended, just after the last.
            if values.len() != count {
                wrong("was Ok, and a value is missing");
            }
            (values, Vec::new())
        }
        Got::All(Err(error)) => {
            expect(failed > 0, "failed without a failure");
            (Vec::new(), vec![error])
        }
        Got::ForEach(Ok(())) => {
            if succeeded != count {
                wrong("was Ok without all");
            }
            (Vec::new(), Vec::new())
        }
        Got::ForEach(Err(error)) => {
            expect(failed > 0, "failed without a failure");
            (Vec::new(), vec![error])
        }
        Got::Settled(outcomes) => {
            expect(succeeded + failed == count, "has not run all");
            expect(outcomes.len() == count, "has not settled all");
            split(outcomes)
        }
        Got::Streamed { outcomes, end } => {
            let (values, errors) = split(outcomes);
            if end == StreamEnd::Stopped {
                return (values, errors);
            }
            if succeeded + failed == count && values.len() + errors.len() < count.min(succeeded) {
                wrong("lost an outcome");
            }
            (values, errors)
        }
        Got::First(Ok(value)) => (vec![value], Vec::new()),
        Got::First(Err(errors)) => {
            expect(succeeded == 0 && failed == count, "failed too early");
            (Vec::new(), own(errors))
        }
        Got::Quorum(Ok(values)) => (values, Vec::new()),
        Got::Quorum(Err(errors)) => (Vec::new(), own(errors)),
    }
}

fn split(outcomes: Vec<Result<Token, Fault>>) -> (Vec<Token>, Vec<Fault>) {
    let (mut values, mut errors) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(value) => values.push(value),
            Err(error) => errors.push(error),
        }
    }
    (values, errors)
}

fn own(errors: Errors<Fault>) -> Vec<Fault> {
    let kinds = errors.into_iter().map(errgroup::TaskError::into_kind);
    let failed = kinds.filter_map(|kind| match kind {
        TaskErrorKind::Failed(error) => Some(error),
        _ => None,
    });
    failed.collect()
}
