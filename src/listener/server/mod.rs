//! Stream servers: a thread that accepts, and a thread for each connection.

mod accept;
mod connection;
mod link;
mod peer;

pub use connection::Connection;
pub use link::ConnectionHandle;
pub use peer::Peer;

pub(crate) use accept::Accepted;
pub(crate) use connection::thread_name;
pub(crate) use link::Link;

use super::builder::{Origin, Setup, sealed::Sealed};
use super::core::{Core, End, Panicked, Verdict, judged};
use super::driver::{Driver, LINGER, Limits, Taken};
use super::patience::Patience;
use super::serve::Request;
use super::source::socket::{self, OwnedSocket};
use super::source::{FrameSource, StreamKind, StreamSource, check_limit};
use super::stop::Phase;
use super::wake::Wake;
use crate::sync::{Deadline, contain};
use accept::{Acceptor, Listening, Terms};
use socket2::{Domain, Socket, Type};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::codec::Decoder;

const TERMS: Terms = Terms {
    max_frame: 0,
    max_connections: 1024,
    max_connections_per_peer: usize::MAX,
    capacity: 64,
    write_buffer: 1 << 20,
    keepalive: Some(Duration::from_secs(60)),
    limits: Limits { idle: None, frame: Some(Duration::from_secs(30)) },
    linger: LINGER,
};

/// How many connections the kernel keeps before they are accepted; it may allow fewer.
const BACKLOG: i32 = 4096;

/// A server for stream sockets: [`TcpServer`], and on Unix `UnixServer`.
///
/// One thread accepts, and each connection has a thread of its own, which owns its socket: it reads,
/// decodes and writes. As a stream ([`spawn`](super::ListenerBuilder::spawn)) the listener yields
/// [`Connection`]s. [Served](super::ListenerBuilder::serve), each frame becomes a [`Request`], answered in
/// the order of its connection. Each connection takes two descriptors: its socket, and one to wake
/// its thread by.
///
/// `make` makes the codecs: two for each connection of a stream (one decodes, one encodes), one for each that
/// is served.
///
/// What peers may do is limited:
///
/// | a peer that ... | meets | unless told |
/// |---|---|---|
/// | sends a frame that is too long or malformed | the end of its connection | |
/// | begins a frame and doesn't end it | [`with_frame_timeout`](Self::with_frame_timeout) | 30 s |
/// | says nothing | [`with_idle_timeout`](Self::with_idle_timeout) | no limit |
/// | has vanished | [`with_keepalive`](Self::with_keepalive) | after 60 s of silence |
/// | doesn't read | [`write_timeout`](super::ListenerBuilder::write_timeout) | 30 s |
/// | doesn't end its side when this side has | [`with_linger`](Self::with_linger) | 2 s |
/// | connects too often | [`with_max_connections_per_peer`](Self::with_max_connections_per_peer) | no limit |
/// | comes when there are too many | [`with_max_connections`](Self::with_max_connections) | 1024 |
pub struct StreamServer<M, K = TcpStream> {
    listening: Listening,
    make: M,
    terms: Terms,
    kind: PhantomData<K>,
}

/// A TCP server. Python: `asyncio.start_server`.
pub type TcpServer<M> = StreamServer<M, TcpStream>;

/// A Unix stream server. Python: `asyncio.start_unix_server`.
#[cfg(unix)]
pub type UnixServer<M> = StreamServer<M, std::os::unix::net::UnixStream>;

impl<M, C> TcpServer<M>
where
    M: Fn() -> C,
{
    /// Listens on `addr`; port 0 lets the system choose, see [`local_addr`](Self::local_addr).
    ///
    /// `make` makes a codec; frames of more than `max_frame` bytes close their connection. `max_frame`
    /// counts as in [`ReadSource::new`](super::ReadSource::new).
    ///
    /// # Errors
    ///
    /// What the system says, and [`InvalidInput`](ErrorKind::InvalidInput) when `max_frame` is 0.
    pub fn bind(addr: impl ToSocketAddrs, max_frame: usize, make: M) -> io::Result<Self> {
        let socket = socket::first_that_works(addr, |addr| {
            let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
            // On Windows this would let another process take the port over.
            #[cfg(unix)]
            socket.set_reuse_address(true)?;
            socket.bind(&addr.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket)
        })?;
        Self::over(socket, max_frame, make)
    }

    /// Where the server listens.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let local = self.listening.socket.local_addr()?;
        local.as_socket().ok_or_else(|| ErrorKind::AddrNotAvailable.into())
    }
}

#[cfg(unix)]
impl<M, C> UnixServer<M>
where
    M: Fn() -> C,
{
    /// Listens on `path`, which is removed with the listener; otherwise as [`TcpServer::bind`].
    ///
    /// A path that is left over, since its process was killed, is taken over; one that is served is an
    /// error. The file's mode is what the umask leaves.
    ///
    /// # Errors
    ///
    /// What the system says, and [`InvalidInput`](ErrorKind::InvalidInput) when `max_frame` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Listener, UnixServer};
    /// use std::os::unix::net::UnixStream;
    /// use std::time::Duration;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let path = std::env::temp_dir().join(format!("callbridge-doc-s-{}", std::process::id()));
    /// let server = UnixServer::bind(&path, 1024, LinesCodec::new)?;
    /// let (listener, mut connections) = Listener::builder(server).spawn()?;
    /// let _client = UnixStream::connect(&path)?;
    /// assert!(connections.recv_blocking(Duration::from_secs(5)).is_ok());
    /// assert!(listener.close_blocking(Duration::from_secs(5)).is_clean());
    /// assert!(!path.exists());
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind(path: impl AsRef<std::path::Path>, max_frame: usize, make: M) -> io::Result<Self> {
        check_limit(max_frame)?;
        let (socket, path) = super::source::unix::bind(path.as_ref(), Type::STREAM)?;
        socket.listen(BACKLOG)?;
        let mut server = Self::over(socket, max_frame, make)?;
        server.listening.path = path;
        Ok(server)
    }
}

impl<M, C, K> StreamServer<M, K>
where
    M: Fn() -> C,
    K: StreamKind,
{
    fn over(socket: Socket, max_frame: usize, make: M) -> io::Result<Self> {
        check_limit(max_frame)?;
        let listening = Listening {
            socket: Arc::new(socket),
            injected: false,
            #[cfg(unix)]
            path: None,
        };
        Ok(StreamServer { listening, make, terms: Terms { max_frame, ..TERMS }, kind: PhantomData })
    }

    /// Takes over a socket that listens already: a [`socket2::Socket`], std's, or on Unix an `OwnedFd`.
    ///
    /// It is never shut down: other owners may go on using it. Its receive timeout is set to the poll
    /// timeout, for every handle of the same socket, since a connection that was seen may be another
    /// owner's by the time it is accepted; on Windows, where that doesn't help, it is in non-blocking mode from
    /// now on.
    ///
    /// # Errors
    ///
    /// What the system says; [`InvalidInput`](ErrorKind::InvalidInput) when it is a socket of another kind
    /// or doesn't listen (where the system can tell), or when `max_frame` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::TcpServer;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let listening = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let server = TcpServer::from_socket(listening, 1024, LinesCodec::new)?;
    /// assert_ne!(server.local_addr()?.port(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_socket(
        socket: impl Into<OwnedSocket>,
        max_frame: usize,
        make: M,
    ) -> io::Result<Self> {
        let socket = Socket::from(socket.into());
        socket::check_kind(&socket, Type::STREAM, K::IS_UNIX)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if !socket.is_listener()? {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the socket doesn't listen: call listen on it first",
            ));
        }
        let mut server = Self::over(socket, max_frame, make)?;
        server.listening.injected = true;
        Ok(server)
    }

    /// Sets how many connections there may be at once, half-closed ones included, at least 1; 1024 by default.
    /// Those beyond are closed at once and counted as refused.
    #[must_use]
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.terms.max_connections = connections;
        self
    }

    /// Sets how many of them one IP address may have, at least 1; no limit by default. Unix sockets have no
    /// hosts.
    #[must_use]
    pub fn with_max_connections_per_peer(mut self, connections: usize) -> Self {
        self.terms.max_connections_per_peer = connections;
        self
    }

    /// Closes a connection whose peer has sent no frame for so long; no limit by default.
    ///
    /// Counted from the last frame, or from the beginning. Time in which a request of the peer is being
    /// answered doesn't count. Zero is an error at the start.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Listener, TcpServer};
    /// use std::io::Read;
    /// use std::time::Duration;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?
    ///     .with_idle_timeout(Duration::from_millis(20))
    ///     .with_max_connections(100)
    ///     .with_max_connections_per_peer(10);
    /// let addr = server.local_addr()?;
    /// let (_listener, _connections) = Listener::builder(server).spawn()?;
    /// let mut silent = std::net::TcpStream::connect(addr)?;
    /// assert_eq!(silent.read(&mut [0; 8])?, 0, "it was closed");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.terms.limits.idle = timeout.into();
        self
    }

    /// Closes a connection whose peer has begun a frame and hasn't completed it for so long; 30 s
    /// by default, none for no limit. Zero is an error at the start.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::TcpServer;
    /// # use std::time::Duration;
    /// # use tokio_util::codec::LinesCodec;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?
    ///     .with_frame_timeout(Duration::from_secs(5));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_frame_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.terms.limits.frame = timeout.into();
        self
    }

    /// Sets after how much silence the system asks a TCP peer whether it is still there; 60 s by
    /// default, none for never. A peer that doesn't answer is a failed connection.
    ///
    /// 1 s to 32 767 s, about nine hours; what is beyond is taken as the nearest, and zero is an error at
    /// the start.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::TcpServer;
    /// # use std::time::Duration;
    /// # use tokio_util::codec::LinesCodec;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?
    ///     .with_keepalive(Duration::from_secs(20));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_keepalive(mut self, time: impl Into<Option<Duration>>) -> Self {
        self.terms.keepalive = time.into();
        self
    }

    /// Sets how long a connection that was ended on this side waits for the peer's end; 2 s by
    /// default.
    ///
    /// A connection that is closed while the peer still sends makes the system throw away what was written
    /// to it and hasn't arrived. So the write side is ended first, and what the peer still sends is thrown
    /// away until it ends its side, the time is up, or the listener stops.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::TcpServer;
    /// # use std::time::Duration;
    /// # use tokio_util::codec::LinesCodec;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?
    ///     .with_linger(Duration::from_secs(10));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_linger(mut self, time: Duration) -> Self {
        self.terms.linger = time;
        self
    }

    /// Sets how many frames of one [`Connection`] can be queued, at least 1; 64 by default.
    ///
    /// Not used by [`serve`](super::ListenerBuilder::serve), which queues none.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::TcpServer;
    /// # use tokio_util::codec::LinesCodec;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?
    ///     .with_connection_capacity(1000)
    ///     .with_write_buffer(16 * 1024);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_connection_capacity(mut self, frames: usize) -> Self {
        self.terms.capacity = frames;
        self
    }

    /// Sets how many bytes may wait for the peer of one [`Connection`] to read; 1 MiB by default.
    /// One frame is always taken, however long.
    #[must_use]
    pub fn with_write_buffer(mut self, bytes: usize) -> Self {
        self.terms.write_buffer = bytes;
        self
    }
}

impl<M, K> fmt::Debug for StreamServer<M, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamServer").field("terms", &self.terms).finish_non_exhaustive()
    }
}

impl<M, C, K> StreamServer<M, K>
where
    M: Fn() -> C + Send + Sync + 'static,
    C: Decoder + Send + 'static,
    C::Error: Error + Send + Sync + 'static,
    K: StreamKind,
{
    /// Accepts on a thread of its own. `start` starts a connection's thread, `take` is given what it
    /// made, until it says that no more is wanted.
    fn accept_on_thread<T: Send + 'static>(
        self,
        core: &Arc<Core>,
        start: impl FnMut(Accepted, &M, &Terms) -> io::Result<T> + Send + 'static,
        mut take: impl FnMut(T) -> bool + Send + 'static,
        at_end: impl FnOnce(Result<Verdict, Panicked>) + Send + 'static,
    ) -> io::Result<()> {
        let StreamServer { listening, make, terms, .. } = self;
        terms.check()?;
        listening.prepare(core.poll_timeout)?;
        let mut start = start;
        let acceptor =
            Acceptor::new(listening, core, terms, move |accepted| start(accepted, &make, &terms));
        core.set_address(acceptor.bound_to());
        let mut driver = Driver::new(core, Wake::new(), acceptor);
        core.stop.spawn(&core.name, move || {
            let verdict = judged(|| {
                loop {
                    match driver.take(true) {
                        Taken::Frame(connection) => {
                            if !take(connection) {
                                return Verdict::Stopped;
                            }
                        }
                        Taken::Nothing => {
                            driver.wait(true, &Patience::default(), Deadline::Never);
                        }
                        Taken::End(verdict) => return verdict,
                    }
                }
            });
            contain("the end of a server", || drop(driver));
            at_end(verdict);
        })
    }

    /// As [`accept_on_thread`](Self::accept_on_thread), with a thread for each connection that does `work`.
    pub(crate) fn serve_on_threads(
        self,
        core: &Arc<Core>,
        work: impl Fn(Accepted, StreamSource<C, K>) + Send + Sync + 'static,
        at_end: impl FnOnce(Result<Verdict, Panicked>) + Send + 'static,
    ) -> io::Result<()> {
        let (work, own) = (Arc::new(work), Arc::clone(core));
        let start = move |accepted: Accepted, make: &M, _: &Terms| {
            let (socket, max_frame) = (Arc::clone(&accepted.socket), accepted.max_frame);
            let source = StreamSource::over_own(socket, max_frame, make())?;
            let name = thread_name(accepted.link.id(), &own.name);
            let work = Arc::clone(&work);
            own.stop.spawn(&name, move || work(accepted, source))
        };
        self.accept_on_thread(core, start, |()| true, at_end)
    }
}

impl<M, K> Sealed for StreamServer<M, K> {}

impl<M, C, K> Origin for StreamServer<M, K>
where
    M: Fn() -> C + Send + Sync + 'static,
    C: Decoder<Item: Send + 'static, Error: Error + Send + Sync + 'static> + Send + 'static,
    K: StreamKind,
{
    type Item = Connection<C>;
    type Request = Request<C::Item>;

    fn launch(self, setup: Setup<Self>) -> io::Result<()> {
        let feed = setup.feed;
        let core = Arc::clone(&feed.core);
        let (own, last) = (Arc::clone(&core), feed.clone());
        // A connection that nobody takes is new: a close doesn't wait for room for it.
        let unblock = feed.ends_from(Phase::Draining, Core::ending);
        let start = move |accepted: Accepted, make: &M, terms: &Terms| {
            Connection::start::<K>(accepted, terms, &own, make)
        };
        self.accept_on_thread(
            &core,
            start,
            move |connection| {
                let _while_accepting = &unblock;
                feed.put(connection)
            },
            move |verdict| {
                let end = End::of(verdict, &last.core.name);
                last.end_with_listener(&end);
                last.core.conclude(&end);
            },
        )
    }
}
