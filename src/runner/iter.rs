use super::ThreadRunner;
use super::core::Core;
use super::reader::{Batch, read};
use crate::channel::{self, FrameStream, RecvError, WeakSender};
use crate::future::{BlockingFuture, Cancel, Canceller, ResultError};
use crate::sync::Deadline;
use futures_core::Stream;
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the drop of an iterator waits for the stream to be dropped on the loop.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// How many items are read ahead, where they aren't weighed.
const PREFETCH: usize = 1_024;

/// A stream on the loop, as a blocking iterator.
///
/// Made by [`ThreadRunner::wrap_iter`](crate::ThreadRunner::wrap_iter). The stream is polled on the
/// loop, ahead of the consumer, and its items come over in batches: one hand-over serves as many
/// items as are there, and an item that is alone comes at once. Several iterators can take turns.
///
/// Items are `Ok`; an error says why there are no more and comes once, last: the stream panicked, the
/// loop went away under it, or a [`canceller`](Self::canceller) ended it. A stream that ends well ends
/// the iterator without one.
///
/// Dropping it early drops the stream on the loop, and waits for that at most 1 s; on a thread that
/// drives an event loop it doesn't wait.
#[must_use = "iterators do nothing unless they are read; dropping this one drops the stream"]
pub struct WrapIter<T> {
    core: Arc<Core>,
    /// What is left of the batch that came last.
    batch: std::vec::IntoIter<T>,
    batches: FrameStream<Batch<T>>,
    /// The task that reads the stream.
    reader: BlockingFuture<()>,
    control: Arc<Control<T>>,
    over: bool,
}

/// What a canceller holds of an iterator.
struct Control<T> {
    /// Looked at by the iterator; a hint to it to stop, which orders nothing.
    cancelled: AtomicBool,
    reader: Canceller,
    batches: WeakSender<Batch<T>>,
}

impl<T: Send> Cancel for Control<T> {
    fn cancel(&self) -> bool {
        let first = !self.cancelled.swap(true, Ordering::Relaxed);
        self.reader.cancel();
        // Releases an iterator that waits, whatever the stream is doing.
        if let Some(batches) = self.batches.upgrade() {
            batches.close();
        }
        first
    }
}

impl<T: Send + 'static> WrapIter<T> {
    /// An iterator that is at most `budget` behind the stream, by the weight of its items.
    #[track_caller]
    fn new<S>(
        core: &Arc<Core>,
        stream: S,
        budget: usize,
        weigh: impl FnMut(&T) -> usize + Send + 'static,
    ) -> Self
    where
        S: Stream<Item = T> + Send + 'static,
    {
        // A third each for the batch being made, the batches on their way, the one being read.
        let share = (budget / 3).max(1);
        let (sender, batches) = channel::builder()
            .capacity(share)
            .weigh(move |batch: &Batch<T>| batch.weight.min(share), share)
            .build()
            .expect("a share of at least 1 is a capacity");
        let weak = sender.downgrade();
        let reader = core.submit(read(stream, sender, share, weigh));
        let control = Control {
            cancelled: AtomicBool::new(false),
            reader: reader.canceller(),
            batches: weak,
        };
        WrapIter {
            core: Arc::clone(core),
            batch: Vec::new().into_iter(),
            batches,
            reader,
            control: Arc::new(control),
            over: false,
        }
    }

    /// Returns a handle that ends the iterator from another thread, such as a signal handler's.
    ///
    /// The iterator's next answer is [`Cancelled`](ResultError::Cancelled), at once: one that waits for
    /// an item is released, what was read ahead is dropped, and so is the stream, on the loop. A handle
    /// that is never dropped keeps nothing of that alive.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ResultError;
    ///
    /// let runner = callbridge::ThreadRunner::new();
    /// let (_sender, frames) = callbridge::channel::<u8>(4);
    /// let mut items = runner.wrap_iter(frames);
    /// let canceller = items.canceller();
    /// std::thread::spawn(move || canceller.cancel());
    /// assert!(matches!(items.next(), Some(Err(ResultError::Cancelled))));
    /// assert!(items.next().is_none());
    /// ```
    pub fn canceller(&self) -> Canceller {
        Canceller::new(Arc::clone(&self.control) as Arc<dyn Cancel>)
    }

    fn is_cancelled(&self) -> bool {
        self.control.cancelled.load(Ordering::Relaxed)
    }

    /// Waits for the next item, at most `timeout`; `Ok(None)` is the end.
    ///
    /// `None` waits for ever, zero answers at once.
    ///
    /// # Blocking
    ///
    /// Until there is an item, the end, or the timeout.
    ///
    /// # Errors
    ///
    /// [`ResultError::TimedOut`], after which it can be called again, or the error that ended the
    /// stream; see [`WrapIter`].
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ResultError;
    /// use std::time::Duration;
    ///
    /// let runner = callbridge::ThreadRunner::new();
    /// let (sender, frames) = callbridge::channel(4);
    /// let mut items = runner.wrap_iter(frames);
    /// let silence = items.next_timeout(Duration::from_millis(1));
    /// assert!(matches!(silence, Err(ResultError::TimedOut { .. })));
    /// sender.send(7)?;
    /// assert_eq!(items.next_timeout(Duration::from_secs(5)).unwrap(), Some(7));
    /// # Ok::<(), callbridge::channel::SendError<i32>>(())
    /// ```
    pub fn next_timeout(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<T>, ResultError> {
        match self.next_at_hand() {
            Some(item) => Ok(Some(item)),
            None => self.next_batch(timeout.into()),
        }
    }

    #[inline]
    fn next_at_hand(&mut self) -> Option<T> {
        if self.is_cancelled() { None } else { self.batch.next() }
    }

    #[cold]
    fn next_batch(&mut self, timeout: Option<Duration>) -> Result<Option<T>, ResultError> {
        if self.over {
            return Ok(None);
        }
        if self.core.is_forked() {
            self.over = true;
            return Err(ResultError::Forked);
        }
        let deadline = Deadline::after(timeout);
        let received = match self.batches.try_recv() {
            Err(RecvError::Empty) if !self.is_cancelled() => {
                self.core.wait(deadline, self.batches.recv())
            }
            received => Ok(received.ok()),
        };
        if self.is_cancelled() {
            self.over = true;
            self.batch = Vec::new().into_iter();
            while self.batches.try_recv().is_ok() {}
            return Err(ResultError::Cancelled);
        }
        match received {
            Ok(Some(batch)) => {
                self.batch = batch.items.into_iter();
                return Ok(self.batch.next());
            }
            Ok(None) => {}
            Err(late @ ResultError::TimedOut { .. }) => return Err(late),
            Err(error) => {
                self.over = true;
                return Err(error);
            }
        }
        // The reader drops its end of the channel just before it says how it went.
        match self.reader.result(deadline.remaining()) {
            Err(late @ ResultError::TimedOut { .. }) => Err(late),
            ended => {
                self.over = true;
                ended.map(|()| None)
            }
        }
    }
}

impl<T: Send + 'static> Iterator for WrapIter<T> {
    type Item = Result<T, ResultError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.next_at_hand() {
            Some(item) => Some(Ok(item)),
            None => self.next_batch(None).transpose(),
        }
    }
}

impl<T: Send + 'static> FusedIterator for WrapIter<T> {}

impl<T> Drop for WrapIter<T> {
    fn drop(&mut self) {
        if self.core.is_forked() {
            return;
        }
        // The reader's result is a unit: a panic in it is reported by its future's own drop.
        self.reader.cancel();
        let _ = self.reader.wait(DROP_WAIT);
    }
}

impl<T> fmt::Debug for WrapIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrapIter").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl ThreadRunner {
    /// Reads `stream` on the loop, and gives its items to the calling thread.
    ///
    /// The stream is read ahead, at most 1 024 items, and
    /// handed over in batches, so an item costs tens of nanoseconds and not a round trip. Items of a
    /// hundred kilobytes would be a hundred megabytes then: [`wrap_iter_weighed`](Self::wrap_iter_weighed)
    /// counts bytes. See [`WrapIter`] for how it ends. Python: `ThreadRunner.wrap_iter`.
    ///
    /// # Blocking
    ///
    /// The iterator blocks while there is no item. On a thread that drives an event loop it gives
    /// [`WouldDeadlock`](ResultError::WouldDeadlock) instead, and ends.
    ///
    /// # Examples
    ///
    /// ```
    /// let runner = callbridge::ThreadRunner::new();
    /// let (sender, frames) = callbridge::channel(4);
    /// let source = std::thread::spawn(move || (0..100).try_for_each(|n| sender.send(n).map(drop)));
    /// let sum: i32 = runner.wrap_iter(frames).sum::<Result<_, _>>()?;
    /// assert_eq!(sum, 4950);
    /// # source.join().unwrap().unwrap();
    /// # Ok::<(), callbridge::ResultError>(())
    /// ```
    #[track_caller]
    pub fn wrap_iter<S>(&self, stream: S) -> WrapIter<S::Item>
    where
        S: Stream + Send + 'static,
        S::Item: Send + 'static,
    {
        self.wrap_iter_weighed(stream, PREFETCH, |_| 1)
    }

    /// As [`wrap_iter`](Self::wrap_iter), reading ahead at most `budget` in all, by the weight of items.
    ///
    /// For items of many sizes: with their length as their weight, `budget` is in bytes; with 1, `|_| 1`, it
    /// is in items, 3 at least. `weigh` runs on the loop, once for each item; less than 1 counts as 1. A third of the budget each is for the items
    /// being read, those on their way, and those in hand; what makes a third full belongs to it still,
    /// however heavy it is, so that less than three items can come on top.
    ///
    /// # Blocking
    ///
    /// As [`wrap_iter`](Self::wrap_iter).
    ///
    /// # Examples
    ///
    /// ```
    /// let runner = callbridge::ThreadRunner::new();
    /// let (sender, frames) = callbridge::channel(4);
    /// sender.send(vec![0; 100_000])?;
    /// drop(sender);
    /// let pieces = runner.wrap_iter_weighed(frames, 1 << 20, Vec::len);
    /// let bytes: usize = pieces.map(|piece| piece.unwrap().len()).sum();
    /// assert_eq!(bytes, 100_000);
    /// # Ok::<(), callbridge::channel::SendError<Vec<u8>>>(())
    /// ```
    #[track_caller]
    pub fn wrap_iter_weighed<S>(
        &self,
        stream: S,
        budget: usize,
        weigh: impl FnMut(&S::Item) -> usize + Send + 'static,
    ) -> WrapIter<S::Item>
    where
        S: Stream + Send + 'static,
        S::Item: Send + 'static,
    {
        WrapIter::new(&self.core, stream, budget, weigh)
    }
}
