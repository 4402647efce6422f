//! Datagram sockets as sources.

use super::poll::{self, POLL_TIMEOUT};
use super::socket::{self, OwnedSocket};
use super::{FrameSource, Gauge, RequestSource, SourceStats, is_timeout};
use crate::sync::SettingError;
use crate::sync::prim::atomic::{AtomicU64, Ordering};
use crate::sync::prim::{Mutex, lock};
use bytes::Bytes;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{SockRef, Socket, Type};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The largest datagram that is received whole by default: the most that UDP over IPv4 can carry,
/// in bytes.
const MAX_DATAGRAM: usize = 65_507;

/// How old the number of datagrams that the kernel dropped may be.
const LOOKED_UP: Duration = Duration::from_secs(1);

/// The largest limit: no datagram is longer.
const LARGEST: usize = 65_535;

/// One datagram and who sent it.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{FrameSource, UdpSource};
/// use std::net::UdpSocket;
///
/// # fn main() -> std::io::Result<()> {
/// let mut source = UdpSource::bind("127.0.0.1:0")?;
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"ping", source.local_addr()?)?;
/// let datagram = source.next_frame()?.expect("a UDP socket has no end");
/// assert_eq!(&datagram.payload[..], b"ping");
/// assert_eq!(datagram.peer, client.local_addr()?);
/// assert!(!datagram.truncated);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datagram<A = SocketAddr> {
    /// What was sent, in memory of its own.
    pub payload: Bytes,
    /// Who sent it.
    pub peer: A,
    /// Whether it was longer than the source's limit, and `payload` is only its beginning.
    pub truncated: bool,
}

impl<A> Datagram<A> {
    /// Makes a datagram by hand, to test a handler.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::Datagram;
    ///
    /// let ping = Datagram::new("ping", "127.0.0.1:4000".parse::<std::net::SocketAddr>()?);
    /// assert_eq!(&ping.payload[..], b"ping");
    /// # Ok::<(), std::net::AddrParseError>(())
    /// ```
    pub fn new(payload: impl Into<Bytes>, peer: A) -> Self {
        Datagram { payload: payload.into(), peer, truncated: false }
    }
}

impl<A: fmt::Debug> fmt::Debug for Datagram<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagram")
            .field("bytes", &self.payload.len())
            .field("peer", &self.peer)
            .field("truncated", &self.truncated)
            .finish()
    }
}

/// The kinds of datagram socket: [`UdpSocket`], and on Unix `UnixDatagram`.
///
/// Sealed: only the crate implements it.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{DatagramSocket, UdpSource};
///
/// fn address_of<S: DatagramSocket>(addr: S::Addr) -> S::Addr { addr }
/// # fn main() -> std::io::Result<()> {
/// let source = UdpSource::bind("127.0.0.1:0")?;
/// let addr = address_of::<std::net::UdpSocket>(source.local_addr()?);
/// assert_ne!(addr.port(), 0);
/// # Ok(())
/// # }
/// ```
pub trait DatagramSocket:
    sealed::Sealed + From<OwnedSocket> + Sized + Send + Sync + 'static
{
    /// The addresses of the peers.
    type Addr: Clone + fmt::Debug + Send + Sync + 'static;

    #[doc(hidden)]
    const IS_UNIX: bool;
    #[doc(hidden)]
    fn sock(&self) -> SockRef<'_>;
    #[doc(hidden)]
    fn descriptor(&self) -> BorrowedFd<'_>;
    #[doc(hidden)]
    fn local(&self) -> io::Result<Self::Addr>;
    /// The peer of a connected socket.
    #[doc(hidden)]
    fn fixed_peer(&self) -> Option<Self::Addr>;
    /// No address may be told by a socket that is connected, or was shut down.
    #[doc(hidden)]
    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> Received<Self::Addr>;
    /// Sends without waiting; to the fixed peer if `to` is none.
    #[doc(hidden)]
    fn send_now(&self, data: &[u8], to: Option<&Self::Addr>) -> io::Result<usize>;
    #[doc(hidden)]
    fn kernel_drops(&self) -> Option<u64>;
}

/// How many bytes came, and from where.
pub(super) type Received<A> = io::Result<(usize, Option<A>)>;

mod sealed {
    #[allow(unnameable_types, reason = "this is what seals DatagramSocket")]
    pub trait Sealed {}
    impl Sealed for std::net::UdpSocket {}
    #[cfg(unix)]
    impl Sealed for std::os::unix::net::UnixDatagram {}
}

/// A datagram socket as a source: [`UdpSource`](super::UdpSource), and on Unix `UnixDatagramSource`.
///
/// Each datagram is one frame, in memory of its own. One that is longer than
/// [`max_datagram`](Self::with_max_datagram) comes cut off and flagged. What the kernel drops because
/// its own buffer is full is told by [`Listener::stats`](super::super::Listener::stats) on Linux, for UDP.
///
/// An error that one peer or one moment causes (an ICMP message, a network that is down, no memory) is
/// counted and passed over; while it lasts, the thread tries again after up to 1 s.
///
/// A reply leaves from the address that the kernel chooses. On a host with several addresses, clients
/// that are connected to one of them drop replies from another: bind one source per address.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Listener, UdpSource};
/// use std::net::UdpSocket;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let source = UdpSource::bind("127.0.0.1:0")?;
/// let (addr, replier) = (source.local_addr()?, source.replier());
/// let (_listener, mut frames) = Listener::builder(source).spawn()?;
///
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"ping", addr)?;
/// let ping = frames.recv().await.expect("a datagram was sent");
/// replier.send_to(b"pong", &ping.peer)?;
///
/// let mut answer = [0; 8];
/// assert_eq!(client.recv(&mut answer)?, 4);
/// # Ok(())
/// # }
/// ```
pub struct DatagramSource<S: DatagramSocket> {
    socket: Arc<S>,
    /// Where a receive lands; longer than the limit, which tells what is longer.
    scratch: Box<[u8]>,
    limit: usize,
    /// The peer of a connected socket: the receive then gives none.
    fixed_peer: Option<S::Addr>,
    /// The socket is ours alone, and its receive timeout is brief.
    brief: bool,
    /// How long a receive that the source itself waits in may take.
    poll_timeout: Duration,
    /// The last receive found nothing.
    was_empty: bool,
    counters: Arc<Counters>,
    /// Removed when the source is dropped.
    #[cfg(unix)]
    pub(super) path: Option<super::unix::BoundPath>,
}

/// What is shared with the gauge.
#[derive(Default)]
struct Counters {
    truncated: AtomicU64,
    transient_errors: AtomicU64,
}

impl<S: DatagramSocket> DatagramSource<S> {
    /// Takes over a socket that is bound and set up already: a [`socket2::Socket`], std's, or on
    /// Unix an `OwnedFd`.
    ///
    /// Its settings stay as they are, and it is never shut down: other owners may go on using it. Only
    /// Windows, which can't be told call by call not to wait, has it in non-blocking mode from now on, for
    /// every handle of the same socket. If another owner shuts it down, the source fails.
    ///
    /// # Errors
    ///
    /// What the system says; [`InvalidInput`](ErrorKind::InvalidInput) if it is a socket of another kind.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::UdpSource;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let configured = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// configured.set_broadcast(true)?;
    /// let source = UdpSource::from_socket(configured)?;
    /// assert_ne!(source.local_addr()?.port(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_socket(socket: impl Into<OwnedSocket>) -> io::Result<Self> {
        let socket = Socket::from(socket.into());
        socket::check_kind(&socket, Type::DGRAM, S::IS_UNIX)?;
        socket::set_mode(&SockRef::from(&socket))?;
        let socket = S::from(OwnedSocket::from(socket));
        let fixed_peer = socket.fixed_peer();
        Ok(DatagramSource {
            socket: Arc::new(socket),
            scratch: scratch(MAX_DATAGRAM),
            limit: MAX_DATAGRAM,
            fixed_peer,
            brief: false,
            poll_timeout: POLL_TIMEOUT,
            was_empty: false,
            counters: Arc::default(),
            #[cfg(unix)]
            path: None,
        })
    }

    /// Over a socket that nobody else has.
    pub(super) fn over_own(socket: Socket) -> io::Result<Self> {
        Ok(DatagramSource { brief: socket::set_brief(&socket)?, ..Self::from_socket(socket)? })
    }

    /// Sets the longest datagram that is received whole, 1 to 65 535 bytes; 65 507 by default.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](ErrorKind::InvalidInput) outside that range.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::UdpSource;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let source = UdpSource::bind("127.0.0.1:0")?.with_max_datagram(1500)?;
    /// assert!(source.with_max_datagram(0).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_max_datagram(mut self, bytes: usize) -> io::Result<Self> {
        if bytes == 0 || bytes > LARGEST {
            let why = "must be between 1 and 65535 bytes";
            return Err(SettingError::new("with_max_datagram", why).into());
        }
        (self.scratch, self.limit) = (scratch(bytes), bytes);
        Ok(self)
    }

    /// Where the socket is bound.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<S::Addr> {
        self.socket.local()
    }

    /// Makes a handle that sends from this socket, on any thread, while the source lives. Take it
    /// before the listener starts.
    pub fn replier(&self) -> Replier<S> {
        Replier { socket: Arc::downgrade(&self.socket), connected: self.fixed_peer.is_some() }
    }

    fn accept(&mut self, received: Received<S::Addr>) -> io::Result<Datagram<S::Addr>> {
        let (received, peer) = received.map_err(|error| self.judge(error))?;
        if received == 0 && self.was_shut_down() {
            return Err(shut_down());
        }
        let peer = peer.or_else(|| self.fixed_peer.clone()).ok_or_else(shut_down)?;
        let truncated = received > self.limit;
        if truncated {
            self.counters.truncated.fetch_add(1, Ordering::Relaxed);
        }
        let payload = Bytes::copy_from_slice(&self.scratch[..received.min(self.limit)]);
        Ok(Datagram { payload, peer, truncated })
    }

    /// Whether there is an end behind a receive of nothing, which a peer may have sent as well.
    fn was_shut_down(&self) -> bool {
        poll::is_hung_up(self.socket.descriptor())
    }

    /// Makes a timeout of an error that concerns one peer or one moment.
    fn judge(&self, error: io::Error) -> io::Error {
        if is_timeout(&error) || is_final(&error) {
            return error;
        }
        self.counters.transient_errors.fetch_add(1, Ordering::Relaxed);
        ErrorKind::Interrupted.into()
    }
}

/// Where a datagram of up to so many bytes lands. Windows says nothing of one that doesn't fit but that.
fn scratch(limit: usize) -> Box<[u8]> {
    let room = if cfg!(windows) { LARGEST } else { limit };
    vec![0; room + 1].into_boxed_slice()
}

/// Whether a receive will never succeed again: the mistake is ours, or the socket is no more.
fn is_final(error: &io::Error) -> bool {
    let never = [
        Errno::BADF,
        Errno::NOTSOCK,
        Errno::FAULT,
        Errno::INVAL,
        Errno::NOTCONN,
        Errno::OPNOTSUPP,
        Errno::SHUTDOWN,
    ];
    Errno::from_io_error(error).is_none_or(|errno| never.contains(&errno))
}

fn shut_down() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "the socket was shut down by another of its owners")
}

impl<S: DatagramSocket> FrameSource for DatagramSource<S> {
    type Frame = Datagram<S::Addr>;

    fn next_frame(&mut self) -> io::Result<Option<Self::Frame>> {
        if self.brief {
            let received = self.socket.receive(&mut self.scratch, RecvFlags::empty());
            return self.accept(received).map(Some);
        }
        match self.next_ready() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll::wait_readable(self.socket.descriptor(), self.poll_timeout);
                self.next_ready()
            }
            received => received,
        }
    }

    fn next_ready(&mut self) -> io::Result<Option<Self::Frame>> {
        let received = self.socket.receive(&mut self.scratch, socket::RECEIVE_NOW);
        if received.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            // A UDP socket that was shut down is readable for ever, and has nothing.
            if std::mem::replace(&mut self.was_empty, true) && self.was_shut_down() {
                return Err(shut_down());
            }
        } else {
            self.was_empty = false;
        }
        self.accept(received).map(Some)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.descriptor())
    }

    fn waits_briefly(&self) -> bool {
        self.brief
    }

    fn set_poll_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.poll_timeout = poll::check_poll_timeout(timeout)?;
        Ok(())
    }

    fn bound_to(&self) -> Option<SocketAddr> {
        self.socket.sock().local_addr().ok()?.as_socket()
    }

    fn gauge(&self) -> Gauge {
        let (socket, counters) = (Arc::downgrade(&self.socket), Arc::clone(&self.counters));
        let looked_up = Mutex::new((None, None::<Instant>));
        Gauge::aging(move |fresh| {
            let (mut drops, at) = *lock(&looked_up);
            if fresh || at.is_none_or(|at| at.elapsed() >= LOOKED_UP) {
                drops = socket.upgrade().and_then(|socket| socket.kernel_drops());
                *lock(&looked_up) = (drops, Some(Instant::now()));
            }
            SourceStats {
                truncated: counters.truncated.load(Ordering::Relaxed),
                transient_errors: counters.transient_errors.load(Ordering::Relaxed),
                kernel_drops: drops,
                ..SourceStats::default()
            }
        })
    }
}

impl<S: DatagramSocket, R: AsRef<[u8]>> RequestSource<R> for DatagramSource<S> {
    type Address = S::Addr;

    fn address(&mut self, frame: &mut Self::Frame) -> S::Addr {
        frame.peer.clone()
    }

    fn answer(&mut self, to: S::Addr, reply: R) -> io::Result<bool> {
        send(&*self.socket, reply.as_ref(), self.fixed_peer.is_none().then_some(&to))?;
        Ok(true)
    }
}

/// Sends; an error that an earlier datagram caused doesn't cost this one.
fn send<S: DatagramSocket>(socket: &S, data: &[u8], to: Option<&S::Addr>) -> io::Result<()> {
    let sent = match socket.send_now(data, to) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => socket.send_now(data, to),
        sent => sent,
    };
    sent.map(drop)
}

impl<S: DatagramSocket> fmt::Debug for DatagramSource<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSource").field("local", &self.socket.local().ok()).finish()
    }
}

/// Sends datagrams from a listener's socket, from any thread or task.
///
/// It doesn't keep the socket open: once the listener has stopped, sending fails.
pub struct Replier<S: DatagramSocket = UdpSocket> {
    socket: Weak<S>,
    connected: bool,
}

impl<S: DatagramSocket> Replier<S> {
    /// Sends `payload` to `peer` as one datagram.
    ///
    /// Never waits, so it may be called on an event loop.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](ErrorKind::WouldBlock) when the kernel's buffer is full and the datagram was
    /// not sent; [`NotConnected`](ErrorKind::NotConnected) when the listener has stopped; and what
    /// the system says.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::UdpSource;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let source = UdpSource::bind("127.0.0.1:0")?;
    /// let (replier, addr) = (source.replier(), source.local_addr()?);
    /// replier.send_to(b"to myself", &addr)?;
    /// drop(source);
    /// assert!(replier.send_to(b"too late", &addr).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_to(&self, payload: impl AsRef<[u8]>, peer: &S::Addr) -> io::Result<()> {
        let socket = self.socket.upgrade().ok_or_else(|| {
            io::Error::new(
                ErrorKind::NotConnected,
                "the listener has stopped: no answer can be sent",
            )
        })?;
        send(&*socket, payload.as_ref(), (!self.connected).then_some(peer))
    }
}

impl<S: DatagramSocket> Clone for Replier<S> {
    fn clone(&self) -> Self {
        Replier { socket: Weak::clone(&self.socket), connected: self.connected }
    }
}

impl<S: DatagramSocket> fmt::Debug for Replier<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").field("open", &(self.socket.strong_count() > 0)).finish()
    }
}
