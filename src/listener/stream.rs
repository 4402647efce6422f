//! Connected stream sockets as sources: the client side, and what a server's connections are made of.

use super::framing::{FrameError, Framer};
use super::reader::is_framing;
use super::socket::{self, Line, POLL_INTERVAL};
use super::source::{FrameSource, Interrupter, RequestSource};
use bytes::{Buf, BytesMut};
use socket2::{SockRef, Socket, Type};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::codec::{Decoder, Encoder};

/// Marks sources and servers that speak TCP.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{StreamSource, Tcp, TcpSource};
/// # use tokio_util::codec::LinesCodec;
/// fn same(source: TcpSource<LinesCodec>) -> StreamSource<LinesCodec, Tcp> { source }
/// # let _ = same;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tcp(());

/// Marks sources and servers that speak over Unix sockets.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{StreamSource, Unix, UnixSource};
/// # use tokio_util::codec::LinesCodec;
/// fn same(source: UnixSource<LinesCodec>) -> StreamSource<LinesCodec, Unix> { source }
/// # let _ = same;
/// ```
#[cfg(unix)]
#[derive(Clone, Copy, Debug)]
pub struct Unix(());

/// A connected stream socket, framed by any tokio-util codec, as a source: [`TcpSource`], and on
/// Unix `UnixSource`.
///
/// For a device or a service that one connects to and that then talks. With a codec that is an
/// [`Encoder`] as well it can be [served](super::ListenerBuilder::serve). It ends when the peer ends
/// the stream, and fails as [`ReadSource`](super::ReadSource) does.
///
/// A stop shuts the socket down, which wakes a blocked read at once; in any case it wakes by itself
/// every 20 poll intervals (1 s unless [told](super::ListenerBuilder::poll_interval)).
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
pub struct StreamSource<C, K = Tcp> {
    socket: Arc<Line>,
    framer: Framer<C>,
    /// Encoded replies that haven't left.
    out: BytesMut,
    /// Set by the first framing error.
    broken: bool,
    kind: PhantomData<K>,
}

/// A connected TCP socket as a source. Python: `asyncio.open_connection`.
///
/// # Examples
///
/// See [`StreamSource`].
pub type TcpSource<C> = StreamSource<C, Tcp>;

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
pub type UnixSource<C> = StreamSource<C, Unix>;

impl<C> TcpSource<C>
where
    C: Decoder,
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
    ///
    /// # Examples
    ///
    /// See [`StreamSource`].
    pub fn connect(addr: impl ToSocketAddrs, max_frame: usize, codec: C) -> io::Result<Self> {
        Self::from_socket(std::net::TcpStream::connect(addr)?, max_frame, codec)
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
    C: Decoder,
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
        Self::from_socket(std::os::unix::net::UnixStream::connect(path)?, max_frame, codec)
    }
}

impl<C, K> StreamSource<C, K>
where
    C: Decoder,
    C::Error: Error + Send + Sync + 'static,
{
    /// Takes over a socket that is connected already: a [`socket2::Socket`], std's, or on Unix an
    /// `OwnedFd`.
    ///
    /// Its blocking mode and its timeouts are set anew, for every handle of the same socket, and a
    /// stop shuts it down for all of them.
    ///
    /// # Errors
    ///
    /// What the system says; [`InvalidInput`](ErrorKind::InvalidInput) when it isn't a stream
    /// socket, or when `max_frame` is 0.
    ///
    /// # Examples
    ///
    /// See [`UnixSource`].
    pub fn from_socket(socket: impl Into<Socket>, max_frame: usize, codec: C) -> io::Result<Self> {
        let socket = socket.into();
        socket::check_type(&socket, Type::STREAM)?;
        socket::set_slow_tick(&SockRef::from(&socket), POLL_INTERVAL)?;
        Self::over(Line::new(socket), max_frame, codec)
    }

    /// Over a socket whose timeouts are set.
    pub(crate) fn over(socket: Arc<Line>, max_frame: usize, codec: C) -> io::Result<Self> {
        let framer = Framer::new(max_frame, codec)?;
        Ok(StreamSource { socket, framer, out: BytesMut::new(), broken: false, kind: PhantomData })
    }
}

/// Wakes whoever is blocked on the socket, in either direction.
pub(crate) fn cut_on_interrupt(socket: &Arc<Line>) -> Interrupter {
    let socket = Arc::downgrade(socket);
    Interrupter::new(move || {
        if let Some(socket) = socket.upgrade() {
            socket.cut();
        }
    })
}

impl<C, K> FrameSource for StreamSource<C, K>
where
    C: Decoder + Send + 'static,
    C::Item: Send + 'static,
    C::Error: Error + Send + Sync + 'static,
    K: Send + 'static,
{
    type Frame = C::Item;

    fn next_frame(&mut self) -> io::Result<Option<C::Item>> {
        if self.broken {
            return Ok(None);
        }
        let result = self.framer.next_frame(&mut &**self.socket, self.socket.is_cut());
        self.broken = matches!(&result, Err(error) if is_framing(error));
        result
    }

    fn next_ready(&mut self) -> io::Result<Option<C::Item>> {
        if self.broken {
            return Ok(None);
        }
        let result = self.framer.decode().map_err(FrameError::into_io);
        self.broken = result.is_err();
        result
    }

    fn interrupter(&self) -> Interrupter {
        cut_on_interrupt(&self.socket)
    }

    fn set_poll_interval(&mut self, interval: Duration) -> io::Result<()> {
        socket::set_slow_tick(&SockRef::from(&**self.socket), interval)
    }

    fn bound_to(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }
}

impl<C, K, R> RequestSource<R> for StreamSource<C, K>
where
    C: Decoder + Encoder<R> + Send + 'static,
    C::Item: Send + 'static,
    <C as Decoder>::Error: Error + Send + Sync + 'static,
    <C as Encoder<R>>::Error: Error + Send + Sync + 'static,
    K: Send + 'static,
{
    type Address = ();

    fn address(&self, _frame: &C::Item) {}

    fn answer(&mut self, _to: &(), reply: R) -> io::Result<bool> {
        let before = self.out.len();
        match self.framer.decoder_mut().encode(reply, &mut self.out) {
            Ok(()) => Ok(false),
            Err(error) => {
                self.out.truncate(before);
                Err(io::Error::new(ErrorKind::InvalidData, error))
            }
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        if self.out.is_empty() {
            return Ok(true);
        }
        let written = socket::send_waiting(&self.socket, &self.out)?;
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        self.out.advance(written);
        Ok(self.out.is_empty())
    }

    fn replies_in_order(&self) -> bool {
        true
    }
}

impl<C, K> fmt::Debug for StreamSource<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSource").field("broken", &self.broken).finish_non_exhaustive()
    }
}
