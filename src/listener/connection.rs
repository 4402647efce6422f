//! A server's connection as its answering side sees it.
//!
//! Invariants:
//! 1. Frames leave in the order in which they were given: they enter the queue under the lock, and
//!    only the one writer at a time (`writing`) takes them out.
//! 2. The writer takes the queue, writes without the lock, and gives `writing` up under the lock
//!    only when the queue is empty; so a frame that is queued while somebody writes is written.
//! 3. Once `socket` is gone nothing is queued; whoever takes it away counts what was queued as lost.
//! 4. Waiters are woken, and frames dropped, with no lock held.

use super::accept::Slot;
use super::socket::{self, Line};
use super::source::{Interrupter, is_tick};
use super::stats::count_by;
use super::stream::cut_on_interrupt;
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Deadline, wake};
use bytes::{Buf, Bytes, BytesMut};
use socket2::Socket;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Poll, Waker};
use tokio_util::codec::Encoder;

/// How many pieces one write gathers.
const PIECES: usize = 64;

/// The other end of a connection.
///
/// # Examples
///
/// ```
/// use callbridge::listener::Peer;
///
/// let peer = Peer::Ip("192.0.2.1:4711".parse().unwrap());
/// assert_eq!(peer.to_string(), "192.0.2.1:4711");
/// assert_eq!(Peer::Unix(None).to_string(), "unnamed");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// A TCP peer's address.
    Ip(SocketAddr),
    /// A Unix peer's path; clients rarely have one.
    Unix(Option<PathBuf>),
}

impl Peer {
    /// The address of a TCP peer.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::Peer;
    /// assert_eq!(Peer::Unix(None).as_socket(), None);
    /// ```
    pub fn as_socket(&self) -> Option<SocketAddr> {
        match self {
            Peer::Ip(addr) => Some(*addr),
            Peer::Unix(_) => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(addr) => addr.fmt(f),
            Peer::Unix(Some(path)) => path.display().fmt(f),
            Peer::Unix(None) => f.write_str("unnamed"),
        }
    }
}

/// One connection of a server: who it is, and the way to answer it.
///
/// A cheap clone. A peer that has ended its side can still be answered: the socket is closed when the
/// last clone is dropped, and at once when the connection breaks or the listener stops.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Event, Listener, TcpServer};
/// use std::io::{Read, Write};
/// use tokio_util::codec::LinesCodec;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
/// let mut client = std::net::TcpStream::connect(server.local_addr()?)?;
/// let (_listener, mut events) = Listener::builder(server).spawn()?;
/// client.write_all(b"hello\n")?;
///
/// while let Some(incoming) = events.recv().await {
///     if let Event::Frame(line) = incoming.event {
///         let reply = format!("{line} yourself\n");
///         incoming.connection.send(reply.into()).await.expect("the client is there");
///         break;
///     }
/// }
/// let mut answer = [0; 15];
/// client.read_exact(&mut answer)?;
/// assert_eq!(&answer, b"hello yourself\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connection {
    core: Arc<Core>,
}

struct Core {
    id: u64,
    peer: Peer,
    /// What all connections of the server share, and this one's place among them.
    server: Slot,
    outbox: Mutex<Outbox>,
}

struct Outbox {
    /// Taken away when the connection is over.
    socket: Option<Arc<Line>>,
    /// What waits for the writer.
    queue: VecDeque<Piece>,
    /// The bytes that were accepted and haven't left, those in the writer's hands included.
    pending: usize,
    /// Whether somebody writes.
    writing: bool,
    /// Whether nothing more is taken, and the connection ends when the queue is empty.
    closing: bool,
    /// Who waits for `pending` to fall.
    waiters: Vec<Waker>,
}

/// What leaves together.
struct Piece {
    bytes: Bytes,
    /// How many answers it holds; one that has left in part counts as lost if the rest can't leave.
    answers: usize,
}

/// What became of an attempt to hand over an answer.
enum Offer {
    Taken,
    Full(Bytes),
    Closed(Bytes),
}

/// Why an answer was not taken; it is inside.
///
/// # Examples
///
/// ```
/// use callbridge::listener::AnswerError;
///
/// let error = AnswerError::Full("answer".into());
/// assert!(error.to_string().starts_with("the peer reads too slowly"));
/// assert_eq!(error.into_inner(), "answer");
/// ```
#[derive(PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// More than the connection's budget waits for the peer to read.
    #[error("the peer reads too slowly: wait with send, or drop the answer")]
    Full(Bytes),
    /// The connection has ended, or the listener has stopped.
    #[error("the connection is closed: nobody is there to answer")]
    Closed(Bytes),
}

impl AnswerError {
    /// The answer that was not taken.
    ///
    /// # Examples
    ///
    /// See [`AnswerError`].
    pub fn into_inner(self) -> Bytes {
        match self {
            AnswerError::Full(answer) | AnswerError::Closed(answer) => answer,
        }
    }
}

impl fmt::Debug for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AnswerError::Full(_) => "Full(..)",
            AnswerError::Closed(_) => "Closed(..)",
        })
    }
}

impl Connection {
    pub(super) fn new(id: u64, peer: Peer, socket: Arc<Line>, server: Slot) -> Self {
        let outbox = Outbox {
            socket: Some(socket),
            queue: VecDeque::new(),
            pending: 0,
            writing: false,
            closing: false,
            waiters: Vec::new(),
        };
        Connection { core: Arc::new(Core { id, peer, server, outbox: Mutex::new(outbox) }) }
    }

    /// The connection's number: 1 for the first that the listener has accepted, and so on.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::{Listener, TcpServer};
    /// # use std::time::Duration;
    /// # use tokio_util::codec::LinesCodec;
    /// # fn main() -> std::io::Result<()> {
    /// # let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
    /// # let addr = server.local_addr()?;
    /// # let (listener, mut events) = Listener::builder(server).spawn()?;
    /// let client = std::net::TcpStream::connect(addr)?;
    /// let connection = events.recv_blocking(Duration::from_secs(5)).unwrap().connection;
    /// assert_eq!(connection.id(), 1);
    /// assert_eq!(connection.peer().as_socket(), Some(client.local_addr()?));
    /// assert!(connection.is_open());
    /// assert_eq!(connection.pending(), 0);
    /// let _ = listener.shutdown_blocking(Duration::from_secs(5));
    /// assert!(!connection.is_open());
    /// # Ok(())
    /// # }
    /// ```
    pub fn id(&self) -> u64 {
        self.core.id
    }

    /// The other end.
    ///
    /// # Examples
    ///
    /// See [`id`](Self::id).
    pub fn peer(&self) -> &Peer {
        &self.core.peer
    }

    /// Whether answers are still taken.
    ///
    /// # Examples
    ///
    /// See [`id`](Self::id).
    pub fn is_open(&self) -> bool {
        let outbox = lock(&self.core.outbox);
        outbox.socket.is_some() && !outbox.closing
    }

    /// How many bytes of answers wait for the peer to read, those in the kernel not included.
    ///
    /// # Examples
    ///
    /// See [`id`](Self::id).
    pub fn pending(&self) -> usize {
        lock(&self.core.outbox).pending
    }

    /// Sends bytes that are encoded already, after everything given before.
    ///
    /// Ready once the bytes are the kernel's or queued behind earlier ones; waits while more than
    /// the server's [`answer_budget`](super::StreamServer::with_answer_budget) is queued. A peer that
    /// doesn't read for [`write_timeout`](super::ListenerBuilder::write_timeout) loses its connection, and
    /// what was queued for it is counted as lost.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, nothing was sent and the answer is dropped.
    ///
    /// # Errors
    ///
    /// [`AnswerError::Closed`], with the bytes, when the connection is over.
    ///
    /// # Examples
    ///
    /// See [`Connection`].
    pub async fn send(&self, answer: Bytes) -> Result<(), AnswerError> {
        let mut answer = Some(answer);
        poll_fn(|cx| {
            let bytes = answer.take().unwrap_or_default();
            match self.offer(bytes, 1, Some(cx.waker())) {
                Offer::Taken => Poll::Ready(Ok(())),
                Offer::Closed(bytes) => Poll::Ready(Err(AnswerError::Closed(bytes))),
                Offer::Full(bytes) => {
                    answer = Some(bytes);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// As [`send`](Self::send), but never waits.
    ///
    /// # Errors
    ///
    /// Hands the bytes back when too much is queued, and when the connection is over.
    ///
    /// # Examples
    ///
    /// See [`AnswerError`].
    pub fn try_send(&self, answer: Bytes) -> Result<(), AnswerError> {
        match self.offer(answer, 1, None) {
            Offer::Taken => Ok(()),
            Offer::Full(answer) => Err(AnswerError::Full(answer)),
            Offer::Closed(answer) => Err(AnswerError::Closed(answer)),
        }
    }

    /// Takes no more answers, and closes the connection once those that are queued have left.
    ///
    /// Frames that the peer still sends are not read any more then.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{AnswerError, Connection};
    ///
    /// fn say_goodbye(connection: &Connection) -> Result<(), AnswerError> {
    ///     connection.try_send("goodbye\n".into())?;
    ///     connection.close();
    ///     Ok(())
    /// }
    /// # let _ = say_goodbye;
    /// ```
    pub fn close(&self) {
        let idle = {
            let mut outbox = lock(&self.core.outbox);
            outbox.closing = true;
            !outbox.writing
        };
        if idle {
            self.abort();
        }
    }

    /// Closes the connection at once; what is queued is lost and counted.
    pub(super) fn abort(&self) {
        self.core.close(0);
    }

    /// An answering side that encodes: `encoder` is as a rule the codec that the server was given.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Connection, ConnectionReplier};
    /// use tokio_util::codec::LinesCodec;
    ///
    /// async fn greet(connection: &Connection) -> std::io::Result<()> {
    ///     let mut replier = connection.replier(LinesCodec::new());
    ///     replier.send("hello").await
    /// }
    /// # let _ = greet;
    /// ```
    pub fn replier<E>(&self, encoder: E) -> ConnectionReplier<E> {
        ConnectionReplier { connection: self.clone(), encoder, buffer: BytesMut::new(), fed: 0 }
    }

    fn offer(&self, answer: Bytes, answers: usize, waker: Option<&Waker>) -> Offer {
        let core = &self.core;
        let socket = {
            let mut outbox = lock(&core.outbox);
            let socket = match &outbox.socket {
                Some(socket) if !outbox.closing => Arc::clone(socket),
                _ => return Offer::Closed(answer),
            };
            let room = core.server.answer_budget.saturating_sub(outbox.pending);
            if outbox.pending > 0 && answer.len() > room {
                if let Some(waker) = waker {
                    outbox.waiters.push(waker.clone());
                }
                return Offer::Full(answer);
            }
            if answer.is_empty() {
                return Offer::Taken;
            }
            outbox.pending += answer.len();
            outbox.queue.push_back(Piece { bytes: answer, answers });
            if std::mem::replace(&mut outbox.writing, true) {
                return Offer::Taken;
            }
            socket
        };
        core.write_now(&socket);
        Offer::Taken
    }

    pub(super) fn interrupter(&self) -> Interrupter {
        match &lock(&self.core.outbox).socket {
            Some(socket) => cut_on_interrupt(socket),
            None => Interrupter::none(),
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id()).field("peer", self.peer()).finish()
    }
}

impl Core {
    /// Writes what the kernel takes at once; the rest is left to a thread.
    fn write_now(self: &Arc<Self>, socket: &Arc<Line>) {
        let mut batch = VecDeque::new();
        while socket::can_send_now() && self.next_batch(&mut batch) {
            match send(socket, &batch, false) {
                Ok(written) => self.advance(&mut batch, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return self.close(answers_in(&batch)),
            }
        }
        if batch.is_empty() && socket::can_send_now() {
            return;
        }
        let (core, socket) = (Arc::clone(self), Arc::clone(socket));
        let (stop, queued) = (Arc::clone(&self.server.core.stop), answers_in(&batch));
        let name = format!("{}-{}-out", self.server.core.name, self.id);
        if stop.spawn(&name, move || core.write_slowly(&socket, batch)).is_err() {
            self.close(queued);
        }
    }

    /// Writes until nothing is queued; runs on a thread of its own.
    fn write_slowly(self: &Arc<Self>, socket: &Arc<Line>, mut batch: VecDeque<Piece>) {
        let _nudge = self.server.core.stop.register(cut_on_interrupt(socket));
        let mut patience = Deadline::after(Some(self.server.core.write_timeout));
        while self.next_batch(&mut batch) {
            match send(socket, &batch, true) {
                Ok(written) => {
                    self.advance(&mut batch, written);
                    patience = Deadline::after(Some(self.server.core.write_timeout));
                }
                Err(error) if is_tick(&error) => {
                    if self.server.core.stop.is_set() || patience.passed() {
                        return self.close(answers_in(&batch));
                    }
                }
                Err(_) => return self.close(answers_in(&batch)),
            }
        }
    }

    /// Refills a used-up batch from the queue; false, with the writing given up, if it is empty.
    fn next_batch(&self, batch: &mut VecDeque<Piece>) -> bool {
        if batch.is_empty() {
            let mut outbox = lock(&self.outbox);
            if outbox.queue.is_empty() {
                outbox.writing = false;
                let closing = outbox.closing;
                drop(outbox);
                if closing {
                    self.close(0);
                }
                return false;
            }
            std::mem::swap(batch, &mut outbox.queue);
        }
        true
    }

    /// Drops what was written and lets waiters know of the room.
    fn advance(&self, batch: &mut VecDeque<Piece>, mut written: usize) {
        let waiters = {
            let mut outbox = lock(&self.outbox);
            outbox.pending = outbox.pending.saturating_sub(written);
            std::mem::take(&mut outbox.waiters)
        };
        waiters.into_iter().for_each(wake);
        while let Some(Piece { bytes, .. }) = batch.front_mut() {
            if written < bytes.len() {
                bytes.advance(written);
                return;
            }
            written -= bytes.len();
            batch.pop_front();
        }
    }

    fn lose(&self, answers: usize) {
        count_by(&self.server.core.counters.answers_lost, answers);
    }

    /// Ends the connection; `unsent` answers are lost besides those in the queue.
    fn close(&self, unsent: usize) {
        let (socket, queue, waiters) = {
            let mut outbox = lock(&self.outbox);
            outbox.pending = 0;
            (
                outbox.socket.take(),
                std::mem::take(&mut outbox.queue),
                std::mem::take(&mut outbox.waiters),
            )
        };
        self.lose(unsent + answers_in(&queue));
        if let Some(socket) = socket {
            // The reading side, if it is still there, wakes up and ends as well.
            socket.cut();
        }
        waiters.into_iter().for_each(wake);
    }
}

fn answers_in(pieces: &VecDeque<Piece>) -> usize {
    pieces.iter().map(|piece| piece.answers).sum()
}

fn send(socket: &Socket, batch: &VecDeque<Piece>, wait: bool) -> io::Result<usize> {
    let mut pieces = [IoSlice::new(&[]); PIECES];
    let count = batch.len().min(PIECES);
    for (slot, piece) in pieces.iter_mut().zip(batch) {
        *slot = IoSlice::new(&piece.bytes);
    }
    socket::send_pieces(socket, &pieces[..count], wait)
}

/// The answering side of a connection together with an encoder.
///
/// [`send`](Self::send) writes each answer; [`feed`](Self::feed) collects answers that one
/// [`flush`](Self::flush) writes together, which is several times faster where they come in batches,
/// as from [`recv_many`](crate::FrameStream::recv_many).
///
/// What was fed and can't leave (the connection is over, or the replier is dropped unflushed) is
/// counted in [`ListenerStats::answers_lost`](super::ListenerStats::answers_lost).
///
/// # Examples
///
/// See [`StreamServer`](super::StreamServer) for one per connection.
///
/// ```
/// use callbridge::listener::{Connection, ConnectionReplier};
/// use tokio_util::codec::LinesCodec;
///
/// async fn count_to_three(replier: &mut ConnectionReplier<LinesCodec>) -> std::io::Result<()> {
///     for number in ["one", "two", "three"] {
///         replier.feed(number)?;
///     }
///     replier.flush().await
/// }
/// # let _ = count_to_three;
/// ```
pub struct ConnectionReplier<E> {
    connection: Connection,
    encoder: E,
    /// Encoded answers that weren't handed over yet; used again once they have left.
    buffer: BytesMut,
    /// How many answers are in the buffer.
    fed: usize,
}

impl<E> ConnectionReplier<E> {
    /// Encodes `item` after what was fed before; nothing leaves before [`flush`](Self::flush).
    ///
    /// Never waits. What is fed has no bound but the memory: flush after each batch.
    ///
    /// # Errors
    ///
    /// [`InvalidData`](ErrorKind::InvalidData) when the encoder refuses the item; what was fed
    /// before stays.
    ///
    /// # Examples
    ///
    /// See [`ConnectionReplier`].
    pub fn feed<I>(&mut self, item: I) -> io::Result<()>
    where
        E: Encoder<I>,
        E::Error: std::error::Error + Send + Sync + 'static,
    {
        let before = self.buffer.len();
        if let Err(error) = self.encoder.encode(item, &mut self.buffer) {
            self.buffer.truncate(before);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        self.fed += 1;
        Ok(())
    }

    /// Sends what was fed, in one write if the kernel takes it, and waits as [`Connection::send`] does.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, nothing was sent; what was fed stays for the next `flush`.
    ///
    /// # Errors
    ///
    /// [`NotConnected`](ErrorKind::NotConnected) when the connection is over; what was fed is then
    /// dropped and counted as lost.
    ///
    /// # Examples
    ///
    /// See [`ConnectionReplier`].
    pub async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| {
            let answers = std::mem::take(&mut self.fed);
            match self.connection.offer(self.buffer.split().freeze(), answers, Some(cx.waker())) {
                Offer::Taken => Poll::Ready(Ok(())),
                Offer::Full(bytes) => {
                    self.fed = answers;
                    self.buffer = BytesMut::from(bytes);
                    Poll::Pending
                }
                Offer::Closed(_) => {
                    self.connection.core.lose(answers);
                    Poll::Ready(Err(io::Error::new(
                        ErrorKind::NotConnected,
                        "the connection is closed: nobody is there to answer",
                    )))
                }
            }
        })
        .await
    }

    /// Feeds `item` and flushes.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits, nothing was sent; the item stays fed, and leaves with the next flush.
    ///
    /// # Errors
    ///
    /// As [`feed`](Self::feed) and [`flush`](Self::flush).
    ///
    /// # Examples
    ///
    /// See [`Connection::replier`].
    pub async fn send<I>(&mut self, item: I) -> io::Result<()>
    where
        E: Encoder<I>,
        E::Error: std::error::Error + Send + Sync + 'static,
    {
        self.feed(item)?;
        self.flush().await
    }

    /// The connection that is answered.
    ///
    /// # Examples
    ///
    /// See [`Connection::replier`].
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl<E> Drop for ConnectionReplier<E> {
    fn drop(&mut self) {
        self.connection.core.lose(self.fed);
    }
}

impl<E> fmt::Debug for ConnectionReplier<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnectionReplier").field(&self.connection).finish()
    }
}
