//! A loop that exists already as what a listener runs.

use super::Interrupter;
use crate::channel::{SendError, Sender, Sent};
use crate::listener::builder::{Origin, Setup, sealed::Sealed};
use crate::listener::core::{End, Feed, Verdict, judged};
use crate::listener::stats::count;
use crate::listener::stop::{Phase, Registered, Stop};
use crate::sync::WaitError;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A loop of your own as what a listener runs; made by [`Listener::from_fn`](crate::Listener::from_fn).
pub struct FnSource<T, F> {
    body: F,
    frame: PhantomData<fn() -> T>,
}

impl<T, F> FnSource<T, F> {
    pub(crate) fn new(body: F) -> Self {
        FnSource { body, frame: PhantomData }
    }
}

impl<T, F> fmt::Debug for FnSource<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnSource").finish_non_exhaustive()
    }
}

impl<T, F> Sealed for FnSource<T, F> {}

impl<T, F> Origin for FnSource<T, F>
where
    T: Send + 'static,
    F: FnOnce(LoopHandle<T>) -> io::Result<()> + Send + 'static,
{
    type Item = T;
    type Request = Infallible;

    fn launch(self, setup: Setup<Self>) -> io::Result<()> {
        let feed = setup.feed;
        let core = Arc::clone(&feed.core);
        core.stop.spawn(&core.name, move || {
            let sink = LoopHandle { feed: feed.clone() };
            let verdict = judged(|| match (self.body)(sink) {
                // A loop that is broken out of may end by an error, in its own way.
                Ok(()) | Err(_) if feed.core.stop.phase() > Phase::Running => Verdict::Stopped,
                Ok(()) => Verdict::Finished,
                Err(error) => Verdict::Failed(error),
            });
            let end = End::of(verdict, &feed.core.name);
            feed.end_with_listener(&end);
            feed.core.conclude(&end);
        })
    }
}

/// What a loop run by [`Listener::from_fn`](crate::Listener::from_fn) sends into, and is told to stop by.
///
/// A cheap clone, for a loop that registers callbacks elsewhere. The stream ends when the loop
/// returns, whatever clones are left.
pub struct LoopHandle<T> {
    feed: Feed<T>,
}

impl<T> LoopHandle<T> {
    /// Sends a frame as the overflow policy says; see [`Sender::send`].
    ///
    /// # Blocking
    ///
    /// While the channel is full, under a policy that waits; a stop ends the wait.
    ///
    /// # Errors
    ///
    /// As [`Sender::send`], with the frame inside. After a stop the frame that comes back counts as
    /// refused.
    pub fn send(&self, frame: T) -> Result<Sent<T>, SendError<T>> {
        count(&self.feed.core.counters.frames);
        self.feed.sender.send(frame)
    }

    /// The sender behind it, for what [`send`](Self::send) alone can't do.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::Listener;
    /// # use std::time::Duration;
    /// # fn main() -> std::io::Result<()> {
    /// let (_listener, mut frames) = Listener::from_fn(|sink| {
    ///     // A library that wants a closure.
    ///     let on_frame = sink.sender().callback();
    ///     (0..3).for_each(on_frame);
    ///     Ok(())
    /// })
    /// .spawn()?;
    /// assert_eq!(frames.recv_blocking(Duration::from_secs(5)), Ok(0));
    /// # Ok(())
    /// # }
    /// ```
    pub fn sender(&self) -> &Sender<T> {
        &self.feed.sender
    }

    /// Whether the loop should return.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::Listener;
    /// # fn main() -> std::io::Result<()> {
    /// let spin = Listener::from_fn(|sink: callbridge::listener::LoopHandle<()>| {
    ///     while !sink.is_stopping() {
    ///         std::thread::yield_now();
    ///     }
    ///     Ok(())
    /// });
    /// let (listener, _frames) = spin.spawn()?;
    /// assert!(listener.close_blocking(std::time::Duration::from_secs(5)).is_clean());
    /// # Ok(())
    /// # }
    /// ```
    pub fn is_stopping(&self) -> bool {
        self.feed.core.stop.phase() > Phase::Running
    }

    /// Waits until the loop should return, at most `timeout`; `None` waits for ever.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] while the loop should go on, and [`WaitError::WouldDeadlock`] on a thread
    /// that drives an event loop.
    pub fn wait_stop(&self, timeout: impl Into<Option<Duration>>) -> Result<(), WaitError> {
        self.feed.core.stop.wait_phase(Phase::Draining, timeout.into())
    }

    /// Runs `interrupter` when the listener is asked to stop, until the guard is dropped: for a
    /// loop inside a library that has a call to break out of it. It may run more than once, and at
    /// once if the stop was asked for before.
    ///
    /// Once the guard is dropped it never runs again, and none is still running: what it uses may be freed
    /// then. So dropping the guard waits for one that is just running.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::{Interrupter, Listener};
    /// use std::sync::mpsc;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (listener, _frames) = Listener::from_fn(|sink: callbridge::listener::LoopHandle<()>| {
    ///     let (wake, blocked) = mpsc::channel::<()>();
    ///     let _guard = sink.on_stop(Interrupter::new(move || drop(wake.send(()))));
    ///     let _ = blocked.recv();
    ///     Ok(())
    /// })
    /// .spawn()?;
    /// assert!(listener.close_blocking(std::time::Duration::from_secs(5)).is_clean());
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_stop(&self, interrupter: Interrupter) -> StopGuard {
        StopGuard::new(&self.feed.core.stop, interrupter)
    }
}

impl<T> Clone for LoopHandle<T> {
    fn clone(&self) -> Self {
        LoopHandle { feed: self.feed.clone() }
    }
}

impl<T> fmt::Debug for LoopHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopHandle").field("stopping", &self.is_stopping()).finish_non_exhaustive()
    }
}

/// Keeps an interrupter registered; made by [`LoopHandle::on_stop`] and
/// [`Opening::on_stop`](super::Opening::on_stop).
#[must_use = "the interrupter is forgotten when the guard is dropped"]
pub struct StopGuard {
    _registered: Registered,
}

impl StopGuard {
    /// Registers an interrupter, and runs it at once if the stop was asked for before.
    pub(super) fn new(stop: &Arc<Stop>, interrupter: Interrupter) -> Self {
        StopGuard { _registered: stop.register_late(Phase::Draining, interrupter) }
    }
}

impl fmt::Debug for StopGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopGuard").finish_non_exhaustive()
    }
}
