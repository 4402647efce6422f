//! What happens on a server's connections, as its stream tells it.

use super::connection::Connection;
use super::core::{Panicked, Verdict};
use super::framing::FrameError;
use std::fmt;
use std::io;

/// What a server's stream yields: something that happened on one of its connections.
///
/// # Examples
///
/// See [`StreamServer`](super::StreamServer).
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming<F> {
    /// Where it happened, and the way to answer.
    pub connection: Connection,
    /// What happened.
    pub event: Event<F>,
}

/// What happens on a connection: it opens, frames come, it closes.
///
/// Under a policy that drops, any of them can be dropped. The stream's books
/// ([`FrameStream::stats`](crate::FrameStream::stats)) count all three kinds; how many frames came is
/// [`ListenerStats::frames`](super::ListenerStats::frames).
///
/// # Examples
///
/// See [`StreamServer`](super::StreamServer).
#[non_exhaustive]
pub enum Event<F> {
    /// The connection was accepted.
    Opened,
    /// A frame came.
    Frame(F),
    /// No more frames will come, and why.
    Closed(CloseReason),
}

impl<F> fmt::Debug for Event<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Opened => f.write_str("Opened"),
            Event::Frame(_) => f.write_str("Frame(..)"),
            Event::Closed(reason) => f.debug_tuple("Closed").field(reason).finish(),
        }
    }
}

/// Why a connection gives no more frames.
///
/// # Examples
///
/// ```
/// use callbridge::listener::CloseReason;
///
/// assert_eq!(CloseReason::PeerFinished.to_string(), "the peer ended its side");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended its side, after a whole frame. It may still read: answers are sent as long as
    /// somebody holds the [`Connection`].
    #[error("the peer ended its side")]
    PeerFinished,
    /// Its bytes made no frame; the connection was closed.
    #[error("the connection was closed: {0}")]
    Frame(FrameError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(io::Error),
    /// It was closed on this side: by [`Connection::close`], or because the peer didn't read.
    #[error("the connection was closed on this side")]
    Closed,
    /// Its decoder panicked; the connection was closed.
    #[error("the connection was closed: its decoder panicked")]
    Panicked,
    /// The listener stopped.
    #[error("the connection was closed: the listener stopped")]
    Stopped,
}

impl CloseReason {
    pub(super) fn of(verdict: Result<Verdict, Panicked>) -> Self {
        match verdict {
            Ok(Verdict::Finished) => CloseReason::PeerFinished,
            Ok(Verdict::Failed(error)) => match error.downcast::<FrameError>() {
                Ok(error) => CloseReason::Frame(error),
                Err(error) => CloseReason::Io(error),
            },
            Ok(Verdict::Stopped | Verdict::LoopGone) => CloseReason::Stopped,
            Err(Panicked) => CloseReason::Panicked,
        }
    }
}
