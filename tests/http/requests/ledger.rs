//! The book that is kept of each request, by the server and by its client, and the verdict on it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use errgroup::Context;
use errgroup::tower::{ClientGone, RequestFinished};
use http::StatusCode;
use tokio::sync::Notify;

use crate::plan::{Leaves, Plan, Work};

/// The cause with which the server is stopped.
pub(crate) const STOP: &str = "SIGTERM";

/// How a request's context ended, for what had been started with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Processed,
    Gone,
    Deadline,
    Shutdown,
    /// By nothing that there is here.
    Strange(String),
}

impl End {
    pub(crate) fn of(ctx: &Context) -> End {
        let cause = ctx.cause().map(|cause| cause.to_string());
        match ctx.err() {
            Some(error) if error.is_deadline_exceeded() => End::Deadline,
            Some(_) if ctx.caused_by::<ClientGone>() => End::Gone,
            Some(_) if ctx.caused_by::<RequestFinished>() => End::Processed,
            Some(_) if cause.as_deref() == Some(STOP) => End::Shutdown,
            Some(error) => End::Strange(format!("{error}: {cause:?}")),
            None => End::Strange("not at all".to_owned()),
        }
    }
}

/// What the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// The client has the whole response, this long after it began to send the request.
    Whole(StatusCode, Duration),
    /// It stayed, and the answer or its connection broke off.
    Broken(Duration),
    Left,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) plan: Plan,
    pub(crate) account: Mutex<Option<Account>>,
    /// How often the request reached the server.
    pub(crate) arrived: AtomicUsize,
    /// How often a handler began.
    pub(crate) reached: AtomicUsize,
    /// How often a handler came to its own end, and was not dropped before.
    pub(crate) handled: AtomicUsize,
    pub(crate) ends: Mutex<Vec<End>>,
    pub(crate) at_handler: Notify,
    /// The handler has read of the upload.
    pub(crate) read: Notify,
    pub(crate) ended: Notify,
}

impl Entry {
    pub(crate) fn new(plan: Plan) -> Entry {
        Entry {
            plan,
            account: Mutex::new(None),
            arrived: AtomicUsize::new(0),
            reached: AtomicUsize::new(0),
            handled: AtomicUsize::new(0),
            ends: Mutex::new(Vec::new()),
            at_handler: Notify::new(),
            read: Notify::new(),
            ended: Notify::new(),
        }
    }

    pub(crate) fn has_arrived(&self) -> bool {
        self.arrived.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::SeqCst) > 0
    }

    /// How the request ended, if that fits what the client knows; what is wrong otherwise.
    ///
    /// `lingers`: handlers are not dropped. `stops`: the server was stopped in the middle of the
    /// request. On HTTP/2, a server closes a connection when it has answered everything on it,
    /// although its client may still write to it, for example to reset a stream. Then TCP discards
    /// what the client has not read. Only there, a request that was answered may have no response.
    pub(crate) fn verdict(
        &self,
        lingers: bool,
        http2: bool,
        stops: bool,
    ) -> Result<String, String> {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        let (arrived, reached) = (count(&self.arrived), count(&self.reached));
        let handled = count(&self.handled);
        let ends = self.ends.lock().unwrap();
        let account = self
            .account
            .lock()
            .unwrap()
            .ok_or("its client says nothing")?;
        let wrong = |what: &str| {
            let plan = self.plan;
            Err(format!(
                "{what}: arrived {arrived}, handlers {reached}, of which {handled} came to \
                 their end, ends {ends:?}, the client: {account:?}; {plan:?}"
            ))
        };
        if arrived > 1 || reached > arrived {
            return wrong("a request came more than once");
        }
        if ends.len() != reached {
            return wrong("the end of a request was not counted once");
        }
        if handled > reached || (lingers && handled != reached) {
            return wrong("a handler was not left to its own end");
        }
        let end = ends.first();
        let fits = match account {
            Account::Whole(StatusCode::OK | StatusCode::NO_CONTENT, after) => match end {
                Some(End::Processed) => true,
                // The answer was under way when that came, and was over after it.
                Some(End::Deadline) => self.is_late(after),
                Some(End::Shutdown) => stops,
                _ => false,
            },
            Account::Whole(StatusCode::GATEWAY_TIMEOUT, after) => match end {
                // A request whose time is up on arrival does not reach the handler.
                Some(End::Deadline) | None => self.is_late(after),
                // The handler was stopped, and took until the deadline to say so.
                Some(End::Shutdown) => stops && self.is_late(after),
                Some(_) => false,
            },
            Account::Whole(StatusCode::SERVICE_UNAVAILABLE, _) => {
                stops && end == Some(&End::Shutdown)
            }
            Account::Whole(..) => false,
            Account::Broken(after) => match end {
                Some(End::Deadline) => self.is_late(after),
                Some(End::Shutdown) => stops && (http2 || self.breaks_off()),
                // Handed over, and lost with its connection.
                Some(End::Processed) => stops && http2,
                Some(_) => false,
                // Closed by a server that stops, which has seen nothing of it.
                None => (stops && arrived == 0) || self.is_late(after),
            },
            Account::Left => match end {
                Some(End::Gone) => true,
                Some(End::Processed) => self.plan.ends_by_itself(),
                Some(End::Deadline) => self.plan.short_timeout().is_some(),
                Some(End::Shutdown) => stops,
                Some(End::Strange(_)) => false,
                None => self.may_miss() || self.plan.short_timeout().is_some(),
            },
        };
        if !fits {
            return wrong("the end of a request has another cause than what happened");
        }
        Ok(match end {
            Some(end) => format!("{end:?}"),
            None if arrived > 0 => "no time left on arrival".to_owned(),
            None => "never seen by the server".to_owned(),
        })
    }

    /// Whether the deadline may have passed at the server. It cannot have begun before the client
    /// began to send the request.
    fn is_late(&self, after: Duration) -> bool {
        let timeout = self.plan.short_timeout();
        timeout.is_some_and(|timeout| timeout <= after)
    }

    /// Whether a server that stops may break its response off: in the middle of a stream, and in
    /// the middle of an upload, where the data that the client still sends may cost it the
    /// response.
    fn breaks_off(&self) -> bool {
        use Work::{Announced, Endless, Stream, Upload};
        matches!(
            self.plan.work,
            Announced | Endless(_) | Stream(_) | Upload(_)
        )
    }

    /// Whether the client may have left before the server had its request.
    fn may_miss(&self) -> bool {
        matches!(
            self.plan.leaves,
            Some(Leaves::After(_) | Leaves::WithConnection)
        )
    }
}
