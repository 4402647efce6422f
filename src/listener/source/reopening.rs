use super::poll::POLL_TIMEOUT;
use super::{FrameSource, Gauge, Interrupter, RequestSource, SourceStats, is_timeout};
use crate::channel::SourceError;
use crate::listener::wake::Wake;
use crate::sync::prim::atomic::{AtomicBool, Ordering};
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Deadline, event};
use rustix::fd::BorrowedFd;
use std::fmt;
use std::io::{self, ErrorKind};
#[cfg(feature = "net")]
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// How long to wait before a device is opened again.
///
/// The pause doubles from `first` to `longest` while opening fails, and begins anew once it has
/// succeeded. After `attempts` failures in a row, the listener fails with the last error.
///
/// # Examples
///
/// ```
/// use callbridge::listener::Backoff;
/// use std::time::Duration;
///
/// let patient = Backoff { longest: Duration::from_secs(60), ..Backoff::default() };
/// assert_eq!(patient.first, Duration::from_millis(100));
/// assert_eq!(patient.attempts, u32::MAX);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after an end, or a first failure; 100 ms by default, at least 1 ms.
    pub first: Duration,
    /// The longest pause; 10 s by default.
    pub longest: Duration,
    /// So many failures in a row end the listener; no limit by default.
    pub attempts: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            attempts: u32::MAX,
        }
    }
}

impl Backoff {
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(self.longest).max(Duration::from_millis(1))
    }
}

/// What the stream of a reopened device yields.
///
/// # Examples
///
/// ```
/// use callbridge::listener::Reopened;
///
/// fn tell(told: Reopened<String>) {
///     match told {
///         Reopened::Up => println!("plugged in"),
///         Reopened::Frame(line) => println!("{line}"),
///         Reopened::Down(error) => println!("unplugged: {error}"),
///         _ => {} // what a later version may tell besides
///     }
/// }
/// # tell(Reopened::Up);
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub enum Reopened<F> {
    /// It was opened.
    Up,
    /// A frame came.
    Frame(F),
    /// It failed, couldn't be opened, or came to its end; it will be opened again.
    Down(SourceError),
}

impl<F> Reopened<F> {
    /// The frame, if it is one.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::Reopened;
    /// assert_eq!(Reopened::Frame(7).frame(), Some(7));
    /// assert_eq!(Reopened::<u8>::Up.frame(), None);
    /// ```
    pub fn frame(self) -> Option<F> {
        match self {
            Reopened::Frame(frame) => Some(frame),
            Reopened::Up | Reopened::Down(_) => None,
        }
    }
}

impl<F> fmt::Debug for Reopened<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reopened::Up => f.write_str("Up"),
            Reopened::Frame(_) => f.write_str("Frame(..)"),
            Reopened::Down(error) => f.debug_tuple("Down").field(error).finish(),
        }
    }
}

/// Tells whoever opens a device whether to give up, and connects so that a stop can interrupt it.
pub struct Opening {
    stopping: AtomicBool,
    wake: Arc<Wake>,
    inner: Mutex<Inner>,
}

/// What others reach of the source that is open.
#[derive(Default)]
struct Inner {
    interrupter: Interrupter,
    gauge: Gauge,
    /// What those before it have counted.
    past: SourceStats,
}

impl Inner {
    fn stats(&self) -> SourceStats {
        self.past.and(self.gauge.read())
    }
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
        // Pairs with the store in `interrupt`.
        self.stopping.load(Ordering::Acquire)
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

    fn interrupt(&self) {
        // First; pairs with the load in `is_stopping`.
        self.stopping.store(true, Ordering::Release);
        let interrupter = lock(&self.inner).interrupter.clone();
        interrupter.interrupt();
        self.wake.notify();
    }
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("stopping", &self.is_stopping()).finish_non_exhaustive()
    }
}

/// A device that is opened again whenever it fails or ends; made by
/// [`Listener::reopening`](crate::Listener::reopening).
pub struct Reopening<S, F> {
    make: F,
    backoff: Backoff,
    opening: Arc<Opening>,
    source: Option<S>,
    /// When to open next.
    due: Deadline,
    failures: u32,
    poll_timeout: Duration,
    /// What was to be told before the next frame.
    down: Option<SourceError>,
}

impl<S, F> Reopening<S, F>
where
    S: FrameSource,
    F: FnMut(&Opening) -> io::Result<S> + Send + 'static,
{
    pub(crate) fn new(make: F, backoff: Backoff) -> Self {
        Reopening {
            make,
            backoff,
            opening: Arc::new(Opening {
                stopping: AtomicBool::new(false),
                wake: Wake::new(),
                inner: Mutex::default(),
            }),
            source: None,
            due: Deadline::Now,
            failures: 0,
            poll_timeout: POLL_TIMEOUT,
            down: None,
        }
    }

    /// Opens the device, if it is time; else waits for that, up to the poll timeout.
    fn open(&mut self) -> io::Result<Option<Reopened<S::Frame>>> {
        if !self.due.passed() {
            self.opening.wake.wait(self.due.or_after(self.poll_timeout));
            return Err(ErrorKind::TimedOut.into());
        }
        let opened = (self.make)(&self.opening).and_then(|mut source| {
            source.set_poll_timeout(self.poll_timeout)?;
            Ok(source)
        });
        match opened {
            Ok(source) => {
                let interrupter = source.interrupter();
                let gauge = source.gauge();
                {
                    let mut inner = lock(&self.opening.inner);
                    (inner.interrupter, inner.gauge) = (interrupter.clone(), gauge);
                }
                if self.opening.is_stopping() {
                    interrupter.interrupt();
                }
                self.source = Some(source);
                Ok(Some(Reopened::Up))
            }
            Err(_) if self.opening.is_stopping() => Err(ErrorKind::Interrupted.into()),
            Err(error) if self.failures + 1 >= self.backoff.attempts => Err(error),
            Err(error) => Ok(Some(self.fall(error))),
        }
    }

    /// Closes what is open, and sets the time for the next attempt.
    fn fall(&mut self, error: io::Error) -> Reopened<S::Frame> {
        let closed = {
            let mut inner = lock(&self.opening.inner);
            inner.past = inner.stats();
            (std::mem::take(&mut inner.interrupter), std::mem::take(&mut inner.gauge))
        };
        drop(closed);
        self.source = None;
        self.failures += 1;
        self.due = Deadline::after(self.backoff.pause(self.failures));
        event(format_args!("a device is down and will be opened again"), &error);
        Reopened::Down(SourceError::new(error))
    }

    /// What comes of asking the source that is open.
    fn told(
        &mut self,
        taken: io::Result<Option<S::Frame>>,
    ) -> io::Result<Option<Reopened<S::Frame>>> {
        match taken {
            Ok(Some(frame)) => {
                self.failures = 0;
                Ok(Some(Reopened::Frame(frame)))
            }
            Ok(None) if self.opening.is_stopping() => Ok(None),
            Ok(None) => {
                let end = io::Error::new(ErrorKind::UnexpectedEof, "the device came to its end");
                Ok(Some(self.fall(end)))
            }
            Err(error) if is_timeout(&error) || self.opening.is_stopping() => Err(error),
            Err(error) => Ok(Some(self.fall(error))),
        }
    }
}

impl<S, F> FrameSource for Reopening<S, F>
where
    S: FrameSource,
    F: FnMut(&Opening) -> io::Result<S> + Send + 'static,
{
    type Frame = Reopened<S::Frame>;

    fn next_frame(&mut self) -> io::Result<Option<Self::Frame>> {
        if let Some(error) = self.down.take() {
            return Ok(Some(Reopened::Down(error)));
        }
        match &mut self.source {
            Some(source) => {
                let taken = source.next_frame();
                self.told(taken)
            }
            None => self.open(),
        }
    }

    fn next_ready(&mut self) -> io::Result<Option<Self::Frame>> {
        if let Some(error) = self.down.take() {
            return Ok(Some(Reopened::Down(error)));
        }
        match &mut self.source {
            Some(source) => {
                let taken = source.next_ready();
                self.told(taken)
            }
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn next_buffered(&mut self) -> io::Result<Option<Self::Frame>> {
        let Some(source) = &mut self.source else { return Ok(None) };
        Ok(source.next_buffered()?.map(Reopened::Frame))
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref()?.as_fd()
    }

    fn wants_to_write(&self) -> bool {
        self.source.as_ref().is_some_and(FrameSource::wants_to_write)
    }

    fn interrupter(&self) -> Interrupter {
        let opening = Arc::clone(&self.opening);
        Interrupter::new(move || opening.interrupt())
    }

    fn gauge(&self) -> Gauge {
        let opening = Arc::clone(&self.opening);
        Gauge::new(move || lock(&opening.inner).stats())
    }

    fn set_poll_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.poll_timeout = timeout;
        Ok(())
    }

    fn is_inside_frame(&self) -> bool {
        self.source.as_ref().is_some_and(FrameSource::is_inside_frame)
    }

    fn part(&mut self) -> io::Result<bool> {
        self.source.as_mut().map_or(Ok(true), FrameSource::part)
    }
}

impl<S, F, R> RequestSource<R> for Reopening<S, F>
where
    S: RequestSource<R, Address = ()>,
    F: FnMut(&Opening) -> io::Result<S> + Send + 'static,
{
    type Address = ();

    fn address(&mut self, _frame: &mut Self::Frame) {}

    fn answer(&mut self, _to: (), frame: R) -> io::Result<bool> {
        match &mut self.source {
            Some(source) => source.answer((), frame),
            None => Err(is_down()),
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        let Some(source) = &mut self.source else { return Err(is_down()) };
        source.flush().inspect_err(|error| {
            if !is_timeout(error) {
                let error = io::Error::new(error.kind(), error.to_string());
                if let Reopened::Down(error) = self.fall(error) {
                    self.down = Some(error);
                }
            }
        })
    }

    fn staged(&self) -> usize {
        self.source.as_ref().map_or(0, |source| RequestSource::<R>::staged(source))
    }

    fn replies_in_order(&self) -> bool {
        true
    }
}

fn is_down() -> io::Error {
    io::Error::new(ErrorKind::NotConnected, "the device is down: wait until it is up again")
}

impl<S, F> fmt::Debug for Reopening<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopening")
            .field("open", &self.source.is_some())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
