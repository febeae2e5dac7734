//! A shutdown in a time budget: named phases, one after another.
//!
//! ```text
//!     a phase:  closed          cancelled            aborted
//!                 │ finish_for      │ winds down        │
//!                 ▼                 ▼                   ▼
//!     ────────────●─────────────────●───────────────────●──► the next phase, with what is left
//!                 │◄──────── the time of the phase ────►│
//! ```
//!
//! # Invariants
//!
//! 1. No phase ends later than the end of the budget minus a share of a tenth for each later phase.
//!    So each phase has at least its share, and the last one ends with the budget. (With more than
//!    ten phases, a share is the budget divided by their number.)
//! 2. A phase that has ended gives its time away: the time of the next one begins at that moment.
//! 3. Only what can neither be dropped nor waited for outlives its phase: closures that run on the
//!    blocking pool, and tasks that are in the middle of a poll. A phase waits for the latter for
//!    [`SLACK`], and no longer.

mod phase;
mod report;

pub use phase::DrainPhase;
pub(crate) use phase::sealed;
#[cfg(feature = "tower")]
pub(crate) use report::Tally;
pub use report::{Drained, DrainedError, DrainedPhase, DrainedTask};

use std::borrow::Cow;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{self, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Group;
use crate::context::{StaticCause, deadline_after};
use crate::panic;
use crate::scheduler::group_error::GroupError;
use sealed::Draining;

/// The cause with which a phase is cancelled.
pub(crate) static SHUTTING_DOWN: StaticCause = StaticCause("shutting down");

/// How long a phase waits, after an abort, for tasks that are in the middle of a poll: a twentieth
/// of the budget, but no less and no more than this.
const SLACK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Each later phase keeps at least the budget divided by this.
const SHARES: u32 = 10;

type Trigger = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A shutdown of several groups, and of the handlers of a server, in one time budget.
///
/// The phases run one after another, in the order in which they were added. Add first the part that
/// accepts work, and last the part that the others use. Each phase is
/// [closed](crate::Group::close), so that it accepts no more tasks. It may finish by itself for a
/// while, is then cancelled with the cause `shutting down`, winds down, and is aborted when its
/// time is over.
///
/// - A phase that is done early leaves its time to the later ones, and an idle one takes none. Each
///   later phase keeps at least a tenth of the budget, whatever the earlier ones do. Of more than
///   ten phases, each keeps an equal share.
/// - The budget is measured on tokio's clock, from the first poll of [`run`](Drain::run).
/// - The report, [`Drained`], has each task once. A panic is one of its entries.
///
/// Nothing can abort a closure on the blocking pool, or a future that blocks its thread. If one
/// still runs when the time is over, `run` returns all the same, and the report
/// [names](DrainedPhase::blocking) the closure or [counts](DrainedPhase::left_running) the task.
///
/// It is a `CancellationToken`, a `TaskTracker` and a timeout per component, as one value. For a
/// single group, there is [`Group::drain`].
///
/// # Examples
///
/// ```
/// use errgroup::{Context, Drain, Group};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let (server, _) = Group::<std::io::Error>::with_context(Context::background());
/// let (workers, ctx) = Group::<String>::with_context(Context::background());
/// workers.go(async move {
///     ctx.done().await;
///     assert_eq!(ctx.cause().unwrap().to_string(), "shutting down");
///     Ok(())
/// });
///
/// let report = Drain::within(Duration::from_secs(30))
///     .phase("server", server)
///     .finish_for(Duration::from_secs(20))
///     .phase("workers", workers)
///     .run()
///     .await;
/// assert_eq!(report.phases()[1].stopped(), 1);
/// assert_eq!(report.to_string(), "server: idle; workers: 1 stopped");
/// # }
/// ```
#[doc(alias("graceful_shutdown", "Toplevel", "SubsystemBuilder"))]
#[must_use = "a drain does nothing until `run().await`"]
pub struct Drain {
    budget: Duration,
    phases: Vec<Entry>,
    triggers: Vec<Trigger>,
}

/// A phase, its name, and how long it may finish by itself.
struct Entry {
    name: Cow<'static, str>,
    finish_for: Option<Duration>,
    phase: Box<dyn Draining>,
}

impl Drain {
    /// Returns a drain without phases, and with a time budget for all of them.
    pub fn within(budget: Duration) -> Drain {
        Drain {
            budget,
            phases: Vec::new(),
            triggers: Vec::new(),
        }
    }

    /// Adds a phase: a [`Group`], or with feature `tower` the `Handlers` of a `ContextLayer`.
    ///
    /// The groups of one drain may have different error types. The name appears in the report.
    pub fn phase(mut self, name: impl Into<Cow<'static, str>>, phase: impl DrainPhase) -> Drain {
        self.phases.push(Entry {
            name: name.into(),
            finish_for: None,
            phase: sealed::IntoPhase::into_phase(phase),
        });
        self
    }

    /// Sets how long the phase that was added last may finish by itself before it is cancelled.
    ///
    /// Without this, a phase is cancelled when half of its time is left. At the latest, it is
    /// cancelled at the end of its time.
    ///
    /// # Panics
    ///
    /// Panics if no phase was added.
    #[track_caller]
    pub fn finish_for(mut self, duration: Duration) -> Drain {
        match self.phases.last_mut() {
            Some(last) => last.finish_for = Some(duration),
            None => {
                panic!("`finish_for` called before `phase`: it sets the time of the last phase")
            }
        }
        self
    }

    /// Aborts everything that is left, in this phase and the later ones, as soon as the future
    /// completes: a second signal, say. Its output does not matter.
    ///
    /// It may be called more than once. The first future that completes decides.
    pub fn abort_on<F>(mut self, future: F) -> Drain
    where
        F: Future + Send + 'static,
    {
        self.triggers.push(Box::pin(async move {
            future.await;
        }));
        self
    }

    /// Runs the phases, and returns the report.
    ///
    /// From the first poll on, the tasks of all groups are counted, also those of later phases.
    /// Tasks that were started just before this call, and have not been polled yet, still run.
    ///
    /// # Panics
    ///
    /// Panics in a runtime without a timer, if a phase is not idle. Resumes a panic of the future
    /// of [`abort_on`](Drain::abort_on).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the groups that are left: it cancels their contexts and aborts
    /// their tasks. Their reports are lost.
    pub async fn run(mut self) -> Drained {
        let begin = Instant::now();
        let end = deadline_after(begin, self.budget);
        let budget = end.saturating_duration_since(begin);
        let count = u32::try_from(self.phases.len()).unwrap_or(u32::MAX);
        let share = budget / SHARES.max(count);
        let slack = (budget / 20).clamp(SLACK.0, SLACK.1);
        for entry in &mut self.phases {
            entry.phase.observe();
        }
        let mut is_forced = false;
        for at in 0..self.phases.len() {
            let later = count - 1 - u32::try_from(at).unwrap_or(u32::MAX);
            let until = end - share.saturating_mul(later);
            self.run_phase(at, until, slack, &mut is_forced).await;
        }
        let phases = self.phases.into_iter();
        Drained::new(phases.map(|it| it.phase.into_report(it.name)).collect())
    }

    async fn run_phase(
        &mut self,
        at: usize,
        until: Instant,
        slack: Duration,
        is_forced: &mut bool,
    ) {
        if !*is_forced {
            self.phases[at].phase.begin();
            *is_forced = match self.let_end(at, until).await {
                Stop::Ended => return,
                Stop::TimeIsOver => false,
                Stop::Forced => true,
            };
            if *is_forced {
                self.force(at);
            }
            self.phases[at].phase.abort();
        }
        let _ = self
            .wait(at, deadline_after(Instant::now(), slack), false)
            .await;
    }

    /// Cancels this phase, and cancels and aborts the later ones, all at once.
    fn force(&mut self, at: usize) {
        for later in &mut self.phases[at + 1..] {
            later.phase.begin();
        }
        for left in &mut self.phases[at..] {
            left.phase.cancel();
        }
        for later in &mut self.phases[at + 1..] {
            later.phase.abort();
        }
    }

    /// Lets a phase finish, cancels it, and lets it wind down.
    async fn let_end(&mut self, at: usize, until: Instant) -> Stop {
        let now = Instant::now();
        let time = until.saturating_duration_since(now);
        let finish_for = self.phases[at].finish_for.unwrap_or(time / 2).min(time);
        match self.wait(at, now + finish_for, true).await {
            Stop::TimeIsOver => {}
            stop => return stop,
        }
        self.phases[at].phase.cancel();
        self.wait(at, until, true).await
    }

    /// Waits until a phase has ended, its time is over, or everything is to be aborted.
    async fn wait(&mut self, at: usize, until: Instant, may_be_forced: bool) -> Stop {
        let Drain {
            phases, triggers, ..
        } = self;
        let phase = &mut phases[at].phase;
        // A phase that is idle needs no timer.
        if poll_fn(|cx| Poll::Ready(phase.poll_ended(cx)))
            .await
            .is_ready()
        {
            return Stop::Ended;
        }
        let mut timer = pin!(sleep_until(until));
        poll_fn(|cx| {
            if phase.poll_ended(cx).is_ready() {
                return Poll::Ready(Stop::Ended);
            }
            if may_be_forced && poll_any(triggers, cx).is_ready() {
                return Poll::Ready(Stop::Forced);
            }
            timer.as_mut().poll(cx).map(|()| Stop::TimeIsOver)
        })
        .await
    }
}

/// Why a phase is not waited for any more.
enum Stop {
    Ended,
    TimeIsOver,
    Forced,
}

/// Polls the futures, and completes if one does.
fn poll_any(triggers: &mut [Trigger], cx: &mut task::Context<'_>) -> Poll<()> {
    for trigger in triggers {
        if trigger.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
    }
    Poll::Pending
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.phases.iter().map(|it| &*it.name).collect();
        f.debug_struct("Drain")
            .field("budget", &self.budget)
            .field("phases", &names)
            .finish_non_exhaustive()
    }
}

/// Shutdown.
impl<E> Group<E>
where
    E: GroupError,
{
    /// Shuts the group down within a time budget, and returns a report.
    ///
    /// The group is closed. Its tasks may finish by themselves until half of the time is left.
    /// Then its context is cancelled with the cause `shutting down`. What still runs when the
    /// time is over is aborted. If all tasks end earlier, it returns at once.
    ///
    /// It is a [`Drain`] with one phase, called by the [name](Group::set_name) of the group. With
    /// a `Drain` the parts of this can be chosen, and several groups share one budget.
    ///
    /// Nothing can abort a closure on the blocking pool, or a future that blocks its thread. If one
    /// still runs when the time is over, this returns all the same, and the report says so.
    ///
    /// # Panics
    ///
    /// Panics in a runtime without a timer, if a task is running. A panic of a task is an entry of
    /// the report.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the group: it cancels the context and aborts the tasks. The report
    /// is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use errgroup::{Context, Group};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let (g, _ctx) = Group::<String>::with_context(Context::background());
    /// g.named("deaf").go(std::future::pending());
    ///
    /// let report = g.drain(Duration::from_secs(10)).await;
    /// let aborted = report.phases()[0].aborted();
    /// assert_eq!(aborted[0].name(), Some("deaf"));
    /// assert_eq!(aborted[0].age(), Duration::from_secs(10));
    /// # }
    /// ```
    #[doc(alias("shutdown", "shutdown_timeout", "graceful_shutdown"))]
    pub async fn drain(self, budget: Duration) -> Drained {
        let name = self.scheduler.shared.name.get();
        let name = name.unwrap_or("group".into());
        Drain::within(budget).phase(name, self).run().await
    }
}

/// Returns the text of an error, whose `Display` may panic.
fn text_of(error: &dyn fmt::Display) -> String {
    panic::catch(|| format!("{error:#}")).unwrap_or_else(|payload| {
        panic::discard(payload);
        "(displaying the error panicked)".to_owned()
    })
}
