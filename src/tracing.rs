//! The spans and events of the crate: a span for each task and each item, and an event when one
//! fails or a context is cancelled.
//!
//! Without the feature `tracing`, a [`Span`] has no size and its methods are empty.
//!
//! The span of a task is a child of the span in which its group was made. The span of an item is a
//! child of the span in which its fan-out was made. The other user code of a fan-out (the iterator
//! or the stream, `f`, `on_progress`) and the function of `after_func` run in the span of the code
//! that passed them.
//!
//! A subscriber is user code. So a span is made, entered and dropped outside every lock. A panic of
//! a subscriber is discarded here, because it must not disturb the bookkeeping of the crate.

use std::fmt::Display;

/// The reason why a task or an item has not completed successfully.
#[cfg_attr(
    not(any(feature = "tracing", feature = "inspect")),
    expect(dead_code, reason = "read by the events and by a recorder only")
)]
pub(crate) enum Failure<'a> {
    Error(&'a dyn Display),
    Panic(&'a dyn Display),
    Abort {
        reason: &'a dyn Display,
        cause: Option<&'a dyn Display>,
    },
}

/// What happens to a request of a server, apart from its response.
#[cfg(feature = "tower")]
#[cfg_attr(
    not(feature = "tracing"),
    expect(dead_code, reason = "read by the events only")
)]
pub(crate) enum RequestEvent<'a> {
    ClientGone,
    TimedOut,
    Aborted {
        elapsed: std::time::Duration,
        reason: &'static str,
    },
    Panicked {
        panic: &'a str,
    },
}

#[cfg(feature = "tracing")]
mod real {
    use std::borrow::Cow;
    use std::fmt::{self, Display};
    use std::panic::Location;
    use std::time::Duration;

    use ::tracing::field::Value;
    #[cfg(feature = "tower")]
    use ::tracing::info;
    use ::tracing::level_filters::LevelFilter;
    use ::tracing::{Level, debug, error, field, info_span, warn};

    use super::Failure;
    use crate::panic;

    /// The span of a task or of an item, or the span in which a group or a fan-out was made or a
    /// function was registered. `None` without a subscriber. Boxed, so that a queued task stays
    /// small.
    pub(crate) struct Span(Option<Box<::tracing::Span>>);

    /// Calls a subscriber. Returns `None` if it panics.
    fn call<T>(subscriber: impl FnOnce() -> T) -> Option<T> {
        panic::catch(subscriber).map_err(panic::discard).ok()
    }

    /// Returns true if there may be a subscriber. This is one load of a static, and the only cost
    /// of a span if there is none.
    #[inline]
    fn has_subscriber() -> bool {
        LevelFilter::current() != LevelFilter::OFF
    }

    impl Clone for Span {
        #[inline]
        fn clone(&self) -> Span {
            Span(self.0.as_ref().and_then(|span| call(|| span.clone())))
        }
    }

    impl Drop for Span {
        #[inline]
        fn drop(&mut self) {
            self.close();
        }
    }

    impl Span {
        fn of(make: impl FnOnce() -> ::tracing::Span) -> Span {
            let span = call(make).filter(|span| !span.is_disabled());
            Span(span.map(Box::new))
        }

        pub(crate) const fn none() -> Span {
            Span(None)
        }

        /// Returns the span in which the caller runs.
        pub(crate) fn current() -> Span {
            if !has_subscriber() {
                return Span(None);
            }
            Span::of(::tracing::Span::current)
        }

        /// Makes the span of a task; `self` is the span in which its group was made.
        ///
        /// It is a child of that span, and follows from the span of the caller that starts the
        /// task. If it were a child of the caller's span, a long task of a group that lives as long
        /// as the program would keep the span of a request open. If spans of tasks are filtered
        /// out, the task runs in the group's span.
        #[inline]
        pub(crate) fn task(&self, name: Option<&str>, site: &Location<'_>) -> Span {
            if has_subscriber() {
                self.of_task(name, site)
            } else {
                Span(None)
            }
        }

        fn of_task(&self, name: Option<&str>, site: &Location<'_>) -> Span {
            let own = Span::of(|| {
                let parent = self.id();
                info_span!(target: "errgroup", parent: parent, "task", name, %site)
            });
            let Some(span) = own.0.as_deref() else {
                return self.clone();
            };
            // One call at a time: if a subscriber panicked while a panic unwinds, the process would
            // abort.
            if let Some(caller) = call(::tracing::Span::current) {
                call(|| _ = span.follows_from(&caller));
                panic::discard(caller);
            }
            own
        }

        fn id(&self) -> Option<::tracing::Id> {
            self.0.as_deref().and_then(::tracing::Span::id)
        }

        /// Makes the span of an item of a fan-out. It is a child of `self`, the span in which the
        /// fan-out was made. If spans of items are filtered out, the item runs in that span.
        #[inline]
        pub(crate) fn item(
            &self,
            name: Option<&Cow<'static, str>>,
            number: usize,
            site: &Location<'_>,
        ) -> Span {
            if has_subscriber() {
                self.of_item(name, number, site)
            } else {
                Span(None)
            }
        }

        fn of_item(
            &self,
            name: Option<&Cow<'static, str>>,
            number: usize,
            site: &Location<'_>,
        ) -> Span {
            let own = Span::of(|| {
                let name = name.map(|name| &**name);
                let parent = self.id();
                info_span!(target: "errgroup", parent: parent, "item", name, number, %site)
            });
            match own.0 {
                None => self.clone(),
                Some(_) => own,
            }
        }

        /// Closes the span. Must be called without a lock.
        #[inline]
        pub(crate) fn close(&mut self) {
            if let Some(span) = self.0.take() {
                panic::discard(span);
            }
        }
    }

    /// A span that has been entered. Dropping this leaves it.
    pub(crate) struct Entered<'a>(Option<::tracing::span::Entered<'a>>);

    impl Drop for Entered<'_> {
        #[inline]
        fn drop(&mut self) {
            if let Some(entered) = self.0.take() {
                panic::discard(entered);
            }
        }
    }

    /// Enters `span`, if there is one, around a poll or a drop.
    #[inline]
    pub(crate) fn enter(span: Option<&Span>) -> Entered<'_> {
        let span = span.and_then(|span| span.0.as_deref());
        Entered(span.and_then(|span| call(|| span.enter())))
    }

    /// Emits the event for a task or an item that failed, panicked or was aborted.
    pub(crate) fn failed(
        name: Option<&str>,
        site: &Location<'_>,
        elapsed: Duration,
        failure: Failure<'_>,
    ) {
        call(|| {
            macro_rules! say {
                ($event:ident, $message:literal, $($field:tt)+) => {
                    $event!(target: "errgroup", name, %site, ?elapsed, $($field)+, $message)
                };
            }
            match failure {
                Failure::Error(error) => {
                    say!(warn, "task failed", error = %format_args!("{error:#}"));
                }
                Failure::Panic(panic) => say!(error, "task panicked", panic = %panic),
                Failure::Abort { reason, cause } => {
                    say!(debug, "task aborted", error = %reason, cause = cause.map(whole))
                }
            }
        });
    }

    /// Emits the event for something that happens to a request.
    #[cfg(feature = "tower")]
    pub(crate) fn request(method: &str, path: &str, event: super::RequestEvent<'_>) {
        use super::RequestEvent::{Aborted, ClientGone, Panicked, TimedOut};
        if !has_subscriber() {
            return;
        }
        macro_rules! say {
            ($event:ident, $message:literal $(, $($field:tt)+)?) => {
                $event!(target: "errgroup", %method, %path, $($($field)+,)? $message)
            };
        }
        call(|| match event {
            ClientGone => say!(debug, "client disconnected"),
            TimedOut => say!(info, "request timed out"),
            Aborted { elapsed, reason } => say!(warn, "handler aborted", ?elapsed, %reason),
            Panicked { panic } => say!(error, "handler panicked", %panic),
        });
    }

    /// Returns a cause as a field that contains its sources.
    fn whole(cause: &dyn Display) -> impl Value + '_ {
        struct Whole<'a>(&'a dyn Display);

        impl Display for Whole<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#}", self.0)
            }
        }

        field::display(Whole(cause))
    }

    /// Emits the event for a context that user code cancels, unless the context is done already.
    pub(crate) fn cancelled(is_done: impl FnOnce() -> bool, cause: Option<&dyn Display>) {
        call(|| {
            if ::tracing::enabled!(target: "errgroup", Level::DEBUG) && !is_done() {
                debug!(target: "errgroup", cause = cause.map(whole), "context cancelled");
            }
        });
    }
}

#[cfg(not(feature = "tracing"))]
mod none {
    use std::borrow::Cow;
    use std::fmt::Display;
    use std::marker::PhantomData;
    use std::panic::Location;
    use std::time::Duration;

    use super::Failure;

    #[derive(Clone)]
    pub(crate) struct Span;

    impl Span {
        pub(crate) const fn none() -> Span {
            Span
        }

        pub(crate) fn current() -> Span {
            Span
        }

        pub(crate) fn task(&self, _: Option<&str>, _: &Location<'_>) -> Span {
            Span
        }

        pub(crate) fn item(
            &self,
            _: Option<&Cow<'static, str>>,
            _: usize,
            _: &Location<'_>,
        ) -> Span {
            Span
        }

        pub(crate) fn close(&mut self) {}
    }

    pub(crate) struct Entered<'a>(PhantomData<&'a ()>);

    pub(crate) fn enter(_: Option<&Span>) -> Entered<'_> {
        Entered(PhantomData)
    }

    pub(crate) fn failed(_: Option<&str>, _: &Location<'_>, _: Duration, _: Failure<'_>) {}

    pub(crate) fn cancelled(_: impl FnOnce() -> bool, _: Option<&dyn Display>) {}

    #[cfg(feature = "tower")]
    pub(crate) fn request(_: &str, _: &str, _: super::RequestEvent<'_>) {}
}

#[cfg(not(feature = "tracing"))]
pub(crate) use none::*;
#[cfg(feature = "tracing")]
pub(crate) use real::*;
