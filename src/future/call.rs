//! The state that the two ends of a call share: who owes the result, and who waits for it.
//!
//! Invariants:
//! 1. `outcome` goes from `Owed` to `Ready` once, by the [`Promise`], which resolves on every path,
//!    its own drop included; from `Ready` to `Taken` once, by the waiting side.
//! 2. Whoever moves it to `Ready` takes the waiter's waker in the same critical section, and a
//!    waiter stores its waker only while it sees `Owed` in the same critical section: a wake can't
//!    fall between the two.
//! 3. Wakers are cloned and woken, callbacks run and values dropped while the lock is free.
//! 4. Callbacks run one after the other, in order of registration: whoever resolves takes them until
//!    there are none, and only then is a late one run by whoever registers it.
//! 5. `cancel` is raised before `place` is read, and the working side looks at it after it has stored
//!    its place, both under the lock: a cancel is seen by one of the two.
//! 6. `done` is only a hint for a waiter that spins; the outcome is behind the lock.
//!
//! One waiter is enough: every wait needs `&mut` to the one [`BlockingFuture`].
//!
//! [`BlockingFuture`]: super::BlockingFuture

use super::error::{FutureState, ResultError};
use super::origin::Origin;
use crate::sync::prim::atomic::{AtomicBool, Ordering};
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Monitor, Site, Work, contain, report_panic, running_for, wake};
use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;

pub(super) enum Outcome<T> {
    Owed,
    Ready(Result<T, ResultError>),
    Taken(FutureState),
}

/// What runs at the end of a call.
pub(super) type Callback = Box<dyn FnOnce(FutureState) + Send>;

/// What becomes of a value that nobody will read.
pub(super) type Unread<T> = Box<dyn FnOnce(T) + Send>;

pub(super) struct Inner<T> {
    pub(super) outcome: Outcome<T>,
    /// Wakes the one waiter: a parked thread, an awaiting task, or an `as_completed`.
    pub(super) waiter: Option<Waker>,
    /// What runs at the end, in order of registration; boxed because few calls have any.
    #[allow(clippy::box_collection)]
    callbacks: Option<Box<Vec<Callback>>>,
    /// Who gets a value that nobody will read.
    pub(super) unread: Option<Unread<T>>,
    /// Where suspended work is found by its origin.
    place: Option<u32>,
    /// The waiting side is gone: nobody will read the outcome.
    detached: bool,
    /// Whoever resolved is running the callbacks.
    calling: bool,
}

pub(super) struct Shared<T> {
    pub(super) inner: Mutex<Inner<T>>,
    /// Where the work is done; `None` for a call that was refused, or that nobody can be asked about.
    pub(super) origin: Option<Arc<dyn Origin>>,
    /// The origin's turns at the submission, modulo 2³².
    submitted_at: Option<u32>,
    /// Somebody asked for a cancel.
    cancel: AtomicBool,
    /// The work was polled, or begun, at least once.
    started: AtomicBool,
    /// The outcome is there.
    done: AtomicBool,
    /// The outcome was taken: the waiting side has nothing to leave behind.
    pub(super) taken: AtomicBool,
    /// The drop of the waiting side asks for a cancel.
    pub(super) cancel_on_drop: AtomicBool,
}

impl<T> Shared<T> {
    fn new(outcome: Outcome<T>, origin: Option<Arc<dyn Origin>>) -> Arc<Self> {
        let submitted_at = origin.as_ref().and_then(|origin| origin.turns());
        Arc::new(Shared {
            inner: Mutex::new(Inner {
                outcome,
                waiter: None,
                callbacks: None,
                unread: None,
                place: None,
                detached: false,
                calling: false,
            }),
            origin,
            submitted_at,
            cancel: AtomicBool::new(false),
            started: AtomicBool::new(false),
            done: AtomicBool::new(false),
            taken: AtomicBool::new(false),
            cancel_on_drop: AtomicBool::new(false),
        })
    }

    /// Pairs with the store in [`resolve`], see invariant 6.
    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    pub(super) fn state(&self) -> FutureState {
        self.state_of(&lock(&self.inner).outcome)
    }

    pub(super) fn state_of(&self, outcome: &Outcome<T>) -> FutureState {
        match outcome {
            Outcome::Ready(Ok(_)) => FutureState::Finished,
            Outcome::Ready(Err(failure)) => failure.state(),
            Outcome::Taken(state) => *state,
            Outcome::Owed if self.started.load(Ordering::Relaxed) => FutureState::Running,
            Outcome::Owed => match self.origin.as_ref().and_then(|origin| origin.turns()) {
                Some(turns) if Some(turns) == self.submitted_at => FutureState::NotStarted,
                _ => FutureState::Queued,
            },
        }
    }

    /// By what reports, and those who look for deadlocks, know the call.
    pub(super) fn id(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(super) fn work(&self, site: Site) -> Work {
        let owner = self.origin.as_deref().map_or(0, |origin| std::ptr::from_ref(origin).addr());
        Work { owner, id: self.id(), site }
    }

    /// Whether a thread is inside the work.
    pub(super) fn is_inside(&self) -> bool {
        let Work { owner, id, .. } = self.work(Location::caller());
        running_for(owner).iter().any(|(work, _)| work.id == id)
    }

    pub(super) fn given_up(&self) -> Option<&Monitor<bool>> {
        self.origin.as_ref()?.given_up()
    }

    pub(super) fn is_forked(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.is_forked())
    }

    /// Runs the callback at the end, or at once if that has come.
    pub(super) fn add_done_callback(&self, callback: Callback) {
        let state = {
            let mut inner = lock(&self.inner);
            if matches!(inner.outcome, Outcome::Owed) || inner.calling {
                inner.callbacks.get_or_insert_default().push(callback);
                return;
            }
            self.state_of(&inner.outcome)
        };
        contain("a done callback", || callback(state));
    }

    /// Asks for a cancel; whether this was the first to ask in time.
    pub(super) fn cancel(&self) -> bool {
        let place = {
            let inner = lock(&self.inner);
            // (5): before `place` is read; pairs with the loads in `suspend` and `cancel_requested`.
            if !matches!(inner.outcome, Outcome::Owed) || self.cancel.swap(true, Ordering::AcqRel) {
                return false;
            }
            inner.place
        };
        if let (Some(place), Some(origin)) = (place, &self.origin) {
            origin.cancel(place);
        }
        true
    }

    /// The waiting side leaves; an outcome that nobody will read is reported and dropped.
    pub(super) fn detach(&self) {
        if self.taken.load(Ordering::Relaxed) {
            return;
        }
        if self.cancel_on_drop.load(Ordering::Relaxed) {
            self.cancel();
        }
        let (outcome, waiter, unread) = {
            let mut inner = lock(&self.inner);
            inner.detached = true;
            let state = self.state_of(&inner.outcome);
            let (outcome, unread) = match inner.outcome {
                Outcome::Owed => (None, None),
                _ => {
                    let outcome = std::mem::replace(&mut inner.outcome, Outcome::Taken(state));
                    (Some(outcome), inner.unread.take())
                }
            };
            (outcome, inner.waiter.take(), unread)
        };
        drop(waiter);
        match outcome {
            Some(Outcome::Ready(outcome)) => drop_unread(outcome, unread),
            Some(_) => {}
            None => self.origin.iter().for_each(|origin| origin.awaited_in(None)),
        }
    }
}

/// A request to cancel, whatever the type of the value.
pub(crate) trait Cancel: Send + Sync {
    /// Asks; whether this was the first to ask in time.
    fn cancel(&self) -> bool;
}

impl<T: Send> Cancel for Shared<T> {
    fn cancel(&self) -> bool {
        self.cancel()
    }
}

/// A new call that `origin` works on: the end that owes the result, and the waiting end.
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
pub(crate) fn resolved<T>(failure: ResultError) -> super::BlockingFuture<T> {
    let shared = Shared::new(Outcome::Ready(Err(failure)), None);
    // (6): pairs with the load in `is_done`.
    shared.done.store(true, Ordering::Release);
    super::BlockingFuture::new(shared)
}

/// The end that owes the result. Dropping it resolves the call: as cancelled if somebody asked for
/// that or nobody else works on it, else as ended by its loop.
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

    /// The work, for reports of what is running.
    pub(crate) fn work(&self, site: Site) -> Work {
        self.shared().work(site)
    }

    /// Notes where suspended work is found, and tells whether a cancel was asked for.
    pub(crate) fn suspend(&self, place: u32) -> bool {
        let shared = self.shared();
        lock(&shared.inner).place = Some(place);
        // (5): after `place` is stored; pairs with the swap in `Shared::cancel`.
        shared.cancel.load(Ordering::Acquire)
    }

    /// Notes that the work has begun.
    pub(crate) fn start(&self) {
        self.shared().started.store(true, Ordering::Relaxed);
    }

    /// Pairs with the `cancel` of [`Shared::cancel`], see invariant 5.
    pub(crate) fn cancel_requested(&self) -> bool {
        self.shared().cancel.load(Ordering::Acquire)
    }

    /// Hands over the outcome and wakes whoever waits for it.
    pub(crate) fn resolve(mut self, outcome: Result<T, ResultError>) {
        if let Some(shared) = self.shared.take() {
            resolve(&shared, outcome);
        }
    }

    /// Hands over the outcome and wakes whoever waits for it; the callbacks, and the drop of what
    /// nobody reads, are left to the caller, who may first make others go on.
    pub(crate) fn publish(mut self, outcome: Result<T, ResultError>) -> Option<Delivery<T>> {
        let shared = self.shared.take()?;
        let rest = publish(&shared, outcome)?;
        Some(Delivery { shared, rest })
    }
}

/// What is left to do for a result that can be read already.
pub(crate) struct Delivery<T> {
    shared: Arc<Shared<T>>,
    rest: Rest<T>,
}

impl<T> Delivery<T> {
    pub(crate) fn run(self) {
        self.rest.run(&self.shared);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            // (5): pairs with the swap in `Shared::cancel`.
            let cancelled = shared.cancel.load(Ordering::Acquire) || shared.origin.is_none();
            let failure = if cancelled { ResultError::Cancelled } else { ResultError::LoopClosed };
            resolve(&shared, Err(failure));
        }
    }
}

fn resolve<T>(shared: &Shared<T>, outcome: Result<T, ResultError>) {
    if let Some(rest) = publish(shared, outcome) {
        rest.run(shared);
    }
    if let Some(origin) = &shared.origin {
        origin.settled();
    }
}

fn publish<T>(shared: &Shared<T>, outcome: Result<T, ResultError>) -> Option<Rest<T>> {
    let state = match &outcome {
        Ok(_) => FutureState::Finished,
        Err(failure) => failure.state(),
    };
    let (rest, waiter) = {
        let mut inner = lock(&shared.inner);
        let unread = if inner.detached {
            inner.outcome = Outcome::Taken(state);
            Some((outcome, inner.unread.take()))
        } else {
            inner.outcome = Outcome::Ready(outcome);
            None
        };
        let callbacks = inner.callbacks.take();
        inner.calling = callbacks.is_some();
        (Rest { state, callbacks, unread }, inner.waiter.take())
    };
    // (6): pairs with the load in `is_done`.
    shared.done.store(true, Ordering::Release);
    if let Some(waiter) = waiter {
        wake(waiter);
    }
    (rest.callbacks.is_some() || rest.unread.is_some()).then_some(rest)
}

/// An outcome that nobody will read, and who gets a value.
type Unclaimed<T> = (Result<T, ResultError>, Option<Unread<T>>);

/// The callbacks of a call that has ended, and its outcome if nobody will read it.
struct Rest<T> {
    state: FutureState,
    #[allow(clippy::box_collection)]
    callbacks: Option<Box<Vec<Callback>>>,
    unread: Option<Unclaimed<T>>,
}

impl<T> Rest<T> {
    fn run(self, shared: &Shared<T>) {
        let mut callbacks = self.callbacks;
        // With those that are registered meanwhile.
        while let Some(some) = callbacks {
            for callback in *some {
                contain("a done callback", || callback(self.state));
            }
            let mut inner = lock(&shared.inner);
            callbacks = inner.callbacks.take();
            inner.calling = callbacks.is_some();
        }
        if let Some((outcome, unread)) = self.unread {
            drop_unread(outcome, unread);
        }
    }
}

/// Hands a value that nobody will read to who wants it, reports such a panic, and contains that of a
/// destructor.
fn drop_unread<T>(outcome: Result<T, ResultError>, unread: Option<Unread<T>>) {
    match (outcome, unread) {
        (Ok(value), Some(unread)) => {
            contain("what becomes of a value that nobody read", || unread(value));
        }
        (outcome, _) => {
            if let Err(ResultError::Panicked(panic)) = &outcome {
                report_panic("a call whose result nobody read", panic.message());
            }
            contain("the drop of a value that nobody read", || drop(outcome));
        }
    }
}
