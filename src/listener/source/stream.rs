//! Connected stream sockets as sources: the client side, and what a server's connections are made of.

use super::framing::{BadFrames, Framer};
use super::outbox::Outbox;
use super::poll::{self, POLL_TIMEOUT};
use super::socket::{self, OwnedSocket};
use super::{FrameSource, Gauge, RequestSource};
use rustix::fd::{AsFd, BorrowedFd};
use socket2::{SockRef, Socket, Type};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::codec::{Decoder, Encoder};

/// A connected stream socket, framed by any tokio-util codec, as a source: [`TcpSource`], and on
/// Unix `UnixSource`.
///
/// For a device or a service that one connects to and that then talks. With a codec that is an
/// [`Encoder`] as well it can be [served](super::super::ListenerBuilder::serve). It ends when the peer ends
/// the stream, and fails as [`ReadSource`](super::ReadSource) does.
///
/// A connection that the system gives up (`ETIMEDOUT`: the peer's host is gone) is a failure, never an end.
/// With an [`Encoder`] it can also be spoken to, by a [`writer`](super::super::ListenerBuilder::writer). Where
/// something was written, a close ends this side and waits for the peer's end, 2 s at most: a socket that is closed
/// while the peer talks takes back what hasn't arrived. One that was taken over is only closed.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{FrameSource, TcpSource};
/// use std::io::Write;
/// use tokio_util::codec::LinesCodec;
///
/// # fn main() -> std::io::Result<()> {
/// let device = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let mut source = TcpSource::connect(device.local_addr()?, 1024, LinesCodec::new())?;
/// let (mut line, _) = device.accept()?;
/// line.write_all(b"21.5\n")?;
/// assert_eq!(source.next_frame()?.as_deref(), Some("21.5"));
/// # Ok(())
/// # }
/// ```
pub struct StreamSource<C, K = TcpStream> {
    socket: Arc<Socket>,
    framer: Framer<C>,
    /// Replies that haven't left.
    outbox: Outbox,
    poll_timeout: Duration,
    /// The socket is ours alone.
    own: bool,
    /// And its receive timeout is brief.
    brief: bool,
    /// The last receive found less than it asked for: there is no need to ask again.
    drained: bool,
    /// This side has ended.
    parted: bool,
    kind: PhantomData<K>,
}

/// The kinds of stream socket, by std's types: [`TcpStream`], and on Unix `UnixStream`. Sealed: only the
/// crate implements it.
pub trait StreamKind: sealed::Sealed + Send + 'static {
    #[doc(hidden)]
    const IS_UNIX: bool;
}

impl StreamKind for TcpStream {
    const IS_UNIX: bool = false;
}

#[cfg(unix)]
impl StreamKind for UnixStream {
    const IS_UNIX: bool = true;
}

mod sealed {
    #[allow(unnameable_types, reason = "this is what seals StreamKind")]
    pub trait Sealed {}
    impl Sealed for super::TcpStream {}
    #[cfg(unix)]
    impl Sealed for super::UnixStream {}
}

/// A connected TCP socket as a source. Python: `asyncio.open_connection`.
pub type TcpSource<C> = StreamSource<C, TcpStream>;

/// A connected Unix stream socket as a source. Python: `asyncio.open_unix_connection`.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{FrameSource, UnixSource};
/// use std::io::Write;
/// use tokio_util::codec::LinesCodec;
///
/// # fn main() -> std::io::Result<()> {
/// let (ours, mut theirs) = std::os::unix::net::UnixStream::pair()?;
/// let mut source = UnixSource::from_socket(ours, 1024, LinesCodec::new())?;
/// theirs.write_all(b"hello\n")?;
/// assert_eq!(source.next_frame()?.as_deref(), Some("hello"));
/// # Ok(())
/// # }
/// ```
#[cfg(unix)]
pub type UnixSource<C> = StreamSource<C, UnixStream>;

impl<C> TcpSource<C>
where
    C: Decoder + 'static,
    C::Error: Error + Send + Sync + 'static,
{
    /// Connects to `addr`; frames of more than `max_frame` bytes are an error.
    ///
    /// `max_frame` counts as in [`ReadSource::new`](super::ReadSource::new).
    ///
    /// # Blocking
    ///
    /// Until the connection stands or the system gives up.
    ///
    /// # Errors
    ///
    /// What the system says, and [`InvalidInput`](ErrorKind::InvalidInput) when `max_frame` is 0.
    pub fn connect(addr: impl ToSocketAddrs, max_frame: usize, codec: C) -> io::Result<Self> {
        let socket = TcpStream::connect(addr)?;
        // Replies are written together; one that is short shouldn't wait for the peer's acknowledgement.
        socket.set_nodelay(true)?;
        Self::over_own(Arc::new(socket.into()), max_frame, codec)
    }

    /// Where the other end is.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::TcpSource;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let device = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let source = TcpSource::connect(device.local_addr()?, 1024, LinesCodec::new())?;
    /// assert_eq!(source.peer_addr()?, device.local_addr()?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        let peer = self.socket.peer_addr()?;
        peer.as_socket().ok_or_else(|| ErrorKind::AddrNotAvailable.into())
    }
}

#[cfg(unix)]
impl<C> UnixSource<C>
where
    C: Decoder + 'static,
    C::Error: Error + Send + Sync + 'static,
{
    /// Connects to the socket at `path`; otherwise as [`TcpSource::connect`].
    ///
    /// # Blocking
    ///
    /// Until the connection stands or the system gives up.
    ///
    /// # Errors
    ///
    /// What the system says, and [`InvalidInput`](ErrorKind::InvalidInput) when `max_frame` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::UnixSource;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// assert!(UnixSource::connect("/no/such/socket", 1024, LinesCodec::new()).is_err());
    /// ```
    pub fn connect(
        path: impl AsRef<std::path::Path>,
        max_frame: usize,
        codec: C,
    ) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::connect(path)?;
        Self::over_own(Arc::new(socket.into()), max_frame, codec)
    }
}

impl<C, K> StreamSource<C, K>
where
    C: Decoder + 'static,
    C::Error: Error + Send + Sync + 'static,
    K: StreamKind,
{
    /// Takes over a socket that is connected already: a [`socket2::Socket`], std's, or on Unix an
    /// `OwnedFd`.
    ///
    /// Its settings stay as they are; only on Windows, which can't be told call by call not to wait, it is in
    /// non-blocking mode from now on, for every handle of the same socket. The connection ends with the
    /// listener when that ends it (after a bad frame, or a reply that is missing); a stop only closes this
    /// handle.
    ///
    /// # Errors
    ///
    /// What the system says; [`InvalidInput`](ErrorKind::InvalidInput) when it is a socket of another
    /// kind, or when `max_frame` is 0.
    pub fn from_socket(
        socket: impl Into<OwnedSocket>,
        max_frame: usize,
        codec: C,
    ) -> io::Result<Self> {
        let socket = Socket::from(socket.into());
        socket::check_kind(&socket, Type::STREAM, K::IS_UNIX)?;
        Self::over(Arc::new(socket), max_frame, codec)
    }

    /// Over a socket that nobody else has.
    pub(crate) fn over_own(socket: Arc<Socket>, max_frame: usize, codec: C) -> io::Result<Self> {
        let brief = socket::set_brief(&socket)?;
        Ok(StreamSource { brief, own: true, ..Self::over(socket, max_frame, codec)? })
    }

    fn over(socket: Arc<Socket>, max_frame: usize, codec: C) -> io::Result<Self> {
        socket::set_mode(&SockRef::from(&*socket))?;
        Ok(StreamSource {
            socket,
            framer: Framer::new(max_frame, codec)?,
            outbox: Outbox::default(),
            poll_timeout: POLL_TIMEOUT,
            own: false,
            brief: false,
            drained: false,
            parted: false,
            kind: PhantomData,
        })
    }

    /// Sets what happens with bytes that make no frame; [`BadFrames::Fail`] by default.
    #[must_use]
    pub fn with_bad_frames(mut self, bad_frames: BadFrames) -> Self {
        self.framer.set_bad_frames(bad_frames);
        self
    }
}

impl<C, K> FrameSource for StreamSource<C, K>
where
    C: Decoder<Item: Send + 'static, Error: Error + Send + Sync + 'static> + Send + 'static,
    K: StreamKind,
{
    type Frame = C::Item;

    fn next_frame(&mut self) -> io::Result<Option<C::Item>> {
        if self.brief {
            let drained = &mut self.drained;
            return self.framer.next_frame(|buffer| {
                let received = socket::receive_briefly(&self.socket, buffer)?;
                *drained = received < buffer.len();
                Ok(received)
            });
        }
        match self.next_ready() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll::wait_readable(self.socket.as_fd(), self.poll_timeout);
                self.next_ready()
            }
            received => received,
        }
    }

    fn next_ready(&mut self) -> io::Result<Option<C::Item>> {
        let drained = &mut self.drained;
        self.framer.next_frame(|buffer| {
            // What has come since, a wait tells.
            if std::mem::take(drained) {
                return Err(ErrorKind::WouldBlock.into());
            }
            let received = socket::receive_now(&self.socket, buffer)?;
            *drained = received < buffer.len();
            Ok(received)
        })
    }

    fn next_buffered(&mut self) -> io::Result<Option<C::Item>> {
        self.framer.next_buffered()
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn waits_briefly(&self) -> bool {
        self.brief
    }

    fn set_poll_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.poll_timeout = poll::check_poll_timeout(timeout)?;
        Ok(())
    }

    fn bound_to(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    fn gauge(&self) -> Gauge {
        self.framer.gauge()
    }

    fn is_inside_frame(&self) -> bool {
        self.framer.is_inside_frame()
    }

    fn part(&mut self) -> io::Result<bool> {
        if !self.own {
            // Others may go on with it.
            return Ok(true);
        }
        if !std::mem::replace(&mut self.parted, true) {
            self.socket.shutdown(Shutdown::Write)?;
        }
        // Bytes that are unread when the socket is closed make the system throw away what it was given to
        // send (RFC 2525, 2.17).
        let mut thrown_away = [0; 4096];
        for _ in 0..16 {
            if socket::receive_now(&self.socket, &mut thrown_away)? == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl<C, K, R> RequestSource<R> for StreamSource<C, K>
where
    C: Decoder + Encoder<R> + Send + 'static,
    C::Item: Send + 'static,
    <C as Decoder>::Error: Error + Send + Sync + 'static,
    <C as Encoder<R>>::Error: Error + Send + Sync + 'static,
    K: StreamKind,
{
    type Address = ();

    fn address(&mut self, _frame: &mut C::Item) {}

    fn answer(&mut self, _to: (), reply: R) -> io::Result<bool> {
        self.outbox.encode(self.framer.decoder_mut(), reply)
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.outbox.flush(|bytes| socket::send_now(&self.socket, bytes))
    }

    fn staged(&self) -> usize {
        self.outbox.len()
    }

    fn replies_in_order(&self) -> bool {
        true
    }
}

impl<C, K> fmt::Debug for StreamSource<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSource").field("staged", &self.outbox.len()).finish_non_exhaustive()
    }
}
