//! `child_process`: nothing is left of a command, however it ends.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Group, Output, Running, lives, until};

/// Cleans up and exits when it gets SIGTERM.
const POLITE: &str = r#"
    trap 'echo "cleaned up"; exit 0' TERM
    echo "group $$"
    while :; do sleep 0.02; done"#;

/// Its grandchild ignores SIGTERM.
const DEAF: &str = r#"
    sh -c 'trap "" TERM; echo "group $PPID"; sleep 600; :' & wait"#;

/// Exits by itself, and leaves a process behind.
const CARELESS: &str = r#"
    sleep 600 &
    echo "group $$"
    exit 3"#;

/// Starts a command, and waits until it has printed the id of its process group.
fn start(options: &[&str], script: &str) -> (Running, Group) {
    let arguments = [options, &["sh", "-c", script]].concat();
    let process = Running::start("child_process", &arguments);
    process.has_printed(&["group "]);
    until("the group is printed", || process.out().ends_with('\n'));
    let group = process.out().trim_start_matches("group ").trim().to_owned();
    (process, Group(group))
}

/// Waits for the end. Then no process of the group may be running.
fn ends(process: Running, group: &Group) -> Output {
    let output = process.ends();
    assert!(
        !lives(&group.0),
        "a process of group {} is left: {output:#?}",
        group.0
    );
    output
}

fn was_killed(output: &Output) -> bool {
    output.err.contains("were killed")
}

#[test]
fn a_command_may_clean_up() {
    let (process, group) = start(&["--grace", "60"], POLITE);
    assert!(lives(&group.0));
    let start = Instant::now();
    process.signal(Signal::TERM);
    let output = ends(process, &group);
    assert!(start.elapsed() < Duration::from_secs(50));
    assert!(output.out.ends_with("cleaned up\n"), "{output:#?}");
    assert!(output.err.contains("received SIGTERM"), "{output:#?}");
    assert_eq!(output.status.code(), Some(1));
    assert!(!was_killed(&output), "{output:#?}");
}

#[test]
fn a_grandchild_that_ignores_sigterm_is_killed() {
    let (process, group) = start(&["--grace", "0.3"], DEAF);
    assert!(lives(&group.0));
    let start = Instant::now();
    // Only to the example, and not to its children.
    process.signal(Signal::TERM);
    let output = ends(process, &group);
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!(was_killed(&output), "{output:#?}");
    assert!(output.err.contains("received SIGTERM"), "{output:#?}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_timeout_ends_the_command() {
    let (process, group) = start(&["--timeout", "1", "--grace", "0.3"], DEAF);
    let output = ends(process, &group);
    assert!(was_killed(&output), "{output:#?}");
    assert!(
        output.err.contains("the command took too long"),
        "{output:#?}"
    );
}

#[test]
fn what_a_command_leaves_behind_is_stopped() {
    let (process, group) = start(&["--grace", "60"], CARELESS);
    let output = ends(process, &group);
    assert_eq!(output.status.code(), Some(3));
    assert!(!was_killed(&output), "{output:#?}");
}

#[test]
fn a_future_that_is_dropped_kills_at_once() {
    let (process, group) = start(&["--drop-after", "1", "--grace", "60"], DEAF);
    let start = Instant::now();
    let output = process.ends();
    assert!(start.elapsed() < Duration::from_secs(50));
    assert!(output.err.contains("the future was dropped"), "{output:#?}");
    until("a process is left", || !lives(&group.0));
}
