//! Private ground floor: locks, the one way to wait, limits, the loop-context check.
//!
//! Nothing here knows of futures, channels or listeners.

mod blocking_hook;
pub(crate) mod context;
mod deadline;
pub(crate) mod event_loop;
mod limiter;
#[cfg(all(test, callbridge_loom))]
mod loom_tests;
#[cfg(callbridge_shuttle)]
pub(crate) mod model;
#[cfg(callbridge_loom)]
mod model_loom;
mod monitor;
#[cfg(feature = "metrics")]
mod observed;
mod panic;
mod parker;
pub(crate) mod prim;
mod running;
mod setting;
mod span;
mod spin;
mod threads;
mod timeout;
mod timing;
mod wait;
mod wait_list;
mod watchdog;

pub(crate) use blocking_hook::{BlockingHook, set_blocking_hook, would_deadlock};
pub(crate) use deadline::Deadline;
pub(crate) use limiter::{AcquirePermit, Limiter, NoPermit};
pub(crate) use monitor::Monitor;
#[cfg(feature = "metrics")]
pub(crate) use observed::{
    Entry, Key, Observed, Sheet, Value, observe, read as read_observed, retire,
};
pub(crate) use panic::{contain, discard, event, panic_message, report, report_panic, wake};
pub(crate) use parker::{Parker, Woken};
pub(crate) use running::{
    Poll, Polling, PollsWatched, Running, Site, Work, innermost, polls_of, running_for,
};
pub use setting::SettingError;
pub(crate) use span::{Shown, Span, shown};
pub(crate) use spin::{AdaptiveSpin, LONGEST_SPIN, pause, spin_by, spin_until};
pub(crate) use threads::ThreadSettings;
pub(crate) use timeout::{timeout, timeout_repeating};
#[cfg(feature = "metrics")]
pub(crate) use timing::seconds_of;
pub(crate) use timing::{Began, Timing};
pub use wait::WaitError;
pub(crate) use wait::{may_wait, park_until, wait, wait_in_place};
pub(crate) use wait_list::WaitList;
pub(crate) use watchdog::{Watched, watch};
