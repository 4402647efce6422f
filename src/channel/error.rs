//! One error per operation; each failing send carries its frame.

use super::overflow::Ending;
use super::produce::{Refusal, Refused};
use crate::sync::WaitError;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

macro_rules! send_error {
    (
        $(#[$meta:meta])*
        $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $text:literal, )+ }
        $( $refusal:ident => $mapped:ident, )*
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name<T> {
            $( $(#[$variant_meta])* $variant(T), )+
        }

        impl<T> $name<T> {
            /// The frame that was not sent.
            ///
            /// # Examples
            ///
            #[doc = concat!(
                "```\nuse callbridge::channel::", stringify!($name),
                ";\n\nassert_eq!(", stringify!($name), "::Closed(7).into_inner(), 7);\n```"
            )]
            pub fn into_inner(self) -> T {
                match self {
                    $( $name::$variant(frame) => frame, )+
                }
            }

            #[allow(dead_code, reason = "not every error is mapped")]
            pub(super) fn map<U>(self, with: impl FnOnce(T) -> U) -> $name<U> {
                match self {
                    $( $name::$variant(frame) => $name::$variant(with(frame)), )+
                }
            }

            pub(super) fn from_refused(refused: Refused<T>) -> Self {
                match refused.why {
                    $( Refusal::$refusal => $name::$mapped(refused.frame), )*
                }
            }
        }

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $( $name::$variant(_) => concat!(stringify!($variant), "(..)"), )+
                })
            }
        }

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $( $name::$variant(_) => $text, )+
                })
            }
        }

        impl<T> Error for $name<T> {}
    };
}

send_error! {
    /// Why [`Sender::send`](crate::Sender::send) or [`send_async`](crate::Sender::send_async) did not
    /// send; the frame is inside.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    /// use callbridge::channel::SendError;
    ///
    /// let (sender, frames) = channel(1);
    /// drop(frames);
    /// let refused = sender.send("frame").unwrap_err();
    /// assert!(matches!(refused, SendError::Closed("frame")));
    /// assert_eq!(refused.into_inner(), "frame");
    /// ```
    SendError {
        /// The channel is full and its policy is [`Overflow::Fail`](crate::Overflow::Fail).
        Full = "the channel is full: let the consumer catch up, or choose another overflow policy",
        /// No room came up within the time of [`Overflow::BlockFor`](crate::Overflow::BlockFor).
        TimedOut = "no room in the channel in time: let the consumer catch up, or wait longer",
        /// The channel has ended; [`Sender::ending`](crate::Sender::ending) says why.
        Closed = "the channel has ended: stop sending",
        /// The channel is full, and waiting here would block a thread that drives an event loop.
        WouldDeadlock = "waiting for room would block an event loop: use send_async here, or send from a thread of its own",
        /// The frame weighs more than the channel's whole budget. Counted as lost.
        TooHeavy = "the frame is heavier than the whole weight budget: split it, or raise the budget",
    }
    Full => Full,
    TimedOut => TimedOut,
    Closed => Closed,
    WouldDeadlock => WouldDeadlock,
    TooHeavy => TooHeavy,
}

send_error! {
    /// Why [`Sender::try_send`](crate::Sender::try_send) did not send; the frame is inside.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    /// use callbridge::channel::TrySendError;
    ///
    /// let (sender, _frames) = channel(1);
    /// sender.try_send(1)?;
    /// assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    /// # Ok::<(), TrySendError<i32>>(())
    /// ```
    TrySendError {
        /// The channel is full.
        Full = "the channel is full: wait with send, or drop the frame",
        /// The channel has ended; [`Sender::ending`](crate::Sender::ending) says why.
        Closed = "the channel has ended: stop sending",
        /// The frame weighs more than the channel's whole budget. Counted as lost.
        TooHeavy = "the frame is heavier than the whole weight budget: split it, or raise the budget",
    }
    Full => Full,
    TimedOut => Full,
    Closed => Closed,
    WouldDeadlock => Full,
    TooHeavy => TooHeavy,
}

send_error! {
    /// Why [`Sender::send_timeout`](crate::Sender::send_timeout) did not send; the frame is inside.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    /// use callbridge::channel::SendTimeoutError;
    /// use std::time::Duration;
    ///
    /// let (sender, _frames) = channel(1);
    /// sender.send_timeout(1, Duration::ZERO)?;
    /// let refused = sender.send_timeout(2, Duration::from_millis(1));
    /// assert_eq!(refused, Err(SendTimeoutError::TimedOut(2)));
    /// # Ok::<(), SendTimeoutError<i32>>(())
    /// ```
    SendTimeoutError {
        /// No room came up in time.
        TimedOut = "no room in the channel in time: let the consumer catch up, or wait longer",
        /// The channel has ended; [`Sender::ending`](crate::Sender::ending) says why.
        Closed = "the channel has ended: stop sending",
        /// The channel is full, and waiting here would block a thread that drives an event loop.
        WouldDeadlock = "waiting for room would block an event loop: use send_async here, or send from a thread of its own",
        /// The frame weighs more than the channel's whole budget. Counted as lost.
        TooHeavy = "the frame is heavier than the whole weight budget: split it, or raise the budget",
    }
    Full => TimedOut,
    TimedOut => TimedOut,
    Closed => Closed,
    WouldDeadlock => WouldDeadlock,
    TooHeavy => TooHeavy,
}

/// Why [`FrameStream::try_recv`](crate::FrameStream::try_recv) has no frame.
///
/// # Examples
///
/// ```
/// use callbridge::channel;
/// use callbridge::channel::TryRecvError;
///
/// let (sender, mut frames) = channel::<u8>(1);
/// assert_eq!(frames.try_recv(), Err(TryRecvError::Empty));
/// drop(sender);
/// assert_eq!(frames.try_recv(), Err(TryRecvError::Ended));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryRecvError {
    /// Nothing is queued now; more can come.
    #[error("no frame is queued: try later, or wait with recv")]
    Empty,
    /// Everything was read and the channel has ended.
    #[error("the stream has ended: stop reading")]
    Ended,
}

/// Why [`FrameStream::recv_blocking`](crate::FrameStream::recv_blocking) has no frame.
///
/// # Examples
///
/// ```
/// use callbridge::channel;
/// use callbridge::channel::RecvBlockingError;
/// use std::time::Duration;
///
/// let (_sender, mut frames) = channel::<u8>(1);
/// let nothing = frames.recv_blocking(Duration::from_millis(1));
/// assert_eq!(nothing, Err(RecvBlockingError::TimedOut));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvBlockingError {
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

impl From<WaitError> for RecvBlockingError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::TimedOut => RecvBlockingError::TimedOut,
            WaitError::WouldDeadlock => RecvBlockingError::WouldDeadlock,
        }
    }
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
