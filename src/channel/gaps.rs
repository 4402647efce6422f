//! A stream that says where frames are missing.

use super::buffer::FrameOrGap;
use super::consume::Taken;
use super::error::RecvError;
use super::stream::FrameStream;
use crate::sync::Deadline;
use futures_core::stream::{FusedStream, Stream};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Frames, and a gap wherever frames are missing; made by
/// [`FrameStream::with_gaps`](crate::FrameStream::with_gaps).
///
/// A [`Gap`](FrameOrGap::Gap) stands where the lost frames would have been: before what remains if
/// the oldest were evicted, behind what was queued if the newest was dropped. It counts every loss but
/// those that come after the end of the channel, and frames that went back to their sender inside an
/// error are none. Frames that were lost before `with_gaps` was called come as one gap in front. Two
/// gaps can follow each other; they add up.
///
/// # Examples
///
/// ```
/// use callbridge::channel::{self, FrameOrGap};
/// use callbridge::Overflow;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, frames) = channel::builder().capacity(2).overflow(Overflow::DropNewest).build()?;
/// let mut frames = frames.with_gaps();
/// for sample in [10, 11, 12, 13] {
///     sender.send(sample)?;
/// }
/// drop(sender);
/// let (mut sum, mut missing) = (0, 0);
/// while let Some(item) = frames.recv().await {
///     match item {
///         FrameOrGap::Frame(sample) => sum += sample,
///         FrameOrGap::Gap(samples) => missing += samples,
///     }
/// }
/// assert_eq!((sum, missing), (21, 2));
/// # Ok(())
/// # }
/// ```
pub struct GapStream<T> {
    frames: FrameStream<T>,
}

impl<T> FrameStream<T> {
    /// Makes the stream say where frames are missing; see [`GapStream`].
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel::{self, FrameOrGap};
    /// use callbridge::Overflow;
    ///
    /// let (sender, frames) =
    ///     channel::builder().capacity(2).overflow(Overflow::DropOldest).build()?;
    /// let mut frames = frames.with_gaps();
    /// for frame in 1..=5 {
    ///     sender.send(frame)?;
    /// }
    /// assert_eq!(frames.try_recv(), Ok(FrameOrGap::Gap(3)));
    /// assert_eq!(frames.try_recv(), Ok(FrameOrGap::Frame(4)));
    /// assert_eq!(frames.try_recv(), Ok(FrameOrGap::Frame(5)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_gaps(mut self) -> GapStream<T> {
        self.begin_gaps();
        GapStream { frames: self }
    }
}

impl<T> GapStream<T> {
    /// Receives the next frame or gap; `None` when the channel has ended and everything was read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a `recv` that is dropped has taken nothing.
    pub async fn recv(&mut self) -> Option<FrameOrGap<T>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Receives the next frame or gap if there is one now.
    ///
    /// # Errors
    ///
    /// As [`FrameStream::try_recv`].
    pub fn try_recv(&mut self) -> Result<FrameOrGap<T>, RecvError> {
        let mut next = None;
        match self.frames.take(1, &mut |item| next = Some(item), None) {
            Taken::Items(_) => next.ok_or(RecvError::Empty),
            Taken::Nothing => Err(RecvError::Empty),
            Taken::Ended(_) => Err(RecvError::Ended),
        }
    }

    /// Receives the next frame or gap, on a thread.
    ///
    /// `None` waits for ever, zero answers at once, and a limit too far to express is none.
    ///
    /// # Blocking
    ///
    /// As [`FrameStream::recv_blocking`].
    ///
    /// # Errors
    ///
    /// As [`FrameStream::recv_blocking`].
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel::FrameOrGap;
    ///
    /// let (sender, frames) = callbridge::channel(1);
    /// let mut frames = frames.with_gaps();
    /// sender.send("hello")?;
    /// assert_eq!(frames.recv_blocking(None), Ok(FrameOrGap::Frame("hello")));
    /// # Ok::<(), callbridge::channel::SendError<&str>>(())
    /// ```
    pub fn recv_blocking(
        &mut self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<FrameOrGap<T>, RecvError> {
        let mut next = None;
        self.frames.take_blocking(1, &mut |item| next = Some(item), Deadline::after(timeout))?;
        next.ok_or(RecvError::Ended)
    }

    /// Returns the stream inside, to look at its counters or its ending.
    ///
    /// # Examples
    ///
    /// ```
    /// let frames = callbridge::channel::<u8>(2).1.with_gaps();
    /// assert!(frames.get_ref().stats().balances());
    /// ```
    pub fn get_ref(&self) -> &FrameStream<T> {
        &self.frames
    }
}

impl<T> Stream for GapStream<T> {
    type Item = FrameOrGap<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut next = None;
        let polled = self.frames.poll_take(cx, 1, &mut |item| next = Some(item));
        polled.map(|_| next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.frames.size_hint().0, None)
    }
}

impl<T> FusedStream for GapStream<T> {
    fn is_terminated(&self) -> bool {
        self.frames.is_terminated()
    }
}

impl<T> fmt::Debug for GapStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GapStream").field("frames", &self.frames).finish()
    }
}
