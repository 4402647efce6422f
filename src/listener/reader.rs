use super::framing::{FrameError, Framer};
use super::source::{FrameSource, Interrupter};
use crate::sync::prim::atomic::{AtomicBool, Ordering};
use std::error::Error;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use tokio_util::codec::Decoder;

/// Frames from anything that is [`Read`], cut by any tokio-util [`Decoder`].
///
/// For serial ports, pipes, a child's output, a file, a TLS session of a blocking library. Frames
/// that are already buffered are all handed over before the next read.
///
/// The source ends at the end of the stream; a stream that ends inside a frame, or can't be
/// decoded, fails with a [`FrameError`] inside the [`io::Error`]. A decoder error is final, even if
/// the decoder itself could go on.
///
/// A reader that blocks for ever can only be stopped by an [`Interrupter`]
/// ([`with_interrupter`](Self::with_interrupter)); one with a read timeout of its own (a serial port,
/// a socket) stops at its next tick.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{FrameSource, ReadSource};
/// use tokio_util::codec::LinesCodec;
///
/// let log = std::io::Cursor::new(b"first\nsecond\n");
/// let mut source = ReadSource::new(log, 1024, LinesCodec::new()).unwrap();
/// assert_eq!(source.next_frame().unwrap().as_deref(), Some("first"));
/// assert_eq!(source.next_frame().unwrap().as_deref(), Some("second"));
/// assert_eq!(source.next_frame().unwrap(), None);
/// ```
pub struct ReadSource<R, D> {
    reader: R,
    framer: Framer<D>,
    interrupter: Interrupter,
    /// Set before the interrupter runs.
    cut: Arc<AtomicBool>,
    /// Set by the first framing error.
    broken: bool,
}

impl<R, D> ReadSource<R, D>
where
    R: Read + Send + 'static,
    D: Decoder + Send + 'static,
    D::Item: Send + 'static,
    D::Error: Error + Send + Sync + 'static,
{
    /// A source that reads `reader` and cuts frames of at most `max_frame` bytes with `decoder`.
    ///
    /// `max_frame` counts what a frame takes in the stream, header and delimiter included; bytes
    /// that the decoder skips count towards the frame after them. Give a decoder that reserves room
    /// by a length it reads (such as tokio-util's `LengthDelimitedCodec`) its own limit as well.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when `max_frame` is 0.
    ///
    /// # Examples
    ///
    /// See [`ReadSource`].
    pub fn new(reader: R, max_frame: usize, decoder: D) -> io::Result<Self> {
        let framer = Framer::new(max_frame, decoder)?;
        let (interrupter, cut) = (Interrupter::none(), Arc::new(AtomicBool::new(false)));
        Ok(ReadSource { reader, framer, interrupter, cut, broken: false })
    }

    /// Sets what makes a blocked read return when the listener stops.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Interrupter, Listener, ReadSource};
    /// use std::net::{Shutdown, TcpListener, TcpStream};
    /// use std::time::Duration;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let device = TcpListener::bind("127.0.0.1:0")?;
    /// // Stands for a reader that blocks for ever, such as a TLS session over this socket.
    /// let reader = TcpStream::connect(device.local_addr()?)?;
    /// let handle = reader.try_clone()?;
    /// let source = ReadSource::new(reader, 1024, LinesCodec::new())?
    ///     .with_interrupter(Interrupter::new(move || drop(handle.shutdown(Shutdown::Both))));
    /// let (listener, _lines) = Listener::builder(source).spawn()?;
    /// assert!(listener.shutdown_blocking(Duration::from_secs(5)).is_clean());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_interrupter(mut self, interrupter: Interrupter) -> Self {
        let cut = Arc::clone(&self.cut);
        self.interrupter = Interrupter::new(move || {
            cut.store(true, Ordering::Release);
            interrupter.interrupt();
        });
        self
    }
}

impl<R, D> FrameSource for ReadSource<R, D>
where
    R: Read + Send + 'static,
    D: Decoder + Send + 'static,
    D::Item: Send + 'static,
    D::Error: Error + Send + Sync + 'static,
{
    type Frame = D::Item;

    fn next_frame(&mut self) -> io::Result<Option<D::Item>> {
        if self.broken {
            return Ok(None);
        }
        let result = self.framer.next_frame(&mut self.reader, &self.cut);
        self.broken = matches!(&result, Err(error) if is_framing(error));
        result
    }

    fn next_ready(&mut self) -> io::Result<Option<D::Item>> {
        if self.broken || self.framer.at_eof() {
            return Ok(None);
        }
        let result = self.framer.decode().map_err(FrameError::into_io);
        self.broken = result.is_err();
        result
    }

    fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }
}

/// Whether an error is the framer's own.
pub(crate) fn is_framing(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<FrameError>())
}

impl<R, D> fmt::Debug for ReadSource<R, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadSource").field("broken", &self.broken).finish_non_exhaustive()
    }
}
