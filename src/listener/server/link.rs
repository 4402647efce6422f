//! What the two sides of a server's connection share: its thread, and async code.
//!
//! Invariants:
//! 1. Bytes enter `queued` under the lock, and leave it in order, under the lock: whoever writes takes
//!    them from the front.
//! 2. Once `socket` is gone nothing is queued; whoever takes it away counts what was queued as lost.
//! 3. Wakers are woken with the lock released.

use super::super::builder::Options;
use super::super::core::Core;
use super::super::source::outbox::Outbox;
use super::super::source::socket;
use super::super::stats::count_by;
use super::super::wake::Wake;
use super::Peer;
use crate::sync::Monitor;
use crate::sync::prim::atomic::{AtomicBool, Ordering};
use socket2::Socket;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio_util::sync::CancellationToken;

/// One connection.
pub(crate) struct Link {
    id: u64,
    peer: Peer,
    pub(crate) wake: Arc<Wake>,
    core: Arc<Core>,
    /// This side wants no more of it.
    closing: AtomicBool,
    /// Whoever was given the connection has begun with it.
    in_use: AtomicBool,
    /// Cancelled when nothing more comes from the peer.
    gone: CancellationToken,
    outgoing: Monitor<Outgoing>,
}

#[derive(Default)]
struct Outgoing {
    socket: Option<Arc<Socket>>,
    queued: Outbox,
    /// How many bytes and frames were queued together; the bytes shrink as they leave.
    batches: VecDeque<(usize, usize)>,
    /// How many bytes have left so far.
    written: u64,
    /// Nothing more will be queued.
    over: bool,
}

impl Outgoing {
    /// Writes what fits now; the bytes that left.
    fn write(&mut self) -> io::Result<usize> {
        let Some(socket) = self.socket.clone() else { return Err(closed()) };
        let mut all = 0;
        while self.queued.len() > 0 {
            let before = self.queued.len();
            match self.queued.write(|bytes| socket::send_now(&socket, bytes)) {
                Ok(_) => {
                    let written = before - self.queued.len();
                    self.forget(written);
                    all += written;
                    self.written += written as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) if all > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    fn forget(&mut self, mut written: usize) {
        while let Some((bytes, _)) = self.batches.front_mut() {
            if written < *bytes {
                *bytes -= written;
                return;
            }
            written -= *bytes;
            self.batches.pop_front();
        }
    }

    /// Gives the socket up; how many frames are lost by that.
    fn give_up(&mut self) -> (Option<Arc<Socket>>, usize) {
        self.over = true;
        self.queued = Outbox::default();
        let lost = std::mem::take(&mut self.batches).iter().map(|(_, frames)| frames).sum();
        (self.socket.take(), lost)
    }
}

impl Link {
    pub(super) fn new(id: u64, peer: Peer, core: &Arc<Core>, socket: Arc<Socket>) -> Arc<Self> {
        Link::with(id, peer, core, Some(socket))
    }

    fn with(id: u64, peer: Peer, core: &Arc<Core>, socket: Option<Arc<Socket>>) -> Arc<Self> {
        Arc::new(Link {
            id,
            peer,
            wake: Wake::new(),
            core: Arc::clone(core),
            closing: AtomicBool::new(false),
            in_use: AtomicBool::new(false),
            gone: CancellationToken::new(),
            outgoing: Monitor::new(Outgoing { socket, ..Outgoing::default() }),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn is_closing(&self) -> bool {
        // Pairs with the store in `close`.
        self.closing.load(Ordering::Acquire)
    }

    /// Has the thread read no more, write what is queued, and end the connection.
    pub(super) fn close(&self) {
        // Pairs with the load in `is_closing`.
        self.closing.store(true, Ordering::Release);
        self.finish_writing();
        self.gone.cancel();
        self.wake.notify();
    }

    /// Notes that somebody has begun with the connection. Only a hint: a close that begins meanwhile may be
    /// the earlier of the two.
    pub(super) fn use_it(&self) {
        self.in_use.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Whether somebody may still write; if the listener is `ending`, who has begun already.
    pub(super) fn is_open(&self, ending: bool) -> bool {
        !self.is_over() && (!ending || self.is_in_use())
    }

    /// Nothing more will be queued.
    pub(super) fn finish_writing(&self) {
        self.outgoing.change(|outgoing| outgoing.over = true);
        self.wake.notify();
    }

    /// Ends the write side, of which everything has left.
    pub(super) fn shut_down_writing(&self) -> io::Result<()> {
        self.outgoing.change(|outgoing| {
            outgoing.over = true;
            match &outgoing.socket {
                Some(socket) => socket.shutdown(Shutdown::Write),
                None => Ok(()),
            }
        })?;
        // It may be over now: the peer may have ended its side before.
        self.wake.notify();
        Ok(())
    }

    /// Nothing more comes from the peer.
    pub(crate) fn peer_is_gone(&self) {
        self.gone.cancel();
    }

    /// The connection is over: what is queued is lost.
    pub(crate) fn end(&self) {
        self.gone.cancel();
        let (socket, lost) = self.outgoing.change(Outgoing::give_up);
        drop(socket);
        self.lose(lost);
    }

    pub(super) fn lose(&self, frames: usize) {
        count_by(&self.core.counters.replies_lost, frames);
    }

    /// Queues bytes of so many frames, and writes what fits now.
    pub(super) fn queue(&self, encoded: &mut Outbox, frames: usize) -> io::Result<()> {
        let rest = self.outgoing.with(|outgoing| {
            if outgoing.socket.is_none() || outgoing.over {
                return Err(closed());
            }
            let first = outgoing.queued.len() == 0;
            outgoing.batches.push_back((encoded.len(), frames));
            outgoing.queued.append(encoded);
            if first {
                match outgoing.write() {
                    Err(error) if error.kind() != ErrorKind::WouldBlock => {
                        // The caller counts what is lost by it.
                        outgoing.batches.clear();
                        outgoing.give_up();
                        return Err(error);
                    }
                    _ => {}
                }
            }
            Ok(outgoing.queued.len() > 0)
        });
        if !matches!(rest, Ok(false)) {
            // To write the rest; or it is over now, and the thread may wait for nothing else.
            self.wake.notify();
        }
        rest.map(drop)
    }

    /// Waits until at most `most` bytes are queued.
    pub(super) fn poll_queued(
        &self,
        most: usize,
        ticket: &mut Option<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.outgoing.poll(ticket, cx, |outgoing| match outgoing.socket {
            None => Some(Err(closed())),
            Some(_) => (outgoing.queued.len() <= most).then_some(Ok(())),
        })
    }

    pub(super) fn forget(&self, ticket: u64) {
        self.outgoing.forget(ticket);
    }

    /// Writes what fits now; a timeout if it wasn't all. Any other error is the end of writing: nobody waits
    /// any longer for what is queued to leave.
    pub(super) fn write(&self) -> io::Result<()> {
        let (result, lost, changed) = self.outgoing.with(|outgoing| {
            if outgoing.queued.len() == 0 {
                return (Ok(()), 0, false);
            }
            match outgoing.write() {
                Ok(_) if outgoing.queued.len() == 0 => (Ok(()), 0, true),
                Ok(_) => (Err(ErrorKind::WouldBlock.into()), 0, true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => (Err(error), 0, false),
                Err(error) => (Err(error), outgoing.give_up().1, true),
            }
        });
        if changed {
            // Whoever looked before is woken; whoever looks now sees it.
            self.outgoing.change(|_| ());
        }
        self.lose(lost);
        result
    }

    pub(super) fn written(&self) -> u64 {
        self.outgoing.with(|outgoing| outgoing.written)
    }

    fn is_over(&self) -> bool {
        self.outgoing.with(|outgoing| outgoing.over)
    }
}

fn closed() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "the connection is closed: nobody is there to write to")
}

/// A handle of a server's connection: it tells the peer and whether the connection is open, and
/// closes it.
///
/// A cheap clone; it doesn't keep the connection open.
///
/// # Examples
///
/// ```
/// use callbridge::Bridge;
/// use callbridge::listener::{Listener, Request, TcpServer};
/// use std::io::{BufRead, BufReader, Write};
/// use tokio_util::codec::LinesCodec;
///
/// # fn main() -> std::io::Result<()> {
/// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// # let bridge = Bridge::new(runtime.handle().clone());
/// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
/// let addr = server.local_addr()?;
/// let _listener = Listener::builder(server)
///     .serve(&bridge, |request: Request<String>| async move {
///         if request.frame == "QUIT" {
///             request.connection.close(); // this reply still leaves
///         }
///         Some("bye")
///     })
///     .spawn()?;
///
/// let mut client = std::net::TcpStream::connect(addr)?;
/// client.write_all(b"QUIT\n")?;
/// let lines: Vec<_> = BufReader::new(client).lines().collect::<Result<_, _>>()?;
/// assert_eq!(lines, ["bye"]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ConnectionHandle {
    pub(crate) link: Arc<Link>,
}

impl ConnectionHandle {
    /// Of a connection without a socket.
    pub(crate) fn detached() -> Self {
        let core = Core::new(&mut Options::default());
        let link = Link::with(0, Peer::Unix(None), &core, None);
        link.end();
        ConnectionHandle { link }
    }

    /// The connection's number: they count up from 1.
    pub fn id(&self) -> u64 {
        self.link.id
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.link.peer
    }

    /// Whether the connection is open: neither side has ended it.
    pub fn is_open(&self) -> bool {
        !self.link.gone.is_cancelled()
    }

    /// Ends the connection: nothing more is read, what is queued or being answered is written, then the
    /// peer sees the end. A frame that has been read and finds the connection's channel full is lost.
    ///
    /// Returns at once. The thread waits for the peer's own end for as long as
    /// [`with_linger`](super::StreamServer::with_linger) says, so that nothing that was written is lost.
    pub fn close(&self) {
        self.link.close();
    }

    /// A token that is cancelled when nothing more comes from the peer, or the connection is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::Request;
    ///
    /// async fn handler(request: Request<String>) -> Option<String> {
    ///     tokio::select! {
    ///         () = request.connection.gone().cancelled_owned() => None,
    ///         reply = async { Some(request.frame.clone()) } => reply,
    ///     }
    /// }
    /// # let _ = handler;
    /// ```
    pub fn gone(&self) -> CancellationToken {
        self.link.gone.clone()
    }
}

impl fmt::Debug for ConnectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionHandle")
            .field("id", &self.id())
            .field("peer", self.peer())
            .finish()
    }
}
