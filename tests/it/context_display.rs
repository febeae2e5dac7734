//! How contexts print.

use errgroup::Context;
use tokio::time;

use crate::support::{HOUR, ms};

struct RequestId;

#[test]
fn a_root_prints_its_name() {
    assert_eq!(Context::background().to_string(), "context.Background");
    assert_eq!(Context::todo().to_string(), "context.TODO");
}

#[tokio::test(start_paused = true)]
async fn a_context_prints_its_ancestry_in_gos_form() {
    let (ctx, _guard) = Context::background().with_cancel();
    let ctx = ctx.with_timeout(ms(1_500)).with_value(RequestId);
    let value = std::any::type_name::<RequestId>();
    assert_eq!(
        ctx.to_string(),
        format!("context.Background.WithCancel.WithDeadline(.. [1.5s]).WithValue({value})")
    );
    assert_eq!(
        ctx.without_cancel().merge(&Context::todo()).to_string(),
        format!("{ctx}.WithoutCancel.Merge(..)")
    );
}

#[tokio::test(start_paused = true)]
async fn a_deadline_prints_what_is_left_of_it() {
    let ctx = Context::todo().with_timeout(ms(1_500));
    time::advance(ms(1_000)).await;
    assert_eq!(ctx.to_string(), "context.TODO.WithDeadline(.. [500ms])");
    time::advance(HOUR).await;
    assert_eq!(ctx.to_string(), "context.TODO.WithDeadline(.. [0ns])");
}

#[test]
fn a_value_is_named_by_its_type_and_never_printed() {
    let ctx = Context::background().with_value("secret".to_owned());
    assert_eq!(
        ctx.to_string(),
        "context.Background.WithValue(alloc::string::String)"
    );
    assert!(!format!("{ctx:?}").contains("secret"));
}

#[test]
fn debug_shows_the_ancestry_and_the_end() {
    let (ctx, guard) = Context::background().with_cancel();
    let debug = format!("{ctx:?}");
    assert!(debug.contains("context.Background.WithCancel"), "{debug}");
    assert!(debug.contains("err: None"), "{debug}");
    guard.cancel_with("stop");
    let debug = format!("{ctx:?}");
    assert!(debug.contains("Cancelled"), "{debug}");
    assert!(debug.contains("stop"), "{debug}");
}

#[test]
fn everything_public_has_a_debug_that_names_it() {
    let (ctx, guard) = Context::background().with_cancel();
    assert!(format!("{guard:?}").starts_with("CancelGuard"));
    assert!(format!("{:?}", guard.handle()).starts_with("CancelHandle"));
    assert!(format!("{:?}", ctx.done()).starts_with("Done"));
    assert!(format!("{:?}", ctx.done_owned()).starts_with("DoneOwned"));
    assert!(format!("{:?}", ctx.run(async {})).starts_with("Run"));
    let after = Context::background().after_func(|| ());
    assert!(format!("{after:?}").starts_with("AfterFunc"));
}
