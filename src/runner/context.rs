//! Async contexts that a sync program enters and exits.

use super::ThreadRunner;
use super::core::Core;
use super::guard::Guard;
use super::outcome::Outcome;
use super::registry::Entry;
use crate::future::{BlockingFuture, Promise, ResultError, lone_promise};
use crate::sync::Deadline;
use crate::sync::context::drives_a_loop;
use std::convert::identity;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

type BoxError = Box<dyn Error + Send + Sync>;

/// Something with an async beginning and an async end, for
/// [`ThreadRunner::wrap_context`](crate::ThreadRunner::wrap_context).
///
/// Both run in one task on the loop, so what is bound to a task (a span, a task-local, a lock guard
/// kept in `self`) works across them.
///
/// Python: an asynchronous context manager, `__aenter__` and `__aexit__`.
pub trait AsyncContext: Send + 'static {
    /// What the body works with.
    type Value: Send + Sync + 'static;
    /// Why entering or exiting failed.
    type Error: Into<Box<dyn Error + Send + Sync>> + Send + 'static;

    /// Begins; runs on the loop. After an error, [`exit`](Self::exit) is not called.
    fn enter(&mut self) -> impl Future<Output = Result<Self::Value, Self::Error>> + Send;

    /// Ends; runs on the loop, in the task that entered.
    fn exit(self, outcome: Outcome) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// A context could not be entered.
///
/// # Examples
///
/// ```
/// use callbridge::ThreadRunner;
/// use callbridge::runner::EnterError;
///
/// let runner = ThreadRunner::new();
/// let refused = runner.enter_context(
///     || async { Err::<(), _>("wrong password") },
///     |_value, _outcome| async { Ok::<(), String>(()) },
/// );
/// assert!(matches!(refused, Err(EnterError::Open("wrong password"))));
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum EnterError<E> {
    /// The context's own beginning failed.
    #[error("the context could not be entered: {0}")]
    Open(E),
    /// The beginning panicked, or the loop could not run it.
    #[error("the loop could not enter the context: see `source()`")]
    Loop(#[source] ResultError),
}

impl<E> fmt::Debug for EnterError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnterError::Open(_) => f.write_str("Open(..)"),
            EnterError::Loop(error) => f.debug_tuple("Loop").field(error).finish(),
        }
    }
}

/// The task's side of a context: what it owes to the guard, and what it gets from it.
pub(super) struct Stage<T, E> {
    opened: Promise<Result<Arc<T>, E>>,
    ended: BlockingFuture<Outcome>,
}

impl<T, E> Stage<T, E> {
    /// Hands the beginning over; if it went well, waits for the end.
    pub(super) async fn body(self, opened: Result<T, E>) -> Option<(Arc<T>, Outcome)> {
        let value = match opened {
            Ok(value) => Arc::new(value),
            Err(error) => {
                self.opened.resolve(Ok(Err(error)));
                return None;
            }
        };
        self.opened.resolve(Ok(Ok(Arc::clone(&value))));
        // Nobody left to say how it went: it is over.
        let outcome = self.ended.await.unwrap_or(Outcome::Ok);
        Some((value, outcome))
    }
}

/// Runs `task` on the loop and waits until it has entered.
#[track_caller]
pub(super) fn enter<T, E, F>(
    core: &Arc<Core>,
    task: impl FnOnce(Stage<T, E>) -> F,
) -> Result<Guard<T>, EnterError<E>>
where
    T: Send + Sync + 'static,
    E: Send + 'static,
    F: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    if drives_a_loop() {
        return Err(EnterError::Loop(ResultError::WouldDeadlock));
    }
    let live = core.ready_here().map_err(EnterError::Loop)?;
    let (opened, opening) = lone_promise();
    let (end, ended) = lone_promise();
    let call = live.house.run_coroutine_threadsafe(task(Stage { opened, ended }));
    let location = Location::caller();
    let entry = Entry::new(location, end, call);
    let id = match core.contexts.register(entry) {
        Ok(id) => id,
        Err(mut late) => {
            late.signal(Outcome::Ok);
            return Err(EnterError::Loop(ResultError::LoopClosed));
        }
    };
    match core.wait(Deadline::Never, opening).and_then(identity) {
        Ok(Ok(value)) => Ok(Guard::new(value, Arc::clone(core), id, location)),
        Ok(Err(error)) => {
            drop(core.contexts.remove(id));
            Err(EnterError::Open(error))
        }
        // The task ended before it entered: its own result says why, unless a closer has it.
        Err(_) => Err(EnterError::Loop(match core.contexts.remove(id) {
            Some(entry) => entry.into_failure(),
            None => ResultError::LoopClosed,
        })),
    }
}

impl ThreadRunner {
    /// Enters an async context made of two functions, and returns the guard that exits it.
    ///
    /// `open` makes the value; `close` gets it back with how the body ended. Both run on the loop,
    /// in one task. The guard exits the context when it is [told](Guard::exit) or dropped;
    /// [`leave_open`](Guard::leave_open) leaves that to the runner's [`close`](Self::close). A
    /// context isn't a call in flight. A `close` that can't fail ends with
    /// `Ok::<_, std::convert::Infallible>(())`.
    ///
    /// Python: `ThreadRunner.enter_context`, which always leaves the exit to the close.
    ///
    /// # Blocking
    ///
    /// Until `open` has ended.
    ///
    /// # Errors
    ///
    /// [`EnterError`]: `open` failed or panicked, or the loop could not run it.
    #[track_caller]
    pub fn enter_context<T, E, E2, Open, Close>(
        &self,
        open: impl FnOnce() -> Open + Send + 'static,
        close: impl FnOnce(Arc<T>, Outcome) -> Close + Send + 'static,
    ) -> Result<Guard<T>, EnterError<E>>
    where
        T: Send + Sync + 'static,
        E: Send + 'static,
        E2: Into<Box<dyn Error + Send + Sync>>,
        Open: Future<Output = Result<T, E>> + Send,
        Close: Future<Output = Result<(), E2>> + Send,
    {
        enter(&self.core, |stage| async move {
            let opened = open().await;
            match stage.body(opened).await {
                Some((value, outcome)) => close(value, outcome).await.map_err(Into::into),
                None => Ok(()),
            }
        })
    }

    /// Enters `context`, and returns the guard that exits it.
    ///
    /// As [`enter_context`](Self::enter_context), for contexts that are a type of their own.
    /// Python: `ThreadRunner.wrap_context`, `portal.wrap_async_context_manager`.
    ///
    /// # Blocking
    ///
    /// Until the context is entered.
    ///
    /// # Errors
    ///
    /// As [`enter_context`](Self::enter_context).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ThreadRunner;
    /// use callbridge::runner::{AsyncContext, Outcome};
    ///
    /// struct Login(Option<&'static str>);
    ///
    /// impl AsyncContext for Login {
    ///     type Value = &'static str;
    ///     type Error = &'static str;
    ///
    ///     async fn enter(&mut self) -> Result<&'static str, &'static str> {
    ///         self.0.ok_or("no user name")
    ///     }
    ///
    ///     async fn exit(self, outcome: Outcome) -> Result<(), &'static str> {
    ///         if outcome.is_ok() { Ok(()) } else { Err("logged out in anger") }
    ///     }
    /// }
    ///
    /// let runner = ThreadRunner::new();
    /// let length = runner
    ///     .wrap_context(Login(Some("ada")))?
    ///     .scope(|user| Ok::<_, String>(user.len()));
    /// assert_eq!(length.unwrap(), 3);
    /// assert!(runner.wrap_context(Login(None)).is_err());
    /// # Ok::<(), callbridge::runner::EnterError<&str>>(())
    /// ```
    #[track_caller]
    pub fn wrap_context<C: AsyncContext>(
        &self,
        context: C,
    ) -> Result<Guard<C::Value>, EnterError<C::Error>> {
        enter(&self.core, |stage| async move {
            let mut context = context;
            let opened = context.enter().await;
            match stage.body(opened).await {
                Some((_value, outcome)) => context.exit(outcome).await.map_err(Into::into),
                None => Ok(()),
            }
        })
    }
}
