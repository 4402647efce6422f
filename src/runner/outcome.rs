//! How a context's body ended, and what went wrong at its exit.

#[cfg(doc)]
use crate::future::ResultError;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

/// How the body of a context ended; given to the context's exit.
///
/// # Examples
///
/// ```
/// use callbridge::runner::Outcome;
///
/// assert!(Outcome::Ok.is_ok());
/// assert_eq!(Outcome::error("no such station").to_string(), "no such station");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The body ended well.
    Ok,
    /// The body failed.
    Error(Arc<dyn Error + Send + Sync>),
    /// The body panicked.
    Panicked,
}

impl Outcome {
    /// The outcome of a body that failed with `error`.
    pub fn error(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Outcome::Error(Arc::from(error.into()))
    }

    /// Whether the body ended well.
    pub fn is_ok(&self) -> bool {
        matches!(self, Outcome::Ok)
    }

    /// As far as a destructor can tell.
    pub(super) fn of_drop() -> Self {
        if std::thread::panicking() { Outcome::Panicked } else { Outcome::Ok }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ok => f.write_str("ok"),
            Outcome::Error(error) => error.fmt(f),
            Outcome::Panicked => f.write_str("the body panicked"),
        }
    }
}

/// A context's exit failed, panicked, or did not end.
///
/// The reason is the error's [`source`](Error::source): the error that the exit returned, or a
/// [`ResultError`].
///
/// # Examples
///
/// ```
/// use callbridge::ThreadRunner;
/// use callbridge::runner::Outcome;
/// use std::error::Error;
///
/// let runner = ThreadRunner::new();
/// let session = runner.enter_context(
///     || async { Ok::<_, String>("session") },
///     |_session, _outcome| async { Err("the peer hung up") },
/// )?;
/// let error = session.exit(Outcome::Ok).unwrap_err();
/// assert!(error.to_string().ends_with("did not exit well"));
/// assert_eq!(error.source().unwrap().to_string(), "the peer hung up");
/// # Ok::<(), callbridge::runner::EnterError<String>>(())
/// ```
pub struct ExitError {
    location: &'static Location<'static>,
    reason: Box<dyn Error + Send + Sync>,
}

impl ExitError {
    pub(super) fn new(
        location: &'static Location<'static>,
        reason: Box<dyn Error + Send + Sync>,
    ) -> Self {
        ExitError { location, reason }
    }

    /// Where the context was entered.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::ThreadRunner;
    /// # use callbridge::runner::Outcome;
    /// # let runner = ThreadRunner::new();
    /// let guard = runner
    ///     .enter_context(|| async { Ok::<_, String>(()) }, |_, _| async { Err("late") })
    ///     .unwrap();
    /// assert!(guard.exit(Outcome::Ok).unwrap_err().location().line() > 0);
    /// ```
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }
}

impl fmt::Debug for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExitError")
            .field("location", &self.location)
            .field("reason", &self.reason)
            .finish()
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the context entered at {} did not exit well", self.location)
    }
}

impl Error for ExitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.reason.as_ref())
    }
}
