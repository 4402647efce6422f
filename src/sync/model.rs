//! A clock and an event loop for shuttle, which has neither.
//!
//! Time stands still until a deadline passes, which it does at any moment at which somebody waits
//! for it: every outcome of a race between a deadline and what it limits is a schedule.
//!
//! The loop's tasks are shuttle's, so that any number of them run at once. Dropping the loop ends
//! them as the drop of a runtime does. There is one loop in each execution, whatever the handle.

use shuttle::sync::MutexGuard;
use shuttle::thread;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LockResult, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

std::thread_local! {
    /// One clock for all of an execution's threads, which share one of the system's. It isn't set
    /// to zero, so that `Duration::MAX` from now is too far to express.
    static NOW: Cell<Duration> = const { Cell::new(Duration::from_secs(1)) };
}

/// A point on the model's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Instant(NOW.get())
    }

    pub(crate) fn checked_add(self, time: Duration) -> Option<Self> {
        self.0.checked_add(time).map(Instant)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// shuttle's, with waits that end when their time is up.
#[derive(Default)]
pub(crate) struct Condvar(Arc<shuttle::sync::Condvar>);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.0.wait(guard)
    }

    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let over = Arc::new(AtomicBool::new(false));
        let (sleep, waited) = (Arc::clone(&self.0), Arc::clone(&over));
        let up = NOW.get() + time;
        drop(thread::spawn(move || {
            // The sleeper may not have lain down yet; others take it for a spurious wake-up.
            while !waited.load(Ordering::Relaxed) {
                NOW.set(NOW.get().max(up));
                sleep.notify_all();
                thread::yield_now();
            }
        }));
        let guard = self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        over.store(true, Ordering::Relaxed);
        Ok((guard, ()))
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }
}

shuttle::thread_local! {
    static ON_WORKER: Cell<bool> = Cell::new(false);
}

shuttle::lazy_static! {
    static ref LOOP: Loop = Loop::default();
}

#[derive(Default)]
struct Loop {
    state: shuttle::sync::Mutex<State>,
    ended: shuttle::sync::Condvar,
}

#[derive(Default)]
struct State {
    gone: bool,
    /// The tasks that haven't ended.
    tasks: usize,
    /// How to make them see that the loop is gone.
    wakers: Vec<Waker>,
}

impl Loop {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn spawn(
    _: &Handle,
    _name: &str,
    task: impl Future<Output = ()> + Send + 'static,
) -> Option<JoinHandle<()>> {
    {
        let mut state = LOOP.state();
        if state.gone {
            drop(state);
            drop(task);
            return None;
        }
        state.tasks += 1;
    }
    drop(shuttle::future::spawn(Task { task: Some(Box::pin(task)), known: false }));
    None
}

pub(crate) struct Entered;

pub(crate) fn enter(_: &Handle) -> Option<Entered> {
    None
}

pub(crate) fn on_worker() -> bool {
    ON_WORKER.with(Cell::get)
}

/// Ends the loop: its tasks are dropped when they come out of their polls, and waited for.
#[cfg(test)]
pub(crate) fn drop_loop() {
    let wakers = {
        let mut state = LOOP.state();
        state.gone = true;
        std::mem::take(&mut state.wakers)
    };
    wakers.into_iter().for_each(Waker::wake);
    wait_for_tasks();
}

/// Waits until all of the loop's tasks have ended.
#[cfg(test)]
pub(crate) fn wait_for_tasks() {
    let mut state = LOOP.state();
    while state.tasks > 0 {
        state = LOOP.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
}

struct Task {
    task: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whether the loop has its waker.
    known: bool,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        ON_WORKER.with(|on_worker| on_worker.set(true));
        let gone = {
            let mut state = LOOP.state();
            if !std::mem::replace(&mut self.known, true) {
                state.wakers.push(cx.waker().clone());
            }
            state.gone
        };
        let Some(task) = &mut self.task else { return Poll::Ready(()) };
        if !gone && task.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.task = None;
        LOOP.state().tasks -= 1;
        LOOP.ended.notify_all();
        Poll::Ready(())
    }
}
