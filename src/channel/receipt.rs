//! Frames that tell their sender what became of them.

use super::error::{NotDone, SendError};
use super::overflow::{LossReason, Sent};
use super::sender::Sender;
use super::state::drop_contained;
use crate::future::{BlockingFuture, Completer, promise};
use crate::sync::prim::{Mutex, lock};
use std::fmt;
use std::ops::{Deref, DerefMut};

/// What becomes of a tracked frame, for a thread to wait on, a task to await, or a callback.
///
/// `Ok` once the consumer has called [`Tracked::done`]; a [`NotDone`] with the reason as soon as it is
/// certain that it never will. Everything that takes [`BlockingFuture`]s takes receipts:
/// [`wait`](crate::wait()) and [`as_completed`](crate::as_completed) for many at once,
/// [`detach`](BlockingFuture::detach) for a report of those that were lost. Cancelling or dropping one
/// doesn't touch the frame.
pub type Receipt = BlockingFuture<Result<(), NotDone>>;

/// A frame whose sender wants to know when it is done; sent by [`Sender::send_tracked`].
///
/// Used like the frame inside. The consumer calls [`done`](Self::done) when it needs it no more;
/// dropped before that, the frame counts as unfinished.
#[must_use = "dropping it unfinished tells its sender so"]
pub struct Tracked<T> {
    frame: T,
    debt: Debt,
}

impl<T> Tracked<T> {
    fn new(frame: T) -> (Self, Receipt) {
        let (completer, receipt) = promise();
        (Tracked { frame, debt: Debt(Mutex::new(Some(completer))) }, receipt)
    }

    /// Tells the sender that the frame is done, and gives the frame out.
    ///
    /// The receipt's done-callbacks run on the calling thread; a panic in them is contained.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut frames) = callbridge::channel(1);
    /// let receipt = sender.send_tracked("frame").unwrap();
    /// assert_eq!(frames.try_recv().unwrap().done(), "frame");
    /// assert!(receipt.is_done());
    /// ```
    pub fn done(self) -> T {
        self.debt.settle(Ok(()));
        self.frame
    }

    /// Takes the frame out, to be done later: what is left stands for it.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut frames) = callbridge::channel(1);
    /// let receipt = sender.send_tracked(String::from("frame")).unwrap();
    /// let (frame, left) = frames.try_recv().unwrap().split();
    /// drop(frame);
    /// assert!(!receipt.is_done());
    /// left.done();
    /// assert!(receipt.is_done());
    /// ```
    pub fn split(self) -> (T, Tracked<()>) {
        (self.frame, Tracked { frame: (), debt: self.debt })
    }

    fn lose(&self, reason: LossReason) {
        self.debt.settle(Err(NotDone::Lost(reason)));
    }
}

impl<T> Deref for Tracked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.frame
    }
}

impl<T> DerefMut for Tracked<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.frame
    }
}

impl<T> fmt::Debug for Tracked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").finish_non_exhaustive()
    }
}

/// The receipt that is owed, until it is settled.
struct Debt(Mutex<Option<Completer<Result<(), NotDone>>>>);

impl Debt {
    fn settle(&self, outcome: Result<(), NotDone>) {
        let completer = lock(&self.0).take();
        if let Some(completer) = completer {
            completer.complete(outcome);
        }
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        self.settle(Err(NotDone::Unfinished));
    }
}

impl<T> Sender<Tracked<T>> {
    /// Sends a frame as [`send`](Self::send) does, and returns a receipt for it.
    ///
    /// The receipt resolves once the consumer has called [`Tracked::done`]. It is lost, with the
    /// reason, if the consumer drops the frame before, leaves, or a policy drops it: this very frame
    /// (the receipt that comes back is lost already), or an older one. So whoever sends again what was
    /// lost delivers at least once. Allocates the receipt.
    ///
    /// # Blocking
    ///
    /// As [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    /// use callbridge::channel::NotDone;
    /// use std::time::Duration;
    ///
    /// let (sender, mut frames) = channel(8);
    /// let mut first = sender.send_tracked("first")?;
    /// let mut second = sender.send_tracked("second")?;
    /// let consumer = std::thread::spawn(move || {
    ///     let frame = frames.recv_blocking(None).unwrap();
    ///     assert_eq!(frame.len(), 5);
    ///     frame.done();
    ///     let _unfinished = frames.recv_blocking(None).unwrap();
    /// });
    /// assert_eq!(first.result(Duration::from_secs(5))?, Ok(()));
    /// assert_eq!(second.result(Duration::from_secs(5))?, Err(NotDone::Unfinished));
    /// # consumer.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_tracked(&self, frame: T) -> Result<Receipt, SendError<T>> {
        let (frame, receipt) = self.track(frame);
        Self::tracked(self.send(frame), receipt)
    }

    /// As [`send_tracked`](Self::send_tracked), from async code.
    ///
    /// # Cancel safety
    ///
    /// As [`send_async`](Self::send_async): dropped before it is done, it loses its frame.
    ///
    /// # Errors
    ///
    /// As [`send_async`](Self::send_async).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (sender, mut frames) = callbridge::channel(1);
    /// let receipt = sender.send_tracked_async("frame").await?;
    /// frames.recv().await.unwrap().done();
    /// assert_eq!(receipt.await?, Ok(()));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send_tracked_async(&self, frame: T) -> Result<Receipt, SendError<T>> {
        let (frame, receipt) = self.track(frame);
        Self::tracked(self.send_async(frame).await, receipt)
    }

    fn track(&self, frame: T) -> (Tracked<T>, Receipt) {
        self.tell_losses(Tracked::lose);
        Tracked::new(frame)
    }

    fn tracked(
        sent: Result<Sent<Tracked<T>>, SendError<Tracked<T>>>,
        receipt: Receipt,
    ) -> Result<Receipt, SendError<T>> {
        match sent {
            Ok(sent) => {
                drop_contained(sent);
                Ok(receipt)
            }
            Err(refused) => Err(refused.map(|tracked| tracked.frame)),
        }
    }
}
