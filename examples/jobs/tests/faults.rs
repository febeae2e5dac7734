//! The program with each fault, with a server and worker processes of its own. It checks the
//! results itself; this checks that it does so, and that it says what has happened.

use std::process::Command;

/// Runs a job of 200 items, and returns what was printed.
fn run(arguments: &[&str]) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_jobs"))
        .args(["run", "--items", "200", "--long", "4000"])
        .args(arguments)
        .output()
        .unwrap();
    let output = String::from_utf8(run.stdout).unwrap();
    let errors = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success(), "{output}{errors}");
    output
}

fn assert_prints(output: &str, text: &str) {
    assert!(output.contains(text), "{text:?} is not in:\n{output}");
}

const ALL: &str = "all 200 items are there, and none twice";

#[test]
fn without_a_fault_each_item_is_done_once() {
    let output = run(&[]);
    assert_prints(&output, "200 results, ");
    assert_prints(&output, "0 dead letters");
    assert_prints(&output, ALL);
}

#[test]
fn the_items_of_a_killed_worker_are_done_by_others() {
    let output = run(&["--fault", "kill"]);
    assert_prints(&output, ALL);
    assert_eq!(output.matches(" has begun").count(), 2, "{output}");
    assert_eq!(output.matches(": drained: ").count(), 2, "{output}");
}

#[test]
fn a_worker_that_is_asked_to_stop_gives_its_items_back() {
    let output = run(&["--fault", "term"]);
    assert_prints(
        &output,
        "items.100: given back: context cancelled: shutting down",
    );
    assert_prints(&output, ALL);
    assert_eq!(output.matches(": drained: ").count(), 3, "{output}");
}

#[test]
fn an_item_that_fails_five_times_is_a_dead_letter() {
    let output = run(&["--fault", "fail"]);
    assert_prints(&output, "198 results, ");
    assert_prints(&output, "; 2 dead letters");
    assert_prints(
        &output,
        "items.13: try 5 has failed: cannot write the page: disk full",
    );
    assert_prints(&output, ALL);
}

#[test]
fn a_cancel_ends_the_job_in_every_worker() {
    let output = run(&["--fault", "cancel"]);
    let text = ": context cancelled: job cancelled: the customer has left; the last task ended";
    assert_eq!(output.matches(text).count(), 3, "{output}");
}
