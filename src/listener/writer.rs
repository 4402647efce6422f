//! The way of frames from async code to the thread that owns a device.

use super::patience::LEAST;
use super::pump::Outflow;
use super::source::{RequestSource, is_timeout};
use super::wake::{Bell, Wake};
use crate::BlockingFuture;
use crate::future::{Completer, promise};
use async_channel::{Receiver, Sender, TryRecvError, TrySendError};
use rustix::fd::BorrowedFd;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// While so many bytes are staged, no more frames are encoded.
const STAGED: usize = 64 * 1024;

/// So many are encoded in a row at most.
const ENCODED: usize = 256;

/// So many commands fit into a queue at most, since their places are made with it.
const MOST_QUEUED: usize = 65_536;

/// Writes frames through the thread that owns the source; made by
/// [`ListenerBuilder::writer`](super::ListenerBuilder::writer), or for a loop of one's own by
/// [`inbox`].
///
/// Frames are written in the order in which they were sent, between the frames that are read. A cheap clone.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Listener, TcpSource};
/// use std::io::{BufRead, BufReader, Write};
/// use tokio_util::codec::LinesCodec;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// # let device = std::net::TcpListener::bind("127.0.0.1:0")?;
/// # let addr = device.local_addr()?;
/// # std::thread::spawn(move || {
/// #     let (mut line, _) = device.accept().unwrap();
/// #     let mut command = String::new();
/// #     BufReader::new(line.try_clone().unwrap()).read_line(&mut command).unwrap();
/// #     write!(line, "done {command}").unwrap();
/// # });
/// let mut builder = Listener::builder(TcpSource::connect(addr, 1024, LinesCodec::new())?);
/// let commands = builder.writer::<&str>(16);
/// let (_listener, mut lines) = builder.spawn()?;
/// commands.send("open valve").await?;
/// assert_eq!(lines.recv().await.as_deref(), Some("done open valve"));
/// # Ok(())
/// # }
/// ```
pub struct FrameSink<R> {
    queue: Sender<Command<R>>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl<R> FrameSink<R> {
    /// Sends a frame and waits until it is written.
    ///
    /// Waits for room while the queue is full.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for room, nothing is sent; dropped later, the frame is written all the same.
    ///
    /// # Errors
    ///
    /// [`WriteError::Closed`] with the frame if the listener has ended, [`WriteError::Failed`] with what the
    /// encoder or the system said: then nothing more of the frame is written, but a part of it may have been.
    pub async fn send(&self, frame: R) -> Result<(), WriteError<R>> {
        let (command, written) = Command::new(frame);
        match self.queue.send(command).await {
            Ok(()) => (self.wake)(),
            Err(refused) => return Err(WriteError::Closed(refused.0.frame)),
        }
        outcome(written.await)
    }

    /// As [`send`](Self::send), for a thread that may block: waits at most `timeout`.
    ///
    /// # Blocking
    ///
    /// Until the frame is written, or the time is up.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); [`WriteError::Full`] if the queue has no room now, and
    /// [`WriteError::NotYet`] if the frame wasn't written in time (it will be, unless the listener ends
    /// first) or if the thread drives an event loop.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::{Listener, TcpSource, WriteError};
    /// # use std::time::Duration;
    /// # use tokio_util::codec::LinesCodec;
    /// # fn main() -> std::io::Result<()> {
    /// # let device = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let source = TcpSource::connect(device.local_addr()?, 1024, LinesCodec::new())?;
    /// let mut builder = Listener::builder(source);
    /// let commands = builder.writer::<&str>(16);
    /// let (listener, _lines) = builder.spawn()?;
    /// commands.send_blocking("status", Duration::from_secs(5))?;
    /// drop(listener);
    /// # Ok(())
    /// # }
    /// ```
    pub fn send_blocking(
        &self,
        frame: R,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<(), WriteError<R>> {
        let mut written = self.try_send(frame)?;
        match written.result(timeout) {
            Err(crate::ResultError::TimedOut { .. } | crate::ResultError::WouldDeadlock) => {
                Err(WriteError::NotYet)
            }
            written => outcome(written),
        }
    }

    /// Sends a frame without waiting; what it gives is resolved once the frame is written.
    ///
    /// # Errors
    ///
    /// [`WriteError::Full`] and [`WriteError::Closed`], with the frame.
    pub fn try_send(&self, frame: R) -> Result<BlockingFuture<io::Result<()>>, WriteError<R>> {
        let (command, written) = Command::new(frame);
        match self.queue.try_send(command) {
            Ok(()) => (self.wake)(),
            Err(TrySendError::Full(command)) => return Err(WriteError::Full(command.frame)),
            Err(TrySendError::Closed(command)) => return Err(WriteError::Closed(command.frame)),
        }
        Ok(written)
    }
}

fn outcome<R>(written: Result<io::Result<()>, crate::ResultError>) -> Result<(), WriteError<R>> {
    match written {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(WriteError::Failed(error)),
        Err(_) => Err(WriteError::Failed(ended())),
    }
}

fn ended() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, WriteError::Closed(()).to_string())
}

impl<R> Clone for FrameSink<R> {
    fn clone(&self) -> Self {
        FrameSink { queue: self.queue.clone(), wake: Arc::clone(&self.wake) }
    }
}

impl<R> fmt::Debug for FrameSink<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSink").field("queued", &self.queue.len()).finish_non_exhaustive()
    }
}

/// Why a frame wasn't written.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum WriteError<R> {
    /// The queue has no room; the frame comes back.
    #[error("the device takes no more for now: wait with send, or drop the frame")]
    Full(R),
    /// The listener has ended, or a later [`writer`](super::ListenerBuilder::writer) took this one's place;
    /// the frame comes back.
    #[error(
        "nobody writes the frame: the listener has ended, or a later writer took this one's place"
    )]
    Closed(R),
    /// It isn't written yet; unless the listener ends first, it will be.
    #[error("the frame isn't written yet: await it, or wait longer")]
    NotYet,
    /// The encoder or the system refused it, the device is down, or the listener ended first. The reason is the
    /// error's [`source`](std::error::Error::source).
    #[error("the frame wasn't written: see `source()`")]
    Failed(#[source] io::Error),
}

impl<R> fmt::Debug for WriteError<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WriteError::Full(_) => f.write_str("Full(..)"),
            WriteError::Closed(_) => f.write_str("Closed(..)"),
            WriteError::NotYet => f.write_str("NotYet"),
            WriteError::Failed(error) => f.debug_tuple("Failed").field(error).finish(),
        }
    }
}

impl<R> From<WriteError<R>> for io::Error {
    fn from(error: WriteError<R>) -> Self {
        let kind = match &error {
            WriteError::Full(_) => ErrorKind::WouldBlock,
            WriteError::Closed(_) => ErrorKind::NotConnected,
            WriteError::NotYet => ErrorKind::TimedOut,
            WriteError::Failed(_) => ErrorKind::Other,
        };
        match error {
            WriteError::Failed(error) => error,
            other => io::Error::new(kind, other.to_string()),
        }
    }
}

/// A frame to write, and who waits for it.
pub struct Command<C> {
    frame: C,
    written: Completer<io::Result<()>>,
}

impl<C> Command<C> {
    fn new(frame: C) -> (Self, BlockingFuture<io::Result<()>>) {
        let (written, waits) = promise();
        (Command { frame, written }, waits)
    }

    /// What is to be written.
    pub fn frame(&self) -> &C {
        &self.frame
    }

    /// Tells the sender what came of it. A command that is dropped tells that the listener ended.
    pub fn done(self, written: io::Result<()>) {
        self.written.complete(written);
    }
}

impl<C> fmt::Debug for Command<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").finish_non_exhaustive()
    }
}

/// Makes a queue of commands into a loop of your own; `capacity` is 1 to 65 536, and what is beyond is
/// taken as the nearest.
///
/// The loop polls the inbox's descriptor beside its device's, or looks at it when it comes round.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Listener, inbox};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let (commands, inbox) = inbox::<&str>(16);
/// let legacy = Listener::from_fn(move |sink| {
///     while !sink.is_stopping() {
///         if let Ok(command) = inbox.recv_timeout(Duration::from_millis(50)) {
///             let _ = sink.send(format!("did {}", command.frame()));
///             command.done(Ok(()));
///         }
///     }
///     Ok(())
/// });
/// let (_listener, mut frames) = legacy.spawn()?;
/// commands.send("reset").await?;
/// assert_eq!(frames.recv().await.as_deref(), Some("did reset"));
/// # Ok(())
/// # }
/// ```
pub fn inbox<C: Send + 'static>(capacity: usize) -> (FrameSink<C>, Inbox<C>) {
    let (queue, commands) = queue_of(capacity);
    let bell = Arc::new(Bell::new().ok());
    let wake = Wake::new();
    let ring: Arc<dyn Fn() + Send + Sync> = {
        let wake = Arc::clone(&wake);
        let bell = Arc::clone(&bell);
        Arc::new(move || {
            if let Some(bell) = &*bell {
                bell.ring();
            }
            wake.notify();
        })
    };
    (FrameSink { queue, wake: ring }, Inbox { commands, wake, bell })
}

fn queue_of<C>(capacity: usize) -> (Sender<Command<C>>, Receiver<Command<C>>) {
    async_channel::bounded(capacity.clamp(1, MOST_QUEUED))
}

/// Where a loop of your own takes its commands from; made by [`inbox`].
pub struct Inbox<C> {
    commands: Receiver<Command<C>>,
    wake: Arc<Wake>,
    bell: Arc<Option<Bell>>,
}

impl<C> Drop for Inbox<C> {
    fn drop(&mut self) {
        // The queue lives as long as its senders.
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            command.done(Err(ended()));
        }
    }
}

impl<C> Inbox<C> {
    /// The next command, if there is one.
    pub fn try_recv(&self) -> Option<Command<C>> {
        if let Some(bell) = &*self.bell {
            bell.silence();
        }
        let command = self.commands.try_recv().ok();
        // What is behind it must be seen by the next poll.
        if let (Some(bell), false) = (&*self.bell, self.commands.is_empty()) {
            bell.ring();
        }
        command
    }

    /// Waits for the next command, at most `timeout`.
    ///
    /// # Blocking
    ///
    /// Until there is a command, or the time is up.
    ///
    /// # Errors
    ///
    /// [`WaitError`](crate::WaitError) as elsewhere.
    pub fn recv_timeout(
        &self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Command<C>, crate::WaitError> {
        let deadline = crate::sync::Deadline::after(timeout);
        loop {
            if let Some(command) = self.try_recv() {
                return Ok(command);
            }
            crate::sync::may_wait(deadline)?;
            if deadline.passed() {
                return Err(crate::WaitError::TimedOut);
            }
            self.wake.wait(deadline);
        }
    }
}

/// Readable while there are commands.
impl<C> Inbox<C> {
    /// The descriptor to poll for, on Windows a socket; none if the system had none to give.
    ///
    /// It is readable once there are commands, until [`try_recv`](Self::try_recv) has taken the last.
    ///
    /// # Examples
    ///
    /// ```
    /// let (commands, inbox) = callbridge::listener::inbox::<u8>(4);
    /// assert!(inbox.descriptor().is_some());
    /// # drop(commands);
    /// ```
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (*self.bell).as_ref().map(Bell::descriptor)
    }
}

impl<C> fmt::Debug for Inbox<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("queued", &self.commands.len()).finish_non_exhaustive()
    }
}

/// The thread's side of a writer.
pub(crate) struct Written<R> {
    commands: Receiver<Command<R>>,
    /// Who waits for what is encoded and hasn't left.
    staged: Vec<Completer<io::Result<()>>>,
    /// How many bytes have left so far, as far as the source tells.
    written: u64,
}

/// A writer for the thread that waits by `wake`.
pub(crate) fn writer<R: Send + 'static>(
    capacity: usize,
    wake: &Arc<Wake>,
) -> (FrameSink<R>, Written<R>) {
    let (queue, commands) = queue_of(capacity);
    let wake = Arc::clone(wake);
    let sink = FrameSink { queue, wake: Arc::new(move || wake.notify()) };
    (sink, Written { commands, staged: Vec::new(), written: 0 })
}

impl<R, S> Outflow<S> for Written<R>
where
    R: Send + 'static,
    S: RequestSource<R, Address = ()>,
{
    fn write(&mut self, source: &mut S) -> io::Result<bool> {
        // Those of before leave first, so that who sent them hears of it.
        let most = if self.staged.is_empty() { STAGED } else { 0 };
        for _ in 0..ENCODED {
            if source.staged() >= most {
                break;
            }
            let Command { frame, written } = match self.commands.try_recv() {
                Ok(command) => command,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            };
            match source.answer((), frame) {
                Ok(true) => written.complete(Ok(())),
                Ok(false) => self.staged.push(written),
                Err(error) => written.complete(Err(error)),
            }
        }
        if self.staged.is_empty() {
            return Ok(!self.commands.is_empty());
        }
        let before = source.staged();
        let flushed = RequestSource::<R>::flush(source);
        self.written += before.saturating_sub(source.staged()) as u64;
        match flushed {
            Ok(true) => self.staged.drain(..).for_each(|written| written.complete(Ok(()))),
            Ok(false) => {
                // A device may be slow; each bit counts.
                self.written += LEAST;
                return Ok(true);
            }
            Err(error) if is_timeout(&error) => return Err(error),
            Err(error) => {
                let (kind, text) = (error.kind(), error.to_string());
                for written in self.staged.drain(..) {
                    written.complete(Err(io::Error::new(kind, text.clone())));
                }
            }
        }
        Ok(!self.commands.is_empty())
    }

    fn written(&self) -> u64 {
        self.written
    }

    fn is_open(&self, _ending: bool) -> bool {
        false
    }

    fn has_begun(&self) -> bool {
        // The stream was handed out with the listener.
        true
    }

    fn refuse(&mut self) {
        self.commands.close();
    }

    fn close(&mut self) {
        self.end();
    }
}

impl<R> Written<R> {
    fn end(&mut self) {
        self.commands.close();
        while let Ok(command) = self.commands.try_recv() {
            command.done(Err(ended()));
        }
        for written in self.staged.drain(..) {
            written.complete(Err(ended()));
        }
    }
}

impl<R> Drop for Written<R> {
    fn drop(&mut self) {
        // Without a listener, too. The queue lives as long as its senders.
        self.end();
    }
}
