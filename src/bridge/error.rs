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
