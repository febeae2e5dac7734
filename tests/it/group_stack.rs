//! How much of the stack a call takes for a big future: no more than tokio's `JoinSet`, in a debug
//! build too.
//!
//! Each runs in a thread whose stack is a fixed multiple of the future. An overflow cannot be
//! caught: it ends the process.

use std::future::{Future, Ready as IsReady, ready};
use std::hint::black_box;
use std::pin::Pin;

use errgroup::{Context, Ready, TryGoError, fan_out, fetch_all};
use futures::StreamExt;
use tokio::task::{JoinSet, LocalSet, yield_now};

use crate::group_support::*;

/// With this stack a `JoinSet` takes a future of 640 KiB in a debug build.
const STACK: usize = 2 << 20;
const BIG: usize = 512 << 10;
/// A closure is copied into its captor before the call. A method that returns the future has it in
/// its result.
const HALF: usize = BIG / 2;

async fn big() -> Result<(), String> {
    let bytes = [1_u8; BIG];
    yield_now().await;
    black_box(&bytes);
    Ok(())
}

async fn half() -> Result<(), String> {
    let bytes = [1_u8; HALF];
    yield_now().await;
    black_box(&bytes);
    Ok(())
}

async fn big_server(_: Context, ready: Ready<u8>) -> Result<(), String> {
    let bytes = [1_u8; BIG];
    ready.ok(1);
    yield_now().await;
    black_box(&bytes);
    Ok(())
}

fn big_closure<T>(output: T) -> impl FnOnce() -> T {
    let bytes = [1_u8; HALF];
    move || {
        black_box(&bytes);
        output
    }
}

fn is_ok() -> IsReady<Result<(), String>> {
    ready(OK)
}

type Test = Pin<Box<dyn Future<Output = ()>>>;

fn on_a_small_stack(test: fn() -> Test) {
    let run = move || LocalSet::new().block_on(&current_thread(), in_time(test()));
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(run);
    thread.unwrap().join().unwrap();
}

/// Runs each of these, which ends with its group, on a stack of its own.
macro_rules! takes_a_big_future {
    ($($test:ident: |$g:ident| $call:expr),+ $(,)?) => {
        $(
            #[test]
            fn $test() {
                on_a_small_stack(|| Box::pin(async {
                    let ($g, _ctx) = group();
                    $call;
                    assert_eq!($g.wait().await, OK);
                }));
            }
        )+
    };
}

takes_a_big_future! {
    go_takes_what_a_join_set_takes: |g| g.go(big()),
    an_awaited_go_takes_it: |g| g.go(big()).await,
    go_with_takes_it: |g| g.go_with(|_| big()),
    go_with_takes_a_big_closure: |g| {
        let closure = big_closure(());
        g.go_with(|_| {
            closure();
            is_ok()
        })
    },
    go_cancellable_takes_it: |g| g.go_cancellable(big()),
    try_go_takes_half_of_it: |g| assert!(g.try_go(half()).is_ok()),
    go_blocking_takes_a_big_closure: |g| {
        let closure = big_closure(OK);
        g.go_blocking(|_| closure())
    },
    go_local_takes_it: |g| g.go_local(big()),
    spawn_takes_it: |g| drop(g.spawn(big())),
    start_takes_it: |g| assert_eq!(g.start(big_server).await, Ok(1)),
    start_takes_a_big_closure: |g| {
        let closure = big_closure(1);
        let started = g.start(|_, ready| {
            ready.ok(closure());
            is_ok()
        });
        assert_eq!(started.await, Ok(1));
    },
    a_spawner_takes_it: |g| g.spawner().go(big()),
    a_name_takes_it: |g| g.named("big").go(big()),
}

#[test]
fn a_join_set_takes_it() {
    on_a_small_stack(|| {
        Box::pin(async {
            let mut set = JoinSet::new();
            set.spawn(big());
            set.join_next().await.unwrap().unwrap().unwrap();
        })
    });
}

#[test]
fn fetch_all_takes_half_of_it() {
    on_a_small_stack(|| {
        Box::pin(async {
            let all = fetch_all(&Context::background(), 2, 0..2, |_, _| half());
            assert_eq!(all.await.unwrap().len(), 2);
        })
    });
}

#[test]
fn a_local_fan_out_takes_half_of_it() {
    on_a_small_stack(|| {
        Box::pin(async {
            let all = fan_out(&Context::background(), 0..2, |_, _| half()).local();
            assert_eq!(all.all().await.unwrap().len(), 2);
        })
    });
}

#[test]
fn a_stream_of_a_fan_out_takes_half_of_it() {
    on_a_small_stack(|| {
        Box::pin(async {
            let spawned = fan_out(&Context::background(), 0..2, |_, _| half());
            assert_eq!(spawned.stream().count().await, 2);
            let local = fan_out(&Context::background(), 0..2, |_, _| half()).local();
            assert_eq!(local.ordered_stream().count().await, 2);
        })
    });
}

#[test]
fn a_scope_that_is_spawned_takes_it_in_its_body() {
    on_a_small_stack(|| {
        Box::pin(async {
            let scope = G::scope(&Context::background(), async |_: &G, _| big().await);
            assert_eq!(tokio::spawn(scope).await.unwrap(), OK);
        })
    });
}

#[test]
fn a_future_that_is_returned_is_the_one_that_was_passed() {
    let g = limited(0);
    current_thread().block_on(async {
        let bytes = [7_u8; 32 << 10];
        let future = move || async move {
            assert_eq!(black_box(&bytes)[1_000], 7);
            yield_now().await;
            assert_eq!(black_box(&bytes)[32_000], 7);
            OK
        };
        let Err(TryGoError::Full(full)) = g.try_go(future()) else {
            panic!("there is no permit");
        };
        assert_eq!(full.await, OK);
        g.cancel();
        let Err(TryGoError::Ended(ended)) = g.try_go(future()) else {
            panic!("the context is done");
        };
        assert_eq!(ended.await, OK);
    });
}
