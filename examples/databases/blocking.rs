//! A SQLite query that would run for minutes, interrupted within milliseconds when its context
//! ends.
//!
//! ```sh
//! cargo run -p databases --example blocking
//! ```
//!
//! A blocking call has no await at which it could be dropped. `go_blocking` runs it on a thread for
//! such calls, and `after_func` calls what can interrupt it, here SQLite's own interrupt.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use errgroup::{AfterFuncGuard, Context, Group};
use rusqlite::{Connection, ErrorCode, InterruptHandle};
use tokio::time::{Instant, sleep};

const COUNT: &str = "
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
    SELECT count(*) FROM number";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let out = &mut io::stdout();
    let deadline = Instant::now() + Duration::from_millis(100);
    let ctx = Context::background().with_deadline_cause(deadline, "the page is due");
    let connection = Arc::new(Mutex::new(Connection::open_in_memory()?));

    let (g, _ctx) = Group::<anyhow::Error>::with_context(ctx);
    g.named("count").go_blocking({
        let connection = Arc::clone(&connection);
        move |ctx| {
            let connection = connection.lock().unwrap();
            count(&ctx, &connection, 10_000_000_000).map(drop)
        }
    });
    if let Err(error) = g.wait().await {
        let late = deadline.elapsed();
        writeln!(out, "ended {late:.1?} after the deadline: {error:#}")?;
    }

    let answer = count(&Context::background(), &connection.lock().unwrap(), 1_000)?;
    writeln!(out, "the same connection, the next query: {answer}")?;
    Ok(())
}

fn count(ctx: &Context, connection: &Connection, up_to: i64) -> anyhow::Result<i64> {
    interruptible(ctx, connection, |connection| {
        connection.query_row(COUNT, [up_to], |row| row.get(0))
    })
}

/// Runs a query, and interrupts it when `ctx` ends: that query, and none that comes after it.
fn interruptible<T>(
    ctx: &Context,
    connection: &Connection,
    query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> anyhow::Result<T> {
    let interrupt = Interrupt::new(ctx, connection);
    let result = query(connection);
    drop(interrupt);
    match result {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            ctx.check()?;
            Err(error.into())
        }
        result => Ok(result?),
    }
}

/// Interrupts a query while it exists. When it has been dropped, also by an early return or a
/// panic, no interrupt is under way that could hit the next query.
struct Interrupt {
    running: Arc<Running>,
    // Dropped after `Interrupt::drop` has run: no task is started from then on.
    _func: AfterFuncGuard,
}

impl Interrupt {
    fn new(ctx: &Context, connection: &Connection) -> Interrupt {
        let handle = connection.get_interrupt_handle();
        let running = Arc::new(Running(Mutex::new(Some(handle))));
        let func = ctx.after_func({
            let running = Arc::clone(&running);
            || drop(tokio::spawn(running.interrupt()))
        });
        Interrupt {
            running,
            _func: func.guard(),
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.running.end();
    }
}

/// What interrupts a query while it runs; `None` once it has ended.
struct Running(Mutex<Option<InterruptHandle>>);

impl Running {
    /// Interrupts the query until it has ended. Once may not be enough: if the context is done a
    /// moment before the query begins, SQLite has nothing to interrupt, and ignores the call.
    async fn interrupt(self: Arc<Self>) {
        while self.interrupt_once() {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn interrupt_once(&self) -> bool {
        let handle = self.handle();
        handle.as_ref().map(InterruptHandle::interrupt).is_some()
    }

    /// When this returns, no interrupt is under way that could hit the next query.
    fn end(&self) {
        *self.handle() = None;
    }

    fn handle(&self) -> MutexGuard<'_, Option<InterruptHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
