//! The plan that is drawn for a request: what its handler does, and whether, where and when its
//! client disconnects.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// The requests of a round, by protocol. Those of HTTP/2 come in batches, each on its own
/// connection.
pub(crate) const HTTP1: usize = 244;
pub(crate) const HTTP2: usize = 256;
pub(crate) const BATCH: usize = 8;

/// So long that it does not pass here.
const LONG: Duration = Duration::from_secs(600);

/// What the handler does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Works for a while, and answers.
    Answer(Duration),
    /// Answers with a status that has no body.
    Empty,
    /// Answers with a body whose length is announced, and which does not itself know where it ends.
    Announced,
    /// Streams this many chunks.
    Stream(usize),
    /// The same, and then never ends.
    Endless(usize),
    /// Reads this many chunks, to the end of the upload, and answers.
    Upload(usize),
    /// Never answers.
    Hang,
}

/// Where its client leaves. At the first three it does so *because* the request is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// When the handler has begun: before the headers of the answer.
    BeforeHeaders,
    /// With this many chunks of the answer.
    InBody(usize),
    /// With the upload unfinished, when the handler has read of it.
    InUpload,
    /// At a random moment.
    After(Duration),
    /// At a random moment, with its connection and all that is on it.
    WithConnection,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) work: Work,
    pub(crate) leaves: Option<Leaves>,
    /// What the request says in `grpc-timeout`.
    pub(crate) timeout: Option<Duration>,
}

impl Plan {
    /// Those of a round. Exactly half of the clients leave.
    pub(crate) fn draw(seed: u64, round: u64) -> Vec<Plan> {
        let mut random = Random::of(seed, round);
        let http1 = (0..HTTP1).map(|number| (number % 2 == 0, false));
        let http2 = (0..HTTP2).map(|number| match number / BATCH % 4 {
            0 => (true, true),
            1 => (false, false),
            _ => (number % 2 == 0, false),
        });
        let all: Vec<_> = http1.chain(http2).collect();
        let plans = all.into_iter();
        let plans = plans.map(|(leaves, with_connection)| {
            let (leaves, work, timeout) = match (leaves, with_connection) {
                (true, true) => (
                    Some(Leaves::WithConnection),
                    random.any_work(),
                    random.timeout(),
                ),
                (true, false) => random.leaving(),
                (false, _) => random.staying(),
            };
            Plan {
                work,
                leaves,
                timeout,
            }
        });
        plans.collect()
    }

    /// Whether the request may be over before its client does anything about that.
    pub(crate) fn ends_by_itself(&self) -> bool {
        let unfinished = self.leaves == Some(Leaves::InUpload)
            || matches!(self.work, Work::Hang | Work::Endless(_));
        !unfinished
    }

    /// The time that may pass, where there is one.
    pub(crate) fn short_timeout(&self) -> Option<Duration> {
        self.timeout.filter(|timeout| *timeout < LONG)
    }
}

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn seed() -> u64 {
        RandomState::new().build_hasher().finish() >> 32
    }

    pub(crate) fn of(seed: u64, number: u64) -> Random {
        let mut random = Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn micros(&mut self, end: usize) -> Duration {
        Duration::from_micros(self.below(end) as u64)
    }

    fn chunks(&mut self) -> usize {
        1 + self.below(6)
    }

    /// Work that ends by itself.
    fn some_work(&mut self) -> Work {
        match self.below(8) {
            0 => Work::Empty,
            1 => Work::Announced,
            2 | 3 => Work::Stream(self.chunks()),
            4 | 5 => Work::Upload(self.chunks()),
            _ => Work::Answer(self.micros(3_000)),
        }
    }

    fn any_work(&mut self) -> Work {
        match self.below(8) {
            0 | 1 => Work::Hang,
            2 => Work::Endless(self.chunks()),
            _ => self.some_work(),
        }
    }

    fn timeout(&mut self) -> Option<Duration> {
        match self.below(8) {
            0 => Some(LONG),
            1 => Some(self.short()),
            _ => None,
        }
    }

    /// In whole milliseconds; sometimes none at all.
    fn short(&mut self) -> Duration {
        Duration::from_millis(self.below(15) as u64)
    }

    fn leaving(&mut self) -> (Option<Leaves>, Work, Option<Duration>) {
        let (leaves, work) = match self.below(8) {
            0 => (Leaves::BeforeHeaders, Work::Answer(self.micros(1_000))),
            1 => (Leaves::BeforeHeaders, Work::Hang),
            2 => {
                let chunks = self.chunks();
                (Leaves::InBody(1 + self.below(chunks)), Work::Stream(chunks))
            }
            3 | 4 => {
                let chunks = self.chunks();
                let seen = 1 + self.below(chunks);
                (Leaves::InBody(seen), Work::Endless(chunks))
            }
            5 => (Leaves::InUpload, Work::Upload(self.chunks())),
            _ => (Leaves::After(self.micros(4_000)), self.any_work()),
        };
        (Some(leaves), work, self.timeout())
    }

    fn staying(&mut self) -> (Option<Leaves>, Work, Option<Duration>) {
        match self.below(8) {
            // Only the deadline ends these.
            0 => (None, Work::Hang, Some(self.short())),
            1 => (None, Work::Endless(self.chunks()), Some(self.short())),
            _ => (None, self.some_work(), self.timeout()),
        }
    }
}
