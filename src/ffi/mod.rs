//! Callbacks from C libraries that bring their own threads (feature `ffi`).
//!
//! [`UserData`] holds what the callbacks need and gives C its `void *user_data`;
//! [`trampoline!`](crate::trampoline) makes the function that C calls. All of the crate's `unsafe` is
//! in here, and a program needs its own only where it calls C.
//!
//! What C holds is not an address but a number that is looked up, with a generation: NULL, stale and
//! even invented user data is swallowed and counted. The gate that it leads to stays for the life of
//! the process and is used again by later registrations: [`HEADER_BYTES`] bytes for each of the most that
//! ever were registered at once, at most doubled by growth.
mod cancel;
mod enter;
mod exclusive;
mod gate;
mod mark;
mod registry;
mod trampoline;
mod user_data;
mod view;

#[cfg(all(test, callbridge_loom))]
mod loom_tests;

pub use enter::{ProcessStats, enter, process_stats};
pub use exclusive::{Busy, Exclusive};
pub use mark::in_callback;
pub use user_data::{InCallback, UnregisterError, UserData, UserDataStats};
pub use view::{BadArgument, bytes, c_str, reference, value};

/// What stays of a registration for the life of the process, in bytes.
pub const HEADER_BYTES: usize = size_of::<registry::Slot>();
