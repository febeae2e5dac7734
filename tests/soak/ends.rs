//! The ends of groups other than a wait: idle, closed and waited for, and drained; and drains of
//! several groups.

use std::sync::Arc;
use std::time::Duration;

use errgroup::{Context, Drain, DrainedPhase, Group};
use futures::future::join_all;

use crate::draw::Bounds;
use crate::group::new_group;
use crate::plan::{Awaits, Ending, GroupPlan, Pause, TaskPlan, Way};
use crate::policy::check_cause;
use crate::random::Random;
use crate::record::{Due, Fate, Record};
use crate::script::{Payload, outcome, pause, unless_dropped};
use crate::starting::{Starter, start};
use crate::verdict::check_wait;
use crate::watch::{check, fail, step, tally};
use crate::world::{Fault, World};

/// Waits until the group is idle, and checks that it is. Nothing starts tasks any more but its
/// tasks.
pub(crate) async fn idle(g: &Group<Fault>, awaits: Awaits, world: &World) {
    tally().idles.add(1);
    step("waiting until the group is idle");
    let dropped = match awaits {
        Awaits::Abandons(when) => Some(when),
        Awaits::ToTheEnd | Awaits::Nothing => None,
    };
    match unless_dropped(g.idle(), dropped).await {
        Some(Ok(())) => {}
        Some(Err(_)) => fail(format_args!("idle panicked")),
        None => return,
    }
    let records = world.records();
    // A background task may start others, and after an abort a closure may wait for its thread.
    let may_start = records.iter().any(|record| record.marks.background);
    let is_left = |record: &Record| record.fate == Fate::Made;
    check(
        may_start || world.aborts() || !records.iter().any(is_left),
        format_args!("idle returned, and a task was left: {records:?}"),
    );
}

/// Closes the group and waits, in a call that is dropped, perhaps, and then in some at once.
pub(crate) async fn close_and_wait(
    g: &Group<Fault>,
    callers: usize,
    dropped: Option<Pause>,
    world: &World,
) -> Option<Payload> {
    tally().closed.add(1);
    step("closing the group and waiting");
    let mut ended = Vec::new();
    if dropped.is_some() {
        ended.extend(unless_dropped(g.close_and_wait(), dropped).await);
    }
    let calls = (0..callers).map(|_| outcome(g.close_and_wait()));
    ended.extend(join_all(calls).await);
    let mut failed = ended
        .into_iter()
        .filter(|ended| !matches!(ended, Ok(Ok(()))));
    let first = failed.next().unwrap_or(Ok(Ok(())));
    check(
        failed.next().is_none(),
        format_args!("two callers of close_and_wait got the group's failure"),
    );
    check(
        g.context().is_done() && g.running() == 0 && g.queued() == 0,
        format_args!("close_and_wait returned, and the group goes on: {g:?}"),
    );
    let admission = g.go(async { Ok(()) }).await;
    check(
        !admission.is_started(),
        format_args!("a group that is closed has started a task"),
    );
    check_wait(first, world, "close_and_wait")
}

/// Each task is in the report at most once, and each failure exactly once. `submitted`: the number
/// of tasks that the report has, if that is certain.
pub(crate) async fn check_drained(phase: &DrainedPhase, world: &World, submitted: Option<usize>) {
    tally().drains.add(1);
    step("checking the report of a drain");
    let left = phase.blocking().len() + phase.left_running();
    world.returned_but(left, "a drain");
    world.gone().await;
    let records = world.records();
    let wrong = |what: &str| -> ! {
        fail(format_args!("a drain {what}: {phase:?}, {records:?}"));
    };
    let (mut seen, mut panics) = (vec![0; records.len()], 0);
    for error in phase.errors() {
        let text = error.text();
        if text.starts_with("panicked: ") {
            panics += 1;
            continue;
        }
        let id = text
            .strip_prefix("body ")
            .and_then(|text| text.strip_suffix(" failed"));
        let Some(id) = id.and_then(|id| id.parse::<usize>().ok()) else {
            wrong("reports an error of no body");
        };
        seen[id] += 1;
        if records[id].fate != Fate::Failed || records[id].due() == Due::Never || seen[id] > 1 {
            wrong("reports a failure that there was not");
        }
    }
    // The fate of what was left came after the report.
    let unseen = |(record, seen): &(&Record, &usize)| {
        record.fate == Fate::Failed && record.due() == Due::Always && **seen == 0
    };
    if records.iter().zip(&seen).filter(unseen).count() > left {
        wrong("has lost a failure");
    }
    let of = |fate| records.iter().filter(move |it| it.fate == fate).count();
    let panicked = of(Fate::Panicked);
    if panics > panicked || panicked - panics > left {
        wrong("has lost a panic, or made one up");
    }
    if phase.aborted().len() > of(Fate::Unfinished) {
        wrong("reports tasks as aborted that had ended");
    }
    let total = phase.finished() + phase.stopped() + phase.aborted().len() + left;
    let total = total + phase.errors().len() + phase.omitted();
    let most = records.len() - of(Fate::HandedBack);
    let least = records.iter().filter(|it| it.due() == Due::Always).count();
    let least = submitted.unwrap_or(least);
    let most = submitted.unwrap_or(most);
    if !(least..=most).contains(&total) {
        wrong(&format!("reports {total} tasks, and not {least} to {most}"));
    }
}

/// Several groups that are drained one after another.
pub(crate) struct DrainPlan {
    pub(crate) groups: Vec<GroupPlan>,
    pub(crate) finish_for: Vec<Option<Duration>>,
    pub(crate) budget: Duration,
    pub(crate) abort_on: Option<Pause>,
    pub(crate) before: Pause,
    pub(crate) dropped: Option<Pause>,
}

impl Random {
    pub(crate) fn close_and_wait(&mut self) -> Ending {
        let dropped = self.one_in(2).then(|| self.pause());
        Ending::CloseAndWait(1 + self.below(3), dropped)
    }

    pub(crate) fn drain(&mut self, bounds: Bounds) -> DrainPlan {
        // What does not end is aborted when the time is over.
        let bounds = Bounds {
            ended: true,
            dropped: true,
            ..bounds
        };
        let count = 1 + self.below(3);
        let groups = (0..count).map(|_| GroupPlan {
            limit: self.limit(),
            grace: self.grace(),
            tasks: self.tasks(bounds, 8),
            cause_with: self.one_in(2),
            ending: Ending::Drain(Duration::ZERO),
            ..GroupPlan::default()
        });
        let groups = groups.collect();
        DrainPlan {
            groups,
            finish_for: (0..count)
                .map(|_| self.one_in(2).then(|| self.micros(2_000)))
                .collect(),
            budget: self.micros(6_000),
            abort_on: self.one_in(4).then(|| self.pause()),
            before: self.pause(),
            dropped: self.one_in(6).then(|| self.pause()),
        }
    }
}

/// A group that is drained.
struct Phase {
    world: Arc<World>,
    ctx: Context,
    /// No task starts others, so this is the number of those that the report has.
    submitted: Option<usize>,
}

pub(crate) async fn run(plan: DrainPlan, ctx: &Context, single: bool) {
    let (mut drain, mut phases) = (Drain::within(plan.budget), Vec::new());
    for (mut group, finish_for) in plan.groups.into_iter().zip(plan.finish_for) {
        let world = World::new(single);
        let (g, stage) = new_group(&group, ctx, &world, single);
        let tasks = std::mem::take(&mut group.tasks);
        let simple = single && plan.before == Pause::None && tasks.iter().all(is_simple);
        for mut task in tasks {
            // The result is not awaited. So a `start` starts nothing, and what the caller polls is
            // dropped here.
            task.script.trap &= !matches!(task.way, Way::Start | Way::Track);
            drop(start(Starter::Group(&g), task, &stage, false));
        }
        let records = world.records();
        let started = records.iter().filter(|it| it.fate != Fate::HandedBack);
        phases.push(Phase {
            ctx: g.context(),
            submitted: simple.then_some(started.count()),
            world,
        });
        drain = drain.phase(phases.len().to_string(), g);
        if let Some(time) = finish_for {
            drain = drain.finish_for(time);
        }
    }
    if let Some(when) = plan.abort_on {
        drain = drain.abort_on(pause(when));
    }
    pause(plan.before).await;
    step("draining groups");
    let report = match unless_dropped(drain.run(), plan.dropped).await {
        Some(Ok(report)) => report,
        Some(Err(_)) => fail(format_args!("a drain panicked")),
        None => {
            for phase in phases {
                phase.world.dropped().await;
            }
            return;
        }
    };
    check(
        report.phases().len() == phases.len(),
        format_args!("a drain has lost a phase: {report}"),
    );
    for (number, (drained, phase)) in report.phases().iter().zip(phases).enumerate() {
        check(
            drained.name() == (number + 1).to_string(),
            format_args!("the phases of a drain are out of order: {report}"),
        );
        check_drained(drained, &phase.world, phase.submitted).await;
        check_cause(&phase.ctx, false, &phase.world.records());
    }
}

fn is_simple(task: &TaskPlan) -> bool {
    let started_now = !matches!(task.way, Way::Start | Way::Track | Way::Reserve(..));
    // A closure may end before the drain begins.
    started_now && !task.way.blocks() && !task.gives_back && task.script.acts.is_empty()
}
