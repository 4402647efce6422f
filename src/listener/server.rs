//! Stream servers: a thread that accepts, and a thread for each connection.

use super::builder::{Origin, Setup};
use super::connection::{Connection, Peer};
use super::core::{Core, Feed, Panicked, Verdict, judged};
use super::framing::{FrameError, check_limit};
use super::serve::Request;
use super::socket::{self, POLL_INTERVAL};
use super::source::{FrameSource, Interrupter, is_tick};
use super::stats::{count, uncount};
use super::stream::{StreamSource, Tcp};
use crate::sync::prim::atomic::Ordering;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::codec::Decoder;

/// Connections that may be open at once unless told otherwise.
const MAX_CONNECTIONS: usize = 1024;

/// Bytes of answers that may be queued for one connection unless told otherwise.
const ANSWER_BUDGET: usize = 1 << 20;

/// The length of the kernel's queue of connections that wait to be accepted; Linux cuts it to its own
/// limit, which is 4096 by default.
const BACKLOG: i32 = 4096;

/// The first and the longest pause after a failed accept.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// A listening stream socket: [`TcpServer`], and on Unix `UnixServer`.
///
/// One thread accepts, and each connection has a thread that reads it and cuts it into frames with
/// a codec of its own, made by `make`. All connections feed one stream, whose items
/// ([`Incoming`]) name the connection; or one handler, see [`serve`](super::ListenerBuilder::serve).
///
/// Bytes that make no frame (too long, malformed, broken off) close their connection and no other.
/// When as many connections are open as allowed, the next ones are accepted, closed at once and
/// counted; one stays open as long as somebody, or an item that waits in the stream, holds its
/// [`Connection`]. Failures to accept are counted and tried again after a pause of 1 ms to 1 s; they never
/// end the listener. A full channel under `Overflow::Block` stops the reads, so TCP holds the peers
/// back.
///
/// A connection's thread costs its stack (2 MiB of address space, as std's threads have) and one
/// wake-up per poll interval while its peer is silent.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Event, Listener, TcpServer};
/// use std::io::Write;
/// use tokio_util::codec::LinesCodec;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?.with_max_connections(100);
/// let addr = server.local_addr()?;
/// let (_listener, mut events) = Listener::builder(server).spawn()?;
///
/// std::net::TcpStream::connect(addr)?.write_all(b"hello\n")?;
/// let mut lines = Vec::new();
/// while let Some(incoming) = events.recv().await {
///     match incoming.event {
///         Event::Frame(line) => lines.push(line),
///         Event::Closed(_) => break,
///         _ => {}
///     }
/// }
/// assert_eq!(lines, ["hello"]);
/// # Ok(())
/// # }
/// ```
pub struct StreamServer<M, K = Tcp> {
    socket: Arc<Socket>,
    /// Makes the codec of a connection.
    make: M,
    max_frame: usize,
    max_connections: usize,
    answer_budget: usize,
    /// Whether the socket was made here, so that nobody else listens on it.
    own: bool,
    #[cfg(unix)]
    path: Option<super::unix::BoundPath>,
    kind: PhantomData<K>,
}

/// A listening TCP socket. Python: `asyncio.start_server`.
///
/// Accepted connections have `TCP_NODELAY` set, since every answer leaves in one write.
///
/// # Examples
///
/// See [`StreamServer`].
pub type TcpServer<M> = StreamServer<M, Tcp>;

/// A listening Unix stream socket. Python: `asyncio.start_unix_server`.
///
/// # Examples
///
/// ```
/// use callbridge::listener::UnixServer;
/// use tokio_util::codec::LinesCodec;
///
/// # fn main() -> std::io::Result<()> {
/// let path = std::env::temp_dir().join(format!("callbridge-doc-{}", std::process::id()));
/// let server = UnixServer::bind(&path, 1024, LinesCodec::new)?;
/// assert!(path.exists());
/// drop(server);
/// assert!(!path.exists());
/// # Ok(())
/// # }
/// ```
#[cfg(unix)]
pub type UnixServer<M> = StreamServer<M, super::stream::Unix>;

impl<M, C> TcpServer<M>
where
    M: Fn() -> C,
{
    /// Listens on `addr`; port 0 lets the system choose, see [`local_addr`](Self::local_addr).
    ///
    /// `make` makes the codec of each connection: a function such as `LengthDelimitedCodec::new`,
    /// or `move || codec.clone()`. `max_frame` counts as in
    /// [`ReadSource::new`](super::ReadSource::new). On Unix the address may be in use by closed
    /// connections of an earlier run (`SO_REUSEADDR`).
    ///
    /// # Errors
    ///
    /// What the system says, and [`InvalidInput`](ErrorKind::InvalidInput) when `max_frame` is 0.
    ///
    /// # Examples
    ///
    /// See [`StreamServer`].
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
        Ok(StreamServer { own: true, ..Self::from_socket(socket, max_frame, make)? })
    }

    /// Where the server listens.
    ///
    /// # Errors
    ///
    /// What the system says.
    ///
    /// # Examples
    ///
    /// See [`StreamServer`].
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        let local = self.socket.local_addr()?;
        local.as_socket().ok_or_else(|| ErrorKind::AddrNotAvailable.into())
    }
}

#[cfg(unix)]
impl<M, C> UnixServer<M>
where
    M: Fn() -> C,
{
    /// Listens on a socket at `path`, which must not exist yet; it is removed with the server.
    ///
    /// Otherwise as [`TcpServer::bind`].
    ///
    /// # Errors
    ///
    /// What the system says, and [`InvalidInput`](ErrorKind::InvalidInput) when `max_frame` is 0.
    ///
    /// # Examples
    ///
    /// See [`UnixServer`].
    pub fn bind(path: impl AsRef<std::path::Path>, max_frame: usize, make: M) -> io::Result<Self> {
        check_limit(max_frame)?;
        let (socket, path) = super::unix::bind(path.as_ref(), Type::STREAM)?;
        socket.listen(BACKLOG)?;
        let mut server = Self::from_socket(socket, max_frame, make)?;
        (server.own, server.path) = (true, Some(path));
        Ok(server)
    }
}

impl<M, C, K> StreamServer<M, K>
where
    M: Fn() -> C,
{
    /// Takes over a socket that listens already: a [`socket2::Socket`], std's, or on Unix an
    /// `OwnedFd`, for example one that a service manager has passed on.
    ///
    /// Its blocking mode and its timeouts are set anew, for every handle of the same socket. A stop
    /// leaves it listening for its other owners, and wakes its own thread by a connection to itself.
    ///
    /// # Errors
    ///
    /// What the system says; [`InvalidInput`](ErrorKind::InvalidInput) when it isn't a stream
    /// socket, doesn't listen (on Linux; elsewhere accepting fails), or when `max_frame` is 0.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::TcpServer;
    /// use std::net::TcpListener;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let inherited = TcpListener::bind("127.0.0.1:0")?;
    /// let addr = inherited.local_addr()?;
    /// let server = TcpServer::from_socket(inherited, 1024, LinesCodec::new)?;
    /// assert_eq!(server.local_addr()?, addr);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_socket(socket: impl Into<Socket>, max_frame: usize, make: M) -> io::Result<Self> {
        let socket = socket.into();
        check_limit(max_frame)?;
        socket::check_type(&socket, Type::STREAM)?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if !socket.is_listener()? {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "the socket doesn't listen: call listen on it first",
            ));
        }
        Ok(StreamServer {
            socket: Arc::new(socket),
            make,
            max_frame,
            max_connections: MAX_CONNECTIONS,
            answer_budget: ANSWER_BUDGET,
            own: false,
            #[cfg(unix)]
            path: None,
            kind: PhantomData,
        })
    }

    /// How many connections may be open at once, each with a thread; 1024 unless told.
    ///
    /// 0 closes every connection at once.
    ///
    /// # Examples
    ///
    /// See [`StreamServer`].
    #[must_use]
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// How many bytes of answers may wait for one connection's peer to read; 1 MiB unless told.
    ///
    /// A single answer may be longer: it is taken when nothing else waits.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::TcpServer;
    /// # use tokio_util::codec::LinesCodec;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?.with_answer_budget(64 * 1024);
    /// assert_ne!(server.local_addr()?.port(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_answer_budget(mut self, bytes: usize) -> Self {
        self.answer_budget = bytes;
        self
    }
}

impl<M, K> fmt::Debug for StreamServer<M, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamServer")
            .field("max_frame", &self.max_frame)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// What a server's stream yields: something that happened on one of its connections.
///
/// # Examples
///
/// See [`StreamServer`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Incoming<F> {
    /// Where it happened, and the way to answer.
    pub connection: Connection,
    /// What happened.
    pub event: Event<F>,
}

/// What happens on a connection: it opens, frames come, it closes.
///
/// Under a policy that drops, any of them can be dropped.
///
/// # Examples
///
/// See [`StreamServer`].
#[non_exhaustive]
pub enum Event<F> {
    /// The connection was accepted.
    Opened,
    /// A frame came.
    Frame(F),
    /// No more frames will come, and why.
    Closed(CloseReason),
}

impl<F> fmt::Debug for Event<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Opened => f.write_str("Opened"),
            Event::Frame(_) => f.write_str("Frame(..)"),
            Event::Closed(reason) => f.debug_tuple("Closed").field(reason).finish(),
        }
    }
}

/// Why a connection gives no more frames.
///
/// # Examples
///
/// ```
/// use callbridge::listener::CloseReason;
///
/// assert_eq!(CloseReason::PeerFinished.to_string(), "the peer ended its side");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer ended its side, after a whole frame. It may still read: answers are sent as long as
    /// somebody holds the [`Connection`].
    #[error("the peer ended its side")]
    PeerFinished,
    /// Its bytes made no frame; the connection was closed.
    #[error("the connection was closed: {0}")]
    Frame(FrameError),
    /// The connection broke, or was closed on this side.
    #[error("the connection broke: {0}")]
    Io(io::Error),
    /// Its decoder panicked; the connection was closed.
    #[error("the connection was closed: its decoder panicked")]
    Panicked,
    /// The listener stopped.
    #[error("the connection was closed: the listener stopped")]
    Stopped,
}

impl CloseReason {
    fn of(verdict: Result<Verdict, Panicked>) -> Self {
        match verdict {
            Ok(Verdict::Finished) => CloseReason::PeerFinished,
            Ok(Verdict::Failed(error)) => match error.downcast::<FrameError>() {
                Ok(error) => CloseReason::Frame(error),
                Err(error) => CloseReason::Io(error),
            },
            Ok(Verdict::Stopped | Verdict::LoopGone) => CloseReason::Stopped,
            Err(Panicked) => CloseReason::Panicked,
        }
    }
}

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) answer_budget: usize,
    poll_interval: Duration,
    max_frame: usize,
}

/// A connection's place among those that may be open.
pub(crate) struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Self {
        count(&shared.core.counters.open);
        Slot(Arc::clone(shared))
    }
}

impl Deref for Slot {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        uncount(&self.0.core.counters.open);
    }
}

/// A connection that was accepted and has its place.
pub(crate) struct Accepted {
    pub(crate) id: u64,
    pub(crate) peer: Peer,
    pub(crate) socket: Arc<Socket>,
    pub(crate) slot: Slot,
}

impl<M, C, K> StreamServer<M, K>
where
    M: Fn() -> C + Send + Sync + 'static,
    C: Decoder + 'static,
    C::Error: Error + Send + Sync + 'static,
    K: Send + 'static,
{
    /// Starts the accepting thread, which gives each connection a thread that runs `work`.
    pub(crate) fn accept_on_thread(
        self,
        core: &Arc<Core>,
        poll_interval: Option<Duration>,
        work: impl Fn(Accepted, io::Result<StreamSource<C, K>>) + Send + Sync + 'static,
        at_end: impl FnOnce(Result<Verdict, Panicked>) + Send + 'static,
    ) -> io::Result<()> {
        let poll_interval = socket::check_tick(poll_interval.unwrap_or(POLL_INTERVAL))?;
        socket::set_tick(&SockRef::from(&*self.socket), poll_interval)?;
        let shared = Arc::new(Shared {
            core: Arc::clone(core),
            answer_budget: self.answer_budget,
            poll_interval,
            max_frame: self.max_frame,
        });
        let make = self.make;
        let work = Arc::new(move |accepted: Accepted| {
            let (socket, max_frame) = (Arc::clone(&accepted.socket), accepted.slot.max_frame);
            work(accepted, StreamSource::over(socket, max_frame, make()));
        });
        let acceptor = Acceptor {
            socket: self.socket,
            own: self.own,
            max_connections: self.max_connections,
            shared,
            next_id: 0,
        };
        #[cfg(unix)]
        let path = self.path;
        core.stop.spawn(&core.name, move || {
            let mut acceptor = acceptor;
            let verdict = judged(|| acceptor.run(&work));
            drop(acceptor);
            #[cfg(unix)]
            drop(path);
            at_end(verdict);
        })
    }
}

struct Acceptor {
    socket: Arc<Socket>,
    own: bool,
    max_connections: usize,
    shared: Arc<Shared>,
    /// The number of the last connection.
    next_id: u64,
}

impl Acceptor {
    fn run(&mut self, work: &Arc<impl Fn(Accepted) + Send + Sync + 'static>) -> Verdict {
        let core = Arc::clone(&self.shared.core);
        let _nudge = core.stop.register(self.interrupter());
        let mut pause = BACK_OFF.0;
        while !core.stop.is_set() {
            match self.socket.accept() {
                // The connection to itself that a stop may have made.
                Ok(_) if core.stop.is_set() => break,
                Ok((socket, peer)) => match self.admit(socket, &peer, work) {
                    Ok(()) => pause = BACK_OFF.0,
                    Err(_) => self.back_off(&mut pause),
                },
                Err(error) if is_tick(&error) => {}
                Err(error) if is_gone(&error) => count(&core.counters.accept_errors),
                Err(_) if core.stop.is_set() => break,
                Err(_) => {
                    count(&core.counters.accept_errors);
                    self.back_off(&mut pause);
                }
            }
        }
        Verdict::Stopped
    }

    fn back_off(&self, pause: &mut Duration) {
        self.shared.core.stop.wait(Some(*pause));
        *pause = (*pause * 2).min(BACK_OFF.1);
    }

    /// Gives a connection its thread; fails if there is none to be had.
    fn admit(
        &mut self,
        socket: Socket,
        peer: &SockAddr,
        work: &Arc<impl Fn(Accepted) + Send + Sync + 'static>,
    ) -> io::Result<()> {
        let core = &self.shared.core;
        if core.counters.open.load(Ordering::Acquire) >= self.max_connections as u64 {
            count(&core.counters.refused);
            return Ok(());
        }
        let peer = peer_of(peer);
        let ready =
            socket::set_tick(&SockRef::from(&socket), self.shared.poll_interval).and_then(|()| {
                match peer {
                    Peer::Ip(_) => socket.set_tcp_nodelay(true),
                    Peer::Unix(_) => Ok(()),
                }
            });
        if ready.is_err() {
            // It has gone already.
            count(&core.counters.accept_errors);
            return Ok(());
        }
        self.next_id += 1;
        let id = self.next_id;
        let slot = Slot::take(&self.shared);
        let accepted = Accepted { id, peer, socket: Arc::new(socket), slot };
        let work = Arc::clone(work);
        let started = core.stop.spawn(&format!("{}-{id}", core.name), move || work(accepted));
        count(if started.is_ok() { &core.counters.accepted } else { &core.counters.refused });
        started
    }

    fn interrupter(&self) -> Interrupter {
        let (socket, own) = (Arc::downgrade(&self.socket), self.own);
        Interrupter::new(move || {
            let Some(socket) = socket.upgrade() else { return };
            // Not every system wakes an accept by a shutdown, and a socket that others listen on as
            // well must not be shut down. Where neither helps, the tick will do.
            if !own || socket.shutdown(Shutdown::Both).is_err() {
                let _ = connect_to(&socket);
            }
        })
    }
}

/// Connects to a listening socket and hangs up, without waiting.
fn connect_to(listening: &Socket) -> io::Result<()> {
    let local = listening.local_addr()?;
    let (domain, to) = match local.as_socket() {
        Some(addr) => (Domain::for_address(addr), socket::reach(addr).into()),
        None => (Domain::UNIX, local),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&to)
}

/// Whether an accept failed because the connection had gone before its turn.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

fn peer_of(addr: &SockAddr) -> Peer {
    if let Some(addr) = addr.as_socket() {
        return Peer::Ip(addr);
    }
    #[cfg(unix)]
    return Peer::Unix(addr.as_pathname().map(std::path::Path::to_owned));
    #[cfg(not(unix))]
    Peer::Unix(None)
}

impl<M, C, K> Origin for StreamServer<M, K>
where
    M: Fn() -> C + Send + Sync + 'static,
    C: Decoder + Send + 'static,
    C::Item: Send + 'static,
    C::Error: Error + Send + Sync + 'static,
    K: Send + 'static,
{
    type Item = Incoming<C::Item>;
    type Request = Request<C::Item>;

    fn launch(self, setup: Setup<Self::Item>) -> io::Result<()> {
        let Setup { feed, poll_interval } = setup;
        let (core, last) = (Arc::clone(&feed.core), feed.clone());
        self.accept_on_thread(
            &core,
            poll_interval,
            move |accepted, source| read_connection(accepted, source, &feed),
            move |verdict| last.end(verdict),
        )
    }
}

/// The work of a connection's thread in stream mode.
fn read_connection<C, K>(
    accepted: Accepted,
    source: io::Result<StreamSource<C, K>>,
    feed: &Feed<Incoming<C::Item>>,
) where
    C: Decoder + Send + 'static,
    C::Item: Send + 'static,
    C::Error: Error + Send + Sync + 'static,
    K: Send + 'static,
{
    let Accepted { id, peer, socket, slot } = accepted;
    let core = Arc::clone(&feed.core);
    let connection = Connection::new(id, peer, socket, slot);
    let _nudge = core.stop.register(connection.interrupter());
    let put = |event| feed.put(Incoming { connection: connection.clone(), event });
    let reason = CloseReason::of(judged(|| {
        let mut source = match source {
            Ok(source) => source,
            Err(error) => return Verdict::Failed(error),
        };
        if !put(Event::Opened) {
            return Verdict::Stopped;
        }
        loop {
            if core.stop.is_set() {
                return Verdict::Stopped;
            }
            match source.next_frame() {
                Ok(Some(frame)) => {
                    count(&core.counters.frames);
                    if !put(Event::Frame(frame)) {
                        return Verdict::Stopped;
                    }
                }
                // A stop looks like the peer's end.
                Ok(None) if core.stop.is_set() => return Verdict::Stopped,
                Ok(None) => return Verdict::Finished,
                Err(error) if is_tick(&error) => {}
                Err(error) => return Verdict::Failed(error),
            }
        }
    }));
    if matches!(reason, CloseReason::Frame(_)) {
        count(&core.counters.decode_errors);
    }
    if !matches!(reason, CloseReason::PeerFinished) {
        connection.abort();
    }
    if !matches!(reason, CloseReason::Stopped) {
        put(Event::Closed(reason));
    }
}
