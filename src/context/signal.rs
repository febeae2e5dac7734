//! Contexts that are cancelled by a signal to the process. Feature `signal`.

use std::io;

use tokio::task::AbortHandle;

use super::Context;
use super::cause::Cause;
use super::node::Node;
use crate::sync::{Arc, Weak};

/// The cause of a context that a signal has cancelled.
#[derive(Debug, thiserror::Error)]
#[error("received {0}")]
struct Received(String);

/// Aborts the task that waits for the signal when the context that it would cancel is dropped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Context {
    /// Returns a child that is cancelled by the first of these signals, with a cause that names it:
    /// `received SIGTERM`.
    ///
    /// From the first call on, tokio replaces the signal's default action for the life of the
    /// process. So a further SIGINT does not kill a process whose context SIGINT has cancelled. If
    /// a second Ctrl-C should exit at once, the program has to listen for it itself.
    ///
    /// One task waits for the signals, until one arrives or the child is dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if a signal cannot be listened for, such as SIGKILL. Also returns one if
    /// `signals` is empty, since no signal would ever cancel such a child.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime that has I/O enabled.
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
        Ok(self.cancelled_by(async move {
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

    /// Returns a child that is cancelled when the process is asked to stop: by SIGINT or SIGTERM on
    /// Unix, by Ctrl-C on Windows. The cause names the signal.
    ///
    /// From the first call on, tokio replaces the default action of these signals for the life of
    /// the process: a second Ctrl-C does not kill it. One task waits for the signals, until one
    /// arrives or the child is dropped. See [`with_signals`](Context::with_signals) for other
    /// signals.
    ///
    /// # Errors
    ///
    /// Returns an error if the signals cannot be listened for.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime that has I/O enabled.
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
    #[doc(alias("NotifyContext", "ctrl_c", "SIGTERM", "graceful_shutdown"))]
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
            Ok(self.cancelled_by(async move {
                ctrl_c.recv().await;
                "Ctrl-C".to_owned()
            }))
        }
    }

    fn cancelled_by(&self, signal: impl Future<Output = String> + Send + 'static) -> Context {
        let node = self.node.with_signal();
        // Weak, so that the task does not keep the context alive.
        let weak: Weak<Node> = Arc::downgrade(&node);
        let task = tokio::spawn(async move {
            let name = signal.await;
            if let Some(node) = weak.upgrade() {
                node.cancel(Some(Cause::from(Received(name))));
            }
        });
        node.keep_alive(Box::new(AbortOnDrop(task.abort_handle())));
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
