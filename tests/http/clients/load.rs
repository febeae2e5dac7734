//! 20,000 requests of h2load, after which the server has no more tasks and memory than before.

use std::alloc::System;
use std::time::Duration;

use rustix::process::Signal;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::programs::{run, signal, start};
use crate::site::{Site, TASKS};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What may stay of 20,000 requests: the log has a few more entries, and tables keep their size.
const KEPT: usize = 64 << 10;

fn bytes_in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats
        .bytes_allocated
        .saturating_sub(stats.bytes_deallocated)
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// Waits until there are no more tasks and bytes than there were.
async fn until_back_at_base(site: &Site, tasks_before: usize, bytes_before: usize) {
    for _ in 0..600 {
        if tasks() <= tasks_before && bytes_in_use() <= bytes_before + KEPT {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!(
        "{} tasks where {tasks_before} were, {} bytes where {bytes_before} were; \
         {} handlers run, {} linger",
        tasks(),
        bytes_in_use(),
        site.handlers.running(),
        site.handlers.lingering(),
    );
}

async fn load(requests: usize, options: &[&str], url: &str) {
    let number = requests.to_string();
    let mut arguments = vec!["-n", &number, "-c", "16"];
    arguments.extend_from_slice(options);
    arguments.push(url);
    let output = run("h2load", &arguments).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let succeeded = format!(" {requests} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(text.contains(&succeeded), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs h2load: run .ci/clients.sh"]
async fn twenty_thousand_requests_leave_nothing() {
    let site = Site::start().await;
    for options in [&["--h1"][..], &["-m", "32"]] {
        load(2_000, options, &site.url("/quick")).await;
        sleep(Duration::from_millis(500)).await;
        let (tasks_before, bytes_before) = (tasks(), bytes_in_use());
        load(20_000, options, &site.url("/quick")).await;
        until_back_at_base(&site, tasks_before, bytes_before).await;
        assert_eq!((site.handlers.running(), site.handlers.lingering()), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs h2load: run .ci/clients.sh"]
async fn streams_of_a_killed_client_leave_nothing() {
    const STREAMS: usize = 400;
    let site = Site::start().await;
    load(200, &["-m", "32"], &site.url("/quick")).await;
    sleep(Duration::from_millis(500)).await;
    let (tasks_before, bytes_before) = (tasks(), bytes_in_use());
    let url = site.url("/work");
    let mut client = start("h2load", &["-n", "400", "-c", "4", "-m", "100", &url]);
    site.log.until("started", STREAMS).await;
    signal(&client, Signal::KILL);
    client.wait().await.unwrap();
    site.log.until("handler: client gone", STREAMS).await;
    site.log.until("task: client gone", TASKS * STREAMS).await;
    until_back_at_base(&site, tasks_before, bytes_before).await;
    assert_eq!((site.handlers.running(), site.handlers.lingering()), (0, 0));
}
