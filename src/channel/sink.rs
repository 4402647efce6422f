//! A sender as a `Sink`.

use super::error::SendError;
use super::send_future::Stage;
use super::sender::Sender;
use super::state::drop_contained;
use futures_sink::Sink;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// A sender as a futures `Sink`; made by [`Sender::into_sink`].
///
/// It holds one frame at a time while that waits for room, as
/// [`send_async`](Sender::send_async) does: a full channel does what its policy says. Flushed means
/// queued, not read; see [`Sender::flush`]. Closing it drops the sender, and so ends the channel if it
/// was the last. Dropped with a frame that still waits, it loses it for the reason `SendCancelled`.
///
/// # Errors
///
/// A [`SendError`] with the frame inside, of the frame before as a rule. The sink stays usable.
///
/// # Panics
///
/// `start_send` panics if `poll_ready` didn't say that it may be called.
///
/// # Examples
///
/// ```
/// use futures_sink::Sink;
/// use std::future::poll_fn;
/// use std::pin::pin;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), callbridge::channel::SendError<u32>> {
/// let (sender, mut frames) = callbridge::channel(2);
/// // With futures-util: `numbers.forward(sender.into_sink())`, or `sink.send(7)`.
/// let mut sink = pin!(sender.into_sink());
/// poll_fn(|cx| sink.as_mut().poll_ready(cx)).await?;
/// sink.as_mut().start_send(7)?;
/// poll_fn(|cx| sink.as_mut().poll_close(cx)).await?;
/// assert_eq!(frames.recv().await, Some(7));
/// assert_eq!(frames.recv().await, None);
/// # Ok(())
/// # }
/// ```
pub struct SenderSink<T> {
    /// Gone once the sink was closed.
    sender: Option<Sender<T>>,
    stage: Stage<T>,
}

// Frames are never pinned.
impl<T> Unpin for SenderSink<T> {}

impl<T> Sender<T> {
    /// This sender as a [`Sink`](futures_sink::Sink), for a stream that is forwarded into it.
    pub fn into_sink(self) -> SenderSink<T> {
        SenderSink { sender: Some(self), stage: Stage::Done }
    }
}

impl<T> Sink<T> for SenderSink<T> {
    type Error = SendError<T>;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        self.poll_flush(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, frame: T) -> Result<(), SendError<T>> {
        if self.sender.is_none() {
            return Err(SendError::Closed(frame));
        }
        assert!(matches!(self.stage, Stage::Done), "a sink was used before it was ready");
        self.stage = Stage::Fresh(frame);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError<T>>> {
        let SenderSink { sender: Some(sender), stage } = self.get_mut() else {
            return Poll::Ready(Ok(()));
        };
        match ready!(stage.poll(&sender.shared, cx)) {
            Some(Err(refused)) => Poll::Ready(Err(refused)),
            Some(Ok(sent)) => {
                drop_contained(sent);
                Poll::Ready(Ok(()))
            }
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), SendError<T>>> {
        let flushed = ready!(self.as_mut().poll_flush(cx));
        self.sender = None;
        Poll::Ready(flushed)
    }
}

impl<T> Drop for SenderSink<T> {
    fn drop(&mut self) {
        if let Some(sender) = &self.sender {
            self.stage.give_up(&sender.shared);
        }
    }
}

impl<T> fmt::Debug for SenderSink<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SenderSink").field("sender", &self.sender).finish_non_exhaustive()
    }
}
