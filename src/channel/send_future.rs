//! What a sender awaits: room, or the end.

use super::coop::within_budget;
use super::error::SendError;
use super::overflow::{Ending, LossReason, Overflow, Sent};
use super::produce::{Offered, OnFull, Outcome};
use super::state::{Shared, drop_contained};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

/// A frame on its way; made by [`Sender::send_async`](crate::Sender::send_async).
///
/// # Cancel safety
///
/// Dropped before it is done, its frame is lost for the reason `SendCancelled`, unless it has got
/// its room in the meantime. [`cancel`](Self::cancel) takes the frame back instead.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (sender, frames) = callbridge::channel(1);
/// sender.send_async(1).await.unwrap();
/// let mut waiting = sender.send_async(2);
/// tokio::select! {
///     _ = &mut waiting => unreachable!("the channel is full"),
///     () = tokio::task::yield_now() => {}
/// }
/// assert_eq!(waiting.cancel(), Some(2));
/// assert_eq!(frames.len(), 1);
/// # }
/// ```
#[must_use = "nothing is sent unless it is awaited"]
pub struct SendFuture<'a, T> {
    shared: &'a Shared<T>,
    stage: Stage<T>,
}

/// How far a frame is that is sent from async code.
pub(super) enum Stage<T> {
    Fresh(T),
    Parked(u64),
    Done,
}

// Frames are never pinned.
impl<T> Unpin for SendFuture<'_, T> {}

impl<'a, T> SendFuture<'a, T> {
    pub(super) fn new(shared: &'a Shared<T>, frame: T) -> Self {
        SendFuture { shared, stage: Stage::Fresh(frame) }
    }

    /// Gives up and takes the frame back, counted as refused; `None` if it has been settled.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, _frames) = callbridge::channel(1);
    /// let mut never_polled = sender.send_async(7);
    /// assert_eq!(never_polled.cancel(), Some(7));
    /// assert_eq!(sender.stats().refused, 1);
    /// ```
    pub fn cancel(&mut self) -> Option<T> {
        let frame = self.stage.withdraw(self.shared)?;
        self.shared.book_refusal();
        Some(frame)
    }
}

impl<T> Stage<T> {
    fn withdraw(&mut self, shared: &Shared<T>) -> Option<T> {
        match std::mem::replace(self, Stage::Done) {
            Stage::Fresh(frame) => Some(frame),
            Stage::Parked(ticket) => shared.withdraw(ticket),
            Stage::Done => None,
        }
    }

    /// The frame is lost, unless it has got its room.
    pub(super) fn give_up(&mut self, shared: &Shared<T>) {
        if let Some(frame) = self.withdraw(shared) {
            shared.lose(&frame, LossReason::SendCancelled);
            drop_contained(frame);
        }
    }

    fn start(&mut self, shared: &Shared<T>, frame: T, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        let weight = shared.rules.weigh(&frame);
        let on_full = match shared.rules.overflow {
            Overflow::Block | Overflow::BlockFor(..) => OnFull::Ask,
            policy => OnFull::at_once(policy),
        };
        let waits = matches!(on_full, OnFull::Ask);
        let frame = match shared.offer(frame, weight, on_full) {
            Offered::Settled(Err(SendError::Full(frame))) if waits => frame,
            Offered::Settled(outcome) => return Poll::Ready(outcome),
            Offered::Parked(ticket) => return self.park(ticket),
        };
        let (waker, since) = (cx.waker().clone(), Instant::now());
        match shared.offer(frame, weight, OnFull::Park { waker, since, patient: false }) {
            Offered::Settled(outcome) => Poll::Ready(outcome),
            Offered::Parked(ticket) => self.park(ticket),
        }
    }

    fn park(&mut self, ticket: u64) -> Poll<Outcome<T>> {
        *self = Stage::Parked(ticket);
        Poll::Pending
    }

    /// What becomes of the frame; `None` if there is none.
    pub(super) fn poll(
        &mut self,
        shared: &Shared<T>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Outcome<T>>> {
        within_budget(cx, |cx| match std::mem::replace(self, Stage::Done) {
            Stage::Fresh(frame) => self.start(shared, frame, cx).map(Some),
            Stage::Parked(ticket) => {
                shared.replace_waker(ticket, cx.waker().clone());
                match shared.settle(ticket) {
                    Some(outcome) => Poll::Ready(Some(outcome)),
                    None => self.park(ticket).map(Some),
                }
            }
            Stage::Done => Poll::Ready(None),
        })
    }
}

impl<T> Future for SendFuture<'_, T> {
    type Output = Result<Sent<T>, SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = self.shared;
        self.stage
            .poll(shared, cx)
            .map(|outcome| outcome.expect("a SendFuture was polled after it was done"))
    }
}

impl<T> Drop for SendFuture<'_, T> {
    fn drop(&mut self) {
        self.stage.give_up(self.shared);
    }
}

impl<T> fmt::Debug for SendFuture<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendFuture").finish_non_exhaustive()
    }
}

/// Waits for the end of the channel.
pub(super) struct Closed<'a, T> {
    shared: &'a Shared<T>,
    ticket: Option<u64>,
}

impl<'a, T> Closed<'a, T> {
    pub(super) fn new(shared: &'a Shared<T>) -> Self {
        Closed { shared, ticket: None }
    }

    fn forget(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.shared.forget_end_waiter(ticket);
        }
    }
}

impl<T> Future for Closed<'_, T> {
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        self.forget();
        match self.shared.await_end(cx.waker().clone()) {
            Ok(ending) => Poll::Ready(ending),
            Err(ticket) => {
                self.ticket = Some(ticket);
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Closed<'_, T> {
    fn drop(&mut self) {
        self.forget();
    }
}
