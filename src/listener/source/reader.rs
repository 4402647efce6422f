use super::framing::{BadFrames, Framer};
use super::outbox::Outbox;
use super::poll;
use super::{FrameSource, Gauge, Interrupter, RequestSource};
use crate::sync::prim::atomic::{AtomicBool, Ordering};
use rustix::fd::BorrowedFd;
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(windows)]
use std::os::windows::io::AsSocket as AsFd;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::codec::{Decoder, Encoder};

/// Frames from anything that is [`Read`], cut by any tokio-util `Decoder`.
///
/// For serial ports, pipes, a child's output, a file, a TLS session of a blocking library. Frames
/// that are already buffered are all handed over before the next read.
///
/// The source ends at the end of the stream. A stream that ends inside a frame, or can't be decoded, fails
/// with a [`FrameError`](super::FrameError) inside the [`io::Error`], unless bad frames are
/// [skipped](Self::with_bad_frames). What is left at the end is the decoder's to judge, by its `decode_eof`:
/// `LinesCodec` makes a line of it, whole or not, unless it is in [`WholeFrames`](super::WholeFrames). A device
/// that says "0 bytes" for "nothing yet" is told apart from an end by
/// [`with_empty_reads`](Self::with_empty_reads).
///
/// With a codec that is an [`Encoder`] as well, a reader that can be written to can be
/// [served](super::super::ListenerBuilder::serve), and spoken to by a
/// [`writer`](super::super::ListenerBuilder::writer).
///
/// A reader with a descriptor (a pipe, a terminal, stdin, a serial port) is best [`polled`](Self::polled):
/// a stop, or a frame to write, then ends the wait at once. Otherwise a reader that blocks for ever can only
/// be stopped by an [`Interrupter`] ([`with_interrupter`](Self::with_interrupter)); one with a read timeout
/// of its own stops when that has passed.
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
    /// Whether an empty read only says that nothing has come.
    empty_is_timeout: bool,
    /// Where to wait.
    polled: Option<Polled<R>>,
    outbox: Outbox,
}

struct Polled<R> {
    fd: fn(&R) -> BorrowedFd<'_>,
    /// How much it takes without waiting once it is writable, if a read and a write wait: then neither is tried
    /// before.
    room: Option<usize>,
}

impl<R> Clone for Polled<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Polled<R> {}

impl<R, D> ReadSource<R, D>
where
    R: Read + Send + 'static,
    D: Decoder<Item: Send + 'static, Error: Error + Send + Sync + 'static> + Send + 'static,
{
    /// A source that reads `reader` and cuts frames of at most `max_frame` bytes with `decoder`.
    ///
    /// `max_frame` counts what a frame takes in the stream, header and delimiter included. What a decoder
    /// takes without a frame and leaves nothing behind it, such as heartbeats, belongs to no frame (of
    /// tokio-util's `LengthDelimitedCodec` it is the header, and counts). Give a decoder that reserves room
    /// by a length it reads (such as tokio-util's `LengthDelimitedCodec`) its own limit as well.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) when `max_frame` is 0.
    pub fn new(reader: R, max_frame: usize, decoder: D) -> io::Result<Self> {
        let framer = Framer::new(max_frame, decoder)?;
        Ok(ReadSource {
            reader,
            framer,
            interrupter: Interrupter::default(),
            cut: Arc::default(),
            empty_is_timeout: false,
            polled: None,
            outbox: Outbox::default(),
        })
    }

    /// Sets what happens with bytes that make no frame; [`BadFrames::Fail`] by default.
    #[must_use]
    pub fn with_bad_frames(mut self, bad_frames: BadFrames) -> Self {
        self.framer.set_bad_frames(bad_frames);
        self
    }

    /// Takes a read of 0 bytes for "nothing yet" instead of the end, as some devices mean it.
    ///
    /// A terminal with `VMIN` 0 is one. Where the source is [`polled`](Self::polled), a hang-up still ends it.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Listener, ReadSource};
    /// use std::io::{self, Read};
    /// use tokio_util::codec::LinesCodec;
    ///
    /// /// Has a line every third time.
    /// struct Slow(u32);
    /// impl Read for Slow {
    ///     fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
    ///         self.0 += 1;
    ///         if self.0 % 3 == 0 { (&b"line\n"[..]).read(buffer) } else { Ok(0) }
    ///     }
    /// }
    ///
    /// # fn main() -> io::Result<()> {
    /// let device = ReadSource::new(Slow(0), 80, LinesCodec::new())?.with_empty_reads();
    /// let (_listener, mut lines) = Listener::builder(device).spawn()?;
    /// assert_eq!(lines.recv_blocking(None).unwrap(), "line");
    /// assert_eq!(lines.recv_blocking(None).unwrap(), "line");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_empty_reads(mut self) -> Self {
        self.empty_is_timeout = true;
        self
    }

    /// Waits for the reader's descriptor, so that a stop or a frame to write ends the wait at once.
    ///
    /// For pipes, terminals, stdin, serial ports, and sessions over a socket whose descriptor is in
    /// blocking mode; for a session with a buffer of its own, such as TLS, see
    /// [`polled_by`](Self::polled_by). On macOS the system can't wait for `/dev/tty`. On Windows it can wait
    /// only for sockets, and this one is in non-blocking mode from now on.
    ///
    /// A terminal in blocking mode is written to byte by byte, since it takes no more without waiting: for much
    /// output set it to non-blocking mode before.
    ///
    /// Of stdin, let the source be the only reader. std keeps a buffer of its own, which the descriptor
    /// doesn't show: what an earlier `read_line` has left there comes with the next bytes, or at the end. A
    /// first line is better taken from the stream, like the others.
    ///
    /// # Errors
    ///
    /// What the system says of the descriptor.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Listener, ReadSource};
    /// use std::time::Duration;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let gateway = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let device = std::net::TcpStream::connect(gateway.local_addr()?)?;
    /// let (mut other_end, _) = gateway.accept()?;
    /// let source = ReadSource::new(device, 1024, LinesCodec::new())?.polled()?;
    /// let (listener, mut lines) = Listener::builder(source).spawn()?;
    /// std::io::Write::write_all(&mut other_end, b"hello\n")?;
    /// assert_eq!(lines.recv_blocking(None).unwrap(), "hello");
    /// assert!(listener.close_blocking(Duration::from_secs(5)).is_clean());
    /// # Ok(())
    /// # }
    /// ```
    pub fn polled(self) -> io::Result<Self>
    where
        R: AsFd,
    {
        self.polled_by(rustix::fd::AsFd::as_fd)
    }

    /// As [`polled`](Self::polled), for a reader that has its descriptor inside.
    ///
    /// A session that buffers what it has read (TLS, a WebSocket) must have its socket in non-blocking mode:
    /// then a read is tried first, and the descriptor is waited for only where that finds nothing. On Windows
    /// `fd` gives a `BorrowedSocket`.
    ///
    /// # Errors
    ///
    /// What the system says of the descriptor.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(unix)] fn main() -> std::io::Result<()> {
    /// use callbridge::listener::ReadSource;
    /// use std::io::BufReader;
    /// use std::os::fd::AsFd;
    /// use std::os::unix::net::UnixStream;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// let (ours, _theirs) = UnixStream::pair()?;
    /// ours.set_nonblocking(true)?;
    /// let session = BufReader::new(ours);
    /// let source = ReadSource::new(session, 1024, LinesCodec::new())?
    ///     .polled_by(|session| session.get_ref().as_fd())?;
    /// # let _ = source;
    /// # Ok(())
    /// # }
    /// # #[cfg(windows)] fn main() {}
    /// ```
    pub fn polled_by(mut self, fd: fn(&R) -> BorrowedFd<'_>) -> io::Result<Self> {
        self.polled = Some(Polled { fd, room: room(fd(&self.reader))? });
        Ok(self)
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
    /// assert!(listener.close_blocking(Duration::from_secs(5)).is_clean());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_interrupter(mut self, interrupter: Interrupter) -> Self {
        let cut = Arc::clone(&self.cut);
        self.interrupter = Interrupter::new(move || {
            // First: an interruption may look like the end. Pairs with the load in `take`.
            cut.store(true, Ordering::Release);
            interrupter.interrupt();
        });
        self
    }

    fn take(&mut self, wait: bool) -> io::Result<Option<D::Item>> {
        let polled = self.polled;
        let (reader, cut, empty_is_timeout) = (&mut self.reader, &self.cut, self.empty_is_timeout);
        self.framer.next_frame(|buffer| {
            if let Some(Polled { fd, room: Some(_) }) = polled {
                let patience = if wait { poll::POLL_TIMEOUT } else { Duration::ZERO };
                if !poll::wait_readable(fd(reader), patience) {
                    return Err(ErrorKind::WouldBlock.into());
                }
            }
            match reader.read(buffer)? {
                // Pairs with the store of the interrupter.
                0 if cut.load(Ordering::Acquire) => Err(ErrorKind::Interrupted.into()),
                0 if empty_is_timeout => {
                    if polled.is_some_and(|polled| poll::is_hung_up((polled.fd)(reader))) {
                        return Ok(0);
                    }
                    Err(ErrorKind::WouldBlock.into())
                }
                count => Ok(count),
            }
        })
    }
}

/// As [`Polled::room`]. Windows can't tell: there neither waits from now on.
fn room(fd: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    #[cfg(unix)]
    {
        use rustix::fs::{OFlags, fcntl_getfl};
        use std::io::IsTerminal;
        // A terminal is writable as soon as it takes a byte, a pipe when it takes PIPE_BUF, which POSIX has
        // be 512 at least; a socket takes more.
        let room = if fd.is_terminal() { 1 } else { 512 };
        Ok((!fcntl_getfl(fd)?.contains(OFlags::NONBLOCK)).then_some(room))
    }
    #[cfg(windows)]
    {
        rustix::io::ioctl_fionbio(fd, true)?;
        Ok(None)
    }
}

impl<R, D> FrameSource for ReadSource<R, D>
where
    R: Read + Send + 'static,
    D: Decoder<Item: Send + 'static, Error: Error + Send + Sync + 'static> + Send + 'static,
{
    type Frame = D::Item;

    fn next_frame(&mut self) -> io::Result<Option<D::Item>> {
        self.take(true)
    }

    fn next_ready(&mut self) -> io::Result<Option<D::Item>> {
        if self.polled.is_some() {
            return self.take(false);
        }
        match self.framer.decode() {
            Ok(None) if !self.framer.at_end() => Err(ErrorKind::WouldBlock.into()),
            decoded => decoded.map_err(super::FrameError::into_io),
        }
    }

    fn next_buffered(&mut self) -> io::Result<Option<D::Item>> {
        self.framer.next_buffered()
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.polled.map(|polled| (polled.fd)(&self.reader))
    }

    fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }

    fn gauge(&self) -> Gauge {
        self.framer.gauge()
    }

    fn is_inside_frame(&self) -> bool {
        self.framer.is_inside_frame()
    }
}

impl<R, C, T> RequestSource<T> for ReadSource<R, C>
where
    R: Read + Write + Send + 'static,
    C: Decoder + Encoder<T> + Send + 'static,
    C::Item: Send + 'static,
    <C as Decoder>::Error: Error + Send + Sync + 'static,
    <C as Encoder<T>>::Error: Error + Send + Sync + 'static,
{
    type Address = ();

    fn address(&mut self, _frame: &mut C::Item) {}

    fn answer(&mut self, _to: (), reply: T) -> io::Result<bool> {
        self.outbox.encode(self.framer.decoder_mut(), reply)
    }

    fn flush(&mut self) -> io::Result<bool> {
        let writer = &mut self.reader;
        let mut most = usize::MAX;
        if let (Some(Polled { fd, room: Some(room) }), 1..) = (self.polled, self.outbox.len()) {
            if !poll::is_writable(fd(writer)) {
                return Err(ErrorKind::WouldBlock.into());
            }
            most = room;
        }
        let all = self.outbox.flush(|bytes| writer.write(&bytes[..bytes.len().min(most)]))?;
        if all {
            writer.flush()?;
        }
        Ok(all)
    }

    fn staged(&self) -> usize {
        self.outbox.len()
    }

    fn replies_in_order(&self) -> bool {
        true
    }
}

impl<R, D> fmt::Debug for ReadSource<R, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadSource").field("staged", &self.outbox.len()).finish_non_exhaustive()
    }
}
