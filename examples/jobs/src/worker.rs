//! A worker: one fan-out over the messages of the stream, from the start of the process to its end.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, Message};
use errgroup::{Context, Drain, Group, fan_out_stream};
use futures_util::{Stream, StreamExt, stream};

use crate::item::Items;
use crate::job::{self, CANCELS, JobCancelled};

/// How many items run at once.
const LIMIT: usize = 8;
/// How long a worker may take to end after SIGTERM. A cluster kills it a little later.
const BUDGET: Duration = Duration::from_secs(3);
/// For this part of the budget, items may finish. Then they are cancelled.
const FINISH: Duration = Duration::from_secs(1);
/// How long an item may take to end when it is cancelled, and to give its message back.
const GRACE: Duration = Duration::from_secs(1);
/// The server forgets a request for a message after this time, and the worker sends another.
const EXPIRES: Duration = Duration::from_secs(10);
/// After SIGTERM, a request that was sent before may still be answered with a message. A worker
/// that does not wait for it leaves that message to its `ack_wait`.
const ANSWER: Duration = Duration::from_millis(200);

/// Works until SIGTERM or a cancel. Returns when nothing runs any more and the server has all
/// answers.
pub(crate) async fn run(server: &str) -> Result<()> {
    let signal = Context::background().with_shutdown_signals()?;
    let js = jetstream::new(async_nats::connect(server).await?);
    let consumer = job::consumer(&js).await?;
    // The server sees it before the requests for messages that follow.
    let mut cancels = js.client().subscribe(CANCELS).await?;

    // Not below the context of the signal: after SIGTERM, items may finish.
    let (job, guard) = Context::background().with_cancel();
    let (g, ctx) = Group::<anyhow::Error>::with_context(&job);
    let cancel = guard.handle();
    let observe = async move |ctx: Context| {
        if let Ok(message) = ctx.run(cancels.next()).await {
            let message = message.context("the subscription to cancels has ended")?;
            let reason = String::from_utf8_lossy(&message.payload).into_owned();
            cancel.cancel_with(JobCancelled(reason));
        }
        Ok(())
    };
    g.named("cancels").background().go_with(observe);

    let items = Items {
        ack_wait: consumer.cached_info().config.ack_wait,
        tasks: g.spawner(),
        js: js.clone(),
    };
    let stop = signal.merge(&ctx);
    let messages = messages(stop.clone(), consumer);
    let fan_out = fan_out_stream(&ctx, messages, move |ctx, message| {
        items.clone().run(ctx, message)
    });
    g.named("fan-out")
        .go(fan_out.limit(LIMIT).grace(GRACE).for_each());

    stop.done().await;
    // The report counts the fan-out, its items, and the task that observes cancels.
    let drain = Drain::within(BUDGET).phase("worker", g).finish_for(FINISH);
    let report = drain.run().await;
    if let Some(cause) = job.cause() {
        println!("context cancelled: {cause}");
    }
    // A round trip: now the server has all that was sent before, which was in a buffer.
    job::consumer(&js).await?;
    println!("drained: {report}");
    let has_failed = report.phases().iter().any(|it| !it.errors().is_empty());
    ensure!(!has_failed, "the worker has failed");
    Ok(())
}

/// The messages, until `stop` is done. One is requested when there is a permit for it, so none
/// waits in a buffer while its `ack_wait` runs.
fn messages(stop: Context, consumer: PullConsumer) -> impl Stream<Item = Result<Message>> + Send {
    stream::unfold((stop, consumer), |(stop, consumer)| async move {
        stop.check().ok()?;
        let too_late = async {
            stop.done().await;
            tokio::time::sleep(ANSWER).await;
        };
        let message = tokio::select! {
            message = next(&consumer) => message,
            () = too_late => return None,
        };
        Some((message, (stop, consumer)))
    })
}

async fn next(consumer: &PullConsumer) -> Result<Message> {
    loop {
        let request = consumer.batch().max_messages(1).expires(EXPIRES);
        if let Some(message) = request.messages().await?.next().await {
            return message.map_err(anyhow::Error::from_boxed);
        }
    }
}
