//! Callbacks from C libraries that bring their own threads (feature `ffi`).
//!
//! [`UserData`] holds what the callbacks need and gives C its `void *user_data`;
//! [`trampoline!`](crate::trampoline) makes the function that C calls. All of the crate's `unsafe` is
//! in here, and a program needs its own only where it calls C.
//!
//! What C holds is not an address but a number that is looked up, with a generation: NULL, stale and
//! even invented user data is swallowed and counted. The gate that it leads to stays for the life of
//! the process and is used again by later registrations: 128 bytes for each of the most that ever were
//! registered at once (at most doubled by growth), of 48 at least.
//!
//! # What can go wrong, and who prevents it
//!
//! | row | danger | how it is met |
//! |---|---|---|
//! | e1, e2, e6 | fat, moving or NULL user data | [`UserData::as_ptr`]: a thin number, never NULL |
//! | e3 | registration fails | drop the [`UserData`]: a later call is swallowed |
//! | e4, e5 | called often, or never | calls borrow; the guard owns |
//! | e7 | several threads, re-entry | the value is `Send + Sync`; [`Exclusive`] for one at a time |
//! | e8, e9 | freed under a call | [`UserData::unregister`], [`UserData::idle`]; a drop leaves it to the last call |
//! | e10 | called before register returns | the gate is open before C gets the pointer |
//! | e11, e13 to e16 | panics | contained; answer chosen per callback; [`UserData::with_panic_hook`] |
//! | e12, e35 | stale pointers | generations, always on; counted in [`ProcessStats::late`] |
//! | e17, e18, e44 | C++ exceptions, `longjmp`, varargs | can't be met in Rust: write a C shim |
//! | e19 | `panic = "abort"` | can't be met: a panic ends the process |
//! | e20, e22 | unknown or exiting threads | marks need no destructor and no runtime |
//! | e21, e38 | blocking an event loop | [`UnregisterError::WouldDeadlock`] |
//! | e23 | fork | can't be met: a child has none of C's threads; register anew there |
//! | e24 | signal handlers | can't be met: don't use a trampoline as one |
//! | e25 | unloading the library that holds the trampoline | can't be met: don't unload it |
//! | e26 | `pthread_cancel` | off inside (glibc, musl, Apple, BSDs); not for asynchronous cancel type, nor `TerminateThread` |
//! | e27 | a handler that waits | the handler's choice: prefer [`Sender::try_send`](crate::Sender::try_send) |
//! | e28 to e30 | stopping inside a callback | [`in_callback`], [`UnregisterError::InCallback`]; a drop never waits |
//! | e31, e32 | locks | none is held while the handler, a waker or a destructor runs |
//! | e33, e34, e36, e37, e43, e45 | the library's own calls and memory | the wrapper's part: see `examples/c_listener` |
//! | e39 | borrowed buffers | views end with the handler: copy |
//! | e40 | pointer and length | [`bytes()`], [`c_str()`], [`reference()`] refuse and count |
//! | e41, e42 | text and enums | views give bytes and integers |
//! | e46, e47 | tests with a C driver | `examples/c_listener/tests/nasty_modes.rs` |
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

use crate::sync::{contain, discard};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what may be anybody's where nothing may unwind: a panic is reported, and one of the report
/// (a subscriber's) dropped.
fn contained(what: &'static str, body: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| contain(what, body))) {
        discard(payload);
    }
}
