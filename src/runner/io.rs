use super::ThreadRunner;
use crate::bridge::Bridge;
use crate::future::ResultError;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// An async stream of bytes, as std's [`Read`] and [`Write`].
///
/// For sync code that reads and writes by std's traits (a parser, a compressor, `io::copy`) over what
/// only async code can open, such as a TLS connection or a response's body. Each read and write is a
/// [`Bridge::call`]: polled on the calling thread, in the context of the loop, with a timeout of
/// std's clock. It buffers nothing; wrap it into a [`BufReader`](std::io::BufReader) or a
/// [`BufWriter`](std::io::BufWriter) for small pieces.
///
/// Unlike `tokio_util::io::SyncIoBridge` it has timeouts, and errors where that one blocks for ever
/// or panics.
///
/// # Blocking
///
/// Reads and writes block until bytes have moved, at most for their timeout: none unless
/// [told](Self::set_read_timeout). What didn't move in time is where it was: the next call goes on.
/// Dropping it flushes nothing and doesn't block.
///
/// # Errors
///
/// The stream's own, and those of the call as [`io::Error`]: `TimedOut`; `Deadlock` on a thread that
/// drives an event loop; `BrokenPipe` when the loop or its bridge has ended; a panic of the stream. The
/// [`ResultError`] is inside.
///
/// # Examples
///
/// ```
/// use callbridge::ThreadRunner;
/// use std::io::{Read, Write};
/// use std::time::Duration;
///
/// let runner = ThreadRunner::new();
/// let (here, there) = tokio::io::duplex(64);
/// let (mut here, mut there) = (runner.wrap_io(here)?, runner.wrap_io(there)?);
/// here.write_all(b"ping")?;
/// let mut word = [0; 4];
/// there.read_exact(&mut word)?;
/// assert_eq!(&word, b"ping");
/// there.set_read_timeout(Duration::from_millis(1));
/// assert_eq!(there.read(&mut word).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct BlockingIo<T> {
    io: T,
    bridge: Bridge,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl<T> BlockingIo<T> {
    /// Wraps `io`, whose loop is behind `bridge`, without timeouts.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::Bridge;
    /// use callbridge::runner::BlockingIo;
    /// use std::io::Read;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let mut body = BlockingIo::new(&Bridge::current(), &b"a body"[..]);
    /// let text = callbridge::to_thread(move || std::io::read_to_string(&mut body)).await;
    /// assert_eq!(text.unwrap()?, "a body");
    /// # Ok(()) }
    /// ```
    pub fn new(bridge: &Bridge, io: T) -> Self {
        BlockingIo { io, bridge: bridge.clone(), read_timeout: None, write_timeout: None }
    }

    /// Sets how long a read waits from now on; `None` is for ever, zero takes what is there.
    pub fn set_read_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.read_timeout = timeout.into();
    }

    /// Sets how long a write, a flush or a shutdown waits from now on; `None` is for ever, zero
    /// writes what there is room for.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{ErrorKind, Write};
    /// use std::time::Duration;
    ///
    /// let runner = callbridge::ThreadRunner::new();
    /// let (here, _nobody_reads) = tokio::io::duplex(4);
    /// let mut here = runner.wrap_io(here)?;
    /// here.set_write_timeout(Duration::from_millis(1));
    /// assert_eq!(here.write(b"too long")?, 4);
    /// assert_eq!(here.write(b"long").unwrap_err().kind(), ErrorKind::TimedOut);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_write_timeout(&mut self, timeout: impl Into<Option<Duration>>) {
        self.write_timeout = timeout.into();
    }

    /// Borrows the stream.
    pub fn get_ref(&self) -> &T {
        &self.io
    }

    /// Borrows the stream mutably.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.io
    }

    /// Returns the stream.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: Unpin> BlockingIo<T> {
    fn call<R>(
        &mut self,
        timeout: Option<Duration>,
        mut poll: impl FnMut(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<R>>,
    ) -> io::Result<R> {
        let mut io = Pin::new(&mut self.io);
        self.bridge.call(poll_fn(|cx| poll(io.as_mut(), cx)), timeout)?
    }
}

impl<T: AsyncWrite + Unpin> BlockingIo<T> {
    /// Ends the writing side, what was written before included.
    ///
    /// # Blocking
    ///
    /// As a write.
    ///
    /// # Errors
    ///
    /// See [`BlockingIo`].
    ///
    /// # Examples
    ///
    /// ```
    /// let runner = callbridge::ThreadRunner::new();
    /// let (here, there) = tokio::io::duplex(64);
    /// runner.wrap_io(here)?.shutdown()?;
    /// assert_eq!(std::io::read_to_string(runner.wrap_io(there)?)?, "", "the end");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn shutdown(&mut self) -> io::Result<()> {
        self.call(self.write_timeout, T::poll_shutdown)
    }
}

impl<T: AsyncRead + Unpin> Read for BlockingIo<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        self.call(self.read_timeout, |io, cx| io.poll_read(cx, &mut buffer))?;
        Ok(buffer.filled().len())
    }
}

impl<T: AsyncWrite + Unpin> Write for BlockingIo<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.call(self.write_timeout, |io, cx| io.poll_write(cx, bytes))
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.call(self.write_timeout, |io, cx| io.poll_write_vectored(cx, pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.call(self.write_timeout, T::poll_flush)
    }
}

impl<T> fmt::Debug for BlockingIo<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingIo").field("bridge", &self.bridge).finish_non_exhaustive()
    }
}

impl ThreadRunner {
    /// Wraps an async stream of bytes as std's [`Read`] and [`Write`], on the loop, which is
    /// started if need be.
    ///
    /// # Blocking
    ///
    /// Until the loop has started.
    ///
    /// # Errors
    ///
    /// As [`bridge`](Self::bridge).
    pub fn wrap_io<T>(&self, io: T) -> Result<BlockingIo<T>, ResultError> {
        Ok(BlockingIo::new(&self.bridge()?, io))
    }
}
