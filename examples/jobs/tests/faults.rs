//! The program with each fault, with a server and worker processes of its own. It checks by itself
//! that no item is lost or there twice; this checks what has happened to the items on the way.

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

/// Asserts that a text was printed this often.
#[track_caller]
fn assert_prints(output: &str, times: usize, text: &str) {
    assert_eq!(output.matches(text).count(), times, "{text:?}:\n{output}");
}

const ALL: &str = "all 200 items are there, and none twice\n";

#[test]
fn an_item_is_kept_for_longer_than_its_ack_wait() {
    let output = run(&["--ack-wait", "3000"]);
    assert_prints(&output, 1, " has begun");
    assert_prints(&output, 1, "results: 200\ndead: 0\n");
    assert_prints(&output, 1, ALL);
}

#[test]
fn the_items_of_a_killed_worker_are_done_by_others() {
    let output = run(&["--fault", "kill"]);
    assert_prints(&output, 2, "items.100 has begun");
    assert_prints(&output, 2, ": drained: worker: ");
    assert_prints(&output, 1, ALL);
}

/// Without the `Nak`, the item would come back after `ack_wait`, when the program has given up.
#[test]
fn a_worker_that_is_asked_to_stop_gives_its_items_back() {
    let output = run(&["--fault", "term", "--ack-wait", "600000"]);
    let stopped = "items.100: stopped: context cancelled: shutting down\n";
    assert_prints(&output, 1, stopped);
    assert_prints(&output, 2, "items.100 has begun");
    assert_prints(&output, 3, ": drained: worker: ");
    assert_prints(&output, 1, ALL);
}

#[test]
fn an_item_that_fails_five_times_is_a_dead_letter() {
    let output = run(&["--fault", "fail"]);
    for number in [13, 113] {
        let tries = [
            "1 has failed, the next is in 50ms",
            "2 has failed, the next is in 100ms",
            "3 has failed, the next is in 200ms",
            "4 has failed, the next is in 400ms",
            "5 has failed, the last",
        ];
        for text in tries {
            let text = format!("items.{number}: try {text}: cannot write the page: disk full\n");
            assert_prints(&output, 1, &text);
        }
        let letter = format!("\ndead.{number}: 5 tries: cannot write the page: disk full\n");
        assert_prints(&output, 1, &letter);
    }
    assert_prints(&output, 1, "results: 198\n");
    assert_prints(&output, 1, "items.57: try 2 has failed");
    assert_prints(&output, 0, "items.57: try 3 has failed");
    assert_prints(&output, 1, ALL);
}

#[test]
fn a_cancel_ends_the_job_in_every_worker() {
    let output = run(&["--fault", "cancel"]);
    let cause = ": context cancelled: job cancelled: the customer has left\n";
    // The item has ended by itself, before the time is over that it has to clean up.
    assert_prints(&output, 1, &format!("items.100: stopped{cause}"));
    for worker in 0..3 {
        assert_prints(&output, 1, &format!("worker {worker}{cause}"));
    }
    assert_prints(&output, 3, " after the cancel\n");
}
