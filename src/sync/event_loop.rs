//! What the crate asks of an event loop: to run a task, to be current, and whether it is here.

#[cfg(callbridge_shuttle)]
pub(crate) use super::model::{enter, on_worker, spawn};
#[cfg(not(callbridge_shuttle))]
pub(crate) use tokios::{enter, on_worker, spawn};

#[cfg(not(callbridge_shuttle))]
mod tokios {
    use std::future::Future;
    use tokio::runtime::{EnterGuard, Handle};

    /// Runs a task on the loop; a loop that is gone drops it here and now.
    #[inline]
    pub(crate) fn spawn(handle: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        drop(handle.spawn(task));
    }

    /// Makes the loop current on this thread.
    #[inline]
    pub(crate) fn enter(handle: &Handle) -> EnterGuard<'_> {
        handle.enter()
    }

    /// Whether this thread is a loop's worker, which tokio tells since 1.54.
    #[inline]
    pub(crate) fn on_worker() -> bool {
        // This scope is nearer than the fallback's: tokio's own is called wherever there is one.
        #[allow(unused_imports, reason = "tokio before 1.54 has nothing of use here")]
        use tokio::runtime::*;
        worker_index().is_some()
    }

    /// Takes the place of tokio's own before 1.54.
    #[allow(dead_code, reason = "tokio since 1.54 has its own")]
    fn worker_index() -> Option<usize> {
        None
    }
}
