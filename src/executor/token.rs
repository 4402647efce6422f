//! How a blocked thread learns that nobody wants its result any more.
//!
//! Invariants:
//! 1. `state` leaves `Open` once, and the hooks are taken in the same critical section; a hook is
//!    entered only while it is `Open`: each hook runs exactly once, or is withdrawn, or comes to the
//!    job's end, and never runs.
//! 2. Hooks run, and are dropped, after the lock is released.

use crate::sync::prim::{Mutex, lock};
use crate::sync::{Deadline, WaitError, WaitList, contain, wait_in_place, wake};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What runs when a cancel is asked for; a party that only waits has a waker and no hook.
type Hook = Option<Box<dyn FnOnce() + Send>>;

/// The cancel of one job.
pub(super) struct Signal {
    hooks: Mutex<Hooks>,
}

struct Hooks {
    state: State,
    entries: WaitList<Hook>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Cancelled,
    /// The job ended, and nobody had asked for a cancel.
    Over,
}

impl Signal {
    pub(super) fn new() -> Self {
        Signal { hooks: Mutex::new(Hooks { state: State::Open, entries: WaitList::new() }) }
    }

    /// Asks for the cancel; runs every hook that is entered.
    pub(super) fn fire(&self) {
        for (hook, waker) in self.leave_open(State::Cancelled) {
            if let Some(hook) = hook {
                contain("a cancel hook", hook);
            }
            waker.into_iter().for_each(wake);
        }
    }

    /// The job has ended: nobody needs to wait for a cancel any more.
    pub(super) fn end(&self) {
        for (hook, waker) in self.leave_open(State::Over) {
            contain("the drop of a cancel hook", || drop(hook));
            waker.into_iter().for_each(wake);
        }
    }

    fn leave_open(&self, state: State) -> Vec<(Hook, Option<Waker>)> {
        let mut hooks = lock(&self.hooks);
        if hooks.state != State::Open {
            return Vec::new();
        }
        hooks.state = state;
        hooks.entries.drain()
    }

    fn state(&self) -> State {
        lock(&self.hooks).state
    }

    /// Enters a hook, or gives it back if the cancel was asked for before, or the job has ended.
    fn enter(&self, hook: Hook, waker: Option<Waker>) -> Result<u64, (Hook, Option<Waker>, State)> {
        let mut hooks = lock(&self.hooks);
        if hooks.state != State::Open {
            return Err((hook, waker, hooks.state));
        }
        Ok(hooks.entries.push(hook, waker))
    }

    fn withdraw(&self, ticket: u64) {
        let entry = lock(&self.hooks).entries.remove(ticket);
        contain("the drop of a cancel hook", || drop(entry));
    }
}

/// Something that has a [`Signal`]: a job, whatever its types.
pub(super) trait Signalled: Send + Sync {
    fn signal(&self) -> &Signal;
}

/// Tells a running job that its result is no longer wanted.
///
/// A job gets its own with [`current`](Self::current), and can hand clones to threads and async code
/// that work for it. It is cancelled when the waiting side asks for a cancel, when an awaited call is
/// dropped, and when the executor's close reaches its deadline. The job decides what to do:
/// [ask](Self::is_cancelled) between two steps, [wait](Self::wait) on it instead of sleeping, or
/// leave a [wake function](Self::on_cancel) that ends the blocking call it is in.
///
/// Waits on it end with the job, too: what works for a job isn't left behind by it.
///
/// Python: `anyio.from_thread.check_cancelled`, which can only be asked.
///
/// # Examples
///
/// ```
/// use callbridge::executor::{CancelToken, ThreadPool};
/// use std::time::Duration;
///
/// let pool = ThreadPool::builder().build().unwrap();
/// let (began, begun) = std::sync::mpsc::channel();
/// let mut call = pool.submit(move || {
///     let token = CancelToken::current().unwrap();
///     began.send(()).unwrap();
///     let mut polls = 0;
///     while token.wait(Duration::from_secs(1)).is_err() {
///         polls += 1; // look at the device once a second, until told otherwise
///     }
///     polls
/// });
/// begun.recv().unwrap();
/// call.cancel();
/// assert!(call.result(None).unwrap() < 60);
/// ```
#[derive(Clone)]
pub struct CancelToken {
    job: Arc<dyn Signalled>,
}

impl CancelToken {
    pub(super) fn new(job: Arc<dyn Signalled>) -> Self {
        CancelToken { job }
    }

    pub(super) fn cancel(&self) {
        self.job.signal().fire();
    }

    /// Whether the cancel was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.job.signal().state() == State::Cancelled
    }

    /// Waits until the cancel is asked for, or the job has ended, at most `timeout`; `None` waits as
    /// long as the job runs.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread. A pool's worker keeps its place: to the pool, a job that waits here
    /// is one that works.
    ///
    /// # Errors
    ///
    /// [`WaitError::TimedOut`] when neither came in time; [`WaitError::WouldDeadlock`]
    /// on a thread that drives an event loop: await [`cancelled`](Self::cancelled) there.
    pub fn wait(&self, timeout: impl Into<Option<Duration>>) -> Result<(), WaitError> {
        if self.job.signal().state() != State::Open {
            return Ok(());
        }
        let mut cancelled = pin!(self.cancelled());
        wait_in_place(Deadline::after(timeout), |cx| cancelled.as_mut().poll(cx))
    }

    /// Waits until the cancel is asked for, or the job has ended, in async code that works for the job.
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future withdraws it; nothing is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::Bridge;
    /// use callbridge::executor::{CancelToken, to_thread};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let (began, begun) = tokio::sync::oneshot::channel();
    /// let mut call = to_thread(move || {
    ///     let token = CancelToken::current().unwrap();
    ///     // Async code that a job calls sees the job's cancel.
    ///     Bridge::current().run_coroutine_threadsafe(async move {
    ///         began.send(()).unwrap();
    ///         token.cancelled().await;
    ///         "told to stop"
    ///     }).result(None)
    /// });
    /// begun.await.unwrap();
    /// call.cancel();
    /// assert_eq!(call.await.unwrap().unwrap(), "told to stop");
    /// # }
    /// ```
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + use<> {
        Cancelled { token: self.clone(), key: None }
    }

    /// Runs `wake` once when the cancel is asked for; at once if it was. Dropping the guard
    /// withdraws it, and so does the job's end.
    ///
    /// For what ends a blocking call from outside: shut down its socket, close its device, raise its
    /// flag. It runs on the thread that asks, which may be one of the loop's, so it must not block. A
    /// panic in it is contained. Dropping the guard doesn't wait for a `wake` that is running.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::executor::{CancelToken, ThreadPool};
    /// use std::io::Read;
    /// use std::net::{Shutdown, TcpListener, TcpStream};
    ///
    /// let listener = TcpListener::bind(("127.0.0.1", 0))?;
    /// let mut silent = TcpStream::connect(listener.local_addr()?)?;
    /// let (began, begun) = std::sync::mpsc::channel();
    /// let pool = ThreadPool::builder().build().unwrap();
    /// let mut call = pool.submit(move || {
    ///     let other_end = silent.try_clone()?;
    ///     let token = CancelToken::current().unwrap();
    ///     let _hook = token.on_cancel(move || drop(other_end.shutdown(Shutdown::Both)));
    ///     began.send(()).unwrap();
    ///     silent.read(&mut [0; 16])
    /// });
    /// begun.recv().unwrap();
    /// call.cancel();
    /// assert_eq!(call.result(None).unwrap()?, 0, "the blocked read came back");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn on_cancel(&self, wake: impl FnOnce() + Send + 'static) -> CancelHook {
        match self.job.signal().enter(Some(Box::new(wake)), None) {
            Ok(key) => CancelHook { entered: Some((self.clone(), key)) },
            Err((Some(hook), _, State::Cancelled)) => {
                contain("a cancel hook", hook);
                CancelHook { entered: None }
            }
            Err((hook, ..)) => {
                contain("the drop of a cancel hook", || drop(hook));
                CancelHook { entered: None }
            }
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("is_cancelled", &self.is_cancelled()).finish()
    }
}

struct Cancelled {
    token: CancelToken,
    /// The hook that holds the last waker.
    key: Option<u64>,
}

impl Future for Cancelled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(key) = self.key.take() {
            self.token.job.signal().withdraw(key);
        }
        match self.token.job.signal().enter(None, Some(cx.waker().clone())) {
            Ok(key) => {
                self.key = Some(key);
                Poll::Pending
            }
            Err(_) => Poll::Ready(()),
        }
    }
}

impl Drop for Cancelled {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.token.job.signal().withdraw(key);
        }
    }
}

/// Keeps a wake function registered; see [`CancelToken::on_cancel`].
#[must_use = "dropping it withdraws the wake function"]
pub struct CancelHook {
    /// Where it is entered, unless it has run at once.
    entered: Option<(CancelToken, u64)>,
}

impl Drop for CancelHook {
    fn drop(&mut self) {
        if let Some((token, key)) = self.entered.take() {
            token.job.signal().withdraw(key);
        }
    }
}

impl fmt::Debug for CancelHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHook").finish_non_exhaustive()
    }
}
