use super::core::{Core, Feed, judged, pump, release};
use super::handle::Listener;
use super::serve::{Serve, ServeBuilder};
use super::source::{FrameSource, Interrupter};
use crate::Bridge;
use crate::channel::{self, Ending, FrameStream, Loss, Overflow};
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a peer that doesn't read is waited for unless told otherwise.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a listener can be built over: a [`FrameSource`], a [`StreamServer`](super::StreamServer), or a
/// closure (see [`Listener::from_fn`]).
///
/// Sealed: implement [`FrameSource`] for sources of your own.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Datagram, Origin, UdpSource};
///
/// fn item_of<S: Origin<Item = Datagram>>(_: &S) {}
/// # fn main() -> std::io::Result<()> {
/// item_of(&UdpSource::bind("127.0.0.1:0")?);
/// # Ok(())
/// # }
/// ```
pub trait Origin: Send + 'static {
    /// What the listener's stream yields.
    type Item: Send + 'static;

    /// What a handler is given by [`serve`](ListenerBuilder::serve).
    type Request: Send + 'static;

    /// Starts the threads.
    #[doc(hidden)]
    fn launch(self, setup: Setup<Self::Item>) -> io::Result<()>;
}

/// What a start needs; private in all but name.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "nobody outside can get hold of one")]
pub struct Setup<T> {
    pub(crate) feed: Feed<T>,
    pub(crate) poll_interval: Option<Duration>,
}

impl<S: FrameSource> Origin for S {
    type Item = S::Frame;
    type Request = S::Frame;

    fn launch(mut self, setup: Setup<S::Frame>) -> io::Result<()> {
        let Setup { feed, poll_interval } = setup;
        prepare(&mut self, &feed.core, poll_interval)?;
        let core = Arc::clone(&feed.core);
        core.stop.spawn(&core.name, move || {
            let mut source = self;
            let verdict = judged(|| pump(&mut source, &feed));
            release(&feed.core, source);
            feed.end(verdict);
        })
    }
}

/// Tells a source of its settings, and the listener of the source's gauge.
pub(crate) fn prepare(
    source: &mut impl FrameSource,
    core: &Core,
    poll_interval: Option<Duration>,
) -> io::Result<()> {
    if let Some(interval) = poll_interval {
        source.set_poll_interval(interval)?;
    }
    core.set_gauge(source.gauge());
    core.set_address(source.bound_to());
    Ok(())
}

/// Sets up a listener; made by [`Listener::builder`].
///
/// # Examples
///
/// ```
/// use callbridge::Overflow;
/// use callbridge::listener::{Listener, UdpSource};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let (listener, frames) = Listener::builder(UdpSource::bind("127.0.0.1:0")?)
///     .name("telemetry")
///     .capacity(4096)
///     .overflow(Overflow::DropOldest)
///     .poll_interval(Duration::from_millis(20))
///     .spawn()?;
/// assert_eq!(listener.name(), "telemetry");
/// assert_eq!(frames.capacity(), 4096);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing runs before `spawn`"]
pub struct ListenerBuilder<S: Origin> {
    pub(super) source: S,
    pub(super) options: Options,
    channel: channel::Builder<S::Item>,
}

/// The settings that streams and `serve` share.
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) poll_interval: Option<Duration>,
    pub(crate) write_timeout: Duration,
    pub(crate) stop_on: Vec<CancellationToken>,
}

impl Options {
    pub(crate) fn checked(self) -> io::Result<Self> {
        self.poll_interval.map(super::socket::check_tick).transpose()?;
        if self.name.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a thread's name can't hold a NUL byte: choose another",
            ));
        }
        Ok(self)
    }
}

impl<S: Origin> ListenerBuilder<S> {
    pub(super) fn new(source: S) -> Self {
        let options = Options {
            name: "callbridge-listener".to_owned(),
            poll_interval: None,
            write_timeout: WRITE_TIMEOUT,
            stop_on: Vec::new(),
        };
        ListenerBuilder { source, options, channel: channel::builder() }
    }

    /// The name of the thread, and the beginning of the names of a server's further threads;
    /// "callbridge-listener" unless told. A NUL byte in it is an error at the start.
    ///
    /// # Examples
    ///
    /// See [`ListenerBuilder`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// How many frames can be queued, at least 1; 64 unless told. See
    /// [`channel::Builder::capacity`].
    ///
    /// # Examples
    ///
    /// See [`ListenerBuilder`].
    pub fn capacity(mut self, frames: usize) -> Self {
        self.channel = self.channel.capacity(frames);
        self
    }

    /// What happens when the channel is full; [`Overflow::Block`] unless told.
    ///
    /// `Block` stops the reading: TCP then holds the peer back, and for UDP the kernel drops. A frame
    /// that [`Overflow::Fail`] would refuse is dropped and counted as lost by overflow, since there is
    /// nobody to refuse it to.
    ///
    /// # Examples
    ///
    /// See [`ListenerBuilder`].
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.channel = self.channel.overflow(overflow);
        self
    }

    /// Is called once for each frame that will not reach the consumer. See
    /// [`channel::Builder::on_loss`].
    ///
    /// A frame that the thread holds when the listener stops is one of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::LossReason;
    /// use callbridge::listener::{Listener, UdpSource};
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let source = UdpSource::bind("127.0.0.1:0")?;
    /// let addr = source.local_addr()?;
    /// let (report, losses) = mpsc::channel();
    /// let (_listener, frames) = Listener::builder(source)
    ///     .on_loss(move |loss| report.send(loss.reason).unwrap())
    ///     .spawn()?;
    /// std::net::UdpSocket::bind("127.0.0.1:0")?.send_to(b"unread", addr)?;
    /// while frames.is_empty() {
    ///     std::thread::yield_now();
    /// }
    /// drop(frames);
    /// assert_eq!(losses.recv_timeout(Duration::from_secs(5)), Ok(LossReason::ConsumerDropped));
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_loss(mut self, hook: impl Fn(Loss<'_, S::Item>) + Send + Sync + 'static) -> Self {
        self.channel = self.channel.on_loss(hook);
        self
    }

    /// Sets up the channel in full: weights, watermarks and the rest. Replaces what was set before.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel;
    /// use callbridge::listener::{Datagram, Listener, UdpSource};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let bounded = channel::builder()
    ///     .capacity(10_000)
    ///     .weigh(|datagram: &Datagram| datagram.payload.len(), 1 << 20);
    /// let source = UdpSource::bind("127.0.0.1:0")?;
    /// let (_listener, frames) = Listener::builder(source).channel(bounded).spawn()?;
    /// assert_eq!(frames.capacity(), 10_000);
    /// # Ok(())
    /// # }
    /// ```
    pub fn channel(mut self, channel: channel::Builder<S::Item>) -> Self {
        self.channel = channel;
        self
    }

    /// How often the thread looks at its stop flag while nothing arrives and nothing nudges it.
    ///
    /// 1 ms to 1 h; 50 ms unless told; longer is taken as 1 h, zero is an error at the start. The
    /// system may add some ms. The crate's own sockets are nudged as well and stop at once as a
    /// rule; this is what stop is guaranteed by where nothing can be nudged. Connected stream sockets,
    /// which can be nudged everywhere, tick 20 times slower while they are read.
    ///
    /// # Examples
    ///
    /// See [`ListenerBuilder`].
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.options.poll_interval = Some(interval);
        self
    }

    /// How long a peer may not read what is sent to it before its connection is closed; 30 s unless
    /// told. Checked once per poll interval.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::{Listener, TcpServer};
    /// # use std::time::Duration;
    /// # use tokio_util::codec::LinesCodec;
    /// # fn main() -> std::io::Result<()> {
    /// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
    /// let impatient = Listener::builder(server).write_timeout(Duration::from_secs(2));
    /// let (listener, _events) = impatient.spawn()?;
    /// assert!(!listener.is_finished());
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.options.write_timeout = timeout;
        self
    }

    /// Stops the listener when `token` is cancelled. Can be called several times.
    ///
    /// It needs no task and no runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Listener, UdpSource};
    /// use std::time::Duration;
    /// use tokio_util::sync::CancellationToken;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let token = CancellationToken::new();
    /// let source = UdpSource::bind("127.0.0.1:0")?;
    /// let (listener, mut frames) = Listener::builder(source).stop_on(token.clone()).spawn()?;
    /// token.cancel();
    /// assert!(frames.recv_blocking(Duration::from_secs(10)).is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop_on(mut self, token: CancellationToken) -> Self {
        self.options.stop_on.push(token);
        self
    }

    /// Starts the thread; its frames come out of the stream.
    ///
    /// # Errors
    ///
    /// When the system refuses the thread, when the source can't be set up, and
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for settings that make no sense (a capacity or a
    /// poll interval of zero).
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::{Listener, UdpSource};
    /// # fn main() -> std::io::Result<()> {
    /// let (_listener, _frames) = Listener::builder(UdpSource::bind("127.0.0.1:0")?).spawn()?;
    /// let refused = Listener::builder(UdpSource::bind("127.0.0.1:0")?).capacity(0).spawn();
    /// assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    /// # Ok(())
    /// # }
    /// ```
    pub fn spawn(self) -> io::Result<(Listener, FrameStream<S::Item>)> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let (sender, frames) = self.channel.build().map_err(invalid)?;
        let options = self.options.checked()?;
        let core = Core::new(options.name, options.write_timeout);

        let on_drop = Arc::clone(&core);
        sender.on_termination(move |ending| {
            if ending == Ending::ConsumerDropped {
                on_drop.stop_for(ending);
            }
        });
        // Frees the threads that wait for room, and hands them their frames back.
        let weak = sender.downgrade();
        let on_stop = Arc::clone(&core);
        let unblock = core.stop.register(Interrupter::new(move || {
            if let Some(sender) = weak.upgrade() {
                sender.end(on_stop.ending().unwrap_or(Ending::Aborted));
            }
        }));

        let feed = Feed { sender, core: Arc::clone(&core) };
        self.source.launch(Setup { feed, poll_interval: options.poll_interval })?;
        Ok((Listener::new(core, options.stop_on, Some(unblock)), frames))
    }

    /// Answers requests instead of streaming them: `handler` runs on the loop of `bridge`, and the
    /// listener's thread sends what it returns.
    ///
    /// See [`ServeBuilder`] for the rules and the settings. The settings of the channel are not used.
    ///
    /// # Examples
    ///
    /// See [`ServeBuilder`].
    pub fn serve<R, H, Fut>(self, bridge: &Bridge, handler: H) -> ServeBuilder<S, R, H>
    where
        S: Serve<R>,
        H: Fn(S::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
        R: Send + 'static,
    {
        ServeBuilder::new(self.source, self.options, bridge.clone(), handler)
    }
}

impl<S: Origin> fmt::Debug for ListenerBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerBuilder")
            .field("name", &self.options.name)
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}
