//! The settings of the server's layer, and what they make of a request's headers.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use crate::context::Cause;
use crate::sync::Arc;
use crate::tower::carried::{self, Carried};
use crate::tower::cause::{TIME_OF_CLIENT_PASSED, TIME_OF_SERVER_PASSED};
use crate::tower::header::{self, GRPC_TIMEOUT};

type MaxTimeout = dyn Fn(&Parts) -> Option<Duration> + Send + Sync;

#[derive(Clone)]
pub(super) struct Config {
    pub(super) grace: Duration,
    pub(super) max_lingering: usize,
    pub(super) max_timeout: Option<Duration>,
    pub(super) max_timeout_with: Option<Arc<MaxTimeout>>,
    /// The headers with a timeout: `grpc-timeout`, and those that were added.
    timeouts: Vec<HeaderName>,
    /// The headers that are copied into the context. No name occurs twice.
    carried: Vec<HeaderName>,
    is_untrusted: bool,
    /// The bits of the names above and of `content-type`.
    bits: u64,
}

/// What a request's headers contain that matters here. Most requests have none of it.
#[derive(Default, Clone, Copy)]
pub(super) struct Found {
    timeout: bool,
    carried: bool,
    pub(super) content_type: bool,
}

impl Config {
    pub(super) fn new() -> Config {
        let mut config = Config {
            grace: Duration::from_secs(10),
            max_lingering: 1_024,
            max_timeout: None,
            max_timeout_with: None,
            timeouts: Vec::new(),
            carried: Vec::new(),
            is_untrusted: false,
            bits: bit_of(&CONTENT_TYPE),
        };
        config.read_timeout(GRPC_TIMEOUT);
        carried::DEFAULT
            .into_iter()
            .for_each(|name| config.carry(name));
        config
    }

    pub(super) fn read_timeout(&mut self, name: HeaderName) {
        self.bits |= bit_of(&name);
        self.timeouts.push(name);
    }

    pub(super) fn carry(&mut self, name: HeaderName) {
        self.bits |= bit_of(&name);
        if !self.carried.contains(&name) {
            self.carried.push(name);
        }
    }

    pub(super) fn distrust(&mut self) {
        self.is_untrusted = true;
        self.carried.retain(|name| *name != carried::BAGGAGE);
    }

    /// Looks at each header once. The bit of its name rules most of them out, without a hash or a
    /// comparison.
    pub(super) fn find(&self, headers: &HeaderMap) -> Found {
        let mut found = Found::default();
        for name in headers.keys() {
            if self.bits & bit_of(name) != 0 {
                found.content_type |= *name == CONTENT_TYPE;
                found.timeout |= self.timeouts.contains(name);
                found.carried |= self.carried.contains(name);
            }
        }
        found
    }

    /// Returns the headers that the context carries, if there are any.
    pub(super) fn carried(&self, headers: &HeaderMap, found: Found) -> Option<Carried> {
        if !found.carried {
            return None;
        }
        Carried::of(headers, &self.carried)
    }

    /// Returns the timeout of a request, and the cause that says which side has set it: the client
    /// or the server.
    pub(super) fn timeout(&self, parts: &Parts, found: Found) -> Option<(Duration, Cause)> {
        let asked = if found.timeout && !self.is_untrusted {
            header::timeout(&parts.headers, &self.timeouts)
        } else {
            None
        };
        let max = match &self.max_timeout_with {
            Some(of) => of(parts).or(self.max_timeout),
            None => self.max_timeout,
        };
        match (asked, max) {
            (Some(asked), Some(max)) if max < asked => {
                Some((max, Cause::from_static(&TIME_OF_SERVER_PASSED)))
            }
            (Some(asked), _) => Some((asked, Cause::from_static(&TIME_OF_CLIENT_PASSED))),
            (None, Some(max)) => Some((max, Cause::from_static(&TIME_OF_SERVER_PASSED))),
            (None, None) => None,
        }
    }
}

/// Returns one of 64 bits for a name, from its length and its first letter. The names that matter
/// by default share no bit with those that most clients send.
fn bit_of(name: &HeaderName) -> u64 {
    let name = name.as_str().as_bytes();
    let first = name.first().copied().map_or(0, usize::from);
    1 << ((name.len() * 19 + first) % 64)
}

// The function of `max_timeout_with` is only called, and every call is a new one: a panic of it
// leaves the layer as it was.
impl UnwindSafe for Config {}
impl RefUnwindSafe for Config {}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("grace", &self.grace)
            .field("max_lingering", &self.max_lingering)
            .field("max_timeout", &self.max_timeout)
            .field("max_timeout_with", &self.max_timeout_with.is_some())
            .field("timeouts", &self.timeouts)
            .field("carried", &self.carried)
            .field("is_untrusted", &self.is_untrusted)
            .finish_non_exhaustive()
    }
}
