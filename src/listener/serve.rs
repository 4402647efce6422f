//! Requests answered by an async handler, replies sent by the thread that owns the source.

use super::builder::{Options, Origin, prepare};
use super::connection::Peer;
use super::core::{Core, LoopWatch, Panicked, Verdict, judged, release};
use super::handle::{Listener, watch};
use super::reader::is_framing;
use super::server::{Accepted, StreamServer};
use super::source::{FrameSource, Gauge, Interrupter, RequestSource, is_tick};
use super::stats::{count, count_by, uncount};
use super::stream::StreamSource;
use crate::channel::Ending;
use crate::sync::prim::atomic::Ordering;
use crate::sync::{Deadline, Parker, contain, discard, report, with_parker};
use crate::{BlockingFuture, Bridge, ResultError, SubmitTimeoutError, TrySubmitError};
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio_util::codec::{Decoder, Encoder};

/// How long a handler may take unless told otherwise.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long replies that are ready wait for the next one, so that they leave together.
const GATHER: Duration = Duration::from_micros(500);

/// How often a thread that waits for the bridge to have room looks at its stop flag.
const ROOM: Duration = Duration::from_millis(20);

/// How many bytes of replies are gathered at most, counted in replies.
const GATHERED: usize = 256;

/// A request on a server's connection, as its handler gets it.
///
/// # Examples
///
/// ```
/// use callbridge::Bridge;
/// use callbridge::listener::{Listener, Request, TcpServer};
/// use std::io::{BufRead, BufReader, Write};
/// use tokio_util::codec::LinesCodec;
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
/// let addr = server.local_addr()?;
/// let _listener = Listener::builder(server)
///     .serve(&bridge, |request: Request<String>| async move {
///         Some(format!("{} from {}", request.frame, request.connection))
///     })
///     .spawn()?;
///
/// let mut client = std::net::TcpStream::connect(addr)?;
/// client.write_all(b"hello\n")?;
/// let mut reply = String::new();
/// BufReader::new(client).read_line(&mut reply)?;
/// assert_eq!(reply, "hello from 1\n");
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub struct Request<F> {
    /// What was asked.
    pub frame: F,
    /// The connection's number: 1 for the first that was accepted, and so on.
    pub connection: u64,
    /// Who asks.
    pub peer: Peer,
}

impl<F> fmt::Debug for Request<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("connection", &self.connection)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Why a request has no reply of its handler's.
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
/// [`StreamServer`] whose codec encodes `R`.
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
/// Each request is submitted to the bridge as
/// [`run_coroutine_threadsafe`](Bridge::run_coroutine_threadsafe) does it, and the thread that owns
/// the source waits for the reply and sends it. A handler that returns `None` sends none.
///
/// 1. Replies keep the order of the requests on their connection.
/// 2. A request that isn't answered within [`reply_timeout`](Self::reply_timeout) is cancelled (its
///    future is dropped at its next await) and counted as late; one that panics is counted; either is
///    answered with the [`fallback`](Self::fallback), if there is one, and costs nothing else.
/// 3. A stop doesn't wait for handlers: what is outstanding is cancelled and counted as aborted.
/// 4. When the loop goes away, or the bridge is closed, the listener ends as
///    [`LoopGone`](Ending::LoopGone).
/// 5. Every request is in the books: see
///    [`ListenerStats::balances`](super::ListenerStats::balances).
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
/// let report = listener.shutdown_blocking(Duration::from_secs(5));
/// assert!(report.is_clean() && report.stats.balances());
/// assert_eq!(report.stats.replies, 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing runs before `spawn`"]
pub struct ServeBuilder<S, R, H> {
    source: S,
    options: Options,
    bridge: Bridge,
    handler: H,
    reply_timeout: Duration,
    pipeline: usize,
    fallback: Option<Fallback<R>>,
}

type Fallback<R> = Box<dyn Fn(Unanswered) -> Option<R> + Send + Sync>;

/// What answers requests; private in all but name.
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "nobody outside can get hold of one")]
pub struct Service<R, H> {
    core: Arc<Core>,
    bridge: Bridge,
    handler: Arc<H>,
    reply_timeout: Duration,
    pipeline: usize,
    fallback: Option<Fallback<R>>,
    poll_interval: Option<Duration>,
}

impl<S, R, H> ServeBuilder<S, R, H> {
    pub(super) fn new(source: S, options: Options, bridge: Bridge, handler: H) -> Self {
        ServeBuilder {
            source,
            options,
            bridge,
            handler,
            reply_timeout: REPLY_TIMEOUT,
            pipeline: 1,
            fallback: None,
        }
    }

    /// How long a handler may take, counted from when its request was read; 30 s unless told.
    ///
    /// Zero gives only handlers that are done at once a chance; `Duration::MAX` means for ever.
    ///
    /// # Examples
    ///
    /// See [`fallback`](Self::fallback).
    pub fn reply_timeout(mut self, timeout: Duration) -> Self {
        self.reply_timeout = timeout;
        self
    }

    /// How many requests of one connection (or of one datagram socket) may be at work at once; 1
    /// unless told, and 0 is taken as 1.
    ///
    /// With more than one, the requests that one read has brought are submitted together, run at
    /// the same time, and their replies leave in one write, in the order of the requests.
    ///
    /// # Examples
    ///
    /// See [`ServeBuilder`].
    pub fn pipeline(mut self, requests: usize) -> Self {
        self.pipeline = requests.max(1);
        self
    }

    /// Makes the reply to a request that is late or whose handler panicked; by default there is none.
    ///
    /// It runs on the listener's thread; a panic in it is contained and sends nothing.
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

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system refuses the thread, when the source can't be set up, and
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a poll interval of zero.
    ///
    /// # Examples
    ///
    /// See [`ServeBuilder`].
    pub fn spawn<Fut>(self) -> io::Result<Listener>
    where
        S: Serve<R>,
        H: Fn(S::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        let options = self.options.checked()?;
        let core = Core::new(options.name, options.write_timeout);
        // Kept by the listener, as the tokens that it was told to stop on are.
        let watch_loop = Waker::from(Arc::new(LoopWatch(Arc::clone(&core))));
        let gone = Arc::clone(&core);
        let token = self.bridge.child_token();
        let watched = watch(token, &watch_loop, || gone.stop_for(Ending::LoopGone));
        let service = Service {
            core: Arc::clone(&core),
            bridge: self.bridge,
            handler: Arc::new(self.handler),
            reply_timeout: self.reply_timeout,
            pipeline: self.pipeline,
            fallback: self.fallback,
            poll_interval: options.poll_interval,
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
        let core = Arc::clone(&service.core);
        prepare(&mut self, &core, service.poll_interval)?;
        core.stop.spawn(&core.name, move || {
            let mut source = self;
            let verdict = judged(|| service.run(&mut source));
            release(&service.core, source);
            conclude(&service.core, verdict);
        })
    }
}

impl<M, C, K, R> Serve<R> for StreamServer<M, K>
where
    M: Fn() -> C + Send + Sync + 'static,
    C: Decoder + Encoder<R> + Send + 'static,
    C::Item: Send + 'static,
    <C as Decoder>::Error: Error + Send + Sync + 'static,
    <C as Encoder<R>>::Error: Error + Send + Sync + 'static,
    K: Send + 'static,
    R: Send + 'static,
{
    fn launch_service<H, Fut>(self, service: Service<R, H>) -> io::Result<()>
    where
        H: Fn(Self::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        let core = Arc::clone(&service.core);
        let (poll_interval, last) = (service.poll_interval, Arc::clone(&core));
        let work = move |accepted: Accepted, source: io::Result<StreamSource<C, K>>| {
            let Accepted { id, peer, slot, .. } = accepted;
            let Ok(stream) = source else { return };
            let mut asking = Asking { stream, id, peer };
            let verdict = judged(|| service.run(&mut asking));
            contain("the destructor of a codec", || drop(asking));
            drop(slot);
            if let Ok(Verdict::LoopGone) = verdict {
                service.core.stop_for(Ending::LoopGone);
            }
        };
        self.accept_on_thread(&core, poll_interval, work, move |verdict| conclude(&last, verdict))
    }
}

/// Notes how a listener that serves has ended.
fn conclude(core: &Core, verdict: Result<Verdict, Panicked>) {
    match verdict {
        Ok(Verdict::Finished) => core.finish(Ending::Finished),
        Ok(Verdict::Failed(error)) => core.fail(&Arc::new(error)),
        Ok(Verdict::Stopped) => core.finish(Ending::Aborted),
        Ok(Verdict::LoopGone) => core.finish(Ending::LoopGone),
        Err(Panicked) => core.finish(Ending::Panicked),
    }
    core.stop.signal();
}

/// A connection as a source of requests that say where they come from.
struct Asking<C, K> {
    stream: StreamSource<C, K>,
    id: u64,
    peer: Peer,
}

impl<C, K> Asking<C, K> {
    fn request<F>(&self, frame: F) -> Request<F> {
        Request { frame, connection: self.id, peer: self.peer.clone() }
    }
}

impl<C, K> FrameSource for Asking<C, K>
where
    C: Decoder + Send + 'static,
    C::Item: Send + 'static,
    C::Error: Error + Send + Sync + 'static,
    K: Send + 'static,
{
    type Frame = Request<C::Item>;

    fn next_frame(&mut self) -> io::Result<Option<Self::Frame>> {
        let frame = self.stream.next_frame()?;
        Ok(frame.map(|frame| self.request(frame)))
    }

    fn next_ready(&mut self) -> io::Result<Option<Self::Frame>> {
        let frame = self.stream.next_ready()?;
        Ok(frame.map(|frame| self.request(frame)))
    }

    fn interrupter(&self) -> Interrupter {
        self.stream.interrupter()
    }

    fn gauge(&self) -> Gauge {
        self.stream.gauge()
    }
}

impl<C, K, R> RequestSource<R> for Asking<C, K>
where
    C: Decoder + Encoder<R> + Send + 'static,
    C::Item: Send + 'static,
    <C as Decoder>::Error: Error + Send + Sync + 'static,
    <C as Encoder<R>>::Error: Error + Send + Sync + 'static,
    K: Send + 'static,
{
    type Address = ();

    fn address(&self, _frame: &Self::Frame) {}

    fn answer(&mut self, to: &(), reply: R) -> io::Result<bool> {
        self.stream.answer(to, reply)
    }

    fn flush(&mut self) -> io::Result<bool> {
        RequestSource::<R>::flush(&mut self.stream)
    }
}

/// A request at work.
struct Pending<A, R> {
    address: A,
    deadline: Deadline,
    /// Cancelled when dropped; `None` if there was no room for it in time.
    reply: Option<BlockingFuture<Option<R>>>,
}

/// What came of waiting for a reply.
enum Waited<R> {
    Done(Result<Option<R>, ResultError>),
    Late,
    Stopped,
}

impl<R, H> Service<R, H> {
    /// Serves one source until it ends or the listener stops.
    fn run<S, Fut>(&self, source: &mut S) -> Verdict
    where
        S: RequestSource<R>,
        R: Send + 'static,
        H: Fn(S::Frame) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        with_parker(|parker| self.run_with(source, parker))
    }

    fn run_with<S, Fut>(&self, source: &mut S, parker: &Parker) -> Verdict
    where
        S: RequestSource<R>,
        R: Send + 'static,
        H: Fn(S::Frame) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Option<R>> + Send + 'static,
    {
        let waker = parker.waker().clone();
        let stop = &self.core.stop;
        let _nudges = (
            stop.register(source.interrupter()),
            stop.register(Interrupter::new(move || waker.wake_by_ref())),
        );
        let mut worker =
            Worker { service: self, source, parker, window: VecDeque::new(), staged: 0 };
        let mut end = None;
        loop {
            if end.is_none() {
                end = worker.fill().err();
            }
            let answered = match worker.window.pop_front() {
                Some(pending) => worker.answer(pending),
                None => match end {
                    // Replies to what came before the end still go out.
                    Some(verdict) => return worker.flush().err().unwrap_or(verdict),
                    None => Ok(()),
                },
            };
            if let Err(verdict) = answered {
                return verdict;
            }
        }
    }
}

struct Worker<'a, S, A, R, H> {
    service: &'a Service<R, H>,
    source: &'a mut S,
    parker: &'a Parker,
    /// Requests at work, oldest first.
    window: VecDeque<Pending<A, R>>,
    /// Replies that were encoded and haven't left.
    staged: usize,
}

impl<S, R, H, Fut> Worker<'_, S, S::Address, R, H>
where
    S: RequestSource<R>,
    R: Send + 'static,
    H: Fn(S::Frame) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Option<R>> + Send + 'static,
{
    fn core(&self) -> &Core {
        &self.service.core
    }

    /// Takes in requests: all that are at hand and fit; waits for one only if there is nothing else
    /// to do. An error says that no more will come.
    fn fill(&mut self) -> Result<(), Verdict> {
        while self.window.len() < self.service.pipeline {
            if self.core().stop.is_set() {
                return Err(Verdict::Stopped);
            }
            let idle = self.window.is_empty();
            let next = if idle && self.staged == 0 {
                self.source.next_frame()
            } else {
                self.source.next_ready()
            };
            match next {
                Ok(Some(frame)) => self.submit(frame)?,
                Ok(None) if idle && self.staged == 0 => return Err(self.ended()),
                Ok(None) if idle => self.flush()?,
                Ok(None) => return Ok(()),
                Err(error) if is_tick(&error) => {}
                Err(_) if self.core().stop.is_set() => return Err(Verdict::Stopped),
                Err(error) => {
                    if is_framing(&error) {
                        count(&self.core().counters.decode_errors);
                    }
                    return Err(Verdict::Failed(error));
                }
            }
        }
        Ok(())
    }

    /// A stop looks like the peer's end.
    fn ended(&self) -> Verdict {
        if self.core().stop.is_set() { Verdict::Stopped } else { Verdict::Finished }
    }

    fn submit(&mut self, frame: S::Frame) -> Result<(), Verdict> {
        let counters = &self.service.core.counters;
        for counter in [&counters.frames, &counters.requests, &counters.in_flight] {
            count(counter);
        }
        let deadline = Deadline::after(Some(self.service.reply_timeout));
        let address = self.source.address(&frame);
        let handler = Arc::clone(&self.service.handler);
        let call = async move { handler(frame).await };
        let reply = match self.service.bridge.try_run_coroutine_threadsafe(call) {
            Ok(reply) => Some(reply.cancel_on_drop()),
            Err(TrySubmitError::Full(call)) => match self.submit_slowly(call, deadline) {
                Ok(reply) => reply,
                Err(verdict) => {
                    self.settle(&self.core().counters.aborted);
                    return Err(verdict);
                }
            },
            Err(_) => {
                self.settle(&self.core().counters.aborted);
                return Err(Verdict::LoopGone);
            }
        };
        self.window.push_back(Pending { address, deadline, reply });
        Ok(())
    }

    /// Waits for room in the bridge; `None` if there was none until the deadline.
    fn submit_slowly<F>(
        &mut self,
        mut call: F,
        deadline: Deadline,
    ) -> Result<Option<BlockingFuture<Option<R>>>, Verdict>
    where
        F: Future<Output = Option<R>> + Send + 'static,
    {
        self.flush()?;
        loop {
            let wait = deadline.remaining().map_or(ROOM, |left| left.min(ROOM));
            match self.service.bridge.run_coroutine_threadsafe_timeout(call, wait) {
                Ok(reply) => return Ok(Some(reply.cancel_on_drop())),
                Err(SubmitTimeoutError::TimedOut(back)) => call = back,
                Err(_) => return Err(Verdict::LoopGone),
            }
            if self.core().stop.is_set() {
                return Err(Verdict::Stopped);
            }
            if deadline.passed() {
                return Ok(None);
            }
        }
    }

    /// Waits for a reply and stages it, or whatever takes its place.
    fn answer(&mut self, mut pending: Pending<S::Address, R>) -> Result<(), Verdict> {
        let waited = match &mut pending.reply {
            Some(reply) => self.wait(reply, pending.deadline),
            None => Ok(Waited::Late),
        };
        let waited = match waited {
            Ok(waited) => waited,
            Err(verdict) => {
                self.settle(&self.core().counters.aborted);
                return Err(verdict);
            }
        };
        let counters = &self.service.core.counters;
        match waited {
            Waited::Done(Ok(Some(reply))) => self.stage(&pending.address, reply),
            Waited::Done(Ok(None)) => self.settle(&counters.no_reply),
            Waited::Done(Err(ResultError::Panicked(panic))) => {
                let payload = panic.into_payload();
                report("a handler", payload.as_ref());
                discard(payload);
                self.settle(&counters.panicked);
                return self.fall_back(&pending.address, Unanswered::Panicked);
            }
            Waited::Done(Err(ResultError::LoopClosed)) => {
                self.settle(&counters.aborted);
                return Err(Verdict::LoopGone);
            }
            Waited::Done(Err(_)) => self.settle(&counters.aborted),
            Waited::Late => {
                self.settle(&counters.late);
                drop(pending.reply.take());
                return self.fall_back(&pending.address, Unanswered::TimedOut);
            }
            Waited::Stopped => {
                self.settle(&counters.aborted);
                return Err(Verdict::Stopped);
            }
        }
        self.flush_if_full()
    }

    /// Waits until the reply is there, its time is up, or the listener stops.
    fn wait(
        &mut self,
        reply: &mut BlockingFuture<Option<R>>,
        deadline: Deadline,
    ) -> Result<Waited<R>, Verdict> {
        let waker = self.parker.waker().clone();
        let gathered = Deadline::after((self.staged > 0).then_some(GATHER));
        loop {
            let mut context = Context::from_waker(&waker);
            if let Poll::Ready(result) = Pin::new(&mut *reply).poll(&mut context) {
                return Ok(Waited::Done(result));
            }
            if self.core().stop.is_set() {
                return Ok(Waited::Stopped);
            }
            if deadline.passed() {
                return Ok(Waited::Late);
            }
            if self.staged == 0 {
                self.parker.park(deadline);
            } else if gathered.passed() {
                // What is ready shouldn't wait for what isn't.
                self.flush()?;
            } else {
                self.parker.park(sooner(gathered, deadline));
            }
        }
    }

    fn stage(&mut self, address: &S::Address, reply: R) {
        match self.source.answer(address, reply) {
            Ok(true) => self.settle(&self.core().counters.replies),
            Ok(false) => self.staged += 1,
            Err(_) => self.settle(&self.core().counters.reply_errors),
        }
    }

    /// Sends the fallback, if there is one; the request itself is settled.
    fn fall_back(&mut self, address: &S::Address, why: Unanswered) -> Result<(), Verdict> {
        let fallback = self.service.fallback.as_ref();
        let reply = fallback.and_then(|make| contain("a fallback", || make(why)).flatten());
        if let Some(reply) = reply {
            if self.source.answer(address, reply).is_ok() {
                count(&self.core().counters.fallbacks);
            }
        }
        self.flush()
    }

    fn flush_if_full(&mut self) -> Result<(), Verdict> {
        if self.staged >= GATHERED { self.flush() } else { Ok(()) }
    }

    /// Sends what is staged, waiting for a slow peer up to the write timeout.
    fn flush(&mut self) -> Result<(), Verdict> {
        let mut patience = None;
        let error = loop {
            match self.source.flush() {
                Ok(true) => {
                    let counters = &self.service.core.counters;
                    count_by(&counters.replies, self.staged);
                    self.forget_staged();
                    return Ok(());
                }
                Ok(false) => patience = None,
                Err(error) if is_tick(&error) => {
                    if self.core().stop.is_set() {
                        break None;
                    }
                    let timeout = self.service.core.write_timeout;
                    if patience.get_or_insert_with(|| Deadline::after(Some(timeout))).passed() {
                        let text = "the peer doesn't read its replies: the connection is given up";
                        break Some(io::Error::new(ErrorKind::TimedOut, text));
                    }
                }
                Err(_) if self.core().stop.is_set() => break None,
                Err(error) => break Some(error),
            }
        };
        count_by(&self.service.core.counters.reply_errors, self.staged);
        self.forget_staged();
        Err(error.map_or(Verdict::Stopped, Verdict::Failed))
    }

    fn forget_staged(&mut self) {
        let in_flight = &self.service.core.counters.in_flight;
        in_flight.fetch_sub(self.staged as u64, Ordering::AcqRel);
        self.staged = 0;
    }

    /// Enters the outcome of a request.
    fn settle(&self, column: &crate::sync::prim::atomic::AtomicU64) {
        count(column);
        uncount(&self.core().counters.in_flight);
    }
}

impl<S, A, R, H> Drop for Worker<'_, S, A, R, H> {
    fn drop(&mut self) {
        let counters = &self.service.core.counters;
        count_by(&counters.aborted, self.window.len());
        // Encoded, but the source went before they could leave.
        count_by(&counters.reply_errors, self.staged);
        let left = self.window.len() + self.staged;
        counters.in_flight.fetch_sub(left as u64, Ordering::AcqRel);
    }
}

fn sooner(one: Deadline, other: Deadline) -> Deadline {
    match (one.remaining(), other.remaining()) {
        (Some(one_left), Some(other_left)) if other_left < one_left => other,
        (None, _) => other,
        _ => one,
    }
}
