use super::builder::{ListenerBuilder, Origin};
use super::core::Core;
use super::report::StopReport;
#[cfg(doc)]
use super::source::Reopened;
use super::source::{Backoff, FnSource, FrameSource, LoopHandle, Opening, Reopening};
use super::stats::ListenerStats;
use super::stop::{AGAIN, Phase, Registered};
use crate::channel::{Ending, SourceError};
use crate::sync::context::drives_a_loop;
use crate::sync::prim::Mutex;
use crate::sync::{Deadline, timeout_repeating};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A named thread that owns a blocking source: the handle to watch it and to stop it.
///
/// Made by [`Listener::builder`], over a source or a server, as a stream of frames
/// ([`spawn`](ListenerBuilder::spawn)) or with an async handler that answers
/// ([`serve`](ListenerBuilder::serve)); or by [`Listener::from_fn`] around a loop that exists already.
///
/// The thread is std's, so it takes none of the runtime's blocking threads. Dropping the listener
/// asks it to stop and waits for nothing; [`close`](Self::close) and
/// [`close_blocking`](Self::close_blocking) let it finish what it has, up to a deadline.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Listener, UdpSource};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
/// let source = UdpSource::bind("127.0.0.1:0")?;
/// let addr = source.local_addr()?;
/// let (listener, mut frames) = Listener::builder(source).name("meter").spawn()?;
///
/// std::net::UdpSocket::bind("127.0.0.1:0")?.send_to(b"21.5", addr)?;
/// let reading = frames.recv().await.expect("one was sent");
/// assert_eq!(&reading.payload[..], b"21.5");
///
/// let report = listener.close(Duration::from_secs(5)).await;
/// assert!(report.is_clean(), "{report}");
/// assert!(frames.recv().await.is_none());
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping the listener stops it"]
pub struct Listener {
    core: Arc<Core>,
    /// Keeps the tokens' wakers registered.
    _tokens: Mutex<Vec<Pin<Box<WaitForCancellationFutureOwned>>>>,
    /// Keeps a stop able to free the threads that wait for room in the channel.
    _unblock: Option<Registered>,
}

impl Listener {
    /// Sets up a listener over a source or a server.
    pub fn builder<S: Origin>(source: S) -> ListenerBuilder<S> {
        ListenerBuilder::new(source)
    }

    /// Sets up a listener around a loop of your own, which runs on the listener's thread.
    ///
    /// The loop is given a [`LoopHandle`] to send into and to look at whether it should stop. What it
    /// returns is the end of the stream: `Ok` finished, `Err` failed, and a panic is contained.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::Listener;
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let (listener, mut readings) = Listener::from_fn(|sink| {
    ///     let mut reading = 0;
    ///     while sink.wait_stop(Duration::from_millis(1)).is_err() {
    ///         reading += 1;
    ///         let _ = sink.send(reading);
    ///     }
    ///     Ok(())
    /// })
    /// .spawn()?;
    /// assert_eq!(readings.recv().await, Some(1));
    /// assert_eq!(readings.recv().await, Some(2));
    /// assert!(listener.close(Duration::from_secs(5)).await.is_clean());
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_fn<T, F>(body: F) -> ListenerBuilder<FnSource<T, F>>
    where
        T: Send + 'static,
        F: FnOnce(LoopHandle<T>) -> io::Result<()> + Send + 'static,
    {
        ListenerBuilder::new(FnSource::new(body))
    }

    /// Sets up a listener over a device that is opened again whenever it fails or comes to its end.
    ///
    /// `make` opens it, on the listener's thread, the first time included. The stream tells
    /// [`Up`](Reopened::Up) and [`Down`](Reopened::Down) in turns between the frames; `backoff` says how long
    /// to wait and when to give up. What a [`writer`](ListenerBuilder::writer) is given while the device is
    /// down is refused with an error. A write that fails takes the device down once what has come from it is
    /// read, as far as that needs no wait. [`serve`](ListenerBuilder::serve) isn't for such a device. Bytes that make no frame are a failure, too, unless the source skips them.
    ///
    /// `make` is given an [`Opening`], whose [`connect`](Opening::connect) a stop interrupts; whatever else
    /// blocks in it, such as a handshake, is interrupted by [`on_stop`](Opening::on_stop), or holds up a stop
    /// until it returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Backoff, Listener, Reopened, TcpSource};
    /// use std::io::Write;
    /// use std::time::Duration;
    /// use tokio_util::codec::LinesCodec;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let device = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// # let addr = device.local_addr()?;
    /// let meter = Listener::reopening(
    ///     move |opening| {
    ///         let line = opening.connect(addr, Duration::from_secs(5))?;
    ///         TcpSource::from_socket(line, 1024, LinesCodec::new())
    ///     },
    ///     Backoff { first: Duration::from_millis(1), ..Backoff::default() },
    /// );
    /// let (_listener, mut readings) = meter.spawn()?;
    /// let mut next = || readings.recv_blocking(Duration::from_secs(5)).unwrap();
    ///
    /// let (mut line, _) = device.accept()?;
    /// line.write_all(b"21.5\n")?;
    /// assert!(matches!(next(), Reopened::Up));
    /// assert_eq!(next().frame().as_deref(), Some("21.5"));
    /// drop(line); // somebody pulls the plug
    /// assert!(matches!(next(), Reopened::Down(_)));
    /// assert!(matches!(next(), Reopened::Up));
    /// # Ok(())
    /// # }
    /// ```
    pub fn reopening<S, F>(make: F, backoff: Backoff) -> ListenerBuilder<Reopening<S, F>>
    where
        S: FrameSource,
        F: FnMut(&Opening) -> io::Result<S> + Send + 'static,
    {
        ListenerBuilder::new(Reopening::new(make, backoff))
    }

    pub(super) fn new(
        core: Arc<Core>,
        tokens: Vec<CancellationToken>,
        unblock: Option<Registered>,
    ) -> Self {
        let waker = Waker::from(Arc::clone(&core.stop));
        let tokens = tokens.into_iter().map(|token| watch(token, &waker, || core.stop.signal()));
        let tokens = Mutex::new(tokens.collect());
        Listener { core, _tokens: tokens, _unblock: unblock }
    }

    /// Keeps a waker registered for as long as the listener.
    pub(super) fn keep(&self, watched: Pin<Box<WaitForCancellationFutureOwned>>) {
        crate::sync::prim::lock(&self._tokens).push(watched);
    }

    /// Asks the listener to stop; returns at once.
    ///
    /// It may be called from anywhere, a handler or the listener's own thread included, and more
    /// than once. What is queued stays readable; then the stream ends as aborted.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::{Listener, UdpSource};
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// let (listener, mut frames) = Listener::builder(UdpSource::bind("127.0.0.1:0")?).spawn()?;
    /// listener.stop();
    /// assert!(frames.recv_blocking(Duration::from_secs(5)).is_err());
    /// assert_eq!(frames.ending(), Some(callbridge::channel::Ending::Aborted));
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop(&self) {
        self.core.stop.signal();
    }

    /// Ends the listener: it takes nothing new in, finishes what it has, and its threads end.
    ///
    /// Frames that were received are still delivered, requests in flight are answered, what is queued for a
    /// peer is written. A stream that is full and waits for its reader (`Block`) therefore holds a close up: drop it
    /// first, or read on. What isn't done shortly before `timeout` is cut off, as by [`stop`](Self::stop):
    /// within the last tenth of it, at most 100 ms. A thread that hasn't ended by then is named in the report
    /// and left alone: nothing that it uses is freed under it, and a later call can wait again. A thread has
    /// ended once its thread-locals are dropped. It needs no timer of the runtime: the waiting is done by a
    /// short-lived thread (without one to be had, it doesn't wait).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the listener ending, without a deadline; [`stop`](Self::stop) hurries it.
    pub async fn close(&self, timeout: impl Into<Option<Duration>>) -> StopReport {
        let started = Instant::now();
        let (deadline, cut) = deadlines(timeout.into());
        self.core.stop.raise(Phase::Draining);
        let would_deadlock = !self.is_finished() && self.core.stop.owns_this_thread();
        let wait = !would_deadlock && !self.core.stop.is_forked();
        if wait && self.ended_by(cut).await.is_none() {
            self.stop();
            let _ended = self.ended_by(deadline).await;
        }
        self.report(started, would_deadlock)
    }

    /// Waits for the threads' end; interrupts them again and again.
    async fn ended_by(&self, deadline: Deadline) -> Option<()> {
        let stop = Arc::clone(&self.core.stop);
        let name = format!("{}-close", self.core.name);
        let again = move || stop.raise(stop.phase());
        timeout_repeating(deadline, &name, AGAIN, again, self.core.stop.until_ended()).await
    }

    /// As [`close`](Self::close), for a thread that may block.
    ///
    /// # Blocking
    ///
    /// Blocks at most `timeout`. On a thread that drives an event loop, and on a thread of this
    /// listener, it doesn't wait: the listener is told to stop, and the report says `would_deadlock`.
    pub fn close_blocking(&self, timeout: impl Into<Option<Duration>>) -> StopReport {
        let started = Instant::now();
        let (deadline, cut) = deadlines(timeout.into());
        let wait = !self.is_finished() && !deadline.passed() && !self.core.stop.is_forked();
        let would_deadlock = wait && (self.core.stop.owns_this_thread() || drives_a_loop());
        if would_deadlock || !wait {
            self.stop();
        } else {
            self.core.stop.raise(Phase::Draining);
            if self.core.stop.wait_ended(cut).is_err() {
                self.stop();
                let _ended = self.core.stop.wait_ended(deadline);
            }
        }
        self.report(started, would_deadlock)
    }

    /// Waits until the listener has ended, whoever ended it. This notices a service that has died.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::Listener;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
    /// let broken = Listener::from_fn(|_sink: callbridge::listener::LoopHandle<()>| {
    ///     Err(std::io::Error::other("no carrier"))
    /// });
    /// let (listener, _frames) = broken.spawn()?;
    /// let report = listener.finished().await;
    /// assert_eq!(report.error.unwrap().to_string(), "no carrier");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn finished(&self) -> StopReport {
        let started = Instant::now();
        self.core.stop.until_ended().await;
        self.report(started, false)
    }

    fn report(&self, started: Instant, would_deadlock: bool) -> StopReport {
        StopReport {
            elapsed: started.elapsed(),
            still_running: self.core.stop.still_running(),
            ending: self.ending(),
            error: self.error(),
            stats: self.stats(),
            would_deadlock,
        }
    }

    /// Returns the listener's counters.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::{Listener, UdpSource};
    /// # fn main() -> std::io::Result<()> {
    /// let (listener, _frames) = Listener::builder(UdpSource::bind("127.0.0.1:0")?).spawn()?;
    /// assert_eq!(listener.stats().frames, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stats(&self) -> ListenerStats {
        self.core.stats()
    }

    /// The name of the listener's thread.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Where the listener's socket is bound, the port that the system chose included.
    ///
    /// `None` for a source without an IP address: a Unix socket, a reader, a closure. It stays known
    /// after the stop.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::{Listener, UdpSource};
    /// # fn main() -> std::io::Result<()> {
    /// let (listener, _frames) = Listener::builder(UdpSource::bind("127.0.0.1:0")?).spawn()?;
    /// assert_ne!(listener.local_addr().unwrap().port(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.core.address()
    }

    /// Whether every thread of the listener has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::{Listener, UdpSource};
    /// # fn main() -> std::io::Result<()> {
    /// let (listener, _frames) = Listener::builder(UdpSource::bind("127.0.0.1:0")?).spawn()?;
    /// assert!(!listener.is_finished());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_finished(&self) -> bool {
        self.core.stop.ended()
    }

    /// Why the listener has ended, or is about to.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::Listener;
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// let (listener, mut frames) = Listener::from_fn(|sink| sink.send(1).map(drop).map_err(std::io::Error::other)).spawn()?;
    /// assert_eq!(frames.recv_blocking(Duration::from_secs(5)), Ok(1));
    /// assert!(frames.recv_blocking(Duration::from_secs(5)).is_err());
    /// assert_eq!(listener.ending(), Some(callbridge::channel::Ending::Finished));
    /// # Ok(())
    /// # }
    /// ```
    pub fn ending(&self) -> Option<Ending> {
        self.core.ending()
    }

    /// The error that ended a failed source: an [`io::Error`] inside.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::Listener;
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// let broken = Listener::from_fn::<(), _>(|_| Err(std::io::Error::other("no carrier")));
    /// let (listener, mut frames) = broken.spawn()?;
    /// assert!(frames.recv_blocking(Duration::from_secs(5)).is_err());
    /// assert_eq!(listener.error().unwrap().to_string(), "no carrier");
    /// # Ok(())
    /// # }
    /// ```
    pub fn error(&self) -> Option<SourceError> {
        self.core.error()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.core.stop.signal();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("name", &self.name())
            .field("ending", &self.ending())
            .field("finished", &self.is_finished())
            .finish()
    }
}

/// Has `waker` woken when `token` is cancelled, or calls `now` if it is already.
pub(super) fn watch(
    token: CancellationToken,
    waker: &Waker,
    now: impl FnOnce(),
) -> Pin<Box<WaitForCancellationFutureOwned>> {
    let mut cancelled = Box::pin(token.cancelled_owned());
    if cancelled.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
        now();
    }
    cancelled
}

/// When to give up, and when to cut off what isn't done.
fn deadlines(timeout: Option<Duration>) -> (Deadline, Deadline) {
    let cut = timeout.map(|timeout| timeout - (timeout / 10).min(Duration::from_millis(100)));
    (Deadline::after(timeout), Deadline::after(cut))
}
