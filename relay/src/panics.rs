//! The user's code may panic; nothing of ours ends by it.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What the user's code gives, or the reason to go on without: its panic has been reported by the panic hook.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(value) => Some(value),
        Err(panic) => {
            // What it panicked with may panic, too, when it is dropped.
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
                std::mem::forget(again);
            }
            None
        }
    }
}
