use std::fmt;
use std::sync::Arc;

/// Counters that only the source knows.
///
/// # Examples
///
/// ```
/// use callbridge::listener::SourceStats;
///
/// let mut stats = SourceStats::default();
/// stats.truncated += 1;
/// assert_eq!(stats.kernel_drops, None);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStats {
    /// Datagrams that were longer than the receive limit and came cut off.
    pub truncated: u64,
    /// Receive errors that concern one peer or one moment and were passed over.
    pub transient_errors: u64,
    /// Times that bytes made no frame and were left out (see [`BadFrames::Skip`](super::BadFrames::Skip)).
    pub skipped: u64,
    /// Datagrams that the kernel dropped because its receive buffer was full; `None` where the
    /// system doesn't tell. On Linux it is looked up at most once a second, and at the end: that reads the
    /// system's whole table of UDP sockets.
    pub kernel_drops: Option<u64>,
}

impl SourceStats {
    /// What two sources have counted together.
    pub(crate) fn and(self, other: Self) -> Self {
        let drops = self.kernel_drops.into_iter().chain(other.kernel_drops);
        SourceStats {
            truncated: self.truncated + other.truncated,
            transient_errors: self.transient_errors + other.transient_errors,
            skipped: self.skipped + other.skipped,
            kernel_drops: drops.reduce(|one, more| one + more),
        }
    }
}

/// Reads a source's [`SourceStats`] from any thread while the listener's thread owns the source.
///
/// The default one is of a source that counts nothing.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{Gauge, SourceStats};
///
/// let gauge = Gauge::new(SourceStats::default);
/// assert_eq!(gauge.read(), SourceStats::default());
/// ```
#[derive(Clone, Default)]
pub struct Gauge {
    /// Told whether what takes long to find out must be fresh.
    read: Option<Arc<dyn Fn(bool) -> SourceStats + Send + Sync>>,
}

impl Gauge {
    /// A gauge that calls `read`.
    pub fn new(read: impl Fn() -> SourceStats + Send + Sync + 'static) -> Self {
        Gauge::aging(move |_| read())
    }

    /// A gauge part of whose reading may be a second old, unless it is told that it must be fresh.
    pub(crate) fn aging(read: impl Fn(bool) -> SourceStats + Send + Sync + 'static) -> Self {
        Gauge { read: Some(Arc::new(read)) }
    }

    /// The counters now.
    pub fn read(&self) -> SourceStats {
        self.read.as_ref().map(|read| read(false)).unwrap_or_default()
    }

    pub(crate) fn read_fresh(&self) -> SourceStats {
        self.read.as_ref().map(|read| read(true)).unwrap_or_default()
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge").field("set", &self.read.is_some()).finish()
    }
}
