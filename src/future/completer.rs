use super::BlockingFuture;
use super::call::{Promise, lone_promise};
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

/// Makes a future that is completed by hand, and the end that completes it.
///
/// For a callback that has the answer somebody waits for: keep the [`Completer`] in the callback, and
/// wait for, or await, the [`BlockingFuture`].
///
/// Python: `concurrent.futures.Future()` with `set_result`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let (completer, mut answer) = callbridge::future::promise();
/// std::thread::spawn(move || completer.complete(42)); // a library's callback, say
/// assert_eq!(answer.result(Duration::from_secs(5))?, 42);
/// # Ok::<(), callbridge::ResultError>(())
/// ```
pub fn promise<T>() -> (Completer<T>, BlockingFuture<T>) {
    let (promise, future) = lone_promise();
    (Completer { promise }, future)
}

/// Completes the future of a [`promise`]; dropped before that, it cancels it.
#[must_use = "dropping it cancels the future"]
pub struct Completer<T> {
    promise: Promise<T>,
}

impl<T> Completer<T> {
    /// Gives the waiting side its value.
    ///
    /// The waiter is woken and done-callbacks run on the calling thread. A value that nobody waits for
    /// any more is dropped here.
    pub fn complete(self, value: T) {
        self.promise.resolve(Ok(value));
    }

    /// Whether the waiting side asked for a cancel: the value isn't wanted.
    ///
    /// # Examples
    ///
    /// ```
    /// let (completer, answer) = callbridge::future::promise::<u8>();
    /// answer.cancel();
    /// assert!(completer.is_cancelled());
    /// ```
    pub fn is_cancelled(&self) -> bool {
        self.promise.cancel_requested()
    }
}

impl<T> UnwindSafe for Completer<T> {}
impl<T> RefUnwindSafe for Completer<T> {}

impl<T> fmt::Debug for Completer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completer").finish_non_exhaustive()
    }
}
