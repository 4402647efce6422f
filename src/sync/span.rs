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

#[cfg(not(all(tokio_unstable, feature = "tracing")))]
pub(crate) use hidden::{Shown, shown};
#[cfg(all(tokio_unstable, feature = "tracing"))]
pub(crate) use visible::{Shown, shown};

/// Work that tokio doesn't know, shown by tokio-console among the tasks.
#[cfg(all(tokio_unstable, feature = "tracing"))]
mod visible {
    use super::super::Site;
    use tracing::{Span, trace, trace_span};

    pub(crate) struct Shown {
        work: Span,
        /// Stays current while it is worked.
        caller: Span,
    }

    /// It has the form of tokio's own spans of blocking work.
    pub(crate) fn shown(kind: &str, name: &str, site: Site) -> Shown {
        let work = trace_span!(
            target: "tokio::task::blocking",
            parent: None,
            "runtime.spawn",
            kind = %kind,
            task.name = %name,
            loc.file = site.file(),
            loc.line = site.line(),
            loc.col = site.column(),
        );
        // What is idle, and has no waker that anybody holds, the console takes for lost. Its thread holds this one.
        if let Some(id) = work.id() {
            trace!(target: "tokio::task::waker", op = "waker.clone", task.id = id.into_u64());
        }
        Shown { work, caller: Span::current() }
    }

    impl Shown {
        pub(crate) fn in_scope<R>(&self, body: impl FnOnce() -> R) -> R {
            self.work.in_scope(|| self.caller.in_scope(body))
        }
    }
}

#[cfg(not(all(tokio_unstable, feature = "tracing")))]
mod hidden {
    use super::super::Site;

    pub(crate) struct Shown;

    #[inline]
    pub(crate) fn shown(_kind: &str, _name: &str, _site: Site) -> Shown {
        Shown
    }

    impl Shown {
        #[inline]
        pub(crate) fn in_scope<R>(&self, body: impl FnOnce() -> R) -> R {
            body()
        }
    }
}
