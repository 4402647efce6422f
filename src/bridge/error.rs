use std::fmt;

/// There is no event loop in this thread; returned by [`Bridge::try_current`](crate::Bridge::try_current).
///
/// # Examples
///
/// ```
/// let error = callbridge::Bridge::try_current().unwrap_err();
/// assert!(error.to_string().starts_with("no event loop"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no event loop runs here: call it inside the runtime, or pass its handle to Bridge::new")]
pub struct NoCurrentLoop;

/// The event loop is gone, or its bridge was closed.
///
/// # Examples
///
/// ```
/// use callbridge::{Bridge, LoopClosed};
///
/// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// drop(runtime);
/// assert_eq!(bridge.call_soon_threadsafe(|| {}), Err(LoopClosed));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event loop is gone or its bridge is closed: submit to a loop that is running")]
pub struct LoopClosed;

macro_rules! hand_back {
    ($error:ident { $($variant:ident),+ }) => {
        impl<F> $error<F> {
            /// The refused future.
            ///
            /// # Examples
            ///
            /// ```
            /// # use callbridge::Bridge;
            /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            /// let bridge = Bridge::new(runtime.handle().clone());
            /// drop(runtime);
            /// let refused = bridge.try_run_coroutine_threadsafe(std::future::ready(5)).unwrap_err();
            /// assert_eq!(refused.into_inner().into_inner(), 5);
            /// # Ok::<(), std::io::Error>(())
            /// ```
            pub fn into_inner(self) -> F {
                match self {
                    $($error::$variant(future))|+ => future,
                }
            }
        }

        impl<F> fmt::Debug for $error<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $($error::$variant(_) => concat!(stringify!($variant), "(..)")),+
                })
            }
        }
    };
}

/// A submission that would have had to wait, or that came too late; the future is inside.
///
/// # Examples
///
/// See [`Bridge::try_run_coroutine_threadsafe`](crate::Bridge::try_run_coroutine_threadsafe).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum TrySubmitError<F> {
    /// The limit of calls in flight is reached.
    #[error("the limit of calls in flight is reached: wait for one to end, or raise the limit")]
    Full(F),
    /// The loop is gone, or the bridge was closed.
    #[error("the event loop is gone or its bridge is closed: submit to a loop that is running")]
    Closed(F),
}

hand_back!(TrySubmitError { Full, Closed });

/// A submission that found no room in time, or that came too late; the future is inside.
///
/// # Examples
///
/// See [`Bridge::run_coroutine_threadsafe_timeout`](crate::Bridge::run_coroutine_threadsafe_timeout).
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum SubmitTimeoutError<F> {
    /// The limit of calls in flight stayed reached until the timeout.
    #[error("the limit of calls in flight stayed reached: try again, or raise the limit")]
    TimedOut(F),
    /// The loop is gone, or the bridge was closed.
    #[error("the event loop is gone or its bridge is closed: submit to a loop that is running")]
    Closed(F),
    /// Waiting for room here would block an event loop.
    #[error("waiting for room here would block an event loop: use the try form")]
    WouldDeadlock(F),
}

hand_back!(SubmitTimeoutError { TimedOut, Closed, WouldDeadlock });
