//! Stream servers: a thread that accepts, and a thread for each connection.

use super::accept::{Accepted, Acceptor, Shared};
use super::builder::{Origin, Setup};
use super::connection::Connection;
use super::core::{Core, Feed, Panicked, Verdict, judged};
use super::framing::check_limit;
use super::incoming::{CloseReason, Event, Incoming};
use super::serve::Request;
use super::socket::{self, POLL_INTERVAL};
use super::source::{FrameSource, is_tick};
use super::stats::count;
use super::stream::{StreamSource, Tcp};
use socket2::{Domain, SockRef, Socket, Type};
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::marker::PhantomData;
use std::net::{SocketAddr, ToSocketAddrs};
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
/// wake-up per 20 poll intervals (1 s unless told) while its peer is silent.
///
/// # Examples
///
/// Answering from the stream side takes a [`ConnectionReplier`](super::ConnectionReplier) for each
/// connection, kept from `Opened` to `Closed`; what one `recv_many` brings is answered with one write
/// per connection. A `flush` waits for a peer that doesn't read once its budget is used up, and holds
/// up the peers behind it until [`write_timeout`](super::ListenerBuilder::write_timeout): where peers
/// don't trust each other, give each connection a task of its own, or use
/// [`Connection::try_send`](super::Connection::try_send) and close who is too slow.
///
/// ```
/// use callbridge::listener::{Event, Listener, TcpServer};
/// use std::collections::HashMap;
/// use std::io::{BufRead, BufReader, Write};
/// use tokio_util::codec::LinesCodec;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?.with_max_connections(100);
/// let (listener, mut events) = Listener::builder(server).spawn()?;
/// # let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap())?;
/// # client.write_all(b"hello\nagain\n")?;
/// # client.shutdown(std::net::Shutdown::Write)?;
///
/// let (mut repliers, mut batch) = (HashMap::new(), Vec::new());
/// while events.recv_many(&mut batch, 64).await > 0 {
///     for incoming in batch.drain(..) {
///         let id = incoming.connection.id();
///         match incoming.event {
///             Event::Opened => {
///                 repliers.insert(id, incoming.connection.replier(LinesCodec::new()));
///             }
///             Event::Frame(line) => {
///                 if let Some(replier) = repliers.get_mut(&id) {
///                     replier.feed(format!("{line} yourself"))?;
///                 }
///             }
///             Event::Closed(_) => {
///                 // The connection is closed with the last handle on it.
///                 if let Some(mut replier) = repliers.remove(&id) {
///                     let _ = replier.flush().await;
///                 }
/// #               listener.stop();
///             }
///             _ => {}
///         }
///     }
///     for replier in repliers.values_mut() {
///         // Fails when the connection is over; its `Closed` comes next.
///         let _ = replier.flush().await;
///     }
/// }
/// # let mut answers = BufReader::new(client).lines();
/// # assert_eq!(answers.next().unwrap()?, "hello yourself");
/// # assert_eq!(answers.next().unwrap()?, "again yourself");
/// # Ok(())
/// # }
/// ```
///
/// `LinesCodec`, which the examples use for its brevity, refuses bytes that aren't UTF-8 and takes a
/// carriage return off the end of a line: an echo through it isn't exact.
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
    /// [`ReadSource::new`](super::ReadSource::new): on the wire, header and delimiter included, so
    /// for length framing it is the longest payload and 4 bytes. Give the codec the payload's limit,
    /// too, since it reserves room for a frame as soon as it has read the length. On Unix the address
    /// may be in use by closed connections of an earlier run (`SO_REUSEADDR`).
    ///
    /// # Errors
    ///
    /// What the system says, and [`InvalidInput`](ErrorKind::InvalidInput) when `max_frame` is 0.
    ///
    /// # Examples
    ///
    /// Frames of at most 64 KiB, each behind its length:
    ///
    /// ```
    /// use callbridge::listener::TcpServer;
    /// use tokio_util::codec::LengthDelimitedCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// const LONGEST: usize = 64 * 1024;
    /// let codec = LengthDelimitedCodec::builder().max_frame_length(LONGEST).new_codec();
    /// let server = TcpServer::bind("127.0.0.1:0", LONGEST + 4, move || codec.clone())?;
    /// assert_ne!(server.local_addr()?.port(), 0);
    /// # Ok(())
    /// # }
    /// ```
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
        socket::set_tick(&SockRef::from(&*self.socket), poll_interval, poll_interval)?;
        core.set_address(self.socket.local_addr().ok().and_then(|at| at.as_socket()));
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
    let mut reason = CloseReason::of(judged(|| {
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
    match reason {
        // What is queued for the peer still leaves.
        CloseReason::PeerFinished if !connection.is_open() => reason = CloseReason::Closed,
        CloseReason::PeerFinished => {}
        _ => connection.abort(),
    }
    if !matches!(reason, CloseReason::Stopped) {
        put(Event::Closed(reason));
    }
}
