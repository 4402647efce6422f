use super::builder::{ListenerBuilder, Origin};
use super::core::Core;
use super::report::StopReport;
use super::sink::{FnSource, Sink};
use super::stats::ListenerStats;
use super::stop::{NUDGE_AGAIN, Registered};
use crate::channel::{Ending, SourceError};
use crate::sync::context::drives_a_loop;
use crate::sync::prim::Mutex;
use crate::sync::{Deadline, timeout_ticking};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A thread of its own that owns a blocking source: its name, its books, and the way to stop it.
///
/// Made by [`Listener::builder`], over a source or a server, as a stream of frames
/// ([`spawn`](ListenerBuilder::spawn)) or with an async handler that answers
/// ([`serve`](ListenerBuilder::serve)); or by [`Listener::from_fn`] around a loop that exists already.
///
/// The thread is std's, so it takes none of the runtime's blocking threads. Dropping the listener
/// asks it to stop and waits for nothing; [`shutdown`](Self::shutdown) and
/// [`shutdown_blocking`](Self::shutdown_blocking) wait, up to a deadline.
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
/// let report = listener.shutdown(Duration::from_secs(5)).await;
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
    ///
    /// # Examples
    ///
    /// See [`Listener`].
    pub fn builder<S: Origin>(source: S) -> ListenerBuilder<S> {
        ListenerBuilder::new(source)
    }

    /// Sets up a listener around a loop of your own, which runs on the listener's thread.
    ///
    /// The loop is given a [`Sink`] to send into and to look at whether it should stop. What it
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
    /// assert!(listener.shutdown(Duration::from_secs(5)).await.is_clean());
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_fn<T, F>(body: F) -> ListenerBuilder<FnSource<T, F>>
    where
        T: Send + 'static,
        F: FnOnce(Sink<T>) -> io::Result<()> + Send + 'static,
    {
        ListenerBuilder::new(FnSource::new(body))
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
    /// assert_eq!(frames.ending(), Some(callbridge::Ending::Aborted));
    /// # Ok(())
    /// # }
    /// ```
    pub fn stop(&self) {
        self.core.stop.signal();
    }

    /// Asks the listener to stop and waits for its threads, at most `deadline`.
    ///
    /// A thread that has not ended by then is named in the report and left alone: nothing that it
    /// uses is freed under it, and a later call can wait again. It needs no timer of the runtime: the
    /// waiting is done by a short-lived thread (without one to be had, it doesn't wait).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the stop asked for.
    ///
    /// # Examples
    ///
    /// See [`Listener`].
    pub async fn shutdown(&self, deadline: Duration) -> StopReport {
        let started = Instant::now();
        self.stop();
        let would_deadlock = !self.is_finished() && self.core.stop.owns_this_thread();
        if !would_deadlock {
            let stop = Arc::clone(&self.core.stop);
            let name = format!("{}-stop", self.core.name);
            let ended = self.core.stop.until_ended();
            let deadline = Deadline::after(deadline);
            timeout_ticking(deadline, &name, NUDGE_AGAIN, move || stop.signal(), ended).await;
        }
        self.report(started, would_deadlock)
    }

    /// As [`shutdown`](Self::shutdown), for a thread that may block.
    ///
    /// # Blocking
    ///
    /// Blocks at most `deadline`. On a thread that drives an event loop, and on a thread of this
    /// listener, it doesn't wait: the stop is asked for, and the report says `would_deadlock`.
    ///
    /// # Examples
    ///
    /// See [`StopReport`].
    pub fn shutdown_blocking(&self, deadline: Duration) -> StopReport {
        let started = Instant::now();
        self.stop();
        let deadline = Deadline::after(Some(deadline));
        let wait = !self.is_finished() && !deadline.passed();
        let would_deadlock = wait && (self.core.stop.owns_this_thread() || drives_a_loop());
        if wait && !would_deadlock {
            let _ended = self.core.stop.wait_ended(deadline);
        }
        self.report(started, would_deadlock)
    }

    fn report(&self, started: Instant, would_deadlock: bool) -> StopReport {
        StopReport {
            elapsed: started.elapsed(),
            stragglers: self.core.stop.stragglers(),
            ending: self.ending(),
            error: self.error(),
            stats: self.stats(),
            would_deadlock,
        }
    }

    /// What the listener has done so far.
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
    ///
    /// # Examples
    ///
    /// See [`ListenerBuilder`].
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
    /// assert_eq!(listener.ending(), Some(callbridge::Ending::Finished));
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
