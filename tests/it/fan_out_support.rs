//! Shared by the modules about fan-outs: a test is written once, and runs on tasks of the runtime
//! and on the caller's own task, or for each terminal operation.

use std::future::Future;
use std::pin::Pin;

use errgroup::fan_out::Items;
use errgroup::{Context, FanOut, Progress};
use futures::{FutureExt, Stream, StreamExt};

pub(crate) fn background() -> Context {
    Context::background()
}

type Iter<T> = Box<dyn Iterator<Item = T> + Send>;
type Made<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;
type Makes<I, T, E> = Box<dyn FnMut(Context, I) -> Made<T, E> + Send>;

type Boxed<I, T, E> = FanOut<Items<Iter<I>>, Makes<I, T, E>>;

/// Calls `errgroup::fan_out` with boxes, so that it is compiled once, and not for each test and
/// end.
#[track_caller]
pub(crate) fn fan_out<I, F, Fut, T, E>(ctx: &Context, items: I, mut f: F) -> Boxed<I::Item, T, E>
where
    I: IntoIterator<IntoIter: Send + 'static>,
    F: FnMut(Context, I::Item) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
{
    let items: Iter<I::Item> = Box::new(items.into_iter());
    let makes: Makes<I::Item, T, E> = Box::new(move |ctx, item| Box::pin(f(ctx, item)));
    errgroup::fan_out(ctx, items, makes)
}

/// Runs the body twice: `at!(fan_out)` is first the fan-out itself, which runs on tasks of the
/// runtime, and then `fan_out.local()`, which runs on the caller's own task.
///
/// It is a macro and not a loop like `each_end`, because the two are different types.
macro_rules! in_each_place {
    (|$at:ident| $body:block) => {{
        {
            eprintln!("on tasks of the runtime");
            macro_rules! $at {
                ($fan_out:expr) => {
                    $fan_out
                };
            }
            $body
        }
        {
            eprintln!("on the caller's own task");
            macro_rules! $at {
                ($fan_out:expr) => {
                    $fan_out.local()
                };
            }
            $body
        }
    }};
}

/// Where a fan-out runs: on tasks of the runtime, or on the caller's own task.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Runtime,
    Local,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    All,
    ForEach,
    Settle,
    TryStream,
    Stream,
    OrderedStream,
    FirstOk,
    Quorum,
}

/// A terminal operation of a fan-out, with the place where the items run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End(pub(crate) Place, pub(crate) Kind);

/// Each terminal operation in each place. Prints the next one, so that a failure shows where it
/// was.
pub(crate) fn each_end() -> impl Iterator<Item = End> {
    ends(&[
        Kind::All,
        Kind::ForEach,
        Kind::Settle,
        Kind::TryStream,
        Kind::Stream,
        Kind::OrderedStream,
        Kind::FirstOk,
        Kind::Quorum,
    ])
}

/// Each terminal operation that returns a stream, in each place. Prints the next one.
pub(crate) fn each_stream() -> impl Iterator<Item = End> {
    ends(&[Kind::TryStream, Kind::Stream, Kind::OrderedStream])
}

fn ends(kinds: &'static [Kind]) -> impl Iterator<Item = End> {
    [Place::Runtime, Place::Local]
        .into_iter()
        .flat_map(|place| kinds.iter().map(move |kind| End(place, *kind)))
        .inspect(|end| eprintln!("{end:?}"))
}

impl End {
    /// A future that resolves when the fan-out has ended in this way. It discards the outcome.
    pub(crate) fn of<S, F, Fut, T, P>(
        self,
        fan_out: FanOut<S, F, P>,
    ) -> Pin<Box<dyn Future<Output = ()>>>
    where
        S: Stream + Send + 'static,
        F: FnMut(Context, S::Item) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, String>> + Send + 'static,
        T: Send + 'static,
        P: FnMut(Progress) + Send + 'static,
    {
        match self {
            End(_, Kind::TryStream | Kind::Stream | Kind::OrderedStream) => {
                Box::pin(self.stream(fan_out).collect::<Vec<_>>().map(drop))
            }
            End(Place::Runtime, Kind::All) => Box::pin(fan_out.all().map(drop)),
            End(Place::Runtime, Kind::ForEach) => Box::pin(fan_out.for_each().map(drop)),
            End(Place::Runtime, Kind::Settle) => Box::pin(fan_out.settle().map(drop)),
            End(Place::Runtime, Kind::FirstOk) => Box::pin(fan_out.first_ok().map(drop)),
            End(Place::Runtime, Kind::Quorum) => Box::pin(fan_out.quorum(2).map(drop)),
            End(Place::Local, Kind::All) => Box::pin(fan_out.local().all().map(drop)),
            End(Place::Local, Kind::ForEach) => Box::pin(fan_out.local().for_each().map(drop)),
            End(Place::Local, Kind::Settle) => Box::pin(fan_out.local().settle().map(drop)),
            End(Place::Local, Kind::FirstOk) => Box::pin(fan_out.local().first_ok().map(drop)),
            End(Place::Local, Kind::Quorum) => Box::pin(fan_out.local().quorum(2).map(drop)),
        }
    }

    /// The stream of this end, which must be one.
    pub(crate) fn stream<S, F, Fut, T, P>(
        self,
        fan_out: FanOut<S, F, P>,
    ) -> Pin<Box<dyn Stream<Item = Result<T, String>>>>
    where
        S: Stream + Send + 'static,
        F: FnMut(Context, S::Item) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, String>> + Send + 'static,
        T: Send + 'static,
        P: FnMut(Progress) + Send + 'static,
    {
        match self {
            End(Place::Runtime, Kind::TryStream) => Box::pin(fan_out.try_stream()),
            End(Place::Runtime, Kind::Stream) => Box::pin(fan_out.stream()),
            End(Place::Runtime, Kind::OrderedStream) => Box::pin(fan_out.ordered_stream()),
            End(Place::Local, Kind::TryStream) => Box::pin(fan_out.local().try_stream()),
            End(Place::Local, Kind::Stream) => Box::pin(fan_out.local().stream()),
            End(Place::Local, Kind::OrderedStream) => Box::pin(fan_out.local().ordered_stream()),
            _ => unreachable!("{self:?} is not a stream"),
        }
    }
}

/// Runs the body once for each of these ends: `end!(fan_out)` calls the end on the fan-out.
macro_rules! at_ends {
    (|$end:ident| $body:block; $([$($call:tt)+])+) => {{
        $({
            eprintln!("{}", stringify!($($call)+));
            macro_rules! $end {
                ($fan_out:expr) => {
                    $fan_out $($call)+
                };
            }
            $body
        })+
    }};
}

pub(crate) use {at_ends, in_each_place};
