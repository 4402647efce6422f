use super::core::Core;
use super::{Bridge, Owner};
use std::sync::Arc;
use tokio::runtime::Handle;

/// Settings of a [`Bridge`]; see [`Bridge::builder`].
///
/// # Examples
///
/// See [`Bridge::builder`].
#[derive(Debug)]
#[must_use = "build() makes the bridge"]
pub struct BridgeBuilder {
    handle: Handle,
    max_in_flight: usize,
    name: String,
}

impl BridgeBuilder {
    pub(super) fn new(handle: Handle) -> Self {
        BridgeBuilder {
            handle,
            max_in_flight: Bridge::DEFAULT_MAX_IN_FLIGHT,
            name: "callbridge".to_owned(),
        }
    }

    /// How many calls may be submitted and not resolved, from 1 call up.
    ///
    /// # Panics
    ///
    /// If `calls` is 0: no call could ever be submitted.
    ///
    /// # Examples
    ///
    /// See [`Bridge::builder`].
    #[track_caller]
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        assert!(calls > 0, "max_in_flight(0) would refuse every call: allow at least 1");
        self.max_in_flight = calls;
        self
    }

    /// Lifts the limit of calls in flight: the memory is the limit then.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let bridge = callbridge::Bridge::builder(runtime.handle().clone()).unbounded().build();
    /// assert_eq!(bridge.max_in_flight(), None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn unbounded(mut self) -> Self {
        self.max_in_flight = usize::MAX;
        self
    }

    /// A name for `Debug` output and threads; "callbridge" unless told.
    ///
    /// # Examples
    ///
    /// See [`Bridge::name`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The bridge.
    ///
    /// # Examples
    ///
    /// See [`Bridge::builder`].
    pub fn build(self) -> Bridge {
        let core = Core::new(self.handle, self.max_in_flight, self.name);
        Bridge { owner: Arc::new(Owner { core }) }
    }
}
