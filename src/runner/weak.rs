use super::ThreadRunner;
use super::close::{Patience, RunnerCloseReport};
use super::core::Core;
use super::outcome::Outcome;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Closes a [`ThreadRunner`] from elsewhere, without keeping it alive.
///
/// For handlers that are never dropped, such as that of a signal: one that owned a share of the runner
/// would keep its loop, and what lives there, to the end of the process.
///
/// # Examples
///
/// ```
/// use callbridge::ThreadRunner;
/// use callbridge::runner::Outcome;
/// use std::time::Duration;
///
/// let runner = ThreadRunner::new();
/// let mut call = runner.spawn(std::future::pending::<()>());
/// let weak = runner.downgrade();
/// let on_ctrl_c = move || {
///     let _report = weak.close_with(Outcome::error("interrupted"), Duration::from_millis(5));
/// };
/// std::thread::spawn(on_ctrl_c);
/// assert!(call.result(None).is_err(), "the loop has ended under it");
/// ```
#[derive(Clone)]
pub struct WeakRunner {
    core: Weak<Core>,
}

impl ThreadRunner {
    /// Returns a handle that can close this runner and doesn't keep it alive.
    pub fn downgrade(&self) -> WeakRunner {
        WeakRunner { core: Arc::downgrade(&self.core) }
    }
}

impl WeakRunner {
    /// Closes the runner, as [`ThreadRunner::close`]; `None` once nothing is left of it.
    ///
    /// # Blocking
    ///
    /// As [`ThreadRunner::close`].
    pub fn close(&self, timeout: impl Into<Option<Duration>>) -> Option<RunnerCloseReport> {
        self.close_with(Outcome::Ok, timeout)
    }

    /// As [`close`](Self::close), with the outcome that the contexts are told.
    ///
    /// # Blocking
    ///
    /// As [`ThreadRunner::close`].
    pub fn close_with(
        &self,
        outcome: Outcome,
        timeout: impl Into<Option<Duration>>,
    ) -> Option<RunnerCloseReport> {
        Some(self.core.upgrade()?.close(outcome, Patience::new(timeout)))
    }
}

impl fmt::Debug for WeakRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakRunner").finish_non_exhaustive()
    }
}
