// The test of a program in GO.md: the signal comes while 8 jobs run and others are in the channel.

/// A job: how many seconds it takes, and the counter of the jobs that have started.
struct Job(u64, std::sync::Arc<std::sync::atomic::AtomicUsize>);

async fn process(ctx: &Context, job: Job) -> anyhow::Result<()> {
    job.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Ok(ctx.sleep(Duration::from_secs(job.0)).await?)
}

/// Runs a pool on jobs of these lengths. The channel stays open, and `stop` is done after a second.
/// Returns the report, and how many jobs have started.
async fn run(seconds: impl Iterator<Item = u64>) -> (Drained, usize) {
    let started = std::sync::Arc::default();
    let (send, jobs) = mpsc::channel(100);
    for seconds in seconds {
        send.try_send(Job(seconds, std::sync::Arc::clone(&started))).unwrap_or_else(|_| panic!());
    }
    let stop = Context::background().with_timeout(Duration::from_secs(1));
    let drained = pool(&stop, jobs).await;
    drop(send);
    (drained, started.load(std::sync::atomic::Ordering::Relaxed))
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn test() {
    // Of the 8 that run, 5 last until they are cancelled. The others are never started.
    let (drained, started) = run([3, 3, 3].into_iter().chain([60; 17])).await;
    assert_eq!(drained.to_string(), "group: 3 finished, 5 stopped");
    assert_eq!(started, 8);

    // The pool waits for a job when it is stopped.
    let (drained, started) = run([0; 50].into_iter()).await;
    assert_eq!(drained.to_string(), "group: idle");
    assert_eq!(started, 50);

    // The channel is closed.
    let started = std::sync::Arc::default();
    let (send, jobs) = mpsc::channel(100);
    send.try_send(Job(3, std::sync::Arc::clone(&started))).unwrap_or_else(|_| panic!());
    drop(send);
    let drained = pool(&Context::background(), jobs).await;
    assert_eq!(drained.to_string(), "group: 1 finished");
}
