//! Snapshots of programs that stand still in each state: the tree, its text and its JSON.

use std::time::Duration;

use errgroup::inspect::{
    GroupKind, GroupSnapshot, Snapshot, SuspectKind, TaskKind, TaskSnapshot, TaskState, snapshot,
    task_id, waiting,
};
use errgroup::{Context, Group, fan_out, fetch_all};
use futures::StreamExt;
use tokio::time::{advance, sleep};

use crate::fan_out_support::background;
use crate::group_support::*;
use crate::support::ms;

/// Returns the name with the number of threads of the runtime: both flavours of a test may run at
/// the same time, and a snapshot has the groups of both.
fn of_flavour(name: &str) -> String {
    let workers = tokio::runtime::Handle::current().metrics().num_workers();
    format!("{name} {workers}")
}

/// Returns the tree of the group with this name, of all groups of the test process.
fn tree_of(name: &str) -> Snapshot {
    let mut tree = snapshot();
    let mut found = None;
    let mut next = std::mem::take(&mut tree.groups);
    while let Some(mut group) = next.pop() {
        if group.name.as_deref() == Some(name) {
            found = Some(group);
            break;
        }
        for task in &mut group.tasks {
            next.append(&mut task.groups);
        }
    }
    tree.groups.extend(found);
    tree
}

fn group_of(name: &str) -> GroupSnapshot {
    let mut groups = tree_of(name).groups;
    groups.pop().unwrap_or_else(|| panic!("no group {name:?}"))
}

fn task_of<'a>(group: &'a GroupSnapshot, name: &str) -> &'a TaskSnapshot {
    let mut tasks = group.tasks.iter();
    let found = tasks.find(|task| task.name.as_deref() == Some(name));
    found.unwrap_or_else(|| panic!("no task {name:?}"))
}

/// The place of a line of this file, below or above the caller's.
#[track_caller]
fn site(lines: i32, column: u32) -> String {
    let here = std::panic::Location::caller();
    let line = i64::from(here.line()) + i64::from(lines);
    format!("{}:{line}:{column}", here.file())
}

#[tokio::test(start_paused = true)]
async fn the_text_says_what_each_task_does() {
    let (g, _ctx) = G::with_context(Context::background());
    let made = site(-1, 21);
    g.set_name("text");
    g.set_limit(1);
    g.named("fetch")
        .go(waiting("the disk", sleep(ms(60_000))).map_ok());
    let fetch = site(-2, 7);
    g.named("next").go(async { OK });
    let next = site(-1, 7);
    sleep(ms(3_200)).await;
    let tree = tree_of("text");
    let [one, two] = &tree.groups[0].tasks[..] else {
        panic!("two tasks")
    };
    let expected = format!(
        "group \"text\" at {made}: 1 running of 1, 1 queued, not waited for\n  \
         task \"fetch\" #{} at {fetch}: running for 3.2 s, waits for \"the disk\" for 3.2 s\n  \
         task \"next\" #{} at {next}: queued for 3.2 s\n",
        one.id, two.id,
    );
    assert_eq!(tree.to_string(), expected);
}

/// Makes a future that ends into a task that succeeds.
trait MapOk: Future<Output = ()> + Sized {
    async fn map_ok(self) -> Result<(), String> {
        self.await;
        OK
    }
}

impl<F: Future<Output = ()>> MapOk for F {}

#[tokio::test(start_paused = true)]
async fn a_straggler_is_named_with_its_cause_and_its_times() {
    let (g, _ctx) = group();
    g.set_name("stragglers");
    g.named("deaf").go(sleep(ms(600_000)).map_ok());
    g.go_with(async |ctx| Err(ctx.done().await.to_string()));
    sleep(ms(1_000)).await;
    g.cancel_with("shutting down");
    sleep(ms(65_000)).await;

    let tree = tree_of("stragglers");
    let late = tree.stragglers();
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].task.state, TaskState::Cancelled);
    assert_eq!(late[0].ended.cause, "shutting down");
    assert_eq!(late[0].ended.ago, Some(ms(65_000)));
    assert_eq!(late[0].task.age, ms(66_000));
    let line = late[0].to_string();
    assert!(
        line.contains("STILL RUNNING, started 1 min 6 s ago, cancelled 1 min 5 s ago"),
        "{line}"
    );
    assert!(
        line.contains("CANCELLED 1 min 5 s ago (shutting down)"),
        "{line}"
    );
    let suspects: Vec<_> = tree.suspects().iter().map(|it| it.kind).collect();
    assert_eq!(
        suspects,
        [SuspectKind::NotWaitedFor, SuspectKind::LongCancelled]
    );
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ignores_its_handle_is_a_straggler() {
    let (g, ctx) = group();
    g.set_name("handles");
    let deaf = async |_| {
        sleep(ms(600_000)).await;
        Ok(())
    };
    let (task, other) = (g.named("deaf").spawn_with(deaf), g.spawn_with(deaf));
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (end, until_end) = std::sync::mpsc::channel::<()>();
    let closure = g.named("closure").spawn_blocking(move |_| {
        begun.send(()).unwrap();
        let _ = until_end.recv();
        Ok(())
    });
    let blocked = tokio::task::spawn_blocking(move || has_begun.recv().unwrap());
    blocked.await.unwrap();
    // The clock does not move by itself while a closure runs.
    advance(ms(1_000)).await;
    assert!(tree_of("handles").stragglers().is_empty());

    task.cancel_with("too slow");
    task.cancel_with("the second cause");
    advance(ms(2_000)).await;
    closure.cancel();
    let tree = tree_of("handles");
    let (late, group) = (tree.stragglers(), &tree.groups[0]);
    let names: Vec<_> = late.iter().map(|it| it.task.name.as_deref()).collect();
    assert_eq!(names, [Some("deaf"), Some("closure")]);
    assert_eq!(late[0].ended.cause, "too slow");
    assert_eq!(late[0].ended.ago, Some(ms(2_000)));
    assert_eq!(late[1].ended.cause, "context cancelled");
    assert_eq!(task_of(group, "deaf").state, TaskState::Cancelled);
    assert_eq!(task_of(group, "closure").state, TaskState::Cancelled);
    let is_live = |task: &&TaskSnapshot| task.state == TaskState::Running;
    assert_eq!(group.tasks.iter().filter(is_live).count(), 1);
    assert!(group.ended.is_none() && !ctx.is_done());
    let line = late[0].to_string();
    let what = "STILL RUNNING, started 3.0 s ago, stopped through its handle 2.0 s ago (too slow)";
    assert!(line.contains(what), "{line}");
    assert!(!line.contains("cancelled"), "{line}");

    // The end of the group is that of all its tasks. What the handle has done is still shown.
    g.cancel_with("shutting down");
    let tree = tree_of("handles");
    let late = tree.stragglers();
    assert_eq!(late.len(), 3);
    assert!(late.iter().all(|it| it.ended.cause == "shutting down"));
    assert!(late.iter().any(|it| it.task.stopped.is_some()));

    drop((task, other, end));
    drop(closure);
    g.abort();
    assert!(g.wait().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_task_is_in_the_tree_under_its_own_id() {
    let (g, _ctx) = group();
    g.set_name("kinds");
    let (gate, ids) = (Gate::new(), Log::new());
    let body = |kind: TaskKind| {
        let (gate, ids) = (gate.clone(), ids.clone());
        async move {
            ids.add((kind, task_id().unwrap()));
            gate.pass().await;
            // Also after it was woken, and not the id of another task.
            ids.add((kind, task_id().unwrap()));
            OK
        }
    };
    let (ends, blocks) = std::sync::mpsc::channel::<()>();
    let blocking = ids.clone();
    g.named("Task").go(body(TaskKind::Task));
    g.named("Background")
        .background()
        .go(body(TaskKind::Background));
    g.named("Cleanup")
        .cleanup(ms(1_000))
        .go(body(TaskKind::Cleanup));
    g.named("Blocking").go_blocking(move |_| {
        blocking.add((TaskKind::Blocking, task_id().unwrap()));
        let _ = blocks.recv();
        OK
    });
    let tracked = g.named("Tracked").track(body(TaskKind::Tracked));
    let local = tokio::task::LocalSet::new();
    let starts_local = async { _ = g.named("Local").go_local(body(TaskKind::Local)) };
    local.run_until(starts_local).await;
    let looks = async {
        until(|| ids.len() == 6).await;
        let tree = group_of("kinds");
        for (kind, id) in ids.get() {
            let task = task_of(&tree, &format!("{kind:?}"));
            let state = match kind {
                TaskKind::Blocking => TaskState::Blocking,
                _ => TaskState::Running,
            };
            assert_eq!((task.kind, task.id, task.state), (kind, id, state));
        }
        assert_eq!(tree.tasks.len(), 6);
        gate.open();
        drop(ends);
    };
    let all = local.run_until(async { futures::join!(g.wait(), tracked, looks) });
    assert_eq!(all.await.0, OK);
    let again = ids.get();
    for (kind, id) in &again {
        let same = again
            .iter()
            .filter(|it| it.0 == *kind)
            .all(|it| it.1 == *id);
        assert!(same, "{kind:?}");
    }
    assert!(task_id().is_none());
}

async fn a_queue_a_lender_and_a_grace_period_are_shown() {
    let (g, _ctx) = group();
    let states = &of_flavour("states");
    g.set_name(states.clone());
    g.set_limit(1);
    g.set_grace(Some(ms(1_000)));
    let gate = Gate::new();
    let (asks, passes) = (g.spawner(), gate.clone());
    g.named("lender").go(async move {
        let answer = asks.named("answer").spawn(async move {
            passes.pass().await;
            OK
        });
        let _ = answer.await;
        std::future::pending().await
    });
    let state = |name: &str| task_of(&group_of(states), name).state;
    until(|| tree_has(states, "answer")).await;
    until(|| state("lender") == TaskState::Lent && state("answer") == TaskState::Running).await;
    g.named("last").go(async { OK });
    let tree = group_of(states);
    assert_eq!(task_of(&tree, "last").state, TaskState::Queued);
    assert_eq!((tree.limit, tree.running, tree.queued), (Some(1), 1, 1));
    assert!(task_of(&tree, "lender").lent_for.is_some());
    gate.open();
    until(|| state("lender") == TaskState::Running && !tree_has(states, "answer")).await;
    assert_eq!(state("last"), TaskState::Queued);
    g.cancel_with("over");
    assert_eq!(state("lender"), TaskState::InGrace);
    let _ = g.wait().await;
    assert!(
        tree_of(states).groups.is_empty(),
        "the group has an entry after its end"
    );
}

/// Returns whether the group has a task with this name.
fn tree_has(group: &str, task: &str) -> bool {
    let groups = tree_of(group).groups;
    let mut tasks = groups.iter().flat_map(|group| &group.tasks);
    tasks.any(|it| it.name.as_deref() == Some(task))
}

async fn what_is_made_inside_a_task_is_below_that_task() {
    let gate = Gate::new();
    let [nested, outer, inner] = ["nested", "pages", "inner"].map(of_flavour);
    let (set_nested, set_pages, set_inner) = (nested.clone(), outer.clone(), inner.clone());
    let ctx = background();
    let passes = gate.clone();
    let work = Group::<String>::scope(&ctx, async |g, ctx| {
        g.set_name(set_nested);
        g.named("parent").go(async move {
            let item = move |ctx: Context, number: usize| {
                let (gate, name) = (passes.clone(), set_inner.clone());
                async move {
                    let below = fan_out(&ctx, [number], |_, _| gate.pass().map_ok()).local();
                    below.named(name).for_each().await
                }
            };
            fan_out(&ctx, 0..2, item).named(set_pages).for_each().await
        });
        OK
    });
    let looks = async {
        let items_of = |tree: &GroupSnapshot| {
            let pages = tree.tasks.first()?.groups.first()?;
            let below = pages.tasks.iter().filter_map(|page| page.groups.first());
            let items: Vec<_> = below.flat_map(|inner| &inner.tasks).collect();
            (items.len() == 2).then(|| {
                items
                    .iter()
                    .all(|item| item.name.as_deref() == Some(&*format!("{inner}[0]")))
            })
        };
        until(|| tree_of(&nested).groups.first().and_then(items_of).is_some()).await;
        let tree = group_of(&nested);
        assert_eq!(tree.kind, GroupKind::Scope);
        assert_eq!(items_of(&tree), Some(true));
        let pages = &task_of(&tree, "parent").groups[0];
        assert_eq!(
            (pages.kind, pages.name.as_deref()),
            (GroupKind::FanOut, Some(&*outer))
        );
        let names: Vec<_> = pages
            .tasks
            .iter()
            .map(|page| page.name.clone().unwrap())
            .collect();
        assert_eq!(names, [format!("{outer}[0]"), format!("{outer}[1]")]);
        assert!(tree_of(&inner).groups[0].is_waited_for);
        gate.open();
    };
    let (work, ()) = futures::future::join(work, looks).await;
    assert_eq!(work, OK);
    assert!(tree_of(&nested).groups.is_empty() && tree_of(&outer).groups.is_empty());
}

both_flavours![
    a_queue_a_lender_and_a_grace_period_are_shown,
    what_is_made_inside_a_task_is_below_that_task,
];

#[tokio::test(start_paused = true)]
async fn an_item_that_waits_for_the_consumer_has_no_entry() {
    let ctx = background();
    let mut outcomes = fan_out(&ctx, 0..4, |_, item| async move { Ok::<_, String>(item) })
        .named("ready")
        .limit(4)
        .stream();
    assert!(outcomes.next().await.is_some());
    assert_eq!(group_of("ready").tasks.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_json_has_the_documented_fields() {
    let (g, _ctx) = G::with_context(background().with_timeout(ms(5_000)));
    let made = site(-1, 21);
    g.set_name("json");
    g.go(waiting("io", std::future::pending::<()>()).map_ok());
    let started = site(-1, 7);
    sleep(ms(1_000)).await;
    let json = serde_json::to_value(tree_of("json")).unwrap();
    let (group, task) = (&json["groups"][0], &json["groups"][0]["tasks"][0]);
    let expected = serde_json::json!({ "groups": [{
        "id": group["id"],
        "kind": "group",
        "name": "json",
        "site": made,
        "made_in": null,
        "limit": null,
        "running": 1,
        "queued": 0,
        "is_waited_for": false,
        "grace_ms": null,
        "deadline_left_ms": 4_000,
        "ended": null,
        "tasks": [{
            "id": task["id"],
            "kind": "task",
            "name": null,
            "site": started,
            "state": "running",
            "age_ms": 1_000,
            "lent_for_ms": null,
            "waits_for": [{ "label": "io", "for_ms": 1_000 }],
            "stopped": null,
            "groups": [],
        }],
    }]});
    assert_eq!(json, expected);
    sleep(ms(5_000)).await;
    let json = serde_json::to_value(tree_of("json")).unwrap();
    let ended = serde_json::json!({ "cause": "context deadline exceeded", "ago_ms": 1_000 });
    assert_eq!(json["groups"][0]["ended"], ended);
    assert_eq!(json["groups"][0]["tasks"][0]["state"], "cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_page_contains_no_markup_of_a_name() {
    let (g, _ctx) = group();
    g.set_name("page </script><script>alert(1)</script> <!--");
    g.named("<b>").go(std::future::pending());
    let page = tree_of("page </script><script>alert(1)</script> <!--").to_html();
    assert!(
        !page.contains("alert(1)</script>") && !page.contains("<b>\""),
        "{page}"
    );
    assert!(page.contains(r"page \u003c/script>\u003cscript>alert(1)"));
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("src="));
}

#[tokio::test(start_paused = true)]
async fn a_queue_behind_a_limit_of_zero_is_suspect() {
    let (g, _ctx) = group();
    g.set_name("zero");
    g.set_limit(0);
    let kinds = || -> Vec<SuspectKind> {
        let tree = tree_of("zero");
        tree.suspects().iter().map(|it| it.kind).collect()
    };
    assert_eq!(kinds(), []);
    g.go(async { OK });
    assert_eq!(
        kinds(),
        [SuspectKind::NotWaitedFor, SuspectKind::LimitOfZero]
    );
    let mut waits = tokio_test::task::spawn(g.wait());
    assert!(waits.poll().is_pending());
    assert_eq!(kinds(), [SuspectKind::LimitOfZero]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_lends_for_long_is_suspect() {
    let (g, _ctx) = group();
    g.set_name("long");
    g.set_limit(1);
    let asks = g.spawner();
    g.go(async move {
        let _ = asks.spawn(sleep(ms(62_000)).map_ok()).await;
        OK
    });
    let mut waits = tokio_test::task::spawn(g.wait());
    assert!(waits.poll().is_pending());
    sleep(ms(59_000)).await;
    assert!(tree_of("long").suspects().is_empty());
    sleep(ms(2_000)).await;
    let tree = tree_of("long");
    let kinds: Vec<_> = tree.suspects().iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [SuspectKind::LongLent]);
}

#[tokio::test(start_paused = true)]
async fn a_group_of_many_tasks_is_written_in_part() {
    let (g, _ctx) = group();
    g.set_name("many");
    g.set_limit(10);
    for _ in 0..200 {
        g.go(std::future::pending());
    }
    sleep(ms(1)).await;
    let text = tree_of("many").to_string();
    assert_eq!(text.lines().count(), 52, "{text}");
    assert_eq!(
        text.lines()
            .filter(|line| line.contains("running for"))
            .count(),
        10
    );
    assert!(
        text.ends_with("and 150 more tasks, 150 of them queued\n"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_leaves_no_note() {
    let (g, _ctx) = group();
    g.set_name("notes");
    g.go(async {
        let late = waiting("never", std::future::pending::<()>());
        let _ = tokio::time::timeout(ms(10), late).await;
        waiting("ready", async {}).await;
        std::future::pending().await
    });
    sleep(ms(5)).await;
    assert_eq!(group_of("notes").tasks[0].waits_for[0].label, "never");
    sleep(ms(10)).await;
    assert!(group_of("notes").tasks[0].waits_for.is_empty());
    waiting("outside a task", sleep(Duration::ZERO)).await;
    let calls = fetch_all(
        &background(),
        1,
        [1],
        |_, n| async move { Ok::<_, String>(n) },
    );
    assert_eq!(waiting("a call", calls).await, Ok(vec![1]));
}

/// A cause that cannot be displayed.
#[derive(Debug)]
enum Bad {
    Fails,
    Panics,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Bad::Fails => Err(std::fmt::Error),
            Bad::Panics => panic!("no text"),
        }
    }
}

impl std::error::Error for Bad {}

#[tokio::test(start_paused = true)]
async fn a_cause_that_cannot_be_displayed_is_shown_as_that() {
    for (cause, text) in [
        (Bad::Fails, "displaying it failed"),
        (Bad::Panics, "displaying it panicked"),
    ] {
        let (g, _ctx) = group();
        g.set_name("bad cause");
        g.go(std::future::pending());
        g.cancel_with(cause);
        assert_eq!(group_of("bad cause").ended.unwrap().cause, text);
        let ctx = background();
        let (ctx, guard) = ctx.with_cancel();
        let mut local = fan_out(&ctx, 0..1, |_, _| {
            std::future::pending::<Result<(), String>>()
        })
        .named("bad local cause")
        .grace(ms(10))
        .local()
        .stream();
        assert!(futures::poll!(local.next()).is_pending());
        guard.cancel_with(if text.ends_with("failed") {
            Bad::Fails
        } else {
            Bad::Panics
        });
        assert_eq!(group_of("bad local cause").ended.unwrap().cause, text);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cause_is_shown_with_its_sources() {
    let (g, _ctx) = group();
    g.set_name("sources");
    g.go(std::future::pending());
    g.cancel_with(anyhow::anyhow!("disk full").context("cannot save"));
    assert_eq!(
        group_of("sources").ended.unwrap().cause,
        "cannot save: disk full"
    );
}

#[tokio::test(start_paused = true)]
async fn a_clean_up_task_is_no_straggler_of_a_group_that_is_done() {
    let (g, _ctx) = group();
    g.set_name("cleans up");
    g.named("deaf").go(sleep(ms(10_000)).map_ok());
    g.cancel_with("over");
    g.named("gives back")
        .cleanup(ms(300_000))
        .go(sleep(ms(200_000)).map_ok());
    sleep(ms(5_000)).await;
    let tree = tree_of("cleans up");
    let late = tree.stragglers();
    let names: Vec<_> = late.iter().map(|it| it.task.name.as_deref()).collect();
    assert_eq!(names, [Some("deaf")]);
    let text = tree.to_string();
    let line = text.lines().find(|line| line.contains("gives back"));
    let line = line.unwrap();
    assert!(line.ends_with(": running for 5.0 s"), "{line}");

    // It does not make the group suspect, either.
    sleep(ms(100_000)).await;
    let tree = tree_of("cleans up");
    assert_eq!(
        (tree.groups[0].tasks.len(), tree.stragglers().len()),
        (1, 0)
    );
    let suspects: Vec<_> = tree.suspects().iter().map(|it| it.kind).collect();
    assert_eq!(suspects, [SuspectKind::NotWaitedFor]);
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_and_the_limit_of_a_fan_out_are_shown() {
    let (ctx, guard) = background().with_cancel();
    let item = |_, _| std::future::pending::<Result<(), String>>();
    let fan_out = |name: &'static str| {
        let fan_out = fan_out(&ctx, 0..9, item).named(name).limit(8);
        fan_out.grace(ms(10_000)).limit_handle()
    };
    let ((local, local_limit), (spawned, spawned_limit)) = (fan_out("own"), fan_out("spawned"));
    let (mut local, mut spawned) = (local.local().stream(), spawned.stream());
    assert!(futures::poll!(local.next()).is_pending());
    assert!(futures::poll!(spawned.next()).is_pending());
    tokio::task::yield_now().await;
    for name in ["own", "spawned"] {
        let group = group_of(name);
        assert_eq!((group.limit, group.running), (Some(8), 8), "{name}");
    }
    local_limit.set_limit(2);
    spawned_limit.set_limit(2);
    guard.cancel();
    for name in ["own", "spawned"] {
        let group = group_of(name);
        assert_eq!(group.limit, Some(2), "{name}");
        assert_eq!(group.grace, Some(ms(10_000)), "{name}");
        let mut tasks = group.tasks.iter();
        assert!(tasks.all(|task| task.state == TaskState::InGrace), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_text_of_another_program_stays_on_its_line() {
    let (g, _ctx) = group();
    g.set_name("forged\n\u{1b}[2J");
    g.named("forged\n\u{1b}[2J")
        .go(waiting("a\nb", sleep(ms(9_000))).map_ok());
    let items = fan_out(&background(), 0..1, |_, _| {
        std::future::pending::<Result<(), String>>()
    });
    let mut items = items
        .named("forged \"item\"\n\u{1b}[2J\u{202e}")
        .local()
        .stream();
    assert!(futures::poll!(items.next()).is_pending());
    g.cancel_with("it's \"x\")\n  task \"fake\" #1 at a.rs:1:1: running\u{1b}[2J");
    sleep(ms(10)).await;
    let tree = snapshot();
    let text = tree.to_string();
    let is_plain = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
    assert!(text.chars().all(is_plain), "{text}");
    let lines = text.lines().filter(|line| line.contains("forged")).count();
    assert_eq!(lines, 4, "{text}");
    let cause = r#"(it's "x")\n  task "fake" #1 at a.rs:1:1: running\u{1b}[2J)"#;
    assert!(text.contains(cause), "{text}");
    let late = tree.stragglers();
    let late = late
        .iter()
        .find(|it| it.task.name.as_deref() == Some("forged\n\u{1b}[2J"));
    assert_eq!(late.unwrap().to_string().lines().count(), 1);
}

/// How many groups are below each other.
const LEVELS: usize = 400;

/// Opens a group in a task of a group, and so on.
fn level(
    number: usize,
    gate: Gate,
) -> std::pin::Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
    Box::pin(async move {
        let ctx = background();
        Group::<String>::scope(&ctx, async |g, _| {
            g.set_name(format!("level {number}"));
            g.go(async move {
                if number < LEVELS {
                    level(number + 1, gate).await
                } else {
                    gate.pass().await;
                    OK
                }
            });
            OK
        })
        .await
    })
}

#[tokio::test]
async fn a_deep_tree_is_cut_and_no_group_is_lost() {
    let gate = Gate::new();
    let levels = tokio::spawn(level(1, gate.clone()));
    until(|| !tree_of(&format!("level {LEVELS}")).groups.is_empty()).await;
    // On a thread with half of the stack of a worker.
    let small = std::thread::Builder::new().stack_size(1024 * 1024);
    let looks = small.spawn(|| {
        let tree = snapshot();
        let text = tree.to_string();
        let page = tree.to_html();
        let json = serde_json::to_string(&tree).unwrap();
        drop(tree);
        (text, page, json)
    });
    let (text, page, json) = looks.unwrap().join().unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for number in 1..=LEVELS {
        let name = format!("\"level {number}\"");
        assert_eq!(text.matches(&name).count(), 1, "{name}");
        assert_eq!(page.matches(&name).count(), 1, "{name}");
    }
    let groups = json["groups"].as_array().unwrap();
    let groups = groups.iter().filter(|group| !group["made_in"].is_null());
    let tops: Vec<_> = groups.collect();
    assert_eq!(tops.len(), LEVELS / 30);
    // A group that is too deep names the task in which it was made.
    let task = &tops.last().unwrap()["made_in"];
    assert_eq!(text.matches(&format!(" #{task} at ")).count(), 1);
    assert_eq!(text.matches(&format!(", made in task #{task}:")).count(), 1);
    gate.open();
    assert_eq!(levels.await.unwrap(), OK);
}
