use super::ThreadRunner;
use crate::future::{BlockingFuture, Promise, ResultError, lone_promise};
use crate::sync::Deadline;
use crate::sync::context::drives_a_loop;
use std::convert::identity;
use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};

/// What a task says once it is ready; see [`ThreadRunner::start_task`](crate::ThreadRunner::start_task).
#[must_use = "dropping it makes the start fail"]
pub struct ReadySignal<V> {
    promise: Promise<V>,
}

impl<V> ReadySignal<V> {
    /// Says that the task is ready, and gives the waiting caller `value`.
    pub fn set(self, value: V) {
        self.promise.resolve(Ok(value));
    }
}

impl<V> UnwindSafe for ReadySignal<V> {}
impl<V> RefUnwindSafe for ReadySignal<V> {}

impl<V> fmt::Debug for ReadySignal<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadySignal").finish_non_exhaustive()
    }
}

/// A task did not become ready.
///
/// # Examples
///
/// ```
/// use callbridge::ThreadRunner;
/// use callbridge::runner::{StartTaskError, ReadySignal};
///
/// let runner = ThreadRunner::new();
/// let refused = runner.start_task(|started: ReadySignal<u16>| async move {
///     let port: u16 = "http".parse().map_err(|_| "not a port")?;
///     started.set(port);
///     Ok::<(), _>(())
/// });
/// match refused {
///     Err(StartTaskError::Ended(output)) => assert_eq!(output, Err("not a port")),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartTaskError<T> {
    /// The task ended without saying that it is ready; its output is inside.
    #[error("the task ended before it was ready: look at its output")]
    Ended(T),
    /// The task dropped its [`ReadySignal`] and went on, or never moved it into its future; it was
    /// cancelled.
    #[error("the task dropped `started` before it was ready: let it call `set` first")]
    Dropped,
    /// The task panicked, or the loop could not run it.
    #[error("the task did not become ready: see `source()`")]
    Loop(#[source] ResultError),
}

impl<T> fmt::Debug for StartTaskError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartTaskError::Ended(_) => f.write_str("Ended(..)"),
            StartTaskError::Dropped => f.write_str("Dropped"),
            StartTaskError::Loop(error) => f.debug_tuple("Loop").field(error).finish(),
        }
    }
}

impl ThreadRunner {
    /// Starts `task` and waits until it says that it is ready; returns what it said, and its future.
    ///
    /// For servers and listeners that are of use only once they are up: the task calls
    /// [`started.set(value)`](ReadySignal::set), say with the port it was given, and goes on.
    ///
    /// Python: `portal.start_task`.
    ///
    /// # Blocking
    ///
    /// Until the task is ready, or has ended.
    ///
    /// # Errors
    ///
    /// [`StartTaskError`]: the task ended before it was ready, or could not run. What goes wrong
    /// afterwards is told by the returned future.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ThreadRunner;
    /// use callbridge::runner::ReadySignal;
    /// use std::net::SocketAddr;
    ///
    /// let runner = ThreadRunner::new();
    /// let (address, server) = runner.start_task(|started: ReadySignal<SocketAddr>| async move {
    ///     let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    ///     started.set(listener.local_addr()?);
    ///     listener.accept().await.map(drop)
    /// })?;
    /// std::net::TcpStream::connect(address)?;
    /// # let mut server = server;
    /// server.result(None)??;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[expect(clippy::type_complexity, reason = "a pair and its error, said once")]
    #[track_caller]
    pub fn start_task<V, F>(
        &self,
        task: impl FnOnce(ReadySignal<V>) -> F,
    ) -> Result<(V, BlockingFuture<F::Output>), StartTaskError<F::Output>>
    where
        V: Send + 'static,
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let core = &self.core;
        if drives_a_loop() {
            return Err(StartTaskError::Loop(ResultError::WouldDeadlock));
        }
        core.ready_here().map_err(StartTaskError::Loop)?;
        let (promise, ready) = lone_promise();
        let mut call = core.submit(task(ReadySignal { promise }));
        match core.wait(Deadline::Never, ready).and_then(identity) {
            Ok(value) => Ok((value, call)),
            Err(_) => {
                // Most often it is about to end; a task that isn't would never be ready.
                call.cancel();
                Err(match call.result(None) {
                    Ok(output) => StartTaskError::Ended(output),
                    Err(ResultError::Cancelled) => StartTaskError::Dropped,
                    Err(error) => StartTaskError::Loop(error),
                })
            }
        }
    }
}
