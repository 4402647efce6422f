use super::alarms::{Alarms, OnError};
use super::core::{Core, End, Feed, judged};
use super::driver::Driver;
use super::handle::Listener;
use super::pump::{Outflow, Writing, lose_buffered, may_follow, pump};
use super::serve::{Serve, ServeBuilder};
use super::source::poll::{POLL_TIMEOUT, check_poll_timeout};
use super::source::{FrameSource, RequestSource};
use super::stop::Phase;
use super::wake::Wake;
use super::writer::{FrameSink, writer};
use crate::Bridge;
use crate::channel::{self, Ending, FrameStream, Loss, Overflow};
use crate::sync::{SettingError, contain};
use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a peer that doesn't read is waited for by default.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a listener can be built over: a [`FrameSource`], a [`StreamServer`](super::StreamServer), or a
/// closure (see [`Listener::from_fn`]).
///
/// Sealed: implement [`FrameSource`] for sources of your own.
///
/// ```compile_fail,E0277
/// struct Mine;
/// impl callbridge::listener::Origin for Mine {
///     type Item = u8;
///     type Request = u8;
///     fn launch(self, _: callbridge::listener::Setup<Self>) -> std::io::Result<()> {
///         Ok(())
///     }
/// }
/// ```
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
pub trait Origin: sealed::Sealed + Send + 'static {
    /// What the listener's stream yields.
    type Item: Send + 'static;

    /// What a handler is given by [`serve`](ListenerBuilder::serve).
    type Request: Send + 'static;

    /// Starts the threads.
    #[doc(hidden)]
    fn launch(self, setup: Setup<Self>) -> io::Result<()>
    where
        Self: Sized;
}

pub(crate) mod sealed {
    #[allow(unnameable_types, reason = "this is what seals Origin")]
    pub trait Sealed {}
    impl<S: super::FrameSource> Sealed for S {}
}

/// What a start needs; private in all but name.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "nobody outside can get hold of one")]
pub struct Setup<S: Origin> {
    pub(crate) feed: Feed<S::Item>,
    pub(crate) wake: Arc<Wake>,
    pub(crate) outflow: Option<Box<dyn Outflow<S>>>,
}

impl<S: FrameSource> Origin for S {
    type Item = S::Frame;
    type Request = S::Frame;

    fn launch(mut self, setup: Setup<S>) -> io::Result<()> {
        let Setup { feed, wake, mut outflow } = setup;
        let core = Arc::clone(&feed.core);
        prepare(&mut self, &core)?;
        let mut driver = Driver::new(&core, wake, self);
        let (stop, name) = (Arc::clone(&core.stop), core.name.clone());
        stop.spawn(&name, move || {
            let outflow = outflow.as_mut().map(|outflow| &mut **outflow as &mut dyn Outflow<S>);
            let mut writing = Writing::new(outflow);
            let verdict = judged(|| pump(&mut driver, &feed, &mut writing));
            let may_follow = verdict.as_ref().ok().map(|verdict| may_follow(&driver, verdict));
            let end = End::of(verdict, &core.name);
            feed.end_with_listener(&end);
            if driver.phase() > Phase::Running {
                lose_buffered(&mut driver, &feed);
            }
            if let Some(may_follow) = may_follow {
                contain("a source", || writing.finish(&mut driver, may_follow));
            }
            driver.release();
            core.conclude(&end);
        })
    }
}

/// Tells a source of its settings, and the listener of the source's gauge.
pub(crate) fn prepare(source: &mut impl FrameSource, core: &Core) -> io::Result<()> {
    source.set_poll_timeout(core.poll_timeout)?;
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
///     .poll_timeout(Duration::from_millis(20))
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
    wake: Arc<Wake>,
    outflow: Option<Box<dyn Outflow<S>>>,
}

/// The settings that streams and `serve` share.
pub(crate) struct Options {
    pub(crate) name: String,
    /// The name was given, and isn't the crate's own.
    pub(crate) named: bool,
    pub(crate) poll_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) stop_on: Vec<CancellationToken>,
    pub(crate) alarms: Alarms,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: String::new(),
            named: false,
            poll_timeout: POLL_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            stop_on: Vec::new(),
            alarms: Alarms::default(),
        }
    }
}

/// How many listeners were named by the crate; std's atomic, since a static of the model checkers can't be made.
static UNNAMED: AtomicU64 = AtomicU64::new(1);

impl Options {
    pub(crate) fn checked(mut self) -> io::Result<Self> {
        self.poll_timeout = check_poll_timeout(self.poll_timeout)?;
        SettingError::check_name(&self.name)?;
        self.named = !self.name.is_empty();
        if !self.named {
            // Linux shows 15 bytes.
            self.name = format!("cb-listener-{}", UNNAMED.fetch_add(1, Ordering::Relaxed));
        }
        Ok(self)
    }
}

impl<S: Origin> ListenerBuilder<S> {
    pub(super) fn new(source: S) -> Self {
        ListenerBuilder {
            source,
            options: Options::default(),
            channel: channel::builder(),
            wake: Wake::new(),
            outflow: None,
        }
    }

    /// Sets the thread's name; "cb-listener-" and a number by default. A server's further threads
    /// are called by their connection's number and this name. Linux shows 15 bytes of it. A NUL
    /// byte in it is an error at the start. Metrics show the listener and its channel under it, if
    /// it was set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// Sets how many frames can be queued, at least 1; 64 by default. See
    /// [`channel::Builder::capacity`].
    pub fn capacity(mut self, frames: usize) -> Self {
        self.channel = self.channel.capacity(frames);
        self
    }

    /// Sets what happens when the channel is full; [`Overflow::Block`] by default.
    ///
    /// `Block` stops the reading: TCP then holds the peer back, and for UDP the kernel drops. A frame
    /// that [`Overflow::Fail`] would refuse is dropped and counted as lost by overflow, since there is
    /// nobody to refuse it to.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.channel = self.channel.overflow(overflow);
        self
    }

    /// Sets a hook that runs once for every lost frame. See [`channel::Builder::on_loss`].
    ///
    /// A frame that the thread holds when the listener stops is one of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::channel::LossReason;
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

    /// Sets how often a source without a descriptor is asked to return from its wait, so that its
    /// thread can look whether to stop; 50 ms by default.
    ///
    /// 1 ms to 1 h; longer is taken as 1 h, zero is an error at the start. Sources with a descriptor, as the
    /// crate's own for sockets have, don't need it: their threads are woken. For any other it is what a stop is
    /// guaranteed by.
    pub fn poll_timeout(mut self, timeout: Duration) -> Self {
        self.options.poll_timeout = timeout;
        self
    }

    /// Sets a hook that decides what happens after an error of the source; without one, the
    /// listener ends as failed.
    ///
    /// `decide` is given the error, and how many there were in a row, this one included. It runs on the
    /// listener's thread; if it panics, the listener ends. Bytes that make no frame aren't asked about (see
    /// [`BadFrames`](super::BadFrames)), nor is what passes by itself. A server's connections end by their
    /// errors; for a server, this is about accepting.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{FrameSource, Listener, OnError};
    /// use std::io;
    /// use std::time::Duration;
    ///
    /// /// Loses its line now and then.
    /// struct Modem(u32);
    /// impl FrameSource for Modem {
    ///     type Frame = u32;
    ///     fn next_frame(&mut self) -> io::Result<Option<u32>> {
    ///         self.0 += 1;
    ///         if self.0 == 1 { Err(io::Error::other("no carrier")) } else { Ok(Some(self.0)) }
    ///     }
    /// }
    ///
    /// # fn main() -> io::Result<()> {
    /// let (_listener, mut frames) = Listener::builder(Modem(0))
    ///     .on_error(|_error, attempt| match attempt {
    ///         1..=10 => OnError::Retry(Duration::from_millis(10)),
    ///         _ => OnError::Fail,
    ///     })
    ///     .spawn()?;
    /// assert_eq!(frames.recv_blocking(Duration::from_secs(5)), Ok(2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_error(
        mut self,
        decide: impl FnMut(&io::Error, u32) -> OnError + Send + 'static,
    ) -> Self {
        self.options.alarms.on_error = Some(Box::new(decide));
        self
    }

    /// Calls `hook` when no frame has come for `silence`; again only after another frame.
    ///
    /// It runs on the listener's thread; a panic in it is contained. For a server, it is about connections.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Listener, UdpSource};
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (alarm, alarms) = mpsc::channel();
    /// let (_listener, _frames) = Listener::builder(UdpSource::bind("127.0.0.1:0")?)
    ///     .quiet_after(Duration::from_millis(10), move || drop(alarm.send("the meter is silent")))
    ///     .spawn()?;
    /// assert!(alarms.recv_timeout(Duration::from_secs(5)).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn quiet_after(mut self, silence: Duration, hook: impl FnMut() + Send + 'static) -> Self {
        self.options.alarms.quiet_after = Some((silence, Box::new(hook)));
        self
    }

    /// Makes a sink by which async code writes to the source, through the thread that owns it; up
    /// to `capacity` frames wait in it: 1 to 65 536, and what is beyond is taken as the nearest.
    ///
    /// A frame outlives the call that sends it, so it is owned: `writer::<String>`, or `&str` where all are
    /// literals.
    ///
    /// The thread's wait is interrupted for it, that for room in a full stream (`Block`, the default)
    /// included; a source without a descriptor is written to when its call returns. Of several writers, the
    /// last counts: the others answer [`WriteError::Closed`](super::WriteError::Closed). Not for listeners
    /// that [`serve`](Self::serve), which refuse to start with one.
    pub fn writer<R>(&mut self, capacity: usize) -> FrameSink<R>
    where
        S: RequestSource<R, Address = ()>,
        R: Send + 'static,
    {
        let (sink, written) = writer(capacity, &self.wake);
        self.outflow = Some(Box::new(written));
        sink
    }

    /// Sets how long a peer may not read what is sent to it before its connection is closed; 30 s
    /// by default. A peer that reads less than 4 KiB in that time counts as one that doesn't.
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
    /// poll timeout of zero).
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
        let mut options = self.options.checked()?;
        let mut channel = self.channel;
        if options.named && !channel.is_named() {
            channel = channel.name(&*options.name);
        }
        let (sender, frames) = channel.build()?;
        let core = Core::new(&mut options);

        let on_drop = Arc::clone(&core);
        sender.on_termination(move |ending| {
            if ending == Ending::ConsumerDropped {
                on_drop.stop_for(ending);
            }
        });
        let feed = Feed { sender, core: Arc::clone(&core) };
        let unblock = feed.ends_from(Phase::Stopping, Core::ending);
        self.source.launch(Setup { feed, wake: self.wake, outflow: self.outflow })?;
        Ok((Listener::new(core, options.stop_on, Some(unblock)), frames))
    }

    /// Answers requests instead of streaming them: `handler` runs on the loop of `bridge`, and the
    /// listener's thread sends what it returns.
    ///
    /// See [`ServeBuilder`] for the rules and the settings. The settings of the channel are not used.
    pub fn serve<R, H, Fut>(self, bridge: &Bridge, handler: H) -> ServeBuilder<S, R, H>
    where
        S: Serve<R>,
        H: Fn(S::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
        R: Send + 'static,
    {
        let has_writer = self.outflow.is_some();
        ServeBuilder::new(self.source, self.options, has_writer, bridge.clone(), handler)
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
