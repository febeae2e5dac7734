//! The tasks of a scheduler that have waited, and their claims.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::task::Waker;

use super::abroad::{Awaiter, Target};
use super::reserved::Reserved;
use super::{Claimant, LenderId, Lending};
use crate::scheduler::wakers::Wakers;
use crate::sync::Weak;

/// The permit of a task, and how the task waits.
pub(crate) struct Lender {
    pub(super) permit: TaskPermit,
    /// The number of reserved permits that are attached to the task.
    pub(super) attached: usize,
    /// The number of polls that run under the permit: the task's own, and those of jobs on its
    /// behalf.
    pub(super) polls: usize,
    /// The claimants that were woken and have the permit for their next poll.
    pub(super) reserved: BTreeSet<Claimant>,
    /// The claimants that are woken when the task has a permit.
    pub(super) claimants: BTreeMap<Claimant, Waker>,
    /// Whether the task waited for its own scheduler when its last poll ended.
    pub(super) waits: bool,
    /// The number of undecided awaitables of its own scheduler that the task has polled through a
    /// list's waker.
    pub(super) listed: usize,
    /// Whether a decision during the task's poll has woken the task, so that it does not wait.
    pub(super) is_woken: bool,
    /// The task's own waker, for decisions of awaitables in a list.
    pub(super) waker: Option<Waker>,
    /// What the task waits for in other schedulers.
    pub(super) abroad: Vec<Target>,
    /// Its entry in the registry.
    #[cfg(feature = "inspect")]
    pub(super) task: Option<crate::registry::TaskId>,
    /// When it lent its permit last.
    #[cfg(feature = "inspect")]
    pub(super) lent_at: Option<tokio::time::Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskPermit {
    Held,
    Lent,
    /// With the number of its claim.
    Claimed(u64),
}

impl Lender {
    pub(super) fn new(polls: usize) -> Lender {
        Lender {
            permit: TaskPermit::Held,
            attached: 0,
            polls,
            reserved: BTreeSet::new(),
            claimants: BTreeMap::new(),
            waits: false,
            listed: 0,
            is_woken: false,
            waker: None,
            abroad: Vec::new(),
            #[cfg(feature = "inspect")]
            task: crate::registry::current(),
            #[cfg(feature = "inspect")]
            lent_at: None,
        }
    }

    /// Notes that the task holds its permit, which it had lent, and reserves that for the
    /// claimants.
    pub(super) fn hold(&mut self, wake: &mut Wakers) {
        self.permit = TaskPermit::Held;
        self.reserve_for_claimants(wake);
    }

    /// Reserves the permit that the task has for all claimants, and wakes them.
    pub(super) fn reserve_for_claimants(&mut self, wake: &mut Wakers) {
        for (claimant, waker) in std::mem::take(&mut self.claimants) {
            self.reserved.insert(claimant);
            wake.push(waker);
        }
    }

    /// Returns whether the task has a permit under which it may be polled.
    pub(super) fn has_permit(&self) -> bool {
        self.permit == TaskPermit::Held || self.attached > 0
    }
}

/// The tasks that have waited, and the claims on lent permits, oldest first.
pub(crate) struct Lenders {
    pub(super) tasks: BTreeMap<LenderId, Lender>,
    pub(super) next: LenderId,
    /// A map, so that one of many claims can be withdrawn without a search.
    pub(super) claims: BTreeMap<u64, LenderId>,
    pub(super) next_claim: u64,
    /// What the jobs of this scheduler wait for in other schedulers, each with the number of jobs.
    pub(super) abroad: BTreeMap<Target, (usize, Weak<dyn Lending>)>,
    /// The jobs of other schedulers that wait for this one.
    pub(super) awaiters: BTreeMap<Awaiter, Weak<dyn Lending>>,
    pub(super) reserved: Reserved,
}

impl Lenders {
    const fn new() -> Lenders {
        Lenders {
            tasks: BTreeMap::new(),
            next: 0,
            claims: BTreeMap::new(),
            next_claim: 0,
            abroad: BTreeMap::new(),
            awaiters: BTreeMap::new(),
            reserved: Reserved::new(),
        }
    }

    pub(crate) fn has_claims(&self) -> bool {
        !self.claims.is_empty()
    }
}

/// The lenders of a scheduler. Most schedulers have none, and pay for one pointer.
pub(crate) struct LazyLenders(Option<Box<Lenders>>);

static NONE: Lenders = Lenders::new();

impl LazyLenders {
    pub(crate) const fn new() -> LazyLenders {
        LazyLenders(None)
    }
}

impl Deref for LazyLenders {
    type Target = Lenders;

    fn deref(&self) -> &Lenders {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for LazyLenders {
    fn deref_mut(&mut self) -> &mut Lenders {
        self.0.get_or_insert_with(|| Box::new(Lenders::new()))
    }
}
