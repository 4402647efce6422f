//! Blocking work for async programs: [`to_thread`], [`ThreadPool`], [`DedicatedThread`].
//!
//! A blocking call on an event loop stops everything else on it. Here it runs on a thread, while a
//! task awaits its result:
//!
//! | the work | where it runs |
//! |---|---|
//! | a call now and then | [`to_thread`]: a pool for the whole process |
//! | calls of one kind, bounded, ended with the program | a [`ThreadPool`] of one's own and [`run_in_executor`] |
//! | a library that must be used on one thread | a [`DedicatedThread`] that owns its value |
//!
//! A [`CapacityLimiter`] bounds calls across pools. A call whose caller has gone away learns of it
//! through its [`CancelToken`]: poll it, wait on it, or register a callback.
//!
//! Results and panics come back as values; see [`ResultError`](crate::ResultError).

// First, since the docs show what a type can do in the order of the modules.
mod dedicated;
mod pool;

mod builder;
mod call;
mod close;
mod core;
mod cycle;
mod job;
mod limiter;
mod map;
#[cfg(feature = "metrics")]
mod observed;
mod scope;
mod shared;
mod threads;
mod token;
mod worker;
mod workers;

#[cfg(all(test, callbridge_loom))]
mod loom_tests;

pub use builder::{Dedicated, DedicatedThreadBuilder, ExecutorBuilder, Pooled, ThreadPoolBuilder};
pub use call::ThreadCall;
pub use dedicated::DedicatedThread;
pub use limiter::{CapacityLimiter, LimiterStats, Permit};
pub use pool::{PoolStats, ThreadPool};
pub use scope::PoolScope;
pub use token::{CancelHook, CancelToken};

use std::panic::Location;

/// Runs a blocking call on a thread of a process-wide pool; await the [`ThreadCall`] for its
/// result.
///
/// The pool is [`ThreadPool::shared`], up to 64 threads of the crate's own, named
/// "callbridge-0" and so on. They hold up neither the drop of a runtime nor the exit of the process.
/// The call is queued at once, so it runs while the task does something else; it may be made
/// anywhere, also without an event loop. Inside, the caller's event loop is current. A thread that waits uses
/// [`ThreadPool::submit`] of the same pool.
///
/// A test that pauses tokio's clock must hold it meanwhile, as
/// [`BlockingFuture`](crate::BlockingFuture#paused-clocks) shows.
///
/// Python: `asyncio.to_thread`.
///
/// # Cancel safety
///
/// Dropping the [`ThreadCall`] abandons the call: one that hasn't begun never runs. The drop of what it
/// captures, which may block, is then the dropping thread's.
///
/// # Errors
///
/// [`Panicked`](crate::ResultError::Panicked) when the call panicked,
/// [`Refused`](crate::ResultError::Refused) when no thread could be started or the pool was closed.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let text = callbridge::to_thread(|| std::fs::read_to_string("Cargo.toml")).await.unwrap();
/// assert!(text.unwrap().contains("callbridge"));
/// # }
/// ```
#[track_caller]
pub fn to_thread<F, T>(job: F) -> ThreadCall<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    ThreadPool::shared().call(job, Location::caller())
}

/// Runs a blocking call on a thread of `pool`; await the [`ThreadCall`] for its result.
///
/// As [`to_thread`], on a pool of your own. The call is queued at once, and doesn't count against
/// the pool's capacity, since its caller waits for it. For a job that runs whether or not anybody
/// waits, as in Python, there is [`ThreadPool::submit`].
///
/// Python: `loop.run_in_executor(pool, f)`.
///
/// # Cancel safety
///
/// As [`to_thread`].
///
/// # Errors
///
/// As [`to_thread`], and [`Refused`](crate::ResultError::Refused) when the pool is broken.
///
/// # Examples
///
/// ```
/// use callbridge::{ThreadPool, run_in_executor};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let pool = ThreadPool::builder().max_workers(4).name("disk").build().unwrap();
/// let name = run_in_executor(&pool, || std::thread::current().name().map(str::to_owned));
/// assert_eq!(name.await.unwrap().unwrap(), "disk-0");
/// # }
/// ```
#[track_caller]
pub fn run_in_executor<F, T>(pool: &ThreadPool, job: F) -> ThreadCall<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    pool.call(job, Location::caller())
}
