//! What the modules about fan-outs share: a scenario is written once, and runs in each place, or at each end.

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

/// The crate's, of boxes: so that it is compiled once, and not for each scenario, end and place.
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

/// Runs a scenario twice: `at!(fan_out)` is the fan-out as it is, on tasks of the runtime, and then on the caller's own.
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

/// Runs a scenario at each end, in each place: `end!(fan_out)` is a future that is over when the fan-out is.
macro_rules! at_each_end {
    (|$end:ident| $body:block) => {
        for end in 0..$crate::fan_out_support::ENDS.len() {
            eprintln!("{}", $crate::fan_out_support::ENDS[end]);
            macro_rules! $end {
                ($fan_out:expr) => {
                    $crate::fan_out_support::end($fan_out, end)
                };
            }
            $body
        }
    };
}

pub(crate) const ENDS: [&str; 16] = [
    "all",
    "for_each",
    "settle",
    "try_stream",
    "stream",
    "ordered_stream",
    "first_ok",
    "quorum",
    "local, all",
    "local, for_each",
    "local, settle",
    "local, try_stream",
    "local, stream",
    "local, ordered_stream",
    "local, first_ok",
    "local, quorum",
];

/// The end of that number, of what is sent as well as of what is not.
pub(crate) fn end<S, F, Fut, T, P>(
    fan_out: FanOut<S, F, P>,
    end: usize,
) -> Pin<Box<dyn Future<Output = ()>>>
where
    S: Stream + Send + 'static,
    F: FnMut(Context, S::Item) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, String>> + Send + 'static,
    T: Send + 'static,
    P: FnMut(Progress) + Send + 'static,
{
    match end {
        0 => Box::pin(fan_out.all().map(drop)),
        1 => Box::pin(fan_out.for_each().map(drop)),
        2 => Box::pin(fan_out.settle().map(drop)),
        3 => Box::pin(fan_out.try_stream().collect::<Vec<_>>().map(drop)),
        4 => Box::pin(fan_out.stream().collect::<Vec<_>>().map(drop)),
        5 => Box::pin(fan_out.ordered_stream().collect::<Vec<_>>().map(drop)),
        6 => Box::pin(fan_out.first_ok().map(drop)),
        7 => Box::pin(fan_out.quorum(2).map(drop)),
        8 => Box::pin(fan_out.local().all().map(drop)),
        9 => Box::pin(fan_out.local().for_each().map(drop)),
        10 => Box::pin(fan_out.local().settle().map(drop)),
        11 => Box::pin(fan_out.local().try_stream().collect::<Vec<_>>().map(drop)),
        12 => Box::pin(fan_out.local().stream().collect::<Vec<_>>().map(drop)),
        13 => Box::pin(
            fan_out
                .local()
                .ordered_stream()
                .collect::<Vec<_>>()
                .map(drop),
        ),
        14 => Box::pin(fan_out.local().first_ok().map(drop)),
        15 => Box::pin(fan_out.local().quorum(2).map(drop)),
        _ => unreachable!(),
    }
}

/// Runs a scenario at these ends.
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

/// Runs a scenario with each of the ends that are streams, in each place: `stream!(fan_out)` is the stream.
macro_rules! with_each_stream {
    (|$stream:ident| $body:block) => {
        for stream in 0..$crate::fan_out_support::STREAMS.len() {
            eprintln!("{}", $crate::fan_out_support::STREAMS[stream]);
            macro_rules! $stream {
                ($fan_out:expr) => {
                    $crate::fan_out_support::stream($fan_out, stream)
                };
            }
            $body
        }
    };
}

pub(crate) const STREAMS: [&str; 6] = [
    "try_stream",
    "stream",
    "ordered_stream",
    "local, try_stream",
    "local, stream",
    "local, ordered_stream",
];

/// The stream of that number.
pub(crate) fn stream<S, F, Fut, T, P>(
    fan_out: FanOut<S, F, P>,
    stream: usize,
) -> Pin<Box<dyn Stream<Item = Result<T, String>>>>
where
    S: Stream + Send + 'static,
    F: FnMut(Context, S::Item) -> Fut + Send + 'static,
    Fut: Future<Output = Result<T, String>> + Send + 'static,
    T: Send + 'static,
    P: FnMut(Progress) + Send + 'static,
{
    match stream {
        0 => Box::pin(fan_out.try_stream()),
        1 => Box::pin(fan_out.stream()),
        2 => Box::pin(fan_out.ordered_stream()),
        3 => Box::pin(fan_out.local().try_stream()),
        4 => Box::pin(fan_out.local().stream()),
        5 => Box::pin(fan_out.local().ordered_stream()),
        _ => unreachable!(),
    }
}

pub(crate) use {at_each_end, at_ends, in_each_place, with_each_stream};
