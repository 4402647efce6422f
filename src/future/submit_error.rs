use super::error::{FutureState, ResultError};
use super::refusal::Refusal;
use std::fmt;

/// Why work was refused; contains what was submitted.
///
/// # Examples
///
/// ```
/// use callbridge::Bridge;
/// use callbridge::future::SubmitError;
///
/// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// drop(runtime);
/// let refused = bridge.try_run_coroutine_threadsafe(std::future::ready(5)).unwrap_err();
/// assert!(matches!(refused, SubmitError::Closed(_)));
/// assert_eq!(refused.into_inner().into_inner(), 5);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError<F> {
    /// The limit is reached; only the forms that don't wait say so.
    #[error("there is no room: wait for some, or raise the limit")]
    Full(F),
    /// The limit stayed reached until the timeout.
    #[error("there was no room in time: try again, or raise the limit")]
    TimedOut(F),
    /// Waiting for room here would block an event loop.
    #[error("waiting for room here would block an event loop: use the try form, or await")]
    WouldDeadlock(F),
    /// Whoever was to do the work is closed, or its event loop is gone.
    #[error("it is closed, or its event loop is gone: submit to one that is open")]
    Closed(F),
    /// The event loop, or the threads, stayed in the process that this one was forked off from.
    #[error("its threads stayed in the parent process: make new ones in this one")]
    Forked(F),
    /// Nobody takes the work, for the reason inside.
    #[error("the work was refused: see `source()`")]
    Refused(#[source] Refusal, F),
}

impl<F> SubmitError<F> {
    /// What was submitted.
    pub fn into_inner(self) -> F {
        match self {
            SubmitError::Full(work)
            | SubmitError::TimedOut(work)
            | SubmitError::WouldDeadlock(work)
            | SubmitError::Closed(work)
            | SubmitError::Forked(work)
            | SubmitError::Refused(_, work) => work,
        }
    }

    pub(crate) fn refused(why: Refusal, work: F) -> Self {
        match why {
            Refusal::Closed => SubmitError::Closed(work),
            why => SubmitError::Refused(why, work),
        }
    }

    pub(crate) fn map<G>(self, with: impl FnOnce(F) -> G) -> SubmitError<G> {
        match self {
            SubmitError::Full(work) => SubmitError::Full(with(work)),
            SubmitError::TimedOut(work) => SubmitError::TimedOut(with(work)),
            SubmitError::WouldDeadlock(work) => SubmitError::WouldDeadlock(with(work)),
            SubmitError::Closed(work) => SubmitError::Closed(with(work)),
            SubmitError::Forked(work) => SubmitError::Forked(with(work)),
            SubmitError::Refused(why, work) => SubmitError::Refused(why, with(work)),
        }
    }
}

impl<F> From<SubmitError<F>> for ResultError {
    fn from(refused: SubmitError<F>) -> Self {
        match refused {
            SubmitError::Full(_) | SubmitError::TimedOut(_) => {
                ResultError::TimedOut { state: FutureState::NoRoom }
            }
            SubmitError::WouldDeadlock(_) => ResultError::WouldDeadlock,
            SubmitError::Closed(_) => ResultError::LoopClosed,
            SubmitError::Forked(_) => ResultError::Forked,
            SubmitError::Refused(why, _) => ResultError::Refused(why),
        }
    }
}

impl<F> fmt::Debug for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Full(_) => f.write_str("Full(..)"),
            SubmitError::TimedOut(_) => f.write_str("TimedOut(..)"),
            SubmitError::WouldDeadlock(_) => f.write_str("WouldDeadlock(..)"),
            SubmitError::Closed(_) => f.write_str("Closed(..)"),
            SubmitError::Forked(_) => f.write_str("Forked(..)"),
            SubmitError::Refused(why, _) => write!(f, "Refused({why:?}, ..)"),
        }
    }
}
