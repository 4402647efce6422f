use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Something a listener thread can wait on for the next frame.
///
/// The listener owns the source, calls [`next_frame`](Self::next_frame) from one thread in a loop,
/// and drops it on that thread when it stops. Implement it for anything that blocks: a serial port,
/// a C library's `read`, a queue of a vendor's SDK. Sources for sockets and for anything that is
/// [`Read`](std::io::Read) come with the crate.
///
/// A source that blocks for ever can't be stopped. Give it a time limit per call, an
/// [`interrupter`](Self::interrupter), or best both.
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
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock), [`TimedOut`](io::ErrorKind::TimedOut) and
    /// [`Interrupted`](io::ErrorKind::Interrupted) are ticks: the listener looks whether it should
    /// stop and calls again. Any other error ends the listener as a failed source.
    fn next_frame(&mut self) -> io::Result<Option<Self::Frame>>;

    /// The next frame if there is one that can be had without waiting; `Ok(None)` if not.
    ///
    /// Only used to fill a [`pipeline`](super::ServeBuilder::pipeline). The default finds none.
    ///
    /// # Errors
    ///
    /// As for [`next_frame`](Self::next_frame).
    fn next_ready(&mut self) -> io::Result<Option<Self::Frame>> {
        Ok(None)
    }

    /// What makes a blocked [`next_frame`](Self::next_frame) return soon; by default nothing does.
    fn interrupter(&self) -> Interrupter {
        Interrupter::none()
    }

    /// Asks for a tick at least this often while nothing arrives.
    ///
    /// Called once, before the thread starts. The default ignores it.
    ///
    /// # Errors
    ///
    /// When the source can't be set up; the listener is then not started.
    fn set_poll_interval(&mut self, interval: Duration) -> io::Result<()> {
        let _ = interval;
        Ok(())
    }

    /// The address that [`Listener::local_addr`](super::Listener::local_addr) gives; by default none.
    fn bound_to(&self) -> Option<SocketAddr> {
        None
    }

    /// What [`Listener::stats`](super::Listener::stats) asks for the source's own counters.
    fn gauge(&self) -> Gauge {
        Gauge::none()
    }
}

/// A source that can also answer: what [`serve`](super::ListenerBuilder::serve) needs.
///
/// `R` is the type of the reply. All methods are called on the thread that owns the source.
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
///     fn address(&self, _: &&'static str) -> usize {
///         self.requests.len()
///     }
///     fn answer(&mut self, to: &usize, reply: String) -> io::Result<bool> {
///         self.log.push((*to, reply));
///         Ok(true)
///     }
/// }
/// # let mut source = Loopback { requests: vec!["a"], log: vec![] };
/// # let frame = source.next_frame().unwrap().unwrap();
/// # let to = source.address(&frame);
/// # assert!(source.answer(&to, frame.to_owned()).unwrap());
/// # assert_eq!(source.log, [(0, "a".to_owned())]);
/// ```
pub trait RequestSource<R>: FrameSource {
    /// Where the reply to a frame goes; taken before the frame is given to the handler.
    type Address: Send + 'static;

    /// The address that a reply to `frame` goes to.
    fn address(&self, frame: &Self::Frame) -> Self::Address;

    /// Sends `reply` and gives true, or stages it until [`flush`](Self::flush) and gives false.
    ///
    /// # Errors
    ///
    /// An error costs this reply and is counted; it ends the source only if
    /// [`replies_in_order`](Self::replies_in_order).
    fn answer(&mut self, to: &Self::Address, reply: R) -> io::Result<bool>;

    /// Sends what is staged; `Ok(true)` once nothing is left, `Ok(false)` for some progress.
    ///
    /// # Errors
    ///
    /// A tick (see [`next_frame`](FrameSource::next_frame)) means no progress yet: the listener looks
    /// whether it should stop or has waited for too long, and calls again. Any other error costs
    /// what is staged and ends the source.
    fn flush(&mut self) -> io::Result<bool> {
        Ok(true)
    }

    /// Whether the peer knows which request a reply belongs to by nothing but its place in the order,
    /// so that a missing reply would shift all later ones; by default it doesn't.
    ///
    /// See [`close_on_missing_reply`](super::ServeBuilder::close_on_missing_reply).
    fn replies_in_order(&self) -> bool {
        false
    }
}

/// A nudge: makes a blocked [`FrameSource::next_frame`] return soon.
///
/// It may run on any thread, more than once, and while nothing is blocked; it must not block.
///
/// # Examples
///
/// ```
/// use callbridge::listener::Interrupter;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use std::sync::Arc;
///
/// let broken = Arc::new(AtomicBool::new(false));
/// let flag = Arc::clone(&broken);
/// let interrupter = Interrupter::new(move || flag.store(true, Ordering::Release));
/// interrupter.interrupt();
/// assert!(broken.load(Ordering::Acquire));
/// ```
#[derive(Clone, Default)]
pub struct Interrupter {
    nudge: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Interrupter {
    /// An interrupter that calls `nudge`.
    ///
    /// # Examples
    ///
    /// See [`Interrupter`].
    pub fn new(nudge: impl Fn() + Send + Sync + 'static) -> Self {
        Interrupter { nudge: Some(Arc::new(nudge)) }
    }

    /// An interrupter that does nothing: the source is left to its own ticks.
    ///
    /// # Examples
    ///
    /// ```
    /// callbridge::listener::Interrupter::none().interrupt();
    /// ```
    pub fn none() -> Self {
        Interrupter::default()
    }

    /// Runs the nudge; a panic in it is contained.
    ///
    /// # Examples
    ///
    /// See [`Interrupter`].
    pub fn interrupt(&self) {
        if let Some(nudge) = &self.nudge {
            crate::sync::contain("an interrupter", || nudge());
        }
    }
}

impl fmt::Debug for Interrupter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interrupter").field("set", &self.nudge.is_some()).finish()
    }
}

/// Counters that only the source knows.
///
/// # Examples
///
/// ```
/// use callbridge::listener::SourceStats;
///
/// let mut stats = SourceStats::default();
/// stats.truncated += 1;
/// assert_eq!(stats.kernel_drops, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStats {
    /// Datagrams that were longer than the receive limit and came cut off.
    pub truncated: u64,
    /// Receive errors that concern one peer or one moment and were passed over.
    pub transient_errors: u64,
    /// Datagrams that the kernel dropped because its receive buffer was full; `None` where the
    /// system doesn't tell.
    pub kernel_drops: Option<u64>,
}

/// Reads a source's [`SourceStats`] from any thread while the listener's thread owns the source.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Gauge, SourceStats};
///
/// let gauge = Gauge::new(SourceStats::default);
/// assert_eq!(gauge.read(), SourceStats::default());
/// ```
#[derive(Clone, Default)]
pub struct Gauge {
    read: Option<Arc<dyn Fn() -> SourceStats + Send + Sync>>,
}

impl Gauge {
    /// A gauge that calls `read`.
    ///
    /// # Examples
    ///
    /// See [`Gauge`].
    pub fn new(read: impl Fn() -> SourceStats + Send + Sync + 'static) -> Self {
        Gauge { read: Some(Arc::new(read)) }
    }

    /// A gauge of a source that counts nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::{Gauge, SourceStats};
    /// assert_eq!(Gauge::none().read(), SourceStats::default());
    /// ```
    pub fn none() -> Self {
        Gauge::default()
    }

    /// The counters now.
    ///
    /// # Examples
    ///
    /// See [`Gauge`].
    pub fn read(&self) -> SourceStats {
        self.read.as_ref().map(|read| read()).unwrap_or_default()
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge").field("set", &self.read.is_some()).finish()
    }
}

/// Whether an error only says that nothing has arrived yet.
pub(crate) fn is_tick(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
