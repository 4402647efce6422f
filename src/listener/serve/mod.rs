//! Requests answered by an async handler, replies sent by the thread that owns the source.

#[cfg(feature = "net")]
mod connections;
#[cfg(feature = "net")]
mod request;
mod worker;

#[cfg(feature = "net")]
pub use request::Request;

use super::builder::{Options, Origin, prepare};
use super::core::{Core, End, LoopWatch, judged};
use super::driver::Driver;
use super::handle::{Listener, watch};
use super::source::RequestSource;
use super::wake::Wake;
use crate::Bridge;
use crate::channel::Ending;
use crate::sync::{SettingError, Site};
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

/// How many requests of one connection, or one datagram socket, are at work at once by default.
const PIPELINE: usize = 64;

/// How long a handler may take by default.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the handler produced no reply.
///
/// # Examples
///
/// ```
/// use callbridge::listener::Unanswered;
///
/// let busy = |why| match why {
///     Unanswered::TimedOut => "try again later",
///     _ => "internal error",
/// };
/// assert_eq!(busy(Unanswered::TimedOut), "try again later");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unanswered {
    /// The handler wasn't done within the reply timeout; it was cancelled.
    TimedOut,
    /// The handler panicked.
    Panicked,
}

/// What can be served with replies of type `R`: a [`RequestSource`], or a
/// [`StreamServer`](crate::listener::StreamServer) whose codec encodes `R`.
///
/// Sealed: implement [`RequestSource`] for sources of your own.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Serve, UdpSource};
///
/// fn can_reply_with<R>(_: &impl Serve<R>) {}
/// # fn main() -> std::io::Result<()> {
/// can_reply_with::<Vec<u8>>(&UdpSource::bind("127.0.0.1:0")?);
/// # Ok(())
/// # }
/// ```
pub trait Serve<R>: Origin {
    /// Starts the threads.
    #[doc(hidden)]
    fn launch_service<H, Fut>(self, service: Service<R, H>) -> io::Result<()>
    where
        H: Fn(Self::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static;
}

/// A listener that answers; made by [`ListenerBuilder::serve`](super::ListenerBuilder::serve).
///
/// The handler of each request is polled first on the thread that owns the source, with the event loop's
/// context entered. One that is ready at once is answered at once, and nobody is woken. One that isn't goes
/// on as a task of the loop, as [`run_coroutine_threadsafe`](Bridge::run_coroutine_threadsafe) starts it,
/// and its end wakes the thread, which meanwhile takes more requests in. A handler that returns `None` sends
/// none.
///
/// 1. Datagrams are answered in any order: a slow request costs no other peer anything. Replies on a
///    connection keep the order of its requests; their handlers overlap, unless
///    [`pipeline(1)`](Self::pipeline) is set. Each connection has a thread of its own.
/// 2. A request that isn't answered within [`reply_timeout`](Self::reply_timeout) is cancelled (its
///    future is dropped at its next await) and counted as late; one that panics is counted; either is
///    answered with the [`fallback`](Self::fallback), if there is one. Without one, the request's
///    connection is closed, since its peer would take every later reply for the wrong request: see
///    [`close_on_missing_reply`](Self::close_on_missing_reply). Datagrams lose this one reply only.
/// 3. [`Listener::stop`] doesn't wait for handlers: what is outstanding is cancelled and counted as aborted.
///    [`Listener::close`] takes nothing new in, and lets what is outstanding be answered until its timeout.
/// 4. When the bridge is closed, what is outstanding may still be answered, as long as the bridge lets it;
///    then, or when the loop goes away, the listener ends as [`LoopClosed`](Ending::LoopClosed).
/// 5. What a peer doesn't read is written once it does, up to the
///    [write timeout](super::ListenerBuilder::write_timeout); while more than 256 KiB wait for it, none of its
///    further requests are read. Nor are more requests at work than whose replies, going by those before,
///    fit in 1 MiB; one always is.
/// 6. Every request is counted: see [`ListenerStats::balances`](super::ListenerStats::balances).
/// 7. Blocking methods of the crate inside a handler answer `WouldDeadlock`, wherever it is polled. A handler
///    that computes or blocks before its first await holds up what comes behind it: see
///    [`first_poll`](Self::first_poll). One that holds the thread for over 10 ms is counted
///    ([`ListenerStats::slow_polls`](super::ListenerStats::slow_polls)) and reported as an event.
///
/// # Examples
///
/// ```
/// use callbridge::Bridge;
/// use callbridge::listener::{Datagram, Listener, UdpSource};
/// use std::net::UdpSocket;
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// let source = UdpSource::bind("127.0.0.1:0")?;
/// let addr = source.local_addr()?;
/// let listener = Listener::builder(source)
///     .serve(&bridge, |datagram: Datagram| async move { Some(datagram.payload) })
///     .reply_timeout(Duration::from_secs(1))
///     .pipeline(16)
///     .spawn()?;
///
/// let client = UdpSocket::bind("127.0.0.1:0")?;
/// client.send_to(b"echo", addr)?;
/// let mut reply = [0; 8];
/// assert_eq!(client.recv(&mut reply)?, 4);
///
/// let report = listener.close_blocking(Duration::from_secs(5));
/// assert!(report.is_clean() && report.stats.balances());
/// assert_eq!(report.stats.replies, 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing runs before `spawn`"]
pub struct ServeBuilder<S, R, H> {
    source: S,
    options: Options,
    has_writer: bool,
    bridge: Bridge,
    handler: H,
    reply_timeout: Duration,
    pipeline: usize,
    first_poll: FirstPoll,
    fallback: Option<Fallback<R>>,
    close_on_missing_reply: bool,
}

/// Where the handler of a request is polled first; see [`ServeBuilder::first_poll`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FirstPoll {
    /// On the listener's thread, in the context of the loop: an answer that is ready at once wakes
    /// nobody. What isn't ready goes on as a task of the loop. A handler that computes or blocks before
    /// its first await holds the thread, and its timeout begins only afterwards; after one that took
    /// over 50 µs the next 16 begin on the loop.
    #[default]
    Here,
    /// On the loop, by a task of its own: for handlers that compute or block before their first await.
    /// Costs a wake-up of the loop and one of the thread for each request.
    OnLoop,
}

type Fallback<R> = Box<dyn Fn(Unanswered) -> Option<R> + Send + Sync>;

/// What answers requests; private in all but name.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "nobody outside can get hold of one")]
pub struct Service<R, H> {
    pub(super) core: Arc<Core>,
    pub(super) bridge: Bridge,
    pub(super) handler: Arc<H>,
    pub(super) reply_timeout: Duration,
    pub(super) pipeline: usize,
    pub(super) first_poll: FirstPoll,
    pub(super) fallback: Option<Fallback<R>>,
    pub(super) close_on_missing_reply: bool,
    /// Where it was started, as which handlers show.
    pub(super) site: Site,
}

impl<S, R, H> ServeBuilder<S, R, H> {
    pub(super) fn new(
        source: S,
        options: Options,
        has_writer: bool,
        bridge: Bridge,
        handler: H,
    ) -> Self {
        ServeBuilder {
            source,
            options,
            has_writer,
            bridge,
            handler,
            reply_timeout: REPLY_TIMEOUT,
            pipeline: PIPELINE,
            first_poll: FirstPoll::Here,
            fallback: None,
            close_on_missing_reply: true,
        }
    }

    /// Sets how long a handler may take, counted from when its request was read; 30 s by default.
    ///
    /// On a connection, give a [`fallback`](Self::fallback) as well: a request without any reply
    /// closes it (see [`close_on_missing_reply`](Self::close_on_missing_reply)). With zero, only
    /// handlers that are ready at once are answered; `Duration::MAX` means for ever.
    pub fn reply_timeout(mut self, timeout: Duration) -> Self {
        self.reply_timeout = timeout;
        self
    }

    /// Sets how many requests of one connection, or of one datagram socket, may be at work at once;
    /// 64 by default, and 0 is taken as 1.
    ///
    /// While so many wait for their handlers, no more are read. `pipeline(1)` has the handlers of one
    /// connection run one after the other, for protocols whose requests depend on those before.
    pub fn pipeline(mut self, requests: usize) -> Self {
        self.pipeline = requests.max(1);
        self
    }

    /// Sets where a handler is polled first; on the listener's thread by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::Bridge;
    /// use callbridge::listener::{Datagram, FirstPoll, Listener, UdpSource};
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// # let bridge = Bridge::new(runtime.handle().clone());
    /// let listener = Listener::builder(UdpSource::bind("127.0.0.1:0")?)
    ///     .serve(&bridge, |datagram: Datagram| async move {
    ///         std::thread::sleep(Duration::from_millis(1)); // computes before its first await
    ///         Some(datagram.payload)
    ///     })
    ///     .first_poll(FirstPoll::OnLoop)
    ///     .spawn()?;
    /// # drop(listener);
    /// # Ok(())
    /// # }
    /// ```
    pub fn first_poll(mut self, place: FirstPoll) -> Self {
        self.first_poll = place;
        self
    }

    /// Sets what makes the reply to a request that is late or whose handler panicked; by default
    /// there is none.
    ///
    /// It runs on the listener's thread; a panic in it is contained and sends nothing. On a connection,
    /// give one that makes a reply of the protocol that says "failed": a request without any reply
    /// closes it (see [`close_on_missing_reply`](Self::close_on_missing_reply)).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::Bridge;
    /// use callbridge::listener::{Datagram, Listener, UdpSource};
    /// use std::net::UdpSocket;
    /// use std::time::Duration;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let bridge = Bridge::new(runtime.handle().clone());
    /// let source = UdpSource::bind("127.0.0.1:0")?;
    /// let addr = source.local_addr()?;
    /// let _listener = Listener::builder(source)
    ///     .serve(&bridge, |_: Datagram| std::future::pending::<Option<&str>>())
    ///     .reply_timeout(Duration::from_millis(5))
    ///     .fallback(|_why| Some("busy"))
    ///     .spawn()?;
    ///
    /// let client = UdpSocket::bind("127.0.0.1:0")?;
    /// client.send_to(b"anyone?", addr)?;
    /// let mut reply = [0; 8];
    /// assert_eq!(client.recv(&mut reply)?, 4);
    /// # Ok(())
    /// # }
    /// ```
    pub fn fallback(
        mut self,
        reply: impl Fn(Unanswered) -> Option<R> + Send + Sync + 'static,
    ) -> Self {
        self.fallback = Some(Box::new(reply));
        self
    }

    /// Sets whether a connection is closed when one of its requests gets no reply: its handler was
    /// late or panicked, or its reply couldn't be encoded, and no fallback was sent instead; true
    /// by default.
    ///
    /// A peer whose protocol doesn't number requests takes each reply for that to its oldest open
    /// request: after a gap, every later reply would be taken for the wrong one. So the replies before
    /// the gap are written, and the connection is closed; what was at work behind it is cancelled and
    /// counted as aborted. A handler that returns `None` means no reply and closes nothing. Set it to
    /// false for a protocol with request numbers. Datagrams are never concerned; sources of your own
    /// are as [`replies_in_order`](super::RequestSource::replies_in_order) says.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::Bridge;
    /// use callbridge::listener::{Listener, Request, TcpServer};
    /// use std::io::{Read, Write};
    /// use std::net::TcpStream;
    /// use std::time::Duration;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let bridge = Bridge::new(runtime.handle().clone());
    /// // "7 what?" is answered by "7 this": a gap does no harm.
    /// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
    /// let listener = Listener::builder(server)
    ///     .serve(&bridge, async |request: Request<String>| {
    ///         if request.frame.starts_with('1') {
    ///             std::future::pending::<()>().await;
    ///         }
    ///         Some(request.frame)
    ///     })
    ///     .reply_timeout(Duration::from_millis(5))
    ///     .close_on_missing_reply(false)
    ///     .spawn()?;
    ///
    /// let mut client = TcpStream::connect(listener.local_addr().unwrap())?;
    /// client.write_all(b"1 hard\n2 easy\n")?;
    /// let mut reply = [0; 7];
    /// client.read_exact(&mut reply)?;
    /// assert_eq!(&reply, b"2 easy\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn close_on_missing_reply(mut self, close: bool) -> Self {
        self.close_on_missing_reply = close;
        self
    }

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system refuses the thread, when the source can't be set up, and
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a poll timeout of zero.
    #[track_caller]
    pub fn spawn<Fut>(self) -> io::Result<Listener>
    where
        S: Serve<R>,
        H: Fn(S::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        if self.has_writer {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a listener that serves writes its replies only: use spawn for one with a writer",
            ));
        }
        let mut options = self.options.checked()?;
        let core = Core::new(&mut options);
        // Kept by the listener, as the tokens that it was told to stop on are.
        let watch_loop = Waker::from(Arc::new(LoopWatch(Arc::clone(&core))));
        let gone = Arc::clone(&core);
        let token = self.bridge.child_token();
        let watched = watch(token, &watch_loop, || gone.stop_for(Ending::LoopClosed));
        let service = Service {
            core: Arc::clone(&core),
            bridge: self.bridge,
            handler: Arc::new(self.handler),
            reply_timeout: self.reply_timeout,
            pipeline: self.pipeline,
            first_poll: self.first_poll,
            fallback: self.fallback,
            close_on_missing_reply: self.close_on_missing_reply,
            site: Location::caller(),
        };
        self.source.launch_service(service)?;
        let listener = Listener::new(core, options.stop_on, None);
        listener.keep(watched);
        Ok(listener)
    }
}

impl<S, R, H> fmt::Debug for ServeBuilder<S, R, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServeBuilder")
            .field("name", &self.options.name)
            .field("reply_timeout", &self.reply_timeout)
            .field("pipeline", &self.pipeline)
            .finish_non_exhaustive()
    }
}

impl<S, R> Serve<R> for S
where
    S: RequestSource<R>,
    R: Send + 'static,
{
    fn launch_service<H, Fut>(mut self, service: Service<R, H>) -> io::Result<()>
    where
        H: Fn(S::Frame) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        if !RequestSource::<R>::can_serve(&self) {
            let why = "can't be had of a device that is opened again, since a reply could reach another than \
                       the one that asked: use spawn and a writer";
            return Err(SettingError::new("serve", why).into());
        }
        let core = Arc::clone(&service.core);
        prepare(&mut self, &core)?;
        let mut driver = Driver::new(&core, Wake::new(), self);
        core.stop.spawn(&core.name, move || {
            let verdict = judged(|| service.run(&mut driver, |frame, _| frame));
            driver.release();
            service.core.conclude(&End::of(verdict, &service.core.name));
        })
    }
}
