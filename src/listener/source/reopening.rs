use super::from_fn::StopGuard;
use super::opening::Opening;
use super::poll::POLL_TIMEOUT;
use super::{FrameSource, Gauge, Interrupter, RequestSource, is_timeout};
use crate::channel::SourceError;
use crate::sync::{Deadline, event};
use rustix::fd::BorrowedFd;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long to wait before a device is opened again.
///
/// The pause doubles from `first` to `longest` while opening fails, or succeeds and no frame comes, and begins
/// anew once one has. After `attempts` failures in a row, the listener fails with the last error.
///
/// # Examples
///
/// ```
/// use callbridge::listener::Backoff;
/// use std::time::{Duration, Instant};
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
    /// So many failures in a row end the listener, the loss of the device being the first; no limit by default.
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
/// `Up` and `Down` take turns; the first tells how the first opening went. They are control frames: no overflow
/// policy drops them, and they take no room in the channel.
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
    /// It failed, came to its end, or couldn't be opened; it will be opened again. Told once: that it can't be
    /// opened yet is an event for `tracing` each time, and the last error ends the listener after
    /// [`attempts`](Backoff::attempts).
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

/// A device that is opened again whenever it fails or ends; made by
/// [`Listener::reopening`](crate::Listener::reopening).
pub struct Reopening<S, F> {
    make: F,
    backoff: Backoff,
    opening: Arc<Opening>,
    open: Option<Open<S>>,
    /// A write has failed: what was received before is still read, and how long that has taken.
    broken: Option<(io::Error, Duration)>,
    /// `Down` was told, and no `Up` since.
    told_down: bool,
    /// When to open next.
    due: Deadline,
    failures: u32,
    poll_timeout: Duration,
}

/// Its interrupter runs no more when the source is dropped.
struct Open<S> {
    _interrupted: StopGuard,
    source: S,
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
            opening: Arc::new(Opening::new()),
            open: None,
            broken: None,
            told_down: false,
            due: Deadline::Now,
            failures: 0,
            poll_timeout: POLL_TIMEOUT,
        }
    }

    /// Opens the device, if it is time; else waits for that, up to the poll timeout.
    fn open(&mut self) -> io::Result<Option<Reopened<S::Frame>>> {
        if !self.due.passed() {
            self.opening.pause(self.due.or_after(self.poll_timeout));
            return Err(ErrorKind::TimedOut.into());
        }
        let opened = (self.make)(&self.opening).and_then(|mut source| {
            source.set_poll_timeout(self.poll_timeout)?;
            Ok(source)
        });
        match opened {
            Ok(source) => {
                self.opening.begin_to_count(source.gauge());
                let interrupted = self.opening.on_stop(source.interrupter());
                self.open = Some(Open { _interrupted: interrupted, source });
                self.told_down = false;
                Ok(Some(Reopened::Up))
            }
            Err(_) if self.opening.is_stopping() => Err(ErrorKind::Interrupted.into()),
            Err(error) => self.fall(error),
        }
    }

    /// Closes what is open, and sets the time for the next attempt, if there is to be one.
    fn fall(&mut self, error: io::Error) -> io::Result<Option<Reopened<S::Frame>>> {
        self.opening.end_to_count();
        self.open = None;
        self.failures += 1;
        if self.failures >= self.backoff.attempts {
            // A connect that timed out would only say that nothing has come.
            return Err(if is_timeout(&error) { io::Error::other(error) } else { error });
        }
        self.due = Deadline::after(self.backoff.pause(self.failures));
        event(format_args!("a device is down and will be opened again"), &error);
        if std::mem::replace(&mut self.told_down, true) {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(Some(Reopened::Down(SourceError::new(error))))
    }

    /// What comes of asking the source that is open.
    fn told(
        &mut self,
        taken: io::Result<Option<S::Frame>>,
    ) -> io::Result<Option<Reopened<S::Frame>>> {
        let error = match taken {
            Ok(Some(frame)) => {
                self.failures = 0;
                return Ok(Some(Reopened::Frame(frame)));
            }
            Ok(None) if self.opening.is_stopping() => return Ok(None),
            Ok(None) => io::Error::new(ErrorKind::UnexpectedEof, "the device came to its end"),
            Err(error) if self.opening.is_stopping() => return Err(error),
            Err(error) if is_timeout(&error) => return Err(error),
            Err(error) => error,
        };
        self.fall(error)
    }

    /// Asks the source that is open; after a failed write only for what can be had without waiting, until there
    /// is no more. Reading that takes short; a peer that goes on sending doesn't keep the device up.
    fn ask(
        &mut self,
        next: fn(&mut S) -> io::Result<Option<S::Frame>>,
    ) -> Option<io::Result<Option<Reopened<S::Frame>>>> {
        let source = &mut self.open.as_mut()?.source;
        let Some((_, took)) = &mut self.broken else {
            let taken = next(source);
            return Some(self.told(taken));
        };
        if *took < self.poll_timeout {
            let began = Instant::now();
            let taken = match source.as_fd() {
                // One may say without a look that nothing has come, but not twice.
                Some(_) => source.next_ready().or_else(|_| source.next_ready()),
                None => source.next_buffered(),
            };
            *took += began.elapsed();
            if let Ok(Some(frame)) = taken {
                return Some(Ok(Some(Reopened::Frame(frame))));
            }
        }
        let (error, _) = self.broken.take()?;
        Some(self.fall(error))
    }

    /// The source to write to.
    fn writable(&mut self) -> io::Result<&mut S> {
        match &mut self.open {
            Some(open) if self.broken.is_none() => Ok(&mut open.source),
            _ => {
                let text = "the device is down: wait until it is up again";
                Err(io::Error::new(ErrorKind::NotConnected, text))
            }
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
        self.ask(S::next_frame).unwrap_or_else(|| self.open())
    }

    fn next_ready(&mut self) -> io::Result<Option<Self::Frame>> {
        self.ask(S::next_ready).unwrap_or(Err(ErrorKind::WouldBlock.into()))
    }

    fn next_buffered(&mut self) -> io::Result<Option<Self::Frame>> {
        let Some(open) = &mut self.open else { return Ok(None) };
        Ok(open.source.next_buffered()?.map(Reopened::Frame))
    }

    fn is_control(&self, frame: &Self::Frame) -> bool {
        match frame {
            Reopened::Frame(frame) => {
                self.open.as_ref().is_some_and(|open| open.source.is_control(frame))
            }
            Reopened::Up | Reopened::Down(_) => true,
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.open.as_ref()?.source.as_fd()
    }

    fn wants_to_write(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.source.wants_to_write())
    }

    fn interrupter(&self) -> Interrupter {
        let opening = Arc::clone(&self.opening);
        Interrupter::new(move || opening.stop())
    }

    fn gauge(&self) -> Gauge {
        let opening = Arc::clone(&self.opening);
        Gauge::aging(move |fresh| opening.stats(fresh))
    }

    fn set_poll_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.poll_timeout = timeout;
        Ok(())
    }

    fn is_inside_frame(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.source.is_inside_frame())
    }

    fn give_up(&mut self, why: io::Error) -> bool {
        self.broken = Some((why, Duration::ZERO));
        true
    }

    fn part(&mut self) -> io::Result<bool> {
        self.open.as_mut().map_or(Ok(true), |open| open.source.part())
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
        self.writable()?.answer((), frame)
    }

    fn flush(&mut self) -> io::Result<bool> {
        let flushed = self.writable()?.flush();
        if let Some(error) = flushed.as_ref().err().filter(|error| !is_timeout(error)) {
            self.broken = Some((io::Error::new(error.kind(), error.to_string()), Duration::ZERO));
        }
        flushed
    }

    fn staged(&self) -> usize {
        match &self.open {
            Some(open) if self.broken.is_none() => RequestSource::<R>::staged(&open.source),
            _ => 0,
        }
    }

    fn replies_in_order(&self) -> bool {
        true
    }

    /// A reply could reach another device than the one that asked.
    fn can_serve(&self) -> bool {
        false
    }
}

impl<S, F> fmt::Debug for Reopening<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopening")
            .field("open", &self.open.is_some())
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
