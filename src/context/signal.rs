//! Contexts that end on a signal to the process. Feature `signal`.

use std::io;

use tokio::task::AbortHandle;

use super::Context;
use super::cause::Cause;
use super::node::Node;
use crate::sync::{Arc, Weak};

/// The cause of a context that a signal ended.
#[derive(Debug, thiserror::Error)]
#[error("received {0}")]
struct Received(String);

/// Ends the listening task when the context that it would end has gone.
struct Listener(AbortHandle);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Context {
    /// A child that ends on the first of these signals, with a cause that names it: `received SIGTERM`.
    ///
    /// From the first call on, tokio replaces the signal's default action for the life of the process: a further SIGINT
    /// will not kill a process whose context SIGINT has ended. A second Ctrl-C that exits at once is for the program to
    /// build, with a listener of its own.
    ///
    /// Needs a tokio runtime: one task listens, until the signal arrives or the child is dropped.
    ///
    /// # Errors
    ///
    /// If a signal cannot be listened to, as SIGKILL cannot; or if `signals` is empty, since such a child would never end
    /// that way.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that has I/O enabled.
    #[cfg(unix)]
    #[cfg_attr(docsrs, doc(cfg(all(feature = "signal", unix))))]
    pub fn with_signals(
        &self,
        signals: impl IntoIterator<Item = tokio::signal::unix::SignalKind>,
    ) -> io::Result<Context> {
        use std::future::poll_fn;
        use std::task::Poll;
        use tokio::signal::unix::signal;

        let mut listeners = signals
            .into_iter()
            .map(|kind| signal(kind).map(|listener| (name(kind), listener)))
            .collect::<io::Result<Vec<_>>>()?;
        if listeners.is_empty() {
            let message = "with_signals needs at least one signal";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(self.ended_by(async move {
            poll_fn(|cx| {
                for (name, listener) in &mut listeners {
                    if listener.poll_recv(cx).is_ready() {
                        return Poll::Ready(std::mem::take(name));
                    }
                }
                Poll::Pending
            })
            .await
        }))
    }

    /// A child that ends when the process is asked to stop: SIGINT or SIGTERM on Unix, Ctrl-C on Windows.
    ///
    /// All that [`with_signals`](Context::with_signals) says holds here.
    ///
    /// # Errors
    ///
    /// If the signals cannot be listened to.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that has I/O enabled.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn serve(_: &errgroup::Context) {}
    /// # async fn example() -> std::io::Result<()> {
    /// let ctx = errgroup::Context::background().with_shutdown_signals()?;
    /// serve(&ctx).await;
    /// eprintln!("stopped: {}", ctx.cause().expect("a signal is the cause"));
    /// # Ok(()) }
    /// ```
    #[cfg_attr(docsrs, doc(cfg(feature = "signal")))]
    pub fn with_shutdown_signals(&self) -> io::Result<Context> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::SignalKind;
            self.with_signals([SignalKind::interrupt(), SignalKind::terminate()])
        }
        #[cfg(windows)]
        {
            let mut ctrl_c = tokio::signal::windows::ctrl_c()?;
            Ok(self.ended_by(async move {
                ctrl_c.recv().await;
                "Ctrl-C".to_owned()
            }))
        }
    }

    fn ended_by(&self, signal: impl Future<Output = String> + Send + 'static) -> Context {
        let node = self.node.with_signal();
        // Weak: listening does not keep the context alive.
        let weak: Weak<Node> = Arc::downgrade(&node);
        let task = tokio::spawn(async move {
            let name = signal.await;
            if let Some(node) = weak.upgrade() {
                node.cancel(Some(Cause::from(Received(name))));
            }
        });
        node.keep_alive(Box::new(Listener(task.abort_handle())));
        Context { node }
    }
}

#[cfg(unix)]
fn name(kind: tokio::signal::unix::SignalKind) -> String {
    use tokio::signal::unix::SignalKind;
    let known = [
        (SignalKind::interrupt(), "SIGINT"),
        (SignalKind::terminate(), "SIGTERM"),
        (SignalKind::hangup(), "SIGHUP"),
        (SignalKind::quit(), "SIGQUIT"),
        (SignalKind::user_defined1(), "SIGUSR1"),
        (SignalKind::user_defined2(), "SIGUSR2"),
        (SignalKind::alarm(), "SIGALRM"),
    ];
    match known.iter().find(|(known, _)| *known == kind) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("signal {}", kind.as_raw_value()),
    }
}
