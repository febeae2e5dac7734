//! The watchdog, what the run has done, and how a violation is reported.

use std::any::Any;
use std::fmt::{self, Display};
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::HEAP;
use crate::world::Boom;

/// After this long, a scenario hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What is going on now: the seed, the scenario, its kind, its step, and since when.
struct Now {
    seed: u64,
    number: u64,
    kind: &'static str,
    step: &'static str,
    since: Instant,
}

static NOW: OnceLock<Mutex<Now>> = OnceLock::new();
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn now<T>(look: impl FnOnce(&mut Now) -> T) -> Option<T> {
    Some(look(&mut NOW.get()?.lock().unwrap()))
}

/// A thread that looks on.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Watch {
    pub(crate) fn new(seed: u64) -> Watch {
        let _ = NOW.set(Mutex::new(Now {
            seed,
            number: 0,
            kind: "nothing yet",
            step: "",
            since: Instant::now(),
        }));
        // A panic that was not injected is a defect, of the crate or of this program.
        std::panic::set_hook(Box::new(|info| {
            if !info.payload().is::<Boom>() {
                fail(format_args!("a panic that was not injected: {info}"));
            }
        }));
        let over = Arc::new(AtomicBool::new(false));
        let thread = {
            let over = over.clone();
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                    PEAK.fetch_max(heap().0, Ordering::Relaxed);
                    let since = now(|now| now.since);
                    if since.is_some_and(|since| since.elapsed() > PATIENCE) {
                        fail(format_args!("it hangs"));
                    }
                }
            })
        };
        Watch {
            over,
            thread: Mutex::new(Some(thread)),
        }
    }

    pub(crate) fn begin(&self, number: u64, kind: &'static str) {
        now(|now| {
            (now.number, now.kind, now.step) = (number, kind, "beginning");
            now.since = Instant::now();
        });
    }

    pub(crate) fn doing(&self, what: &'static str) {
        step(what);
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.lock().unwrap().take() {
            thread.join().unwrap();
        }
    }
}

/// What the scenario does next.
pub(crate) fn step(what: &'static str) {
    now(|now| now.step = what);
}

/// Says what is wrong, and where, and ends the program.
pub(crate) fn fail(what: fmt::Arguments<'_>) -> ! {
    // Several may come at once, and one is enough.
    static FIRST: Mutex<()> = Mutex::new(());
    let _first = FIRST.lock();
    now(|now| {
        eprintln!(
            "soak: FAILED: {what}\nsoak: in scenario {} ({}), while {}, \
             {:.1} s after it began\nsoak: again: --seed {}, or that scenario alone: --seed {} \
             --only {}",
            now.number,
            now.kind,
            now.step,
            now.since.elapsed().as_secs_f64(),
            now.seed,
            now.seed,
            now.number,
        );
    });
    process::exit(1)
}

/// Fails unless it holds.
pub(crate) fn check(holds: bool, what: fmt::Arguments<'_>) {
    if !holds {
        fail(what);
    }
}

/// What a panic carried, which must have been injected.
pub(crate) fn boom(payload: &(dyn Any + Send)) -> Boom {
    match payload.downcast_ref::<Boom>() {
        Some(boom) => *boom,
        None => fail(format_args!("a panic lost its payload")),
    }
}

/// What is alive of the heap: bytes, and allocations.
pub(crate) fn heap() -> (usize, usize) {
    let stats = HEAP.stats();
    (
        stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated),
        stats.allocations.wrapping_sub(stats.deallocations),
    )
}

pub(crate) fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

#[derive(Default)]
pub(crate) struct Count(AtomicUsize);

impl Count {
    pub(crate) fn add(&self, more: usize) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }
}

macro_rules! tally {
    ($($name:ident: $text:literal),+ $(,)?) => {
        /// What the run has done.
        #[derive(Default)]
        pub(crate) struct Tally {
            $(pub(crate) $name: Count,)+
        }

        static TALLY: Tally = Tally { $($name: Count(AtomicUsize::new(0)),)+ };

        impl Display for Tally {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "{:>12} {}", self.$name.0.load(Ordering::Relaxed), $text)?;)+
                Ok(())
            }
        }
    };
}

tally! {
    groups: "groups, nested ones and scopes included",
    tasks: "tasks of groups",
    refused: "of these handed back by try_go",
    blocking: "of these blocking, as drawn",
    local: "of these local, as drawn",
    fan_outs: "fan-outs, nested ones included",
    hedges: "hedges",
    items: "items pulled",
    failures: "failures",
    panics: "panics, those of destructors included",
    unfinished: "tasks and items that were dropped before their end, or never started",
    drops: "calls dropped half-way",
    cancels: "cancels from other threads",
    meddlers: "threads that changed limits and graces, cancelled and aborted",
    shutdowns: "runtimes shut down in mid-flight",
    computing: "programs that computed beside a heartbeat",
    swallowing: "programs that swallowed their cancellation",
    racing: "programs whose calls of start raced",
    races: "such calls",
    races_lost: "of these that lost their race",
    policies: "tasks with options",
    given_back: "clean-up tasks of destructors",
    stops: "tasks stopped through their handles",
    reserved: "permits reserved",
    tracked: "futures tracked",
    idles: "groups awaited to be idle",
    closed: "groups closed and waited for",
    drains: "groups drained",
    blocking_items: "items of blocking fan-outs",
    steered: "limits changed by handles of fan-outs",
    stopped: "streams stopped",
    exact: "programs with one possible outcome",
    pipelines: "pipelines that got bursts",
}

pub(crate) fn tally() -> &'static Tally {
    &TALLY
}
