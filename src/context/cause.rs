//! Why a context ended.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::sync::Arc;

type Boxed = Box<dyn Error + Send + Sync + 'static>;

/// Why a context ended: any error, shared.
///
/// A `Cause` is made from whatever converts into `Box<dyn Error + Send + Sync>`: a literal, a `String`, an error type,
/// a boxed error, an `anyhow::Error`. Cloning it is cheap and clones the handle, not the error.
///
/// It derefs to `dyn Error + Send + Sync`, so `to_string()`, `source()` and `downcast_ref::<T>()` are the error's own. It is
/// not itself an [`Error`]: the blanket conversion above rules that out, as it does for `anyhow::Error`. Where a value
/// that *is* one is needed, there is [`into_error`](Cause::into_error).
///
/// # Causes made of `anyhow::Error`
///
/// anyhow converts its error into a boxed one as a private wrapper around it. The cause displays as
/// the `anyhow::Error` does (`{:#}` prints the whole chain), and has its sources, each of which can
/// be downcast. The outermost error cannot: `downcast_ref` does not find its type. To keep that
/// type, make the cause of `error.reallocate_into_boxed_dyn_error_without_backtrace()`, or of the
/// error before anyhow has it.
///
/// ```
/// use errgroup::Cause;
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("disk full")]
/// struct DiskFull;
///
/// // With a context around it, the error is a source of the cause.
/// let cause = Cause::from(anyhow::Error::from(DiskFull).context("cannot save"));
/// assert_eq!(format!("{cause:#}"), "cannot save: disk full");
/// assert!(cause.source().unwrap().is::<DiskFull>());
///
/// // By itself it is the outermost error, whose type is lost, or kept on demand.
/// assert!(!Cause::from(anyhow::Error::from(DiskFull)).is::<DiskFull>());
/// let boxed = anyhow::Error::from(DiskFull).reallocate_into_boxed_dyn_error_without_backtrace();
/// assert!(Cause::from(boxed).is::<DiskFull>());
/// ```
///
/// # Examples
///
/// ```
/// use errgroup::{Cause, Context};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("{replica} is down")]
/// struct Down { replica: &'static str }
///
/// let (ctx, guard) = Context::background().with_cancel();
/// guard.cancel_with(Down { replica: "eu-1" });
///
/// let cause: Cause = ctx.cause().unwrap();
/// assert_eq!(cause.to_string(), "eu-1 is down");
/// assert_eq!(cause.downcast_ref::<Down>().unwrap().replica, "eu-1");
/// ```
#[derive(Clone)]
pub struct Cause {
    repr: Repr,
}

#[derive(Clone)]
enum Repr {
    Shared(Arc<dyn Error + Send + Sync + 'static>),
    /// The crate's own causes cost nothing: a guard is dropped far more often than an error is made.
    Static(&'static StaticCause),
}

/// A cause of the crate's own: a fixed text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct StaticCause(pub(crate) &'static str);

impl Cause {
    pub(crate) const fn from_static(cause: &'static StaticCause) -> Cause {
        Cause {
            repr: Repr::Static(cause),
        }
    }

    /// The cause as a value that is an [`Error`], for `?` and for error chains.
    ///
    /// It displays as the error does and has its source; the error itself is behind one more deref, so that
    /// `(*error).downcast_ref::<T>()` finds its type.
    #[must_use]
    pub fn into_error(self) -> std::sync::Arc<dyn Error + Send + Sync + 'static> {
        match self.repr {
            Repr::Shared(error) => error,
            Repr::Static(cause) => Arc::new(StaticCause(cause.0)),
        }
    }
}

impl Deref for Cause {
    type Target = dyn Error + Send + Sync + 'static;

    fn deref(&self) -> &Self::Target {
        match &self.repr {
            Repr::Shared(error) => &**error,
            Repr::Static(cause) => *cause,
        }
    }
}

impl<T: Into<Boxed>> From<T> for Cause {
    fn from(error: T) -> Cause {
        Cause {
            repr: Repr::Shared(Arc::from(error.into())),
        }
    }
}

/// The error's own text. In the alternate form, `{:#}`, its sources follow, as `anyhow::Error`
/// prints them.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(&**self, f);
        }
        write!(f, "{}", &**self)?;
        let mut next = self.source();
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = source.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

// A cause is only ever read, through `&dyn Error`.
impl UnwindSafe for Cause {}
impl RefUnwindSafe for Cause {}
