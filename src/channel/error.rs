//! One error for sending, with the frame inside, one for receiving, one for frames that were lost, and that
//! of a source.

use super::overflow::{Ending, LossReason};
use crate::sync::WaitError;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why a frame was not sent, by any of [`Sender`](crate::Sender)'s ways; the frame is inside.
///
/// Of a [reservation](crate::Sender::reserve) there is none inside yet: `SendError<()>`.
///
/// # Examples
///
/// ```
/// use callbridge::channel;
/// use callbridge::channel::SendError;
///
/// let (sender, frames) = channel(1);
/// sender.try_send("frame")?;
/// assert_eq!(sender.try_send("more"), Err(SendError::Full("more")));
/// drop(frames);
/// let refused = sender.send("frame").unwrap_err();
/// assert!(matches!(refused, SendError::Closed("frame")));
/// assert_eq!(refused.into_inner(), "frame");
/// # Ok::<(), SendError<&str>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<T> {
    /// The channel is full, and the frame was offered without a wait: by `try_send`, or under
    /// [`Overflow::Fail`](crate::Overflow::Fail).
    #[error("the channel is full: wait with send, or choose another overflow policy")]
    Full(T),
    /// No room came up in time, be it that of the call or of [`Overflow::BlockFor`](crate::Overflow::BlockFor).
    #[error("no room in the channel in time: let the consumer catch up, or wait longer")]
    TimedOut(T),
    /// The channel has ended; [`Sender::ending`](crate::Sender::ending) says why.
    #[error("the channel has ended: stop sending")]
    Closed(T),
    /// The channel is full, and waiting here would block a thread that drives an event loop.
    #[error(
        "waiting for room would block an event loop: use send_async or reserve_async here, or a thread of its own"
    )]
    WouldDeadlock(T),
    /// The frame weighs more than the channel's whole budget. Counted as lost.
    #[error("the frame is heavier than the whole weight budget: split it, or raise the budget")]
    TooHeavy(T),
}

impl<T> SendError<T> {
    /// The frame that was not sent.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel::SendError;
    ///
    /// assert_eq!(SendError::Closed(7).into_inner(), 7);
    /// ```
    pub fn into_inner(self) -> T {
        match self {
            SendError::Full(frame)
            | SendError::TimedOut(frame)
            | SendError::Closed(frame)
            | SendError::WouldDeadlock(frame)
            | SendError::TooHeavy(frame) => frame,
        }
    }

    pub(super) fn map<U>(self, with: impl FnOnce(T) -> U) -> SendError<U> {
        match self {
            SendError::Full(frame) => SendError::Full(with(frame)),
            SendError::TimedOut(frame) => SendError::TimedOut(with(frame)),
            SendError::Closed(frame) => SendError::Closed(with(frame)),
            SendError::WouldDeadlock(frame) => SendError::WouldDeadlock(with(frame)),
            SendError::TooHeavy(frame) => SendError::TooHeavy(with(frame)),
        }
    }

    /// Of a send that had a time of its own.
    pub(super) fn in_time(self) -> Self {
        match self {
            SendError::Full(frame) => SendError::TimedOut(frame),
            error => error,
        }
    }

    /// Of a send that never waits.
    pub(super) fn at_once(self) -> Self {
        match self {
            SendError::TimedOut(frame) | SendError::WouldDeadlock(frame) => SendError::Full(frame),
            error => error,
        }
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full(_) => "Full(..)",
            SendError::TimedOut(_) => "TimedOut(..)",
            SendError::Closed(_) => "Closed(..)",
            SendError::WouldDeadlock(_) => "WouldDeadlock(..)",
            SendError::TooHeavy(_) => "TooHeavy(..)",
        })
    }
}

impl From<WaitError> for SendError<()> {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => SendError::TimedOut(()),
            WaitError::WouldDeadlock => SendError::WouldDeadlock(()),
        }
    }
}

/// Why reading gave no frame.
///
/// # Examples
///
/// ```
/// use callbridge::channel;
/// use callbridge::channel::RecvError;
/// use std::time::Duration;
///
/// let (sender, mut frames) = channel::<u8>(1);
/// assert_eq!(frames.try_recv(), Err(RecvError::Empty));
/// assert_eq!(frames.recv_blocking(Duration::from_millis(1)), Err(RecvError::TimedOut));
/// drop(sender);
/// assert_eq!(frames.try_recv(), Err(RecvError::Ended));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing is queued now, and the call doesn't wait; more can come.
    #[error("no frame is queued: try later, or wait with recv")]
    Empty,
    /// No frame came in time.
    #[error("no frame came in time: wait again, or longer")]
    TimedOut,
    /// Everything was read and the channel has ended.
    #[error("the stream has ended: stop reading")]
    Ended,
    /// Waiting here would block a thread that drives an event loop.
    #[error("waiting for a frame would block an event loop: await recv here")]
    WouldDeadlock,
}

impl From<WaitError> for RecvError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => RecvError::TimedOut,
            WaitError::WouldDeadlock => RecvError::WouldDeadlock,
        }
    }
}

/// Why a tracked frame was not done, or what a [flush](crate::Sender::flush) waited for not taken.
///
/// # Examples
///
/// ```
/// use callbridge::channel::{LossReason, NotDone};
///
/// let (sender, frames) = callbridge::channel(1);
/// let mut receipt = sender.send_tracked("unread").unwrap();
/// drop(frames);
/// assert_eq!(receipt.result(None)?, Err(NotDone::Lost(LossReason::ConsumerDropped)));
/// # Ok::<(), callbridge::ResultError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotDone {
    /// The consumer was handed the frame, and dropped it before it was done.
    #[error("the consumer dropped the frame before it was done")]
    Unfinished,
    /// The frame didn't reach the consumer.
    #[error("the frame did not reach the consumer: {0}")]
    Lost(LossReason),
}

/// What went wrong at the source: the error given to [`Sender::fail`](crate::Sender::fail), or the
/// word for an end that no source chose (a panic, an abort, a lost event loop).
///
/// Cheap to clone; shows as the error inside.
///
/// # Examples
///
/// ```
/// use callbridge::channel;
/// use std::io;
///
/// let (sender, mut frames) = channel::<u8>(1);
/// sender.fail(io::Error::from(io::ErrorKind::BrokenPipe));
/// assert!(frames.try_recv().is_err());
/// let error = frames.error().expect("the source failed");
/// assert_eq!(error.to_string(), "broken pipe");
/// assert!(error.downcast_ref::<io::Error>().is_some());
/// ```
#[derive(Clone)]
pub struct SourceError(Arc<dyn Error + Send + Sync>);

impl SourceError {
    pub(crate) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        SourceError(Arc::from(error.into()))
    }

    pub(crate) fn get_ref(&self) -> &(dyn Error + 'static) {
        &*self.0
    }

    /// The error of an end that came with none of its own, if that end is one to report.
    pub(super) fn of_ending(ending: Ending) -> Option<Self> {
        match ending {
            Ending::Finished | Ending::ConsumerDropped => None,
            other => Some(SourceError::new(other.to_string())),
        }
    }

    /// The error inside, if it is an `E`.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, frames) = callbridge::channel::<u8>(1);
    /// sender.fail("no such device");
    /// # let mut frames = frames;
    /// # assert!(frames.try_recv().is_err());
    /// let error = frames.error().expect("the source failed");
    /// assert!(error.downcast_ref::<std::io::Error>().is_none());
    /// ```
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SourceError").field(&self.0).finish()
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}
