//! What a listener's thread owns: the traits, and the sources that come with the crate.

#[cfg(feature = "net")]
mod datagram;
mod framing;
mod from_fn;
mod gauge;
mod interrupter;
mod opening;
pub(crate) mod outbox;
pub(crate) mod poll;
mod reader;
mod reopening;
#[cfg(feature = "net")]
pub(crate) mod socket;
#[cfg(feature = "net")]
mod stream;
#[cfg(feature = "net")]
mod udp;
#[cfg(all(feature = "net", unix))]
pub(crate) mod unix;

#[cfg(feature = "net")]
pub use datagram::{Datagram, DatagramSocket, DatagramSource, Replier};
pub use framing::{BadFrames, FrameError, WholeFrames};
pub use from_fn::{FnSource, LoopHandle, StopGuard};
pub use gauge::{Gauge, SourceStats};
pub use interrupter::Interrupter;
pub use opening::Opening;
pub use reader::ReadSource;
pub use reopening::{Backoff, Reopened, Reopening};
#[cfg(all(feature = "net", unix))]
pub use {stream::UnixSource, unix::UnixDatagramSource};
#[cfg(feature = "net")]
pub use {
    stream::{StreamKind, StreamSource, TcpSource},
    udp::UdpSource,
};

#[cfg(feature = "net")]
pub(crate) use framing::check_limit;
pub(crate) use framing::is_framing;

use rustix::fd::BorrowedFd;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Something a listener's thread can get frames from.
///
/// The listener owns the source, asks it for frames from one thread in a loop, and drops it on that
/// thread when it stops. Implement it for anything that blocks: a serial port, a C library's `read`,
/// a queue of a vendor's SDK. Sources for sockets and for anything that is [`Read`](std::io::Read)
/// come with the crate. A close waits for the source's `Drop`, which may say goodbye to the peer.
///
/// There are two ways to wait for a frame:
///
/// - A source with a descriptor ([`as_fd`](Self::as_fd)) never waits itself: the listener calls
///   [`next_ready`](Self::next_ready), and where that has nothing, waits for the descriptor. A stop, a
///   reply and a frame to write end that wait at once.
/// - Any other source waits in [`next_frame`](Self::next_frame). One that blocks for ever can't be
///   stopped: give it a time limit per call (see [`set_poll_timeout`](Self::set_poll_timeout)), an
///   [`interrupter`](Self::interrupter), or best both.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{FrameSource, Listener};
/// use std::io;
///
/// struct Countdown(u32);
///
/// impl FrameSource for Countdown {
///     type Frame = u32;
///     fn next_frame(&mut self) -> io::Result<Option<u32>> {
///         self.0 = match self.0.checked_sub(1) {
///             Some(left) => left,
///             None => return Ok(None),
///         };
///         Ok(Some(self.0))
///     }
/// }
///
/// # fn main() -> io::Result<()> {
/// let (_listener, mut frames) = Listener::builder(Countdown(3)).spawn()?;
/// let rt = tokio::runtime::Builder::new_current_thread().build()?;
/// rt.block_on(async {
///     let mut seen = Vec::new();
///     while let Some(frame) = frames.recv().await {
///         seen.push(frame);
///     }
///     assert_eq!(seen, [2, 1, 0]);
/// });
/// # Ok(())
/// # }
/// ```
pub trait FrameSource: Send + 'static {
    /// What the source hands over.
    type Frame: Send + 'static;

    /// Waits for the next frame; `Ok(None)` means that the source has finished.
    ///
    /// Not called on a source with a descriptor, where it can be `self.next_ready()`.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), [`Interrupted`](io::ErrorKind::Interrupted) and
    /// [`TimedOut`](io::ErrorKind::TimedOut) say that nothing has arrived yet: the listener looks whether it
    /// should stop, and calls again. A source that says so at once, again and again, is called less
    /// often, down to once per poll timeout. On Unix the system's own `ETIMEDOUT` is a failure: it
    /// says that a peer is gone. Any other error ends the listener as a failed source, unless
    /// [`on_error`](super::ListenerBuilder::on_error) says otherwise.
    fn next_frame(&mut self) -> io::Result<Option<Self::Frame>>;

    /// The next frame that can be had without waiting; `Ok(None)` means that the source has finished.
    ///
    /// The default never has one.
    ///
    /// # Errors
    ///
    /// As for [`next_frame`](Self::next_frame); `WouldBlock` says that nothing is there now, `Interrupted` that
    /// something may be, whatever the descriptor tells.
    fn next_ready(&mut self) -> io::Result<Option<Self::Frame>> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// A frame that was received already and needs no further call of the system; by default none.
    ///
    /// Asked when the listener stops, so that such frames are delivered, or counted as lost.
    ///
    /// # Errors
    ///
    /// As for [`next_frame`](Self::next_frame).
    fn next_buffered(&mut self) -> io::Result<Option<Self::Frame>> {
        Ok(None)
    }

    /// Whether no overflow policy may drop `frame`: it takes no room in the channel, and says nothing about a
    /// silence ([`quiet_after`](super::ListenerBuilder::quiet_after)); by default none is such a frame.
    ///
    /// For what happens to the source itself, such as [`Reopened::Down`]; see
    /// [`Sender::send_control`](crate::Sender::send_control).
    fn is_control(&self, frame: &Self::Frame) -> bool {
        let _ = frame;
        false
    }

    /// The descriptor to wait for, while nothing is ready; by default there is none.
    ///
    /// On Windows it is a socket, as a `BorrowedSocket`: the system can wait for nothing else.
    /// It may change from call to call, and come and go.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Whether [`next_ready`](Self::next_ready) should also be called once the descriptor can be written to;
    /// by default it needn't.
    ///
    /// For sessions that write by themselves, such as a WebSocket's answers to pings.
    fn wants_to_write(&self) -> bool {
        false
    }

    /// What makes a blocked [`next_frame`](Self::next_frame) return soon; by default nothing does.
    fn interrupter(&self) -> Interrupter {
        Interrupter::default()
    }

    /// Asks that [`next_frame`](Self::next_frame) return at least this often while nothing arrives.
    ///
    /// Called once, before the thread starts, with 50 ms unless
    /// [told](super::ListenerBuilder::poll_timeout). The default ignores it.
    ///
    /// # Errors
    ///
    /// When the source can't be set up; the listener is then not started.
    fn set_poll_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        let _ = timeout;
        Ok(())
    }

    /// The address that [`Listener::local_addr`](super::Listener::local_addr) gives; by default none.
    fn bound_to(&self) -> Option<SocketAddr> {
        None
    }

    /// What [`Listener::stats`](super::Listener::stats) asks for the source's own counters.
    fn gauge(&self) -> Gauge {
        Gauge::default()
    }

    /// Whether a frame has begun and isn't whole yet; by default it isn't known.
    #[doc(hidden)]
    fn is_inside_frame(&self) -> bool {
        false
    }

    /// The peer doesn't read what is sent to it, as `why` says; whether the source can go on without it.
    #[doc(hidden)]
    fn give_up(&mut self, why: io::Error) -> bool {
        drop(why);
        false
    }

    /// Whether [`next_frame`](Self::next_frame) waits for some milliseconds at most, though there is a
    /// descriptor, so that the thread needn't wait for that while frames come fast.
    #[doc(hidden)]
    fn waits_briefly(&self) -> bool {
        false
    }

    /// Ends the write side and throws away what the peer still sends; true once nothing has to be
    /// waited for. Called until then, after the last write.
    #[doc(hidden)]
    fn part(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

/// A source that can also be written to: what [`serve`](super::ListenerBuilder::serve) and
/// [`writer`](super::ListenerBuilder::writer) need.
///
/// `R` is the type of the reply, or of what is written. All methods are called on the thread that owns
/// the source.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{FrameSource, RequestSource};
/// use std::io;
///
/// /// Answers into a log instead of a wire.
/// struct Loopback { requests: Vec<&'static str>, log: Vec<(usize, String)> }
///
/// impl FrameSource for Loopback {
///     type Frame = &'static str;
///     fn next_frame(&mut self) -> io::Result<Option<&'static str>> {
///         Ok(self.requests.pop())
///     }
/// }
///
/// impl RequestSource<String> for Loopback {
///     type Address = usize;
///     fn address(&mut self, _: &mut &'static str) -> usize {
///         self.requests.len()
///     }
///     fn answer(&mut self, to: usize, reply: String) -> io::Result<bool> {
///         self.log.push((to, reply));
///         Ok(true)
///     }
/// }
/// # let mut source = Loopback { requests: vec!["a"], log: vec![] };
/// # let mut frame = source.next_frame().unwrap().unwrap();
/// # let to = source.address(&mut frame);
/// # assert!(source.answer(to, frame.to_owned()).unwrap());
/// # assert_eq!(source.log, [(0, "a".to_owned())]);
/// ```
pub trait RequestSource<R>: FrameSource {
    /// Where the reply to a frame goes; taken before the frame is given to the handler.
    ///
    /// It may be a handle that is used up by replying: [`address`](Self::address) may take it out of
    /// the frame.
    type Address: Send + 'static;

    /// The address that a reply to `frame` goes to.
    fn address(&mut self, frame: &mut Self::Frame) -> Self::Address;

    /// Sends `reply` and gives true, or stages it until [`flush`](Self::flush) and gives false.
    ///
    /// # Errors
    ///
    /// An error costs this reply and is counted; it ends the source only if
    /// [`replies_in_order`](Self::replies_in_order).
    fn answer(&mut self, to: Self::Address, reply: R) -> io::Result<bool>;

    /// Sends what is staged; `Ok(true)` once nothing is left, `Ok(false)` for some progress.
    ///
    /// A source with a descriptor must not wait here: the listener waits until it can be written to.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) and its like mean no progress yet: the listener calls
    /// again. Any other error costs what is staged: nothing of it may be sent later. It ends the source when
    /// it serves; a [`writer`](super::ListenerBuilder::writer) tells each sender and goes on.
    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    /// How many bytes are staged; by default it isn't known.
    ///
    /// While they are many, the listener flushes and takes nothing more in.
    fn staged(&self) -> usize {
        0
    }

    /// Whether a reply goes to whoever asked, also later.
    #[doc(hidden)]
    fn can_serve(&self) -> bool {
        true
    }

    /// Whether the peer matches replies to requests by order alone, so that a missing reply would
    /// shift all later ones; by default it doesn't.
    ///
    /// Where it doesn't, replies leave as they become ready. See
    /// [`close_on_missing_reply`](super::ServeBuilder::close_on_missing_reply).
    fn replies_in_order(&self) -> bool {
        false
    }
}

/// Whether an error only says that nothing has arrived yet.
///
/// On Unix a receive that wasn't to wait for longer says `EAGAIN`. The system's `ETIMEDOUT` is how it gives
/// a connection up (tcp(7): keepalive, retransmissions), and is told once, before an end that looks clean.
/// On Windows it is both; the crate's own sockets have no receive timeout there (`socket::told`).
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => true,
        io::ErrorKind::TimedOut => cfg!(not(unix)) || error.raw_os_error().is_none(),
        _ => false,
    }
}
