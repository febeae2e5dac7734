//! How tasks are started, in all ways that there are, and how what starting them gives is awaited.

use std::future::Future;
use std::pin::Pin;

use errgroup::{Admission, Group, Spawner, TaskBuilder, TaskHandle, Tracked};
use futures::future::{Either, select};

use crate::body::{Body, Valued};
use crate::handles;
use crate::permits::{self, PermitUse, Reservation};
use crate::plan::{Awaits, Pause, Script, Stop, TaskPlan, Way};
use crate::policy::{GiveBack, Policy};
use crate::random::Random;
use crate::record::{Marks, Told};
use crate::script::{Stage, block, block_for, pause, perform};
use crate::watch::{check, tally};
use crate::world::{Fault, Guard, Id, Token};

impl Random {
    pub(crate) fn way(&mut self) -> Way {
        match self.below(16) {
            0 | 1 => Way::Go,
            2 => Way::GoWith,
            3 => Way::GoCancellable,
            4 => Way::TryGo,
            5 => Way::Blocking,
            6 => Way::Local,
            7 | 8 => Way::Spawn,
            9 | 10 => Way::SpawnWith,
            11 => Way::SpawnBlocking,
            12 => Way::Start,
            13 => Way::Track,
            _ => Way::Reserve(
                self.pause(),
                [
                    PermitUse::Dropped,
                    PermitUse::Go,
                    PermitUse::GoWith,
                    PermitUse::GoCancellable,
                    PermitUse::Blocking,
                    PermitUse::Spawn,
                    PermitUse::SpawnWith,
                    PermitUse::SpawnBlocking,
                ][self.below(8)],
            ),
        }
    }
}

/// The object on which tasks are started.
pub(crate) enum Starter<'a> {
    Group(&'a Group<Fault>),
    Spawner(&'a Spawner<Fault>),
    TaskBuilder(TaskBuilder<Fault>),
}

/// What starting a task gives.
pub(crate) struct Started {
    id: Id,
    awaits: Awaits,
    stops: Option<(Pause, Stop)>,
    what: What,
}

enum What {
    Nothing,
    Admission(Admission),
    Handle(TaskHandle<Token>),
    Start(Pin<Box<dyn Future<Output = Result<Token, Fault>> + Send>>),
    Tracked(Pin<Box<Tracked<Body>>>),
    Reserve(Reservation, TaskPlan),
}

/// A body, and what its destructor does.
#[derive(Clone, Copy)]
pub(crate) struct Makes {
    gives_back: bool,
}

impl Makes {
    pub(crate) fn new(gives_back: bool) -> Makes {
        Makes { gives_back }
    }

    pub(crate) fn body(self, guard: Guard, script: Script, stage: Stage) -> Body {
        let gives_back = self.gives_back.then(|| GiveBack::new(&stage));
        Body::new(guard, perform(script, stage)).giving_back(gives_back)
    }
}

/// Starts a task in its way; as a local one only where that can be.
pub(crate) fn start(on: Starter<'_>, task: TaskPlan, stage: &Stage, local: bool) -> Started {
    tally().tasks.add(1);
    let TaskPlan {
        way,
        named,
        policy,
        awaits,
        stops,
        gives_back,
        ref script,
        ..
    } = task;
    if let Way::Reserve(..) = way {
        return Started {
            id: usize::MAX,
            awaits,
            stops,
            what: What::Reserve(permits::reserve(&on), task),
        };
    }
    let on = with_options(on, named, policy);
    let mut guard = stage.world.make(script.trap);
    let (id, stage) = (guard.id(), stage.clone());
    let tracked = way == Way::Track;
    stage.world.mark(
        id,
        Marks {
            tracked,
            ..policy.marks()
        },
    );
    if script.acts.is_empty() && policy.takes_permit() && !tracked {
        guard = guard.with_permit();
    }
    let (script, makes) = (task.script, Makes::new(gives_back));
    let body = move |guard, script, stage| makes.body(guard, script, stage);
    macro_rules! start {
        ($on:expr) => {
            match way {
                Way::Local if local => {
                    tally().local.add(1);
                    What::Admission($on.go_local(body(guard, script, stage)))
                }
                Way::Go | Way::Local => What::Admission($on.go(body(guard, script, stage))),
                Way::GoWith => What::Admission(
                    $on.go_with(move |ctx| body(guard, script, Stage { ctx, ..stage })),
                ),
                Way::GoCancellable => {
                    What::Admission($on.go_cancellable(body(guard, script, stage)))
                }
                Way::TryGo => {
                    if let Err(refused) = $on.try_go(body(guard, script, stage)) {
                        refused.into_inner().handed_back();
                    }
                    What::Nothing
                }
                Way::Blocking => {
                    tally().blocking.add(1);
                    let guard = guard.for_the_pool();
                    What::Admission($on.go_blocking(move |ctx| block(&script, guard, &ctx)))
                }
                Way::Spawn => What::Handle($on.spawn(Valued(body(guard, script, stage)))),
                Way::SpawnWith => What::Handle(
                    $on.spawn_with(move |ctx| Valued(body(guard, script, Stage { ctx, ..stage }))),
                ),
                Way::SpawnBlocking => {
                    tally().blocking.add(1);
                    let guard = guard.for_the_pool();
                    What::Handle($on.spawn_blocking(move |ctx| block_for(&script, guard, &ctx)))
                }
                Way::Track => {
                    tally().tracked.add(1);
                    What::Tracked(Box::pin($on.track(body(guard, script, stage))))
                }
                Way::Reserve(..) => unreachable!("it was reserved"),
                Way::Start => {
                    // Until the call has returned, it may be dropped, and with it the failure.
                    stage.world.tell(id, Told::Perhaps);
                    What::Start(Box::pin($on.start(move |ctx, ready| {
                        let stage = Stage { ctx, ..stage };
                        let token = guard.token();
                        let inner = perform(script, stage);
                        let inner = Box::pin(async move {
                            pause(Pause::Yields(id % 3)).await;
                            if id % 4 > 0 {
                                ready.ok(token);
                            }
                            inner.await
                        });
                        Body::new(guard, inner)
                    })))
                }
            }
        };
    }
    let what = match on {
        Starter::Group(g) => start!(g),
        Starter::Spawner(spawner) => start!(spawner),
        Starter::TaskBuilder(named) => start!(named),
    };
    Started {
        id,
        awaits,
        stops,
        what,
    }
}

fn with_options(on: Starter<'_>, named: bool, policy: Policy) -> Starter<'_> {
    if !named && policy == Policy::default() {
        return on;
    }
    let builder = match on {
        Starter::Group(g) if named => g.named("named"),
        Starter::Spawner(spawner) if named => spawner.named("named"),
        Starter::Group(g) => g.task(),
        Starter::Spawner(spawner) => spawner.task(),
        Starter::TaskBuilder(builder) => builder,
    };
    Starter::TaskBuilder(policy.apply(builder))
}

impl Started {
    /// Awaits what is to be awaited. Hands back a handle that was not.
    pub(crate) async fn resolve(self, stage: &Stage) -> Option<(TaskHandle<Token>, Id)> {
        let Started {
            id,
            awaits,
            stops,
            what,
        } = self;
        match what {
            What::Nothing => None,
            What::Admission(admission) => {
                let _ = awaited(admission, awaits).await;
                None
            }
            What::Handle(handle) => handles::settle(handle, id, stops, awaits, stage).await,
            What::Start(call) => {
                match awaited(call, awaits).await {
                    None => {}
                    Some(Ok(value)) => {
                        check(value.id == id, format_args!("start gave another's value"));
                        stage.world.tell(id, Told::No);
                    }
                    Some(Err(error)) => {
                        if let Fault::Own(other) = error {
                            check(other == id, format_args!("start gave another's error"));
                        }
                        stage.world.tell(id, Told::Caller);
                    }
                }
                None
            }
            What::Tracked(tracked) => {
                if awaits == Awaits::Nothing {
                    tokio::spawn(tracked);
                } else {
                    awaited(tracked, awaits).await;
                }
                None
            }
            What::Reserve(reservation, task) => {
                let permit = awaited(reservation, awaits).await?.ok()?;
                let started = permits::start(permit, task, stage).await?;
                let (id, handle, task) = started;
                handles::settle(handle, id, task.0, task.1, stage).await
            }
        }
    }
}

pub(crate) async fn awaited<F: Future + Unpin>(future: F, awaits: Awaits) -> Option<F::Output> {
    match awaits {
        Awaits::Nothing => None,
        Awaits::ToTheEnd => Some(future.await),
        Awaits::Abandons(when) => match select(future, Box::pin(pause(when))).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        },
    }
}
