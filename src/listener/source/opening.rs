//! What whoever opens a device again is given.

use super::from_fn::StopGuard;
use super::{Gauge, Interrupter, SourceStats};
use crate::listener::stop::{Phase, Registered, Stop};
use crate::listener::wake::Wake;
use crate::sync::Deadline;
use crate::sync::prim::{Mutex, lock};
use std::fmt;
#[cfg(feature = "net")]
use std::io::{self, ErrorKind};
#[cfg(feature = "net")]
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
#[cfg(feature = "net")]
use std::time::Duration;

/// Tells whoever opens a device whether to give up, and connects so that a stop can interrupt it.
pub struct Opening {
    /// What a stop of the listener tells.
    stop: Arc<Stop>,
    wake: Arc<Wake>,
    /// What others read of the source that is open.
    counted: Mutex<Counted>,
    _wakes: Registered,
}

#[derive(Default)]
struct Counted {
    gauge: Gauge,
    /// What those before it have counted.
    past: SourceStats,
}

impl Opening {
    /// Whether the listener is ending, so that there is no use in opening.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn slow_open(opening: &callbridge::listener::Opening) -> std::io::Result<()> {
    /// while !opening.is_stopping() {
    ///     // try the next port
    /// #   break;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_stopping(&self) -> bool {
        self.stop.phase() > Phase::Running
    }

    /// Runs `interrupter` when the listener is asked to stop, until the guard is dropped: for what blocks after
    /// a connect, such as the handshake of a session. See [`LoopHandle::on_stop`](super::LoopHandle::on_stop).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Backoff, Interrupter, Listener, ReadSource};
    /// use std::io::Write;
    /// use std::net::{Shutdown, TcpListener};
    /// use std::time::{Duration, Instant};
    /// use tokio_util::codec::LinesCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// // Never answers.
    /// let gateway = TcpListener::bind("127.0.0.1:0")?;
    /// let addr = gateway.local_addr()?;
    /// let device = Listener::reopening(
    ///     move |opening| {
    ///         let mut line = opening.connect(addr, Duration::from_secs(5))?;
    ///         let other = line.try_clone()?;
    ///         let shut = Interrupter::new(move || drop(other.shutdown(Shutdown::Both)));
    ///         let _guard = opening.on_stop(shut);
    ///         line.write_all(b"hello")?;
    ///         std::io::Read::read_exact(&mut line, &mut [0; 5])?;
    ///         ReadSource::new(line, 1024, LinesCodec::new())
    ///     },
    ///     Backoff::default(),
    /// );
    /// let (listener, _lines) = device.spawn()?;
    /// let _blocks = gateway.accept()?;
    /// assert!(listener.close_blocking(Duration::from_secs(5)).is_clean());
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_stop(&self, interrupter: Interrupter) -> StopGuard {
        StopGuard::new(&self.stop, interrupter)
    }

    /// Connects to `addr`; gives up at once when the listener is ending, and after `timeout`.
    ///
    /// # Errors
    ///
    /// What the system says of the last address; [`TimedOut`](ErrorKind::TimedOut), and
    /// [`Interrupted`](ErrorKind::Interrupted) when the listener is ending.
    #[cfg(feature = "net")]
    pub fn connect(&self, addr: impl ToSocketAddrs, timeout: Duration) -> io::Result<TcpStream> {
        super::socket::first_that_works(addr, |addr| {
            let stream = self.connect_to(addr, Deadline::after(timeout))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    #[cfg(feature = "net")]
    fn connect_to(&self, addr: SocketAddr, deadline: Deadline) -> io::Result<TcpStream> {
        use crate::listener::wake::Interest;
        use rustix::fd::AsFd;
        use rustix::io::Errno;
        use socket2::{Domain, Socket, Type};
        const UNDER_WAY: Errno = if cfg!(windows) { Errno::WOULDBLOCK } else { Errno::INPROGRESS };
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&addr.into()) {
            Err(error) if Errno::from_io_error(&error) == Some(UNDER_WAY) => {
                let write = Interest { read: false, write: true };
                while !self.wake.wait_on(socket.as_fd(), write, deadline) {
                    if self.is_stopping() {
                        return Err(ErrorKind::Interrupted.into());
                    }
                    if deadline.passed() {
                        return Err(ErrorKind::TimedOut.into());
                    }
                }
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
            }
            connected => connected?,
        }
        socket.set_nonblocking(false)?;
        Ok(socket.into())
    }
}

/// For the source that opens.
impl Opening {
    pub(super) fn new() -> Self {
        let (stop, wake) = (Arc::<Stop>::default(), Wake::new());
        let wakes = stop.wakes(&wake);
        Opening { stop, wake, counted: Mutex::default(), _wakes: wakes }
    }

    /// The listener is told to stop.
    pub(super) fn stop(&self) {
        self.stop.signal();
    }

    /// Waits for the deadline, or for a stop.
    pub(super) fn pause(&self, deadline: Deadline) {
        self.wake.wait(deadline);
    }

    /// Reads the counters of the source that was opened.
    pub(super) fn begin_to_count(&self, gauge: Gauge) {
        let old = std::mem::replace(&mut lock(&self.counted).gauge, gauge);
        drop(old);
    }

    /// Keeps what the source has counted that is about to go.
    pub(super) fn end_to_count(&self) {
        let counted = Counted { past: self.stats(true), ..Counted::default() };
        let old = std::mem::replace(&mut *lock(&self.counted), counted);
        drop(old);
    }

    pub(super) fn stats(&self, fresh: bool) -> SourceStats {
        let (past, gauge) = {
            let counted = lock(&self.counted);
            (counted.past, counted.gauge.clone())
        };
        past.and(if fresh { gauge.read_fresh() } else { gauge.read() })
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("stopping", &self.is_stopping()).finish_non_exhaustive()
    }
}
