use super::core::Core;
use super::outcome::{ExitError, Outcome};
use crate::future::ResultError;
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How long the drop of a guard waits for the exit.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// An entered async context; its value, and the duty to exit it.
///
/// Made by [`ThreadRunner::enter_context`](crate::ThreadRunner::enter_context) and
/// [`wrap_context`](crate::ThreadRunner::wrap_context). The context is exited once, by whichever
/// comes first: [`exit`](Self::exit) or [`scope`](Self::scope), the drop of the guard, or the
/// runner's [`close`](crate::ThreadRunner::close), which exits what is open, the last one entered
/// first. The value stays usable, as far as the context's own end lets it.
///
/// Dropping it exits with [`Outcome::Ok`], or with [`Outcome::Panicked`] in a thread that is
/// panicking, and waits for that at most 1 s; on a thread that drives an event loop it doesn't
/// wait. The error of such an exit is in the runner's close report.
///
/// # Examples
///
/// ```
/// use callbridge::ThreadRunner;
/// use callbridge::runner::Outcome;
/// use std::sync::mpsc;
///
/// let (told, tell) = mpsc::channel();
/// let runner = ThreadRunner::new();
/// let session = runner.enter_context(
///     || async { Ok::<_, String>(String::from("session")) },
///     move |session, outcome| async move {
///         told.send(format!("{session} ended: {outcome}")).map_err(|e| e.to_string())
///     },
/// )?;
/// assert_eq!(session.len(), 7);
/// session.exit(Outcome::error("no such station")).unwrap();
/// assert_eq!(tell.recv().unwrap(), "session ended: no such station");
/// # Ok::<(), callbridge::runner::EnterError<String>>(())
/// ```
#[must_use = "dropping it exits the context"]
pub struct Guard<T> {
    /// Taken when the context is exited, so that the exit can have the last share.
    value: Option<Arc<T>>,
    core: Arc<Core>,
    id: u64,
    /// Where it was entered.
    location: &'static Location<'static>,
}

impl<T> Guard<T> {
    pub(super) fn new(
        value: Arc<T>,
        core: Arc<Core>,
        id: u64,
        location: &'static Location<'static>,
    ) -> Self {
        Guard { value: Some(value), core, id, location }
    }

    /// Exits the context with `outcome` and waits until it has ended.
    ///
    /// A context that the runner's close has exited, or is exiting, is left to it: this returns
    /// `Ok` then.
    ///
    /// # Blocking
    ///
    /// Until the exit has ended. On a thread that drives an event loop the exit is only begun.
    ///
    /// # Errors
    ///
    /// [`ExitError`]: the exit failed or panicked, or it was not waited for on a thread that drives
    /// an event loop (a failure is then in the report of
    /// [`ThreadRunner::close`](crate::ThreadRunner::close)).
    pub fn exit(mut self, outcome: Outcome) -> Result<(), ExitError> {
        self.leave(outcome, None, false)
    }

    /// Runs `body` with the value, then exits with how it ended: the `with` statement.
    ///
    /// A panic of `body` goes on after the exit.
    ///
    /// # Blocking
    ///
    /// As [`exit`](Self::exit).
    ///
    /// # Errors
    ///
    /// [`ScopeError`]: the body's error, or the exit's. When both fail the exit's is in the
    /// runner's close report.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ThreadRunner;
    /// use callbridge::runner::ScopeError;
    ///
    /// let runner = ThreadRunner::new();
    /// let number = runner.enter_context(
    ///     || async { Ok::<_, String>(6) },
    ///     |_number, outcome| async move {
    ///         assert!(!outcome.is_ok());
    ///         Ok::<_, String>(())
    ///     },
    /// )?;
    /// let failed = number.scope(|number| if *number == 7 { Ok(()) } else { Err("not seven") });
    /// assert!(matches!(failed, Err(ScopeError::Body("not seven"))));
    /// # Ok::<(), callbridge::runner::EnterError<String>>(())
    /// ```
    pub fn scope<R, E: fmt::Display>(
        mut self,
        body: impl FnOnce(&T) -> Result<R, E>,
    ) -> Result<R, ScopeError<R, E>> {
        match catch_unwind(AssertUnwindSafe(|| body(&self))) {
            Ok(Ok(value)) => match self.leave(Outcome::Ok, None, false) {
                Ok(()) => Ok(value),
                Err(error) => Err(ScopeError::Exit { value, error }),
            },
            Ok(Err(error)) => {
                let _kept = self.leave(Outcome::error(error.to_string()), None, true);
                Err(ScopeError::Body(error))
            }
            Err(payload) => {
                let _kept = self.leave(Outcome::Panicked, None, true);
                resume_unwind(payload)
            }
        }
    }

    /// Gives the guard up and leaves the exit to the runner's close.
    ///
    /// Python: `ThreadRunner.enter_context` and `ExitStack.enter_context`, which always do so.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::ThreadRunner;
    /// # use std::time::Duration;
    /// let runner = ThreadRunner::new();
    /// let session = runner
    ///     .enter_context(|| async { Ok::<_, String>(7) }, |_, _| async { Ok::<_, String>(()) })?
    ///     .leave_open();
    /// assert_eq!(*session, 7);
    /// assert_eq!(runner.close(Duration::from_secs(5)).contexts, 1);
    /// # Ok::<(), callbridge::runner::EnterError<String>>(())
    /// ```
    pub fn leave_open(mut self) -> Arc<T> {
        self.value.take().expect("the value leaves only with the guard")
    }

    fn leave(
        &mut self,
        outcome: Outcome,
        timeout: Option<Duration>,
        keep: bool,
    ) -> Result<(), ExitError> {
        drop(self.value.take());
        if self.core.is_forked() {
            return Err(ExitError::new(self.location, ResultError::Forked.into()));
        }
        self.core.contexts.exit(self.id, outcome, timeout, keep)
    }
}

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("the value leaves only with the guard")
    }
}

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if self.value.is_some() {
            let _kept = self.leave(Outcome::of_drop(), Some(DROP_WAIT), true);
        }
    }
}

impl<T> fmt::Debug for Guard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("runner", &self.core.name).finish_non_exhaustive()
    }
}

/// The body of a [`scope`](Guard::scope) failed, or the exit after it did.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ScopeError<R, E> {
    /// The body failed; the context was exited with its error.
    #[error("{0}")]
    Body(E),
    /// The body ended well, the exit didn't.
    #[error("the body ended well, and the exit after it didn't: see `source()`")]
    #[non_exhaustive]
    Exit {
        /// What the body gave.
        value: R,
        /// What the exit says.
        #[source]
        error: ExitError,
    },
}

impl<R, E> fmt::Debug for ScopeError<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScopeError::Body(_) => f.write_str("Body(..)"),
            ScopeError::Exit { error, .. } => f.debug_tuple("Exit").field(error).finish(),
        }
    }
}
