//! A worker: one fan-out over the messages of the stream, from the start of the process to its end.

use std::num::NonZeroUsize;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, Message};
use errgroup::{Context, Drain, Group, fan_out_stream};
use futures_util::{Stream, StreamExt, stream};

use crate::cancel::{self, JobCancelled};
use crate::item::Items;
use crate::streams;

/// How long a worker may take to end after SIGTERM. A cluster kills it a little later.
const BUDGET: Duration = Duration::from_secs(3);
/// For this part of the budget, items may finish. Then they are cancelled.
const FINISH: Duration = Duration::from_secs(1);
/// How long an item may take to end when it is cancelled, and to give its message back.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// The server forgets a request for a message after this time, and the worker sends another.
const EXPIRES: Duration = Duration::from_secs(10);

/// How a worker is run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The address of the server
    #[arg(long)]
    server: String,
    /// How many items run at once
    #[arg(long, default_value = "8")]
    at_once: NonZeroUsize,
}

/// Works until SIGTERM or a cancel. Returns when nothing runs any more and the server has all
/// answers.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let signal = Context::background().with_shutdown_signals()?;
    let js = jetstream::new(async_nats::connect(&options.server).await?);
    let consumer = streams::consumer(&js).await?;

    // Not below the context of the signal: after SIGTERM, items may finish.
    let (job, guard) = Context::background().with_cancel();
    let (g, ctx) = Group::<anyhow::Error>::with_context(&job);
    let (cancels, handle) = (cancel::subscribe(&js).await?, guard.handle());
    g.named("cancels")
        .background()
        .go_with(|ctx| cancel::observe(ctx, cancels, handle));

    let stop = signal.merge(&ctx);
    let items = Items::new(
        js.clone(),
        consumer.cached_info().config.ack_wait,
        g.spawner(),
    );
    let fan_out = fan_out_stream(
        &ctx,
        messages(stop.clone(), consumer),
        move |ctx, message| items.clone().run(ctx, message),
    );
    let fan_out = fan_out.limit(options.at_once.get()).grace(GRACE);
    g.named("fan-out").go(fan_out.for_each());

    stop.done().await;
    // The report counts the fan-out, its items, and the task that observes cancels.
    let drain = Drain::within(BUDGET).phase("worker", g).finish_for(FINISH);
    let report = drain.run().await;
    if let Some(cause) = job.cause() {
        let cancelled = cause.downcast_ref::<JobCancelled>();
        let took = cancelled.map(JobCancelled::age).unwrap_or_default();
        let millis = took.as_secs_f64() * 1e3;
        println!("context cancelled: {cause}; the last task ended after {millis:.1} ms");
    }
    // A round trip: now the server has all that was sent before, which was in a buffer.
    streams::consumer(&js).await?;
    println!("drained: {report}");
    let has_failed = report.phases().iter().any(|it| !it.errors().is_empty());
    anyhow::ensure!(!has_failed, "the worker has failed");
    Ok(())
}

/// The messages, until `stop` is done. One is requested when there is a permit for it, so none
/// waits in a buffer while its `ack_wait` runs. If one arrives at the very end, it is not taken,
/// and the server delivers it again.
fn messages(
    stop: Context,
    consumer: PullConsumer,
) -> impl Stream<Item = anyhow::Result<Message>> + Send {
    stream::unfold((stop, consumer), |(stop, consumer)| async move {
        let message = stop.run(next(&consumer)).await.ok()?;
        Some((message, (stop, consumer)))
    })
}

async fn next(consumer: &PullConsumer) -> anyhow::Result<Message> {
    loop {
        let request = consumer.batch().max_messages(1).expires(EXPIRES);
        if let Some(message) = request.messages().await?.next().await {
            return message.map_err(anyhow::Error::from_boxed);
        }
    }
}
