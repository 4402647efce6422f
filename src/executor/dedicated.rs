use super::call::{Sending, ThreadCall};
use super::card::{Card, StuckJob};
use super::core::Reason;
use super::error::ExecutorError;
use super::inbox::Inbox;
use super::job::{Left, On, Site, prepare};
use super::shutdown::{self, ShutDown, ShutdownReport};
use crate::future::{
    BlockingFuture, FutureState, ResultError, SubmitError, lone_promise, resolved,
};
use crate::sync::context::drives_a_loop;
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Deadline, Monitor, contain, discard, panic_message, park_until, spin_until};
use async_channel::TrySendError;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::thread;
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
/// and queued and later calls give [`ExecutorError::Broken`]. A thread that was begun with
/// [`spawn_rebuilding`](DedicatedThreadBuilder::spawn_rebuilding) builds a new value instead and goes
/// on.
///
/// A call waits for those before it, so a call that waits for another call of the same thread, by way
/// of the loop, say, waits for ever: bound such waits with a timeout.
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

/// Tells the thread when the last handle has gone.
struct Owner<S: 'static> {
    post: Arc<Post<S>>,
}

impl<S> Drop for Owner<S> {
    fn drop(&mut self) {
        self.post.inbox.close();
    }
}

/// What the thread and its handles share. It never holds the value.
struct Post<S: 'static> {
    name: String,
    inbox: Inbox<S>,
    /// Why the thread takes no more calls, if not because it was shut down.
    broken: OnceLock<ExecutorError>,
    /// What the thread does, once it runs.
    card: OnceLock<Arc<Card>>,
    /// The thread has dropped its value and is about to end.
    gone: Monitor<bool>,
}

impl<S: 'static> DedicatedThread<S> {
    /// A thread with the default settings; see [`DedicatedThreadBuilder::spawn`].
    ///
    /// # Errors
    ///
    /// As [`DedicatedThreadBuilder::spawn`].
    ///
    /// # Examples
    ///
    /// See [`DedicatedThread`].
    pub fn spawn<E>(build: impl FnOnce() -> Result<S, E> + Send + 'static) -> BlockingFuture<Self>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        DedicatedThreadBuilder::new().spawn(build)
    }

    fn post(&self) -> &Post<S> {
        &self.owner.post
    }

    /// Lends the value to `job` on its thread; await it for what `job` returns.
    ///
    /// The call is queued at once; if the queue is full, it waits for room while it is awaited.
    ///
    /// # Cancel safety
    ///
    /// Dropping the [`ThreadCall`] abandons the call: one that hasn't begun never runs.
    ///
    /// # Errors
    ///
    /// [`Panicked`](ResultError::Panicked) when `job` panicked; [`Refused`](ResultError::Refused)
    /// when the thread is shut down or poisoned.
    ///
    /// # Examples
    ///
    /// See [`DedicatedThread`].
    #[track_caller]
    pub fn call<F, T>(&self, job: F) -> ThreadCall<T>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, submission) = prepare(On(job), Location::caller());
        let post = &self.owner.post;
        let sending: Option<Sending> = match post.inbox.offer(job) {
            Ok(()) => None,
            Err(TrySendError::Full(job)) => {
                let post = Arc::clone(post);
                Some(Box::pin(async move {
                    if let Err(job) = post.inbox.sending(job).await {
                        job.refuse(post.why());
                    }
                }))
            }
            Err(TrySendError::Closed(job)) => {
                job.refuse(post.why());
                None
            }
        };
        ThreadCall::new(sending, submission.result)
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
        if self.post().is_own_thread() || drives_a_loop() {
            return Err(ResultError::WouldDeadlock);
        }
        let deadline = Deadline::after(timeout.into());
        match self.put(job, deadline, site) {
            Ok(result) => result.cancel_on_drop().result(deadline.remaining()),
            Err(SubmitError::Closed(_)) => Err(self.post().why().into()),
            Err(SubmitError::Refused(why, _)) => Err(ResultError::Refused(why)),
            Err(SubmitError::WouldDeadlock(_)) => Err(ResultError::WouldDeadlock),
            Err(_) => Err(ResultError::TimedOut { state: FutureState::Queued }),
        }
    }

    /// Queues `job` and returns at once with what will be its result.
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
        let own = self.post().is_own_thread();
        let deadline = if own { Deadline::after(Some(Duration::ZERO)) } else { Deadline::Never };
        match self.put(job, deadline, Location::caller()) {
            Ok(result) => result,
            Err(SubmitError::Closed(_)) => resolved(self.post().why().into()),
            Err(SubmitError::Refused(why, _)) => resolved(ResultError::Refused(why)),
            Err(_) => resolved(ResultError::WouldDeadlock),
        }
    }

    fn put<F, T>(
        &self,
        job: F,
        deadline: Deadline,
        site: Site,
    ) -> Result<BlockingFuture<T>, SubmitError<On<F>>>
    where
        F: FnOnce(&mut S) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, submission) = prepare(On(job), site);
        self.post().inbox.put(job, submission, deadline, || self.post().why())
    }

    /// Refuses new calls, lets the accepted ones run until `deadline`, then gives up on the rest.
    ///
    /// It ends when the value has been dropped on its thread. Otherwise as
    /// [`ThreadPool::shutdown`](super::ThreadPool::shutdown).
    ///
    /// # Cancel safety
    ///
    /// The shutdown begins with the first poll. Dropping the returned future after that refuses what is
    /// queued and cancels what is running, at once.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let thread = callbridge::DedicatedThread::spawn(|| Ok::<_, String>(())).await.unwrap();
    /// assert!(thread.shutdown(Duration::from_secs(10)).await.is_clean());
    /// assert!(thread.call(|()| ()).await.is_err());
    /// # }
    /// ```
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        shutdown::shutdown(self.post(), deadline).await
    }

    /// As [`shutdown`](Self::shutdown), for a thread that may block.
    ///
    /// # Blocking
    ///
    /// As [`ThreadPool::shutdown_blocking`](super::ThreadPool::shutdown_blocking).
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::time::Duration;
    /// let thread = callbridge::DedicatedThread::spawn(|| Ok::<_, String>(())).result(None).unwrap();
    /// assert!(thread.shutdown_blocking(Duration::from_secs(10)).is_clean());
    /// ```
    pub fn shutdown_blocking(&self, deadline: Duration) -> ShutdownReport {
        shutdown::shutdown_blocking(self.post(), deadline)
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
        &self.post().name
    }

    /// Whether new calls are refused: the thread was shut down, or is poisoned.
    ///
    /// # Examples
    ///
    /// ```
    /// let thread = callbridge::DedicatedThread::spawn(|| Ok::<_, String>(())).result(None).unwrap();
    /// assert!(!thread.is_closed());
    /// ```
    pub fn is_closed(&self) -> bool {
        self.post().inbox.is_closed()
    }
}

impl DedicatedThread<()> {
    /// A thread with settings of one's own, for a value of any type.
    ///
    /// # Examples
    ///
    /// See [`name`](DedicatedThread::name).
    pub fn builder() -> DedicatedThreadBuilder {
        DedicatedThreadBuilder::new()
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
            .field("queued", &self.post().inbox.len())
            .finish_non_exhaustive()
    }
}

impl<S> Post<S> {
    fn why(&self) -> ExecutorError {
        self.broken.get().cloned().unwrap_or(ExecutorError::Closed)
    }

    fn break_down(&self, reason: Reason) -> ExecutorError {
        let why = self.broken.get_or_init(|| ExecutorError::Broken(Arc::from(reason)));
        self.inbox.close();
        self.inbox.refuse_all(why);
        why.clone()
    }

    /// The next call; `None` when there will never be another.
    fn next(&self) -> Option<super::job::Job<S>> {
        let more = || !self.inbox.is_empty() || self.inbox.is_closed();
        let taken = match self.inbox.take() {
            Err(false) if spin_until(Deadline::Never, more) => self.inbox.take(),
            taken => taken,
        };
        match taken {
            Ok(job) => Some(job),
            Err(true) => None,
            Err(false) => {
                let mut next = pin!(self.inbox.receiver().recv());
                park_until(Deadline::Never, |cx| next.as_mut().poll(cx))?.ok()
            }
        }
    }
}

impl<S: 'static> ShutDown for Post<S> {
    fn name(&self) -> &str {
        &self.name
    }

    fn close(&self) {
        self.inbox.close();
    }

    fn threads_left(&self) -> usize {
        self.gone.with(|gone| usize::from(!*gone))
    }

    fn gone(&self) -> impl Future<Output = ()> + Send {
        self.gone.until(|gone| gone.then_some(()))
    }

    fn refuse_queued(&self) -> usize {
        self.inbox.refuse_all(&self.why())
    }

    fn cancel_running(&self) {
        if let Some(token) = self.card.get().and_then(|card| card.token()) {
            token.cancel();
        }
    }

    fn stuck(&self) -> Vec<StuckJob> {
        self.card.get().and_then(|card| card.stuck()).into_iter().collect()
    }

    fn is_own_thread(&self) -> bool {
        let own = Card::of_this_thread();
        own.zip(self.card.get()).is_some_and(|(own, card)| Arc::ptr_eq(&own, card))
    }
}

/// Settings of a [`DedicatedThread`]; see [`DedicatedThread::builder`].
///
/// # Examples
///
/// See [`DedicatedThread::name`].
#[derive(Debug)]
#[must_use = "spawn() starts the thread"]
pub struct DedicatedThreadBuilder {
    name: String,
    queue: Option<usize>,
    stack_size: Option<usize>,
}

/// Builds the value: the first one, and `None` or another one after a panic.
type Build<S> = Box<dyn FnMut() -> Option<Result<S, Reason>> + Send>;

impl DedicatedThreadBuilder {
    fn new() -> Self {
        DedicatedThreadBuilder {
            name: "callbridge-dedicated".to_owned(),
            queue: Some(super::ThreadPool::DEFAULT_QUEUE),
            stack_size: None,
        }
    }

    /// The thread's name; "callbridge-dedicated" unless told.
    ///
    /// # Panics
    ///
    /// If the name has a NUL byte in it, which the system doesn't take.
    ///
    /// # Examples
    ///
    /// See [`DedicatedThread::name`].
    #[track_caller]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        assert!(!name.contains('\0'), "a thread's name can't have a NUL byte in it");
        self.name = name;
        self
    }

    /// How many calls may be queued, from 1 up; by default
    /// [`ThreadPool::DEFAULT_QUEUE`](super::ThreadPool::DEFAULT_QUEUE).
    ///
    /// # Panics
    ///
    /// If `calls` is 0: a call reaches the thread through the queue.
    ///
    /// # Examples
    ///
    /// ```
    /// let builder = callbridge::DedicatedThread::builder().queue(8);
    /// assert!(format!("{builder:?}").contains('8'));
    /// ```
    #[track_caller]
    pub fn queue(mut self, calls: usize) -> Self {
        assert!(calls > 0, "queue(0) would let no call through: allow at least 1");
        self.queue = Some(calls);
        self
    }

    /// Lifts the limit of the queue: the memory is the limit then, and no submission waits.
    ///
    /// # Examples
    ///
    /// ```
    /// let builder = callbridge::DedicatedThread::builder().unbounded();
    /// assert!(format!("{builder:?}").contains("queue: None"));
    /// ```
    pub fn unbounded(mut self) -> Self {
        self.queue = None;
        self
    }

    /// The thread's stack in bytes; what std takes by default unless told.
    ///
    /// # Examples
    ///
    /// ```
    /// let builder = callbridge::DedicatedThread::builder().stack_size(512 * 1024);
    /// assert!(builder.spawn(|| Ok::<_, String>(())).result(None).is_ok());
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// Starts the thread, which builds its value; a panic in a call poisons it.
    ///
    /// Wait for the handle in a thread with [`BlockingFuture::result`], or await it.
    ///
    /// # Errors
    ///
    /// The future gives [`Refused`](ResultError::Refused) with the reason when `build` failed or
    /// panicked, or when no thread could be started.
    ///
    /// # Examples
    ///
    /// ```
    /// let missing = callbridge::DedicatedThread::spawn(|| std::fs::File::open("no such file"));
    /// # let mut missing = missing;
    /// let Err(callbridge::ResultError::Refused(why)) = missing.result(None) else { unreachable!() };
    /// assert!(why.to_string().starts_with("the executor is broken"));
    /// ```
    pub fn spawn<S, E>(
        self,
        build: impl FnOnce() -> Result<S, E> + Send + 'static,
    ) -> BlockingFuture<DedicatedThread<S>>
    where
        S: 'static,
        E: Into<Reason>,
    {
        let mut build = Some(build);
        self.start(Box::new(move || build.take().map(|build| build().map_err(Into::into))))
    }

    /// Starts the thread, which builds its value, and another one after each panic in a call.
    ///
    /// The old value is dropped first. If building a new one fails, the thread is poisoned.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::DedicatedThread;
    ///
    /// let builder = DedicatedThread::builder();
    /// let thread = builder.spawn_rebuilding(|| Ok::<_, String>(Vec::<u8>::new())).result(None).unwrap();
    /// thread.call_blocking(|bytes| bytes.push(1), None).unwrap();
    /// assert!(thread.call_blocking(|bytes| bytes[7], None).is_err());
    /// assert_eq!(thread.call_blocking(|bytes| bytes.len(), None).unwrap(), 0, "a new one");
    /// ```
    pub fn spawn_rebuilding<S, E>(
        self,
        mut build: impl FnMut() -> Result<S, E> + Send + 'static,
    ) -> BlockingFuture<DedicatedThread<S>>
    where
        S: 'static,
        E: Into<Reason>,
    {
        self.start(Box::new(move || Some(build().map_err(Into::into))))
    }

    fn start<S: 'static>(self, build: Build<S>) -> BlockingFuture<DedicatedThread<S>> {
        let (promise, starting) = lone_promise();
        let post = Arc::new(Post {
            name: self.name,
            inbox: Inbox::new(self.queue),
            broken: OnceLock::new(),
            card: OnceLock::new(),
            gone: Monitor::new(false),
        });
        let handle = Handle::try_current().ok();
        let mut builder = thread::Builder::new().name(post.name.clone());
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        // The promise goes back and forth, since a thread that can't be started drops its closure.
        let promise = Arc::new(Mutex::new(Some(promise)));
        let handed_over = Arc::clone(&promise);
        let spawned = builder.spawn(move || {
            let Some(promise) = lock(&handed_over).take() else { return };
            promise.start();
            let _leaving = Leaving { post: &post };
            let _entered = handle.as_ref().map(Handle::enter);
            run(&post, build, |ready| match ready {
                Ok(()) => {
                    let owner = Arc::new(Owner { post: Arc::clone(&post) });
                    promise.resolve(Ok(DedicatedThread { owner }));
                }
                Err(why) => promise.resolve(Err(why.into())),
            });
        });
        if let Err(error) = spawned {
            if let Some(promise) = lock(&promise).take() {
                let why = ExecutorError::NoThread(Arc::new(error));
                promise.resolve(Err(why.into()));
            }
        }
        starting
    }
}

/// Says that the thread is done, whatever way it ends.
struct Leaving<'a, S: 'static> {
    post: &'a Post<S>,
}

impl<S> Drop for Leaving<'_, S> {
    fn drop(&mut self) {
        self.post.inbox.close();
        self.post.refuse_queued();
        self.post.gone.change(|gone| *gone = true);
    }
}

fn run<S>(post: &Post<S>, mut build: Build<S>, ready: impl FnOnce(Result<(), ExecutorError>)) {
    let card = Arc::clone(post.card.get_or_init(|| Card::issue(&post.name)));
    let mut value = match try_build(&mut build) {
        Some(Ok(value)) => value,
        Some(Err(reason)) => return ready(Err(post.break_down(reason))),
        None => return,
    };
    ready(Ok(()));
    while let Some(job) = post.next() {
        card.note(&job);
        let left =
            contain("the delivery of a call's result", || job.run(&mut value, || card.clear()));
        card.clear();
        let Some(Left::Panicked(message)) = left else { continue };
        contain("the drop of a dedicated thread's value", || drop(value));
        value = match try_build(&mut build) {
            Some(Ok(value)) => value,
            Some(Err(reason)) => return drop(post.break_down(reason)),
            None => {
                let reason = format!("a call panicked and poisoned it: {message}");
                return drop(post.break_down(reason.into()));
            }
        };
    }
    contain("the drop of a dedicated thread's value", || drop(value));
}

fn try_build<S>(build: &mut Build<S>) -> Option<Result<S, Reason>> {
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|payload| {
        let text = format!("building its value panicked: {}", panic_message(payload.as_ref()));
        discard(payload);
        Some(Err(Reason::from(text)))
    })
}
