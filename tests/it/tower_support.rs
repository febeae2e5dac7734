//! What the modules about the tower layers share: bodies that follow a script, services made of a
//! closure, and texts for how the context of a request ended.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{self, Poll};

use errgroup::tower::{
    ContextLayer, DropOnDisconnect, DroppingFuture, RequestBody, ResponseBody, ResponseFuture,
};
use errgroup::{Context, Drained, DrainedPhase};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use tokio_test::task::Spawn;
use tower::{Layer, Service, service_fn};

pub(crate) const GONE: &str = "context cancelled: client disconnected";
pub(crate) const UPLOAD_BROKEN: &str = "context cancelled: client disconnected before the \
     request's body was complete: broken off";
pub(crate) const FINISHED: &str = "context cancelled: the request is finished";
pub(crate) const TIME_OF_CLIENT: &str =
    "context deadline exceeded: the time that the client allows for the request has passed";
pub(crate) const TIME_OF_SERVER: &str =
    "context deadline exceeded: the time that the server allows for a request has passed";

pub(crate) type Data = &'static [u8];

enum Step {
    Frame(Frame<Data>),
    Fail,
    Wait,
    Panic,
}

/// A body that follows a script, frame by frame. The default has no frame, and `is_end_stream` is
/// false before the first poll.
#[derive(Default)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    /// Whether `is_end_stream` is true when nothing is left.
    knows_its_end: Arc<AtomicBool>,
    /// Whether it repeats the last frame for ever.
    endless: bool,
    size: SizeHint,
    on_drop: Option<Box<dyn FnOnce() + Send>>,
}

impl Script {
    pub(crate) fn new() -> Script {
        Script::default()
    }

    fn then(mut self, step: Step) -> Script {
        self.steps.push_back(step);
        self
    }

    pub(crate) fn data(self, data: &'static str) -> Script {
        self.then(Step::Frame(Frame::data(data.as_bytes())))
    }

    pub(crate) fn trailers(self) -> Script {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        self.then(Step::Frame(Frame::trailers(trailers)))
    }

    pub(crate) fn fails(self) -> Script {
        self.then(Step::Fail)
    }

    pub(crate) fn waits(self) -> Script {
        self.then(Step::Wait)
    }

    pub(crate) fn panics(self) -> Script {
        self.then(Step::Panic)
    }

    pub(crate) fn knows_its_end(self) -> Script {
        self.knows_its_end.store(true, Ordering::SeqCst);
        self
    }

    /// The flag by which a test sets this later.
    pub(crate) fn knowledge_of_its_end(&self) -> Arc<AtomicBool> {
        self.knows_its_end.clone()
    }

    pub(crate) fn endless(mut self) -> Script {
        self.endless = true;
        self
    }

    pub(crate) fn size(mut self, size: u64) -> Script {
        self.size = SizeHint::with_exact(size);
        self
    }

    pub(crate) fn on_drop(mut self, f: impl FnOnce() + Send + 'static) -> Script {
        self.on_drop = Some(Box::new(f));
        self
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Some(f) = self.on_drop.take() {
            f();
        }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Script, {} steps left", self.steps.len())
    }
}

impl Body for Script {
    type Data = Data;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Data>, io::Error>>> {
        if self.endless {
            return Poll::Ready(Some(Ok(Frame::data(b"more"))));
        }
        match self.steps.pop_front() {
            Some(Step::Frame(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Step::Fail) => Poll::Ready(Some(Err(io::Error::other("broken off")))),
            Some(Step::Wait) => {
                self.steps.push_front(Step::Wait);
                Poll::Pending
            }
            Some(Step::Panic) => panic!("the body's bug"),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end.load(Ordering::SeqCst) && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

/// The only phase of the report of a wait.
pub(crate) fn only(drained: Drained) -> DrainedPhase {
    assert_eq!(
        (drained.phases().len(), drained.phases()[0].name()),
        (1, "handlers")
    );
    drained.phases()[0].clone()
}

pub(crate) fn get() -> Request<Script> {
    Request::get("/").body(Script::new()).unwrap()
}

/// A request with this timeout.
pub(crate) fn within(timeout: &str) -> Request<Script> {
    let request = Request::get("/").header("grpc-timeout", timeout);
    request.body(Script::new()).unwrap()
}

/// A gRPC request with this timeout, over HTTP/2.
pub(crate) fn grpc(timeout: &str) -> Request<Script> {
    let request = Request::post("/service/method")
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc+proto")
        .header("grpc-timeout", timeout);
    request.body(Script::new()).unwrap()
}

pub(crate) fn ok(body: Script) -> Result<Response<Script>, Infallible> {
    Ok(Response::new(body))
}

#[track_caller]
pub(crate) fn context_of<B>(request: &Request<B>) -> Context {
    let ctx = request.extensions().get::<Context>();
    ctx.expect("the layer puts a context there").clone()
}

/// A request through `layer` to `handler`, which has not been polled.
pub(crate) fn send<F, E>(
    layer: &ContextLayer,
    request: Request<Script>,
    handler: impl FnMut(Request<RequestBody<Script>>) -> F,
) -> Spawn<ResponseFuture<F>>
where
    F: Future<Output = Result<Response<Script>, E>> + Send + 'static,
{
    let mut service = layer.layer(service_fn(handler));
    tokio_test::task::spawn(service.call(request))
}

/// The same through a layer that drops its handlers.
pub(crate) fn send_dropping<F, E>(
    layer: &ContextLayer<DropOnDisconnect>,
    request: Request<Script>,
    handler: impl FnMut(Request<RequestBody<Script>>) -> F,
) -> Spawn<DroppingFuture<F>>
where
    F: Future<Output = Result<Response<Script>, E>>,
{
    let mut service = layer.layer(service_fn(handler));
    tokio_test::task::spawn(service.call(request))
}

/// The context of a request, and its response with `body`.
pub(crate) fn respond(
    layer: &ContextLayer,
    request: Request<Script>,
    response: Response<Script>,
) -> (Context, Response<ResponseBody<Script>>) {
    let (mut ctx, mut response) = (None, Some(response));
    let mut call = send(layer, request, |request| {
        ctx = Some(context_of(&request));
        std::future::ready(Ok::<_, Infallible>(response.take().unwrap()))
    });
    let Poll::Ready(Ok(response)) = call.poll() else {
        panic!("the handler is ready");
    };
    drop(call);
    (ctx.unwrap(), response)
}

/// The next frame of a body, which is polled once: its data as text, `trailers`, `end`, `nothing
/// yet`, or the error.
pub(crate) fn next<B>(body: &mut B) -> String
where
    B: Body<Data = Data> + Unpin,
    B::Error: fmt::Display,
{
    let mut frame = tokio_test::task::spawn(());
    match frame.enter(|cx, _| Pin::new(body).poll_frame(cx)) {
        Poll::Pending => "nothing yet".to_owned(),
        Poll::Ready(None) => "end".to_owned(),
        Poll::Ready(Some(Err(error))) => format!("error: {error}"),
        Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
            Ok(data) => String::from_utf8(data.to_vec()).unwrap(),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap();
                let status = trailers.get("grpc-status").unwrap();
                format!("trailers: grpc-status {}", status.to_str().unwrap())
            }
        },
    }
}
