use std::error::Error;
use std::sync::Arc;

/// Why work never began; inside a [`ResultError::Refused`](crate::ResultError::Refused) and a
/// [`SubmitError::Refused`](super::SubmitError::Refused).
///
/// # Examples
///
/// ```
/// use callbridge::ResultError;
/// use callbridge::executor::ThreadPool;
/// use callbridge::future::Refusal;
///
/// let pool = ThreadPool::builder().initializer(|| Err::<(), _>("no licence")).build()?;
/// match pool.submit(|| ()).result(None) {
///     Err(ResultError::Refused(Refusal::Broken(reason))) => {
///         assert_eq!(reason.to_string(), "no licence");
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), callbridge::SettingError>(())
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It was closed, before the work was submitted or before it began.
    #[error("what was to do the work is closed: submit to one that is open")]
    Closed,
    /// What it works with could not be made, or was spoilt by a panic; it stays so.
    #[error("what was to do the work is broken: see `source()`, and make another")]
    Broken(#[source] Arc<dyn Error + Send + Sync>),
    /// It could not be started: the system gave no thread, or the reason says what else was missing. A later
    /// submission tries again.
    #[error("what was to do the work could not be started: see `source()`, and try again")]
    NotStarted(#[source] Arc<dyn Error + Send + Sync>),
}

impl Refusal {
    pub(crate) fn not_started(reason: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Refusal::NotStarted(Arc::from(reason.into()))
    }
}
