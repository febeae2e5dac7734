//! A function that runs when a context ends.

use std::fmt;

use tokio::task::AbortHandle;

use super::Context;
use crate::sync::{Arc, Mutex};
use crate::tracing::{self, Span};

type Func = Box<dyn FnOnce() + Send>;

/// The handle of a function that was registered with [`Context::after_func`].
///
/// Dropping it changes nothing: the function still runs.
pub struct AfterFunc {
    func: Arc<Mutex<Option<Func>>>,
    /// None where the context can never end.
    task: Option<AbortHandle>,
}

impl AfterFunc {
    pub(crate) fn register(ctx: &Context, func: impl FnOnce() + Send + 'static) -> AfterFunc {
        let func: Arc<Mutex<Option<Func>>> = Arc::new(Mutex::new(Some(Box::new(func))));
        let task = (!ctx.node.is_endless()).then(|| {
            let (done, func) = (ctx.done_owned(), func.clone());
            let caller = Span::current();
            let task = tokio::spawn(async move {
                done.await;
                // Whoever takes it, this task or `stop`, decides; it runs outside the lock.
                let taken = func.lock().take();
                if let Some(func) = taken {
                    let _entered = tracing::enter(Some(&caller));
                    func();
                }
            });
            task.abort_handle()
        });
        AfterFunc { func, task }
    }

    /// Prevents the run, and says whether it did: `true` once, `false` if the function has started or was stopped before.
    ///
    /// It does not wait for a function that is running.
    pub fn stop(&self) -> bool {
        let taken = self.func.lock().take();
        if let Some(task) = &self.task {
            if taken.is_some() {
                task.abort();
            }
        }
        taken.is_some()
    }
}

impl fmt::Debug for AfterFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AfterFunc").finish_non_exhaustive()
    }
}
