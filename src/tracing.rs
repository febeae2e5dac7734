//! What the crate says to `tracing`: a span for each task and each item, and an event for what stops one.
//!
//! Without the feature all of this is nothing: a [`Span`] has no size, and its methods no body.
//!
//! A task's span is a child of the span in which its group was made, and an item's of the span in
//! which its fan-out was made. All else of the user's that runs for a fan-out (the iterator or the
//! stream, `f`, `on_progress`) and the function of `after_func` run in the span of the code that
//! gave them.
//!
//! A subscriber is user code. So a span is made, entered and dropped outside every lock; and since nothing of ours may be lost with
//! a subscriber that panics, its panics are dropped here.

use std::fmt::Display;

/// How a task, or an item, has ended that has not ended well.
#[cfg_attr(
    not(feature = "tracing"),
    expect(dead_code, reason = "no event says so")
)]
pub(crate) enum Failure<'a> {
    Error(&'a dyn Display),
    Panic(&'a dyn Display),
    Abort {
        reason: &'a dyn Display,
        cause: Option<&'a dyn Display>,
    },
}

#[cfg(feature = "tracing")]
mod real {
    use std::borrow::Cow;
    use std::fmt::{self, Display};
    use std::panic::Location;
    use std::time::Duration;

    use ::tracing::field::Value;
    use ::tracing::level_filters::LevelFilter;
    use ::tracing::{Level, debug, error, field, info_span, warn};

    use super::Failure;
    use crate::panic;

    /// The span of a task, of an item, or of the code that makes a group or a fan-out or registers
    /// a function; `None` without a subscriber. Boxed, since tasks wait with it.
    pub(crate) struct Span(Option<Box<::tracing::Span>>);

    /// What a subscriber makes of something; `None` if it panics.
    fn ask<T>(subscriber: impl FnOnce() -> T) -> Option<T> {
        panic::catch(subscriber).map_err(panic::discard).ok()
    }

    /// One load of a static, and all that a span takes where there is no subscriber.
    #[inline]
    fn somebody_listens() -> bool {
        LevelFilter::current() != LevelFilter::OFF
    }

    impl Clone for Span {
        #[inline]
        fn clone(&self) -> Span {
            Span(self.0.as_ref().and_then(|span| ask(|| span.clone())))
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
            let span = ask(make).filter(|span| !span.is_disabled());
            Span(span.map(Box::new))
        }

        pub(crate) const fn none() -> Span {
            Span(None)
        }

        /// That in which the caller runs.
        pub(crate) fn current() -> Span {
            if !somebody_listens() {
                return Span(None);
            }
            Span::of(::tracing::Span::current)
        }

        /// Makes the span of a task; `self` is the span in which its group was made.
        ///
        /// It is a child of that span and follows from the caller's, in which the task is started.
        /// So a task of a group that lives as long as the program does not keep the span of a
        /// request open. If spans of tasks are filtered out, the task runs in the group's span.
        #[inline]
        pub(crate) fn task(&self, name: Option<&str>, site: &Location<'_>) -> Span {
            if somebody_listens() {
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
            // One question at a time: two panics of a subscriber would end the process.
            if let Some(caller) = ask(::tracing::Span::current) {
                ask(|| _ = span.follows_from(&caller));
                panic::discard(caller);
            }
            own
        }

        fn id(&self) -> Option<::tracing::Id> {
            self.0.as_deref().and_then(::tracing::Span::id)
        }

        /// Makes the span of an item of a fan-out: a child of `self`, the span in which the fan-out
        /// was made. If spans of items are filtered out, the item runs in that one.
        #[inline]
        pub(crate) fn item(
            &self,
            name: Option<&Cow<'static, str>>,
            number: usize,
            site: &Location<'_>,
        ) -> Span {
            match somebody_listens() {
                true => self.of_item(name, number, site),
                false => Span(None),
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

        /// Closes it, where no lock is held.
        #[inline]
        pub(crate) fn close(&mut self) {
            if let Some(span) = self.0.take() {
                panic::discard(span);
            }
        }
    }

    /// A span that has been entered, until this is dropped.
    pub(crate) struct Entered<'a>(Option<::tracing::span::Entered<'a>>);

    impl Drop for Entered<'_> {
        #[inline]
        fn drop(&mut self) {
            if let Some(entered) = self.0.take() {
                panic::discard(entered);
            }
        }
    }

    /// Enters the span of what is polled or dropped next, if there is one.
    #[inline]
    pub(crate) fn enter(span: Option<&Span>) -> Entered<'_> {
        let span = span.and_then(|span| span.0.as_deref());
        Entered(span.and_then(|span| ask(|| span.enter())))
    }

    /// A task, or an item, has not ended well.
    pub(crate) fn failed(
        name: Option<&str>,
        site: &Location<'_>,
        elapsed: Duration,
        failure: Failure<'_>,
    ) {
        ask(|| {
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

    /// A cause as a field, with its sources.
    fn whole(cause: &dyn Display) -> impl Value + '_ {
        struct Whole<'a>(&'a dyn Display);

        impl Display for Whole<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#}", self.0)
            }
        }

        field::display(Whole(cause))
    }

    /// Somebody ends a context by hand, unless that has ended.
    pub(crate) fn cancelled(has_ended: impl FnOnce() -> bool, cause: Option<&dyn Display>) {
        ask(|| {
            if ::tracing::enabled!(target: "errgroup", Level::DEBUG) && !has_ended() {
                debug!(target: "errgroup", cause = cause.map(whole), "context cancelled");
            }
        });
    }
}

#[cfg(not(feature = "tracing"))]
mod none {
    use std::borrow::Cow;
    use std::fmt::Display;
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

    pub(crate) struct Entered;

    // It is dropped by name, as the other is.
    impl Drop for Entered {
        fn drop(&mut self) {}
    }

    pub(crate) fn enter(_: Option<&Span>) -> Entered {
        Entered
    }

    pub(crate) fn failed(_: Option<&str>, _: &Location<'_>, _: Duration, _: Failure<'_>) {}

    pub(crate) fn cancelled(_: impl FnOnce() -> bool, _: Option<&dyn Display>) {}
}

#[cfg(not(feature = "tracing"))]
pub(crate) use none::*;
#[cfg(feature = "tracing")]
pub(crate) use real::*;
