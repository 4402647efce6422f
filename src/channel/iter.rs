//! A stream as an iterator for threads.

use super::error::RecvError;
use super::stream::FrameStream;
use futures_core::stream::Stream;
use std::iter::FusedIterator;

struct IterBlocking<'a, T> {
    frames: &'a mut FrameStream<T>,
}

impl<T> FrameStream<T> {
    /// Returns a blocking iterator over the frames: each `next` waits for one.
    ///
    /// It ends with the stream; [`ending`](Self::ending) and [`error`](Self::error) then say why. What is
    /// not read stays in the stream.
    ///
    /// # Blocking
    ///
    /// As [`recv_blocking`](Self::recv_blocking) without a limit.
    ///
    /// # Errors
    ///
    /// [`RecvError::WouldDeadlock`] in place of a frame, each time that there is none on a
    /// thread that drives an event loop.
    ///
    /// # Examples
    ///
    /// ```
    /// let (sender, mut frames) = callbridge::channel(2);
    /// let source = std::thread::spawn(move || (0..5).all(|frame| sender.send(frame).is_ok()));
    /// let mut sum = 0;
    /// for frame in frames.iter_blocking() {
    ///     sum += frame?;
    /// }
    /// assert_eq!(sum, 10);
    /// # assert!(source.join().unwrap());
    /// # Ok::<(), callbridge::channel::RecvError>(())
    /// ```
    pub fn iter_blocking(&mut self) -> impl FusedIterator<Item = Result<T, RecvError>> {
        IterBlocking { frames: self }
    }
}

impl<T> Iterator for IterBlocking<'_, T> {
    type Item = Result<T, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.frames.recv_blocking(None) {
            Err(RecvError::Ended) => None,
            next => Some(next),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // Where there is none, an error may come any number of times.
        (Stream::size_hint(&*self.frames).0, None)
    }
}

impl<T> FusedIterator for IterBlocking<'_, T> {}
