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
//! The [guide](crate::guide::wrapping) shows how a library is wrapped.
//!
//! # What can go wrong, and who prevents it
//!
//! | danger | how it is met |
//! |---|---|
//! | fat, moving or NULL user data | [`UserData::as_ptr`]: a thin number, never NULL |
//! | registration fails | drop the [`UserData`]: a later call is swallowed |
//! | called often, or never | calls borrow; the guard owns |
//! | several threads, re-entry | the value is `Send + Sync`; a `Mutex` and its `try_lock` for one that must change itself: a re-entry would wait for itself |
//! | freed under a call | [`UserData::unregister`], [`UserData::idle`]; a drop leaves it to the last call |
//! | called before register returns | the gate is open before C gets the pointer |
//! | panics: handler, payload, hook, waker, destructor, `tracing` subscriber | contained; answer chosen per callback; [`UserData::with_panic_hook`] |
//! | a destructor that panics while a panic unwinds | can't be met: Rust ends the process |
//! | `panic = "abort"` | can't be met: a panic ends the process |
//! | stale pointers | generations, always on; counted in [`ProcessStats::late`] |
//! | calls that nobody sees | counted; with the feature `tracing`, the first of a registration and a kind is a warning |
//! | borrowed buffers | views end with the call, or it doesn't compile: copy |
//! | pointer and length | checked by [`Call`]'s views, refused and counted |
//! | text and enums | views give bytes and integers |
//! | C++ exceptions, `longjmp`, varargs | can't be met in Rust: write a C shim |
//! | unknown or exiting threads | marks need no destructor and no runtime |
//! | blocking an event loop | [`UnregisterError::WouldDeadlock`] |
//! | stopping inside a callback, or two that wait for each other | [`in_callback`], [`UnregisterError::InCallback`]; nothing here waits inside a callback |
//! | locks | none is held while the handler, a waker or a destructor runs |
//! | `pthread_cancel` | off inside (glibc, musl, Apple, BSDs); not for asynchronous cancel type, nor `TerminateThread` |
//! | a handler that waits | the handler's choice: prefer [`Sender::try_send`](crate::Sender::try_send) |
//! | fork | can't be met: a child has none of C's threads; start the library anew there |
//! | signal handlers | can't be met: don't use a trampoline as one |
//! | unloading the library that holds the trampoline | can't be met: don't unload it |
//! | the library's own calls and memory | the wrapper's part: see `examples/c_listener` |
mod cancel;
#[cfg(doctest)]
mod compile_fail;
mod enter;
mod gate;
mod mark;
mod registry;
mod trampoline;
mod user_data;
mod view;

#[cfg(all(test, callbridge_loom))]
mod loom_tests;

pub use enter::{ProcessStats, UserPointer, enter, process_stats};
pub use mark::in_callback;
pub use user_data::{UnregisterError, UserData, UserDataStats};
pub use view::{BadArgument, Call};
