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
/// # Ok::<(), callbridge::executor::SettingError>(())
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

/// A setting of an executor that makes no sense.
///
/// # Examples
///
/// ```
/// use callbridge::ThreadPool;
/// use callbridge::executor::SettingError;
///
/// let refused = ThreadPool::builder().max_workers(0).build();
/// assert_eq!(refused.unwrap_err(), SettingError::ZeroWorkers);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingError {
    /// `max_workers` is 0.
    #[error("max_workers is 0, which would run nothing: allow at least 1")]
    ZeroWorkers,
    /// `capacity` is 0.
    #[error("capacity is 0, which would let no job through: allow at least 1")]
    ZeroCapacity,
    /// `max_threads` is less than `max_workers`.
    #[error("max_threads is less than max_workers: allow at least as many")]
    TooFewThreads,
    /// `name` has a NUL byte in it, which the system doesn't take.
    #[error("name has a NUL byte in it: take it out")]
    NulInName,
    /// The shared pool is there already, so that its settings come too late.
    #[error("the shared pool is in use already: set it up before its first use")]
    AlreadyShared,
}
