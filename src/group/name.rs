//! The name of a group, and the causes that mention it.

use std::borrow::Cow;

use super::Group;
use super::queue::Queue;
use crate::context::{Cause, StaticCause};
use crate::scheduler::Scheduler;
use crate::scheduler::group_error::GroupError;
use crate::sync::{Arc, Mutex, OnceLock};

/// The name of a group. A group without one pays for a load where the name would be mentioned.
pub(crate) struct Name(OnceLock<Box<Mutex<Cow<'static, str>>>>);

impl Name {
    pub(super) fn new() -> Name {
        Name(OnceLock::new())
    }

    pub(super) fn get(&self) -> Option<Cow<'static, str>> {
        self.0.get().map(|name| name.lock().clone())
    }

    fn set(&self, name: Cow<'static, str>) {
        match self.0.get() {
            Some(old) => *old.lock() = name,
            // Of two first names, set at the same time, one is lost.
            None => drop(self.0.set(Box::new(Mutex::new(name)))),
        }
    }

    /// Returns the cause, with the name of the group if it has one.
    pub(super) fn cause(&self, why: &'static Why) -> Cause {
        match self.get() {
            None => Cause::from_static(&why.unnamed),
            Some(name) => Cause::from(format!("{}{name:?} {}", why.before, why.after)),
        }
    }
}

/// A reason of the group itself why its context is done, or why it refuses tasks.
pub(super) struct Why {
    unnamed: StaticCause,
    before: &'static str,
    after: &'static str,
}

pub(super) static WAIT_ENDED: Why = Why {
    unnamed: StaticCause("the group's wait has finished"),
    before: "the wait of group ",
    after: "has finished",
};
pub(super) static GROUP_ABORTED: Why = Why::group("the group was aborted", "was aborted");
pub(super) static GROUP_DROPPED: Why = Why::group("the group was dropped", "was dropped");
pub(super) static GROUP_CLOSED: Why = Why::group("the group is closed", "is closed");

impl Why {
    const fn group(unnamed: &'static str, after: &'static str) -> Why {
        Why {
            unnamed: StaticCause(unnamed),
            before: "group ",
            after,
        }
    }
}

/// Returns the cause, with the name of the group if it has one.
pub(super) fn why<E>(scheduler: &Arc<Scheduler<Queue<E>>>, why: &'static Why) -> Cause
where
    E: GroupError,
{
    scheduler.shared.name.cause(why)
}

/// The name.
impl<E> Group<E>
where
    E: GroupError,
{
    /// Names the group. The name appears in the causes, errors and reports that mention the group:
    /// `group "ingest" is closed`.
    ///
    /// It may be set at any time. A later name replaces an earlier one.
    ///
    /// # Examples
    ///
    /// ```
    /// # use errgroup::{Context, Group};
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let (g, ctx) = Group::<String>::with_context(Context::background());
    /// g.set_name("ingest");
    /// g.abort();
    /// assert_eq!(ctx.cause().unwrap().to_string(), "group \"ingest\" was aborted");
    /// # }
    /// ```
    pub fn set_name(&self, name: impl Into<Cow<'static, str>>) {
        self.scheduler.shared.name.set(name.into());
    }
}
