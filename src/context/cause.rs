//! The cause of a cancellation, or of a deadline.

use std::error::Error;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::sync::Arc;

type Boxed = Box<dyn Error + Send + Sync + 'static>;

/// The reason why a context was cancelled or had a deadline: any error, shared.
///
/// A `Cause` is made from anything that converts into `Box<dyn Error + Send + Sync>`: a literal, a
/// `String`, an error type, a boxed error, an `anyhow::Error`. A clone shares the same error and is
/// cheap.
///
/// It derefs to `dyn Error + Send + Sync`, so `to_string()`, `source()` and `downcast_ref::<T>()`
/// are those of the error. It does not implement [`Error`] itself: the conversion above rules that
/// out, as it does for `anyhow::Error`. Use [`into_error`](Cause::into_error) to get a value that
/// does.
///
/// # Causes made of `anyhow::Error`
///
/// anyhow converts its error into a boxed error that is a private wrapper. The cause displays as
/// the `anyhow::Error` does (`{:#}` prints the whole chain) and has its sources, each of which can
/// be downcast. The outermost error cannot: `downcast_ref` does not find its type. To keep that
/// type, make the cause from `error.reallocate_into_boxed_dyn_error_without_backtrace()`, or from
/// the error before it becomes an `anyhow::Error`.
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
    /// A cause of the crate itself. It needs no allocation, since dropping a guard must be cheap.
    Static(&'static StaticCause),
}

/// A cause of the crate itself, with a fixed text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct StaticCause(pub(crate) &'static str);

impl Cause {
    pub(crate) const fn from_static(cause: &'static StaticCause) -> Cause {
        Cause {
            repr: Repr::Static(cause),
        }
    }

    /// Converts the cause into a value that implements [`Error`], for `?` and for error chains.
    ///
    /// The value displays as the error does and has its source. The error itself is behind one more
    /// deref: `(*error).downcast_ref::<T>()` finds its type.
    #[must_use]
    pub fn into_error(self) -> std::sync::Arc<dyn Error + Send + Sync + 'static> {
        match self.repr {
            Repr::Shared(error) => error,
            Repr::Static(cause) => Arc::new(StaticCause(cause.0)),
        }
    }

    /// Returns true if the error, or one in its `source()` chain, is a `T`.
    pub(crate) fn is_or_contains<T: Error + 'static>(&self) -> bool {
        let mut next: Option<&(dyn Error + 'static)> = Some(&**self);
        while let Some(error) = next {
            if error.is::<T>() {
                return true;
            }
            next = inside(error).or_else(|| error.source());
        }
        false
    }
}

/// Returns the error inside an error that is only a wrapper, and that its `source()` skips.
pub(super) fn inside<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    type Shared = Arc<dyn Error + Send + Sync + 'static>;
    if let Some(shared) = error.downcast_ref::<Shared>() {
        return Some(&**shared);
    }
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    Some(inner)
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

/// Prints the text of the error. In the alternate form, `{:#}`, its sources follow, as
/// `anyhow::Error` prints them.
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

// A cause is only read, through `&dyn Error`, so a panic cannot leave it half-changed.
impl UnwindSafe for Cause {}
impl RefUnwindSafe for Cause {}
