use super::core::Core;
use super::{Bridge, Owner};
use crate::sync::SettingError;
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
    pub(super) handle: Handle,
    pub(super) max_in_flight: usize,
    pub(super) name: String,
    pub(super) spins: bool,
}

impl BridgeBuilder {
    pub(super) fn new(handle: Handle) -> Self {
        BridgeBuilder {
            handle,
            max_in_flight: Bridge::DEFAULT_MAX_IN_FLIGHT,
            name: "callbridge".to_owned(),
            spins: true,
        }
    }

    /// Sets how many calls may be in flight, at least 1.
    ///
    /// # Examples
    ///
    /// See [`Bridge::builder`].
    pub fn max_in_flight(mut self, calls: usize) -> Self {
        self.max_in_flight = calls;
        self
    }

    /// Lifts the limit of calls in flight: memory is the only limit then.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let bridge = callbridge::Bridge::builder(runtime.handle().clone()).unbounded().build()?;
    /// assert_eq!(bridge.max_in_flight(), None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn unbounded(mut self) -> Self {
        self.max_in_flight = usize::MAX;
        self
    }

    /// Sets the name that `Debug` output, threads and tokio-console show; "callbridge" by default.
    ///
    /// # Examples
    ///
    /// See [`Bridge::name`].
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets whether a waiting thread may spin for some microseconds before it parks; `true` by
    /// default.
    ///
    /// It spins for at most 30 µs, and only while that has been paying off: after results that came
    /// later than that it parks at once, and tries again ever more rarely, down to one wait in 1 024. On
    /// a single core it never does.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    /// let handle = runtime.handle().clone();
    /// let bridge = callbridge::Bridge::builder(handle).spin_before_park(false).build()?;
    /// assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(None).unwrap(), 1);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn spin_before_park(mut self, allowed: bool) -> Self {
        self.spins = allowed;
        self
    }

    /// Makes the bridge.
    ///
    /// # Errors
    ///
    /// A [`SettingError`] names the setting that can't be: a limit of 0 calls, a name with a NUL byte in it.
    ///
    /// # Examples
    ///
    /// ```
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    /// let refused = callbridge::Bridge::builder(runtime.handle().clone()).max_in_flight(0).build();
    /// assert_eq!(refused.unwrap_err().setting(), "max_in_flight");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn build(self) -> Result<Bridge, SettingError> {
        SettingError::check_name(&self.name)?;
        if self.max_in_flight == 0 {
            let why = "is 0, which would refuse every call: allow at least 1";
            return Err(SettingError::new("max_in_flight", why));
        }
        Ok(self.connect())
    }

    /// The bridge, of settings that were checked.
    pub(crate) fn connect(self) -> Bridge {
        let core = Core::new(self);
        core.watch_loop();
        Bridge { owner: Arc::new(Owner { core }) }
    }
}
