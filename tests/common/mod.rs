//! Loops to test on, and waits for what other threads do.
#![allow(dead_code, unreachable_pub)]

#[cfg(unix)]
pub mod fork;
pub mod tasks;

use callbridge::ResultError;
use callbridge::future::Refusal;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{RawWaker, RawWakerVTable, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

/// A deadline for waits that a bug would make endless.
pub const LONG: Duration = Duration::from_secs(60);

/// A wait that is meant to time out.
pub const SHORT: Duration = Duration::from_millis(10);

/// A stack that no address space has room for, be it of 32 bits.
pub const HUGE_STACK: usize = usize::MAX / 8 * 7;

/// Why an executor refused its work, if it did.
pub fn refusal(error: &ResultError) -> Option<&Refusal> {
    match error {
        ResultError::Refused(why) => Some(why),
        _ => None,
    }
}

/// How often, of a default of `rounds`: as many times that as `CALLBRIDGE_ROUNDS` says.
pub fn rounds(rounds: usize) -> usize {
    let times = |times: String| times.parse::<usize>().expect("CALLBRIDGE_ROUNDS is a number");
    rounds * std::env::var("CALLBRIDGE_ROUNDS").map_or(1, times)
}

/// Runs the body with each item, all at once: for what spends its time waiting.
pub fn in_parallel<T: Send>(items: impl IntoIterator<Item = T>, body: impl Fn(T) + Sync) {
    let body = &body;
    std::thread::scope(|scope| {
        items.into_iter().for_each(|item| drop(scope.spawn(move || body(item))));
    });
}

/// What an error says, and what its sources say.
pub fn whole(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Waits for what another thread is about to make true.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// A loop of either flavour that is driven until it is dropped.
pub enum Loop {
    Multi(Option<Runtime>),
    Current { handle: Handle, stop: Option<oneshot::Sender<()>>, thread: Option<JoinHandle<()>> },
}

impl Loop {
    pub fn multi(workers: usize) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(workers).enable_all().build();
        Loop::Multi(Some(runtime.unwrap()))
    }

    pub fn current() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let _ = runtime.block_on(stopped);
        });
        Loop::Current { handle, stop: Some(stop), thread: Some(thread) }
    }

    pub fn both() -> [Self; 2] {
        [Loop::current(), Loop::multi(2)]
    }

    pub fn handle(&self) -> Handle {
        match self {
            Loop::Multi(runtime) => runtime.as_ref().unwrap().handle().clone(),
            Loop::Current { handle, .. } => handle.clone(),
        }
    }

    pub fn bridge(&self) -> callbridge::Bridge {
        callbridge::Bridge::new(self.handle())
    }

    /// Blocks one of the loop's threads, from before this returns until the sender speaks or goes.
    pub fn hold(&self) -> mpsc::Sender<()> {
        let (entered, begun) = mpsc::channel();
        let (release, blocked) = mpsc::channel();
        self.handle().spawn(async move {
            entered.send(()).unwrap();
            let _ = blocked.recv_timeout(LONG);
        });
        begun.recv_timeout(LONG).unwrap();
        release
    }

    /// Ends the loop without waiting for what blocks it.
    pub fn abandon(mut self) {
        match &mut self {
            Loop::Multi(runtime) => runtime.take().unwrap().shutdown_background(),
            Loop::Current { stop, thread, .. } => {
                drop(stop.take());
                drop(thread.take());
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Loop::Current { stop, thread, .. } = self {
            drop(stop.take());
            if let Some(thread) = thread.take() {
                thread.join().unwrap();
            }
        }
    }
}

/// Counts how many of its guards are alive.
#[derive(Clone, Default)]
pub struct Census(Arc<AtomicUsize>);

pub struct Alive(Census);

impl Census {
    pub fn guard(&self) -> Alive {
        self.0.fetch_add(1, Ordering::SeqCst);
        Alive(self.clone())
    }

    pub fn alive(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A waker whose clone runs `on_clone`, as that of an executor written by hand may.
#[allow(unsafe_code, reason = "no safe waker has a say in its own clone")]
pub fn waker_that_runs_on_clone(on_clone: impl Fn() + Send + Sync + 'static) -> Waker {
    type Hook = Box<dyn Fn() + Send + Sync>;
    static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, |_| {}, |_| {}, |_| {});
    fn clone(data: *const ()) -> RawWaker {
        // SAFETY: `data` is a leaked `Hook`.
        unsafe { (*data.cast::<Hook>())() };
        RawWaker::new(data, &VTABLE)
    }
    let hook: Hook = Box::new(on_clone);
    let hook: &'static Hook = Box::leak(Box::new(hook));
    // SAFETY: the hook lives for ever and may be used by any thread.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::from_ref(hook).cast(), &VTABLE)) }
}
