//! What the modules about fan-outs share: a scenario is written once, and runs in each place, or at each end.

use std::future::Future;
use std::pin::Pin;

use errgroup::fan_out::Items;
use errgroup::{Context, FanOut};

pub(crate) fn background() -> Context {
    Context::background()
}

type Iter<T> = Box<dyn Iterator<Item = T> + Send>;
type Made<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;
type Makes<I, T, E> = Box<dyn FnMut(Context, I) -> Made<T, E> + Send>;

/// The crate's, of boxes: so that it is compiled once, and not for each scenario, end and place.
#[track_caller]
pub(crate) fn fan_out<I, F, Fut, T, E>(
    ctx: &Context,
    items: I,
    mut f: F,
) -> FanOut<Items<Iter<I::Item>>, Makes<I::Item, T, E>>
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
        $crate::fan_out_support::at_ends! {
            |$end| $body;
            [.all().map(drop)]
            [.for_each().map(drop)]
            [.settle().map(drop)]
            [.try_stream().collect::<Vec<_>>().map(drop)]
            [.stream().collect::<Vec<_>>().map(drop)]
            [.ordered_stream().collect::<Vec<_>>().map(drop)]
            [.first_ok().map(drop)]
            [.quorum(2).map(drop)]
            [.local().all().map(drop)]
            [.local().for_each().map(drop)]
            [.local().settle().map(drop)]
            [.local().try_stream().collect::<Vec<_>>().map(drop)]
            [.local().stream().collect::<Vec<_>>().map(drop)]
            [.local().ordered_stream().collect::<Vec<_>>().map(drop)]
            [.local().first_ok().map(drop)]
            [.local().quorum(2).map(drop)]
        }
    };
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
        $crate::fan_out_support::at_ends! {
            |$stream| $body;
            [.try_stream()]
            [.stream()]
            [.ordered_stream()]
            [.local().try_stream()]
            [.local().stream()]
            [.local().ordered_stream()]
        }
    };
}

pub(crate) use {at_each_end, at_ends, in_each_place, with_each_stream};
