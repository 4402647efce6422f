//! The caller's tracing span, taken along to where its work is done.

#[cfg(feature = "tracing")]
pub(crate) use tracing::Span;

/// Stands for the caller's span when there is no tracing.
#[cfg(not(feature = "tracing"))]
pub(crate) struct Span;

#[cfg(not(feature = "tracing"))]
impl Span {
    pub(crate) fn current() -> Self {
        Span
    }

    pub(crate) fn in_scope<R>(&self, body: impl FnOnce() -> R) -> R {
        body()
    }
}
