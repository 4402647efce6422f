use super::refused::ExecutorError;
use super::start_error::StartError;
use crate::sync::{discard, panic_message, prim::Mutex};
use std::any::Any;
use std::fmt;

/// How far a call has come.
///
/// # Examples
///
/// ```
/// use callbridge::FutureState;
///
/// assert!(FutureState::Cancelled.is_done());
/// assert!(!FutureState::Queued.is_done());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FutureState {
    /// Submitted, and the loop hasn't turned since: nobody drives it, or something blocks it.
    NotStarted,
    /// Submitted, and the loop is turning, but the work's turn hasn't come.
    Queued,
    /// Polled at least once, and not ended.
    Running,
    /// Ended with a value.
    Finished,
    /// Ended by a cancel, its future dropped.
    Cancelled,
    /// Ended by a panic.
    Panicked,
    /// Ended, or never begun, because the loop is gone or its bridge was closed.
    LoopClosed,
    /// Never begun: submitting it would have blocked the loop's own thread.
    WouldDeadlock,
    /// Never begun: its executor is shut down, broken, or has no thread.
    Refused,
}

impl FutureState {
    /// Whether the work has ended, one way or another.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(callbridge::FutureState::Finished.is_done());
    /// ```
    pub fn is_done(self) -> bool {
        !matches!(self, FutureState::NotStarted | FutureState::Queued | FutureState::Running)
    }
}

impl fmt::Display for FutureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FutureState::NotStarted => "never started: nobody is driving the loop",
            FutureState::Queued => "queued behind other work",
            FutureState::Running => "running",
            FutureState::Finished => "finished",
            FutureState::Cancelled => "cancelled",
            FutureState::Panicked => "panicked",
            FutureState::LoopClosed => "ended by the loop's end",
            FutureState::WouldDeadlock => "refused on the loop's own thread",
            FutureState::Refused => "refused by its executor",
        })
    }
}

/// Why there is no value.
///
/// Each way of not getting a value is a variant of its own: the wait ran out, the work was
/// cancelled, it panicked, its loop went away, or waiting here would never end.
///
/// # Examples
///
/// ```
/// use callbridge::{Bridge, ResultError};
/// use std::time::Duration;
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// let mut never = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
/// let error = never.result(Duration::from_millis(1)).unwrap_err();
/// assert!(matches!(error, ResultError::TimedOut { .. }));
/// drop(runtime);
/// assert!(matches!(never.result(None), Err(ResultError::LoopClosed)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    /// The wait ended first; the work goes on and the future stays usable.
    #[error("not done in time ({state}): wait again, or cancel it")]
    TimedOut {
        /// How far the work had come when the wait ended.
        state: FutureState,
    },
    /// The work was cancelled and has ended.
    #[error("the work was cancelled")]
    Cancelled,
    /// The work panicked; the payload is inside.
    #[error("the work panicked: {0}")]
    Panicked(Panic),
    /// The loop went away, or its bridge was closed, before the work was done.
    #[error("the event loop is gone or its bridge is closed: submit to a loop that is running")]
    LoopClosed,
    /// The loop could not be started; the reason is inside.
    #[error("{0}")]
    StartFailed(StartError),
    /// Waiting here would stop an event loop; await the future instead, or wait on another thread.
    #[error("waiting here would block an event loop: await the future instead")]
    WouldDeadlock,
    /// The executor never began the work: it is shut down, broken, or has no thread.
    #[error("{0}")]
    Refused(ExecutorError),
    /// The value, or the panic, was taken by an earlier call.
    #[error("the result was already taken by an earlier call")]
    AlreadyTaken,
}

impl fmt::Debug for ResultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResultError::TimedOut { state } => {
                f.debug_struct("TimedOut").field("state", state).finish()
            }
            ResultError::Cancelled => f.write_str("Cancelled"),
            ResultError::Panicked(panic) => f.debug_tuple("Panicked").field(panic).finish(),
            ResultError::LoopClosed => f.write_str("LoopClosed"),
            ResultError::StartFailed(error) => f.debug_tuple("StartFailed").field(error).finish(),
            ResultError::WouldDeadlock => f.write_str("WouldDeadlock"),
            ResultError::Refused(why) => f.debug_tuple("Refused").field(why).finish(),
            ResultError::AlreadyTaken => f.write_str("AlreadyTaken"),
        }
    }
}

/// Why a wait that takes nothing ended without the work being done.
///
/// # Examples
///
/// ```
/// let bridge = callbridge::Bridge::new(tokio::runtime::Builder::new_current_thread().build()?.handle().clone());
/// let mut refused = bridge.run_coroutine_threadsafe(async {});
/// assert_eq!(refused.wait(None), Ok(()), "a refused call is done at once");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The wait ended first; the work goes on.
    #[error("not done in time ({state}): wait again, or cancel it")]
    TimedOut {
        /// How far the work had come when the wait ended.
        state: FutureState,
    },
    /// Waiting here would stop an event loop.
    #[error("waiting here would block an event loop: await the future instead")]
    WouldDeadlock,
}

/// A caught panic, with its payload.
///
/// # Examples
///
/// ```
/// use callbridge::{Bridge, ResultError};
///
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// match bridge.run_coroutine_threadsafe(async { panic!("no such port") }).result(None) {
///     Err(ResultError::Panicked(panic)) => assert_eq!(panic.message(), "no such port"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Panic {
    /// The payload; in a lock only so that errors can be shared between threads.
    payload: Mutex<Option<Box<dyn Any + Send>>>,
    /// The payload's text.
    message: Box<str>,
}

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = panic_message(payload.as_ref()).into();
        Panic { payload: Mutex::new(Some(payload)), message }
    }

    /// The panic's message, or a phrase that says that it has none.
    ///
    /// # Examples
    ///
    /// See [`Panic`].
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The payload, as `std::panic::catch_unwind` would give it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::{Bridge, ResultError};
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let mut call = bridge.run_coroutine_threadsafe(async { std::panic::panic_any(7_u32) });
    /// let Err(ResultError::Panicked(panic)) = call.result(None) else { unreachable!() };
    /// assert_eq!(panic.into_payload().downcast_ref::<u32>(), Some(&7));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn into_payload(self) -> Box<dyn Any + Send> {
        self.take().expect("the payload leaves only with the panic itself")
    }

    /// Goes on panicking in the calling thread.
    ///
    /// # Panics
    ///
    /// Always: that is what it is for.
    ///
    /// # Examples
    ///
    /// ```should_panic
    /// # use callbridge::{Bridge, ResultError};
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let mut call = bridge.run_coroutine_threadsafe(async { panic!("carried over") });
    /// if let Err(ResultError::Panicked(panic)) = call.result(None) {
    ///     panic.resume_unwind();
    /// }
    /// ```
    pub fn resume_unwind(self) -> ! {
        std::panic::resume_unwind(self.into_payload())
    }

    fn take(&self) -> Option<Box<dyn Any + Send>> {
        crate::sync::prim::lock(&self.payload).take()
    }
}

impl Drop for Panic {
    fn drop(&mut self) {
        if let Some(payload) = self.take() {
            discard(payload);
        }
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panic").field(&self.message).finish()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
