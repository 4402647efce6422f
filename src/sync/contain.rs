use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Runs foreign code that must not unwind into the bridge; a panic is reported and dropped.
///
/// Returns `None` when `body` panicked. With the `tracing` feature the report is an error event;
/// without it the panic hook's own message is the report.
pub(crate) fn contain<R>(what: &'static str, body: impl FnOnce() -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => Some(value),
        Err(payload) => {
            report(what, payload.as_ref());
            discard(payload);
            None
        }
    }
}

/// Wakes a task that may be anybody's: a waker that panics must not keep others from being woken,
/// nor unwind into whoever wakes.
pub(crate) fn wake(waker: Waker) {
    contain("a waker", || waker.wake());
}

#[cfg(feature = "tracing")]
pub(crate) fn report(what: &'static str, payload: &(dyn Any + Send)) {
    tracing::error!(target: "callbridge", panic = panic_message(payload), "{what} panicked");
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn report(_what: &'static str, _payload: &(dyn Any + Send)) {}

/// Drops a panic payload whose own destructor may panic.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
}

/// The text of a panic, as far as it is text.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "a panic without a text message"
    }
}
