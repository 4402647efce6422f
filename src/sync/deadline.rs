use super::prim::Instant;
use std::time::Duration;

/// A point in time after which a wait gives up; `Never` also stands for one too far to express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    Never,
    At(Instant),
}

impl Deadline {
    /// The deadline `timeout` from now; `None` and an unrepresentable instant mean never.
    pub(crate) fn after(timeout: Option<Duration>) -> Self {
        timeout
            .and_then(|timeout| Instant::now().checked_add(timeout))
            .map_or(Deadline::Never, Deadline::At)
    }

    /// What is left: `None` for ever, zero once passed.
    pub(crate) fn remaining(self) -> Option<Duration> {
        match self {
            Deadline::Never => None,
            Deadline::At(at) => Some(at.saturating_duration_since(Instant::now())),
        }
    }

    /// Whether the deadline has passed.
    pub(crate) fn passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }
}
