//! What the crate says to `tracing`: a span for each task and each item, and an event for what stops one.
//!
//! Without the feature all of this is nothing: a [`Span`] has no size, and its methods no body.
//!
//! A subscriber is user code. So a span is made, entered and dropped outside every lock; and since nothing of ours may be lost with
//! a subscriber that panics, its panics are dropped here.

#[cfg(feature = "tracing")]
mod real {
    use std::borrow::Cow;
    use std::fmt::Display;
    use std::panic::Location;
    use std::time::Duration;

    use ::tracing::level_filters::LevelFilter;
    use ::tracing::{Level, debug, error, field, info_span, warn};

    use crate::context::Cause;
    use crate::error::{Label, TaskErrorKind};
    use crate::panic;

    /// That of a task, of an item, or of whoever makes them; `None` if there is nobody to tell. Boxed, since tasks wait with it.
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

        /// That in which the caller runs.
        pub(crate) fn current() -> Span {
            if !somebody_listens() {
                return Span(None);
            }
            Span::of(::tracing::Span::current)
        }

        /// That of a task which the caller starts; the caller's own if tasks are not to be seen, so that what a task logs is
        /// always found where it was started.
        pub(crate) fn task(label: &Label) -> Span {
            if !somebody_listens() {
                return Span(None);
            }
            let own = Span::of(|| {
                let (name, site) = (label.name.as_deref(), label.site);
                info_span!(target: "errgroup", "task", name, %site)
            });
            match own.0 {
                None => Span::current(),
                Some(_) => own,
            }
        }

        /// The same for an item of a fan-out, inside of which `self` is that of its caller.
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
                let parent = self.0.as_deref().and_then(::tracing::Span::id);
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
    pub(crate) fn failed<E: Display>(label: &Label, elapsed: Duration, kind: &TaskErrorKind<E>) {
        ask(|| {
            let (name, site) = (label.name.as_deref(), label.site);
            macro_rules! say {
                ($event:ident, $message:literal, $($field:tt)+) => {
                    $event!(target: "errgroup", name, %site, ?elapsed, $($field)+, $message)
                };
            }
            match kind {
                TaskErrorKind::Failed(error) => {
                    say!(warn, "task failed", error = %format_args!("{error:#}"));
                }
                TaskErrorKind::Panicked(panic) => say!(error, "task panicked", panic = %panic),
                TaskErrorKind::Aborted(reason) => {
                    say!(debug, "task aborted", error = %reason, cause = reason.cause().map(field::display))
                }
            }
        });
    }

    /// Somebody ends a context by hand, unless that has ended.
    pub(crate) fn cancelled(has_ended: impl FnOnce() -> bool, cause: Option<&Cause>) {
        ask(|| {
            if ::tracing::enabled!(target: "errgroup", Level::DEBUG) && !has_ended() {
                debug!(target: "errgroup", cause = cause.map(field::display), "context cancelled");
            }
        });
    }
}

#[cfg(not(feature = "tracing"))]
mod none {
    use std::borrow::Cow;
    use std::panic::Location;
    use std::time::Duration;

    use crate::context::Cause;
    use crate::error::{Label, TaskErrorKind};

    #[derive(Clone)]
    pub(crate) struct Span;

    impl Span {
        pub(crate) fn current() -> Span {
            Span
        }

        pub(crate) fn task(_: &Label) -> Span {
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

    pub(crate) fn failed<E>(_: &Label, _: Duration, _: &TaskErrorKind<E>) {}

    pub(crate) fn cancelled(_: impl FnOnce() -> bool, _: Option<&Cause>) {}
}

#[cfg(not(feature = "tracing"))]
pub(crate) use none::*;
#[cfg(feature = "tracing")]
pub(crate) use real::*;
