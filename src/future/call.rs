//! The state that the two ends of a call share: who owes the result, and who waits for it.
//!
//! Invariants:
//! 1. `outcome` goes from `Owed` to `Ready` once, by the [`Promise`], which resolves on every path,
//!    its own drop included; from `Ready` to `Taken` once, by the waiting side.
//! 2. Whoever moves it to `Ready` takes the waiter's waker in the same critical section, and a
//!    waiter stores its waker only while it sees `Owed` in the same critical section: a wake can't
//!    fall between the two.
//! 3. Wakers are woken, callbacks run and values dropped after the lock is released.
//! 4. `cancel` is raised before `place` is read, and the working side looks at it after it has
//!    stored its place, both under the lock: a cancel is seen by one of the two.
//! 5. `done` is only a hint for a waiter that looks before it sleeps; the outcome is behind the
//!    lock.
//!
//! One waiter is enough: every wait needs `&mut` to the one [`BlockingFuture`].
//!
//! [`BlockingFuture`]: super::BlockingFuture

use super::error::FutureState;
use super::refused::ExecutorError;
use super::start_error::StartError;
use crate::sync::prim::atomic::{AtomicBool, Ordering};
use crate::sync::prim::{Mutex, lock};
use crate::sync::{contain, discard, report, wake};
use std::any::Any;
use std::sync::Arc;
use std::task::Waker;

/// Where a call is worked on, and what the call asks of it.
pub(crate) trait Origin: Send + Sync {
    /// How often the place has turned to its work, modulo 2³².
    fn turns(&self) -> u32;

    /// Stores how to wake suspended work, and says under which number; `None` if it is to end.
    fn suspend(&self, waker: Waker) -> Option<u32> {
        drop(waker);
        None
    }

    /// Wakes suspended work, so that it looks whether a cancel was asked for.
    fn nudge(&self, _place: u32) {}

    /// Enters the end of a call in the books, before its outcome is published.
    fn enter_end(&self, _place: Option<u32>, _failure: Option<&Failure>) {}

    /// Whether a waiter may look a few microseconds longer before it sleeps.
    fn waiters_nap(&self) -> bool {
        false
    }
}

/// How a call ended without a value.
pub(crate) enum Failure {
    Cancelled,
    Panicked(Box<dyn Any + Send>),
    LoopClosed,
    #[cfg_attr(not(feature = "runner"), expect(dead_code, reason = "only a runner starts loops"))]
    StartFailed(StartError),
    WouldDeadlock,
    Refused(ExecutorError),
}

impl Failure {
    pub(crate) fn state(&self) -> FutureState {
        match self {
            Failure::Cancelled => FutureState::Cancelled,
            Failure::Panicked(_) => FutureState::Panicked,
            Failure::LoopClosed | Failure::StartFailed(_) => FutureState::LoopClosed,
            Failure::WouldDeadlock => FutureState::WouldDeadlock,
            Failure::Refused(_) => FutureState::Refused,
        }
    }
}

pub(super) enum Outcome<T> {
    Owed,
    Ready(Result<T, Failure>),
    Taken(FutureState),
}

pub(super) type Callback = Box<dyn FnOnce(FutureState) + Send>;

pub(super) struct Inner<T> {
    pub(super) outcome: Outcome<T>,
    /// Wakes the one waiter: a parked thread, an awaiting task, or an `as_completed`.
    pub(super) waiter: Option<Waker>,
    /// Where suspended work is found by its origin.
    place: Option<u32>,
    /// What runs at the end, in order of registration; boxed because few calls have any.
    #[allow(clippy::box_collection)]
    callbacks: Option<Box<Vec<Callback>>>,
    /// The waiting side is gone: nobody will read the outcome.
    detached: bool,
}

pub(super) struct Shared<T> {
    pub(super) inner: Mutex<Inner<T>>,
    /// Someone asked for a cancel.
    cancel: AtomicBool,
    /// The work was polled, or begun, at least once.
    started: AtomicBool,
    /// The outcome is there.
    pub(super) done: AtomicBool,
    /// Where the work is done; `None` for a call that was refused, or that nobody can be asked about.
    pub(super) origin: Option<Arc<dyn Origin>>,
    /// The origin's turns at the submission.
    submitted_at: u32,
}

impl<T> Shared<T> {
    fn new(outcome: Outcome<T>, origin: Option<Arc<dyn Origin>>) -> Arc<Self> {
        let submitted_at = origin.as_ref().map_or(0, |origin| origin.turns());
        Arc::new(Shared {
            inner: Mutex::new(Inner {
                outcome,
                waiter: None,
                place: None,
                callbacks: None,
                detached: false,
            }),
            cancel: AtomicBool::new(false),
            started: AtomicBool::new(false),
            done: AtomicBool::new(false),
            origin,
            submitted_at,
        })
    }

    pub(super) fn state(&self) -> FutureState {
        self.state_of(&lock(&self.inner).outcome)
    }

    pub(super) fn state_of(&self, outcome: &Outcome<T>) -> FutureState {
        match outcome {
            Outcome::Ready(Ok(_)) => FutureState::Finished,
            Outcome::Ready(Err(failure)) => failure.state(),
            Outcome::Taken(state) => *state,
            Outcome::Owed if self.started.load(Ordering::Acquire) => FutureState::Running,
            Outcome::Owed => match &self.origin {
                Some(origin) if origin.turns() == self.submitted_at => FutureState::NotStarted,
                _ => FutureState::Queued,
            },
        }
    }

    pub(super) fn add_done_callback(&self, callback: Callback) {
        let state = {
            let mut inner = lock(&self.inner);
            if let Outcome::Owed = inner.outcome {
                inner.callbacks.get_or_insert_default().push(callback);
                return;
            }
            self.state_of(&inner.outcome)
        };
        contain("a done callback", || callback(state));
    }

    /// The waiting side leaves; an outcome that nobody will read is reported and dropped.
    pub(super) fn detach(&self) {
        let (outcome, waiter) = {
            let mut inner = lock(&self.inner);
            inner.detached = true;
            let outcome = match inner.outcome {
                Outcome::Owed => None,
                _ => Some(std::mem::replace(
                    &mut inner.outcome,
                    Outcome::Taken(FutureState::Finished),
                )),
            };
            (outcome, inner.waiter.take())
        };
        drop(waiter);
        if let Some(Outcome::Ready(Err(Failure::Panicked(payload)))) = outcome {
            unread(payload);
        }
    }
}

/// A request to cancel, whatever the type of the value.
pub(super) trait Cancel: Send + Sync {
    fn cancel(&self) -> bool;
}

impl<T: Send> Cancel for Shared<T> {
    fn cancel(&self) -> bool {
        let place = {
            let inner = lock(&self.inner);
            if !matches!(inner.outcome, Outcome::Owed) || self.cancel.swap(true, Ordering::AcqRel) {
                return false;
            }
            inner.place
        };
        if let (Some(place), Some(origin)) = (place, &self.origin) {
            origin.nudge(place);
        }
        true
    }
}

/// A new call: the end that owes the result, and what the waiting end is made of.
pub(crate) fn promise<T>(origin: Arc<dyn Origin>) -> (Promise<T>, super::BlockingFuture<T>) {
    promised(Some(origin))
}

/// A new call that nobody can be asked about: it counts as queued until it begins, and a cancel
/// reaches it only if it looks.
pub(crate) fn lone_promise<T>() -> (Promise<T>, super::BlockingFuture<T>) {
    promised(None)
}

fn promised<T>(origin: Option<Arc<dyn Origin>>) -> (Promise<T>, super::BlockingFuture<T>) {
    let shared = Shared::new(Outcome::Owed, origin);
    (Promise { shared: Some(Arc::clone(&shared)) }, super::BlockingFuture::new(shared))
}

/// A call that was refused.
pub(crate) fn resolved<T>(failure: Failure) -> super::BlockingFuture<T> {
    super::BlockingFuture::new(Shared::new(Outcome::Ready(Err(failure)), None))
}

/// The end that owes the result; dropping it tells the waiter that the loop is gone.
pub(crate) struct Promise<T> {
    /// Taken when the promise is kept.
    shared: Option<Arc<Shared<T>>>,
}

impl<T> Promise<T> {
    fn shared(&self) -> &Shared<T> {
        self.shared.as_ref().expect("a promise is kept once, by value")
    }

    /// Where the call is worked on.
    pub(crate) fn origin(&self) -> &dyn Origin {
        self.shared().origin.as_deref().expect("work on a loop has an origin")
    }

    /// Notes that the work has begun.
    pub(crate) fn start(&self) {
        self.shared().started.store(true, Ordering::Release);
    }

    pub(crate) fn cancel_requested(&self) -> bool {
        self.shared().cancel.load(Ordering::Acquire)
    }

    /// Notes where the suspended work is found, and tells whether a cancel was asked for.
    pub(crate) fn suspend(&self, place: u32) -> bool {
        let shared = self.shared();
        lock(&shared.inner).place = Some(place);
        shared.cancel.load(Ordering::Acquire)
    }

    /// Hands over the outcome and wakes whoever waits for it.
    pub(crate) fn resolve(mut self, outcome: Result<T, Failure>) {
        if let Some(shared) = self.shared.take() {
            resolve(&shared, outcome);
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            let cancelled = shared.cancel.load(Ordering::Acquire);
            let failure = if cancelled { Failure::Cancelled } else { Failure::LoopClosed };
            resolve(&shared, Err(failure));
        }
    }
}

fn resolve<T>(shared: &Shared<T>, outcome: Result<T, Failure>) {
    let state = match &outcome {
        Ok(_) => FutureState::Finished,
        Err(failure) => failure.state(),
    };
    let (unread_outcome, waiter, callbacks) = {
        let mut inner = lock(&shared.inner);
        let unread_outcome = if inner.detached {
            inner.outcome = Outcome::Taken(state);
            Some(outcome)
        } else {
            inner.outcome = Outcome::Ready(outcome);
            None
        };
        (unread_outcome, inner.waiter.take(), inner.callbacks.take())
    };
    shared.done.store(true, Ordering::Release);
    if let Some(waiter) = waiter {
        wake(waiter);
    }
    for callback in callbacks.into_iter().flat_map(|callbacks| *callbacks) {
        contain("a done callback", || callback(state));
    }
    match unread_outcome {
        Some(Err(Failure::Panicked(payload))) => unread(payload),
        Some(Ok(value)) => {
            contain("the drop of a value that nobody waited for", || drop(value));
        }
        _ => {}
    }
}

/// Reports a panic that nobody will read.
fn unread(payload: Box<dyn Any + Send>) {
    report("a call whose result nobody read", payload.as_ref());
    discard(payload);
}
