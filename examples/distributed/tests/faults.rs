//! The program with each fault, with seven processes. It checks the counts itself; this checks that
//! it says what has happened.

use std::process::Command;

fn assert_prints(arguments: &[&str], texts: &[&str]) {
    let mut run = Command::new(env!("CARGO_BIN_EXE_distributed"));
    let run = run.arg("run").args(arguments).output().unwrap();
    let output = String::from_utf8(run.stdout).unwrap() + &String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success(), "{output}");
    for text in texts {
        assert!(output.contains(text), "{text:?} is not in:\n{output}");
    }
}

const ALL_CANCELLED: &str = "0 calls are done, 0 have failed, 28 were cancelled\n";

#[test]
fn without_a_fault_every_call_succeeds() {
    let all = "28 calls are done, 0 have failed, 0 were cancelled\n";
    assert_prints(&[], &["24 calls of the shards have succeeded\n", all]);
}

#[test]
fn the_first_error_reaches_the_client_and_ends_all_calls() {
    let counts = "0 calls are done, 3 have failed, 25 were cancelled\n";
    assert_prints(&["--fault", "fail"], &["gateway/1/3 is broken", counts]);
}

#[test]
fn a_client_that_is_killed_ends_all_calls() {
    assert_prints(&["--fault", "kill"], &["28 calls run", ALL_CANCELLED]);
}

#[test]
fn a_client_that_stops_answering_ends_all_calls() {
    assert_prints(&["--fault", "stop"], &["28 calls run", ALL_CANCELLED]);
}

#[test]
fn the_deadline_of_the_client_ends_all_calls() {
    let texts = ["deadline exceeded", ALL_CANCELLED];
    assert_prints(&["--fault", "deadline"], &texts);
}

/// The other levels are stopped, so there is no disconnect that could end the calls.
#[test]
fn each_service_ends_its_calls_by_its_own_timer() {
    let levels = [
        "gateway: the deadline has ended 1 of 1 calls\n",
        "services: the deadline has ended 3 of 3 calls\n",
        "shards: the deadline has ended 24 of 24 calls\n",
    ];
    assert_prints(&["--fault", "deadline"], &levels);
}
