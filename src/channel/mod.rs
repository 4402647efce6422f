//! From a callback on any thread to an async [`Stream`](futures_core::Stream).
//!
//! A [`Sender`] goes into the callback, a [`FrameStream`] into the task. The channel is bounded,
//! says what happens when it is full ([`Overflow`]), and counts every offered frame exactly once
//! ([`Stats`]).
//!
//! | someone wants | they use |
//! |---|---|
//! | a source that waits for its consumer | [`channel()`] and [`Sender::send`] |
//! | a telemetry source that must not wait | [`Overflow::DropOldest`], [`Overflow::Latest`] |
//! | room before there is a frame | [`Sender::reserve`] |
//! | a bound in bytes | [`Builder::weigh`] |
//! | to pause a source that can pause | [`Builder::watermarks`] |
//! | news that no policy drops (opened, closed) | [`Sender::send_control`] |
//! | to wait until everything is taken | [`Sender::flush`] |
//! | to know when a frame is done, or lost | [`Sender::send_tracked`] |
//! | to wake a window, or a loop of descriptors | [`FrameStream::on_ready`] |
//! | to know of every lost frame | [`Builder::on_loss`] |
//! | to know where frames are missing | [`FrameStream::with_gaps`] |
//! | a closure for a library that takes `Fn(T)` | [`Sender::callback`] |
//! | `?` on the source's error | [`FrameStream::into_try_stream`] |
//! | to unregister when nobody listens any more | [`Sender::on_termination`] |
//!
//! Python's counterpart is an `asyncio.Queue` fed with `call_soon_threadsafe`, or `janus.Queue`.
//!
//! # Order and endings
//!
//! Frames of one thread arrive in the order they were sent in. Frames, the source's error and the
//! end share one FIFO: what was queued before the end stays readable, then comes the error once,
//! then the end for ever. The first [`Ending`] wins. When the channel ends, every sender that waits
//! for room gets its frame back.
//!
//! # Forked processes
//!
//! A channel has no threads, so it works in a forked child as it did in the parent, as a copy: what was
//! queued can be read, and the child's own threads can send. Nothing of the parent's reaches it any
//! more, its listeners included: a wait for them needs a timeout.
//!
//! # Tests with tokio's clock paused
//!
//! A paused clock runs ahead whenever the runtime has nothing to do, and it can't see that a thread
//! is about to send. So a timeout around [`FrameStream::recv`] passes at once: keep the clock running,
//! or keep the runtime busy with a `spawn_blocking` that waits for the thread.
//!
//! # Examples
//!
//! ```
//! use callbridge::channel;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let (sender, mut frames) = channel(64);
//! let source = std::thread::spawn(move || {
//!     for frame in 0..1000 {
//!         sender.send(frame).expect("the stream is read to its end");
//!     }
//! });
//! let mut next = 0;
//! while let Some(frame) = frames.recv().await {
//!     assert_eq!(frame, next);
//!     next += 1;
//! }
//! assert_eq!(next, 1000);
//! source.join().unwrap();
//! # }
//! ```

// First, since the docs show what a type can do in the order of the modules.
mod sender;
mod stream;

mod backoff;
mod buffer;
mod builder;
mod consume;
mod coop;
mod error;
mod finish;
mod flush;
mod follow;
mod gaps;
mod hook;
mod iter;
#[cfg(feature = "metrics")]
mod observed;
mod overflow;
mod permit;
mod produce;
mod queue;
mod receipt;
mod send_future;
mod sink;
mod state;
mod stats;
mod try_stream;

#[cfg(all(test, callbridge_loom))]
mod loom_tests;

pub use buffer::FrameOrGap;
pub use builder::Builder;
pub use error::{NotDone, RecvError, SendError, SourceError};
pub use gaps::GapStream;
pub use overflow::{Ending, Fallback, Loss, LossReason, Overflow, Pressure, Sent};
pub use permit::{Reserve, SendPermit};
pub use receipt::{Receipt, Tracked};
pub use send_future::SendFuture;
pub use sender::{Sender, WeakSender};
pub use sink::SenderSink;
pub use stats::{Blocked, Lost, Stats};
pub use stream::FrameStream;
pub use try_stream::TryFrameStream;

use std::sync::Arc;

/// How many frames fit into a channel whose builder wasn't told.
const DEFAULT_CAPACITY: usize = 64;

/// A channel for up to `capacity` frames whose senders wait while it is full.
///
/// The capacity counts what the consumer has not been handed, whatever is batched inside. See
/// [`builder`] for other policies, weights, watermarks and the loss hook.
///
/// # Panics
///
/// If `capacity` is 0; [`builder`] reports that as an error instead.
///
/// # Examples
///
/// ```
/// let (sender, mut frames) = callbridge::channel(8);
/// sender.send("frame")?;
/// assert_eq!(frames.try_recv(), Ok("frame"));
/// # Ok::<(), callbridge::channel::SendError<&str>>(())
/// ```
#[track_caller]
pub fn channel<T>(capacity: usize) -> (Sender<T>, FrameStream<T>) {
    match builder().capacity(capacity).build() {
        Ok(ends) => ends,
        Err(error) => panic!("{error}"),
    }
}

/// Sets up a channel with another policy, weights, watermarks or a loss hook.
///
/// # Examples
///
/// ```
/// use callbridge::{Overflow, channel};
/// use callbridge::channel::Sent;
///
/// let (sender, _frames) =
///     channel::builder().capacity(1).overflow(Overflow::DropNewest).build()?;
/// sender.send(1)?;
/// assert_eq!(sender.send(2)?, Sent::Dropped(2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn builder<T>() -> Builder<T> {
    Builder::new()
}

fn connect<T>(rules: builder::Rules<T>) -> (Sender<T>, FrameStream<T>) {
    let shared = Arc::new(state::Shared::new(rules));
    (Sender::new(Arc::clone(&shared)), FrameStream::new(shared))
}
