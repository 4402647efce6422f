//! What the crate asks of an event loop: to run a task, to be current, and whether it is here.

#[cfg(callbridge_shuttle)]
pub(crate) use super::model::{enter, on_worker, spawn};
#[cfg(not(callbridge_shuttle))]
pub(crate) use tokios::{enter, on_worker, spawn};

#[cfg(not(callbridge_shuttle))]
mod tokios {
    use std::future::Future;
    use tokio::runtime::{EnterGuard, Handle, worker_index};

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

    /// Whether this thread is a loop's worker.
    #[inline]
    pub(crate) fn on_worker() -> bool {
        worker_index().is_some()
    }
}
