use super::builder::DedicatedThreadBuilder;
use super::call::ThreadCall;
use super::close;
use super::core::{Core, Make, Owner, Reason};
use super::job::{Finish, On};
use crate::bridge::CloseReport;
use crate::future::Refusal;
use crate::future::{
    BlockingFuture, FutureState, ResultError, SubmitError, lone_promise, resolved,
};
use crate::sync::Deadline;
use crate::sync::context::drives_a_loop;
use crate::sync::prim::{Mutex, lock};
use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// One named thread that owns a value which must not leave it.
///
/// For libraries that are bound to a thread, and for handles that aren't `Send`: the value is built
/// on its thread, used there and dropped there. Calls are lent the value one at a time, in the order
/// in which they were queued. A clone is a handle to the same thread; when the last one is dropped,
/// the accepted calls still run, then the value is dropped and the thread ends. It holds up neither
/// the drop of a runtime nor the exit of the process.
///
/// A call that panics gives its panic to its caller and **poisons** the thread: the value is dropped,
/// and queued and later calls give [`Refusal::Broken`](crate::future::Refusal::Broken). A thread that
/// was begun with [`spawn_rebuilding`](DedicatedThreadBuilder::spawn_rebuilding) builds a new value
/// instead and goes on, within limits.
///
/// # Calls that wait for calls
///
/// A call waits for those before it, so a call that waits for another call of the same thread would wait
/// for ever. Where that can be seen, the wait is [`WouldDeadlock`](ResultError::WouldDeadlock): a wait on
/// the thread itself, and a wait for async work of a [`Bridge`](crate::Bridge) that itself awaits a call
/// of the thread. The call that is awaited there stays queued. What tasks, threads or channels in between
/// hide can't be seen: bound such waits with a timeout. Callbacks, and drops of results that nobody
/// reads, run on the thread between two calls.
///
/// Python: `sync_to_async(thread_sensitive=True)` of asgiref; `ThreadPoolExecutor(max_workers=1)`.
///
/// # Examples
///
/// ```
/// use callbridge::DedicatedThread;
/// use std::cell::RefCell;
/// use std::rc::Rc;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// // An `Rc` can't be sent to another thread, but it can live on one of its own.
/// let log = DedicatedThread::spawn(|| Ok::<_, String>(Rc::new(RefCell::new(Vec::new()))));
/// let log = log.await.unwrap();
/// log.call(|lines| lines.borrow_mut().push("first")).await.unwrap();
/// log.call(|lines| lines.borrow_mut().push("second")).await.unwrap();
/// assert_eq!(log.call(|lines| lines.borrow().join(", ")).await.unwrap(), "first, second");
/// # }
/// ```
pub struct DedicatedThread<S: 'static> {
    owner: Arc<Owner<S>>,
}

impl<S: 'static> DedicatedThread<S> {
    /// Starts a thread with the default settings; see [`DedicatedThreadBuilder::spawn`].
    ///
    /// # Errors
    ///
    /// As [`DedicatedThreadBuilder::spawn`].
    pub fn spawn<E>(build: impl FnOnce() -> Result<S, E> + Send + 'static) -> BlockingFuture<Self>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        DedicatedThreadBuilder::dedicated().spawn(build)
    }

    fn core(&self) -> &Arc<Core<S>> {
        &self.owner.core
    }

    /// Lends the value to `job` on its thread; await it for what `job` returns.
    ///
    /// The call is queued at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the [`ThreadCall`] abandons the call: one that hasn't begun never runs.
    ///
    /// # Errors
    ///
    /// [`Panicked`](ResultError::Panicked) when `job` panicked; [`Refused`](ResultError::Refused)
    /// when the thread is closed or poisoned; [`WouldDeadlock`](ResultError::WouldDeadlock) when it is
    /// polled on the thread itself.
    #[track_caller]
    pub fn call<F, T>(&self, job: F) -> ThreadCall<T>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        ThreadCall::new(self.core().call(On(job), Location::caller()))
    }

    /// As [`call`](Self::call), for a job whose result must not get lost: if nobody takes it, `undo` gets
    /// it, and the value, on the thread and before any call that hasn't begun.
    ///
    /// For a lock that was taken, a transaction that was begun: a caller who gives up while the job runs, or
    /// drops the call when it is done, leaves it to `undo`. A thread that has ended by then drops the
    /// result instead.
    ///
    /// # Cancel safety
    ///
    /// Dropping the [`ThreadCall`] abandons the call: one that hasn't begun never runs, and of one that has,
    /// `undo` gets the result.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let open = callbridge::DedicatedThread::spawn(|| Ok::<_, String>(0)).await.unwrap();
    /// let begin = |open: &mut i32| *open += 1;
    /// let roll_back = |open: &mut i32, ()| *open -= 1;
    /// open.call_or_undo(begin, roll_back).await.unwrap();
    ///
    /// let given_up = open.call_or_undo(begin, roll_back);
    /// open.call(|_| ()).await.unwrap(); // by now it is done
    /// drop(given_up);
    /// assert_eq!(open.call(|open| *open).await.unwrap(), 1);
    /// # }
    /// ```
    #[track_caller]
    pub fn call_or_undo<F, T, U>(&self, job: F, undo: U) -> ThreadCall<T>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
        U: FnOnce(&mut S, T) + Send + 'static,
    {
        let (core, site) = (Arc::clone(self.core()), Location::caller());
        let undo =
            move |result| core.call_first(On(move |value: &mut S| undo(value, result)), site);
        ThreadCall::new(self.core().call(On(job), site).on_unread(undo))
    }

    /// Lends the value to `job` on its thread and waits for what it returns, at most `timeout`;
    /// `None` waits for ever.
    ///
    /// At the timeout the call is abandoned: one that hasn't begun never runs.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread, while the queue is full and until the call has ended.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call); [`TimedOut`](ResultError::TimedOut); and
    /// [`WouldDeadlock`](ResultError::WouldDeadlock), with nothing queued, on a thread that drives an
    /// event loop and on the dedicated thread itself.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::DedicatedThread;
    /// use std::time::Duration;
    ///
    /// let counter = DedicatedThread::spawn(|| Ok::<_, String>(0)).result(None).unwrap();
    /// let add = |count: &mut i32| {
    ///     *count += 1;
    ///     *count
    /// };
    /// assert_eq!(counter.call_blocking(add, Duration::from_secs(5)).unwrap(), 1);
    /// assert_eq!(counter.call_blocking(add, None).unwrap(), 2);
    /// ```
    #[track_caller]
    pub fn call_blocking<F, T>(
        &self,
        job: F,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<T, ResultError>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        let site = Location::caller();
        if self.core().is_own_thread() || drives_a_loop() {
            return Err(ResultError::WouldDeadlock);
        }
        let deadline = Deadline::after(timeout);
        match self.core().submit(On(job), deadline, site) {
            Ok(result) => match result.cancel_on_drop().result(deadline.remaining()) {
                Err(ResultError::TimedOut { .. }) => {
                    Err(ResultError::TimedOut { state: FutureState::Abandoned })
                }
                result => result,
            },
            Err(refused) => Err(self.refusal(refused)),
        }
    }

    fn refusal<F>(&self, refused: SubmitError<F>) -> ResultError {
        match refused {
            SubmitError::Closed(_) => self.core().why().into(),
            refused => refused.into(),
        }
    }

    /// Queues `job`, and returns a [`BlockingFuture`] for its result.
    ///
    /// Dropping the returned future lets the call run on, its result unread.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread while the queue is full. Where that would block an event loop or the
    /// dedicated thread itself, the returned future is
    /// [`WouldDeadlock`](ResultError::WouldDeadlock) already.
    ///
    /// # Examples
    ///
    /// ```
    /// let thread = callbridge::DedicatedThread::spawn(|| Ok::<_, String>(vec![1])).result(None).unwrap();
    /// let _pushed = thread.submit(|numbers| numbers.push(2));
    /// assert_eq!(thread.submit(|numbers| numbers.len()).result(None).unwrap(), 2);
    /// ```
    #[track_caller]
    pub fn submit<F, T>(&self, job: F) -> BlockingFuture<T>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        let own = self.core().is_own_thread();
        let deadline = if own { Deadline::Now } else { Deadline::Never };
        match self.core().submit(On(job), deadline, Location::caller()) {
            Ok(result) => result,
            Err(SubmitError::Full(_)) => resolved(ResultError::WouldDeadlock),
            Err(refused) => resolved(self.refusal(refused)),
        }
    }

    /// Closes the thread and hands its value to `job`, on the thread, when the accepted calls have run.
    ///
    /// For a value that has to be closed, and may fail to be: `finish(|connection| connection.close())`.
    /// The call is queued at once, whatever room there is, and new ones are refused from then on. The
    /// thread ends when `job` has returned; [`close`](Self::close) waits for that. Dropping the returned
    /// future lets `job` run, its result unread.
    ///
    /// # Errors
    ///
    /// The future gives [`Refused`](ResultError::Refused) when the thread is closed already, or is poisoned
    /// before `job` begins: its value is gone then. [`Panicked`](ResultError::Panicked) when `job` panicked.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use std::io::Write;
    ///
    /// let log = callbridge::DedicatedThread::spawn(|| Ok::<_, String>(Vec::new())).await.unwrap();
    /// log.call(|log| log.write_all(b"last words")).await.unwrap().unwrap();
    /// let bytes = log.finish(|log| log).await.unwrap();
    /// assert_eq!(bytes, b"last words");
    /// assert!(log.is_closed());
    /// # }
    /// ```
    #[track_caller]
    pub fn finish<F, T>(&self, job: F) -> BlockingFuture<T>
    where
        F: FnOnce(S) -> T + Send + 'static,
        T: Send + 'static,
    {
        let result = self.core().call(Finish(job), Location::caller());
        self.core().close();
        result
    }

    /// Refuses new calls, lets the accepted ones run for at most `timeout` (`None`: as long as they take),
    /// then gives up on the rest, and joins the thread.
    ///
    /// It ends when the value has been dropped on its thread. Otherwise as
    /// [`ThreadPool::close`](super::ThreadPool::close).
    ///
    /// # Cancel safety
    ///
    /// The close begins with the first poll. Dropping the returned future after that refuses what is
    /// queued and cancels what is running, at once.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let thread = callbridge::DedicatedThread::spawn(|| Ok::<_, String>(())).await.unwrap();
    /// assert!(thread.close(Duration::from_secs(10)).await.is_clean());
    /// assert!(thread.call(|()| ()).await.is_err());
    /// # }
    /// ```
    pub async fn close(&self, timeout: impl Into<Option<Duration>>) -> CloseReport {
        close::close(self.core(), timeout.into()).await
    }

    /// As [`close`](Self::close), for a thread that may block.
    ///
    /// # Blocking
    ///
    /// As [`ThreadPool::close_blocking`](super::ThreadPool::close_blocking).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// let thread = callbridge::DedicatedThread::spawn(|| Ok::<_, String>(())).result(None).unwrap();
    /// assert!(thread.close_blocking(Duration::from_secs(10)).is_clean());
    /// ```
    pub fn close_blocking(&self, timeout: impl Into<Option<Duration>>) -> CloseReport {
        close::close_blocking(self.core(), timeout.into())
    }

    /// The name of the thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let builder = callbridge::DedicatedThread::builder().name("gpio");
    /// let thread = builder.spawn(|| Ok::<_, String>(0_u8)).result(None).unwrap();
    /// assert_eq!(thread.name(), "gpio");
    /// ```
    pub fn name(&self) -> &str {
        &self.core().settings.name
    }

    /// Whether new calls are refused: the thread was closed, or is poisoned.
    ///
    /// # Examples
    ///
    /// ```
    /// let thread = callbridge::DedicatedThread::spawn(|| Ok::<_, String>(())).result(None).unwrap();
    /// assert!(!thread.is_closed());
    /// ```
    pub fn is_closed(&self) -> bool {
        !self.core().workers.is_open()
    }
}

impl DedicatedThread<()> {
    /// Sets up a thread, for a value of any type.
    pub fn builder() -> DedicatedThreadBuilder {
        DedicatedThreadBuilder::dedicated()
    }
}

impl<S> Clone for DedicatedThread<S> {
    fn clone(&self) -> Self {
        DedicatedThread { owner: Arc::clone(&self.owner) }
    }
}

impl<S> fmt::Debug for DedicatedThread<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DedicatedThread")
            .field("name", &self.name())
            .field("queued", &self.core().jobs().queued)
            .finish_non_exhaustive()
    }
}

/// Builds a value once, in the caller's loop.
pub(super) fn build_once<S, E: Into<Reason>>(
    build: impl FnOnce() -> Result<S, E> + Send + 'static,
) -> Make<S> {
    let build = Mutex::new(Some((build, Handle::try_current().ok())));
    Box::new(move |_| {
        let (build, handle) = lock(&build).take().ok_or("its value can be built once only")?;
        let _entered = handle.as_ref().map(Handle::enter);
        build().map_err(Into::into)
    })
}

/// Builds a value, and others after that, in the caller's loop.
pub(super) fn build_again<S, E: Into<Reason>>(
    build: impl FnMut() -> Result<S, E> + Send + 'static,
) -> Make<S> {
    // Only the thread uses it, so that it isn't held up; a panic in it doesn't poison it.
    let (build, handle) = (Mutex::new(build), Handle::try_current().ok());
    Box::new(move |_| {
        let _entered = handle.as_ref().map(Handle::enter);
        (*lock(&build))().map_err(Into::into)
    })
}

/// Starts the thread; its handle comes when the value is built.
pub(super) fn start<S: 'static>(core: &Arc<Core<S>>) -> BlockingFuture<DedicatedThread<S>> {
    let (promise, starting) = lone_promise();
    // The promise goes back and forth, since a thread that can't be started drops its closure.
    let promise = Arc::new(Mutex::new(Some(promise)));
    let (handed_over, own) = (Arc::clone(&promise), Arc::clone(core));
    core.workers.start_one();
    let spawned = core.start(move |ready| {
        let Some(promise) = lock(&handed_over).take() else { return };
        let owner = Arc::new(Owner { core: own });
        promise.resolve(ready.map(|()| DedicatedThread { owner }).map_err(Into::into));
    });
    if let Err(error) = spawned {
        if let Some(promise) = lock(&promise).take() {
            let why = Refusal::not_started(error);
            promise.resolve(Err(why.into()));
        }
    }
    starting
}
