//! Workers that are lost while they have something to do.

use nix::sys::signal::Signal;

use super::process::{Ended, Process, Worker, assert_right, coordinator};

/// Three workers, of which the second does ten items and then hangs, and a job that is done but for
/// the items of that one.
fn all_but_forty_items(args: &[&str]) -> ([Worker; 3], Process) {
    let sound: &[&str] = &["--pace=1ms"];
    let stalls: &[&str] = &["--pace=1ms", "--stall-after=10"];
    let workers = [sound, stalls, sound].map(Worker::start);
    let mut run = coordinator(&workers, &[&["--list", "--progress"], args].concat());
    // It has two batches of 25, and has answered ten of their items.
    run.line("960 of 1000");
    (workers, run)
}

fn assert_that_others_have_done_the_forty(run: &Ended, others: [&Worker; 2]) {
    assert!(run.status.success(), "{}", run.stderr);
    assert_right(&run.stdout, 1000);
    let lost = "  worker 1: 10 answers; lost, and 40 items left to others: ";
    assert!(run.stdout.contains(lost), "{}", run.stdout);
    // No worker did an item again whose result had been sent.
    let done = others.map(|worker| worker.settled().done);
    assert_eq!(done.iter().sum::<u64>(), 990);
}

#[test]
fn what_a_killed_worker_has_not_answered_is_done_by_others_once() {
    let ([one, killed, three], run) = all_but_forty_items(&[]);
    killed.process.signal(Signal::SIGKILL);
    assert_that_others_have_done_the_forty(&run.ended(), [&one, &three]);
}

#[test]
fn a_worker_that_stops_answering_is_noticed_and_its_items_are_done_by_others() {
    let ([one, stopped, three], run) = all_but_forty_items(&["--keep-alive=1s", "--deadline=40s"]);
    stopped.process.signal(Signal::SIGSTOP);
    assert_that_others_have_done_the_forty(&run.ended(), [&one, &three]);

    // When it continues, it finds that no client waits for its items any more.
    stopped.process.signal(Signal::SIGCONT);
    let tally = stopped.settled();
    assert!(tally.cut_off_by_client > 0, "{tally}");
    assert_eq!(tally.started, 10 + tally.cut_off_by_client, "{tally}");
}

#[test]
fn a_worker_that_is_asked_to_stop_leaves_its_items_to_others() {
    let ([one, asked, three], run) = all_but_forty_items(&[]);
    let ended = asked.stop();
    assert!(
        ended.stderr.contains("received SIGTERM"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("10 done, 0 failed"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("client 0, deadline 0"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains(" 0 running"), "{}", ended.stderr);
    assert_that_others_have_done_the_forty(&run.ended(), [&one, &three]);
}

#[test]
fn with_no_worker_left_the_job_fails() {
    let workers = [(); 2].map(|()| Worker::start(&["--pace=1ms", "--stall-after=10"]));
    let mut run = coordinator(&workers, &["--progress"]);
    run.line("20 of 1000");
    for worker in &workers {
        worker.process.signal(Signal::SIGKILL);
    }
    let run = run.ended();
    assert_eq!(run.status.code(), Some(1));
    assert!(
        run.stderr.contains("every worker is lost"),
        "{}",
        run.stderr
    );
}
