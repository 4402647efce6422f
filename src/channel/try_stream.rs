//! A stream of results.

use super::error::SourceError;
use super::overflow::Ending;
use super::stream::FrameStream;
use futures_core::stream::{FusedStream, Stream};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Frames as `Result` items: the source's error comes once, last.
///
/// Made by [`FrameStream::into_try_stream`]. Of the [`Ending`]s, `Finished`, `ConsumerDropped` and
/// `Aborted` (an ordinary stop) end the stream without an error.
///
/// # Examples
///
/// ```
/// use futures_core::Stream;
/// use std::pin::Pin;
/// use std::task::{Context, Poll, Wake, Waker};
///
/// let (sender, frames) = callbridge::channel::<u8>(2);
/// sender.fail("unplugged");
/// let mut frames = frames.into_try_stream();
/// let mut cx = Context::from_waker(Waker::noop());
/// assert!(matches!(Pin::new(&mut frames).poll_next(&mut cx), Poll::Ready(Some(Err(_)))));
/// assert!(matches!(Pin::new(&mut frames).poll_next(&mut cx), Poll::Ready(None)));
/// ```
pub struct TryFrameStream<T> {
    frames: FrameStream<T>,
    /// Whether the end, with its error if there is one, was reached.
    told: bool,
}

impl<T> FrameStream<T> {
    /// Turns the stream into one of `Result`s: `Ok` frames, then the source's error once, then the
    /// end.
    ///
    /// A source that was stopped from outside ([`Ending::Aborted`]) ends it without an error.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(f: F) -> F::Output {
    /// #     tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(f)
    /// # }
    /// use callbridge::channel::SourceError;
    /// use futures_core::Stream;
    /// use std::future::poll_fn;
    /// use std::pin::Pin;
    ///
    /// async fn sum(frames: callbridge::FrameStream<u32>) -> Result<u32, SourceError> {
    ///     let mut frames = frames.into_try_stream();
    ///     let mut sum = 0;
    ///     while let Some(frame) = poll_fn(|cx| Pin::new(&mut frames).poll_next(cx)).await {
    ///         sum += frame?;
    ///     }
    ///     Ok(sum)
    /// }
    ///
    /// let (sender, frames) = callbridge::channel(4);
    /// sender.send(1).unwrap();
    /// sender.fail("unplugged");
    /// assert_eq!(block_on(sum(frames)).unwrap_err().to_string(), "unplugged");
    /// ```
    pub fn into_try_stream(self) -> TryFrameStream<T> {
        TryFrameStream { frames: self, told: false }
    }
}

impl<T> TryFrameStream<T> {
    /// Returns the stream inside, to look at its counters or its ending.
    ///
    /// # Examples
    ///
    /// ```
    /// let frames = callbridge::channel::<u8>(2).1.into_try_stream();
    /// assert!(frames.get_ref().stats().balances());
    /// ```
    pub fn get_ref(&self) -> &FrameStream<T> {
        &self.frames
    }
}

impl<T> Stream for TryFrameStream<T> {
    type Item = Result<T, SourceError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match std::task::ready!(self.frames.poll_recv(cx)) {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if self.told => Poll::Ready(None),
            None => {
                self.told = true;
                let stopped = self.frames.ending() == Some(Ending::Aborted);
                Poll::Ready(self.frames.error().filter(|_| !stopped).map(Err))
            }
        }
    }
}

impl<T> FusedStream for TryFrameStream<T> {
    fn is_terminated(&self) -> bool {
        self.told
    }
}

impl<T> fmt::Debug for TryFrameStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryFrameStream").field("frames", &self.frames).finish()
    }
}
