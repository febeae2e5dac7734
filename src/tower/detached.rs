//! Handlers that are not dropped when their client goes.

mod handler;
mod report;

pub use report::{Aborted, Drained};

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::{RequestBody, ResponseBody};
use super::cause::{HANDLER_FAILED, SERVER_STOPS};
use super::layer::ContextLayer;
use super::scope::{self, Scope};
use crate::context::ContextError;
use crate::context::{CancelHandle, Cause};
use crate::group::{Group, Spawner, TaskHandle};
use crate::panic;
use crate::sync::{Arc, Mutex};
use handler::{Handler, Outcome, RequestLine};
use report::Tally;

impl ContextLayer {
    /// The detached mode: a layer that runs each handler as a task of its own, which the client's going *asks* to stop and does
    /// not drop; and the handle with which the server's shutdown waits for them.
    ///
    /// **Why.** A server drops a handler at whatever await it stands at when its client goes, and a drop is not an undo. A
    /// statement that was sent to a database is carried out all the same, and nobody learns how it ended; the second of two writes
    /// is never sent; a lock that somebody else keeps stays taken; and nothing that is async can clean up. A handler that
    /// this can happen to wants to be asked, and to have time.
    ///
    /// **How.** When the handler's context ends (the client has gone, the deadline has passed, the server stops), it has
    /// `grace` to finish, and is aborted after that. The client is told at the deadline as ever, and does not wait for the
    /// grace. A handler that has given its response has ended: the response's *body* is dropped with its connection, as ever.
    ///
    /// **Shutting down.** [`Handlers::wait`] waits for the handlers that still run, which no server does by itself once their
    /// connections are gone. Keep the handle to the end of `main`:
    ///
    /// ```
    /// use errgroup::Context;
    /// use errgroup::tower::ContextLayer;
    /// use std::time::Duration;
    ///
    /// # async fn serve(_: &Context, _: errgroup::tower::DetachedLayer) {}
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// # let server = Context::background();
    /// let (layer, handlers) = ContextLayer::new(&server).detached(Duration::from_secs(5));
    /// serve(&server, layer).await;
    /// let drained = handlers.wait().await;
    /// for request in drained.aborted() {
    ///     eprintln!("aborted: {request}");
    /// }
    /// # }
    /// ```
    ///
    /// What a task of its own costs: the handler's future and response must be `Send + 'static`; task-locals of layers further
    /// out do not reach it, so put those layers inside, and nor do their spans, unless feature `tracing` is on. All handlers run
    /// on the runtime of the first. A handler that blocks its thread cannot be aborted by anyone.
    #[must_use = "the second part is what the server's shutdown waits with"]
    pub fn detached(self, grace: Duration) -> (DetachedLayer, Handlers) {
        let (ctx, guard) = self.server().with_cancel();
        let group = Group::new();
        let shared = Arc::new(Shared {
            spawner: group.spawner(),
            group: Mutex::new(Some(group)),
            stop: guard.disarm(),
            grace,
            tally: Arc::new(Mutex::new(Tally::new())),
        });
        let handlers = Handlers {
            shared: shared.clone(),
        };
        let layer = DetachedLayer {
            layer: self.with_server(ctx),
            shared,
        };
        (layer, handlers)
    }
}

/// What the layer, its services and the handle share. The group goes with the last of them, and aborts what runs then.
struct Shared {
    spawner: Spawner<ContextError>,
    /// `None` once somebody waits: nothing starts any more.
    group: Mutex<Option<Group<ContextError>>>,
    /// Ends the context that those of the requests are children of.
    stop: CancelHandle,
    grace: Duration,
    tally: Arc<Mutex<Tally>>,
}

impl Shared {
    fn is_open(&self) -> bool {
        self.group.lock().is_some()
    }
}

/// A [`ContextLayer`] whose handlers are tasks of their own: made by [`ContextLayer::detached`].
#[derive(Clone)]
pub struct DetachedLayer {
    layer: ContextLayer,
    shared: Arc<Shared>,
}

impl<S> Layer<S> for DetachedLayer {
    type Service = DetachedService<S>;

    fn layer(&self, inner: S) -> DetachedService<S> {
        DetachedService {
            inner,
            layer: self.clone(),
        }
    }
}

impl fmt::Debug for DetachedLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedLayer")
            .field("layer", &self.layer)
            .field("grace", &self.shared.grace)
            .finish_non_exhaustive()
    }
}

/// A service whose handlers are tasks of their own: what a [`DetachedLayer`] makes of `S`.
#[derive(Debug, Clone)]
pub struct DetachedService<S> {
    inner: S,
    layer: DetachedLayer,
}

impl<S, B, R> Service<Request<B>> for DetachedService<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    R: Body + Send + 'static,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = DetachedFuture<R, S::Error>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let DetachedLayer { layer, shared } = &self.layer;
        let line = RequestLine::of(&request);
        let (request, mut scope) = layer.begin(request);
        let handler = if scope.deadline.has_passed() || !shared.is_open() {
            None
        } else {
            let future = scope.guard.run(|| self.inner.call(request));
            let ctx = scope.ctx.clone();
            let handler = Handler::new(future, ctx, shared.grace, line, shared.tally.clone());
            Some(shared.spawner.spawn(handler))
        };
        DetachedFuture {
            scope: Some(scope),
            handler,
        }
    }
}

pin_project! {
    /// The response of a [`DetachedService`]. Dropping it asks the handler to stop.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct DetachedFuture<R, E> {
        // None once it has resolved.
        scope: Option<Scope>,
        // None if the request does not reach the handler.
        handler: Option<TaskHandle<Outcome<Response<R>, E>>>,
    }
}

impl<R: Body, E> Future for DetachedFuture<R, E> {
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.handler.is_none() {
            ready!(scope::poll_budget(cx));
        }
        let Some(mut scope) = this.scope.take() else {
            panic!("`DetachedFuture` polled after it resolved");
        };
        let mut outcome = None;
        if !scope.deadline.has_passed() {
            let polled = match this.handler {
                Some(handler) => Pin::new(handler).poll(cx),
                None => Poll::Ready(None),
            };
            match polled {
                Poll::Ready(ended) => outcome = ended,
                Poll::Pending if scope.deadline.poll(cx).is_pending() => {
                    *this.scope = Some(scope);
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
        }
        // A bug is shown in any case; for the rest, see `ResponseFuture`.
        let outcome = match outcome {
            Some(Outcome::Panicked(panicked)) => {
                scope.guard.run(|| panic::resume(panicked.deliver()))
            }
            other => other,
        };
        Poll::Ready(if scope.deadline.has_passed() {
            scope.expire();
            Ok(scope.timed_out())
        } else {
            match outcome {
                Some(Outcome::Answered(Ok(response))) => Ok(scope.respond(response)),
                Some(Outcome::Answered(Err(error))) => {
                    scope.guard.fail(&HANDLER_FAILED);
                    Err(error)
                }
                Some(Outcome::Panicked(_) | Outcome::Aborted) | None => Ok(scope.unavailable()),
            }
        })
    }
}

impl<R, E> fmt::Debug for DetachedFuture<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedFuture").finish_non_exhaustive()
    }
}

/// The handlers that a [`DetachedLayer`] runs: what the server's shutdown waits with.
///
/// Dropping it stops nobody, and then nobody can wait: handlers run on while the layer or a service that it made is there,
/// and are aborted with the last of these.
#[must_use = "handlers are waited for with `wait().await`, after the server has stopped"]
pub struct Handlers {
    shared: Arc<Shared>,
}

impl Handlers {
    /// How many run now. By the time it is looked at, it may have changed.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.group.lock().as_ref().map_or(0, Group::running)
    }

    /// Asks every handler that still runs to stop, waits until all have ended, and says what became of them.
    ///
    /// It takes the layer's grace at the most, counted for each from the end of its context: when the server's
    /// context has ended before, so has the grace begun before. Only a handler that blocks its thread is waited for beyond that, since
    /// nobody can abort it. From now on, what comes in is answered 503, or `grpc-status: 14`.
    ///
    /// To let handlers finish that nobody has asked to stop, call it when the server has: a graceful shutdown waits for the
    /// connections, and this for what has lost its connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the handlers.
    pub async fn wait(self) -> Drained {
        let group = self.shared.group.lock().take();
        self.shared.tally.lock().begin();
        self.shared.stop.cancel_with(Cause::note(&SERVER_STOPS));
        if let Some(group) = group {
            // Handlers do not fail: what becomes of them is in the tally, but for a response that panics when nobody takes it. One
            // that the runtime dropped has nobody to tell.
            if let Err(errors) = group.wait_all().await {
                let panics = errors.iter().filter(|error| error.is_panic());
                panics.for_each(|_| self.shared.tally.lock().panicked());
            }
        }
        self.shared.tally.lock().take()
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers")
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}
