//! Ends from above: the deadline, a signal, a coordinator that has exited.

use nix::sys::signal::Signal;

use super::process::{Process, Worker, assert_right, coordinator};

/// Workers that do 90 items each, and then hang.
fn workers(args: &[&str]) -> [Worker; 3] {
    [(); 3].map(|()| Worker::start(&[&["--pace=1ms", "--stall-after=90"], args].concat()))
}

#[test]
fn at_the_deadline_workers_stop_by_themselves() {
    // No disconnect is to be noticed by pings here.
    let workers = workers(&["--keep-alive=1h"]);
    let mut run = coordinator(&workers, &["--progress", "--deadline=5s"]);
    run.line("270 of 1000");
    // So that it cannot tell them: what they know is what came with the calls.
    run.signal(Signal::SIGSTOP);
    for tally in workers.each_ref().map(Worker::settled) {
        assert!(tally.cut_off_by_deadline > 0, "{tally}");
        assert_eq!(tally.started, 90 + tally.cut_off_by_deadline, "{tally}");
    }
    run.signal(Signal::SIGCONT);
    let run = run.ended();
    assert_eq!(run.status.code(), Some(1));
    let why = "error: context deadline exceeded: --deadline 5s";
    assert!(run.stderr.contains(why), "{}", run.stderr);
    assert!(run.stdout.contains(" 0 failed"), "{}", run.stdout);
}

#[test]
fn workers_survive_a_coordinator_that_was_killed_and_their_items_do_not() {
    let workers = workers(&[]);
    let mut run = coordinator(&workers, &["--progress"]);
    run.line("270 of 1000");
    run.signal(Signal::SIGKILL);
    drop(run);
    for tally in workers.each_ref().map(Worker::settled) {
        assert!(tally.cut_off_by_client > 0, "{tally}");
        assert_eq!(tally.started, 90 + tally.cut_off_by_client, "{tally}");
    }
}

#[test]
fn a_coordinator_that_stops_answering_is_noticed_by_its_workers() {
    let workers = workers(&["--keep-alive=500ms"]);
    let mut run = coordinator(&workers, &["--progress"]);
    run.line("270 of 1000");
    run.signal(Signal::SIGSTOP);
    for tally in workers.each_ref().map(Worker::settled) {
        assert!(tally.cut_off_by_client > 0, "{tally}");
        assert_eq!(tally.started, 90 + tally.cut_off_by_client, "{tally}");
    }
}

#[test]
fn sigterm_winds_everything_down() {
    let mut run = Process::start([
        "run",
        "--keep-alive=20s",
        "--spawn=3",
        "--pace=10ms",
        "--items=1000000",
        "--progress",
    ]);
    run.line(" of 1000000");
    run.signal(Signal::SIGTERM);
    let run = run.ended();
    assert_eq!(run.status.code(), Some(1));
    // It has waited for the workers, for they have had their say before.
    let last = run.stderr.lines().last();
    let why = "error: context cancelled: received SIGTERM";
    assert_eq!(last, Some(why), "{}", run.stderr);
    // They were asked when the job was over, and nothing ran.
    assert_eq!(
        run.stderr.matches(" 0 running").count(),
        3,
        "{}",
        run.stderr
    );
    assert_eq!(run.stderr.matches("stop 0)").count(), 3, "{}", run.stderr);
}

#[test]
fn workers_that_it_started_do_not_outlive_a_coordinator_that_was_killed() {
    let mut run = Process::start([
        "run",
        "--keep-alive=20s",
        "--spawn=3",
        "--items=1000000",
        "--progress",
    ]);
    run.line(" of 1000000");
    run.signal(Signal::SIGKILL);
    let run = run.ended();
    assert_eq!(
        run.stderr.matches("has exited").count(),
        3,
        "{}",
        run.stderr
    );
    assert_eq!(
        run.stderr.matches(" 0 running").count(),
        3,
        "{}",
        run.stderr
    );
}

/// Stops a process, and waits until each of its threads has stopped.
#[cfg(target_os = "linux")]
fn stop(pid: nix::unistd::Pid) {
    let is_stopped = |thread: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap();
        stat.contains(") T ")
    };
    nix::sys::signal::kill(pid, Signal::SIGSTOP).unwrap();
    let tasks = format!("/proc/{pid}/task");
    while !std::fs::read_dir(&tasks)
        .unwrap()
        .all(|thread| is_stopped(thread.unwrap()))
    {
        std::thread::yield_now();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_stopped_worker_does_not_outlive_a_coordinator_that_was_killed_either() {
    let mut run = Process::start([
        "run",
        "--keep-alive=20s",
        "--spawn=2",
        "--items=1000000",
        "--progress",
    ]);
    run.line(" of 1000000");
    stop(run.worker(1));
    run.signal(Signal::SIGKILL);
    run.ended();
}

#[test]
fn workers_whose_job_was_ended_do_the_next() {
    let workers = [(); 2].map(|()| Worker::start(&["--pace=10ms"]));
    let mut run = coordinator(&workers, &["--progress", "--items=1000000"]);
    run.line(" of 1000000");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.ended().status.code(), Some(1));
    let next = coordinator(&workers, &["--list", "--items=100"]).ended();
    assert!(next.status.success(), "{}", next.stderr);
    assert_right(&next.stdout, 100);
}
