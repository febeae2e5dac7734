//! Every end of a `fan_out_blocking` is dropped, cancelled or stopped after the first poll of its
//! caller, after the second, and so on up to the last.
//!
//! Calls run on threads of the blocking pool, so the moment differs from run to run. Whatever it
//! is: no call runs when the operation has returned, and items, iterator, function and values are
//! dropped in the end, on whatever path.

use std::future::poll_fn;
use std::task::Poll;

use errgroup::fan_out::Stop;
use errgroup::{Context, Outcomes, fan_out_blocking};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use tokio::runtime::{Builder, Runtime};

use crate::group_support::*;

const ITEMS: usize = 6;

#[derive(Debug, Clone, Copy)]
enum End {
    All,
    ForEach,
    Settle,
    TryStream,
    Stream,
    OrderedStream,
    IndexedStream,
    FirstOk,
    Quorum,
}

const ENDS: [End; 9] = [
    End::All,
    End::ForEach,
    End::Settle,
    End::TryStream,
    End::Stream,
    End::OrderedStream,
    End::IndexedStream,
    End::FirstOk,
    End::Quorum,
];

#[derive(Debug, Clone, Copy)]
enum Moment {
    Drop,
    Cancel,
    /// A stream is stopped after this many outcomes, and every other end is dropped.
    Stop,
}

/// Counts everything that must be dropped in the end, and the calls.
#[derive(Clone, Default)]
struct World {
    /// Items, the iterator, the function, and values.
    alive: Gauge,
    running: Gauge,
    begun: Count,
}

type Ended = LocalBoxFuture<'static, ()>;

/// Takes this many outcomes, and stops the stream.
async fn take<S: Stop>(mut outcomes: Outcomes<S>, most: usize) {
    for _ in 0..most {
        if outcomes.next().await.is_none() {
            break;
        }
    }
    outcomes.stop().await;
}

fn call(end: End, fails: bool, takes: usize, ctx: &Context, world: &World) -> Ended {
    let (in_iter, made) = (world.alive.enter(), world.alive.clone());
    let items = (0..ITEMS).map(move |item| {
        let _ = &in_iter;
        (item, made.enter())
    });
    let (in_f, calls) = (world.alive.enter(), world.clone());
    let f = move |ctx: Context, (item, in_item)| {
        let _ = &in_f;
        let _running = calls.running.enter();
        calls.begun.add();
        for _ in 0..20 * (item % 3) {
            if item == 4 {
                ctx.check()?;
            }
            std::thread::yield_now();
        }
        drop(in_item);
        if fails && item == 2 {
            return Err("item 2".to_owned());
        }
        Ok(calls.alive.enter())
    };
    let fan_out = fan_out_blocking(ctx, items, f).limit(2);
    match end {
        End::All => Box::pin(async { drop(fan_out.all().await) }),
        End::ForEach => Box::pin(async { drop(fan_out.for_each().await) }),
        End::Settle => Box::pin(async { drop(fan_out.settle().await) }),
        End::TryStream => Box::pin(take(fan_out.try_stream(), takes)),
        End::Stream => Box::pin(take(fan_out.stream(), takes)),
        End::OrderedStream => Box::pin(take(fan_out.ordered_stream(), takes)),
        End::IndexedStream => Box::pin(take(fan_out.indexed_stream(), takes)),
        End::FirstOk => Box::pin(async { drop(fan_out.first_ok().await) }),
        End::Quorum => Box::pin(async { drop(fan_out.quorum(2).await) }),
    }
}

/// Waits until the task is woken.
async fn until_woken() {
    let mut first = true;
    poll_fn(|_| match std::mem::take(&mut first) {
        true => Poll::Pending,
        false => Poll::Ready(()),
    })
    .await;
}

/// Runs the end once. Returns whether it has returned before the moment came.
async fn check(end: End, fails: bool, moment: Moment, polls: usize) -> bool {
    let case = format!("{end:?}, fails: {fails}, {moment:?} after {polls}");
    let (ctx, guard) = Context::background().with_cancel();
    let (mut guard, world) = (Some(guard), World::default());
    let takes = match moment {
        Moment::Stop => polls,
        Moment::Drop | Moment::Cancel => usize::MAX,
    };
    let mut call = call(end, fails, takes, &ctx, &world);
    let mut done = 0;
    let returned = loop {
        if done == polls {
            match moment {
                Moment::Drop => break false,
                Moment::Cancel => drop(guard.take()),
                Moment::Stop => {}
            }
        }
        done += 1;
        if futures::poll!(&mut call).is_ready() {
            break true;
        }
        until_woken().await;
    };
    if returned {
        assert_eq!(world.running.now(), 0, "{case}");
    }
    drop(call);
    if returned {
        assert_eq!(world.alive.now(), 0, "{case}");
        let begun = world.begun.get();
        yields(5).await;
        assert_eq!(world.begun.get(), begun, "{case}");
    }
    // What was on its way to the pool is dropped there.
    until(|| world.alive.now() == 0 && world.running.now() == 0).await;
    match moment {
        Moment::Drop => returned,
        Moment::Cancel => done <= polls,
        Moment::Stop => polls >= ITEMS,
    }
}

fn runtimes() -> [Runtime; 2] {
    let one = Builder::new_current_thread().enable_time().build();
    [one.unwrap(), two_workers()]
}

fn explore(moment: Moment) {
    for runtime in runtimes() {
        for end in ENDS {
            for fails in [false, true] {
                let mut polls = 0;
                while !runtime.block_on(in_time(check(end, fails, moment, polls))) {
                    polls += 1;
                }
                assert!(polls > 0);
            }
        }
    }
}

#[test]
fn each_end_is_dropped_after_each_poll() {
    explore(Moment::Drop);
}

#[test]
fn each_end_is_cancelled_after_each_poll() {
    explore(Moment::Cancel);
}

#[test]
fn each_stream_is_stopped_after_each_outcome() {
    explore(Moment::Stop);
}
