//! The checks of what a wait has returned.

use std::thread;

use errgroup::{Errors, TaskErrorKind};

use crate::policy::check_given_back;
use crate::record::{Due, Fate, Record};
use crate::script::Payload;
use crate::shutdown;
use crate::watch::{boom, check, fail, step};
use crate::world::{Fault, World};

/// The first error, or the first panic, of those that there were.
pub(crate) fn check_wait(
    ended: thread::Result<Result<(), Fault>>,
    world: &World,
    what: &str,
) -> Option<Payload> {
    step("checking what wait gave");
    world.returned(what);
    let records = world.records();
    let there_is = |fate| {
        let is_due = |record: &Record| record.fate == fate && record.due() == Due::Always;
        records.iter().any(is_due)
    };
    let holds = match &ended {
        Err(payload) => {
            let boom = boom(&**payload);
            world.owns(boom) && records[boom.id].fate == Fate::Panicked
        }
        Ok(_) if there_is(Fate::Panicked) => false,
        Ok(Err(Fault::Own(id))) => {
            records[*id].fate == Fate::Failed && records[*id].due() != Due::Never
        }
        Ok(Err(Fault::Context(_))) => records
            .iter()
            .any(|record| record.fate == Fate::Unfinished && record.due() != Due::Never),
        Ok(Ok(())) => !there_is(Fate::Failed) && !there_is(Fate::Unfinished),
    };
    check(
        holds,
        format_args!(
            "{what} gave {:?}, where the bodies ended so: {records:?}",
            ended.as_ref().ok()
        ),
    );
    check_cleanup(world, &records, what);
    ended.err()
}

fn check_cleanup(world: &World, records: &[Record], what: &str) {
    if !world.loses_cleanup() && !shutdown::expected() {
        check_given_back(records, what);
    }
}

/// Every failure once, every panic once, and as many aborted as there were.
pub(crate) fn check_wait_all(
    ended: thread::Result<Result<(), Errors<Fault>>>,
    world: &World,
) -> Option<Payload> {
    step("checking what wait_all gave");
    world.returned("wait_all");
    let records = world.records();
    let Ok(ended) = ended else {
        fail(format_args!("wait_all panicked"));
    };
    let (mut seen, mut aborted) = (vec![0; records.len()], 0);
    for error in ended.err().into_iter().flatten() {
        match error.into_kind() {
            TaskErrorKind::Failed(Fault::Own(id)) => {
                seen[id] += 1;
                let record = records[id];
                let failed = record.fate == Fate::Failed && record.due() != Due::Never;
                check(
                    failed,
                    format_args!("wait_all says that {id} failed: {record:?}"),
                );
            }
            TaskErrorKind::Panicked(panic) => {
                let boom = boom(&*panic.into_payload());
                seen[boom.id] += 1;
                let panicked = world.owns(boom) && records[boom.id].fate == Fate::Panicked;
                check(
                    panicked,
                    format_args!("wait_all says that {} panicked", boom.id),
                );
            }
            TaskErrorKind::Aborted(_) => aborted += 1,
            TaskErrorKind::Failed(Fault::Context(error)) => {
                fail(format_args!("wait_all lists a failure of no task: {error}"));
            }
        }
    }
    let mut unfinished = (0, 0);
    for (id, record) in records.iter().enumerate() {
        let due = record.due();
        let must = due == Due::Always && record.fate != Fate::Unfinished;
        let seen = seen[id];
        check(
            seen <= 1 && (seen == 1 || !must),
            format_args!("wait_all has body {id} {seen} times: {record:?}"),
        );
        if record.fate == Fate::Unfinished && due != Due::Never {
            unfinished.0 += usize::from(due == Due::Always);
            unfinished.1 += 1;
        }
    }
    check(
        (unfinished.0..=unfinished.1).contains(&aborted),
        format_args!(
            "wait_all says that {aborted} were aborted, where it was {unfinished:?}: {records:?}"
        ),
    );
    check_cleanup(world, &records, "wait_all");
    None
}
