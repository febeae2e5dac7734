//! SQLite, in this process: a query runs in a thread, which cannot be stopped. SQLite itself calls
//! a function that says whether to continue.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use errgroup::{Context, Group};
use rusqlite::{Connection, ErrorCode, Row};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::{Database, Report};

/// Runs a query in the calling thread, and passes on each row, until it has all or `ctx` is done.
/// It stops between two rows, and between two steps of SQLite's search for the next one.
pub(crate) fn query(
    ctx: &Context,
    connection: &Connection,
    sql: &str,
    mut each: impl FnMut(&Row<'_>),
) -> anyhow::Result<()> {
    // Every thousand instructions of SQLite's machine, that is, some microseconds.
    let asked = ctx.clone();
    connection.progress_handler(1_000, Some(move || asked.is_done()))?;
    let _asking = Asking(connection);
    let result = (|| {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            ctx.check()?;
            each(row);
        }
        Ok(())
    })();
    result.map_err(
        |error: anyhow::Error| match error.downcast_ref::<rusqlite::Error>() {
            Some(e) if e.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                ctx.err().map_or(error, anyhow::Error::from)
            }
            _ => error,
        },
    )
}

/// Takes the progress handler off when it is dropped, also by an early return or a panic: it would
/// stop the next query of this connection.
struct Asking<'a>(&'a Connection);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        // It fails only on a connection that cannot be used any more.
        let _ = self.0.progress_handler(0, None::<fn() -> bool>);
    }
}

const QUERIES: [(&str, &str); 3] = [
    (
        "rows",
        "SELECT a.amount, b.amount FROM orders a, orders b, orders c",
    ),
    (
        "count",
        "SELECT count(*) FROM orders a, orders b, orders c WHERE a.amount + b.amount = c.amount",
    ),
    (
        "max",
        "SELECT max(a.amount * b.amount % (c.amount + 1)) FROM orders a, orders b, orders c",
    ),
];

const TABLE: &str = "
    CREATE TABLE orders AS
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < 5000)
    SELECT n AS id, n * 7919 % 1000 AS amount FROM number";

pub(crate) struct Sqlite {
    pool: Pool,
    running: Arc<AtomicUsize>,
    file: PathBuf,
}

type Pool = Arc<Mutex<Vec<Connection>>>;

impl Sqlite {
    /// A database in a file, which is removed in the end, and a connection for each query.
    pub(crate) fn open() -> anyhow::Result<Sqlite> {
        let name = format!("errgroup-query_databases-{}.sqlite", process::id());
        let file = env::temp_dir().join(name);
        let database = Sqlite {
            pool: Pool::default(),
            running: Arc::default(),
            file,
        };
        Connection::open(&database.file)?.execute_batch(TABLE)?;
        for _query in QUERIES {
            give_back(&database.pool, Connection::open(&database.file)?);
        }
        Ok(database)
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

impl Database for Sqlite {
    const NAME: &str = "SQLite";

    fn start(
        &self,
        g: &Group<anyhow::Error>,
        seen: &Arc<AtomicU64>,
    ) -> Vec<oneshot::Receiver<Report>> {
        QUERIES
            .map(|(name, sql)| {
                let (report, reported) = oneshot::channel();
                let (pool, seen) = (Arc::clone(&self.pool), Arc::clone(seen));
                let running = Arc::clone(&self.running);
                g.named(name).go_blocking(move |ctx| {
                    let connection = take(&pool)?;
                    running.fetch_add(1, Ordering::Relaxed);
                    let mut rows = 0;
                    let result = query(&ctx, &connection, sql, |_row| {
                        rows += 1;
                        seen.fetch_add(1, Ordering::Relaxed);
                    });
                    running.fetch_sub(1, Ordering::Relaxed);
                    give_back(&pool, connection);
                    let at = Instant::now();
                    let _ = report.send(Report {
                        name,
                        rows,
                        result,
                        at,
                    });
                    Ok(())
                });
                reported
            })
            .into()
    }

    /// What runs is in a thread of this process.
    async fn running(&self) -> anyhow::Result<usize> {
        Ok(self.running.load(Ordering::Relaxed))
    }

    async fn next_queries(&self) -> anyhow::Result<usize> {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = 0;
        // Without a context: nothing of the last one may be left on the connection.
        for connection in &*pool {
            let sum = "SELECT sum(amount) FROM orders";
            connection.query_row(sum, [], |row| row.get::<_, i64>(0))?;
            answers += 1;
        }
        Ok(answers)
    }
}

fn take(pool: &Pool) -> anyhow::Result<Connection> {
    let connection = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
    anyhow::Context::context(connection, "no connection is free")
}

fn give_back(pool: &Pool, connection: Connection) {
    pool.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(connection);
}
