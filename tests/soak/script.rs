//! What bodies do.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, panic_any, resume_unwind};
use std::sync::Arc;

use errgroup::{Context, Spawner};
use futures::FutureExt;
use futures::future::{Either, select};

use crate::body::Inner;
use crate::plan::{Act, End, Pause, Script};
use crate::world::{Boom, Fault, Guard, Token, World};
use crate::{fan_out, group, starting};

pub(crate) type Payload = Box<dyn Any + Send>;

/// Where a body is: its context, its group if it is in one, and whose it is.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) ctx: Context,
    pub(crate) spawner: Option<Spawner<Fault>>,
    pub(crate) world: Arc<World>,
    pub(crate) single: bool,
}

pub(crate) fn perform(script: Script, stage: Stage) -> Inner {
    Box::pin(async move {
        pause(script.before).await;
        for act in script.acts {
            match act {
                Act::Task(task) => {
                    if let Some(spawner) = &stage.spawner {
                        let starter = starting::Starter::Spawner(spawner);
                        // A context of the body's own may outlive that of the group.
                        let stage = Stage {
                            ctx: spawner.context(),
                            ..stage.clone()
                        };
                        let started = starting::start(starter, task, &stage, false);
                        started.resolve(&stage).await;
                    }
                }
                Act::FanOut(plan) => hand_on(fan_out::run(plan, &stage.ctx, stage.single).await),
                Act::Group(plan) => hand_on(group::run(plan, &stage.ctx, stage.single).await),
            }
        }
        pause(script.after).await;
        match script.end {
            End::Ok => Ok(()),
            End::Fail => Err(()),
            End::Panic => injected(),
            End::UntilAsked => {
                stage.ctx.done().await;
                Err(())
            }
            End::Never => std::future::pending().await,
        }
    })
}

/// The same, of what runs on a thread of its own.
pub(crate) fn block(script: &Script, mut guard: Guard, ctx: &Context) -> Result<(), Fault> {
    guard.polled_on_the_pool();
    if let Pause::Sleep(time) = script.before {
        std::thread::sleep(time);
    }
    let watched = ctx.after_func(|| {});
    let failed = match script.end {
        End::Ok | End::Never => false,
        End::Fail => true,
        End::Panic => {
            // A function that is left behind waits for the end of the context.
            watched.stop();
            guard.panic()
        }
        End::UntilAsked => {
            while !ctx.is_done() {
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
            true
        }
    };
    watched.stop();
    if failed {
        guard.end(crate::record::Fate::Failed);
        return Err(Fault::Own(guard.id()));
    }
    guard.end(crate::record::Fate::Ok);
    Ok(())
}

/// The same, with a value.
pub(crate) fn block_for(script: &Script, guard: Guard, ctx: &Context) -> Result<Token, Fault> {
    let token = guard.token();
    block(script, guard, ctx).map(|()| token)
}

/// The panic of a body, which puts its own name on it.
pub(crate) fn injected() -> ! {
    panic_any(Boom {
        world: usize::MAX,
        id: 0,
    })
}

pub(crate) async fn pause(pause: Pause) {
    match pause {
        Pause::None => {}
        Pause::Yields(times) => {
            for _ in 0..times {
                tokio::task::yield_now().await;
            }
        }
        Pause::Sleep(time) => tokio::time::sleep(time).await,
        Pause::Spins(times) => {
            for _ in 0..times {
                std::hint::spin_loop();
            }
        }
    }
}

/// What a call ends with: its panic is one way.
pub(crate) async fn outcome<F: Future>(call: F) -> std::thread::Result<F::Output> {
    AssertUnwindSafe(call).catch_unwind().await
}

/// The outcome of a call, unless it is dropped before.
pub(crate) async fn unless_dropped<F: Future>(
    call: F,
    dropped: Option<Pause>,
) -> Option<std::thread::Result<F::Output>> {
    let call = Box::pin(outcome(call));
    match dropped {
        None => Some(call.await),
        Some(when) => match select(call, Box::pin(pause(when))).await {
            Either::Left((outcome, _)) => Some(outcome),
            Either::Right(((), call)) => {
                drop(call);
                None
            }
        },
    }
}

/// Resumes the panic of a call in its caller.
fn hand_on(panic: Option<Payload>) {
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}
