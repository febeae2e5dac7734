//! A panic in the destructor of the items, of `f` or of `on_progress` is resumed in the caller,
//! however the fan-out ends; and each of them is dropped exactly once.

use std::future::pending;
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{self, Poll};
use std::time::Duration;

use errgroup::{Context, Progress, fan_out_stream, fetch_all, hedge};
use futures::{FutureExt, Stream, StreamExt};

use crate::fan_out_support::*;
use crate::group_support::*;

both_flavours![
    the_iterators_destructor_panics_in_each_way_to_end,
    the_destructor_of_f_panics_in_each_way_to_end,
    the_destructor_of_on_progress_panics_in_each_way_to_end,
    the_destructor_of_a_waiting_stream_panics,
    the_items_and_f_may_both_panic_when_they_are_dropped,
    an_items_panic_wins_over_that_of_a_destructor,
    the_destructor_of_f_panics_after_a_failed_fetch_all,
    the_destructor_of_the_function_of_a_hedge_panics,
    a_destructor_panics_after_a_quorum_is_out_of_reach,
    a_destructor_panics_after_a_quorum_of_nothing,
    the_panic_is_discarded_when_the_fan_out_is_dropped,
];

/// What a panic of a test carries.
#[derive(Debug, PartialEq)]
struct Bug(&'static str);

/// Counts its drop, and panics in it.
struct Bomb(&'static str, Count);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.1.add();
        panic_any(Bug(self.0));
    }
}

/// How a fan-out ends. With a limit of 1, most ends leave items behind.
#[derive(Debug, Clone, Copy)]
enum Way {
    Success,
    Failure,
    Cancel,
    CancelInGrace,
    DeadlineInFlight,
    DoneBefore,
}

const WAYS: [Way; 6] = [
    Way::Success,
    Way::Failure,
    Way::Cancel,
    Way::CancelInGrace,
    Way::DeadlineInFlight,
    Way::DoneBefore,
];

impl Way {
    fn ctx(self) -> Context {
        match self {
            Way::DeadlineInFlight => background().with_timeout(Duration::from_millis(1)),
            Way::DoneBefore => background().with_timeout(Duration::ZERO),
            _ => background(),
        }
    }
}

/// Runs ten items, one at a time, which end in this way. Then `end` panics with `bug`, and `bomb`
/// has been dropped.
macro_rules! in_every_way {
    (|$way:ident, $fan_out:ident, $armed:ident| $bomb:expr) => {
        for $way in WAYS {
            for end in each_end() {
                eprintln!("{:?}", $way);
                let $armed = Count::default();
                let (bug, ended) = {
                    let (ctx, guard) = $way.ctx().with_cancel();
                    let guard = Mutex::new(Some(guard));
                    let grace = match $way {
                        Way::CancelInGrace => Duration::from_millis(1),
                        _ => Duration::ZERO,
                    };
                    let $fan_out = (ctx, move || {
                        let guard = guard.lock().unwrap().take();
                        async move {
                            let _guard = match $way {
                                Way::Success => return OK,
                                Way::Failure => return Err("a failure".to_owned()),
                                Way::Cancel | Way::CancelInGrace => {
                                    drop(guard);
                                    None
                                }
                                Way::DeadlineInFlight | Way::DoneBefore => guard,
                            };
                            pending().await
                        }
                    });
                    let (bug, fan_out) = $bomb;
                    (bug, panic_of(end.of(fan_out.limit(1).grace(grace))).await)
                };
                assert_eq!(ended.downcast_ref(), Some(&Bug(bug)));
                assert_eq!($armed.get(), 1);
            }
        }
    };
}

async fn the_iterators_destructor_panics_in_each_way_to_end() {
    in_every_way!(|way, made, dropped| {
        let (ctx, item) = made;
        let bomb = Bomb("the iterator", dropped.clone());
        let items = (0..10).inspect(move |_| _ = &bomb);
        ("the iterator", fan_out(&ctx, items, move |_, _| item()))
    });
}

async fn the_destructor_of_f_panics_in_each_way_to_end() {
    in_every_way!(|way, made, dropped| {
        let (ctx, item) = made;
        let bomb = Bomb("f", dropped.clone());
        let f = move |_, _| {
            let _ = &bomb;
            item()
        };
        ("f", fan_out(&ctx, 0..10, f))
    });
}

async fn the_destructor_of_on_progress_panics_in_each_way_to_end() {
    in_every_way!(|way, made, dropped| {
        let (ctx, item) = made;
        let bomb = Bomb("on_progress", dropped.clone());
        let fan_out = fan_out(&ctx, 0..10, move |_, _| item());
        let fan_out = fan_out.on_progress(move |_: Progress| _ = &bomb);
        ("on_progress", fan_out)
    });
}

/// A stream of one item, which is pending for ever after that.
struct Waits(
    bool,
    #[expect(dead_code, reason = "it is only dropped")] Bomb,
);

impl Stream for Waits {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, _: &mut task::Context<'_>) -> Poll<Option<()>> {
        match std::mem::replace(&mut self.0, true) {
            false => Poll::Ready(Some(())),
            true => Poll::Pending,
        }
    }
}

async fn the_destructor_of_a_waiting_stream_panics() {
    for end in each_end() {
        let (ctx, guard) = background().with_cancel();
        let dropped = Count::default();
        let items = Waits(false, Bomb("the stream", dropped.clone()));
        let guard = Mutex::new(Some(guard));
        let cancels = move |_, ()| {
            let guard = guard.lock().unwrap().take();
            async move {
                // By then the stream has been polled for the next item.
                yields(20).await;
                drop(guard);
                pending::<Result<(), String>>().await
            }
        };
        let payload = panic_of(end.of(fan_out_stream(&ctx, items, cancels))).await;
        assert_eq!(payload.downcast_ref(), Some(&Bug("the stream")));
        assert_eq!(dropped.get(), 1);
    }
}

async fn the_items_and_f_may_both_panic_when_they_are_dropped() {
    for end in each_end() {
        for fails in [false, true] {
            let dropped = Count::default();
            let bombs = [0; 3].map(|_| Bomb("any of them", dropped.clone()));
            let [items, f, report] = bombs;
            let items = (0..10).inspect(move |_| _ = &items);
            let f = move |_: Context, _| {
                let _ = &f;
                async move { if fails { Err("no".to_owned()) } else { OK } }
            };
            let fan_out = errgroup::fan_out(&background(), items, f).limit(1);
            let fan_out = fan_out.on_progress(move |_: Progress| _ = &report);
            let payload = panic_of(end.of(fan_out)).await;
            assert_eq!(payload.downcast_ref(), Some(&Bug("any of them")));
            assert_eq!(dropped.get(), 3);
        }
    }
}

async fn an_items_panic_wins_over_that_of_a_destructor() {
    for end in each_end() {
        let dropped = Count::default();
        let bomb = Bomb("the iterator", dropped.clone());
        let items = (0..10).inspect(move |_| _ = &bomb);
        let panics = |_, _| async { if true { panic_any(Bug("an item")) } else { OK } };
        let payload = panic_of(end.of(fan_out(&background(), items, panics).limit(1))).await;
        assert_eq!(payload.downcast_ref(), Some(&Bug("an item")));
        assert_eq!(dropped.get(), 1);
    }
}

async fn the_destructor_of_f_panics_after_a_failed_fetch_all() {
    let dropped = Count::default();
    let bomb = Bomb("f", dropped.clone());
    let fails = move |_, _| {
        let _ = &bomb;
        async { Err::<(), _>("no".to_owned()) }
    };
    let payload = panic_of(fetch_all(&background(), 2, 0.., fails)).await;
    assert_eq!(payload.downcast_ref(), Some(&Bug("f")));
    assert_eq!(dropped.get(), 1);
}

async fn the_destructor_of_the_function_of_a_hedge_panics() {
    for way in WAYS {
        let dropped = Count::default();
        let bomb = Bomb("f", dropped.clone());
        let (ctx, guard) = way.ctx().with_cancel();
        let guard = Mutex::new(Some(guard));
        let f = move |_, _| {
            let _ = &bomb;
            let guard = guard.lock().unwrap().take();
            async move {
                match way {
                    Way::Success => OK,
                    Way::Failure => Err("no".to_owned()),
                    Way::Cancel | Way::CancelInGrace => {
                        drop(guard);
                        pending().await
                    }
                    Way::DeadlineInFlight | Way::DoneBefore => {
                        let _guard = guard;
                        pending().await
                    }
                }
            }
        };
        let payload = panic_of(hedge(&ctx, Duration::from_secs(3_600), 3, f)).await;
        assert_eq!(payload.downcast_ref(), Some(&Bug("f")), "{way:?}");
        assert_eq!(dropped.get(), 1);
    }
}

async fn a_destructor_panics_after_a_quorum_is_out_of_reach() {
    in_each_place!(|at| {
        let dropped = Count::default();
        let bomb = Bomb("the iterator", dropped.clone());
        let items = (0..5).inspect(move |_| _ = &bomb);
        let fails = |_, _| async { Err::<(), _>("no".to_owned()) };
        let quorum = at!(fan_out(&background(), items, fails).limit(1)).quorum(4);
        let payload = panic_of(quorum).await;
        assert_eq!(payload.downcast_ref(), Some(&Bug("the iterator")));
        assert_eq!(dropped.get(), 1);
    });
}

async fn a_destructor_panics_after_a_quorum_of_nothing() {
    in_each_place!(|at| {
        let dropped = Count::default();
        let bomb = Bomb("the iterator", dropped.clone());
        let items = (0..5).inspect(move |_| _ = &bomb);
        let quorum = at!(fan_out(&background(), items, |_, _| async { OK })).quorum(0);
        let payload = panic_of(quorum).await;
        assert_eq!(payload.downcast_ref(), Some(&Bug("the iterator")));
        assert_eq!(dropped.get(), 1);
    });
}

async fn the_panic_is_discarded_when_the_fan_out_is_dropped() {
    for end in each_end() {
        for polled in [false, true] {
            let dropped = Count::default();
            let [items, f] = [0; 2].map(|_| Bomb("any of them", dropped.clone()));
            let items = (0..10).inspect(move |_| _ = &items);
            let f = move |_: Context, _| {
                let _ = &f;
                pending::<Result<(), String>>()
            };
            let fan_out = errgroup::fan_out(&background(), items, f).limit(1);
            let mut end = Box::pin(end.of(fan_out));
            if polled {
                assert!(futures::poll!(&mut end).is_pending());
                yields(10).await;
            }
            drop(end);
            until(|| dropped.get() == 2).await;
        }
    }
    for end in each_stream() {
        let dropped = Count::default();
        let bomb = Bomb("the iterator", dropped.clone());
        let items = (0..10).inspect(move |_| _ = &bomb);
        let mut stream = end.stream(fan_out(&background(), items, |_, _| async { OK }).limit(1));
        assert!(stream.next().map(|next| next.is_some()).await);
        drop(stream);
        until(|| dropped.get() == 1).await;
    }
}
