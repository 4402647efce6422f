use super::stats::ListenerStats;
use crate::channel::{Ending, SourceError};
use std::fmt;
use std::time::Duration;

/// How a listener stopped; returned by [`Listener::close`](super::Listener::close).
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Listener, UdpSource};
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let (listener, _frames) = Listener::builder(UdpSource::bind("127.0.0.1:0")?).spawn()?;
/// let report = listener.close_blocking(Duration::from_secs(5));
/// assert!(report.is_clean(), "{report}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "it names what did not stop"]
pub struct StopReport {
    /// How long the stop took.
    pub elapsed: Duration,
    /// The names of the threads that were still running at the deadline.
    pub still_running: Vec<String>,
    /// Why the listener ended, if it has.
    pub ending: Option<Ending>,
    /// The error of a source that failed, as in [`Listener::error`](super::Listener::error).
    pub error: Option<SourceError>,
    /// The listener's counters.
    pub stats: ListenerStats,
    /// The stop was asked for but not waited for, because the calling thread is the listener's own,
    /// or drives an event loop.
    pub would_deadlock: bool,
}

impl StopReport {
    /// Whether all threads have ended. Says nothing about whether the source failed: see
    /// [`error`](Self::error).
    pub fn is_clean(&self) -> bool {
        self.still_running.is_empty()
    }
}

impl fmt::Display for StopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped in {:?}", self.elapsed)?;
        if let Some(ending) = self.ending {
            write!(f, " ({ending}")?;
            if let Some(error) = &self.error {
                write!(f, ": {error}")?;
            }
            f.write_str(")")?;
        }
        if self.would_deadlock {
            f.write_str(", not waited for: the calling thread must not block")?;
        }
        for name in &self.still_running {
            write!(f, ", still running: {name}")?;
        }
        Ok(())
    }
}
