//! Guarded interrupts with real SQLite: an interrupt that comes late does not hit the next query.

use std::thread;
use std::time::Duration;

use errgroup::Context;
use rusqlite::Connection;
use tokio::task::yield_now;
use tokio::time::timeout;

/// How long the test waits before it fails, as in tests/it/support.rs.
const PATIENCE: Duration = Duration::from_secs(120);

const COUNT: &str = "
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
    SELECT count(*) FROM number";

fn count(connection: &Connection, up_to: i64) -> rusqlite::Result<i64> {
    connection.query_row(COUNT, [up_to], |row| row.get(0))
}

/// Work on a connection that fails half-way, by itself, while it can be interrupted.
fn fails_half_way(ctx: &Context, connection: &Connection) -> anyhow::Result<()> {
    let handle = connection.get_interrupt_handle();
    let _interrupt = ctx.after_func(move || handle.interrupt()).guard();
    count(connection, 10)?;
    anyhow::bail!("the row is not valid")
}

/// One connection, which is used again at once. The context is cancelled in another thread about
/// when the work fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupt_does_not_hit_the_next_query_of_a_connection() {
    const ROUNDS: usize = 200;
    // The worker threads are busy, so the function of a done context has to wait for one.
    let busy = [(); 4].map(|()| {
        tokio::spawn(async {
            loop {
                (0..10_000).for_each(|_| std::hint::spin_loop());
                yield_now().await;
            }
        })
    });
    let hits = tokio::task::spawn_blocking(|| {
        let connection = Connection::open_in_memory().unwrap();
        let mut hits = 0;
        for _ in 0..ROUNDS {
            let (ctx, cancel) = Context::background().with_cancel();
            let cancelling = thread::spawn(move || cancel.cancel());
            // An interrupted query may fail, too. Only the next query must not.
            fails_half_way(&ctx, &connection).unwrap_err();
            hits += usize::from(count(&connection, 5_000).is_err());
            cancelling.join().unwrap();
        }
        hits
    });
    let hits = timeout(PATIENCE, hits).await.expect("it ends").unwrap();
    assert_eq!(hits, 0, "of {ROUNDS} innocent queries");
    busy.iter().for_each(tokio::task::JoinHandle::abort);
}
