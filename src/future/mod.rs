//! A result that async code, or another thread, owes to a waiting thread.
//!
//! A [`BlockingFuture`] is waited for with a timeout, awaited, or cancelled; [`wait`] and
//! [`as_completed`] take many of them, and [`promise`] makes one that is completed by hand.

mod as_completed;
mod blocking;
mod call;
mod completer;
mod error;
mod origin;
mod refusal;
mod submit_error;
mod wait;

#[cfg(all(test, callbridge_loom))]
mod loom_tests;

pub use as_completed::{AsCompleted, AsCompletedError, as_completed};
pub use blocking::{BlockingFuture, Canceller};
pub use completer::{Completer, promise};
pub use error::{FutureState, Panic, ResultError};
pub use refusal::Refusal;
pub use submit_error::SubmitError;
pub use wait::{ReturnWhen, wait};

#[cfg(feature = "runner")]
pub(crate) use call::Cancel;
pub(crate) use call::{Delivery, Promise, lone_promise, promise as promise_of, resolved};
pub(crate) use origin::Origin;
