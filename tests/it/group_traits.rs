//! The traits of the public types, and how they are used in a user's code.

use std::error::Error;
use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex};

use errgroup::{
    Admission, Admitted, Context, ContextError, Group, Spawner, TryGoError, fan_out, fetch_all,
};

use crate::group_support::*;

both_flavours![
    an_error_may_be_an_anyhow_error,
    siblings_see_the_whole_chain_of_an_anyhow_error,
    siblings_in_a_scope_see_the_whole_chain_of_its_bodys_error,
    items_see_the_whole_chain_of_an_anyhow_error,
    an_error_may_be_a_boxed_error,
    an_error_may_be_an_io_error,
    an_error_may_be_a_string,
    an_error_may_be_a_literal,
    an_error_may_be_a_thiserror_enum,
    wait_can_be_spawned,
    a_bare_go_compiles_under_denied_lints,
];

fn is_send<T: Send>(_: &T) {}
fn is_send_and_sync<T: Send + Sync>() {}

#[test]
fn group_admission_and_spawner_are_send_and_sync() {
    use std::cell::Cell;

    /// An error that is `Send` and not `Sync`.
    struct OnlySend(#[expect(dead_code, reason = "it makes the type not Sync")] Cell<u8>);

    impl Display for OnlySend {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("only Send")
        }
    }

    impl From<ContextError> for OnlySend {
        fn from(_: ContextError) -> OnlySend {
            OnlySend(Cell::new(0))
        }
    }

    is_send_and_sync::<Group<OnlySend>>();
    is_send_and_sync::<Spawner<OnlySend>>();
    is_send_and_sync::<Admission>();
    is_send_and_sync::<Admitted>();
    is_send_and_sync::<TryGoError<()>>();
    is_send(&Group::<OnlySend>::new().wait());
}

#[test]
fn a_parent_may_be_a_context_or_a_reference_to_one_or_to_that() {
    let parent = Context::background();
    let once = &parent;
    let twice = &once;
    let _ = G::with_context(once);
    let _ = G::with_context(twice);
    let _ = G::with_context(parent);
}

/// Has a task fail with `error`, and another be stopped by the group.
async fn ends_with<E>(error: E) -> (E, E)
where
    E: From<ContextError> + Display + Send + 'static,
{
    let text = error.to_string();
    let (g, ctx) = Group::<E>::with_context(Context::background());
    g.go(async { Err(error) });
    let failed = g.wait().await.unwrap_err();
    assert_eq!(ctx.cause().unwrap().to_string(), text);

    let (g, _ctx) = Group::<E>::with_context(Context::background());
    g.cancel_with("enough");
    g.go(async { Ok(()) });
    let stopped = g.wait().await.unwrap_err();
    assert!(stopped.to_string().starts_with("context cancelled"));
    (failed, stopped)
}

const CHAIN: &str = "cannot save: disk full";

fn cannot_save() -> anyhow::Error {
    anyhow::anyhow!("disk full").context("cannot save")
}

async fn siblings_see_the_whole_chain_of_an_anyhow_error() {
    let (g, ctx) = Group::<anyhow::Error>::with_context(Context::background());
    let sibling = ctx.clone();
    g.go(async move {
        let seen = sibling.done().await;
        assert_eq!(seen.cause().unwrap().to_string(), CHAIN);
        Ok(())
    });
    g.go(async { Err(cannot_save()) });
    g.wait().await.unwrap_err();
    assert_eq!(ctx.cause().unwrap().to_string(), CHAIN);
}

async fn siblings_in_a_scope_see_the_whole_chain_of_its_bodys_error() {
    let parent = Context::background();
    let failed = Group::<anyhow::Error>::scope(&parent, async |g, ctx| {
        g.go(async move {
            let seen = ctx.done().await;
            assert_eq!(seen.cause().unwrap().to_string(), CHAIN);
            Ok(())
        });
        Err::<(), _>(cannot_save())
    });
    assert_eq!(format!("{:#}", failed.await.unwrap_err()), CHAIN);
}

async fn items_see_the_whole_chain_of_an_anyhow_error() {
    for local in [false, true] {
        let seen = Arc::new(Mutex::new(None));
        let (ctx, sees) = (Context::background(), seen.clone());
        let items = fan_out(&ctx, 0..2, move |ctx, item| {
            let sees = sees.clone();
            async move {
                if item == 1 {
                    return Err(cannot_save());
                }
                let error = ctx.done().await;
                *sees.lock().unwrap() = error.cause().map(ToString::to_string);
                Ok(item)
            }
        });
        let items = items.limit(2).grace(PATIENCE);
        let failed = if local {
            items.local().all().await
        } else {
            items.all().await
        };
        assert_eq!(format!("{:#}", failed.unwrap_err()), CHAIN);
        assert_eq!(seen.lock().unwrap().as_deref(), Some(CHAIN));
    }
}

async fn an_error_may_be_an_anyhow_error() {
    let (failed, stopped) = ends_with(anyhow::anyhow!("boom")).await;
    assert_eq!(failed.to_string(), "boom");
    assert_eq!(format!("{stopped:#}"), "context cancelled: enough");
}

async fn an_error_may_be_a_boxed_error() {
    let (failed, stopped) = ends_with::<Box<dyn Error + Send + Sync>>("boom".into()).await;
    assert_eq!(failed.to_string(), "boom");
    assert!(
        stopped
            .downcast_ref::<ContextError>()
            .unwrap()
            .is_cancelled()
    );
}

async fn an_error_may_be_an_io_error() {
    let (failed, stopped) = ends_with(io::Error::from(io::ErrorKind::NotFound)).await;
    assert_eq!(failed.kind(), io::ErrorKind::NotFound);
    assert_eq!(stopped.kind(), io::ErrorKind::Other);
}

async fn an_error_may_be_a_string() {
    let (failed, stopped) = ends_with("boom".to_owned()).await;
    assert_eq!((&*failed, &*stopped), ("boom", "context cancelled"));
}

async fn an_error_may_be_a_literal() {
    assert_eq!(ends_with("boom").await, ("boom", "context cancelled"));
}

async fn an_error_may_be_a_thiserror_enum() {
    #[derive(Debug, thiserror::Error)]
    enum Mine {
        #[error("page {0} is missing")]
        Missing(u32),
        #[error(transparent)]
        Stopped(#[from] ContextError),
    }

    let (failed, stopped) = ends_with(Mine::Missing(7)).await;
    assert!(matches!(failed, Mine::Missing(7)));
    assert!(matches!(stopped, Mine::Stopped(end) if end.is_cancelled()));
}

async fn wait_can_be_spawned() {
    let (g, _ctx) = group();
    g.go(async { Ok(()) });
    assert_eq!(tokio::spawn(g.wait()).await.unwrap(), OK);

    let all = {
        let ctx = Context::background();
        fetch_all(&ctx, 2, vec![1, 2], |_, item| async move {
            Ok::<_, String>(item)
        })
    };
    assert_eq!(tokio::spawn(all).await.unwrap().unwrap(), [1, 2]);
}

#[deny(unused_must_use, clippy::all, clippy::let_underscore_future)]
async fn a_bare_go_compiles_under_denied_lints() {
    let (g, _ctx) = group();
    g.go(async { Ok(()) });
    g.go_with(|_| async { Ok(()) });
    g.go(async { Ok(()) }).await;
    let spawner = g.spawner();
    spawner.go(async { Ok(()) });
    spawner.go_with(|_| async { Ok(()) }).await;
    assert_eq!(g.wait().await, OK);
}

#[test]
fn debug_shows_the_counts() {
    current_thread().block_on(async {
        let g = limited(1);
        let admission = g.go(std::future::pending());
        let queued = g.go(async { Ok(()) });
        let shown = format!("{g:?}");
        assert_eq!(
            shown,
            "Group { running: 1, queued: 1, limit: Some(1), waited_for: false, .. }"
        );
        assert_eq!(
            format!("{admission:?}"),
            "Admission { started: Some(true), .. }"
        );
        assert_eq!(format!("{queued:?}"), "Admission { started: None, .. }");
        let spawner = g.spawner();
        assert_eq!(format!("{spawner:?}"), "Spawner { gone: false, .. }");
    });
}
