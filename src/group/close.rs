//! Waiting for a group that stays: until it is idle, or for its end through a reference.

use super::Group;
use super::name::{WAIT_ENDED, why};
use crate::scheduler::group_error::GroupError;

/// Waiting through a reference: for a group in a struct, or one that lives as long as the program.
impl<E> Group<E>
where
    E: GroupError,
{
    /// Waits until no task is running or queued, and no reserved [`Permit`](crate::Permit) is out.
    /// It changes nothing.
    ///
    /// The group stays open, its context stays live, and failures stay where they are, for a later
    /// [`wait`](Group::wait). So this is how to wait with a timeout: `timeout(d, g.wait())` aborts
    /// every task at the timeout, and `timeout(d, g.idle())` aborts none.
    ///
    /// It returns when there was a moment at which that was so. If tasks are started meanwhile,
    /// some may be running when it returns, unless the group was [closed](Group::close). Background
    /// tasks are not waited for. Any number of callers may wait at the same time.
    ///
    /// A task of the group must not await it: the task would wait for its own end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing. It may be called again.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::Group;
    /// use std::time::Duration;
    /// use tokio::time::{sleep, timeout};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let g = Group::<String>::new();
    /// g.go(async {
    ///     sleep(Duration::from_secs(3)).await;
    ///     Ok(())
    /// });
    /// assert!(timeout(Duration::from_secs(1), g.idle()).await.is_err());
    /// assert_eq!(g.running(), 1); // the timeout has aborted nothing
    /// g.idle().await;
    /// assert_eq!(g.running(), 0);
    /// # }
    /// ```
    #[doc(alias("wait_idle", "awaitQuiescence", "join_all"))]
    pub async fn idle(&self) {
        self.scheduler.idle().await;
    }

    /// Closes the group: it accepts no more tasks. Those that are queued still run.
    ///
    /// It still accepts clean-up tasks, tracked futures, and tasks that are started with a
    /// [`Permit`](crate::Permit) that was reserved before. Every other task is refused, as it is
    /// after the end of the context: its future is dropped, its [`Admission`](crate::Admission)
    /// says that it was not started, and it counts as failed with a
    /// [`ContextError`](crate::ContextError) whose cause is `the group is closed`. Such a failure
    /// does not cancel the context, so it stops no other task.
    ///
    /// A second call has no effect.
    ///
    /// # Examples
    ///
    /// ```
    /// # use errgroup::Group;
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let g = Group::<String>::new();
    /// let first = g.go(async { Ok(()) });
    /// g.close();
    /// let second = g.go(async { Ok(()) });
    ///
    /// assert!(first.await.is_started());
    /// assert!(!second.await.is_started());
    /// # }
    /// ```
    pub fn close(&self) {
        self.scheduler.shut();
    }

    /// Closes the group, waits until every task has finished, cancels the group's context, and
    /// returns the first error to the first caller.
    ///
    /// It is [`wait`](Group::wait) for a group that cannot be moved out of its place: a field of a
    /// struct with `&self` methods. It may be called more than once and by several callers at the
    /// same time. One of them, the first that sees the end, gets the error or the panic. The others
    /// get `Ok`.
    ///
    /// From the call on, tasks that are started are refused, as after [`close`](Group::close). What
    /// is queued still runs. A permit that was [reserved](Group::reserve) before can still be used,
    /// and the call waits until it is used or dropped. It does not wait for permits that a
    /// [background](crate::TaskBuilder::background) task has reserved itself: when nothing else is
    /// left, the context is cancelled, and the task can drop them. A reservation that waits behind
    /// these is refused then. What such a task reserves elsewhere, in a `tokio::spawn` for example,
    /// is not known as its own.
    ///
    /// A task of the group must not await it: the task would wait for its own end.
    ///
    /// # Errors
    ///
    /// Returns the first error in order of completion, by value, as the task returned it, to the
    /// first caller. A task that never started or was aborted fails with `E::from` of the
    /// [`ContextError`](crate::ContextError).
    ///
    /// # Panics
    ///
    /// Resumes the panic of the first task that panicked, if one did, in the first caller. A panic
    /// wins over an error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts nothing and loses no failure. The group stays closed. It may be
    /// called again.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, Group};
    ///
    /// struct Mailer {
    ///     g: Group<String>,
    /// }
    ///
    /// impl Mailer {
    ///     fn send(&self, _mail: String) {
    ///         self.g.go(async { Err("mailbox full".to_owned()) });
    ///     }
    ///
    ///     async fn shut_down(&self) -> Result<(), String> {
    ///         self.g.close_and_wait().await
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let (g, ctx) = Group::with_context(Context::background());
    /// let mailer = Mailer { g };
    /// mailer.send("hello".to_owned());
    ///
    /// assert_eq!(mailer.shut_down().await, Err("mailbox full".to_owned()));
    /// assert_eq!(mailer.shut_down().await, Ok(()));
    /// assert!(ctx.is_done());
    /// # }
    /// ```
    pub async fn close_and_wait(&self) -> Result<(), E> {
        let failures = self.scheduler.shut_and_join().await;
        self.scheduler
            .end_context_after_join(why(&self.scheduler, &WAIT_ENDED));
        failures.into_result()
    }
}
