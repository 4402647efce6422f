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
mod panic;
mod parker;
pub(crate) mod prim;
mod running;
mod setting;
mod span;
mod spin;
mod threads;
mod timeout;
mod wait;
mod wait_list;

pub(crate) use blocking_hook::{BlockingHook, set_blocking_hook, would_deadlock};
pub(crate) use deadline::Deadline;
pub(crate) use limiter::{AcquirePermit, Limiter, NoPermit};
pub(crate) use monitor::Monitor;
pub(crate) use panic::{contain, discard, event, panic_message, report, report_panic, wake};
pub(crate) use parker::{Parker, Woken};
pub(crate) use running::{Running, Site, Work, innermost, running_for};
pub use setting::SettingError;
pub(crate) use span::Span;
pub(crate) use spin::{AdaptiveSpin, LONGEST_SPIN, pause, spin_by, spin_until};
pub(crate) use threads::ThreadSettings;
pub(crate) use timeout::{timeout, timeout_repeating};
pub use wait::WaitError;
pub(crate) use wait::{may_wait, park_until, wait, wait_in_place};
pub(crate) use wait_list::WaitList;
