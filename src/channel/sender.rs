//! The source's end.

use super::error::{NotDone, SendError, SourceError};
use super::flush::Flush;
use super::overflow::{Ending, LossReason, Sent};
use super::permit::{Reserve, SendPermit};
use super::produce::OnFull;
use super::send_future::{Closed, SendFuture};
use super::state::{Shared, drop_contained};
use super::stats::Stats;
use crate::sync::prim::atomic::Ordering;
use crate::sync::{Deadline, WaitError, wait};
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// The sending end of a channel, for a callback or a source on any thread.
///
/// Clone it for each thread or callback. It needs no runtime, never panics because of where it is
/// called, and allocates nothing per frame once warm. When the last clone is dropped the stream
/// ends, as [`Ending::Finished`], or [`Ending::Panicked`] if that happens while its thread unwinds.
///
/// # Examples
///
/// ```
/// use callbridge::channel;
///
/// let (sender, mut frames) = channel(8);
/// let threads: Vec<_> = (0..2)
///     .map(|_| {
///         let sender = sender.clone();
///         std::thread::spawn(move || sender.send("from a foreign thread").is_ok())
///     })
///     .collect();
/// drop(sender);
/// assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
/// assert_eq!(frames.len(), 2);
/// ```
pub struct Sender<T> {
    pub(super) shared: Arc<Shared<T>>,
}

// A callback that panicked leaves the channel whole.
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}

impl<T> Sender<T> {
    /// The first sender: `Shared` starts with a count of one.
    pub(super) fn new(shared: Arc<Shared<T>>) -> Self {
        Sender { shared }
    }

    /// Sends a frame; a full channel does what its [`Overflow`](crate::Overflow) policy says.
    ///
    /// # Blocking
    ///
    /// Under `Block` and `BlockFor` it blocks the calling thread while the channel is full;
    /// [`Overflow::Block`](crate::Overflow::Block) says who is served when. On a thread that drives an event loop it sends if
    /// there is room and otherwise returns [`SendError::WouldDeadlock`] at once; it is free to
    /// block in `spawn_blocking`, under `Runtime::enter`, in `block_in_place` and on plain
    /// threads. What can't be told is who reads: a thread that reads this channel and sends into it,
    /// too, waits for itself once it is full. Give such a channel another policy, or use
    /// [`try_send`](Self::try_send) there; the same goes for a task and `send_async`.
    ///
    /// # Errors
    ///
    /// A [`SendError`] with the frame inside: the channel has ended, or its policy or place
    /// forbids to wait (longer).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    /// use callbridge::channel::Sent;
    ///
    /// let (sender, frames) = channel(2);
    /// assert_eq!(sender.send(1)?, Sent::Queued { remaining: 1 });
    /// drop(frames);
    /// assert_eq!(sender.send(2).unwrap_err().into_inner(), 2);
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    #[inline]
    pub fn send(&self, frame: T) -> Result<Sent<T>, SendError<T>> {
        self.shared.send(frame)
    }

    /// Sends a frame if there is room now. Never waits and never drops a frame, whatever the
    /// policy.
    ///
    /// Python: `queue.put_nowait(item)`.
    ///
    /// # Errors
    ///
    /// A [`SendError`] with the frame inside.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _frames) = callbridge::channel(1);
    /// assert!(sender.try_send(1).is_ok());
    /// assert_eq!(sender.try_send(2).unwrap_err().into_inner(), 2);
    /// ```
    #[inline]
    pub fn try_send(&self, frame: T) -> Result<Sent<T>, SendError<T>> {
        self.shared.try_send(frame).map_err(SendError::at_once)
    }

    /// Sends a frame, waiting for room up to `timeout`. Never drops a frame, whatever the policy.
    ///
    /// `None` waits for ever, zero answers at once, and a time too far to express is none. The clock
    /// is the system's, so it runs without a runtime.
    ///
    /// # Blocking
    ///
    /// As [`send`](Self::send) under `Block`, with a limit.
    ///
    /// # Errors
    ///
    /// A [`SendError`] with the frame inside.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (sender, _frames) = callbridge::channel(1);
    /// assert!(sender.send_timeout(1, Duration::from_millis(1)).is_ok());
    /// let late = sender.send_timeout(2, Duration::from_millis(1)).unwrap_err();
    /// assert_eq!(late.into_inner(), 2);
    /// ```
    pub fn send_timeout(
        &self,
        frame: T,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Sent<T>, SendError<T>> {
        self.shared.send_waiting(frame, timeout.into(), OnFull::Refuse).map_err(SendError::in_time)
    }

    /// Waits for a free slot and reserves it, for a source that shouldn't read what it can't pass
    /// on.
    ///
    /// Whatever the policy, it waits for the consumer, in one line with the senders that wait. The
    /// [`SendPermit`] keeps the slot until it sends a frame or is dropped. `None` waits for ever, zero answers
    /// at once.
    ///
    /// # Blocking
    ///
    /// As [`send_timeout`](Self::send_timeout).
    ///
    /// # Errors
    ///
    /// A [`SendError`]: the time is up, the channel has ended, or this thread drives an event loop.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (sender, mut frames) = callbridge::channel(1);
    /// let permit = sender.reserve(Duration::from_secs(1))?;
    /// assert!(sender.try_send("another").is_err());
    /// permit.send("frame")?;
    /// assert_eq!(frames.try_recv(), Ok("frame"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(
        &self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<SendPermit<'_, T>, SendError<()>> {
        Reserve::new(&self.shared).wait(timeout)
    }

    /// As [`reserve`](Self::reserve), for async code.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped, it leaves the line, and gives back a slot that it has got meanwhile.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`], no other.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, mut frames) = callbridge::channel(1);
    /// sender.send(1)?;
    /// let (permit, first) = tokio::join!(sender.reserve_async(), frames.recv());
    /// permit?.send(2)?;
    /// assert_eq!((first, frames.recv().await), (Some(1), Some(2)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn reserve_async(&self) -> Reserve<'_, T> {
        Reserve::new(&self.shared)
    }

    /// Sends a frame that must not be lost to a policy: the beginning or the end of a connection, a
    /// change of settings. Never waits.
    ///
    /// It goes behind what is queued, in the one order of the channel, whether there is room or not. It
    /// takes none: it counts neither against the capacity nor in the weight budget, moves no
    /// watermark, and is never evicted. So nothing but its source bounds how many of them can be
    /// queued: keep to what is rare by nature. It counts in [`len`](Self::len) and in the counters as any
    /// frame does, but not in their high water.
    ///
    /// A frame whose send still waits for room isn't queued yet, and comes after it.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`] with the frame inside: the channel has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::{Overflow, channel};
    ///
    /// let (sender, mut frames) = channel::builder().overflow(Overflow::Latest).build()?;
    /// sender.send_control("opened")?;
    /// sender.send("1")?;
    /// sender.send("2")?;
    /// sender.send_control("closed")?;
    /// let mut read = Vec::new();
    /// frames.recv_many_blocking(&mut read, 8, None)?;
    /// assert_eq!(read, ["opened", "2", "closed"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_control(&self, frame: T) -> Result<(), SendError<T>> {
        self.shared.send_control(frame)
    }

    /// Sends a frame from async code; a full channel does what its [`Overflow`](crate::Overflow)
    /// policy says.
    ///
    /// Under `Block` and `BlockFor` it waits for room without limit. It shares one line with the
    /// threads that wait in [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is done loses its frame, counted and told to the loss
    /// hook; [`SendFuture::cancel`] takes it back instead. Either way nobody behind it in line
    /// is held up.
    ///
    /// # Errors
    ///
    /// A [`SendError`] with the frame inside; never `TimedOut` or `WouldDeadlock`.
    ///
    /// # Panics
    ///
    /// If the future is polled again after it was done.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), callbridge::channel::SendError<i32>> {
    /// let (sender, mut frames) = callbridge::channel(1);
    /// sender.send_async(1).await?;
    /// let (sent, received) = tokio::join!(sender.send_async(2), frames.recv());
    /// assert!(sent.is_ok());
    /// assert_eq!(received, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_async(&self, frame: T) -> SendFuture<'_, T> {
        SendFuture::new(&self.shared, frame)
    }

    /// Waits until the consumer has been handed every frame that is queued now, whoever sent it.
    ///
    /// Frames that a policy evicts meanwhile are waited for no longer. A channel that was closed is
    /// waited for like any other, since what was queued stays readable. To be handed a frame is not to
    /// be done with it: for that there is [`send_tracked`](Self::send_tracked). `None` waits for ever,
    /// zero answers at once.
    ///
    /// Python: `queue.join()`, as far as `get`.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread until the consumer has come so far, or the limit. A thread that is
    /// the consumer itself waits in vain.
    ///
    /// # Errors
    ///
    /// A [`WaitError`], or inside, as from a receipt, [`NotDone::Lost`] if the consumer left with frames
    /// unread.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (sender, mut frames) = callbridge::channel(8);
    /// for frame in 0..5 {
    ///     sender.send(frame)?;
    /// }
    /// assert!(sender.flush(Duration::ZERO).is_err());
    /// let consumer = std::thread::spawn(move || while frames.recv_blocking(None).is_ok() {});
    /// sender.flush(Duration::from_secs(5))??;
    /// assert_eq!(sender.stats().delivered, 5);
    /// # drop(sender);
    /// # consumer.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn flush(
        &self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Result<(), NotDone>, WaitError> {
        Flush::new(&self.shared).wait(timeout)
    }

    /// As [`flush`](Self::flush), for async code.
    ///
    /// What is queued when this is called counts, not when it is first polled.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    ///
    /// # Errors
    ///
    /// [`NotDone::Lost`] if the consumer left with frames unread.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), callbridge::channel::SendError<u8>> {
    /// let (sender, mut frames) = callbridge::channel(2);
    /// sender.send(1)?;
    /// let (flushed, frame) = tokio::join!(sender.flush_async(), frames.recv());
    /// assert_eq!((flushed, frame), (Ok(()), Some(1)));
    /// # Ok(())
    /// # }
    /// ```
    pub fn flush_async(&self) -> impl Future<Output = Result<(), NotDone>> {
        Flush::new(&self.shared)
    }

    /// This sender as a closure, for a library that takes `Fn(T)`.
    ///
    /// There is nobody to hand a frame back to, so what [`send`](Self::send) would refuse is
    /// lost here: counted under its reason and told to the loss hook.
    ///
    /// # Blocking
    ///
    /// As [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// fn legacy_library(on_frame: impl Fn(&'static str)) {
    ///     on_frame("one");
    ///     on_frame("two");
    /// }
    ///
    /// let (sender, frames) = callbridge::channel(4);
    /// legacy_library(sender.callback());
    /// assert_eq!(frames.len(), 2);
    /// ```
    pub fn callback(&self) -> impl Fn(T) + Clone + Send + Sync + 'static + use<T>
    where
        T: Send + 'static,
    {
        let sender = self.clone();
        move |frame| match sender.shared.send(frame) {
            Ok(sent) => drop_contained(sent),
            Err(error) => {
                let reason = match &error {
                    SendError::Full(_) | SendError::TimedOut(_) => Some(LossReason::Overflow),
                    SendError::Closed(_) => Some(LossReason::Closed),
                    SendError::WouldDeadlock(_) => Some(LossReason::WouldDeadlock),
                    SendError::TooHeavy(_) => None,
                };
                let frame = error.into_inner();
                if let Some(reason) = reason {
                    sender.shared.lose_refused(&frame, reason);
                }
                drop_contained(frame);
            }
        }
    }

    /// Ends the channel with an error, which the consumer gets after everything queued before.
    ///
    /// Returns whether this call ended it; if not, the error is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel::Ending;
    ///
    /// let (sender, _frames) = callbridge::channel::<u8>(1);
    /// assert!(sender.fail("unplugged"));
    /// assert!(!sender.fail("again"));
    /// assert_eq!(sender.ending(), Some(Ending::Failed));
    /// ```
    pub fn fail(&self, error: impl Into<Box<dyn Error + Send + Sync>>) -> bool {
        self.shared.end(Ending::Failed, Some(SourceError::new(error)))
    }

    /// Ends the channel: queued frames stay readable, waiting senders get theirs back.
    ///
    /// Returns whether this call ended it.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut frames) = callbridge::channel(2);
    /// sender.send(1)?;
    /// assert!(sender.close());
    /// assert!(!sender.close());
    /// assert_eq!(frames.try_recv(), Ok(1));
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    pub fn close(&self) -> bool {
        self.shared.end(Ending::Finished, None)
    }

    /// Ends the channel for a reason that no source chooses.
    pub(crate) fn overflow(&self) -> super::Overflow {
        self.shared.rules.overflow
    }

    /// Has the channel seen from outside, where there is somebody to look.
    pub(super) fn observe(&self)
    where
        T: Send + 'static,
    {
        #[cfg(feature = "metrics")]
        crate::sync::observe(&self.shared);
    }

    pub(crate) fn end(&self, ending: Ending) -> bool {
        self.shared.end(ending, None)
    }

    /// As [`fail`](Self::fail), with an error that is shown elsewhere as well.
    pub(crate) fn fail_with(&self, error: SourceError) -> bool {
        let ended = self.shared.end(Ending::Failed, Some(error));
        if ended {
            self.shared.error();
        }
        ended
    }

    /// Turns the refusal of a frame that nobody will hear of into a loss, and tells the loss hook.
    pub(crate) fn lose_refused(&self, frame: &T, reason: LossReason) {
        self.shared.lose_refused(frame, reason);
    }

    /// From now on a lost frame is told itself.
    pub(super) fn tell_losses(&self, tell: fn(&T, LossReason)) {
        self.shared.rules.tell_frame.get_or_init(|| tell);
    }

    /// Waits for the end of the channel, whoever ends it, and says why it ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use callbridge::channel::Ending;
    ///
    /// let (sender, frames) = callbridge::channel::<u8>(1);
    /// let (ending, ()) = tokio::join!(sender.closed_async(), async { drop(frames) });
    /// assert_eq!(ending, Ending::ConsumerDropped);
    /// # }
    /// ```
    pub fn closed_async(&self) -> impl Future<Output = Ending> {
        Closed::new(&self.shared)
    }

    /// Waits for the end of the channel on a thread. `None` waits for ever, zero answers at once.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread until the end or the limit.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`], or [`WaitError::WouldDeadlock`] on a thread that drives an event loop.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel::Ending;
    ///
    /// let (sender, frames) = callbridge::channel::<u8>(1);
    /// let consumer = std::thread::spawn(move || drop(frames));
    /// assert_eq!(sender.closed(None), Ok(Ending::ConsumerDropped));
    /// consumer.join().unwrap();
    /// ```
    pub fn closed(&self, timeout: impl Into<Option<Duration>>) -> Result<Ending, WaitError> {
        if let Some(ending) = self.shared.ending() {
            return Ok(ending);
        }
        let mut closed = pin!(self.closed_async());
        wait(Deadline::after(timeout), |cx| closed.as_mut().poll(cx))
    }

    /// Calls back once when the channel ends, with the reason; at once if it has ended.
    ///
    /// The place to unregister from a library. Any number of callbacks can be registered. Each runs
    /// on the thread that ends the channel, after the end is final and with no lock held; a
    /// panic in it is contained and reported.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel::Ending;
    /// use std::sync::mpsc;
    ///
    /// let (sender, frames) = callbridge::channel::<u8>(1);
    /// let (tell, told) = mpsc::channel();
    /// sender.on_termination(move |ending| tell.send(ending).unwrap());
    /// drop(frames);
    /// assert_eq!(told.try_recv(), Ok(Ending::ConsumerDropped));
    /// ```
    pub fn on_termination(&self, callback: impl FnOnce(Ending) + Send + 'static) {
        self.shared.on_termination(Box::new(callback));
    }

    /// Whether the channel has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, frames) = callbridge::channel::<u8>(1);
    /// assert!(!sender.is_closed());
    /// drop(frames);
    /// assert!(sender.is_closed());
    /// ```
    pub fn is_closed(&self) -> bool {
        self.ending().is_some()
    }

    /// Why the channel has ended; `None` while it is open.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel::Ending;
    ///
    /// let (sender, frames) = callbridge::channel::<u8>(1);
    /// drop(frames);
    /// assert_eq!(sender.ending(), Some(Ending::ConsumerDropped));
    /// ```
    pub fn ending(&self) -> Option<Ending> {
        self.shared.ending()
    }

    /// How many frames are queued.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _frames) = callbridge::channel(2);
    /// sender.send(1)?;
    /// assert_eq!(sender.len(), 1);
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether no frame is queued.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(callbridge::channel::<u8>(2).0.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many frames can be queued; `usize::MAX` if unbounded.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(callbridge::channel::<u8>(2).0.capacity(), 2);
    /// ```
    pub fn capacity(&self) -> usize {
        self.shared.rules.capacity
    }

    /// Returns a snapshot of the channel's counters.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _frames) = callbridge::channel(2);
    /// sender.send(1)?;
    /// assert_eq!(sender.stats().offered, 1);
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// How many senders there are, this one included.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _frames) = callbridge::channel::<u8>(1);
    /// let another = sender.clone();
    /// assert_eq!(another.sender_count(), 2);
    /// ```
    pub fn sender_count(&self) -> usize {
        self.shared.senders.load(Ordering::Relaxed)
    }

    /// Makes a sender that doesn't keep the stream from ending.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _frames) = callbridge::channel::<u8>(1);
    /// let weak = sender.downgrade();
    /// assert!(weak.upgrade().is_some());
    /// drop(sender);
    /// assert!(weak.upgrade().is_none());
    /// ```
    pub fn downgrade(&self) -> WeakSender<T> {
        WeakSender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.senders.fetch_add(1, Ordering::Relaxed);
        Sender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // Pairs with itself: the last to go has seen what all others did before they went.
        if self.shared.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            let unwinding = std::thread::panicking();
            let ending = if unwinding { Ending::Panicked } else { Ending::Finished };
            self.shared.end(ending, None);
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("name", &self.shared.rules.name)
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("ending", &self.ending())
            .finish()
    }
}

/// A sender that doesn't keep the stream from ending; made by [`Sender::downgrade`].
///
/// # Examples
///
/// ```
/// let (sender, _frames) = callbridge::channel(1);
/// let weak = sender.downgrade();
/// if let Some(sender) = weak.upgrade() {
///     sender.send("frame")?;
/// }
/// assert_eq!(sender.len(), 1);
/// # Ok::<(), callbridge::channel::SendError<&str>>(())
/// ```
pub struct WeakSender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> WeakSender<T> {
    /// Makes a full sender again; `None` once the last one has been dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _frames) = callbridge::channel::<u8>(1);
    /// let weak = sender.downgrade();
    /// assert!(weak.upgrade().is_some());
    /// ```
    pub fn upgrade(&self) -> Option<Sender<T>> {
        let senders = &self.shared.senders;
        let mut count = senders.load(Ordering::Relaxed);
        while count > 0 {
            // Pairs with the subtraction in the drop of a sender: never from 0, where the end was told.
            match senders.compare_exchange_weak(
                count,
                count + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Some(Sender { shared: Arc::clone(&self.shared) }),
                Err(actual) => count = actual,
            }
        }
        None
    }

    /// Returns a snapshot of the channel's counters, also after its end.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, frames) = callbridge::channel(1);
    /// let monitor = sender.downgrade();
    /// sender.send("frame")?;
    /// drop((sender, frames));
    /// assert_eq!(monitor.stats().lost.consumer_dropped, 1);
    /// # Ok::<(), callbridge::channel::SendError<&str>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        WeakSender { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for WeakSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakSender").finish_non_exhaustive()
    }
}
