use super::prim::Instant;
use std::time::Duration;

/// When a wait gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// It doesn't wait at all.
    Now,
    At(Instant),
    /// Also stands for a point in time that is too far to express.
    Never,
}

impl Deadline {
    /// The deadline `timeout` from now; `None` is never.
    pub(crate) fn after(timeout: impl Into<Option<Duration>>) -> Self {
        match timeout.into() {
            None => Deadline::Never,
            Some(Duration::ZERO) => Deadline::Now,
            Some(timeout) => {
                Instant::now().checked_add(timeout).map_or(Deadline::Never, Deadline::At)
            }
        }
    }

    /// What is left: `None` for ever, zero once passed.
    pub(crate) fn remaining(self) -> Option<Duration> {
        match self {
            Deadline::Now => Some(Duration::ZERO),
            Deadline::At(at) => Some(at.saturating_duration_since(Instant::now())),
            Deadline::Never => None,
        }
    }

    /// The deadline, or `timeout` from now if that is sooner.
    pub(crate) fn or_after(self, timeout: Duration) -> Self {
        match self.remaining() {
            Some(left) if left <= timeout => self,
            _ => Deadline::after(timeout),
        }
    }

    /// The sooner of the two.
    pub(crate) fn or(self, other: Self) -> Self {
        match other.remaining() {
            Some(left) if self.remaining().is_none_or(|own| left < own) => other,
            _ => self,
        }
    }

    /// Whether the deadline has passed.
    pub(crate) fn passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }
}

#[cfg(all(test, not(any(callbridge_loom, callbridge_shuttle))))]
mod tests {
    use super::Deadline::{Never, Now};
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_sooner_of_two_counts() {
        let (soon, late) = (Deadline::after(MINUTE), Deadline::after(60 * MINUTE));
        for (sooner, later) in [(soon, late), (soon, Never), (Now, soon), (Now, Never)] {
            assert_eq!((sooner.or(later), later.or(sooner)), (sooner, sooner));
        }
        assert_eq!((soon.or_after(60 * MINUTE), Now.or_after(MINUTE)), (soon, Now));
        for later in [late, Never] {
            assert!(later.or_after(MINUTE).remaining().unwrap() <= MINUTE);
        }
    }
}
