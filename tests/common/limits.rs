//! Limits of the process, for tests in a process of their own.
#![allow(dead_code, unreachable_pub)]

pub use rustix::process::Resource;
use rustix::process::{Rlimit, getrlimit, setrlimit};

/// Sets a limit; the one before it.
pub fn limit(resource: Resource, current: Option<u64>) -> Option<u64> {
    let Rlimit { current: before, maximum } = getrlimit(resource);
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
    before
}

/// The address space may hardly grow: there is no room for a thread's stack.
pub fn without_threads<R>(body: impl FnOnce() -> R) -> R {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split_whitespace().next().unwrap().parse().unwrap();
    let before = limit(Resource::As, Some(pages * 4096 + (1 << 20)));
    let refused = std::thread::Builder::new().spawn(|| {});
    assert!(refused.is_err(), "the limit keeps threads from starting");
    let result = body();
    limit(Resource::As, before);
    result
}
