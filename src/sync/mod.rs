//! Private ground floor: locks, the deadline parker, the loop-context check.
//!
//! Nothing here knows of futures, channels or listeners.

mod contain;
pub(crate) mod context;
mod deadline;
pub(crate) mod event_loop;
mod lend;
#[cfg(callbridge_shuttle)]
pub(crate) mod model;
mod nap;
mod parker;
pub(crate) mod prim;
mod span;

pub(crate) use contain::{contain, discard, panic_message, report, wake};
pub(crate) use deadline::Deadline;
pub(crate) use lend::{Place, lend, take_place};
pub(crate) use nap::{Habit, longest_nap, nap, nap_by, pause};
pub(crate) use parker::{Parker, Woken, with_cached_parker, with_parker};
pub(crate) use span::Span;
