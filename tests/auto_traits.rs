//! The auto traits of every public type. Losing one is a breaking change that no other test would
//! notice.

use std::fmt::{Debug, Display};
use std::panic::{RefUnwindSafe, UnwindSafe};

use errgroup::{
    AfterFunc, AfterFuncGuard, CancelGuard, CancelHandle, Cause, Context, ContextError, Done,
    DoneOwned, Drain, Drained, DrainedError, DrainedPhase, DrainedTask, Group, Run, Spawner,
    TaskBuilder,
};

fn send<T: Send>() {}
fn send_sync<T: Send + Sync>() {}
fn unpin<T: Unpin>() {}
fn unwind_safe<T: UnwindSafe + RefUnwindSafe>() {}
fn debug<T: Debug>() {}
fn clone<T: Clone>() {}
fn is_static<T: 'static>() {}

#[test]
fn a_context_has_all_auto_traits() {
    fn all<T: Clone + Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + Debug + Display>() {}
    all::<Context>();
    is_static::<Context>();
    fn as_context<T: AsRef<Context> + Default>() {}
    as_context::<Context>();
}

#[test]
fn guards_and_handles_are_shared_and_sent() {
    send_sync::<CancelGuard>();
    send_sync::<CancelHandle>();
    send_sync::<AfterFunc>();
    send_sync::<AfterFuncGuard>();
    clone::<CancelHandle>();
    unpin::<CancelGuard>();
    unpin::<CancelHandle>();
    unpin::<AfterFunc>();
    unpin::<AfterFuncGuard>();
    unwind_safe::<CancelGuard>();
    unwind_safe::<CancelHandle>();
    debug::<CancelGuard>();
    debug::<CancelHandle>();
    debug::<AfterFunc>();
    debug::<AfterFuncGuard>();
}

#[test]
fn causes_and_errors_are_shared_and_sent() {
    fn error<T: std::error::Error + Clone + Send + Sync + Unpin + 'static>() {}
    error::<ContextError>();
    fn cause<T: Clone + Send + Sync + Unpin + Debug + Display + 'static>() {}
    cause::<Cause>();
    unwind_safe::<Cause>();
    unwind_safe::<ContextError>();
}

#[test]
fn a_drain_is_sent_and_its_report_is_shared() {
    send::<Drain>();
    unpin::<Drain>();
    debug::<Drain>();
    fn report<T: Clone + Send + Sync + Unpin + Debug + Display + 'static>() {}
    report::<Drained>();
    report::<DrainedPhase>();
    report::<DrainedTask>();
    report::<DrainedError>();
    unwind_safe::<Drained>();
}

#[test]
fn the_futures_that_wait_are_sent_and_need_no_pin() {
    send::<Done<'static>>();
    unpin::<Done<'static>>();
    debug::<Done<'static>>();
    send::<DoneOwned>();
    unpin::<DoneOwned>();
    debug::<DoneOwned>();
    is_static::<DoneOwned>();
}

#[test]
fn run_has_the_auto_traits_of_its_future() {
    type Ready = std::future::Ready<()>;
    send::<Run<'static, Ready>>();
    unpin::<Run<'static, Ready>>();
    struct Opaque;
    debug::<Run<'static, Opaque>>();
}

#[cfg(feature = "tower")]
#[test]
fn layers_and_services_have_the_auto_traits_that_servers_need() {
    use errgroup::tower::{
        CallBody, CallFuture, Carried, ClientGone, ContextLayer, ContextService, DropOnDisconnect,
        DroppingFuture, Handlers, PropagateLayer, PropagateService, RequestBody, RequestFinished,
        ResponseBody, ResponseFuture,
    };
    fn layer<T: Clone + Send + Sync + Unpin + Debug + 'static>() {}
    layer::<ContextLayer>();
    layer::<ContextService<()>>();
    layer::<ContextLayer<DropOnDisconnect>>();
    layer::<ContextService<(), DropOnDisconnect>>();
    layer::<PropagateLayer>();
    layer::<PropagateService<()>>();
    layer::<Carried>();
    send_sync::<Handlers>();
    debug::<Handlers>();
    unwind_safe::<ContextLayer>();
    unwind_safe::<ContextService<()>>();
    unwind_safe::<Handlers>();
    fn error<T: std::error::Error + Clone + Send + Sync + 'static>() {}
    error::<ClientGone>();
    error::<RequestFinished>();
    // What is polled is what the inner one is, and no more is asked of it.
    fn polled<T: Send + Unpin + Debug + 'static>() {}
    polled::<RequestBody<()>>();
    polled::<ResponseBody<()>>();
    polled::<CallBody<()>>();
    polled::<ResponseFuture<std::future::Ready<()>>>();
    polled::<DroppingFuture<()>>();
    polled::<CallFuture<()>>();
}

#[test]
fn a_group_and_its_spawners_are_shared_and_unwind_safe() {
    send_sync::<Group<String>>();
    send_sync::<Spawner<String>>();
    send_sync::<TaskBuilder<String>>();
    unpin::<Group<String>>();
    unpin::<Spawner<String>>();
    unpin::<TaskBuilder<String>>();
    unwind_safe::<Group<String>>();
    unwind_safe::<Spawner<String>>();
    unwind_safe::<TaskBuilder<String>>();
}
