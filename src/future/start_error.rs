use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why an event loop could not be started; every caller that waited for it gets a clone.
///
/// The reason is the error's [`source`](Error::source).
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "runner")] {
/// use callbridge::{ResultError, ThreadRunner};
/// use std::io;
///
/// let runner = ThreadRunner::builder()
///     .loop_factory(|| Err(io::Error::other("no more descriptors")))
///     .build()
///     .expect("a lazy runner starts with its first use");
/// let Err(ResultError::StartFailed(error)) = runner.run(async {}) else { unreachable!() };
/// assert_eq!(error.to_string(), "the event loop could not be started: no more descriptors");
/// # }
/// ```
#[derive(Clone)]
pub struct StartError {
    reason: Arc<dyn Error + Send + Sync>,
}

#[cfg(feature = "runner")]
impl StartError {
    pub(crate) fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        StartError { reason: Arc::from(reason.into()) }
    }
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StartError").field(&self.reason).finish()
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the event loop could not be started: {}", self.reason)
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.reason.as_ref())
    }
}
