//! A result that async code, or another thread, owes to a waiting thread: [`BlockingFuture`],
//! [`wait`] and [`as_completed`].

mod as_completed;
mod blocking;
mod call;
mod error;
mod refused;
mod start_error;
mod wait;

#[cfg(all(test, callbridge_loom))]
mod loom_tests;

pub use as_completed::{AsCompleted, AsCompletedTimeout, as_completed};
pub use blocking::{BlockingFuture, Canceller};
pub use error::{FutureState, Panic, ResultError, WaitError};
pub use refused::ExecutorError;
pub use start_error::StartError;
pub use wait::{ReturnWhen, wait};

pub(crate) use call::{Failure, Origin, Promise, lone_promise, promise, resolved};
