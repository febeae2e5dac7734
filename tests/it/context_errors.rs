//! `ContextError` and `Cause`: what they say, what they come from, what they turn into.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use errgroup::{Cause, Context, ContextError};

use crate::support::{Down, Drops, GUARD_DROPPED, chain, err};

fn cancelled(cause: impl Into<Cause>) -> ContextError {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel_with(cause);
    err(&ctx)
}

fn cancelled_without_cause() -> ContextError {
    let (ctx, guard) = Context::background().with_cancel();
    guard.cancel();
    err(&ctx)
}

fn deadline_exceeded() -> ContextError {
    err(&Context::background().with_timeout(Duration::ZERO))
}

#[derive(Debug, thiserror::Error)]
#[error("no pages")]
struct NoPages(#[source] Down);

#[test]
fn the_text_of_an_error_is_gos() {
    assert_eq!(cancelled("stop").to_string(), "context cancelled");
    assert_eq!(deadline_exceeded().to_string(), "context deadline exceeded");
}

#[test]
fn an_error_is_of_one_kind_or_the_other() {
    assert!(cancelled("stop").is_cancelled());
    assert!(!cancelled("stop").is_deadline_exceeded());
    assert!(deadline_exceeded().is_deadline_exceeded());
    assert!(!deadline_exceeded().is_cancelled());
}

#[test]
fn the_source_of_an_error_is_the_cause_and_can_be_downcast() {
    let error = cancelled(NoPages(Down("eu-1")));
    let source = error.source().unwrap();
    assert_eq!(source.to_string(), "no pages");
    let own = source.downcast_ref::<NoPages>().unwrap();
    assert!(std::ptr::eq(
        own,
        error.cause().unwrap().downcast_ref::<NoPages>().unwrap()
    ));
    assert_eq!(chain(&error), "context cancelled: no pages: eu-1 is down");
}

#[test]
fn an_error_without_a_cause_has_no_source() {
    for error in [cancelled_without_cause(), deadline_exceeded()] {
        assert!(error.cause().is_none());
        assert!(error.source().is_none());
    }
}

#[test]
fn a_clone_of_an_error_shares_its_cause() {
    let drops = Drops::default();
    let error = cancelled(Counted(drops.counted()));
    let clone = error.clone();
    assert_eq!(chain(&clone), chain(&error));
    drop(error);
    assert_eq!(drops.count(), 0);
    drop(clone);
    assert_eq!(drops.count(), 1);
}

/// An error that counts its drops.
struct Counted<T>(#[allow(dead_code, reason = "it is there to be dropped")] T);

impl<T> fmt::Debug for Counted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl<T> fmt::Display for Counted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counted")
    }
}

impl<T> Error for Counted<T> {}

#[test]
fn a_cause_is_made_from_whatever_turns_into_a_boxed_error() {
    let boxed: Box<dyn Error + Send + Sync> = Box::new(Down("boxed"));
    let causes: [(Cause, &str); 6] = [
        ("a literal".into(), "a literal"),
        (String::from("a string").into(), "a string"),
        (Down("typed").into(), "typed is down"),
        (boxed.into(), "boxed is down"),
        (anyhow::anyhow!("from anyhow").into(), "from anyhow"),
        (
            io::Error::from(io::ErrorKind::NotFound).into(),
            "entity not found",
        ),
    ];
    for (cause, text) in causes {
        assert_eq!(cause.to_string(), text);
        assert_eq!(cancelled(cause).source().unwrap().to_string(), text);
    }
}

#[test]
fn a_cause_is_a_cause_again() {
    let cause = Cause::from(Down("eu-1"));
    let error = cancelled(cause.clone());
    assert!(std::ptr::eq(
        cause.downcast_ref::<Down>().unwrap(),
        error.cause().unwrap().downcast_ref::<Down>().unwrap()
    ));
}

#[test]
fn a_context_error_can_be_the_cause_of_another_context() {
    let error = cancelled(cancelled("the first"));
    assert_eq!(
        chain(&error),
        "context cancelled: context cancelled: the first"
    );
    let inner = error.source().unwrap().downcast_ref::<ContextError>();
    assert!(inner.unwrap().is_cancelled());
}

#[test]
fn a_cause_derefs_to_the_error_that_it_is() {
    let cause = Cause::from(NoPages(Down("eu-1")));
    assert!(cause.is::<NoPages>());
    assert!(cause.downcast_ref::<Down>().is_none());
    assert_eq!(cause.source().unwrap().to_string(), "eu-1 is down");
    let error: &(dyn Error + Send + Sync) = &*cause;
    assert_eq!(chain(error), "no pages: eu-1 is down");
}

#[test]
fn a_cause_prints_as_its_error_does() {
    let cause = Cause::from(Down("eu-1"));
    assert_eq!(format!("{cause}"), "eu-1 is down");
    assert_eq!(format!("{cause:?}"), format!("{:?}", Down("eu-1")));
    assert_eq!(format!("{cause:>14}|"), format!("{:>14}|", Down("eu-1")));
    assert_eq!(format!("{cause:#}"), "eu-1 is down");
    let cause = Cause::from(NoPages(Down("eu-1")));
    assert_eq!(format!("{cause}"), "no pages");
    assert_eq!(format!("{cause:#}"), "no pages: eu-1 is down");
}

#[test]
fn a_clone_of_a_cause_is_the_same_error() {
    let cause = Cause::from(Down("eu-1"));
    let clone = cause.clone();
    assert!(std::ptr::eq(
        cause.downcast_ref::<Down>().unwrap(),
        clone.downcast_ref::<Down>().unwrap()
    ));
}

#[test]
fn into_error_keeps_the_text_the_source_and_the_type() {
    let error = Cause::from(NoPages(Down("eu-1"))).into_error();
    assert!((*error).is::<NoPages>());
    assert_eq!(chain(&*error), "no pages: eu-1 is down");
    let back = Cause::from(Box::<dyn Error + Send + Sync>::from(Wrapped(error)));
    assert_eq!(back.to_string(), "wrapped");
}

/// `into_error` is for fields like this one.
#[derive(Debug, thiserror::Error)]
#[error("wrapped")]
struct Wrapped(#[source] Arc<dyn Error + Send + Sync>);

#[test]
fn the_crates_own_causes_are_errors_too() {
    let (ctx, _) = Context::background().with_cancel();
    let cause = ctx.cause().unwrap();
    assert_eq!(cause.to_string(), GUARD_DROPPED);
    assert!(cause.source().is_none());
    assert_eq!(cause.into_error().to_string(), GUARD_DROPPED);
}

#[test]
fn an_error_becomes_an_io_error_of_the_right_kind() {
    let error = io::Error::from(deadline_exceeded());
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let error = io::Error::from(cancelled(Down("eu-1")));
    assert_eq!(error.kind(), io::ErrorKind::Other);
    let inner = error.get_ref().unwrap().downcast_ref::<ContextError>();
    assert_eq!(chain(inner.unwrap()), "context cancelled: eu-1 is down");
}

#[test]
fn an_error_turns_into_text() {
    assert_eq!(String::from(cancelled("stop")), "context cancelled");
    let text: &'static str = deadline_exceeded().into();
    assert_eq!(text, "context deadline exceeded");
}

#[test]
fn the_question_mark_turns_an_error_into_simple_error_types() {
    fn io(ctx: &Context) -> io::Result<()> {
        Ok(ctx.check()?)
    }
    fn string(ctx: &Context) -> Result<(), String> {
        Ok(ctx.check()?)
    }
    fn literal(ctx: &Context) -> Result<(), &'static str> {
        Ok(ctx.check()?)
    }
    fn boxed(ctx: &Context) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(ctx.check()?)
    }
    fn any(ctx: &Context) -> anyhow::Result<()> {
        Ok(ctx.check()?)
    }
    let (ctx, guard) = Context::background().with_cancel();
    assert!(io(&ctx).is_ok() && string(&ctx).is_ok() && literal(&ctx).is_ok());
    assert!(boxed(&ctx).is_ok() && any(&ctx).is_ok());
    guard.cancel_with(Down("eu-1"));
    let text = "context cancelled";
    assert_eq!(io(&ctx).unwrap_err().to_string(), text);
    assert_eq!(string(&ctx).unwrap_err(), text);
    assert_eq!(literal(&ctx).unwrap_err(), text);
    assert_eq!(boxed(&ctx).unwrap_err().to_string(), text);
    assert_eq!(any(&ctx).unwrap_err().to_string(), text);
}

#[test]
fn anyhow_prints_why_and_finds_the_error_and_its_cause() {
    let report = anyhow::Error::from(cancelled(Down("eu-1"))).context("fetching the pages");
    assert_eq!(
        format!("{report:#}"),
        "fetching the pages: context cancelled: eu-1 is down"
    );
    assert!(
        report
            .downcast_ref::<ContextError>()
            .unwrap()
            .is_cancelled()
    );
    assert_eq!(
        report.root_cause().downcast_ref::<Down>(),
        Some(&Down("eu-1"))
    );
}

#[test]
fn a_cause_from_anyhow_keeps_its_whole_chain() {
    let cause = anyhow::Error::from(Down("eu-1")).context("no pages");
    let error = cancelled(cause);
    assert_eq!(chain(&error), "context cancelled: no pages: eu-1 is down");
    let root = error.source().unwrap().source().unwrap();
    assert_eq!(root.downcast_ref::<Down>(), Some(&Down("eu-1")));
}

/// anyhow boxes a wrapper of its own: see the documentation of `Cause`.
#[test]
fn the_outermost_error_of_an_anyhow_cause_cannot_be_downcast() {
    let cause = Cause::from(anyhow::Error::from(NoPages(Down("eu-1"))));
    assert_eq!(cause.to_string(), "no pages");
    assert_eq!(format!("{cause:#}"), "no pages: eu-1 is down");
    assert!(!cause.is::<NoPages>());
    assert!(cause.source().unwrap().is::<Down>());
}

#[test]
fn what_is_behind_a_context_of_anyhow_can_be_downcast() {
    let report = anyhow::Error::from(NoPages(Down("eu-1"))).context("at start");
    let cause = Cause::from(report.context("at boot"));
    assert_eq!(
        format!("{cause:#}"),
        "at boot: at start: no pages: eu-1 is down"
    );
    let inner = cause.source().and_then(Error::source).unwrap();
    assert!(inner.is::<NoPages>());
    assert!(inner.source().unwrap().is::<Down>());
}

#[test]
fn an_anyhow_error_that_is_reallocated_keeps_its_type() {
    let report = anyhow::Error::from(NoPages(Down("eu-1")));
    let cause = Cause::from(report.reallocate_into_boxed_dyn_error_without_backtrace());
    assert!(cause.is::<NoPages>());
    assert_eq!(chain(&*cause), "no pages: eu-1 is down");
}
