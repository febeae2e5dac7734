//! Everything that was made in a scenario, and what became of it: the ledger against which the
//! results of the crate are checked.

use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::record::{Fate, Marks, Record, Told};
use crate::watch::{self, check, fail, tally};

pub(crate) type Id = usize;

pub(crate) use crate::fault::{Boom, Fault};

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
    loses_cleanup: AtomicBool,
    tokens: AtomicUsize,
    /// The largest limit that there may be, and how many bodies run that have a permit for
    /// certain.
    limit: AtomicUsize,
    running: AtomicUsize,
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
            loses_cleanup: AtomicBool::new(false),
            tokens: AtomicUsize::new(0),
            limit: AtomicUsize::new(usize::MAX),
            running: AtomicUsize::new(0),
            records: Mutex::default(),
        })
    }

    /// Makes a body and its guard, which records its end. With `trap`, the destructor of the guard
    /// panics.
    pub(crate) fn make(self: &Arc<World>, trap: bool) -> Guard {
        let mut records = self.records.lock().unwrap();
        records.push(Record::new());
        self.alive.fetch_add(1, Ordering::SeqCst);
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Guard {
            world: self.clone(),
            id: records.len() - 1,
            trap,
            late: 0,
            waits_for_thread: false,
            permit: Permit::Uncounted,
        }
    }

    /// The largest limit that there will be.
    pub(crate) fn limited(&self, most: Option<usize>) {
        self.limit
            .store(most.unwrap_or(usize::MAX), Ordering::SeqCst);
    }

    /// A body that has a permit begins.
    pub(crate) fn enter(&self) {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        let limit = self.limit.load(Ordering::SeqCst);
        check(
            running <= limit,
            format_args!("{running} bodies run where the limit is {limit}"),
        );
    }

    /// It ends, or waits for a permit.
    pub(crate) fn leave(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
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

    pub(crate) fn mark(&self, id: Id, marks: Marks) {
        self.records.lock().unwrap()[id].marks = marks;
    }

    pub(crate) fn record(&self, id: Id) -> Record {
        self.records.lock().unwrap()[id]
    }

    pub(crate) fn tell(&self, id: Id, told: Told) {
        self.records.lock().unwrap()[id].told = told;
    }

    /// The call has returned: everything that it started has ended. After an abort, a closure that
    /// never begins is dropped later, when the pool has a thread for it.
    pub(crate) fn returned(&self, what: &str) {
        self.returned_but(0, what);
    }

    /// The same, of a call that may leave this many.
    pub(crate) fn returned_but(&self, left: usize, what: &str) {
        self.phase.store(CLOSED, Ordering::SeqCst);
        // Read first, since a closure that is dropped leaves it last.
        let waiting = match self.aborts.load(Ordering::SeqCst) {
            true => self.waiting.load(Ordering::SeqCst),
            false => 0,
        };
        let alive = self.alive.load(Ordering::SeqCst);
        check(
            alive <= waiting + left,
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

    pub(crate) async fn gone(&self) {
        let (mut turns, began) = (0_u32, Instant::now());
        while self.alive.load(Ordering::SeqCst) + self.tokens.load(Ordering::SeqCst) > 0 {
            turns += 1;
            check(
                began.elapsed() < watch::PATIENCE / 2,
                format_args!("bodies are never dropped: {:?}", self.records()),
            );
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

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Clean-up tasks may be aborted, too.
    pub(crate) fn may_lose_cleanup(&self) {
        self.loses_cleanup.store(true, Ordering::SeqCst);
    }

    pub(crate) fn loses_cleanup(&self) -> bool {
        self.loses_cleanup.load(Ordering::SeqCst)
    }

    pub(crate) fn aborts(&self) -> bool {
        self.aborts.load(Ordering::SeqCst)
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
    permit: Permit,
}

/// What is known of a body's permit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Permit {
    /// It needs none, or may lend it.
    Uncounted,
    /// It has one when it runs.
    Needed,
    Held,
}

impl Guard {
    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// It has a permit while it runs, and never lends it.
    pub(crate) fn with_permit(mut self) -> Guard {
        self.permit = Permit::Needed;
        self
    }

    fn begins(&mut self) {
        if self.permit == Permit::Needed {
            self.permit = Permit::Held;
            self.world.enter();
        }
    }

    pub(crate) fn polled(&mut self) {
        self.begins();
        if self.world.records.lock().unwrap()[self.id].marks.tracked {
            // Its caller polls it, whatever becomes of the group.
            return;
        }
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
        self.begins();
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

    /// Its body never runs.
    pub(crate) fn hand_back(&mut self) {
        self.trap = false;
        self.end(Fate::HandedBack);
    }

    pub(crate) fn panic(&self) -> ! {
        self.end(Fate::Panicked);
        panic_any(self.boom())
    }

    pub(crate) fn boom(&self) -> Boom {
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
        if self.permit == Permit::Held {
            self.world.leave();
        }
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
