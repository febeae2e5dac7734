//! `ContextError::find` in each way in which one error can be inside another, and
//! `Context::shield`.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::Context as _;
use errgroup::{Cause, Context, ContextError, Errors, Group};

use crate::support::{Down, state};

type Boxed = Box<dyn Error + Send + Sync>;

/// The error of a context that was cancelled because a server is down.
fn cancelled() -> ContextError {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with(Down("eu-1"));
    ctx.err().unwrap()
}

fn deadline() -> ContextError {
    Context::background()
        .with_timeout(Duration::ZERO)
        .err()
        .unwrap()
}

/// Asserts that the error contains that of `cancelled()`.
#[track_caller]
fn assert_found(error: &(dyn Error + 'static)) {
    let found = ContextError::find(error).expect("there is one");
    assert!(found.is_cancelled());
    assert!(found.caused_by::<Down>());
}

/// An error with its source.
#[derive(Debug, thiserror::Error)]
#[error("around")]
struct Around<S: Error + 'static>(#[source] S);

#[derive(Debug, thiserror::Error)]
enum Transparent {
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

#[test]
fn the_error_itself_is_found() {
    let error = cancelled();
    assert!(std::ptr::eq(ContextError::find(&error).unwrap(), &error));
    assert!(
        ContextError::find(&deadline())
            .unwrap()
            .is_deadline_exceeded()
    );
}

#[test]
fn a_source_is_found_at_any_depth() {
    assert_found(&Around(cancelled()));
    assert_found(&Around(Around(Around(cancelled()))));
}

#[test]
fn an_error_inside_an_io_error_is_found() {
    assert_found(&io::Error::from(cancelled()));
    assert_found(&io::Error::other(Around(io::Error::from(cancelled()))));
    assert_found(&Around(io::Error::other(io::Error::from(cancelled()))));
}

#[test]
fn an_error_that_is_displayed_transparently_is_found() {
    assert_found(&Transparent::from(cancelled()));
    assert_found(&Around(Transparent::from(cancelled())));
    assert_found(&Transparent::from(io::Error::from(cancelled())));
    assert_found(&io::Error::other(Transparent::from(cancelled())));
}

#[test]
fn an_error_inside_a_cause_is_found() {
    assert_found(&*Cause::from(cancelled()));
    let error: std::sync::Arc<dyn Error + Send + Sync> = Cause::from(cancelled()).into_error();
    assert_found(&error);
    // The first one counts: the context above ended for its own reason.
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with(deadline());
    assert!(
        ContextError::find(&ctx.err().unwrap())
            .unwrap()
            .is_cancelled()
    );
}

#[test]
fn an_error_inside_an_anyhow_error_is_found() {
    let plain = anyhow::Error::from(cancelled());
    assert_found(plain.as_ref());
    let error = Err::<(), _>(io::Error::from(cancelled())).context("cannot read");
    assert_found(error.unwrap_err().context("cannot load").as_ref());
    let boxed: Boxed = anyhow::Error::from(cancelled()).context("boxed").into();
    assert_found(&*boxed);
}

#[test]
fn nothing_is_found_where_there_is_none() {
    assert!(ContextError::find(&Down("eu-1")).is_none());
    assert!(ContextError::find(&Around(io::Error::other("full"))).is_none());
    assert!(ContextError::find(&io::Error::from(io::ErrorKind::TimedOut)).is_none());
}

/// The errors of a group in which one task fails with `error`, or waits until it is aborted.
fn errors<E>(errors: Vec<Option<E>>) -> Errors<E>
where
    E: From<ContextError> + fmt::Debug + fmt::Display + Send + 'static,
{
    let runtime = crate::group_support::current_thread();
    runtime.block_on(async {
        let g = Group::<E>::new();
        for error in errors {
            match error {
                Some(error) => drop(g.go(async { Err(error) })),
                None => drop(g.go(std::future::pending())),
            }
        }
        crate::group_support::yields(20).await;
        g.abort();
        g.wait_all().await.unwrap_err()
    })
}

#[test]
fn an_error_of_a_task_is_found_in_errors() {
    // A task that was aborted.
    let aborted = errors::<String>(vec![None]);
    assert!(ContextError::find(&aborted).unwrap().is_cancelled());
    assert!(ContextError::find(aborted.iter().next().unwrap()).is_some());
    // A task that has returned one, in each type that is looked into.
    assert_found(&errors::<ContextError>(vec![Some(cancelled())]));
    assert_found(&errors::<io::Error>(vec![Some(cancelled().into())]));
    assert_found(&errors::<Boxed>(vec![Some(Around(cancelled()).into())]));
    assert_found(&Around(errors::<io::Error>(vec![Some(cancelled().into())])));
    // Of several, the first that there is.
    let later = errors::<io::Error>(vec![
        Some(io::Error::other("full")),
        Some(cancelled().into()),
    ]);
    assert_found(&later);
    let none = errors::<String>(vec![Some("full".to_owned())]);
    assert!(ContextError::find(&none).is_none());
}

#[test]
fn the_source_is_the_cause_and_stays_so_after_a_search() {
    let error = Transparent::from(cancelled());
    assert_found(&error);
    assert_eq!(error.source().unwrap().to_string(), "eu-1 is down");
    let aborted = errors::<String>(vec![None]);
    assert!(ContextError::find(&aborted).is_some());
    // The cause is in the text, so the source is that of the cause.
    assert!(
        aborted
            .to_string()
            .ends_with("was stopped: the group was aborted")
    );
    assert!(aborted.source().is_none());
}

#[test]
fn a_panic_of_a_source_ends_the_search() {
    #[derive(Debug)]
    struct Panics;

    impl fmt::Display for Panics {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            Ok(())
        }
    }

    impl Error for Panics {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            panic!("in source")
        }
    }

    drop(crate::group_support::panic_in(|| {
        ContextError::find(&Panics).is_some()
    }));
    assert_eq!(cancelled().source().unwrap().to_string(), "eu-1 is down");
}

#[tokio::test(start_paused = true)]
async fn a_shield_lives_after_its_parent_and_ends_by_itself() {
    let (ctx, guard) = Context::background().with_value(7_u8).with_cancel();
    guard.cancel();
    let shield = ctx.shield(Duration::from_secs(5));
    assert_eq!(shield.value::<u8>(), Some(&7));
    assert_eq!(shield.remaining(), Some(Duration::from_secs(5)));
    assert!(shield.sleep(Duration::from_secs(4)).await.is_ok());
    assert!(shield.done().await.is_deadline_exceeded());
    assert_eq!(state(&shield), "context deadline exceeded");
}

#[tokio::test(start_paused = true)]
async fn a_shield_ignores_the_deadline_and_a_later_cancel_of_its_parent() {
    let (ctx, guard) = Context::background()
        .with_timeout(Duration::from_secs(1))
        .with_cancel();
    let shield = ctx.shield(Duration::from_secs(5));
    assert!(shield.sleep(Duration::from_secs(2)).await.is_ok());
    guard.cancel();
    assert!(shield.check().is_ok());
    assert_eq!(shield.remaining(), Some(Duration::from_secs(3)));
    assert!(ctx.shield(Duration::ZERO).is_done());
}
