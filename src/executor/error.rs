use crate::future::{ResultError, SubmitError};
use std::error::Error;
use std::io;
use std::sync::Arc;

/// Why an executor takes no work: a [`ThreadPool`](crate::executor::ThreadPool) or a
/// [`DedicatedThread`](crate::executor::DedicatedThread).
///
/// The reason inside a [`ResultError::Refused`](crate::ResultError::Refused).
///
/// # Examples
///
/// ```
/// use callbridge::ResultError;
/// use callbridge::executor::{ExecutorError, ThreadPool};
///
/// let pool = ThreadPool::builder().initializer(|| Err::<(), _>("no licence")).build()?;
/// let Err(ResultError::Refused(why)) = pool.submit(|| ()).result(None) else { unreachable!() };
/// let why = why.downcast_ref::<ExecutorError>().unwrap();
/// assert!(matches!(why, ExecutorError::Broken(reason) if reason.to_string() == "no licence"));
/// # Ok::<(), callbridge::SettingError>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// It was closed, before the work was submitted or before it began.
    #[error("the executor is closed: submit to one that is open")]
    Closed,
    /// Its initialisation failed, or a panic poisoned it; the reason is inside.
    #[error("the executor is broken: see the reason, and make another")]
    Broken(#[source] Arc<dyn Error + Send + Sync>),
    /// The system gave it no thread; a later submission tries again.
    #[error("no thread could be started: submit again when the system has room")]
    NoThread(#[source] Arc<io::Error>),
}

impl ExecutorError {
    pub(super) fn hand_back<F>(self, work: F) -> SubmitError<F> {
        match self {
            ExecutorError::Closed => SubmitError::Closed(work),
            why => SubmitError::Refused(Arc::new(why), work),
        }
    }
}

impl From<ExecutorError> for ResultError {
    fn from(why: ExecutorError) -> Self {
        ResultError::Refused(Arc::new(why))
    }
}
