//! The examples that run to their end by themselves.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Scratch, count, fails, has, millis, number, prints, program};

fn fetch_all(arguments: &[&str], pages: u64, limit: u64) {
    let out = prints("fetch_all", arguments);
    assert_eq!(number(&out, "  pages "), pages);
    has(&out, &["one by one", "times as long"]);
    has(
        &out,
        &[
            "failed",
            "GET http://127.0.0.1:",
            "500 Internal Server Error",
        ],
    );
    // The page that fails is three fifths of the way, and a full limit is in flight then.
    let bad = pages / 5 * 3;
    let (_, table) = out.split_once("The server has seen").unwrap();
    assert_eq!(number(table, "  started"), bad - 1 + limit, "{out}");
    assert_eq!(number(table, "  finished"), bad - 1, "{out}");
    assert_eq!(number(table, "  failed"), 1, "{out}");
    assert_eq!(number(table, "  dropped in flight"), limit - 1, "{out}");
    assert_eq!(
        number(table, "  never started"),
        pages - (bad - 1 + limit),
        "{out}"
    );
}

#[test]
fn fetch_all_stops_at_the_first_error() {
    fetch_all(&[], 200, 8);
}

#[test]
fn fetch_all_one_at_a_time() {
    fetch_all(&["--limit", "1"], 200, 1);
}

#[test]
fn fetch_all_with_5000_pages() {
    fetch_all(&["--pages", "5000"], 5000, 8);
}

#[test]
fn fetch_all_rejects_what_it_does_not_understand() {
    fails("fetch_all", &["--limit", "0"]);
    fails("fetch_all", &["--pages", "none"]);
    fails("fetch_all", &["http://127.0.0.1:9/"]);
}

#[test]
fn typed_results() {
    let out = prints("typed_results", &[]);
    has(&out, &["Ada has the orders [17, 42]; the rate is 1.08"]);
    has(&out, &["no page: there is no user 2"]);
}

#[test]
fn background_gives_its_lease_back() {
    let out = prints("background", &[]);
    let lines: Vec<_> = out.lines().map(str::trim).collect();
    let expected = [
        "the lease was given back",
        "all jobs have ended",
        "the lease was given back",
        "stopped: the lease is lost",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn bounded_upload_sends_all_of_its_file() {
    let out = prints("bounded_upload", &["3"]);
    assert_eq!(number(&out, "received"), 40 * 64 * 1024, "{out}");
    assert!((1..=3).contains(&number(&out, "at most")), "{out}");
}

#[test]
fn parallel_cpu_reads_each_file() {
    let out = prints("parallel_cpu", &["src"]);
    let length = std::fs::metadata("src/lib.rs").unwrap().len();
    has(&out, &[&format!(" {length} src/lib.rs")]);
    has(&out, &["src/group/task_builder.rs"]);
}

#[test]
fn server_in_a_struct() {
    let out = prints("server_in_a_struct", &[]);
    has(&out, &["the answer: HELLO"]);
    has(&out, &["idle: false, 2 tasks"]);
    has(&out, &["at the end: goodbye, 0 tasks"]);
}

#[test]
fn shutdown_reports_what_became_of_each_task() {
    let out = prints("shutdown", &["--demo"]);
    has(&out, &["done: three"]);
    has(&out, &["server: ", "stopped"]);
    has(&out, &["workers: 3 finished"]);
    has(&out, &["journal: 1 finished"]);
}

#[test]
fn crawler() {
    let out = prints("crawler", &[]);
    has(&out, &["limit 8: 210 pages, "]);
    assert!((2..=8).contains(&number(&out, "210 pages,")), "{out}");
    has(&out, &["limit 1: 210 pages, 1 at once"]);
}

#[test]
fn race_mirrors() {
    let out = prints("race_mirrors", &[]);
    has(&out, &["ap wins with \"a file\" after "]);
    has(&out, &["us answered"]);
    has(&out, &["ap answered"]);
    has(&out, &["eu saw its client disconnect"]);
}

#[test]
fn hedged_calls() {
    let out = prints("hedged_calls", &[]);
    has(&out, &["without ", "calls 400  dropped 0"]);
    let (plain, hedged) = out.split_once("hedged after 50 ms").unwrap();
    assert!(millis(hedged, "p99") < millis(plain, "p99") / 2.0, "{out}");
    assert!(number(hedged, "calls") > 400, "{out}");
    assert!(number(hedged, "dropped") > 0, "{out}");
}

#[test]
fn quorum_write() {
    let out = prints("quorum_write", &[]);
    has(&out, &["acknowledged by c, e, a after "]);
    assert!(
        millis(&out, "acknowledged by c, e, a after") < 10_000.0,
        "{out}"
    );
    assert_eq!(count(&out, &["  d: the call was dropped"]), 2, "{out}");
    assert_eq!(count(&out, &["  a: the call was dropped"]), 1, "{out}");
    has(
        &out,
        &[
            "failed after ",
            ": connection refused (2 more failed, 2 were stopped)",
        ],
    );
    for (index, name) in [(1, 'b'), (2, 'c'), (4, 'e')] {
        has(
            &out,
            &[
                &format!("  task \"replica[{index}]\""),
                &format!("): {name}: connection refused"),
            ],
        );
    }
    for index in [0, 3] {
        let stopped = " was stopped: quorum can no longer be reached";
        has(&out, &[&format!("  task \"replica[{index}]\""), stopped]);
    }
}

#[test]
fn pipeline_writes_each_line_with_flat_memory() {
    let scratch = Scratch::new();
    let records = scratch.path("records");
    let out = prints("pipeline", &["100000", records.to_str().unwrap()]);
    has(&out, &["100000 lines in "]);
    assert_eq!(number(&out, "at most"), 64, "{out}");
    // The sum of the limits.
    assert!((64..=74).contains(&number(&out, "at once, and")), "{out}");

    let records = fs::read_to_string(records).unwrap();
    let records: BTreeSet<u64> = records
        .lines()
        .map(|line| {
            let (key, square) = line.split_once(' ').unwrap();
            let key: u64 = key.parse().unwrap();
            assert_eq!(square.parse(), Ok(key * key));
            key
        })
        .collect();
    assert!(records.iter().copied().eq(0..100_000));

    if cfg!(target_os = "linux") {
        let memory = |done: u32| number(&out, &format!("resident memory after {done} lines:"));
        let (early, late) = (memory(10_000), memory(100_000));
        assert!(late < early + 4 * 1024, "KiB: {out}");
    }
}

#[test]
fn dashboard() {
    let out = prints("dashboard", &[]);
    assert!(millis(&out, "ready after") < 4_000.0, "{out}");
    has(&out, &["orders ", "17 open"]);
    has(
        &out,
        &[
            "stock ",
            "too slow: context deadline exceeded: the page is due",
        ],
    );
    has(&out, &["weather ", "failed: ", "503"]);
}

#[test]
fn dependent_operations() {
    program("dependent_operations"); // the first call builds all examples
    let start = Instant::now();
    let out = prints("dependent_operations", &[]);
    has(&out, &["second: stopped after ", ", because: out of stock"]);
    has(&out, &["first:  failed: out of stock"]);
    assert!(start.elapsed() < Duration::from_secs(9), "{out}");
}

#[test]
fn client_timeout() {
    let out = prints("client_timeout", &[]);
    has(&out, &["client: context deadline exceeded, after "]);
    assert!(millis(&out, "exceeded, after") < 1_000.0, "{out}");
    has(
        &out,
        &["server: client disconnected, ", " into the request"],
    );
    assert!(millis(&out, "client disconnected, ") < 1_000.0, "{out}");
}

#[test]
fn process_stream_loses_no_job() {
    let out = prints("process_stream", &[]);
    has(&out, &["the channel was closed: 30 jobs done, 0 left"]);
    has(
        &out,
        &[
            "context deadline exceeded: the page is due: ",
            " jobs done, ",
            " left",
        ],
    );
    assert_eq!(
        count(&out, &["jobs accepted: ", "; in order: true"]),
        2,
        "{out}"
    );
}

#[test]
fn computation_stops_at_its_deadline() {
    program("computation"); // the first call builds all examples
    let start = Instant::now();
    let out = prints("computation", &[]);
    has(
        &out,
        &[
            "context deadline exceeded: the page is due: it stopped ",
            " after the deadline",
        ],
    );
    assert!(millis(&out, "it stopped") < 2_000.0, "{out}");
    assert!(number(&out, "primes in") < 3_000, "{out}");
    assert!(start.elapsed() < Duration::from_secs(9), "{out}");
}

#[test]
fn values_are_in_each_line() {
    let out = prints("values", &[]);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01";
    has(&out, &["calls the next service header=\"", parent]);
    // One line for the request, two for each of its two tasks, one for each of the three items.
    for id in 1..=3 {
        let ids = format!(
            "request{{id={id} trace=4bf92f3577b34da6a3ce929d0e0e473{}}}",
            5 + id
        );
        assert_eq!(count(&out, &[&ids]), 1 + 2 * 2 + 3, "{out}");
    }
    assert_eq!(out.lines().count(), 24, "{out}");
}

#[test]
fn blocking_interrupts_its_query() {
    let out = prints("blocking", &[]);
    has(
        &out,
        &[
            "ended ",
            " after the deadline: ",
            "context deadline exceeded",
        ],
    );
    assert!(millis(&out, "ended ") < 2_000.0, "{out}");
    has(&out, &["next query: 1000"]);
}

#[test]
fn query_databases_stops_its_queries() {
    let out = prints("query_databases", &[]);
    has(
        &out,
        &["SQLite: 3 queries run, and rows arrive; the client disconnects"],
    );
    has(
        &out,
        &["rows ", " rows: context cancelled: client disconnected"],
    );
    assert!(number(&out, " after ") > 0, "{out}");
    has(&out, &["  0 queries are left; 3 of 3 "]);
    for query in out.lines().filter(|line| line.contains(" ended ")) {
        assert!(millis(query, " ended ") < 4_000.0, "{out}");
    }

    let out = prints(
        "query_databases",
        &["--leave", "60000", "--deadline", "1000"],
    );
    has(
        &out,
        &["count ", " context deadline exceeded: the page is due"],
    );
    has(&out, &["  0 queries are left; 3 of 3 "]);
    for query in out.lines().filter(|line| line.contains(" ended ")) {
        assert!(millis(query, " ended ") < 4_000.0, "{out}");
    }
}
