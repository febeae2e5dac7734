//! `Group::scope`: an early `?` cannot leave tasks behind.

use std::sync::Arc;

use errgroup::{Context, Group, TaskErrorKind};
use futures::FutureExt;

use crate::group_support::*;

both_flavours![
    it_gives_the_value_of_the_body,
    it_waits_for_the_tasks_whatever_the_body_returned,
    an_early_return_leaves_no_task_behind,
    the_error_of_the_body_counts_as_a_failure,
    the_first_error_is_returned,
    a_failed_task_fails_the_scope_though_the_body_is_ok,
    a_body_that_is_ok_does_not_stop_its_tasks,
    a_panic_in_the_body_cancels_waits_and_is_resumed,
    the_first_panic_is_resumed,
    a_panic_in_a_task_is_resumed_when_the_body_has_returned,
    a_body_that_panics_before_its_first_await_is_waited_for_too,
    a_body_that_is_a_plain_closure_may_panic_too,
    a_body_whose_destructor_panics_is_waited_for_too,
    dropped_half_way_it_aborts_the_tasks,
    dropped_before_its_first_poll_it_does_nothing,
    dropped_while_it_waits_it_aborts_the_tasks,
    a_cancel_of_the_parent_reaches_the_tasks,
    the_future_can_be_spawned_and_does_not_borrow_its_parent,
    the_body_may_borrow_from_around_it,
    the_body_receives_the_context_of_the_group,
    scopes_may_be_nested,
    a_scope_in_a_task_of_a_scope,
    the_body_takes_no_permit,
];

async fn scope<T>(body: impl AsyncFnOnce(&G, Context) -> Result<T, String>) -> Result<T, String> {
    Group::scope(&Context::background(), body).await
}

/// A task that ends with `Ok` a while after it was cancelled.
fn winds_down(g: &G, probe: &Probe, ended: &Count) {
    let (ctx, ended) = (g.context(), ended.clone());
    g.go(probe.wrap(async move {
        ctx.done().await;
        yields(10).await;
        ended.add();
        Ok(())
    }));
}

async fn it_gives_the_value_of_the_body() {
    assert_eq!(scope(async |_, _| Ok(1)).await, Ok(1));
    let sum = scope(async |g, _| {
        let (a, b) = (g.spawn(async { Ok(1) }), g.spawn(async { Ok(2) }));
        Ok(a.await? + b.await?)
    });
    assert_eq!(sum.await, Ok(3));
}

async fn it_waits_for_the_tasks_whatever_the_body_returned() {
    for fails in [false, true] {
        let (probe, ended) = (Probe::default(), Count::default());
        let result = scope(async |g, _| {
            for number in 0..5 {
                let ended = ended.clone();
                g.go(probe.wrap(async move {
                    yields(10 + number).await;
                    ended.add();
                    Ok(())
                }));
            }
            if fails {
                Err("boom".to_owned())
            } else {
                Ok(())
            }
        });
        assert_eq!(result.await.is_err(), fails);
        assert_eq!(ended.get(), 5);
        probe.assert_all_dropped();
    }
}

async fn an_early_return_leaves_no_task_behind() {
    let (probe, ended) = (Probe::default(), Count::default());
    let result = scope(async |g, _| {
        winds_down(g, &probe, &ended);
        let number: u8 = "300".parse().map_err(|_| "not a number".to_owned())?;
        winds_down(g, &probe, &ended);
        Ok(number)
    });
    assert_eq!(result.await.unwrap_err(), "not a number");
    assert_eq!((probe.made(), ended.get()), (1, 1));
    probe.assert_all_dropped();
}

async fn the_error_of_the_body_counts_as_a_failure() {
    let (seen, probe) = (Log::new(), Probe::default());
    let result = scope::<()>(async |g, _| {
        let (sees, probe) = (seen.clone(), probe.clone());
        g.go_with(move |ctx| {
            probe.wrap(async move {
                ctx.done().await;
                sees.add(ctx.cause().unwrap().to_string());
                Err("obeyed".to_owned())
            })
        })
        .await;
        Err("the body failed".to_owned())
    });
    assert_eq!(result.await.unwrap_err(), "the body failed");
    assert_eq!(seen.get(), ["the body failed"]);
    probe.assert_all_dropped();
}

async fn the_first_error_is_returned() {
    let result = scope::<()>(async |g, ctx| {
        g.go(async { Err("a task".to_owned()) });
        ctx.done().await;
        assert_eq!(ctx.cause().unwrap().to_string(), "a task");
        Err("the body".to_owned())
    });
    assert_eq!(result.await.unwrap_err(), "a task");
}

async fn a_failed_task_fails_the_scope_though_the_body_is_ok() {
    let dropped = Count::default();
    let counted = dropped.clone();
    let result = scope(async move |g, _| {
        g.go(async {
            yields(5).await;
            Err("boom".to_owned())
        });
        Ok(OnDrop(move || _ = counted.add()))
    });
    assert_eq!(result.await.err().unwrap(), "boom");
    assert_eq!(dropped.get(), 1, "its value was dropped");
}

async fn a_body_that_is_ok_does_not_stop_its_tasks() {
    let result = scope(async |g, _| {
        let value = g.spawn(async {
            yields(10).await;
            Ok(7)
        });
        g.go_with(|ctx| async move {
            yields(20).await;
            Ok(ctx.check()?)
        });
        Ok(value)
    });
    assert_eq!(result.await.unwrap().take(), Some(7));
}

async fn a_panic_in_the_body_cancels_waits_and_is_resumed() {
    let (probe, ended, kept) = (Probe::default(), Count::default(), Log::new());
    let keeps = kept.clone();
    let line = line!() + 1;
    let scope = Group::<String>::scope(&Context::background(), async |g, ctx| {
        keeps.add(ctx);
        winds_down(g, &probe, &ended);
        yields(3).await;
        if true {
            panic!("a bug in the body");
        }
        Ok(())
    });
    assert_eq!(text(panic_of(scope).await), "a bug in the body");
    assert_eq!(ended.get(), 1);
    probe.assert_all_dropped();
    let cause = kept.get()[0].cause().unwrap().to_string();
    let site = format!("{}:{line}:", file!());
    assert!(cause.contains(&site) && cause.ends_with("panicked: a bug in the body"));
}

async fn the_first_panic_is_resumed() {
    let first_in_a_task = scope::<()>(async |g, ctx| {
        g.go(async { panic!("in a task") });
        ctx.done().await;
        panic!("in the body")
    });
    assert_eq!(text(panic_of(first_in_a_task).await), "in a task");

    let first_in_the_body = scope::<()>(async |g, _| {
        g.go_with(|ctx| async move {
            ctx.done().await;
            panic!("in a task")
        });
        panic!("in the body")
    });
    assert_eq!(text(panic_of(first_in_the_body).await), "in the body");

    let wins_over_an_error = scope::<()>(async |g, ctx| {
        g.go(async { Err("an error".to_owned()) });
        ctx.done().await;
        panic!("in the body")
    });
    assert_eq!(text(panic_of(wins_over_an_error).await), "in the body");
}

async fn a_panic_in_a_task_is_resumed_when_the_body_has_returned() {
    for fails in [false, true] {
        let returned = Count::default();
        let scope = scope(async |g, ctx| {
            g.go(async { panic!("in a task") });
            ctx.done().await;
            yields(10).await;
            returned.add();
            if fails {
                Err("an error".to_owned())
            } else {
                Ok(())
            }
        });
        assert_eq!(text(panic_of(scope).await), "in a task");
        assert_eq!(returned.get(), 1);
    }
}

async fn a_body_that_panics_before_its_first_await_is_waited_for_too() {
    let (probe, ended) = (Probe::default(), Count::default());
    let scope = scope::<()>(async |g, _| {
        winds_down(g, &probe, &ended);
        panic!("at once")
    });
    assert_eq!(text(panic_of(scope).await), "at once");
    assert_eq!(ended.get(), 1);
    probe.assert_all_dropped();
}

async fn a_body_that_is_a_plain_closure_may_panic_too() {
    let (probe, ended) = (Probe::default(), Count::default());
    let (probes, counted) = (probe.clone(), ended.clone());
    let body = move |g: &G, _: Context| -> std::future::Ready<Result<(), String>> {
        winds_down(g, &probes, &counted);
        panic!("not even a future")
    };
    let scope = Group::scope(&Context::background(), body);
    assert_eq!(text(panic_of(scope).await), "not even a future");
    assert_eq!(ended.get(), 1, "it did not wait");
    probe.assert_all_dropped();
}

async fn a_body_whose_destructor_panics_is_waited_for_too() {
    struct Bomb;

    impl Future for Bomb {
        type Output = Result<(), String>;

        fn poll(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Self::Output> {
            std::task::Poll::Ready(Ok(()))
        }
    }

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }

    let (probe, ended) = (Probe::default(), Count::default());
    let (probes, counted) = (probe.clone(), ended.clone());
    let body = move |g: &G, _: Context| {
        winds_down(g, &probes, &counted);
        Bomb
    };
    let scope = Group::scope(&Context::background(), body);
    assert_eq!(text(panic_of(scope).await), "in drop");
    assert_eq!(ended.get(), 1, "it did not wait");
    probe.assert_all_dropped();
}

async fn dropped_half_way_it_aborts_the_tasks() {
    for polls in 1..5 {
        let (probe, contexts) = (Probe::default(), Log::new());
        let (probes, keeps) = (probe.clone(), contexts.clone());
        let mut scope = Box::pin(scope::<()>(async move |g, ctx| {
            keeps.add(ctx);
            for _ in 0..3 {
                g.go(probes.wrap(std::future::pending()));
            }
            std::future::pending().await
        }));
        for _ in 0..polls {
            assert!(futures::poll!(&mut scope).is_pending());
            tokio::task::yield_now().await;
        }
        drop(scope);
        let cause = contexts.get()[0].cause().unwrap().to_string();
        assert_eq!(cause, "the group was dropped");
        until(|| probe.dropped() == 3).await;
        let polled = probe.polled();
        yields(20).await;
        assert_eq!(probe.polled(), polled);
    }
}

async fn dropped_before_its_first_poll_it_does_nothing() {
    let calls = Count::default();
    let scope = scope::<()>(async |_, _| {
        calls.add();
        Ok(())
    });
    drop(scope);
    assert_eq!(calls.get(), 0);
}

async fn dropped_while_it_waits_it_aborts_the_tasks() {
    let (probe, returned) = (Probe::default(), Count::default());
    let mut scope = Box::pin(scope(async |g, _| {
        g.go(probe.wrap(std::future::pending()));
        returned.add();
        Ok(())
    }));
    for _ in 0..5 {
        assert!(futures::poll!(&mut scope).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(returned.get(), 1);
    drop(scope);
    until(|| probe.dropped() == 1).await;
}

async fn a_cancel_of_the_parent_reaches_the_tasks() {
    let (parent, guard) = Context::background().with_cancel();
    let (probe, ended) = (Probe::default(), Count::default());
    let scope = Group::scope(&parent, async |g: &G, _| {
        winds_down(g, &probe, &ended);
        winds_down(g, &probe, &ended);
        Ok(1)
    });
    let cancel = async move {
        yields(10).await;
        guard.cancel();
    };
    let (result, ()) = futures::join!(scope, cancel);
    assert_eq!((result, ended.get()), (Ok(1), 2), "nothing was lost");
    assert!(parent.is_done());

    // Like a group, it does not affect its parent.
    let (parent, _guard) = Context::background().with_cancel();
    let scope = Group::<String>::scope(&parent, async |_, _| Err::<(), _>("boom".to_owned()));
    assert!(scope.await.is_err());
    assert!(!parent.is_done());
}

async fn the_future_can_be_spawned_and_does_not_borrow_its_parent() {
    fn spawned(text: &str) -> impl Future<Output = Result<usize, String>> + Send + 'static {
        let (parent, text) = (Context::background().with_value(7_usize), text.to_owned());
        Group::scope(&parent, async move |g: &G, ctx: Context| {
            let value = g.spawn(async move {
                tokio::task::yield_now().await;
                Ok(text.len())
            });
            Ok(value.await? + ctx.value::<usize>().ok_or("no seven")?)
        })
    }
    assert_eq!(tokio::spawn(spawned("four")).await.unwrap(), Ok(11));
}

async fn the_body_may_borrow_from_around_it() {
    let (words, mut lengths) = (vec!["a", "bc"], Vec::new());
    let result = scope(async |g, _| {
        for word in &words {
            let word = *word;
            let length = g.spawn(async move { Ok(word.len()) });
            lengths.push(length.await?);
        }
        Ok(words.len())
    });
    assert_eq!(result.await, Ok(2));
    assert_eq!(lengths, [1, 2]);
}

async fn the_body_receives_the_context_of_the_group() {
    let result = scope(async |g, ctx| {
        assert!(!ctx.is_done());
        g.cancel_with("enough");
        assert_eq!(ctx.cause().unwrap().to_string(), "enough");
        Ok(())
    });
    assert_eq!(result.await, OK);
}

async fn scopes_may_be_nested() {
    let (probe, ended) = (Probe::default(), Count::default());
    let result = scope::<()>(async |outer, ctx| {
        winds_down(outer, &probe, &ended);
        let value = Group::<String>::scope(&ctx, async |inner, ctx| {
            winds_down(inner, &probe, &ended);
            yields(5).await;
            assert!(!ctx.is_done());
            inner.cancel();
            Ok(1)
        });
        assert_eq!(value.await, Ok(1));
        assert_eq!(ended.get(), 1, "the inner one has ended, the outer goes on");
        assert!(!ctx.is_done());
        Group::scope(&ctx, async |inner: &G, _| {
            winds_down(inner, &probe, &ended);
            Err("from within".to_owned())
        })
        .await
    });
    assert_eq!(result.await.unwrap_err(), "from within");
    assert_eq!(ended.get(), 3);
    probe.assert_all_dropped();
}

async fn a_scope_in_a_task_of_a_scope() {
    let ended = Count::default();
    let result = scope(async |g, _| {
        for number in 0..3 {
            let ended = ended.clone();
            g.go_with(move |ctx| async move {
                Group::scope(&ctx, async move |g: &G, ctx| {
                    let counted = ended.clone();
                    g.go(async move {
                        ctx.done().await;
                        counted.add();
                        Ok(())
                    });
                    yields(5).await;
                    match number {
                        2 => Err("the third".to_owned()),
                        _ => Ok(()),
                    }
                })
                .await
            });
        }
        Ok(())
    });
    assert_eq!(result.await.unwrap_err(), "the third");
    assert_eq!(ended.get(), 3);
}

async fn the_body_takes_no_permit() {
    let result = scope(async |g, _| {
        g.set_limit(1);
        let mut sum = 0;
        for number in 0..5 {
            sum += g.spawn(async move { Ok(number) }).await?;
        }
        Ok(sum)
    });
    assert_eq!(result.await, Ok(10));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_around_it_leaves_nothing_behind() {
    let probe = Arc::new(Probe::default());
    let scope = scope::<()>(async |g, _| {
        g.go(probe.wrap(std::future::pending()));
        std::future::pending().await
    });
    let second = std::time::Duration::from_secs(1);
    assert!(tokio::time::timeout(second, scope).await.is_err());
    yields(3).await;
    probe.assert_all_dropped();
}

#[test]
fn outside_a_runtime_go_in_the_body_panics_and_the_scope_ends() {
    let scope = scope::<()>(async |g, _| {
        g.go(async { Ok(()) });
        Ok(())
    });
    let payload = panic_in(|| drop(scope.now_or_never()));
    assert!(text(payload).contains("outside a tokio runtime"));
    // One without tasks needs none.
    let value = self::scope(async |_, _| Ok(1)).now_or_never();
    assert_eq!(value, Some(Ok(1)));
}

#[tokio::test]
async fn the_kinds_of_its_failures_are_those_of_a_group() {
    // `scope` returns the error that the group's `wait` would return: by value, as the task made
    // it.
    let g = limited(1);
    g.go(async { Err("boom".to_owned()) });
    let errors = g.wait_all().await.unwrap_err();
    let kind = errors.into_iter().next().unwrap().into_kind();
    let TaskErrorKind::Failed(by_group) = kind else {
        panic!("it failed");
    };
    let by_scope = scope::<()>(async |g, _| {
        g.go(async { Err("boom".to_owned()) });
        Ok(())
    });
    assert_eq!(by_scope.await.unwrap_err(), by_group);
}
