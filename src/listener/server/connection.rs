use super::super::core::{End, Feed, judged};
use super::super::driver::Driver;
use super::super::pump::{Outflow, Writing, lose_buffered, may_follow, pump};
use super::super::source::outbox::Outbox;
use super::super::source::{FrameSource, StreamKind, StreamSource};
use super::super::stop::Phase;
use super::Peer;
use super::accept::{Accepted, Terms};
use super::link::{ConnectionHandle, Link};
use crate::channel::{self, Ending, FrameStream};
use crate::sync::contain;
use futures_core::Stream;
use futures_sink::Sink;
use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio_util::codec::{Decoder, Encoder};

/// So many encoded bytes are collected before they are handed on without a flush.
const HANDED_ON: usize = 8 * 1024;

/// A connection of a [`StreamServer`](super::StreamServer): a stream of its peer's frames, and a sink of frames to
/// the peer, as a tokio-util `Framed` is.
///
/// The stream gives the frames in order, then an error if the connection broke, its bytes made no frame or
/// its peer was silent for too long, then the end. Each connection has a channel of its own
/// ([`with_connection_capacity`](super::StreamServer::with_connection_capacity)): one whose frames nobody
/// takes is read no further, which costs nobody else.
///
/// The sink encodes and writes at once what the kernel takes; what it doesn't take is written by the
/// connection's thread, up to [`with_write_buffer`](super::StreamServer::with_write_buffer) bytes. More
/// than that waits. Closing the sink ends the write side; the peer may still send.
///
/// An error that tells of bytes which made no frame is found by
/// [`FrameError::find`](crate::listener::FrameError::find).
///
/// Dropping the connection closes it as [`ConnectionHandle::close`] does: what was flushed still leaves. A
/// [`close`](crate::Listener::close) of the listener waits for connections that somebody holds and has begun with,
/// since they may still answer; those that nobody has taken from the stream end at once, and lose what finds
/// their channel full.
///
/// # Examples
///
/// Echo, by the adapters that every Rust programmer knows:
///
/// ```
/// use callbridge::listener::{Listener, TcpServer};
/// use futures_util::StreamExt;
/// use std::io::{BufRead, BufReader, Write};
/// use tokio_util::codec::LinesCodec;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
/// let addr = server.local_addr()?;
/// let (_listener, mut connections) = Listener::builder(server).spawn()?;
///
/// let mut client = std::net::TcpStream::connect(addr)?;
/// client.write_all(b"hello\n")?;
///
/// let connection = connections.recv().await.expect("a client has connected");
/// assert_eq!(connection.peer().as_socket(), client.local_addr().ok());
/// assert_eq!(connection.id(), 1);
/// assert!(connection.handle().is_open());
/// tokio::spawn(async move {
///     let (sink, stream) = connection.split::<String>();
///     stream.forward(sink).await
/// });
/// # let line = tokio::task::spawn_blocking(move || {
/// let mut line = String::new();
/// BufReader::new(&client).read_line(&mut line)?;
/// # std::io::Result::Ok(line) }).await??;
/// assert_eq!(line, "hello\n");
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a connection closes it"]
pub struct Connection<C: Decoder> {
    frames: FrameStream<C::Item>,
    error_was_told: bool,
    encoder: C,
    /// Encoded frames that weren't handed on, and how many.
    buffer: Outbox,
    fed: usize,
    most_queued: usize,
    ticket: Option<u64>,
    handle: ConnectionHandle,
}

impl<C: Decoder> Unpin for Connection<C> {}

impl<C: Decoder> Connection<C> {
    /// Starts the connection's thread.
    pub(super) fn start<K>(
        accepted: Accepted,
        terms: &Terms,
        core: &Arc<super::super::core::Core>,
        make: &(impl Fn() -> C + Sync),
    ) -> io::Result<Self>
    where
        C: Send + 'static,
        C::Item: Send + 'static,
        C::Error: Error + Send + Sync + 'static,
        K: StreamKind,
    {
        let link = Arc::clone(&accepted.link);
        let (decoder, encoder) = (make(), make());
        let source = StreamSource::<C, K>::over_own(
            Arc::clone(&accepted.socket),
            accepted.max_frame,
            decoder,
        )?;
        let (sender, frames) = channel::builder().capacity(terms.capacity).build()?;
        let dropped = Arc::downgrade(&link);
        sender.on_termination(move |ending| {
            if let (Ending::ConsumerDropped, Some(link)) = (ending, dropped.upgrade()) {
                link.close();
            }
        });
        let feed = Feed { sender, core: Arc::clone(core) };
        let name = thread_name(link.id(), &core.name);
        core.stop.spawn(&name, move || run(accepted, source, &feed))?;
        Ok(Connection {
            frames,
            error_was_told: false,
            encoder,
            buffer: Outbox::default(),
            fed: 0,
            most_queued: terms.write_buffer,
            ticket: None,
            handle: ConnectionHandle { link },
        })
    }

    /// The connection's number: they count up from 1.
    pub fn id(&self) -> u64 {
        self.handle.id()
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        self.handle.peer()
    }

    /// Returns a handle to keep elsewhere: it tells whose the connection is, and closes it.
    pub fn handle(&self) -> ConnectionHandle {
        self.handle.link.use_it();
        self.handle.clone()
    }

    /// The stream of frames, for what a [`FrameStream`] can do beyond being a stream: receive many, or
    /// blocking, and its statistics.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::{Listener, TcpServer};
    /// # use std::io::Write;
    /// # use std::time::Duration;
    /// # use tokio_util::codec::LinesCodec;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
    /// let addr = server.local_addr()?;
    /// let (_listener, mut connections) = Listener::builder(server).spawn()?;
    /// std::net::TcpStream::connect(addr)?.write_all(b"hello\n")?;
    /// let mut connection = connections.recv_blocking(Duration::from_secs(5)).unwrap();
    /// let line = connection.frames().recv_blocking(Duration::from_secs(5));
    /// assert_eq!(line.unwrap(), "hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn frames(&mut self) -> &mut FrameStream<C::Item> {
        self.handle.link.use_it();
        &mut self.frames
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<C::Item>>> {
        self.handle.link.use_it();
        match ready!(self.frames.poll_recv(cx)) {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None if std::mem::replace(&mut self.error_was_told, true) => Poll::Ready(None),
            None => Poll::Ready(match self.frames.ending() {
                Some(Ending::Failed) => self.frames.error().map(|error| Err(into_io(error))),
                Some(Ending::Panicked) => Some(Err(io::Error::other("the decoder panicked"))),
                _ => None,
            }),
        }
    }

    /// Hands what was fed to the thread.
    fn hand_on(&mut self) -> io::Result<()> {
        if self.buffer.len() == 0 {
            return Ok(());
        }
        let frames = std::mem::take(&mut self.fed);
        let link = &self.handle.link;
        link.queue(&mut self.buffer, frames).inspect_err(|_| {
            link.lose(frames);
            self.buffer.clear();
        })
    }

    fn poll_room(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waited = ready!(self.handle.link.poll_queued(most, &mut self.ticket, cx));
        if let Some(ticket) = self.ticket.take() {
            self.handle.link.forget(ticket);
        }
        Poll::Ready(waited)
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.handle.link.use_it();
        if self.buffer.len() >= HANDED_ON {
            self.hand_on()?;
        }
        self.poll_room(self.most_queued, cx)
    }

    fn feed<I>(&mut self, item: I) -> io::Result<()>
    where
        C: Encoder<I>,
        <C as Encoder<I>>::Error: Error + Send + Sync + 'static,
    {
        self.buffer.encode(&mut self.encoder, item)?;
        self.fed += 1;
        Ok(())
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hand_on()?;
        self.poll_room(0, cx)
    }

    fn poll_shut_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_written(cx))?;
        Poll::Ready(self.handle.link.shut_down_writing())
    }
}

fn into_io(error: channel::SourceError) -> io::Error {
    let kind = match error.downcast_ref::<io::Error>() {
        Some(error) => error.kind(),
        None => ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Linux shows 15 bytes of a thread's name: the number comes first.
pub(crate) fn thread_name(id: u64, listener: &str) -> String {
    format!("{id}-{listener}")
}

/// A connection's thread.
fn run<C, K>(accepted: Accepted, source: StreamSource<C, K>, feed: &Feed<C::Item>)
where
    C: Decoder<Item: Send + 'static, Error: Error + Send + Sync + 'static> + Send + 'static,
    K: StreamKind,
{
    let Accepted { link, limits, linger, place, .. } = accepted;
    let core = Arc::clone(&feed.core);
    let mut driver = Driver::of_connection(&core, &link, limits, source);
    let unblock = feed.ends_from(Phase::Stopping, |_| None);
    let mut outflow = Queued(Arc::clone(&link));
    let mut writing = Writing::new(Some(&mut outflow));
    let verdict = judged(|| pump(&mut driver, feed, &mut writing));
    link.peer_is_gone();
    let may_follow = verdict.as_ref().is_ok_and(|verdict| may_follow(&driver, verdict));
    feed.end(&End::of(verdict, &core.name));
    if driver.phase() > Phase::Running {
        lose_buffered(&mut driver, feed);
    }
    contain("the end of a connection", || {
        writing.finish(&mut driver, may_follow);
        driver.part(linger);
    });
    drop(unblock);
    link.end();
    contain("the destructor of a codec", || drop(driver));
    drop(place);
}

/// What a connection's sink has queued.
struct Queued(Arc<Link>);

impl<S: FrameSource> Outflow<S> for Queued {
    fn write(&mut self, _source: &mut S) -> io::Result<bool> {
        self.0.write().map(|()| false)
    }

    fn written(&self) -> u64 {
        self.0.written()
    }

    fn is_open(&self, ending: bool) -> bool {
        self.0.is_open(ending)
    }

    fn has_begun(&self) -> bool {
        self.0.is_in_use()
    }

    fn close(&mut self) {
        self.0.finish_writing();
    }
}

impl<C: Decoder> Stream for Connection<C> {
    type Item = io::Result<C::Item>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_frame(cx)
    }
}

impl<C, I> Sink<I> for Connection<C>
where
    C: Decoder + Encoder<I>,
    <C as Encoder<I>>::Error: Error + Send + Sync + 'static,
{
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writable(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: I) -> io::Result<()> {
        self.feed(item)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_written(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_shut_down(cx)
    }
}

impl<C: Decoder> Drop for Connection<C> {
    fn drop(&mut self) {
        let link = &self.handle.link;
        if let Some(ticket) = self.ticket.take() {
            link.forget(ticket);
        }
        link.lose(self.fed);
        link.close();
    }
}

impl<C: Decoder> fmt::Debug for Connection<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id()).field("peer", self.peer()).finish()
    }
}
