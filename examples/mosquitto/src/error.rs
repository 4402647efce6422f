use crate::sys;
use callbridge::ResultError;
use callbridge::future::Refusal;
use std::error::Error;
use std::ffi::{CStr, c_int};
use std::io;
use std::sync::Arc;

/// Why the library didn't do what it was called for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// A text for the library has a NUL byte in it.
    #[error("a topic or a host can't have a NUL byte in it")]
    Nul(#[from] std::ffi::NulError),
    /// A payload is longer than the library can say.
    #[error("the payload is too long: MQTT carries at most 268 435 455 bytes")]
    TooLong,
    /// There is no connection right now; at QoS 0 the library keeps nothing for later.
    #[error("not connected: publish again when the broker is back, or at QoS 1")]
    NotConnected,
    /// The library refused.
    #[error("libmosquitto refuses: {0}")]
    Refused(String),
    /// A system call of the library's failed.
    #[error("libmosquitto: {0}")]
    System(#[source] io::Error),
    /// The client didn't get as far as asking the broker.
    #[error("can't connect: {0}")]
    Start(#[source] Arc<dyn Error + Send + Sync>),
    /// The broker didn't accept the connection in time.
    #[error("the broker has not accepted the connection in time")]
    NoAnswer,
    /// The client's thread is gone.
    #[error("the client is closed")]
    Closed,
}

impl CallError {
    /// The library's answer as a result. Read at once: some answers are in `errno`.
    pub(crate) fn check(code: c_int) -> Result<(), CallError> {
        match code {
            sys::SUCCESS => Ok(()),
            sys::NO_CONN => Err(CallError::NotConnected),
            sys::ERRNO => Err(CallError::System(io::Error::last_os_error())),
            #[allow(unsafe_code)]
            code => {
                // SAFETY: it takes any number and returns a static string.
                let text = unsafe { CStr::from_ptr(sys::mosquitto_strerror(code)) };
                Err(CallError::Refused(text.to_string_lossy().into_owned()))
            }
        }
    }

    /// Why the thread that was to own the library has none.
    pub(crate) fn of_start(error: ResultError) -> Self {
        CallError::Start(match error {
            ResultError::Refused(Refusal::Broken(reason)) => reason,
            other => Arc::new(other),
        })
    }

    pub(crate) fn of_thread(error: &ResultError) -> Self {
        match error {
            ResultError::Panicked(_) => CallError::Refused(error.to_string()),
            _ => CallError::Closed,
        }
    }
}

/// Why a delivery isn't known to have happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// No receipt came in time. At QoS 1 and 2 the library goes on trying.
    #[error("no delivery receipt in time: the library goes on trying")]
    TimedOut,
    /// The connection went away with it, and it isn't tried again.
    #[error("the connection was lost with it: publish again if it matters")]
    ConnectionLost,
    /// The client was closed before a receipt came.
    #[error("the client was closed before a delivery receipt came")]
    Closed,
}
