//! PostgreSQL: a query runs in a process of the server, which does not notice that its client does
//! not wait any more. It needs a cancel request.

use std::net::SocketAddr;
use std::pin::pin;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use errgroup::{Context, ContextError, Group};
use futures::{StreamExt, TryFutureExt, TryStreamExt};
use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::config::Host;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, Row};

use crate::{Database, Report};

/// A connection.
pub(crate) struct Session {
    client: Client,
    /// Where it goes to.
    server: SocketAddr,
    /// Whether the next query need not wait for the end of one that was left.
    idle: bool,
}

/// How long the server may take to stop a query that it has been told to.
const CLEAN_UP: Duration = Duration::from_secs(5);
/// The time until the cancel request is sent again.
const AGAIN: Duration = Duration::from_millis(50);

/// Runs a query in a transaction of its own, and passes on each row, until it has all or `ctx` is
/// done. When this returns and the session is idle, the server does not work for it any more.
///
/// # Cancel safety
///
/// If the future is dropped, no cancel request is sent, and the session is not idle any more. So
/// start it with `go`, not with `go_cancellable`. The query then ends by the server's own timeout,
/// at the deadline of `ctx`, if it has one.
pub(crate) async fn query(
    ctx: &Context,
    session: &mut Session,
    sql: &str,
    mut each: impl FnMut(Row),
) -> anyhow::Result<()> {
    ensure!(session.idle, "the session has a query that was left");
    session.idle = false;
    let client = &session.client;
    let rows = async {
        client.batch_execute(&begin(ctx)).await?;
        ctx.check()?;
        let statement = client.prepare(sql).await?;
        ctx.check()?;
        let rows = client.query_raw(&statement, [] as [&str; 0]).await?;
        Ok(rows.map_err(anyhow::Error::from))
    };
    let mut rows = pin!(rows.try_flatten_stream());
    let mut left = false;
    let result = loop {
        match ctx.run(rows.try_next()).await {
            Ok(Ok(Some(row))) => each(row),
            Ok(Ok(None)) => break Ok(()),
            // The server's clock was a moment quicker.
            Ok(Err(error)) if was_cancelled(&error) => {
                break Err(ctx.err().map_or(error, anyhow::Error::from));
            }
            Ok(Err(error)) => break Err(error),
            Err(why) => {
                left = true;
                break Err(why.into());
            }
        }
    };

    // This must be done although `ctx` is done, but not forever.
    let clean_up = async {
        while left {
            cancel(session).await?;
            // Until an error or, if the cancel request was late, the last row. The server sees the
            // request only after the rows in flight have been read, and never if the request
            // arrives before the query.
            let to_the_end = async { while let Some(Ok(_row)) = rows.next().await {} };
            left = timeout(AGAIN, to_the_end).await.is_err();
        }
        let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
        client.batch_execute(end).await?;
        Ok::<_, anyhow::Error>(())
    };
    let ctx = ctx.without_cancel().with_timeout(CLEAN_UP);
    ctx.run(clean_up).await??;
    session.idle = true;
    result
}

fn was_cancelled(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<tokio_postgres::Error>();
    error.and_then(|error| error.code()) == Some(&SqlState::QUERY_CANCELED)
}

/// The server's own clock is the belt, should this process not live to cancel.
fn begin(ctx: &Context) -> String {
    match ctx.remaining() {
        None => "BEGIN".to_owned(),
        Some(left) => {
            // Zero would be for ever.
            let ms = left.as_millis().clamp(1, i32::MAX as u128 - 1) + 1;
            format!("BEGIN; SET LOCAL statement_timeout = {ms}")
        }
    }
}

/// Stops whatever the session's process in the server does, and nothing that comes after it.
///
/// `CancelToken::cancel_query` would return when the request has been *sent*, and it could hit the
/// next query. The server closes this stream when it has passed the request on.
async fn cancel(session: &Session) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(session.server).await?;
    let token = session.client.cancel_token();
    token.cancel_query_raw(&mut stream, NoTls).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Over the server's own tables, so that nothing need be made there.
const QUERIES: [(&str, &str); 3] = [
    (
        "rows",
        "SELECT a.attname::text, repeat(b.attname || c.attname, 50)
         FROM pg_attribute a, pg_attribute b, pg_attribute c",
    ),
    (
        "count",
        "SELECT count(*)
         FROM pg_attribute a, pg_attribute b, pg_attribute c
         WHERE a.attnum * b.attnum > c.attnum",
    ),
    (
        "max",
        "SELECT max(md5(a.attname || b.attname || c.attname))
         FROM pg_attribute a, pg_attribute b, pg_attribute c",
    ),
];

pub(crate) struct Postgres {
    /// A session for each query.
    pool: Pool,
    /// The session that looks.
    watcher: Session,
    /// What a connection of ours is called in the server.
    name: String,
    config: Config,
    connections: Group<anyhow::Error>,
    naive: bool,
}

type Pool = Arc<Mutex<Vec<Session>>>;

impl Postgres {
    pub(crate) async fn connect(url: &str, naive: bool) -> anyhow::Result<Postgres> {
        let name = format!("query_databases {}", process::id());
        let mut config: Config = url.parse().context("the URL")?;
        config.application_name(&name);
        // The server cannot be interrupted while it compiles a query, which takes it some tenths of
        // a second.
        let options = config.get_options().unwrap_or_default();
        let options = format!("{options} -c jit=off");
        config.options(options);
        let server = server(&config).await?;
        let connections = Group::new();
        let pool = Pool::default();
        for _query in QUERIES {
            give_back(&pool, session(&connections, &config, server).await?);
        }
        Ok(Postgres {
            pool,
            watcher: session(&connections, &config, server).await?,
            name,
            config,
            connections,
            naive,
        })
    }

    /// Stops queries about when they end, and starts another one at once, which a late cancel would
    /// stop. Returns how many were stopped.
    pub(crate) async fn stop_late(&self, rounds: u32) -> anyhow::Result<u32> {
        let mut session = take(&self.pool)?;
        let mut stopped = 0;
        for round in 0..rounds {
            let sql = format!("SELECT pg_sleep({} / 1e6)", round * 137 % 4_000);
            stopped += u32::from(stop(&mut session, &sql, 2).await.context(sql)?);
        }
        give_back(&self.pool, session);
        Ok(stopped)
    }

    /// Stops queries that have not reached the server yet, because the line is slow: the cancel
    /// request arrives first. Returns how many were stopped.
    pub(crate) async fn stop_early(&self) -> anyhow::Result<u32> {
        let line = slow_line(&self.connections, self.watcher.server).await?;
        let mut session = session(&self.connections, &self.config, line).await?;
        // The cancels do not take the slow line.
        session.server = self.watcher.server;
        let mut stopped = 0;
        for ms in (10..).step_by(10).take(12) {
            stopped += u32::from(stop(&mut session, "SELECT pg_sleep(600)", ms).await?);
        }
        Ok(stopped)
    }

    pub(crate) async fn close(self) -> anyhow::Result<()> {
        if self.naive {
            // The queries that were left have to be stopped. Their connections would report that as
            // an error.
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE application_name = $1 AND pid <> pg_backend_pid()";
            self.watcher.client.execute(sql, &[&self.name]).await?;
            return Ok(());
        }
        drop((self.pool, self.watcher));
        self.connections.wait().await
    }
}

/// The address of the server, for each connection and each cancel request. Its name may have
/// several.
async fn server(config: &Config) -> anyhow::Result<SocketAddr> {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let Some(Host::Tcp(host)) = config.get_hosts().first() else {
        bail!("the URL names no host");
    };
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .with_context(|| format!("cannot connect to {host}:{port}"))?;
    Ok(stream.peer_addr()?)
}

/// Opens a connection; a task of `connections` moves what it carries, until the client is dropped.
async fn session(
    connections: &Group<anyhow::Error>,
    config: &Config,
    server: SocketAddr,
) -> anyhow::Result<Session> {
    let stream = TcpStream::connect(server).await?;
    let (client, connection) = config.connect_raw(stream, NoTls).await?;
    connections.go(async move { Ok(connection.await?) });
    Ok(Session {
        client,
        server,
        idle: true,
    })
}

/// Runs a query whose client disconnects after this many milliseconds, and the next one at once.
/// Returns whether the first was stopped.
async fn stop(session: &mut Session, sql: &str, ms: u64) -> anyhow::Result<bool> {
    let (ctx, client) = Context::background().with_cancel();
    let leave = async {
        sleep(Duration::from_millis(ms)).await;
        drop(client);
    };
    let (result, ()) = tokio::join!(query(&ctx, session, sql, drop), leave);
    let stopped = session.idle && matches!(&result, Err(error) if error.is::<ContextError>());
    if !stopped {
        result?;
    }
    query(&Context::background(), session, "SELECT 1", drop)
        .await
        .context("the next query")?;
    Ok(stopped)
}

/// Where one connection to the server can be made on which what goes there takes 30 ms.
async fn slow_line(
    connections: &Group<anyhow::Error>,
    server: SocketAddr,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    connections.go(async move {
        let (mut near, _) = listener.accept().await?;
        let mut far = TcpStream::connect(server).await?;
        let ((mut from_near, mut to_near), (mut from_far, mut to_far)) =
            (near.split(), far.split());
        let there = async {
            let mut buffer = [0; 4096];
            loop {
                let count = from_near.read(&mut buffer).await?;
                if count == 0 {
                    return to_far.shutdown().await;
                }
                sleep(Duration::from_millis(30)).await;
                to_far.write_all(&buffer[..count]).await?;
            }
        };
        tokio::try_join!(there, io::copy(&mut from_far, &mut to_near))?;
        Ok(())
    });
    Ok(address)
}

impl Database for Postgres {
    const NAME: &str = "PostgreSQL";

    fn start(
        &self,
        g: &Group<anyhow::Error>,
        seen: &Arc<AtomicU64>,
    ) -> Vec<oneshot::Receiver<Report>> {
        QUERIES
            .map(|(name, sql)| {
                let (report, reported) = oneshot::channel();
                let (pool, seen) = (Arc::clone(&self.pool), Arc::clone(seen));
                let naive = self.naive;
                g.named(name).go_with(move |ctx| async move {
                    let mut session = take(&pool)?;
                    let mut rows = 0;
                    let each = |_row| {
                        rows += 1;
                        seen.fetch_add(1, Ordering::Relaxed);
                    };
                    let result = if naive {
                        let background = Context::background();
                        let query = query(&background, &mut session, sql, each);
                        ctx.run(query).await.unwrap_or_else(|why| Err(why.into()))
                    } else {
                        query(&ctx, &mut session, sql, each).await
                    };
                    give_back(&pool, session);
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

    async fn running(&self) -> anyhow::Result<usize> {
        let sql = "SELECT count(*) FROM pg_stat_activity
            WHERE application_name = $1 AND state = 'active' AND pid <> pg_backend_pid()";
        let row = self.watcher.client.query_one(sql, &[&self.name]).await?;
        Ok(usize::try_from(row.get::<_, i64>(0))?)
    }

    async fn next_queries(&self) -> anyhow::Result<usize> {
        let mut answers = 0;
        let mut sessions = Vec::new();
        while let Ok(mut session) = take(&self.pool) {
            let ctx = Context::background();
            query(&ctx, &mut session, "SELECT 1", |_row| answers += 1).await?;
            sessions.push(session);
        }
        for session in sessions {
            give_back(&self.pool, session);
        }
        Ok(answers)
    }
}

fn take(pool: &Pool) -> anyhow::Result<Session> {
    let session = pool.lock().unwrap_or_else(PoisonError::into_inner).pop();
    session.context("no session is free")
}

/// One with a query that was left is closed instead.
fn give_back(pool: &Pool, session: Session) {
    if session.idle {
        pool.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(session);
    }
}
