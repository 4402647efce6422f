use super::refusal::Refusal;
use crate::sync::{discard, panic_message, prim::Mutex};
use std::any::Any;
use std::fmt;
use std::io;

/// How far a call has come.
///
/// # Examples
///
/// ```
/// use callbridge::future::FutureState;
///
/// assert!(FutureState::Cancelled.is_done());
/// assert!(!FutureState::Queued.is_done());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FutureState {
    /// Not submitted: the limit of calls in flight, or of a queue, was reached.
    NoRoom,
    /// Submitted, and the loop hasn't begun a call since: nobody drives it, or something blocks it.
    NotStarted,
    /// Submitted, and the loop has begun other calls since, but not this one.
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
    /// Never begun: whoever was to do the work took none.
    Refused,
    /// Given up at a timeout: a future was dropped; a job runs on if a thread had begun it, its value dropped.
    Abandoned,
}

impl FutureState {
    /// Whether the work has ended, one way or another; what was abandoned counts as ended.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(callbridge::future::FutureState::Finished.is_done());
    /// ```
    pub fn is_done(self) -> bool {
        !matches!(
            self,
            FutureState::NoRoom
                | FutureState::NotStarted
                | FutureState::Queued
                | FutureState::Running
        )
    }

    /// What to do about work that wasn't done in time.
    fn advice(self) -> &'static str {
        match self {
            FutureState::NoRoom | FutureState::Abandoned => "try again, or give it more time",
            _ => "wait again, or cancel it",
        }
    }
}

impl fmt::Display for FutureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FutureState::NoRoom => "no room: the limit of what may wait or be in flight is reached",
            FutureState::NotStarted => "not started: the loop isn't driven, or something blocks it",
            FutureState::Queued => "queued behind other work",
            FutureState::Running => "running",
            FutureState::Finished => "finished",
            FutureState::Cancelled => "cancelled",
            FutureState::Panicked => "panicked",
            FutureState::LoopClosed => "ended by the loop's end",
            FutureState::WouldDeadlock => "refused on the loop's own thread",
            FutureState::Refused => "refused",
            FutureState::Abandoned => "abandoned",
        })
    }
}

/// Why waiting for a [`BlockingFuture`](crate::BlockingFuture), or a call, gave no value.
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
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResultError {
    /// The wait ended first.
    ///
    /// What a [`BlockingFuture`](crate::BlockingFuture) stands for goes on, and can be waited for again. What
    /// was given to a call that waits for it, such as [`Bridge::call`](crate::Bridge::call), is over: it is
    /// [`Abandoned`](FutureState::Abandoned), or never began for want of [room](FutureState::NoRoom).
    #[error("not done in time ({state}): {}", .state.advice())]
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
    #[error("the event loop is gone, or its bridge was closed, before the work was done")]
    LoopClosed,
    /// Waiting here would stop an event loop; await the future instead, or wait on another thread.
    #[error("waiting here would block an event loop: await the future instead")]
    WouldDeadlock,
    /// The loop, or the thread, belongs to the process that this one was forked off from, where it stayed.
    ///
    /// Told as far as it can be: a lock that one of the loop's threads held at the fork, the runtime's own
    /// among them, stays locked in the new process.
    #[error("its threads stayed in the parent process: make new ones in this one")]
    Forked,
    /// The work never began: a pool, a dedicated thread or a runner didn't take it, for the reason inside.
    #[error("the work never began: see `source()`")]
    Refused(#[from] Refusal),
    /// The value, or the panic, was taken by an earlier call.
    #[error("the result was already taken by an earlier call")]
    AlreadyTaken,
}

impl ResultError {
    /// The state of a call that ended so.
    pub(crate) fn state(&self) -> FutureState {
        match self {
            ResultError::TimedOut { state } => *state,
            ResultError::Cancelled => FutureState::Cancelled,
            ResultError::Panicked(_) => FutureState::Panicked,
            ResultError::WouldDeadlock => FutureState::WouldDeadlock,
            ResultError::Refused(_) => FutureState::Refused,
            _ => FutureState::LoopClosed,
        }
    }
}

/// For code that reads and writes: the error is inside, for [`io::Error::get_ref`].
///
/// Never of kind `Interrupted`, after which std's own loops try again.
///
/// # Examples
///
/// ```
/// use callbridge::ResultError;
/// use std::io;
///
/// let error = io::Error::from(ResultError::WouldDeadlock);
/// assert_eq!(error.kind(), io::ErrorKind::Deadlock);
/// assert!(error.get_ref().unwrap().is::<ResultError>());
/// ```
impl From<ResultError> for io::Error {
    fn from(error: ResultError) -> Self {
        let kind = match error {
            ResultError::TimedOut { .. } => io::ErrorKind::TimedOut,
            ResultError::WouldDeadlock => io::ErrorKind::Deadlock,
            ResultError::LoopClosed => io::ErrorKind::BrokenPipe,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
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
    /// Boxed, so that results that may hold one stay small.
    caught: Box<Caught>,
}

struct Caught {
    /// The payload; in a lock only so that errors can be shared between threads.
    payload: Mutex<Option<Box<dyn Any + Send>>>,
    /// The payload's text.
    message: Box<str>,
}

impl Panic {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = panic_message(payload.as_ref()).into();
        Panic { caught: Box::new(Caught { payload: Mutex::new(Some(payload)), message }) }
    }

    /// The panic's message, or a phrase that says that it has none.
    pub fn message(&self) -> &str {
        &self.caught.message
    }

    /// The payload, as `std::panic::catch_unwind` would give it, for `std::panic::resume_unwind`.
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

    fn take(&self) -> Option<Box<dyn Any + Send>> {
        crate::sync::prim::lock(&self.caught.payload).take()
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
        f.debug_tuple("Panic").field(&self.message()).finish()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}
