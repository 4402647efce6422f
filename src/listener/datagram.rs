//! Datagram sockets as sources.
//!
//! The receiving call of a UDP socket is rustix's on Unix, where it can be told for each datagram not
//! to wait. socket2's fills uninitialised memory, which only unsafe code could read. std's takes no
//! flags, and trips over the address that the kernel doesn't write once an unconnected socket was
//! shut down; so where it is used, elsewhere, the crate never shuts such a socket down: it wakes the
//! receiver by an empty datagram that the socket sends to itself.

use super::pool::Pool;
use super::socket::{self, POLL_INTERVAL};
use super::source::{FrameSource, Gauge, Interrupter, RequestSource, SourceStats};
use crate::sync::prim::atomic::{AtomicBool, AtomicU64, Ordering};
use bytes::Bytes;
use socket2::{Domain, SockRef, Socket, Type};
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The largest datagram that is received whole unless told otherwise: the most that UDP over IPv4
/// can carry, in bytes.
const MAX_DATAGRAM: usize = 65_507;

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
    /// What was sent; cut from a pooled buffer, so a small payload that is kept for long keeps
    /// memory of its neighbours. Copy it then.
    pub payload: Bytes,
    /// Who sent it.
    pub peer: A,
    /// Whether it was longer than the source's limit, and `payload` is only its beginning.
    pub truncated: bool,
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
pub trait DatagramSocket: sealed::Sealed + From<Socket> + Sized + Send + Sync + 'static {
    /// The addresses of its peers.
    type Addr: Clone + fmt::Debug + Send + Sync + 'static;

    #[doc(hidden)]
    fn sock(&self) -> SockRef<'_>;
    #[doc(hidden)]
    fn local(&self) -> io::Result<Self::Addr>;
    /// The peer of a connected socket.
    #[doc(hidden)]
    fn fixed_peer(&self) -> Option<Self::Addr>;
    /// Receives, waiting at most for the read timeout, or not at all; without a peer if the socket was
    /// shut down.
    #[doc(hidden)]
    fn receive(
        &self,
        buffer: &mut [u8],
        fixed_peer: Option<&Self::Addr>,
        wait: bool,
    ) -> io::Result<(usize, Option<Self::Addr>)>;
    /// Sends, waiting at most for the write timeout; with `None` to the fixed peer.
    #[doc(hidden)]
    fn send_waiting(&self, data: &[u8], to: Option<&Self::Addr>) -> io::Result<usize>;
    /// Sends without waiting, where the system can.
    #[doc(hidden)]
    fn send_now(&self, data: &[u8], to: Option<&Self::Addr>) -> io::Result<usize>;
    /// Makes a blocked receive return an empty datagram.
    #[doc(hidden)]
    fn nudge(&self, connected: bool);
    /// Whether another owner of the socket has shut it down, now that this many datagrams in a row
    /// were empty; may wait for a tick.
    #[doc(hidden)]
    fn was_shut_down(&self, empty: u32) -> io::Result<bool>;
    #[doc(hidden)]
    fn kernel_drops(&self) -> Option<u64>;
}

mod sealed {
    #[allow(unnameable_types, reason = "this is what seals DatagramSocket")]
    pub trait Sealed {}
    impl Sealed for std::net::UdpSocket {}
    #[cfg(unix)]
    impl Sealed for std::os::unix::net::UnixDatagram {}
}

impl DatagramSocket for UdpSocket {
    type Addr = SocketAddr;

    fn sock(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    fn local(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn fixed_peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    #[cfg(unix)]
    fn receive(
        &self,
        buffer: &mut [u8],
        _fixed_peer: Option<&SocketAddr>,
        wait: bool,
    ) -> io::Result<(usize, Option<SocketAddr>)> {
        use rustix::net::{RecvFlags, recvfrom};
        let flags = if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        let (received, _, peer) = recvfrom(self, buffer, flags)?;
        Ok((received, peer.and_then(|peer| peer.try_into().ok())))
    }

    #[cfg(not(unix))]
    fn receive(
        &self,
        buffer: &mut [u8],
        fixed_peer: Option<&SocketAddr>,
        wait: bool,
    ) -> io::Result<(usize, Option<SocketAddr>)> {
        if !wait {
            self.set_nonblocking(true)?;
        }
        let received = match fixed_peer {
            Some(&peer) => self.recv(buffer).map(|received| (received, Some(peer))),
            None => self.recv_from(buffer).map(|(received, peer)| (received, Some(peer))),
        };
        if !wait {
            self.set_nonblocking(false)?;
        }
        received
    }

    fn send_waiting(&self, data: &[u8], to: Option<&SocketAddr>) -> io::Result<usize> {
        match to {
            None => self.send(data),
            Some(to) => self.send_to(data, to),
        }
    }

    fn send_now(&self, data: &[u8], to: Option<&SocketAddr>) -> io::Result<usize> {
        match to {
            None => socket::send_now(&self.sock(), data),
            Some(&to) => socket::send_to_now(&self.sock(), data, &to.into()),
        }
    }

    fn nudge(&self, connected: bool) {
        // Where neither is possible, the tick will do.
        let _ = if connected {
            self.sock().shutdown(std::net::Shutdown::Both)
        } else {
            self.local_addr().and_then(|local| {
                let to = socket::reach(local).into();
                socket::send_to_now(&self.sock(), &[], &to).map(drop)
            })
        };
    }

    fn was_shut_down(&self, _empty: u32) -> io::Result<bool> {
        // A socket that was shut down answers with no address at all, as the receive on Unix can tell.
        Ok(!cfg!(unix) && self.sock().peek_sender()?.as_socket().is_none())
    }

    fn kernel_drops(&self) -> Option<u64> {
        socket::kernel_drops(self)
    }
}

/// A datagram socket as a source: [`UdpSource`], and on Unix `UnixDatagramSource`.
///
/// Each datagram is one frame. Receive buffers are pooled: once warm, a datagram costs no
/// allocation as long as the consumer keeps up. One that is longer than
/// [`max_datagram`](Self::with_max_datagram) comes cut off and flagged. What the kernel drops because
/// its own buffer is full is told by [`Listener::stats`](super::Listener::stats) on Linux, for UDP.
///
/// A receive wakes by itself at least every poll interval (50 ms unless
/// [told](super::ListenerBuilder::poll_interval)), and a stop wakes it at once: an unconnected UDP
/// socket by an empty datagram to itself, the others by a shutdown. An answer from elsewhere that
/// nobody takes (connection refused) is counted and passed over.
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
    pool: Pool,
    /// Where a receive lands; one byte longer than the limit, which tells what is longer.
    scratch: Box<[u8]>,
    /// The peer of a connected socket: the receive then gives none.
    fixed_peer: Option<S::Addr>,
    /// How many datagrams in a row were empty: a sign of a shutdown, too.
    empty: u32,
    /// What is shared with the interrupter and the gauge.
    shared: Arc<Shared>,
    /// Removed when the source is dropped.
    #[cfg(unix)]
    pub(super) _path: Option<super::unix::BoundPath>,
}

#[derive(Default)]
struct Shared {
    /// Whether a nudge is on its way.
    nudged: AtomicBool,
    truncated: AtomicU64,
    transient_errors: AtomicU64,
}

/// A UDP socket as a source. Python: `loop.create_datagram_endpoint`.
///
/// # Examples
///
/// See [`DatagramSource`].
pub type UdpSource = DatagramSource<UdpSocket>;

impl UdpSource {
    /// Binds a socket to `addr`; port 0 lets the system choose, see
    /// [`local_addr`](Self::local_addr).
    ///
    /// # Errors
    ///
    /// What the system says: the port is in use, the address isn't this machine's, ...
    ///
    /// # Examples
    ///
    /// See [`DatagramSource`].
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        let socket = socket::first_that_works(addr, |addr| {
            let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
            socket.bind(&addr.into())?;
            Ok(socket)
        })?;
        Self::from_socket(socket)
    }
}

impl<S: DatagramSocket> DatagramSource<S> {
    /// Takes over a socket that is bound and set up already: a [`socket2::Socket`], std's, or on
    /// Unix an `OwnedFd`.
    ///
    /// Its blocking mode and its timeouts are set anew, for every handle of the same socket. If
    /// another owner shuts it down, the source fails (elsewhere than on Unix, an unconnected UDP socket
    /// may make std's receive panic then, which ends the listener as panicked).
    ///
    /// # Errors
    ///
    /// What the system says; [`InvalidInput`](ErrorKind::InvalidInput) if it isn't a datagram
    /// socket.
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
    pub fn from_socket(socket: impl Into<Socket>) -> io::Result<Self> {
        let socket = socket.into();
        socket::check_type(&socket, Type::DGRAM)?;
        let socket = S::from(socket);
        socket::set_tick(&socket.sock(), POLL_INTERVAL, POLL_INTERVAL)?;
        let fixed_peer = socket.fixed_peer();
        Ok(DatagramSource {
            socket: Arc::new(socket),
            pool: Pool::default(),
            scratch: vec![0; MAX_DATAGRAM + 1].into_boxed_slice(),
            fixed_peer,
            empty: 0,
            shared: Arc::default(),
            #[cfg(unix)]
            _path: None,
        })
    }

    /// Sets the longest datagram that is received whole, 1 to 65 535 bytes; 65 507 unless told.
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
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the longest datagram must be set between 1 and 65535 bytes",
            ));
        }
        self.scratch = vec![0; bytes + 1].into_boxed_slice();
        Ok(self)
    }

    /// Where the socket is bound.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Examples
    ///
    /// See [`DatagramSource`].
    pub fn local_addr(&self) -> io::Result<S::Addr> {
        self.socket.local()
    }

    /// What sends answers from anywhere while the source lives. Take it before the listener starts.
    ///
    /// # Examples
    ///
    /// See [`DatagramSource`].
    pub fn replier(&self) -> Replier<S> {
        Replier { socket: Arc::downgrade(&self.socket), connected: self.fixed_peer.is_some() }
    }

    fn receive(&mut self, wait: bool) -> io::Result<Datagram<S::Addr>> {
        if self.empty > 0 {
            if !wait {
                return Err(ErrorKind::WouldBlock.into());
            }
            if self.socket.was_shut_down(self.empty)? {
                return Err(shut_down());
            }
        }
        let received = self.socket.receive(&mut self.scratch, self.fixed_peer.as_ref(), wait);
        let (received, peer) = received.map_err(|error| self.judge(error))?;
        if received == 0 && self.shared.nudged.swap(false, Ordering::AcqRel) {
            return Err(ErrorKind::Interrupted.into());
        }
        let peer = peer.ok_or_else(shut_down)?;
        self.empty = if received == 0 { self.empty.saturating_add(1) } else { 0 };
        let limit = self.scratch.len() - 1;
        let truncated = received > limit;
        if truncated {
            self.shared.truncated.fetch_add(1, Ordering::Relaxed);
        }
        let payload = self.pool.copy_in(&self.scratch[..received.min(limit)]);
        Ok(Datagram { payload, peer, truncated })
    }

    /// Makes a tick of an error that concerns one peer or one moment.
    fn judge(&self, error: io::Error) -> io::Error {
        match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable => {
                self.shared.transient_errors.fetch_add(1, Ordering::Relaxed);
                ErrorKind::Interrupted.into()
            }
            // What std makes of the address that the kernel left out.
            ErrorKind::InvalidInput => shut_down(),
            _ => error,
        }
    }
}

fn shut_down() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "the socket was shut down by another of its owners")
}

impl<S: DatagramSocket> FrameSource for DatagramSource<S> {
    type Frame = Datagram<S::Addr>;

    fn next_frame(&mut self) -> io::Result<Option<Self::Frame>> {
        self.receive(true).map(Some)
    }

    fn next_ready(&mut self) -> io::Result<Option<Self::Frame>> {
        match self.receive(false) {
            Ok(datagram) => Ok(Some(datagram)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn interrupter(&self) -> Interrupter {
        let (socket, connected) = (Arc::downgrade(&self.socket), self.fixed_peer.is_some());
        let shared = Arc::clone(&self.shared);
        Interrupter::new(move || {
            if let Some(socket) = socket.upgrade() {
                shared.nudged.store(true, Ordering::Release);
                socket.nudge(connected);
            }
        })
    }

    fn set_poll_interval(&mut self, interval: Duration) -> io::Result<()> {
        socket::set_tick(&self.socket.sock(), interval, interval)
    }

    fn bound_to(&self) -> Option<SocketAddr> {
        self.socket.sock().local_addr().ok()?.as_socket()
    }

    fn gauge(&self) -> Gauge {
        let (socket, shared) = (Arc::downgrade(&self.socket), Arc::clone(&self.shared));
        Gauge::new(move || SourceStats {
            truncated: shared.truncated.load(Ordering::Relaxed),
            transient_errors: shared.transient_errors.load(Ordering::Relaxed),
            kernel_drops: socket.upgrade().and_then(|socket| socket.kernel_drops()),
        })
    }
}

impl<S: DatagramSocket, R: AsRef<[u8]>> RequestSource<R> for DatagramSource<S> {
    type Address = S::Addr;

    fn address(&self, frame: &Self::Frame) -> S::Addr {
        frame.peer.clone()
    }

    fn answer(&mut self, to: &S::Addr, reply: R) -> io::Result<bool> {
        let to = self.fixed_peer.is_none().then_some(to);
        self.socket.send_waiting(reply.as_ref(), to)?;
        Ok(true)
    }
}

impl<S: DatagramSocket> fmt::Debug for DatagramSource<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatagramSource").field("local", &self.socket.local().ok()).finish()
    }
}

/// Sends datagrams from a listener's socket, from any thread or task.
///
/// It doesn't keep the socket open: once the listener has stopped, sending fails.
///
/// # Examples
///
/// See [`DatagramSource`].
pub struct Replier<S: DatagramSocket = UdpSocket> {
    socket: Weak<S>,
    connected: bool,
}

impl<S: DatagramSocket> Replier<S> {
    /// Sends `payload` to `peer` as one datagram.
    ///
    /// Never waits on Linux, Android, Apple's systems and the BSDs, so it may be called on an event
    /// loop; elsewhere it can wait for one poll interval while the kernel's buffer is full.
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
        socket.send_now(payload.as_ref(), (!self.connected).then_some(peer)).map(drop)
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
