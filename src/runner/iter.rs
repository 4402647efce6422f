use super::core::Core;
use crate::channel::{self, FrameStream, RecvBlockingError, Sender};
use crate::future::{BlockingFuture, FutureState, ResultError};
use crate::sync::Deadline;
use futures_core::Stream;
use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::iter::FusedIterator;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::task::coop::consume_budget;

/// How long the drop of an iterator waits for the stream to be dropped on the loop.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// The most items taken in one turn, so that a stream that never waits lets others have theirs.
const MAX_BATCH: usize = 512;

/// A stream on the loop, as a blocking iterator.
///
/// Made by [`ThreadRunner::wrap_iter`](crate::ThreadRunner::wrap_iter). The stream is polled on the
/// loop, ahead of the consumer, and its items come over in batches: one hand-over serves as many
/// items as are there, and an item that is alone comes at once. Several iterators can take turns.
///
/// Items are `Ok`; an error says why there are no more and comes once, last: the stream panicked,
/// or the loop went away under it. A stream that ends well ends the iterator without one.
///
/// Dropping it early drops the stream on the loop, and waits for that at most 1 s; on a thread that
/// drives an event loop it doesn't wait.
///
/// # Examples
///
/// See [`ThreadRunner::wrap_iter`](crate::ThreadRunner::wrap_iter).
#[must_use = "iterators do nothing unless they are read; dropping this one drops the stream"]
pub struct WrapIter<T> {
    /// What is left of the batch that came last.
    batch: std::vec::IntoIter<T>,
    batches: FrameStream<Vec<T>>,
    /// The task that reads the stream.
    reader: BlockingFuture<()>,
    over: bool,
}

impl<T: Send + 'static> WrapIter<T> {
    /// An iterator that is at most `prefetch` items behind the stream.
    #[track_caller]
    pub(super) fn new<S>(core: &Arc<Core>, stream: S, prefetch: usize) -> Self
    where
        S: Stream<Item = T> + Send + 'static,
    {
        // A third each for the batch being made, the batches on their way, the one being read.
        let share = (prefetch / 3).max(1);
        let (sender, batches) = channel::builder()
            .capacity(share)
            .weigh(|batch: &Vec<T>| batch.len(), share)
            .build()
            .expect("a share of at least 1 is a capacity");
        let reading = read(stream, sender, share.min(MAX_BATCH));
        let reader = super::submit(core, reading);
        WrapIter { batch: Vec::new().into_iter(), batches, reader, over: false }
    }

    /// The next item, waited for at most `timeout`; `Ok(None)` is the end.
    ///
    /// `None` waits for ever, zero answers at once.
    ///
    /// # Blocking
    ///
    /// Until there is an item, the end, or the timeout.
    ///
    /// # Errors
    ///
    /// [`ResultError::TimedOut`], after which it can be called again, or the stream's last word;
    /// see [`WrapIter`].
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
    /// # Ok::<(), callbridge::SendError<i32>>(())
    /// ```
    pub fn next_timeout(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Option<T>, ResultError> {
        if let Some(item) = self.batch.next() {
            return Ok(Some(item));
        }
        self.next_batch(timeout.into())
    }

    #[cold]
    fn next_batch(&mut self, timeout: Option<Duration>) -> Result<Option<T>, ResultError> {
        if self.over {
            return Ok(None);
        }
        let deadline = Deadline::after(timeout);
        match self.batches.recv_blocking(timeout) {
            Ok(batch) => {
                self.batch = batch.into_iter();
                return Ok(self.batch.next());
            }
            Err(RecvBlockingError::TimedOut) => {
                return Err(ResultError::TimedOut { state: FutureState::Running });
            }
            Err(RecvBlockingError::WouldDeadlock) => {
                self.over = true;
                return Err(ResultError::WouldDeadlock);
            }
            Err(_ended) => {}
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
        match self.batch.next() {
            Some(item) => Some(Ok(item)),
            None => self.next_batch(None).transpose(),
        }
    }
}

impl<T: Send + 'static> FusedIterator for WrapIter<T> {}

impl<T> Drop for WrapIter<T> {
    fn drop(&mut self) {
        // The reader's result is a unit: a panic in it is reported by its future's own drop.
        self.reader.canceller().cancel();
        let _ = self.reader.wait(DROP_WAIT);
    }
}

impl<T> fmt::Debug for WrapIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrapIter").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// How a round of reading ended.
enum Round {
    More,
    End,
    Panicked(Box<dyn Any + Send>),
}

async fn read<S: Stream>(stream: S, sender: Sender<Vec<S::Item>>, most: usize) {
    let mut stream = pin!(stream);
    let mut likely = 0;
    loop {
        let mut batch = Vec::with_capacity(likely);
        let round = poll_fn(|cx| fill(stream.as_mut(), cx, &mut batch, most)).await;
        likely = batch.len();
        if !batch.is_empty() && sender.send_async(batch).await.is_err() {
            return;
        }
        match round {
            Round::More => consume_budget().await,
            Round::End => return,
            Round::Panicked(payload) => resume_unwind(payload),
        }
    }
}

/// Takes what the stream has now; waits only while it has nothing.
fn fill<S: Stream>(
    mut stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    batch: &mut Vec<S::Item>,
    most: usize,
) -> Poll<Round> {
    let filled = catch_unwind(AssertUnwindSafe(|| {
        loop {
            match stream.as_mut().poll_next(cx) {
                Poll::Ready(Some(item)) => {
                    batch.push(item);
                    if batch.len() == most {
                        return Poll::Ready(Round::More);
                    }
                }
                Poll::Ready(None) => return Poll::Ready(Round::End),
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Round::More),
            }
        }
    }));
    filled.unwrap_or_else(|payload| Poll::Ready(Round::Panicked(payload)))
}
