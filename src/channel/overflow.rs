//! What happens when the queue is full, and what a send came to.

use std::fmt;
use std::time::Duration;

/// What [`Sender::send`](crate::Sender::send) does when the channel is full.
///
/// Set with [`Builder::overflow`](crate::channel::Builder::overflow). The policy rules `send`,
/// `send_async` and `callback`; `try_send` and `send_timeout` never drop a frame, whatever the
/// policy.
///
/// # Examples
///
/// ```
/// use callbridge::{Overflow, channel};
/// use callbridge::channel::Sent;
///
/// let (sender, mut frames) =
///     channel::builder().capacity(2).overflow(Overflow::DropOldest).build()?;
/// sender.send(1)?;
/// sender.send(2)?;
/// assert_eq!(sender.send(3)?, Sent::Evicted(1));
/// assert_eq!(frames.try_recv(), Ok(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// Wait for room, without limit. The default: nothing is lost, the source is slowed down.
    ///
    /// A thread that waits alone gets the first room there is. Further ones are served in their order, one
    /// after every eighth part of the capacity, and who finds room meanwhile takes it: a wake-up for each
    /// frame would cost more than the frames. Whoever has waited for 1.25 ms gets the next room there is. Below
    /// a capacity of 16, and for tasks, every room goes to the first in line.
    #[default]
    Block,
    /// Wait this long for room, then do what the [`Fallback`] says. `send_async` waits without
    /// limit under this policy, since it has no clock of its own: wrap it in your runtime's
    /// timeout.
    BlockFor(Duration, Fallback),
    /// Drop the frame that is being sent; it comes back as [`Sent::Dropped`].
    DropNewest,
    /// Drop the oldest queued frame; it comes back as [`Sent::Evicted`].
    DropOldest,
    /// Keep the newest frame only: a capacity of one, whatever capacity was set, that evicts.
    Latest,
    /// Fail the call with [`SendError::Full`](crate::channel::SendError::Full); the stream goes on.
    Fail,
    /// Never full, whatever capacity was set. A source that is faster than its consumer for long
    /// eats the memory.
    Unbounded,
}

/// What [`Overflow::BlockFor`] does when its time is up.
///
/// # Examples
///
/// ```
/// use callbridge::channel::Fallback;
/// use callbridge::{Overflow, channel};
/// use callbridge::channel::Sent;
/// use std::time::Duration;
///
/// let patience = Overflow::BlockFor(Duration::from_millis(1), Fallback::DropNewest);
/// let (sender, _frames) = channel::builder().capacity(1).overflow(patience).build()?;
/// sender.send("kept")?;
/// assert_eq!(sender.send("dropped")?, Sent::Dropped("dropped"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// Drop the frame that is being sent.
    DropNewest,
    /// Drop the oldest queued frame.
    DropOldest,
    /// Fail the call with [`SendError::TimedOut`](crate::channel::SendError::TimedOut).
    Fail,
}

/// What became of a frame, or of an older one that made room for it.
///
/// # Examples
///
/// ```
/// use callbridge::channel;
/// use callbridge::channel::Sent;
///
/// let (sender, _frames) = channel(8);
/// match sender.send("frame")? {
///     Sent::Queued { remaining } => assert_eq!(remaining, 7),
///     Sent::Evicted(older) => println!("{older} made room"),
///     Sent::Dropped(frame) => println!("{frame} was dropped"),
/// }
/// # Ok::<(), callbridge::channel::SendError<&str>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sent<T> {
    /// The frame is in the queue.
    Queued {
        /// At least this many more frames fit right now; `usize::MAX` in an unbounded channel.
        /// Under load the figure may lag behind what the consumer has just taken, so there
        /// can be more room than it says, never less. Where frames are weighed, it counts frames
        /// that weigh 1.
        remaining: usize,
    },
    /// The frame is in the queue and this older one, the oldest, made room for it. Where weights
    /// made several frames go, the others were seen by the loss hook and dropped.
    Evicted(T),
    /// This very frame was dropped because the channel was full.
    Dropped(T),
}

impl<T> fmt::Debug for Sent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sent::Queued { remaining } => {
                f.debug_struct("Queued").field("remaining", remaining).finish()
            }
            Sent::Evicted(_) => f.write_str("Evicted(..)"),
            Sent::Dropped(_) => f.write_str("Dropped(..)"),
        }
    }
}

/// A frame that will not reach the consumer, as the loss hook sees it.
///
/// # Examples
///
/// ```
/// use callbridge::channel::{self, Overflow};
///
/// let (sender, frames) = channel::builder()
///     .capacity(1)
///     .overflow(Overflow::DropNewest)
///     .on_loss(|loss: channel::Loss<'_, u32>| eprintln!("lost {}: {}", loss.frame, loss.reason))
///     .build()?;
/// sender.send(1)?;
/// sender.send(2)?;
/// assert_eq!(frames.stats().lost.overflow, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
pub struct Loss<'a, T> {
    /// The frame; it is dropped, or handed to the sender, right after the hook.
    pub frame: &'a T,
    /// Why it is lost.
    pub reason: LossReason,
}

impl<T> fmt::Debug for Loss<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loss").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Why a frame is lost. Each reason has its column in [`Lost`](crate::channel::Lost).
///
/// # Examples
///
/// ```
/// assert_eq!(callbridge::channel::LossReason::Evicted.to_string(), "evicted by a newer frame");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// The channel was full and the frame was the newest.
    Overflow,
    /// The channel was full and the frame was the oldest.
    Evicted,
    /// The consumer dropped its stream while the frame was queued.
    ConsumerDropped,
    /// A [`callback`](crate::Sender::callback) was called after the channel had ended.
    Closed,
    /// The source was shut down with the frame in its hands.
    Shutdown,
    /// The frame weighs more than the whole budget, so it can never fit.
    TooHeavy,
    /// A `send_async` future was dropped with the frame in it.
    SendCancelled,
    /// A [`callback`](crate::Sender::callback) found the channel full on a thread that drives an
    /// event loop, where it must not wait.
    WouldDeadlock,
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LossReason::Overflow => "dropped because the channel was full",
            LossReason::Evicted => "evicted by a newer frame",
            LossReason::ConsumerDropped => "the consumer dropped its stream",
            LossReason::Closed => "the channel had ended",
            LossReason::Shutdown => "the source was shut down",
            LossReason::TooHeavy => "heavier than the whole weight budget",
            LossReason::SendCancelled => "the sending future was dropped",
            LossReason::WouldDeadlock => "waiting for room would have blocked an event loop",
        })
    }
}

/// Which watermark the queue has crossed.
///
/// # Examples
///
/// ```
/// use callbridge::channel;
/// use callbridge::channel::Pressure;
/// use std::sync::mpsc;
///
/// let (told, tidings) = mpsc::channel();
/// let (sender, mut frames) = channel::builder()
///     .capacity(4)
///     .watermarks(0, 2, move |pressure| told.send(pressure).unwrap())
///     .build()?;
/// sender.send('a')?;
/// sender.send('b')?;
/// assert_eq!(tidings.try_recv(), Ok(Pressure::High));
/// frames.try_recv()?;
/// assert!(tidings.try_recv().is_err());
/// frames.try_recv()?;
/// assert_eq!(tidings.try_recv(), Ok(Pressure::Low));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// The queue has grown to the high watermark: a source that can pause should.
    High,
    /// The queue has shrunk to the low watermark: go on.
    Low,
}

/// Why a channel ended. The first reason wins.
///
/// A sender learns it at once ([`Sender::ending`](crate::Sender::ending),
/// [`closed`](crate::Sender::closed), [`on_termination`](crate::Sender::on_termination)), the
/// consumer when it has read everything that was queued before
/// ([`FrameStream::ending`](crate::FrameStream::ending)).
///
/// # Examples
///
/// ```
/// use callbridge::channel;
/// use callbridge::channel::Ending;
///
/// let (sender, mut frames) = channel::<u8>(1);
/// sender.close();
/// assert_eq!(sender.ending(), Some(Ending::Finished));
/// assert!(frames.try_recv().is_err());
/// assert_eq!(frames.ending(), Some(Ending::Finished));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ending {
    /// The source is done: it called `close`, or its last sender was dropped.
    Finished,
    /// The source called `fail`; the error is in [`FrameStream::error`](crate::FrameStream::error).
    Failed,
    /// The source panicked: its last sender was dropped while its thread unwound.
    Panicked,
    /// The consumer dropped its stream, or closed it: it wants no more frames.
    ConsumerDropped,
    /// The source was told to stop: its listener was closed or stopped, or its connection was.
    Aborted,
    /// The event loop that the source needs is gone.
    LoopClosed,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ending::Finished => "the source finished",
            Ending::Failed => "the source failed",
            Ending::Panicked => "the source panicked",
            Ending::ConsumerDropped => "the consumer dropped its stream",
            Ending::Aborted => "the source was told to stop",
            Ending::LoopClosed => "the event loop is gone",
        })
    }
}
