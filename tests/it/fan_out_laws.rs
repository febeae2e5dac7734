//! Laws that relate the ends to one another and to a plain loop, over random items.

use errgroup::{Context, fetch_all};
use futures::StreamExt;

use crate::fan_out_support::*;
use crate::group_support::*;

both_flavours![
    all_with_a_limit_of_one_is_the_sequential_loop,
    settle_collected_is_all_where_nothing_fails,
    settle_collected_fails_where_all_does,
    ordered_stream_collected_is_settle,
    stream_collected_is_settle_in_another_order,
    try_stream_collected_is_all_in_another_order,
    for_each_is_all_without_the_values,
    first_ok_is_a_quorum_of_one,
    a_quorum_of_all_is_all_in_another_order,
    fetch_all_is_all,
];

/// How long an item takes, in steps, and whether it fails.
type Item = (usize, bool);

/// Random items, some of which fail, and a random limit.
fn some_items(random: &mut Random, failures: bool) -> (Vec<Item>, usize) {
    let items = 0..random.below(20);
    let mut item = |_| (random.below(6), failures && random.below(4) == 0);
    let items: Vec<_> = items.map(&mut item).collect();
    (items, 1 + random.below(8))
}

async fn run(_: Context, (number, (steps, fails)): (usize, Item)) -> Result<usize, String> {
    yields(steps).await;
    if fails {
        Err(format!("no {number}"))
    } else {
        Ok(number)
    }
}

/// A fan-out over these items.
macro_rules! over {
    ($items:expr, $limit:expr) => {
        fan_out(&background(), $items.clone().into_iter().enumerate(), run).limit($limit)
    };
}

const ROUNDS: usize = 60;

/// Runs a law with many items, on tasks of the runtime and on the caller's own task.
macro_rules! law {
    ($failures:expr, |$at:ident, $items:ident, $limit:ident| $body:block) => {
        in_each_place!(|$at| {
            let mut random = Random::new();
            for _ in 0..ROUNDS {
                let ($items, $limit) = some_items(&mut random, $failures);
                eprintln!("{} at once of {:?}", $limit, $items);
                $body
            }
        })
    };
}

async fn all_with_a_limit_of_one_is_the_sequential_loop() {
    law!(true, |at, items, _limit| {
        // The steps of a loop, in order, and its result.
        let (mut expected, mut given) = (Vec::new(), Ok(Vec::new()));
        for item in items.clone().into_iter().enumerate() {
            expected.extend(["pulled", "called", "begun"].map(|what| (what, item.0)));
            let result = run(background(), item).await;
            expected.push(("ended", item.0));
            match result {
                Ok(value) => given.as_mut().unwrap().push(value),
                Err(error) => {
                    given = Err(error);
                    break;
                }
            }
        }
        let log = Log::new();
        let (pulls, calls) = (log.clone(), log.clone());
        let pulled = items.into_iter().enumerate();
        let pulled = pulled.inspect(move |item| pulls.add(("pulled", item.0)));
        let sequential = fan_out(&background(), pulled, move |ctx, item| {
            let log = calls.clone();
            log.add(("called", item.0));
            async move {
                log.add(("begun", item.0));
                let result = run(ctx, item).await;
                log.add(("ended", item.0));
                result
            }
        });
        assert_eq!(at!(sequential.limit(1)).all().await, given);
        assert_eq!(log.get(), expected);
    });
}

async fn settle_collected_is_all_where_nothing_fails() {
    law!(false, |at, items, limit| {
        let settled = at!(over!(items, limit)).settle().await;
        let collected = settled.into_iter().collect::<Result<Vec<_>, _>>();
        assert_eq!(collected, at!(over!(items, limit)).all().await);
        assert_eq!(collected.unwrap().len(), items.len());
    });
}

async fn settle_collected_fails_where_all_does() {
    law!(true, |at, items, limit| {
        let settled = at!(over!(items, limit)).settle().await;
        let collected = settled.into_iter().collect::<Result<Vec<_>, _>>();
        let all = at!(over!(items, limit)).all().await;
        assert_eq!(collected.is_ok(), all.is_ok());
        // One at a time, it is the same failure.
        let all = at!(over!(items, 1)).all().await;
        assert_eq!(collected, all);
    });
}

async fn ordered_stream_collected_is_settle() {
    law!(true, |at, items, limit| {
        let stream = at!(over!(items, limit)).ordered_stream();
        let collected: Vec<_> = stream.collect().await;
        assert_eq!(collected, at!(over!(items, limit)).settle().await);
        assert_eq!(collected.len(), items.len());
    });
}

async fn stream_collected_is_settle_in_another_order() {
    law!(true, |at, items, limit| {
        let stream = at!(over!(items, limit)).stream();
        let mut collected: Vec<_> = stream.collect().await;
        let mut settled = at!(over!(items, limit)).settle().await;
        collected.sort_unstable();
        settled.sort_unstable();
        assert_eq!(collected, settled);
    });
}

async fn try_stream_collected_is_all_in_another_order() {
    law!(true, |at, items, limit| {
        let stream = at!(over!(items, limit)).try_stream();
        let mut collected: Vec<_> = stream.collect().await;
        match at!(over!(items, limit)).all().await {
            Ok(values) => {
                collected.sort_unstable();
                assert!(collected.into_iter().eq(values.into_iter().map(Ok)));
            }
            Err(_) => {
                assert!(collected.pop().unwrap().is_err());
                assert!(collected.iter().all(Result::is_ok));
            }
        }
    });
}

async fn for_each_is_all_without_the_values() {
    law!(true, |at, items, limit| {
        let each = at!(over!(items, limit)).for_each().await;
        let all = at!(over!(items, limit)).all().await;
        assert_eq!(each.is_ok(), all.is_ok());
        let each = at!(over!(items, 1)).for_each().await;
        let all = at!(over!(items, 1)).all().await;
        assert_eq!(each, all.map(drop));
    });
}

/// What failed, in the order of the items.
fn failed(errors: &errgroup::Errors<String>) -> Vec<String> {
    let mut failed: Vec<_> = errors.causes().map(ToString::to_string).collect();
    failed.sort_unstable();
    failed
}

async fn first_ok_is_a_quorum_of_one() {
    law!(true, |at, items, limit| {
        let first = at!(over!(items, limit)).first_ok().await;
        let one = at!(over!(items, limit)).quorum(1).await;
        let some_succeeds = items.iter().any(|(_, fails)| !fails);
        assert_eq!((first.is_ok(), one.is_ok()), (some_succeeds, some_succeeds));
        match (first, one) {
            (Err(first), Err(one)) if !items.is_empty() => {
                assert_eq!(first.len(), items.len());
                let same = |text: String| text.split(": ").last().unwrap().to_owned();
                let reasons = |errors| failed(errors).into_iter().map(same).collect::<Vec<_>>();
                assert_eq!(reasons(&first), reasons(&one));
            }
            // One at a time, it is the first that succeeds.
            _ => {
                let first = at!(over!(items, 1)).first_ok().await.ok();
                assert_eq!(first, items.iter().position(|(_, fails)| !fails));
            }
        }
    });
}

async fn a_quorum_of_all_is_all_in_another_order() {
    law!(true, |at, items, limit| {
        let all = at!(over!(items, limit)).all().await;
        match at!(over!(items, limit)).quorum(items.len()).await {
            Ok(mut values) => {
                values.sort_unstable();
                assert_eq!(all, Ok(values));
            }
            Err(errors) => {
                assert!(all.is_err());
                assert!(errors.causes().count() >= 1);
            }
        }
    });
}

async fn fetch_all_is_all() {
    law!(true, |at, items, _limit| {
        let numbered = items.clone().into_iter().enumerate();
        let fetched = fetch_all(&background(), 1, numbered, run).await;
        assert_eq!(fetched, at!(over!(items, 1)).all().await);
    });
}
