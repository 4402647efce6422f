//! A listener's hooks about its source.

use std::io;
use std::time::Duration;

/// What a source does after an error; told by [`on_error`](super::ListenerBuilder::on_error).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnError {
    /// It is read again after a pause.
    Retry(Duration),
    /// The listener ends as failed.
    Fail,
}

type ErrorHook = Box<dyn FnMut(&io::Error, u32) -> OnError + Send>;
type QuietHook = Box<dyn FnMut() + Send>;

/// The hooks of one listener, called on its thread.
#[derive(Default)]
pub(crate) struct Alarms {
    pub(crate) on_error: Option<ErrorHook>,
    pub(crate) quiet_after: Option<(Duration, QuietHook)>,
}
