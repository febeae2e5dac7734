//! A fan-out of few items, each of which has a worker of its own.

use std::sync::Arc;
use std::sync::mpsc::channel;

use errgroup::{Context, fan_out, fetch_all};
use tokio::task::yield_now;

use crate::group_support::*;
use crate::support::ms;

both_flavours![
    the_iterator_is_dropped_when_the_last_item_is_pulled,
    fewer_items_than_the_iterator_says_at_most,
    more_items_than_there_are_permits,
    items_that_wait_are_dropped_with_the_call,
    a_clone_of_the_items_context_sees_its_end,
    a_child_of_the_items_context_sees_its_end,
    items_in_a_box_end_like_those_in_their_task,
];

#[test]
fn few_items_run_while_their_caller_computes() {
    for (threads, items) in [(2, 1), (2, 2), (2, 3), (2, 8), (8, 1), (8, 2), (8, 8)] {
        on_threads(threads, || async move {
            let (says, said) = channel();
            let ctx = Context::background();
            let all = fetch_all(&ctx, items, 0..items, move |_, item| {
                let says = says.clone();
                async move {
                    says.send(item).unwrap();
                    Ok::<_, String>(item)
                }
            });
            let computes = async move {
                (0..items).for_each(|_| _ = said.recv_timeout(PATIENCE / 12).unwrap());
            };
            let (all, ()) = tokio::join!(all, computes);
            assert!(all.unwrap().into_iter().eq(0..items));
        });
    }
}

/// Blocks the thread until this many have begun.
fn block_until_all(begun: &Count, all: usize) {
    begun.add();
    let start = std::time::Instant::now();
    while begun.get() < all {
        assert!(start.elapsed() < PATIENCE / 12, "not all have begun");
        std::thread::sleep(ms(1));
    }
}

/// Each item blocks its thread until all have begun, and so does the caller.
#[test]
fn few_items_that_block_begin_while_their_caller_blocks() {
    for items in [2, 3] {
        on_threads(items + 1, || async move {
            let (begun, ctx) = (Count::default(), Context::background());
            let begins = begun.clone();
            let all = fan_out(&ctx, 0..items, move |_, _| {
                let begun = begins.clone();
                async move {
                    block_until_all(&begun, items + 1);
                    Ok::<_, String>(())
                }
            });
            let blocks = async move { block_until_all(&begun, items + 1) };
            let (all, ()) = tokio::join!(all.for_each(), blocks);
            assert_eq!(all, Ok(()));
        });
    }
}

async fn the_iterator_is_dropped_when_the_last_item_is_pulled() {
    for count in [3, 12] {
        let (held, gate) = (Arc::new(()), Gate::new());
        let (of_items, of_f, waits) = (held.clone(), held.clone(), gate.clone());
        let items = (0..count).inspect(move |_| _ = &of_items);
        let ctx = Context::background();
        let all = fan_out(&ctx, items, move |_, item| {
            let _ = &of_f;
            let gate = waits.clone();
            async move {
                gate.pass().await;
                Ok::<_, String>(item)
            }
        });
        let opens = async {
            until(|| Arc::strong_count(&held) == 1).await;
            gate.open();
        };
        let (all, ()) = futures::future::join(in_time(all.limit(count).all()), opens).await;
        assert!(all.unwrap().into_iter().eq(0..count));
    }
}

async fn fewer_items_than_the_iterator_says_at_most() {
    for limit in [1, 4, 8, 64] {
        let items = (0..8).filter(|item| item % 4 == 1);
        let ctx = Context::background();
        let all = fan_out(&ctx, items, |_, item| async move {
            yield_now().await;
            Ok::<_, String>(item)
        });
        assert_eq!(in_time(all.limit(limit).all()).await, Ok(vec![1, 5]));
    }
}

async fn more_items_than_there_are_permits() {
    for limit in 1..8 {
        let ctx = Context::background();
        let all = fetch_all(&ctx, limit, 0..8, |_, item| async move {
            yield_now().await;
            Ok::<_, String>(item)
        });
        assert!(in_time(all).await.unwrap().into_iter().eq(0..8));
    }
}

async fn items_that_wait_are_dropped_with_the_call() {
    for polls in 1..4 {
        let held = Arc::new(());
        let holds = held.clone();
        let ctx = Context::background();
        let mut all = Box::pin(fetch_all(&ctx, 8, 0..3, move |_, _| {
            let held = holds.clone();
            async move {
                std::future::pending::<()>().await;
                drop(held);
                Ok::<_, String>(())
            }
        }));
        for _ in 0..polls {
            assert!(futures::poll!(&mut all).is_pending());
            yield_now().await;
        }
        drop(all);
        until(|| Arc::strong_count(&held) == 1).await;
    }
}

async fn a_clone_of_the_items_context_sees_its_end() {
    let ctx = Context::background();
    let all = fetch_all(&ctx, 2, 0..2, |ctx, _| async move {
        yield_now().await;
        Ok::<_, String>(ctx)
    });
    let clones = in_time(all).await.unwrap();
    assert!(clones.iter().all(Context::is_done));
}

async fn a_child_of_the_items_context_sees_its_end() {
    let ctx = Context::background();
    let all = fetch_all(&ctx, 2, 0..2, |ctx, _| async move {
        let child = ctx.with_cancel();
        yield_now().await;
        Ok::<_, String>(child)
    });
    let children = in_time(all).await.unwrap();
    assert!(children.iter().all(|(child, _guard)| child.is_done()));
}

#[test]
fn a_runtime_that_shuts_down_while_items_are_in_a_box() {
    let held = Arc::new(());
    let (holds, gate) = (held.clone(), Gate::new());
    let ctx = Context::background();
    let mut all = Box::pin(fetch_all(&ctx, 8, 0..3, move |_, item| {
        sized::<2000>(item, End::IsDropped, holds.clone(), gate.clone())
    }));
    let runtime = current_thread();
    runtime.block_on(async {
        assert!(futures::poll!(&mut all).is_pending());
        until(|| Arc::strong_count(&held) == 4).await;
    });
    drop(runtime);
    assert!(current_thread().block_on(in_time(all)).is_err());
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_runtime_that_shuts_down_before_the_workers_begin() {
    let held = Arc::new(());
    let holds = held.clone();
    let ctx = Context::background();
    let mut all = Box::pin(fetch_all(&ctx, 8, 0..3, move |_, item| {
        let _ = &holds;
        async move { Ok::<_, String>(item) }
    }));
    let runtime = current_thread();
    runtime.block_on(async { assert!(futures::poll!(&mut all).is_pending()) });
    drop(runtime);
    assert!(current_thread().block_on(in_time(all)).is_err());
    assert_eq!(Arc::strong_count(&held), 1);
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Returns,
    Fails,
    Panics,
    IsDropped,
    PanicsWhenDropped,
}

/// An item whose future has at least `SIZE` bytes. Item 1 ends like `end`, the others wait for
/// it, and return.
async fn sized<const SIZE: usize>(
    item: usize,
    end: End,
    held: Arc<()>,
    gate: Gate,
) -> Result<usize, String> {
    let bytes = std::hint::black_box([item as u8; SIZE]);
    let _panics = OnDrop(|| assert!(item != 1 || end != End::PanicsWhenDropped));
    yield_now().await;
    if item != 1 {
        gate.pass().await;
    }
    match end {
        End::Fails => return Err("failed".to_owned()),
        End::Panics => panic!("panicked"),
        End::IsDropped | End::PanicsWhenDropped if item == 1 => std::future::pending().await,
        _ => gate.open(),
    }
    drop((bytes, held));
    Ok(item)
}

async fn items_of_size<const SIZE: usize>(end: End) {
    let held = Arc::new(());
    let (holds, gate) = (held.clone(), Gate::new());
    let call = tokio::spawn(async move {
        let all = fetch_all(&Context::background(), 3, 0..3, move |_, item| {
            sized::<SIZE>(item, end, holds.clone(), gate.clone())
        });
        let time = match end {
            End::IsDropped | End::PanicsWhenDropped => ms(20),
            End::Returns | End::Fails | End::Panics => PATIENCE,
        };
        tokio::time::timeout(time, all).await.map_err(|_| end)
    });
    let ended = in_time(call).await;
    match end {
        End::Returns => assert_eq!(ended.unwrap().unwrap(), Ok(vec![0, 1, 2])),
        End::Fails => assert_eq!(ended.unwrap().unwrap(), Err("failed".to_owned())),
        End::Panics => assert!(ended.unwrap_err().is_panic()),
        End::IsDropped | End::PanicsWhenDropped => assert_eq!(ended.unwrap(), Err(end)),
    }
    until(|| Arc::strong_count(&held) == 1).await;
}

async fn items_in_a_box_end_like_those_in_their_task() {
    for end in [
        End::Returns,
        End::Fails,
        End::Panics,
        End::IsDropped,
        End::PanicsWhenDropped,
    ] {
        items_of_size::<1>(end).await;
        items_of_size::<2000>(end).await;
    }
}
