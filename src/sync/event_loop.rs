//! What the crate asks of an event loop: to run a task, to be current, and whether it is here.

#[cfg(callbridge_shuttle)]
pub(crate) use super::model::{enter, on_worker, spawn};
#[cfg(callbridge_loom)]
pub(crate) use super::model_loom::{enter, on_worker, spawn};
#[cfg(not(any(callbridge_loom, callbridge_shuttle)))]
pub(crate) use tokio_runtime::{enter, on_worker, spawn};

#[cfg(not(any(callbridge_loom, callbridge_shuttle)))]
mod tokio_runtime {
    use std::future::Future;
    use tokio::runtime::{EnterGuard, Handle};
    use tokio::task::JoinHandle;

    /// Runs a task on the loop; a loop that is gone drops it here and now.
    ///
    /// The task's name, and the place that it was spawned at, are what tokio-console shows.
    #[inline]
    #[track_caller]
    #[cfg(not(all(tokio_unstable, feature = "tracing")))]
    pub(crate) fn spawn(
        handle: &Handle,
        _name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        Some(handle.spawn(task))
    }

    #[track_caller]
    #[cfg(all(tokio_unstable, feature = "tracing"))]
    pub(crate) fn spawn(
        handle: &Handle,
        name: &str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Option<JoinHandle<()>> {
        tokio::task::Builder::new().name(name).spawn_on(task, handle).ok()
    }

    /// Makes the loop current on this thread, unless the thread is too far gone for that.
    #[inline]
    pub(crate) fn enter(handle: &Handle) -> Option<EnterGuard<'_>> {
        let too_late = |error: &tokio::runtime::TryCurrentError| error.is_thread_local_destroyed();
        let gone = Handle::try_current().as_ref().err().is_some_and(too_late);
        (!gone).then(|| handle.enter())
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
