//! Handlers that are not dropped when their client disconnects: each runs as a task of its own.

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
    /// Returns a layer that runs each handler as a task of its own, and a handle that waits for the
    /// handlers at shutdown.
    ///
    /// When the client disconnects, such a handler is cancelled and not dropped.
    ///
    /// **Why.** When a client disconnects, a server drops the handler at whichever await it has
    /// reached. A drop does not undo anything. A statement that was sent to a database is executed
    /// all the same, and its result is lost. The second of two writes is never sent. A lock that
    /// another system holds for the handler stays locked. No clean-up that is async can run. A
    /// handler for which this matters needs to be cancelled, and to have time to finish.
    ///
    /// **How.** When the handler's context is done (the client has disconnected, the deadline has
    /// passed, the server shuts down), the handler has `grace` to finish. After that it is aborted.
    /// The client does not wait for the grace period: it receives the timeout response at the
    /// deadline. A handler that has returned its response has finished. The response's *body* is
    /// dropped with its connection, as without the detached mode.
    ///
    /// **Shutting down.** [`Handlers::wait`] waits for the handlers that are still running. A
    /// server does not wait for a handler whose connection is closed. Keep the handle until the end
    /// of `main`:
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
    /// A task for each handler has these consequences:
    ///
    /// - The handler's future and response must be `Send + 'static`.
    /// - Task-locals that an outer layer sets are not set in the handler. Put such layers inside
    ///   this one. The same applies to the current span, unless feature `tracing` is on.
    /// - All handlers run on the runtime of the first one.
    /// - A handler that blocks its thread cannot be aborted.
    #[must_use = "the server's shutdown waits for the handlers with the second part"]
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

/// The state that the layer, its services and the handle share. When the last of them is dropped,
/// the group is dropped, and aborts the handlers that still run.
struct Shared {
    spawner: Spawner<ContextError>,
    /// `None` after [`Handlers::wait`] was called: no handler starts any more.
    group: Mutex<Option<Group<ContextError>>>,
    /// Cancels the context from which the contexts of the requests are derived.
    stop: CancelHandle,
    grace: Duration,
    tally: Arc<Mutex<Tally>>,
}

impl Shared {
    /// Returns `true` until [`Handlers::wait`] is called.
    fn is_open(&self) -> bool {
        self.group.lock().is_some()
    }
}

/// A [`ContextLayer`] that runs each handler as a task of its own. It is made by
/// [`ContextLayer::detached`].
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

/// The service that a [`DetachedLayer`] returns: `S`, with a context and a task for each request.
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
    /// The response future of a [`DetachedService`].
    ///
    /// If it is dropped before it is ready, the handler's context is cancelled with
    /// [`ClientGone`](super::ClientGone), and the handler has its grace period to finish.
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct DetachedFuture<R, E> {
        // None when the future is ready.
        scope: Option<Scope>,
        // None if the request does not reach the handler: the deadline had passed on arrival, or
        // the server shuts down.
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
        // A panic is a bug, so it is resumed even at the deadline. Any other outcome at the
        // deadline is too late, as in `ResponseFuture`.
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

/// A handle to the handlers that a [`DetachedLayer`] runs, with which the server's shutdown waits
/// for them.
///
/// Dropping it does not stop any handler, but nothing can wait for them any more. The handlers keep
/// running while the layer or one of its services exists. When the last of these is dropped, they
/// are aborted.
#[must_use = "call `wait().await` after the server has stopped, to wait for the handlers"]
pub struct Handlers {
    shared: Arc<Shared>,
}

impl Handlers {
    /// Returns the number of handlers that are running. It may have changed by the time that it is
    /// used.
    #[must_use]
    pub fn running(&self) -> usize {
        self.shared.group.lock().as_ref().map_or(0, Group::running)
    }

    /// Cancels every handler that is still running, waits until all have finished, and returns a
    /// report.
    ///
    /// It waits for the layer's grace period at most. The grace period of a handler begins when its
    /// context is done. If the server's context was cancelled before this call, the grace period
    /// has begun before it, too. A handler that blocks its thread cannot be aborted, so this waits
    /// for it longer than that.
    ///
    /// From this call on, the response to a new request is 503, or `grpc-status: 14`.
    ///
    /// Call it after the server has stopped, to let the handlers finish that were not cancelled
    /// yet. A graceful shutdown of a server waits for its connections. This waits for the handlers
    /// whose connection is closed.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe. Dropping the future aborts the handlers, and their report is lost.
    pub async fn wait(self) -> Drained {
        let group = self.shared.group.lock().take();
        self.shared.tally.lock().begin();
        self.shared
            .stop
            .cancel_with(Cause::from_static(&SERVER_STOPS));
        if let Some(group) = group {
            // A handler's task does not fail: its outcome is in the tally. Two errors are possible.
            // A response that nothing takes may panic when it is dropped, which is counted here. A
            // task may have been dropped with its runtime, which is not counted.
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
