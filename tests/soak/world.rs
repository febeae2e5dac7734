//! Everything that was made in a scenario, and what became of it: the ledger against which the
//! results of the crate are checked.

use std::fmt::{self, Display};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{self, Poll};
use std::time::Duration;

use errgroup::ContextError;

use crate::watch::{self, check, fail, tally};

pub(crate) type Id = usize;

/// What an injected panic carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boom {
    pub(crate) world: usize,
    pub(crate) id: Id,
}

/// The scenario's error: of one body, or of a context.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Own(Id),
    Context(ContextError),
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Own(id) => write!(f, "body {id} failed"),
            Fault::Context(error) => Display::fmt(error, f),
        }
    }
}

impl From<ContextError> for Fault {
    fn from(error: ContextError) -> Fault {
        Fault::Context(error)
    }
}

/// How a body ended. `Made`: it has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Made,
    Ok,
    Failed,
    Panicked,
    /// Dropped before its end, or before its start.
    Unfinished,
    /// `try_go` gave it back.
    HandedBack,
}

/// Whether a failure was reported to a caller other than that of the group's `wait`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    No,
    /// The caller of `start`.
    Caller,
    /// The call of `start` was dropped: it may have taken the failure along.
    Perhaps,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) fate: Fate,
    pub(crate) told: Told,
    /// A closure that has not begun on its thread.
    waits_for_thread: bool,
}

const OPEN: u8 = 0;
/// The call was dropped: a poll that has begun may go on, and no other begins.
const DROPPED: u8 = 1;
/// The call has returned: nothing is polled.
const CLOSED: u8 = 2;

/// Bodies and values, of all worlds.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// How many bodies and values there are.
pub(crate) fn alive() -> usize {
    ALIVE.load(Ordering::SeqCst)
}

/// One group, or one fan-out.
pub(crate) struct World {
    number: usize,
    /// Everything runs on one thread, the one that drops the call too.
    single: bool,
    phase: AtomicU8,
    alive: AtomicUsize,
    /// How many of `alive` are closures that have not begun on their threads.
    waiting: AtomicUsize,
    /// The group may abort, and then a closure that never begins may outlive the wait.
    aborts: AtomicBool,
    tokens: AtomicUsize,
    records: Mutex<Vec<Record>>,
}

impl World {
    pub(crate) fn new(single: bool) -> Arc<World> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Arc::new(World {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            single,
            phase: AtomicU8::new(OPEN),
            alive: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            aborts: AtomicBool::new(false),
            tokens: AtomicUsize::new(0),
            records: Mutex::default(),
        })
    }

    /// Makes a body and its guard, which records its end. With `trap`, the destructor of the guard
    /// panics.
    pub(crate) fn make(self: &Arc<World>, trap: bool) -> Guard {
        let mut records = self.records.lock().unwrap();
        records.push(Record {
            fate: Fate::Made,
            told: Told::No,
            waits_for_thread: false,
        });
        self.alive.fetch_add(1, Ordering::SeqCst);
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Guard {
            world: self.clone(),
            id: records.len() - 1,
            trap,
            late: 0,
            waits_for_thread: false,
        }
    }

    /// The group may abort its tasks: after a grace period, or because it was called to.
    pub(crate) fn may_abort(&self) {
        self.aborts.store(true, Ordering::SeqCst);
    }

    /// Where the call has returned, a closure that has not begun never will.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records = self.records.lock().unwrap().clone();
        for record in &mut records {
            if record.waits_for_thread && record.fate == Fate::Made {
                record.fate = Fate::Unfinished;
            }
        }
        records
    }

    pub(crate) fn fate(&self, id: Id) -> Fate {
        self.records.lock().unwrap()[id].fate
    }

    fn set_fate(&self, id: Id, fate: Fate) {
        self.records.lock().unwrap()[id].fate = fate;
    }

    pub(crate) fn tell(&self, id: Id, told: Told) {
        self.records.lock().unwrap()[id].told = told;
    }

    /// The call has returned: everything that it started has ended. After an abort, a closure that
    /// never begins is dropped later, when the pool has a thread for it.
    pub(crate) fn returned(&self, what: &str) {
        self.phase.store(CLOSED, Ordering::SeqCst);
        // Read first, since a closure that is dropped leaves it last.
        let waiting = match self.aborts.load(Ordering::SeqCst) {
            true => self.waiting.load(Ordering::SeqCst),
            false => 0,
        };
        let alive = self.alive.load(Ordering::SeqCst);
        check(
            alive <= waiting,
            format_args!("{what} returned, and {alive} of its bodies were still there"),
        );
    }

    /// The call was dropped: nothing is polled any more, and all goes.
    pub(crate) async fn dropped(&self) {
        self.phase.store(DROPPED, Ordering::SeqCst);
        tally().drops.add(1);
        watch::step("waiting for the destructors");
        self.gone().await;
        self.phase.store(CLOSED, Ordering::SeqCst);
    }

    async fn gone(&self) {
        let mut turns = 0_u32;
        while self.alive.load(Ordering::SeqCst) + self.tokens.load(Ordering::SeqCst) > 0 {
            turns += 1;
            match turns % 64 {
                0 => tokio::time::sleep(Duration::from_micros(200)).await,
                _ => tokio::task::yield_now().await,
            }
        }
    }

    /// No value is left but those that the caller holds.
    pub(crate) fn holds(&self, values: usize, what: &str) {
        let tokens = self.tokens.load(Ordering::SeqCst);
        check(
            tokens == values,
            format_args!("{what} returned {values} values, and {tokens} are alive"),
        );
    }

    pub(crate) fn owns(&self, boom: Boom) -> bool {
        boom.world == self.number
    }
}

/// Notes that a call was dropped together with what made it. To be dropped after the call.
pub(crate) struct DropMark(pub(crate) Arc<World>);

impl Drop for DropMark {
    fn drop(&mut self) {
        let phase = &self.0.phase;
        let _ = phase.compare_exchange(OPEN, DROPPED, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// The mark of a body, which records its polls, how it ends, and when it is dropped.
pub(crate) struct Guard {
    world: Arc<World>,
    id: Id,
    trap: bool,
    late: u32,
    /// It is of a closure that has not begun on its thread.
    waits_for_thread: bool,
}

impl Guard {
    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn polled(&mut self) {
        match self.world.phase.load(Ordering::SeqCst) {
            OPEN => {}
            DROPPED => {
                self.late += 1;
                check(
                    self.late == 1 && !self.world.single,
                    format_args!(
                        "body {} was polled {} times after its call was dropped, single: {}",
                        self.id, self.late, self.world.single
                    ),
                );
            }
            _ => fail(format_args!(
                "body {} was polled after its call returned",
                self.id
            )),
        }
    }

    /// It is of a closure, which begins when the pool has a thread for it.
    pub(crate) fn for_the_pool(mut self) -> Guard {
        self.waits_for_thread = true;
        self.world.records.lock().unwrap()[self.id].waits_for_thread = true;
        self.world.waiting.fetch_add(1, Ordering::SeqCst);
        self
    }

    fn waits_no_more(&mut self) {
        if std::mem::take(&mut self.waits_for_thread) {
            self.world.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// A closure sees an abort only through its context. It may begin while its call is being
    /// dropped.
    pub(crate) fn polled_on_the_pool(&mut self) {
        self.waits_no_more();
        self.world.records.lock().unwrap()[self.id].waits_for_thread = false;
        if self.world.phase.load(Ordering::SeqCst) == CLOSED {
            fail(format_args!(
                "closure {} began after its call returned",
                self.id
            ));
        }
    }

    pub(crate) fn end(&self, fate: Fate) {
        match fate {
            Fate::Failed => tally().failures.add(1),
            Fate::Panicked => tally().panics.add(1),
            Fate::HandedBack => tally().refused.add(1),
            Fate::Unfinished => tally().unfinished.add(1),
            Fate::Made | Fate::Ok => {}
        }
        self.world.set_fate(self.id, fate);
    }

    pub(crate) fn panic(&self) -> ! {
        self.end(Fate::Panicked);
        panic_any(self.boom())
    }

    fn boom(&self) -> Boom {
        Boom {
            world: self.world.number,
            id: self.id,
        }
    }

    pub(crate) fn token(&self) -> Token {
        self.world.tokens.fetch_add(1, Ordering::SeqCst);
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Token {
            world: self.world.clone(),
            id: self.id,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let fate = self.world.fate(self.id);
        // After an abort, a panic of a closure that never begins is no outcome of its task.
        let is_late = self.waits_for_thread && self.world.aborts.load(Ordering::SeqCst);
        let trap = self.trap && !is_late && matches!(fate, Fate::Made | Fate::Ok);
        match fate {
            _ if trap => self.end(Fate::Panicked),
            Fate::Made => self.end(Fate::Unfinished),
            _ => {}
        }
        let boom = self.boom();
        self.world.alive.fetch_sub(1, Ordering::SeqCst);
        self.waits_no_more();
        ALIVE.fetch_sub(1, Ordering::SeqCst);
        if trap {
            panic_any(boom);
        }
    }
}

/// A value that a body returned, and that must be dropped.
pub(crate) struct Token {
    world: Arc<World>,
    pub(crate) id: Id,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.world.tokens.fetch_sub(1, Ordering::SeqCst);
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) type Inner = Pin<Box<dyn Future<Output = Result<(), ()>> + Send>>;

/// What is run: a task of a group, or an item of a fan-out.
pub(crate) struct Body {
    inner: Inner,
    guard: Guard,
}

impl Body {
    pub(crate) fn new(guard: Guard, inner: Inner) -> Body {
        Body { inner, guard }
    }

    /// `try_go` gave it back.
    pub(crate) fn handed_back(mut self) {
        self.guard.trap = false;
        self.guard.end(Fate::HandedBack);
    }
}

impl Future for Body {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        self.guard.polled();
        let polled = catch_unwind(AssertUnwindSafe(|| self.inner.as_mut().poll(cx)));
        let output = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => output,
            Err(payload) => {
                watch::boom(&*payload);
                self.guard.end(Fate::Panicked);
                resume_unwind(Box::new(self.guard.boom()))
            }
        };
        Poll::Ready(match output {
            Ok(()) => {
                self.guard.end(Fate::Ok);
                Ok(())
            }
            Err(()) => {
                self.guard.end(Fate::Failed);
                Err(Fault::Own(self.guard.id))
            }
        })
    }
}

/// The same, with a value.
pub(crate) struct Valued(pub(crate) Body);

impl Future for Valued {
    type Output = Result<Token, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.0).poll(cx);
        polled.map(|ended| ended.map(|()| self.0.guard.token()))
    }
}
