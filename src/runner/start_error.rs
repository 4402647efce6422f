use crate::future::ResultError;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// Why an event loop could not be started; every caller that waited for it gets a clone.
///
/// The reason inside a [`ResultError::Refused`](crate::ResultError::Refused); why it happened is its own
/// [`source`](Error::source).
///
/// # Examples
///
/// ```
/// use callbridge::{ResultError, ThreadRunner};
/// use callbridge::runner::StartError;
/// use std::error::Error;
/// use std::io;
///
/// let runner = ThreadRunner::builder()
///     .loop_factory(|| Err(io::Error::other("no more descriptors")))
///     .build()
///     .expect("a lazy runner starts with its first use");
/// let Err(ResultError::Refused(why)) = runner.run(async {}) else { unreachable!() };
/// let error = why.downcast_ref::<StartError>().unwrap();
/// assert_eq!(error.to_string(), "the event loop could not be started: see the reason");
/// assert_eq!(error.source().unwrap().to_string(), "no more descriptors");
/// ```
#[derive(Clone)]
pub struct StartError {
    reason: Arc<dyn Error + Send + Sync>,
}

impl StartError {
    pub(super) fn new(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
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
        f.write_str("the event loop could not be started: see the reason")
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.reason.as_ref())
    }
}

impl From<StartError> for ResultError {
    fn from(error: StartError) -> Self {
        ResultError::Refused(Arc::new(error))
    }
}
