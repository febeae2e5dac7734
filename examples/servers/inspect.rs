//! A service that shows its live tasks: as text, as JSON, and as a page. A second page is a
//! timeline of the tasks that have run.
//!
//! ```sh
//! cargo run -p servers --features inspect --example inspect -- --debug-pages
//! curl http://127.0.0.1:8000/debug/tasks        # the tree
//! curl http://127.0.0.1:8000/debug/tasks.json
//! xdg-open http://127.0.0.1:8000/debug/tasks.html
//! xdg-open http://127.0.0.1:8000/debug/timeline.html
//! curl http://127.0.0.1:8000/debug/timeline.json > trace.json   # for https://ui.perfetto.dev
//! kill -USR1 <process id>                       # prints the tree
//! ```
//!
//! Each `GET /work` asks three backends. A group of jobs has one task that does not listen to its
//! cancellation: `POST /stop` cancels the group, and then that task is the straggler in the tree.
//!
//! The pages are off unless they are asked for, and the server listens on loopback only: they show
//! the names of tasks, the causes of failures and paths of source files.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::extract::State;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use errgroup::inspect::{Snapshot, record, snapshot, waiting};
use errgroup::tower::ContextLayer;
use errgroup::{Context, Group, Spawner, fetch_all};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

#[derive(Parser)]
struct Arguments {
    /// The port on loopback; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Serve the pages below /debug
    #[arg(long)]
    debug_pages: bool,
}

type Jobs = Spawner<anyhow::Error>;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let ctx = Context::background().with_shutdown_signals()?;
    let (jobs, jobs_ctx) = Group::<anyhow::Error>::with_context(Context::background());
    jobs.set_name("jobs");
    jobs.set_limit(2);
    jobs.named("deaf").go(waiting("a printer", sleep_deaf()));
    for number in 1..=3 {
        let ctx = jobs_ctx.clone();
        jobs.named(format!("job {number}"))
            .go(async move { Ok(ctx.sleep(Duration::from_secs(600)).await?) });
    }

    let mut app = Router::new()
        .route("/work", get(work))
        .route("/stop", post(stop))
        .with_state(jobs.spawner());
    if arguments.debug_pages {
        // Of each thread, the last 10,000 events.
        let recorder = Arc::new(record(10_000));
        let trace = recorder.clone();
        app = app
            .route(
                "/debug/timeline.html",
                get(async move || Html(recorder.to_html())),
            )
            .route(
                "/debug/timeline.json",
                get(async move || trace.to_chrome_json()),
            )
            .route("/debug/tasks", get(async || snapshot().to_string()))
            .route(
                "/debug/tasks.json",
                get(async || -> Json<Snapshot> { Json(snapshot()) }),
            )
            .route(
                "/debug/tasks.html",
                get(async || Html(snapshot().to_html())),
            );
    }
    let app = app.layer(ContextLayer::new(&ctx).max_timeout(Duration::from_secs(30)));

    let (printer, _) = Group::<io::Error>::with_context(&ctx);
    printer.set_name("signals");
    printer.task().background().go_with(print_on_signal);

    let listener = TcpListener::bind(("127.0.0.1", arguments.port)).await?;
    writeln!(
        io::stdout(),
        "listening on {}, process {}",
        listener.local_addr()?,
        std::process::id()
    )?;
    axum::serve(listener, app)
        .with_graceful_shutdown(async move { _ = ctx.done().await })
        .await?;
    jobs.cancel_with("the server stops");
    let report = jobs.drain(Duration::from_secs(1)).await;
    writeln!(io::stdout(), "{report}")?;
    printer.wait().await?;
    Ok(())
}

/// Answers with what three backends say.
async fn work(ctx: Context) -> Result<String, String> {
    let answers = fetch_all(&ctx, 3, ["users", "orders", "prices"], async |_, name| {
        waiting(name, sleep(Duration::from_secs(2))).await;
        Ok::<_, errgroup::ContextError>(format!("{name}: fine\n"))
    });
    Ok(answers.await.map_err(|error| error.to_string())?.concat())
}

/// Cancels the jobs.
async fn stop(State(jobs): State<Jobs>) -> &'static str {
    jobs.cancel_with("POST /stop");
    "cancelled\n"
}

/// The task that hangs a shutdown: it does not look at its context.
async fn sleep_deaf() -> Result<()> {
    sleep(Duration::from_secs(3_600)).await;
    Ok(())
}

/// Prints the tree at each SIGUSR1.
async fn print_on_signal(ctx: Context) -> io::Result<()> {
    let mut signals = signal(SignalKind::user_defined1())?;
    while let Ok(Some(())) = ctx.run(signals.recv()).await {
        write!(io::stderr(), "{}", snapshot())?;
    }
    Ok(())
}
