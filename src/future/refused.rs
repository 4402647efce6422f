use std::error::Error;
use std::io;
use std::sync::Arc;

/// Why an executor takes no work: a [`ThreadPool`](crate::executor::ThreadPool) or a
/// [`DedicatedThread`](crate::executor::DedicatedThread).
///
/// # Examples
///
/// ```
/// use callbridge::ResultError;
/// use callbridge::executor::{ExecutorError, ThreadPool};
///
/// let pool = ThreadPool::builder().initializer(|| Err::<(), _>("no licence")).build();
/// let refused = pool.submit(|| ()).result(None).unwrap_err();
/// assert!(matches!(refused, ResultError::Refused(ExecutorError::Broken(_))));
/// assert!(refused.to_string().contains("no licence"));
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// It was shut down, before the work was submitted or before it began.
    #[error("the executor is shut down: submit to one that is open")]
    Closed,
    /// Its initialisation failed, or a panic poisoned it; the reason is inside.
    #[error("the executor is broken: {0}")]
    Broken(Arc<dyn Error + Send + Sync>),
    /// The system gave it no thread; a later submission tries again.
    #[error("no thread could be started: {0}")]
    NoThread(Arc<io::Error>),
}
