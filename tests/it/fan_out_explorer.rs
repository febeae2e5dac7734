//! Every end of a fan-out is dropped or cancelled after the first poll of its caller, after the
//! second, and so on up to the last.
//!
//! On one thread the caller is polled after every single poll of a task, so that it can stop
//! between any two of them. Whatever the moment: every future has been dropped, everything that was
//! held is free, and every outcome that was not returned has been dropped.

use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use errgroup::fan_out::Stop;
use errgroup::{Context, ContextError, Errors, TaskErrorKind, fan_out, fan_out_stream, hedge};
use futures::FutureExt;
use futures::future::LocalBoxFuture;
use futures::stream::{self, LocalBoxStream, StreamExt};
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::sync::Semaphore;

use crate::group_support::*;
use crate::support::tasks_end;

const PERMITS: usize = 2;

/// The number of polls that an eager caller makes without being woken. Then it lets the clock
/// advance.
const EAGER: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    All,
    ForEach,
    Settle,
    TryStream,
    Stream,
    OrderedStream,
    IndexedStream,
    FirstOk,
    Quorum,
    Hedge,
}

const ENDS: [End; 9] = [
    End::All,
    End::ForEach,
    End::Settle,
    End::TryStream,
    End::Stream,
    End::OrderedStream,
    End::IndexedStream,
    End::FirstOk,
    End::Quorum,
];

impl End {
    fn is_stream(self) -> bool {
        matches!(
            self,
            End::TryStream | End::Stream | End::OrderedStream | End::IndexedStream
        )
    }

    /// Returns whether this end returns every outcome, if it is not dropped.
    fn is_lossless(self) -> bool {
        matches!(
            self,
            End::Settle | End::Stream | End::OrderedStream | End::IndexedStream
        )
    }
}

/// An item: how often it yields, how long it sleeps, and how it ends.
#[derive(Debug, Clone, Copy)]
struct Item(usize, u64, Act);

#[derive(Debug, Clone, Copy)]
enum Act {
    Good,
    Bad,
    Panics,
}

type Items = &'static [Item];

const GOOD: Items = &[
    Item(3, 0, Act::Good),
    Item(0, 0, Act::Good),
    Item(2, 0, Act::Good),
    Item(1, 0, Act::Good),
    Item(0, 0, Act::Good),
    Item(2, 0, Act::Good),
];

const SOME_BAD: Items = &[
    Item(2, 0, Act::Bad),
    Item(4, 0, Act::Good),
    Item(0, 0, Act::Bad),
    Item(6, 0, Act::Good),
    Item(1, 0, Act::Good),
    Item(0, 0, Act::Good),
];

/// The grace is 5 ms: some of these end within it, and some do not.
const SLOW: Items = &[
    Item(1, 3, Act::Good),
    Item(0, 20, Act::Good),
    Item(2, 2, Act::Bad),
    Item(0, 0, Act::Good),
    Item(1, 9, Act::Bad),
    Item(0, 1, Act::Good),
];

const PANICS: Items = &[
    Item(3, 0, Act::Good),
    Item(1, 0, Act::Bad),
    Item(0, 0, Act::Good),
    Item(2, 0, Act::Panics),
    Item(9, 0, Act::Good),
    Item(0, 0, Act::Good),
];

#[derive(Debug, Clone, Copy)]
struct Setup {
    end: End,
    local: bool,
    /// Whether the items are those of a stream that has each of them a little later.
    streamed: bool,
    grace: Duration,
    items: Items,
}

/// What the caller does, and when.
#[derive(Debug, Clone, Copy)]
enum Moment {
    DropAfterPolls(usize),
    /// After this many outcomes, and a pause in which others become ready.
    DropAfterTaking(usize),
    CancelAfterPolls(usize),
    /// Stops the stream, and waits.
    StopAfterPolls(usize),
    /// Stops the stream, and drops the stop after this many of its polls.
    DropStopAfterPolls(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Pace {
    /// Polls whenever it can.
    Eager,
    /// Polls when it is woken.
    Woken,
    /// Does something else after each outcome.
    Slow,
}

/// Counts everything that must have been dropped in the end.
#[derive(Clone)]
struct World {
    futures: Probe,
    /// The items, the iterator or stream, and the function.
    user: Gauge,
    tokens: Gauge,
    made: Count,
    permits: Arc<Semaphore>,
}

/// The outcome of an item, a success or a failure.
struct Token {
    _alive: Alive,
}

enum Failure {
    Own(Token),
    Stopped,
}

impl From<ContextError> for Failure {
    fn from(_: ContextError) -> Failure {
        Failure::Stopped
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed")
    }
}

impl World {
    fn new() -> World {
        World {
            futures: Probe::default(),
            user: Gauge::default(),
            tokens: Gauge::default(),
            made: Count::default(),
            permits: Arc::new(Semaphore::new(PERMITS)),
        }
    }

    fn token(&self) -> Token {
        self.made.add();
        let _alive = self.tokens.enter();
        Token { _alive }
    }

    fn run(
        &self,
        Item(times, millis, act): Item,
    ) -> impl Future<Output = Result<Token, Failure>> + Send + 'static {
        let world = self.clone();
        self.futures.wrap(async move {
            let _permit = world.permits.acquire().await;
            yields(times).await;
            if millis > 0 {
                tokio::time::sleep(Duration::from_millis(millis)).await;
            }
            match act {
                Act::Good => Ok(world.token()),
                Act::Bad => Err(Failure::Own(world.token())),
                Act::Panics => resume_unwind(Box::new("panicked")),
            }
        })
    }

    fn f(
        &self,
    ) -> impl FnMut(
        Context,
        (Item, Alive),
    ) -> futures::future::BoxFuture<'static, Result<Token, Failure>>
    + Send
    + 'static {
        let (world, in_f) = (self.clone(), self.user.enter());
        move |_, (item, in_item)| {
            let _ = &in_f;
            drop(in_item);
            Box::pin(world.run(item))
        }
    }

    fn iter(&self, items: Items) -> impl Iterator<Item = (Item, Alive)> + Send + 'static {
        let (user, in_iter) = (self.user.clone(), self.user.enter());
        items.iter().map(move |item| {
            let _ = &in_iter;
            (*item, user.enter())
        })
    }
}

/// What holds tokens.
trait Holds {
    fn outcomes(&self) -> usize {
        1
    }

    fn tokens(self) -> Vec<Token>;
}

impl Holds for () {
    fn tokens(self) -> Vec<Token> {
        Vec::new()
    }
}

impl Holds for Token {
    fn tokens(self) -> Vec<Token> {
        vec![self]
    }
}

impl Holds for Failure {
    fn tokens(self) -> Vec<Token> {
        match self {
            Failure::Own(token) => vec![token],
            Failure::Stopped => Vec::new(),
        }
    }
}

impl<V: Holds> Holds for Vec<V> {
    fn outcomes(&self) -> usize {
        self.len()
    }

    fn tokens(self) -> Vec<Token> {
        self.into_iter().flat_map(Holds::tokens).collect()
    }
}

impl Holds for Errors<Failure> {
    fn tokens(self) -> Vec<Token> {
        let failures = self.into_iter().map(|task| match task.into_kind() {
            TaskErrorKind::Failed(failure) => failure.tokens(),
            _ => Vec::new(),
        });
        failures.flatten().collect()
    }
}

impl<T: Holds, E: Holds> Holds for Result<T, E> {
    fn tokens(self) -> Vec<Token> {
        match self {
            Ok(value) => value.tokens(),
            Err(error) => error.tokens(),
        }
    }
}

impl<V: Holds> Holds for (usize, V) {
    fn tokens(self) -> Vec<Token> {
        self.1.tokens()
    }
}

/// Any end as a stream of its results: the number of outcomes, and their tokens.
type Outcomes = LocalBoxStream<'static, (usize, Vec<Token>)>;

/// A call of an end. A stream can be stopped.
struct Caller {
    outcomes: Outcomes,
    /// Takes the stream out of `outcomes`, and calls `stop` on it.
    stop: Box<dyn FnOnce() -> LocalBoxFuture<'static, ()>>,
}

fn whole(future: impl Future<Output: Holds> + 'static) -> Caller {
    let given = stream::once(future).map(|given| (given.outcomes(), given.tokens()));
    Caller {
        outcomes: given.boxed_local(),
        stop: Box::new(|| unreachable!("it is no stream")),
    }
}

fn each<S: Stop<Item: Holds> + 'static>(outcomes: errgroup::Outcomes<S>) -> Caller {
    let shared = Rc::new(RefCell::new(Some(outcomes)));
    let stops = shared.clone();
    let given = stream::poll_fn(move |cx| match &mut *shared.borrow_mut() {
        Some(outcomes) => outcomes.poll_next_unpin(cx),
        None => Poll::Ready(None),
    });
    Caller {
        outcomes: given
            .map(|given| (given.outcomes(), given.tokens()))
            .boxed_local(),
        stop: Box::new(move || {
            let outcomes = stops.borrow_mut().take();
            Box::pin(async { outcomes.unwrap().stop().await })
        }),
    }
}

macro_rules! end {
    ($end:expr, $fan_out:expr) => {{
        let fan_out = $fan_out;
        match $end {
            End::All => whole(fan_out.all()),
            End::ForEach => whole(fan_out.for_each()),
            End::Settle => whole(fan_out.settle()),
            End::TryStream => each(fan_out.try_stream()),
            End::Stream => each(fan_out.stream()),
            End::OrderedStream => each(fan_out.ordered_stream()),
            End::IndexedStream => each(fan_out.indexed_stream()),
            End::FirstOk => whole(fan_out.first_ok()),
            End::Quorum => whole(fan_out.quorum(2)),
            End::Hedge => unreachable!("it is no end of a fan-out"),
        }
    }};
}

impl Setup {
    fn call(self, ctx: &Context, world: &World) -> Caller {
        let mut f = world.f();
        if self.end == End::Hedge {
            let (items, user) = (self.items, world.user.clone());
            let attempt = move |ctx, attempt: usize| f(ctx, (items[attempt], user.enter()));
            return whole(hedge(ctx, Duration::from_millis(2), items.len(), attempt));
        }
        let iter = world.iter(self.items);
        if self.streamed {
            let items = stream::iter(iter).then(|item| async {
                tokio::task::yield_now().await;
                item
            });
            let fan_out = fan_out_stream(ctx, items, f).limit(3).grace(self.grace);
            match self.local {
                true => end!(self.end, fan_out.local()),
                false => end!(self.end, fan_out),
            }
        } else {
            let fan_out = fan_out(ctx, iter, f).limit(3).grace(self.grace);
            match self.local {
                true => end!(self.end, fan_out.local()),
                false => end!(self.end, fan_out),
            }
        }
    }
}

/// Returns whether the caller continues to poll after this.
impl Moment {
    fn drops(self, polls: usize, taken: usize) -> bool {
        match self {
            Moment::DropAfterPolls(most) => polls == most,
            Moment::DropAfterTaking(most) => taken == most,
            Moment::StopAfterPolls(most) => polls == most,
            Moment::DropStopAfterPolls(_) => polls == 6,
            Moment::CancelAfterPolls(_) => false,
        }
    }

    fn cancels(self, polls: usize) -> bool {
        matches!(self, Moment::CancelAfterPolls(at) if at == polls)
    }
}

/// Lets other tasks run until it is woken or, if `eager`, only for a moment.
async fn look_away(eager: bool) {
    let mut first = true;
    poll_fn(|cx| {
        if !std::mem::take(&mut first) {
            return Poll::Ready(());
        }
        if eager {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

/// Runs the program once. Returns whether the moment to stop was before the end.
async fn check(setup: Setup, pace: Pace, stop: Moment) -> bool {
    let one_thread = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
    let case = format!("{setup:?}, {pace:?}, {stop:?}");
    let (ctx, guard) = Context::background().with_cancel();
    let (mut guard, world) = (Some(guard), World::new());
    let mut caller = setup.call(&ctx, &world);
    let (mut taken, mut tokens, mut polls) = (0, Vec::new(), 0);
    let mut panicked = false;
    let returned = loop {
        if stop.drops(polls, taken) {
            break false;
        }
        if stop.cancels(polls) {
            drop(guard.take());
        }
        polls += 1;
        let polled = poll_fn(|cx| {
            let polled = AssertUnwindSafe(|| caller.outcomes.as_mut().poll_next(cx));
            Poll::Ready(catch_unwind(polled))
        });
        match polled.await {
            Ok(Poll::Ready(Some((outcomes, more)))) => {
                taken += outcomes;
                tokens.extend(more);
                if pace == Pace::Slow {
                    yields(4).await;
                }
            }
            Ok(Poll::Ready(None)) => break true,
            Ok(Poll::Pending) => {
                if stop.drops(polls, taken) {
                    break false;
                }
                if stop.cancels(polls) {
                    drop(guard.take());
                }
                look_away(pace == Pace::Eager && polls < EAGER).await;
            }
            Err(payload) => {
                assert_eq!(payload.downcast_ref(), Some(&"panicked"), "{case}");
                panicked = true;
                break true;
            }
        }
    };
    if let Moment::DropAfterTaking(_) = stop {
        yields(20).await;
    }

    let mut polled = world.futures.polled();
    let mut stopped = false;
    if !returned {
        let Caller {
            outcomes,
            stop: stop_stream,
        } = caller;
        match stop {
            Moment::StopAfterPolls(_) => {
                let ended = AssertUnwindSafe(stop_stream()).catch_unwind().await;
                if let Err(payload) = ended {
                    assert_eq!(payload.downcast_ref(), Some(&"panicked"), "{case}");
                }
                stopped = true;
                // In a grace period, items are polled.
                polled = world.futures.polled();
            }
            Moment::DropStopAfterPolls(most) => {
                let mut stopping = AssertUnwindSafe(stop_stream()).catch_unwind();
                for polls in 0..most {
                    if futures::poll!(&mut stopping).is_ready() {
                        stopped = true;
                        break;
                    }
                    look_away(polls < EAGER).await;
                }
                polled = world.futures.polled();
            }
            _ => drop(stop_stream),
        }
        drop(outcomes);
    }
    let gone_at_once = returned || stopped || setup.local;
    if !gone_at_once {
        tasks_end().await;
    }
    assert_eq!(world.futures.dropped(), world.futures.made(), "{case}");
    assert_eq!(world.user.now(), 0, "{case}");
    assert_eq!(world.permits.available_permits(), PERMITS, "{case}");
    assert_eq!(world.tokens.now(), tokens.len(), "{case}");
    if one_thread {
        let alive = Handle::current().metrics().num_alive_tasks();
        assert_eq!(alive, 0, "{case}");
        assert_eq!(world.futures.polled(), polled, "{case}");
    }
    tasks_end().await;
    if returned && !panicked && setup.end.is_lossless() {
        assert_eq!(tokens.len(), world.made.get(), "{case}");
        let made = world.futures.made();
        match setup.end {
            End::Settle => assert_eq!(taken, setup.items.len(), "{case}"),
            _ if one_thread || setup.local => assert_eq!(taken, made, "{case}"),
            // Futures that were made at the moment of the cancel have not started.
            _ => assert!(taken == made || taken + 1 == made, "{case}"),
        }
    }
    match stop {
        // Until the stop is ready before it is dropped.
        Moment::DropStopAfterPolls(_) => !returned && !stopped,
        _ => !returned || guard.is_none() && ctx.is_done(),
    }
}

/// Stops one step later each time, until the stop is too late. Returns how many stops were in time.
fn explore(runtime: &Runtime, setup: Setup, pace: Pace, stop: impl Fn(usize) -> Moment) -> usize {
    let in_time = |at: &usize| runtime.block_on(in_time(check(setup, pace, stop(*at))));
    let stops = (0..1_000).take_while(in_time).count();
    assert!(stops < 1_000, "{setup:?}");
    stops
}

fn one_thread() -> Runtime {
    // The runtime polls the caller after each poll of a task, and not after 61.
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .event_interval(1)
        .build()
        .unwrap()
}

const GRACES: [Duration; 2] = [Duration::ZERO, Duration::from_millis(5)];

fn setups(ends: &[End]) -> Vec<Setup> {
    let mut setups = Vec::new();
    for &end in ends {
        for bits in 0..4 {
            for grace in GRACES {
                for items in [GOOD, SOME_BAD, SLOW, PANICS] {
                    let (local, streamed) = (bits & 1 == 1, bits & 2 == 2);
                    setups.push(Setup {
                        end,
                        local,
                        streamed,
                        grace,
                        items,
                    });
                }
            }
        }
    }
    setups
}

fn hedges() -> Vec<Setup> {
    let setup = |items| Setup {
        end: End::Hedge,
        local: false,
        streamed: false,
        grace: Duration::ZERO,
        items,
    };
    let worst: Items = &[
        Item(1, 5, Act::Bad),
        Item(0, 1, Act::Bad),
        Item(3, 4, Act::Good),
    ];
    [GOOD, SOME_BAD, SLOW, PANICS, worst].map(setup).to_vec()
}

fn explore_all(setups: Vec<Setup>, stop: impl Fn(usize) -> Moment + Copy) {
    let (runtime, runs) = (one_thread(), setups.len());
    let mut stops = 0;
    for setup in setups {
        stops += explore(&runtime, setup, Pace::Eager, stop);
        explore(&runtime, setup, Pace::Woken, stop);
    }
    assert!(stops > 8 * runs, "only {stops} in {runs}");
}

#[test]
fn a_whole_is_dropped_after_each_poll() {
    let ends: Vec<_> = ENDS.into_iter().filter(|end| !end.is_stream()).collect();
    explore_all(setups(&ends), Moment::DropAfterPolls);
}

#[test]
fn a_whole_is_cancelled_after_each_poll() {
    let ends: Vec<_> = ENDS.into_iter().filter(|end| !end.is_stream()).collect();
    explore_all(setups(&ends), Moment::CancelAfterPolls);
}

#[test]
fn a_stream_is_dropped_after_each_poll() {
    let ends: Vec<_> = ENDS.into_iter().filter(|end| end.is_stream()).collect();
    explore_all(setups(&ends), Moment::DropAfterPolls);
}

#[test]
fn a_stream_is_cancelled_after_each_poll() {
    let ends: Vec<_> = ENDS.into_iter().filter(|end| end.is_stream()).collect();
    explore_all(setups(&ends), Moment::CancelAfterPolls);
}

#[test]
fn a_stream_is_stopped_after_each_poll() {
    let ends: Vec<_> = ENDS.into_iter().filter(|end| end.is_stream()).collect();
    explore_all(setups(&ends), Moment::StopAfterPolls);
}

#[test]
fn a_stop_is_dropped_after_each_of_its_polls() {
    let ends: Vec<_> = ENDS.into_iter().filter(|end| end.is_stream()).collect();
    let runtime = one_thread();
    let mut stops = 0;
    for setup in setups(&ends) {
        stops += explore(&runtime, setup, Pace::Eager, Moment::DropStopAfterPolls);
    }
    assert!(stops > 200, "{stops}");
}

#[test]
fn a_stream_is_dropped_after_each_outcome() {
    let (runtime, ends) = (
        one_thread(),
        [
            End::TryStream,
            End::Stream,
            End::OrderedStream,
            End::IndexedStream,
        ],
    );
    let mut stops = 0;
    for setup in setups(&ends) {
        for pace in [Pace::Eager, Pace::Woken, Pace::Slow] {
            stops += explore(&runtime, setup, pace, Moment::DropAfterTaking);
        }
    }
    assert!(stops > 500, "{stops}");
}

#[test]
fn a_slow_stream_is_dropped_or_cancelled_after_each_poll() {
    let (runtime, ends) = (
        one_thread(),
        [
            End::TryStream,
            End::Stream,
            End::OrderedStream,
            End::IndexedStream,
        ],
    );
    for setup in setups(&ends) {
        explore(&runtime, setup, Pace::Slow, Moment::DropAfterPolls);
        explore(&runtime, setup, Pace::Slow, Moment::CancelAfterPolls);
    }
}

#[test]
fn a_hedge_is_dropped_or_cancelled_after_each_poll() {
    explore_all(hedges(), Moment::DropAfterPolls);
    explore_all(hedges(), Moment::CancelAfterPolls);
}

/// On two workers the moment differs from run to run.
#[test]
fn on_two_workers_all_is_dropped_or_cancelled_after_each_poll() {
    let runtime = two_workers();
    // The clock is the real one: nothing waits for it.
    let timeless = |setup: &Setup| setup.items.iter().all(|Item(_, millis, _)| *millis == 0);
    for setup in setups(&ENDS).into_iter().filter(timeless) {
        for at in 0..12 {
            for stop in [Moment::DropAfterPolls(at), Moment::CancelAfterPolls(at)] {
                runtime.block_on(in_time(check(setup, Pace::Eager, stop)));
            }
        }
    }
}

/// An outcome may become ready at any moment of a poll for it, and the last one together with the
/// end. No outcome is lost, and none stays unseen until the next becomes ready, which with a limit
/// of 1 would never happen.
#[test]
fn on_two_workers_a_stream_gives_every_outcome_and_never_hangs() {
    let runtime = two_workers();
    for limit in [1, 2, 3] {
        for round in 0..5_000 {
            let items = 1 + round % 4;
            let f = |_, item| async move {
                yields(item % 3).await;
                OK
            };
            let outcomes = fan_out(&Context::background(), 0..items, f).limit(limit);
            let given = runtime.block_on(in_time(outcomes.stream().count()));
            assert_eq!(given, items, "in round {round}");
        }
    }
}

#[test]
fn an_item_whose_making_ends_the_context_is_settled_too() {
    for local in [false, true] {
        let (ctx, guard) = Context::background().with_cancel();
        let f = move |_, item: usize| {
            if item == 2 {
                guard.cancel();
            }
            std::future::pending::<Result<(), String>>()
        };
        let settle = fan_out(&ctx, 0..5, f);
        let settled = one_thread().block_on(in_time(async move {
            match local {
                true => settle.local().settle().await,
                false => settle.settle().await,
            }
        }));
        let stopped = Err("context cancelled".to_owned());
        assert_eq!(settled, vec![stopped; 5], "local: {local}");
    }
}
