use std::any::Any;
use std::fmt;
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

/// Tells of a panic that nobody else will hear of.
pub(crate) fn report(what: &'static str, payload: &(dyn Any + Send)) {
    report_panic(what, panic_message(payload));
}

/// As [`report`], with the panic's text.
pub(crate) fn report_panic(what: &'static str, message: &str) {
    event(format_args!("{what} panicked"), &message);
}

/// An error event, with the `tracing` feature; a subscriber that panics reaches nobody.
#[cfg(feature = "tracing")]
pub(crate) fn event(what: fmt::Arguments<'_>, reason: &dyn fmt::Display) {
    let tell = || tracing::error!(target: "callbridge", reason = %reason, "{what}");
    if let Err(payload) = catch_unwind(AssertUnwindSafe(tell)) {
        discard(payload);
    }
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn event(_what: fmt::Arguments<'_>, _reason: &dyn fmt::Display) {}

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
