//! callbridge joins **foreign threads** and **a tokio event loop**, both ways.
//!
//! An *event loop* is a tokio runtime reached through its [`Handle`](tokio::runtime::Handle), of
//! either flavour; the crate keeps none alive, and owns none but a [`ThreadRunner`]'s. A *foreign
//! thread* is any thread that isn't driving the loop: one that a library owns, blocks and calls back
//! from.
//!
//! | you have | you write | you get |
//! |---|---|---|
//! | a library that calls back from its own threads | [`channel()`] and a [`Sender`] in the callback | a [`FrameStream`] |
//! | a thread that owns a blocking socket | a [`Listener`] over a source | frames as a stream, or an async handler whose answer the thread waits for |
//! | a foreign thread that needs an answer from async code now | [`Bridge::call`] | the value; the future is polled on that thread, and nobody is woken if it is ready |
//! | the same with the answer later, or many at once | [`Bridge::run_coroutine_threadsafe`] | a [`BlockingFuture`], `.result(timeout)` |
//! | an async program with blocking calls | [`to_thread`], [`ThreadPool`], [`DedicatedThread`] | awaitable results, bounded and cancellable |
//! | a sync program that needs an async library | [`ThreadRunner`] | an event loop of your own: `run`, `enter_context`, `wrap_iter` |
//! | a C library with callbacks and `void *user_data` | [`ffi::UserData`] and [`trampoline!`] | a registration that late calls and panics can't hurt |
//!
//! Whether a plain name blocks or is awaited depends on who holds the type. Threads hold a [`Sender`], a
//! [`BlockingFuture`], a [`ThreadRunner`]: their methods block. Async code holds a [`FrameStream`], a pool,
//! a [`Listener`]: their methods are awaited. The other form is called `*_blocking` or `*_async`. A
//! [`Bridge`] is held by both: threads call by it, and its `close` is awaited.
//!
//! # Backpressure
//!
//! A channel is bounded; what a full one does is its [`Overflow`] policy. A bridge bounds the calls
//! in flight. A listener whose channel is full stops reading, so TCP holds the peer back.
//!
//! # Blocking and deadlocks
//!
//! Every method that can block has a *Blocking* section. Where it waits, `timeout` is a `Duration`, or
//! `None` to wait for ever; zero answers at once.
//!
//! On a thread that drives an event loop, blocking could wait for the very work that it keeps from
//! running. There the crate returns a `WouldDeadlock` error instead of blocking or panicking. Workers of
//! both flavours, roots of `block_on` and `LocalSet` tasks are refused; `spawn_blocking`,
//! `block_in_place`, `Runtime::enter` and plain threads may block.
//!
//! # Errors
//!
//! An error's `Display` says its own part, its [`source`](std::error::Error::source) the reason behind it: print
//! both. Most enums are `non_exhaustive`, so a `match` needs a last arm `_`.
//!
//! # Shutdown
//!
//! A runtime that goes away, a closed bridge, a dropped stream and a stopped listener release every
//! thread that waits for them, with an error that says which it was. `close` finishes what there is, up
//! to its timeout, and names what did not stop.
//!
//! `Drop` only signals, with three exceptions: a [`ThreadRunner`] waits for at most about 1.5 s, a
//! context's guard and a `WrapIter` for 1 s, and none of them on a thread that drives an event loop.
//!
//! A submitted call is a tokio task. On a loop that nobody drives, `close` releases whoever waits for it,
//! and its future is dropped with the runtime.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `net` (on by default) | the sources and servers for sockets; without it a [`Listener`] runs over a source of your own, a reader or a closure |
//! | `runner` (on by default) | [`ThreadRunner`], which owns a runtime: tokio's multi-thread scheduler |
//! | `tracing` | submitted work runs in the caller's span; errors that nobody reads become events |
//! | `metrics` | `metrics::export`: depth, losses, latencies, outcomes of everything that has a name, for the `metrics` facade |
//! | `ffi` | callbacks from C libraries: [`ffi::UserData`] and [`trampoline!`], and all of the `unsafe` |
//! | `testing` | threads and sources that do what a test tells them |
//!
//! # Examples
//!
//! ```
//! use callbridge::Bridge;
//! use std::time::Duration;
//!
//! let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
//! let bridge = Bridge::new(runtime.handle().clone());
//! let (sender, mut frames) = callbridge::channel(16);
//!
//! // A foreign thread: hands frames over, and asks async code a question.
//! let thread = std::thread::spawn(move || {
//!     for n in 1..=3 {
//!         sender.send(n).unwrap();
//!     }
//!     drop(sender);
//!     let sum = async {
//!         let mut sum = 0;
//!         while let Some(frame) = frames.recv().await {
//!             sum += frame;
//!         }
//!         sum
//!     };
//!     bridge.call(sum, Duration::from_secs(5))
//! });
//! assert_eq!(thread.join().unwrap().unwrap(), 6);
//! # Ok::<(), std::io::Error>(())
//! ```
#![doc = ""]
#![cfg_attr(feature = "runner", doc = "[`ThreadRunner`]: crate::ThreadRunner")]
#![cfg_attr(not(feature = "runner"), doc = "[`ThreadRunner`]: #features")]
#![cfg_attr(feature = "ffi", doc = "[`ffi::UserData`]: crate::ffi::UserData")]
#![cfg_attr(feature = "ffi", doc = "[`trampoline!`]: crate::trampoline")]
#![cfg_attr(not(feature = "ffi"), doc = "[`ffi::UserData`]: #features")]
#![cfg_attr(not(feature = "ffi"), doc = "[`trampoline!`]: #features")]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    callbridge_shuttle,
    allow(
        clippy::large_enum_variant,
        clippy::result_large_err,
        reason = "the model's locks are large"
    )
)]

pub mod bridge;
pub mod channel;
pub mod executor;
#[cfg(feature = "ffi")]
pub mod ffi;
pub mod future;
/// Guides, with programs that are run as tests. The cookbook is `docs/COOKBOOK.md` in the repository.
#[cfg(any(doc, doctest))]
pub mod guide {
    pub mod from_block_on {
        #![doc = include_str!("../docs/FROM_BLOCK_ON.md")]
    }
    #[cfg(feature = "runner")]
    pub mod from_asyncio {
        #![doc = include_str!("../docs/FROM_ASYNCIO.md")]
    }
    #[cfg(feature = "ffi")]
    pub mod wrapping {
        #![doc = include_str!("../docs/WRAPPING.md")]
    }
}
#[cfg_attr(
    not(feature = "net"),
    allow(dead_code, reason = "the crate's sources are what uses all of it")
)]
pub mod listener;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "runner")]
pub mod runner;
#[cfg(all(test, callbridge_shuttle))]
mod shuttle_tests;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;

// The front doors; everything else is in its module.
#[doc(inline)]
pub use bridge::{Bridge, run_coroutine_threadsafe};
#[doc(inline)]
pub use channel::{FrameStream, Overflow, Sender, channel};
#[doc(inline)]
pub use executor::{DedicatedThread, ThreadPool, run_in_executor, to_thread};
#[doc(inline)]
pub use future::{BlockingFuture, ResultError, as_completed, wait};
#[doc(inline)]
pub use listener::{FrameSource, Listener};
#[cfg(feature = "runner")]
#[doc(inline)]
pub use runner::ThreadRunner;
#[doc(inline)]
pub use sync::{SettingError, WaitError};

/// The programs of the README are run as doctests; one waits for a descriptor.
#[cfg(all(doctest, unix))]
#[doc = include_str!("../README.md")]
struct Readme;
