//! A job with which all goes well, and one in which an item fails.

use super::process::{Process, Worker, assert_right, coordinator, show};

#[test]
fn a_thousand_items_over_three_workers_are_all_there_and_right() {
    let workers = [(); 3].map(|()| Worker::start(&["--pace=1ms"]));
    let run = coordinator(&workers, &["--list"]).ended();
    assert!(run.status.success(), "{}", run.stderr);
    assert_right(&run.stdout, 1000);

    let tallies = workers.map(|worker| worker.settled());
    assert_eq!(tallies.map(|t| t.running()), [0; 3]);
    assert_eq!(tallies.iter().map(|t| t.started).sum::<u64>(), 1000);
    assert_eq!(tallies.iter().map(|t| t.done).sum::<u64>(), 1000);
    // Two batches at once: no worker can have had many more than the others, and none had nothing.
    assert!(tallies.iter().all(|t| t.done >= 50), "{tallies:?}");
}

#[test]
fn the_coordinator_starts_workers_itself_and_leaves_none() {
    let run = Process::start([
        "run",
        "--keep-alive=20s",
        "--spawn=3",
        "--pace=1ms",
        "--list",
    ])
    .ended();
    assert!(run.status.success(), "{}", run.stderr);
    assert_right(&run.stdout, 1000);
    assert_eq!(
        run.stderr.matches("has exited").count(),
        3,
        "{}",
        run.stderr
    );
}

#[test]
fn a_last_batch_that_is_short_is_done_too() {
    let workers = [(); 2].map(|()| Worker::start(&["--pace=0s"]));
    let run = coordinator(&workers, &["--list", "--items=101", "--batch=20"]).ended();
    assert!(run.status.success(), "{}", run.stderr);
    assert_right(&run.stdout, 101);
}

#[test]
fn the_first_error_ends_the_work_of_all_workers() {
    // Each does 90 items, and hangs in what it has then.
    let mut workers = [(); 3].map(|()| Worker::start(&["--pace=1ms", "--stall-after=90"]));
    let mut run = coordinator(&workers, &["--progress"]);
    run.line("270 of 1000");
    workers[1].process.let_one_fail();
    let run = run.ended();
    assert_eq!(run.status.code(), Some(1), "{}", run.stderr);
    assert!(
        run.stderr.starts_with("error: worker 1: item "),
        "{}",
        run.stderr
    );
    show(&run.stdout);

    let [one, failed, three] = workers.each_ref().map(Worker::settled);
    for tally in [one, three] {
        assert!(tally.cut_off_by_client > 0, "{tally}");
        assert_eq!(tally.started, 90 + tally.cut_off_by_client, "{tally}");
    }
    assert_eq!((failed.done, failed.failed), (90, 1), "{failed}");
    // Those of the same call are dropped with it; those of the worker's other call are cancelled.
    let cut_off = failed.cut_off_by_failure + failed.cut_off_by_client;
    assert!(cut_off > 0, "{failed}");
    assert_eq!(failed.started, 91 + cut_off, "{failed}");

    // They are there for the next job, though their items still hang.
    assert!(
        workers
            .map(Worker::stop)
            .iter()
            .all(|ended| ended.status.success())
    );
}
