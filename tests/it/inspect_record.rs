//! Recordings of programs of which each event is known: the trace, the page, the rings.
//!
//! A recorder sees the whole process, in which other tests run. So each test looks at the groups
//! that it has named.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use errgroup::inspect;
use errgroup::{Context, Group, fan_out};
use tokio::time::sleep;

use crate::fan_out_support::background;
use crate::group_support::*;
use crate::inspect_support::{Trace, alone, bar, mark, record, text, time};
use crate::support::ms;

async fn succeed_after(millis: u64) -> Result<(), String> {
    sleep(ms(millis)).await;
    OK
}

#[tokio::test(start_paused = true)]
async fn bars_have_the_start_and_the_length_of_their_tasks() {
    let records = record(1_000);
    let g = G::new();
    g.set_name("record bars");
    g.set_limit(2);
    g.named("a").go(succeed_after(100));
    g.named("b").go(succeed_after(250));
    g.named("c").go(succeed_after(1_000));
    assert_eq!(g.wait().await, OK);
    let trace = records.trace();
    let expected = [
        bar("a", 0, 100, "ended"),
        bar("b", 0, 250, "ended"),
        bar("c", 100, 1_000, "ended"),
    ];
    assert_eq!(trace.bars("group \"record bars\""), expected);
    assert!(trace.marks("group \"record bars\"").is_empty());
    let bars = trace.events("group \"record bars\"", "X");
    // The third task is in the lane of the first one.
    assert_eq!(bars[0]["tid"], bars[2]["tid"]);
    assert_ne!(bars[0]["tid"], bars[1]["tid"]);
    assert!(text(&bars[0]["args"]["site"]).contains("inspect_record.rs:"));
}

#[tokio::test(start_paused = true)]
async fn each_way_to_end_has_its_mark() {
    let records = record(1_000);
    let g = G::new();
    g.set_name("record ways");
    g.named("fails").go(async { Err("disk full".to_owned()) });
    g.named("panics").go(async { panic!("a bug") });
    let stopped = g.named("stopped").spawn(succeed_after(1_000));
    sleep(ms(10)).await;
    stopped.abort();
    sleep(ms(10)).await;
    g.named("cut").go(succeed_after(1_000));
    sleep(ms(10)).await;
    g.abort();
    let failures = g.wait_all().await.unwrap_err();
    assert_eq!(failures.iter().count(), 3);

    let trace = records.trace();
    let group = "group \"record ways\"";
    let outcomes: HashMap<_, _> = trace
        .bars(group)
        .into_iter()
        .map(|bar| (bar.0, bar.3))
        .collect();
    let expected = [
        ("fails", "failed"),
        ("panics", "panicked"),
        ("stopped", "aborted"),
        ("cut", "aborted"),
    ];
    for (name, outcome) in expected {
        assert_eq!(outcomes[name], outcome, "{name}");
    }
    let marks = trace.marks(group);
    assert!(
        marks.contains(&mark("fails failed", "disk full")),
        "{marks:?}"
    );
    assert!(
        marks.contains(&mark("panics panicked", "a bug")),
        "{marks:?}"
    );
    let cause = "group \"record ways\" was aborted";
    assert!(marks.contains(&mark("cancelled", cause)), "{marks:?}");
    assert!(marks.contains(&mark("cut aborted", cause)), "{marks:?}");
    assert!(
        marks.iter().any(|it| it.0 == "stopped aborted"),
        "{marks:?}"
    );
    assert_eq!(marks.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn each_cause_of_a_cancellation_is_a_mark_at_its_time() {
    let records = record(1_000);
    // By hand, by a failure, by the parent, by its deadline, and by a drop.
    let (hand, _) = group();
    hand.set_name("record hand");
    hand.go_with(async |ctx| Err(ctx.done().await.to_string()));
    sleep(ms(30)).await;
    hand.cancel_with("SIGTERM");
    sleep(ms(50)).await;
    let _ = hand.wait().await;

    let (failure, _) = group();
    failure.set_name("record failure");
    failure.go(async { Err("first".to_owned()) });
    let _ = failure.wait().await;

    let (parent, guard) = Context::background().with_cancel();
    let (below, _) = G::with_context(&parent);
    below.set_name("record below");
    below.go_with(async |ctx| ctx.done().await.map_ok());
    sleep(ms(20)).await;
    guard.cancel_with("the client left");
    let _ = below.wait().await;

    let (late, _) = G::with_context(background().with_timeout(ms(40)));
    late.set_name("record late");
    late.go(succeed_after(100));
    let _ = late.wait().await;

    let (dropped, _) = group();
    dropped.set_name("record dropped");
    dropped.go(succeed_after(100));
    sleep(ms(1)).await;
    drop(dropped);
    sleep(ms(1)).await;

    let trace = records.trace();
    let stopped = &trace.bars("group \"record hand\"")[0];
    assert_eq!((stopped.2, stopped.3.as_str()), (ms(30), "stopped"));
    let causes = [
        ("hand", "SIGTERM", 30),
        ("failure", "first", 0),
        ("below", "the client left", 20),
        ("late", "context deadline exceeded", 40),
        ("dropped", "group \"record dropped\" was dropped", 1),
    ];
    for (name, cause, after) in causes {
        let group = format!("group \"record {name}\"");
        let marks = trace.events(&group, "i");
        let mut cancels = marks.iter().filter(|it| it["name"] == "cancelled");
        let cancel = cancels.next().unwrap_or_else(|| panic!("no mark: {name}"));
        assert!(cancels.next().is_none(), "two marks: {name}");
        assert_eq!(cancel["args"]["cause"], cause);
        assert_eq!(cancel["s"], "p");
        let at = time(&cancel["ts"]) - time(&trace.events(&group, "X")[0]["ts"]);
        // The timer of a deadline has a resolution of a millisecond.
        assert!(at.abs_diff(ms(after)) <= ms(1), "{name}: {at:?}");
    }
}

/// Makes what a wait for a cancellation returns into the success of a task.
trait MapOk: Sized {
    fn map_ok(self) -> Result<(), String> {
        OK
    }
}

impl<T> MapOk for T {}

#[tokio::test(start_paused = true)]
async fn an_end_after_the_wait_is_no_cancellation() {
    let records = record(1_000);
    let (g, ctx) = group();
    g.set_name("record quiet");
    g.go(succeed_after(10));
    assert_eq!(g.wait().await, OK);
    let (kept, _ctx) = group();
    kept.set_name("record kept");
    kept.go(succeed_after(10));
    assert_eq!(kept.close_and_wait().await, OK);
    assert_eq!(kept.close_and_wait().await, OK);
    let calls = fan_out(&ctx, 0..0, |_, _: u32| succeed_after(1)).named("record none");
    let _ = calls.for_each().await;
    let parent = background();
    let item = |_, _: u32| succeed_after(10);
    let _ = fan_out(&parent, 0..2, item)
        .named("record pages")
        .for_each()
        .await;
    let local = fan_out(&parent, 0..2, item).named("record local").local();
    let _ = local.for_each().await;
    let trace = records.trace();
    for group in ["group \"record quiet\"", "group \"record kept\""] {
        assert_eq!(trace.marks(group), []);
        assert_eq!(trace.bars(group).len(), 1);
    }
    for group in ["fan-out \"record pages\"", "fan-out \"record local\""] {
        assert_eq!(trace.marks(group), [], "{group}");
        assert_eq!(trace.bars(group).len(), 2, "{group}");
    }
}

#[tokio::test(start_paused = true)]
async fn items_are_recorded_on_workers_and_on_the_own_task() {
    let records = record(1_000);
    let ctx = background();
    let item = |_: Context, number: u64| async move {
        sleep(ms(10 * number)).await;
        match number {
            2 => Err("no such page".to_owned()),
            _ => OK,
        }
    };
    let spawned = fan_out(&ctx, 1..4, item).named("record items").limit(8);
    assert!(spawned.for_each().await.is_err());
    let local = fan_out(&ctx, 1..4, item)
        .named("record own")
        .limit(8)
        .local();
    assert!(local.for_each().await.is_err());
    let trace = records.trace();
    for name in ["record items", "record own"] {
        let group = format!("fan-out {name:?}");
        let expected = [
            bar(&format!("{name}[0]"), 0, 10, "ended"),
            bar(&format!("{name}[1]"), 0, 20, "failed"),
            bar(&format!("{name}[2]"), 0, 20, "aborted"),
        ];
        assert_eq!(trace.bars(&group), expected);
        let marks = trace.marks(&group);
        let failed = format!("{name}[1] failed");
        assert!(marks.contains(&mark(&failed, "no such page")), "{marks:?}");
        assert!(
            marks.contains(&mark("cancelled", "no such page")),
            "{marks:?}"
        );
        assert_eq!(marks.len(), 3, "{marks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ring_keeps_the_last_events() {
    let records = record(4);
    let g = G::new();
    g.set_name("record ring");
    for number in 0..10_u64 {
        g.named(format!("task {number}"))
            .go(succeed_after(10 * number));
    }
    assert_eq!(g.wait().await, OK);
    let names = records.trace().names("group \"record ring\"");
    assert_eq!(names, ["task 6", "task 7", "task 8", "task 9"]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_shown_although_its_text_is_lost() {
    let records = record(1);
    let g = G::new();
    g.set_name("record text");
    g.named("fails").go(async { Err("disk full".to_owned()) });
    assert!(g.wait_all().await.is_err());
    // The ring keeps one event: the end, and not the failure before it.
    let trace = records.trace();
    assert_eq!(
        trace.bars("group \"record text\""),
        [bar("fails", 0, 0, "failed")]
    );
    assert_eq!(trace.marks("group \"record text\""), []);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_runs_or_waits_is_shown() {
    let records = record(1_000);
    let (g, _ctx) = group();
    g.set_name("record live");
    g.set_limit(1);
    g.named("runs").go(succeed_after(600_000));
    sleep(ms(100)).await;
    g.named("waits").go(async { OK });
    sleep(ms(400)).await;
    let trace = records.trace();
    let expected = [
        bar("runs", 0, 500, "running"),
        bar("waits", 100, 400, "queued"),
    ];
    assert_eq!(trace.bars("group \"record live\""), expected);
    g.cancel_with("enough");
    sleep(ms(100)).await;
    let trace = records.trace();
    let marks = trace.marks("group \"record live\"");
    assert!(marks.contains(&mark("cancelled", "enough")), "{marks:?}");
    let waits = &trace.bars("group \"record live\"")[1];
    assert_eq!(*waits, bar("waits", 100, 400, "aborted"));
    let of_waits = &trace.events("group \"record live\"", "X")[1];
    assert_eq!(of_waits["args"]["has_started"], false);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_recorded_before_and_after() {
    let run = async |name: &'static str| {
        let g = G::new();
        g.set_name(name);
        g.go(succeed_after(10));
        assert_eq!(g.wait().await, OK);
    };
    let _alone = alone();
    run("record before").await;
    let first = inspect::record(1_000);
    run("record first").await;
    let second = inspect::record(1_000);
    run("record second").await;
    // An older recorder that is dropped does not stop the newer one.
    let kept = Trace::of(&first);
    assert!(format!("{first:?}").contains("records: false"));
    drop(first);
    run("record third").await;
    assert!(format!("{second:?}").contains("records: true"));
    let trace = Trace::of(&second);
    drop(second);
    run("record after").await;
    let third = inspect::record(1_000);
    let empty = Trace::of(&third);
    let has = |trace: &Trace, name: &str| trace.pid(&format!("group {name:?}")).is_some();
    let of = |trace: &Trace| {
        ["before", "first", "second", "third", "after"]
            .map(|name| has(trace, &format!("record {name}")))
    };
    assert_eq!(of(&kept), [false, true, false, false, false]);
    assert_eq!(of(&trace), [false, false, true, true, false]);
    assert_eq!(of(&empty), [false; 5]);
}

#[test]
fn the_rings_of_two_threads_are_merged_in_order() {
    let records = record(1_000);
    let (turns, turn) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<()>>();
    // Each thread runs a task of one millisecond or more when the other one has ended its own.
    let run = |name: &'static str| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let g = G::new();
            g.set_name(name);
            g.go(succeed_after(1));
            assert_eq!(g.wait().await, OK);
        });
    };
    thread::scope(|scope| {
        scope.spawn(move || {
            for done in turn {
                run("record other thread");
                done.send(()).unwrap();
            }
        });
        for _ in 0..3 {
            run("record this thread");
            let (done, is_done) = std::sync::mpsc::channel();
            turns.send(done).unwrap();
            is_done.recv().unwrap();
        }
        drop(turns);
    });
    let trace = records.trace();
    let names: HashMap<u64, String> = trace
        .0
        .iter()
        .filter(|it| it["name"] == "process_name")
        .map(|it| (it["pid"].as_u64().unwrap(), text(&it["args"]["name"])))
        .collect();
    let bars = trace.0.iter().filter(|it| it["ph"] == "X");
    let order: Vec<_> = bars
        .map(|it| names[&it["pid"].as_u64().unwrap()].as_str())
        .filter(|name| name.contains("thread"))
        .collect();
    let (this, other) = (
        "group \"record this thread\"",
        "group \"record other thread\"",
    );
    assert_eq!(order, [this, other, this, other, this, other]);
}

#[test]
fn threads_record_while_others_read() {
    let records = record(500);
    let is_over = AtomicBool::new(false);
    // A thread of another test takes over the ring of one that has ended, so the threads are there
    // until the last reading.
    let have_run = Barrier::new(5);
    let have_run = &have_run;
    let trace = thread::scope(|scope| {
        for number in 0..4 {
            scope.spawn(move || {
                for round in 0..20 {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .build()
                        .unwrap();
                    runtime.block_on(async {
                        let g = G::new();
                        g.set_name(format!("record many {number} {round}"));
                        for task in 0..50 {
                            g.go(async move {
                                tokio::task::yield_now().await;
                                if task % 10 == 0 {
                                    Err(task.to_string())
                                } else {
                                    OK
                                }
                            });
                        }
                        assert!(g.wait_all().await.is_err());
                    });
                }
                have_run.wait();
                have_run.wait();
            });
        }
        let reads = scope.spawn(|| {
            let mut reads = 0;
            while !is_over.load(Ordering::Relaxed) || reads == 0 {
                records.trace();
                reads += 1;
            }
        });
        have_run.wait();
        is_over.store(true, Ordering::Relaxed);
        reads.join().unwrap();
        let trace = records.trace();
        have_run.wait();
        trace
    });
    for number in 0..4 {
        // The last round of a thread is whole in its ring.
        let bars = trace.bars(&format!("group \"record many {number} 19\""));
        assert_eq!(bars.len(), 50);
        assert_eq!(bars.iter().filter(|bar| bar.3 == "failed").count(), 5);
    }
}

#[test]
fn a_new_thread_takes_the_ring_of_one_that_has_ended() {
    let records = record(2);
    for number in 0..300 {
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap();
            runtime.block_on(async {
                let g = G::new();
                g.set_name("record churn");
                g.named(format!("thread {number}")).go(async { OK });
                assert_eq!(g.wait().await, OK);
            });
        };
        thread::spawn(run).join().unwrap();
    }
    // As many rings as other tests have threads may be free, too.
    let trace = records.trace();
    let bars = trace.0.iter().filter(|it| it["ph"] == "X");
    let kept = bars.filter(|it| text(&it["name"]).starts_with("thread "));
    assert!(kept.count() <= 150);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_any_text_is_recorded() {
    struct Bad(&'static str);
    impl std::fmt::Debug for Bad {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Bad")
        }
    }
    impl std::fmt::Display for Bad {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            if self.0.is_empty() {
                panic!("no text");
            }
            for _ in 0..1_000 {
                // It goes on after an error, as a careless one does.
                let _ = f.write_str(self.0);
            }
            Ok(())
        }
    }
    impl From<errgroup::ContextError> for Bad {
        fn from(_: errgroup::ContextError) -> Bad {
            Bad("context")
        }
    }
    let records = record(1_000);
    let g = Group::<Bad>::new();
    g.set_name("record texts");
    g.named("panics").go(async { Err(Bad("")) });
    g.named("long").go(async { Err(Bad("ä€")) });
    assert!(g.wait_all().await.is_err());
    let marks = records.trace().marks("group \"record texts\"");
    assert_eq!(marks[0], mark("panics failed", "displaying it panicked"));
    assert_eq!(marks[1].0, "long failed");
    assert!(marks[1].1.ends_with('…') && marks[1].1.len() <= 503);
    assert!(marks[1].1.starts_with("ä€ä€"));
}

/// A cause that cannot be displayed.
#[derive(Debug)]
struct BadCause;

impl std::fmt::Display for BadCause {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no text");
    }
}

impl std::error::Error for BadCause {}

#[tokio::test(start_paused = true)]
async fn a_cause_that_cannot_be_displayed_hangs_nothing() {
    let records = record(1_000);
    let deaf = |_, _| std::future::pending::<Result<(), errgroup::ContextError>>();

    let (parent, guard) = Context::background().with_cancel();
    let items = fan_out(&parent, 0..3, deaf).named("bad cause");
    let mut items = Box::pin(items.for_each());
    assert!(futures::poll!(&mut items).is_pending());
    guard.cancel_with(BadCause);
    assert!(items.await.unwrap_err().is_cancelled());

    // A task that fails because of the cause, and one that is aborted.
    let (parent, guard) = Context::background().with_cancel();
    let (g, ctx) = Group::<errgroup::ContextError>::with_context(&parent);
    g.set_name("bad cause of a group");
    let waits = ctx.clone();
    g.go(async move { Err(waits.done().await) });
    let alive = Arc::new(());
    let held = alive.clone();
    g.go(async move {
        let _held = held;
        std::future::pending().await
    });
    tokio::task::yield_now().await;
    guard.cancel_with(BadCause);
    tokio::task::yield_now().await;
    drop(g);
    tokio::task::yield_now().await;
    assert_eq!(Arc::strong_count(&alive), 1);
    let marks = records.trace().marks("group \"bad cause of a group\"");
    assert!(
        marks.contains(&mark("cancelled", "displaying it panicked")),
        "{marks:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_page_contains_no_markup_of_a_name() {
    let records = record(1_000);
    let (g, _ctx) = group();
    g.set_name("record page </script><script>alert(1)</script> <!--");
    g.named("<b>").go(async { Err("<i>".to_owned()) });
    let _ = g.wait().await;
    let page = records.recorder().to_html();
    assert!(!page.contains("alert(1)</script>") && !page.contains("<b>") && !page.contains("<i>"));
    assert!(page.contains(r"record page \u003c/script>\u003cscript>alert(1)"));
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("src="));
}

#[test]
fn a_capacity_of_zero_panics_with_advice() {
    let payload = std::panic::catch_unwind(|| drop(inspect::record(0))).unwrap_err();
    let said = payload.downcast_ref::<&str>().copied();
    assert!(said.unwrap().contains("pass the number of events"));
}
