//! The consumer's end.

use super::backoff::Pace;
use super::buffer::{Buffer, FrameOrGap};
use super::consume::Taken;
use super::coop::within_budget;
use super::error::{RecvError, SourceError};
use super::overflow::Ending;
use super::state::Shared;
use super::stats::Stats;
use crate::sync::{Deadline, wait, wake};
use futures_core::stream::{FusedStream, Stream};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// The consumer's end of a channel: frames as an async `Stream`.
///
/// Made by [`channel()`](crate::channel::channel) and by listeners. There is one consumer; it may
/// move between threads and runtimes, and needs no runtime for `try_recv` and `recv_blocking`. The
/// stream is `Unpin` and fused, and cooperates with tokio's budget.
///
/// Dropping it ends the channel: what is queued is dropped at once (each frame a loss of reason
/// `ConsumerDropped`), every waiting sender gets its frame back, and the source is told through
/// [`Sender::on_termination`](crate::Sender::on_termination).
///
/// # Examples
///
/// ```
/// use callbridge::channel;
/// use callbridge::channel::Ending;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (sender, mut frames) = channel(4);
/// std::thread::spawn(move || sender.send("hello").is_ok());
/// assert_eq!(frames.recv().await, Some("hello"));
/// assert_eq!(frames.recv().await, None);
/// assert_eq!(frames.ending(), Some(Ending::Finished));
/// # }
/// ```
pub struct FrameStream<T> {
    shared: Arc<Shared<T>>,
    /// Frames taken out of the queue together and not handed out; they still count as queued.
    batch: Buffer<T>,
    /// When to leave the senders alone.
    pace: Pace,
    /// Set once everything was read.
    ended: Option<Ending>,
    /// Calls the hook that wants to know when there is something to read.
    ready: Option<Waker>,
}

// Frames are never pinned.
impl<T> Unpin for FrameStream<T> {}

impl<T> FrameStream<T> {
    pub(super) fn new(shared: Arc<Shared<T>>) -> Self {
        let pace = Pace::new(shared.rules.capacity);
        FrameStream { shared, batch: Buffer::new(), pace, ended: None, ready: None }
    }

    /// Receives the next frame; `None` when the channel has ended and everything was read.
    ///
    /// A test that pauses tokio's clock must hold it meanwhile, as
    /// [`BlockingFuture`](crate::BlockingFuture#paused-clocks) shows.
    ///
    /// Python: `await queue.get()`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a `recv` that is dropped has taken nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), callbridge::channel::SendError<u8>> {
    /// let (sender, mut frames) = callbridge::channel(2);
    /// sender.send(1)?;
    /// drop(sender);
    /// assert_eq!(frames.recv().await, Some(1));
    /// assert_eq!(frames.recv().await, None);
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Appends what is there, up to `max` frames, and returns how many; waits while there is none.
    ///
    /// 0 means that the channel has ended and everything was read (or that `max` is 0).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a `recv_many` that is dropped has taken nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), callbridge::channel::SendError<u8>> {
    /// let (sender, mut frames) = callbridge::channel(8);
    /// for frame in 0..5 {
    ///     sender.send(frame)?;
    /// }
    /// let mut buffer = Vec::new();
    /// assert_eq!(frames.recv_many(&mut buffer, 3).await, 3);
    /// assert_eq!(frames.recv_many(&mut buffer, 3).await, 2);
    /// assert_eq!(buffer, [0, 1, 2, 3, 4]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recv_many(&mut self, buffer: &mut Vec<T>, max: usize) -> usize {
        poll_fn(|cx| self.poll_recv_many(cx, buffer, max)).await
    }

    /// Receives the next frame if there is one now.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`] while more can come, [`RecvError::Ended`] after the end.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel::RecvError;
    ///
    /// let (sender, mut frames) = callbridge::channel(2);
    /// assert_eq!(frames.try_recv(), Err(RecvError::Empty));
    /// sender.send(1)?;
    /// assert_eq!(frames.try_recv(), Ok(1));
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        let mut frame = None;
        match self.take(1, &mut |item| frame = item.into_frame(), None) {
            Taken::Items(_) => frame.ok_or(RecvError::Empty),
            Taken::Nothing => Err(RecvError::Empty),
            Taken::Ended(_) => Err(RecvError::Ended),
        }
    }

    /// Receives the next frame, on a thread.
    ///
    /// `None` waits for ever, zero answers at once, and a limit too far to express is none.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread until there is a frame, the end, or the limit. Needs no runtime.
    ///
    /// # Errors
    ///
    /// See [`RecvError`]. On a thread that drives an event loop a frame that is there is
    /// returned, but waiting is refused with `WouldDeadlock`.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut frames) = callbridge::channel(2);
    /// let source = std::thread::spawn(move || sender.send("hello").is_ok());
    /// assert_eq!(frames.recv_blocking(None), Ok("hello"));
    /// assert!(frames.recv_blocking(None).is_err());
    /// assert!(source.join().unwrap());
    /// ```
    pub fn recv_blocking(&mut self, timeout: impl Into<Option<Duration>>) -> Result<T, RecvError> {
        let mut frame = None;
        self.take_blocking(1, &mut |item| frame = item.into_frame(), Deadline::after(timeout))?;
        frame.ok_or(RecvError::Ended)
    }

    /// Appends what is there, up to `max` frames, and returns how many; blocks the thread while
    /// there is none.
    ///
    /// `None` waits for ever, zero answers at once, and a limit too far to express is none. 0
    /// frames only come if `max` is 0.
    ///
    /// # Blocking
    ///
    /// As [`recv_blocking`](Self::recv_blocking).
    ///
    /// # Errors
    ///
    /// As [`recv_blocking`](Self::recv_blocking); nothing was taken then.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut frames) = callbridge::channel(8);
    /// for frame in 0..5 {
    ///     sender.send(frame)?;
    /// }
    /// let mut buffer = Vec::new();
    /// assert_eq!(frames.recv_many_blocking(&mut buffer, 3, None), Ok(3));
    /// assert_eq!(frames.recv_many_blocking(&mut buffer, 3, None), Ok(2));
    /// assert_eq!(buffer, [0, 1, 2, 3, 4]);
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    pub fn recv_many_blocking(
        &mut self,
        buffer: &mut Vec<T>,
        max: usize,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        self.take_blocking(
            max,
            &mut |item| buffer.extend(item.into_frame()),
            Deadline::after(timeout),
        )
    }

    /// From here on, gaps are noted; what is missing so far comes as one in front.
    pub(super) fn begin_gaps(&mut self) {
        let missing = self.shared.note_gaps();
        if missing > 0 {
            self.batch.begin_with_gap(missing);
        }
    }

    pub(super) fn take_blocking(
        &mut self,
        max: usize,
        sink: &mut impl FnMut(FrameOrGap<T>),
        deadline: Deadline,
    ) -> Result<usize, RecvError> {
        let mut take = |waker| match self.take(max, sink, waker) {
            Taken::Items(items) => Poll::Ready(Ok(items)),
            Taken::Nothing => Poll::Pending,
            Taken::Ended(_) => Poll::Ready(Err(RecvError::Ended)),
        };
        if let Poll::Ready(settled) = take(None) {
            return settled;
        }
        match wait(deadline, |cx| take(Some(cx.waker().clone()))) {
            Ok(settled) => settled,
            // The last look leaves the hook's waker where this thread's was.
            Err(error) => match take(None) {
                Poll::Ready(settled) => settled,
                Poll::Pending => Err(error.into()),
            },
        }
    }

    /// Polls for the next frame; what [`recv`](Self::recv) awaits.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::task::{Context, Poll, Wake, Waker};
    ///
    /// let (sender, mut frames) = callbridge::channel(1);
    /// let mut cx = Context::from_waker(Waker::noop());
    /// assert!(frames.poll_recv(&mut cx).is_pending());
    /// sender.send(7)?;
    /// assert_eq!(frames.poll_recv(&mut cx), Poll::Ready(Some(7)));
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    #[inline]
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if !self.batch.is_plain() {
            return self.poll_recv_otherwise(cx);
        }
        within_budget(cx, |_| Poll::Ready(self.shared.hand_out_one(&mut self.batch)))
    }

    fn poll_recv_otherwise(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut frame = None;
        let taken = self.poll_take(cx, 1, &mut |item| frame = item.into_frame());
        taken.map(|_| frame)
    }

    /// Polls for up to `max` frames; what [`recv_many`](Self::recv_many) awaits.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::task::{Context, Poll, Wake, Waker};
    ///
    /// let (sender, mut frames) = callbridge::channel(1);
    /// sender.send(7)?;
    /// let mut buffer = Vec::new();
    /// let mut cx = Context::from_waker(Waker::noop());
    /// assert_eq!(frames.poll_recv_many(&mut cx, &mut buffer, 16), Poll::Ready(1));
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    pub fn poll_recv_many(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Vec<T>,
        max: usize,
    ) -> Poll<usize> {
        if max == 0 {
            return Poll::Ready(0);
        }
        self.poll_take(cx, max, &mut |item| buffer.extend(item.into_frame()))
    }

    /// The number of frames taken, 0 at the end.
    pub(super) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        max: usize,
        sink: &mut impl FnMut(FrameOrGap<T>),
    ) -> Poll<usize> {
        within_budget(cx, |cx| match self.take_patiently(cx, max, sink) {
            Taken::Items(items) => Poll::Ready(items),
            Taken::Nothing => Poll::Pending,
            Taken::Ended(_) => Poll::Ready(0),
        })
    }

    /// Takes what there is, or leaves the task's waker. While it pays off, it leaves a source that
    /// is just as fast alone for a moment before that, and pauses where there is nothing.
    fn take_patiently(
        &mut self,
        cx: &Context<'_>,
        max: usize,
        sink: &mut impl FnMut(FrameOrGap<T>),
    ) -> Taken {
        let mut taken = Taken::Nothing;
        if !self.batch.is_empty() || !self.pace.keeps_up() {
            taken = self.take(max, sink, None);
        }
        if let (Taken::Nothing, true) = (&taken, self.shared.rules.spins) {
            let mut pace = self.pace;
            pace.pause(|| {
                taken = self.take(max, sink, None);
                !matches!(taken, Taken::Nothing)
            });
            self.pace = pace;
        }
        if let Taken::Nothing = taken {
            taken = self.take(max, sink, Some(cx.waker().clone()));
        }
        self.pace.note(match taken {
            Taken::Items(items) => items + self.batch.len(),
            Taken::Nothing | Taken::Ended(_) => 0,
        });
        taken
    }

    pub(super) fn take(
        &mut self,
        max: usize,
        sink: &mut impl FnMut(FrameOrGap<T>),
        waker: Option<Waker>,
    ) -> Taken {
        if let Some(ending) = self.ended {
            return Taken::Ended(ending);
        }
        let waker = waker.or_else(|| self.ready.clone());
        let taken = self.shared.take(&mut self.batch, max, sink, waker);
        if let Taken::Ended(ending) = taken {
            self.ended = Some(ending);
        }
        taken
    }

    /// Closes the stream to new frames; those that are queued stay readable.
    ///
    /// Every waiting sender gets its frame back. The channel ends as
    /// [`Ending::ConsumerDropped`]. Returns whether this call ended it.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut frames) = callbridge::channel(2);
    /// sender.send(1)?;
    /// assert!(frames.close());
    /// assert!(sender.send(2).is_err());
    /// assert_eq!(frames.try_recv(), Ok(1));
    /// assert!(!frames.close());
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    pub fn close(&mut self) -> bool {
        self.shared.end(Ending::ConsumerDropped, None)
    }

    /// Why the stream ended; `None` until everything was read.
    ///
    /// A stream that is dropped after its source failed, without anybody having asked for this or
    /// for the [`error`](Self::error), reports the error once (with the feature `tracing`).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel::Ending;
    ///
    /// let (sender, mut frames) = callbridge::channel(2);
    /// sender.send(1)?;
    /// sender.fail("unplugged");
    /// assert_eq!(frames.try_recv(), Ok(1));
    /// assert_eq!(frames.ending(), None);
    /// assert!(frames.try_recv().is_err());
    /// assert_eq!(frames.ending(), Some(Ending::Failed));
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    pub fn ending(&self) -> Option<Ending> {
        self.ended.inspect(|_| drop(self.shared.error()))
    }

    /// What went wrong at the source; `None` until everything was read, and if nothing did.
    ///
    /// A source that panicked, was aborted or lost its event loop has an error here, too, that says
    /// so.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut frames) = callbridge::channel::<u8>(2);
    /// sender.fail("unplugged");
    /// assert!(frames.try_recv().is_err());
    /// assert_eq!(frames.error().unwrap().to_string(), "unplugged");
    /// ```
    pub fn error(&self) -> Option<SourceError> {
        self.ended.and_then(|_| self.shared.error())
    }

    /// Calls `hook` when there is something to read: a frame, a gap, or the end. It wakes a loop
    /// that isn't tokio's: a window's, one of `poll` or `epoll` (by a pipe or an `eventfd`), a
    /// thread that reads several streams.
    ///
    /// Edge-triggered and coalesced: the hook is called once when the stream becomes readable, and
    /// then not again before a `try_recv` (or a wait that timed out) has found nothing; so read until
    /// it says [`Empty`](RecvError::Empty) or [`Ended`](RecvError::Ended). It is called at once,
    /// here, if there is something to read already. A later hook replaces this one.
    ///
    /// The hook runs on the thread that sends, or ends the channel, after every lock is open: it
    /// should wake its loop and return. A panic in it is contained and reported. While a task awaits
    /// this stream, or a thread waits for it, that one is woken instead.
    ///
    /// # Examples
    ///
    /// A window (the `desktop` example has it in full; `poll_loop` is a loop of descriptors):
    ///
    /// ```
    /// # struct Context;
    /// # impl Context { fn request_repaint(&self) {} }
    /// # impl Clone for Context { fn clone(&self) -> Self { Context } }
    /// # let (context, (_sender, mut frames)) = (Context, callbridge::channel::<u8>(8));
    /// let window = context.clone();
    /// frames.on_ready(move || window.request_repaint());
    /// // In each refresh:
    /// while let Ok(frame) = frames.try_recv() {
    ///     println!("{frame}");
    /// }
    /// ```
    ///
    /// A thread that reads two streams until both have ended:
    ///
    /// ```
    /// use callbridge::channel;
    ///
    /// let (numbers, words) = (channel::<u32>(8), channel::<&str>(8));
    /// let (mut read_numbers, mut read_words) = (numbers.1, words.1);
    /// let reader = std::thread::spawn(move || {
    ///     let thread = std::thread::current();
    ///     read_numbers.on_ready(move || thread.unpark());
    ///     let thread = std::thread::current();
    ///     read_words.on_ready(move || thread.unpark());
    ///     let mut read = 0;
    ///     loop {
    ///         read += std::iter::from_fn(|| read_numbers.try_recv().ok()).count();
    ///         read += std::iter::from_fn(|| read_words.try_recv().ok()).count();
    ///         if read_numbers.ending().is_some() && read_words.ending().is_some() {
    ///             return read;
    ///         }
    ///         std::thread::park();
    ///     }
    /// });
    /// numbers.0.send(1)?;
    /// words.0.send("one")?;
    /// drop((numbers.0, words.0));
    /// assert_eq!(reader.join().unwrap(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_ready(&mut self, hook: impl Fn() + Send + Sync + 'static) {
        let ready = Waker::from(Arc::new(Ready(hook)));
        self.ready = Some(ready.clone());
        if !self.batch.is_empty() || !self.shared.leave_waker(ready.clone()) {
            wake(ready);
        }
    }

    /// How many frames are queued.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, frames) = callbridge::channel(2);
    /// sender.send(1)?;
    /// assert_eq!(frames.len(), 1);
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
    /// assert!(callbridge::channel::<u8>(2).1.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many frames can be queued; `usize::MAX` if unbounded.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(callbridge::channel::<u8>(2).1.capacity(), 2);
    /// ```
    pub fn capacity(&self) -> usize {
        self.shared.rules.capacity
    }

    /// Returns a snapshot of the channel's counters.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, frames) = callbridge::channel(2);
    /// sender.send(1)?;
    /// assert_eq!(frames.stats().queued, 1);
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }
}

/// A hook in the shape of a waker.
struct Ready<F>(F);

impl<F: Fn() + Send + Sync> Wake for Ready<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

impl<T> Stream for FrameStream<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.get_mut().poll_recv(cx)
    }

    /// At least what is queued, unless a policy can still evict it; exact once the channel has
    /// ended.
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.shared.size_hint()
    }
}

impl<T> FusedStream for FrameStream<T> {
    fn is_terminated(&self) -> bool {
        self.ended.is_some()
    }
}

impl<T> Drop for FrameStream<T> {
    fn drop(&mut self) {
        self.shared.leave(std::mem::replace(&mut self.batch, Buffer::new()));
    }
}

impl<T> fmt::Debug for FrameStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameStream")
            .field("name", &self.shared.rules.name)
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("ending", &self.ended)
            .finish()
    }
}
