use super::core::{Core, Timings};
use super::stall::{Alarm, Stall};
use super::{Bridge, Owner};
use crate::sync::{SettingError, event, watch};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// What is shorter than this is the scheduler's business.
const SHORTEST: Duration = Duration::from_millis(10);

/// How many calls may be in flight, unless the builder says otherwise.
pub(crate) const MAX_IN_FLIGHT: usize = 65_536;

/// Settings of a [`Bridge`]; see [`Bridge::builder`].
#[derive(Debug)]
#[must_use = "build() makes the bridge"]
pub struct BridgeBuilder {
    pub(super) handle: Handle,
    pub(super) max_in_flight: usize,
    pub(super) name: String,
    pub(super) spins: bool,
    pub(super) alarm: Option<Alarm>,
}

impl BridgeBuilder {
    pub(super) fn new(handle: Handle) -> Self {
        BridgeBuilder {
            handle,
            max_in_flight: MAX_IN_FLIGHT,
            name: "callbridge".to_owned(),
            spins: true,
            alarm: None,
        }
    }

    /// Sets how many calls may be in flight, at least 1; 65 536 by default.
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
    /// let _never = bridge.try_run_coroutine_threadsafe(std::future::pending::<()>()).unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn unbounded(mut self) -> Self {
        self.max_in_flight = usize::MAX;
        self
    }

    /// Sets the name that `Debug` output, threads, metrics and tokio-console show; "callbridge" by default.
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

    /// Has `hook` told of whatever keeps calls from going on for longer than `limit`: a loop that begins with
    /// nothing new while calls are in flight ([`Stall::Loop`]), and a poll that doesn't come back
    /// ([`Stall::Poll`]), that of a listener's handler on the listener's thread included.
    ///
    /// Each stall is told once, while it goes on, when it has lasted for `limit` to one and a half of it. It is
    /// also an error event (feature `tracing`), counts in [`BridgeStats::stalls`](super::BridgeStats::stalls), and
    /// shows in the metrics as long as it lasts. The hook runs on a thread that all alarms of the process share and
    /// that ends with the last bridge that has one: it should be quick. A panic in it is contained and
    /// reported.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::{Bridge, bridge::Stall};
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let runtime = tokio::runtime::Builder::new_current_thread().build()?; // that nobody drives
    /// let (tell, told) = mpsc::channel();
    /// let bridge = Bridge::builder(runtime.handle().clone())
    ///     .stall_after(Duration::from_millis(20), move |stall| tell.send(stall.clone()).unwrap())
    ///     .build()?;
    /// let _call = bridge.run_coroutine_threadsafe(async {});
    /// assert!(matches!(told.recv().unwrap(), Stall::Loop(_)));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stall_after(
        mut self,
        limit: Duration,
        hook: impl Fn(&Stall) + Send + Sync + 'static,
    ) -> Self {
        self.alarm = Some(Alarm::new(limit, Box::new(hook)));
        self
    }

    /// Makes the bridge.
    ///
    /// # Errors
    ///
    /// A [`SettingError`] names the setting that can't be: a limit of 0 calls, a name with a NUL byte in it,
    /// a `stall_after` below 10 ms.
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
        if self.alarm.as_ref().is_some_and(|alarm| alarm.limit() < SHORTEST) {
            let why = "is below 10 ms, which is the scheduler's business: allow more";
            return Err(SettingError::new("stall_after", why));
        }
        Ok(self.connect())
    }

    /// The bridge, of settings that were checked.
    pub(crate) fn connect(self) -> Bridge {
        let core = Core::new(self, Timings::new());
        #[cfg(feature = "metrics")]
        crate::sync::observe(&core);
        if core.alarm.is_some() {
            if let Err(error) = watch(&core) {
                event(format_args!("the bridge {} has no alarm", core.name), &error);
            }
        }
        core.watch_loop();
        Bridge { owner: Arc::new(Owner { core }) }
    }
}
