//! A private deadline parker: how a foreign thread sleeps until a waker or a deadline wakes it.
//!
//! It never touches `std::thread::park`, whose token belongs to whoever owns the thread.
//!
//! Invariants:
//! 1. A wake stores `Notified` before it signals, both under or after the same lock, so a wake
//!    between the caller's last check and `park` makes that `park` return at once.
//! 2. `park` consumes at most one token and returns spuriously never more often than it is woken;
//!    callers re-check their condition in a loop all the same, since a cached parker can hold the
//!    late wake of an earlier wait.
//! 3. The condvar is signalled only when the owner is asleep: a wake of a busy thread costs no
//!    system call.

use super::Deadline;
use super::prim::{Condvar, Mutex, lock};
use std::sync::Arc;
use std::task::{Wake, Waker};

enum Token {
    Empty,
    Parked,
    Notified,
}

struct Shared {
    /// Whether a wake has arrived, or the owner is asleep.
    token: Mutex<Token>,
    /// Where the owner sleeps.
    sleep: Condvar,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let before = std::mem::replace(&mut *lock(&self.token), Token::Notified);
        if let Token::Parked = before {
            self.sleep.notify_one();
        }
    }
}

/// Why `park` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Notified,
    TimedOut,
}

/// One sleeping place with its waker.
pub(crate) struct Parker {
    shared: Arc<Shared>,
    waker: Waker,
}

impl Parker {
    pub(crate) fn new() -> Self {
        let shared = Arc::new(Shared { token: Mutex::new(Token::Empty), sleep: Condvar::new() });
        let waker = Waker::from(Arc::clone(&shared));
        Parker { shared, waker }
    }

    /// The waker that ends a `park` of this parker.
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Sleeps until woken or until the deadline; a wake that came before counts.
    pub(crate) fn park(&self, deadline: Deadline) -> Woken {
        let mut token = lock(&self.shared.token);
        loop {
            if let Token::Notified = std::mem::replace(&mut *token, Token::Empty) {
                return Woken::Notified;
            }
            *token = Token::Parked;
            token = match deadline.remaining() {
                None => {
                    self.shared.sleep.wait(token).unwrap_or_else(std::sync::PoisonError::into_inner)
                }
                Some(left) if left.is_zero() => {
                    *token = Token::Empty;
                    return Woken::TimedOut;
                }
                Some(left) => {
                    self.shared
                        .sleep
                        .wait_timeout(token, left)
                        .unwrap_or_else(std::sync::PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

/// Runs `body` with the calling thread's cached parker, so that waiting allocates nothing.
///
/// A wait inside a wait (a callback that waits on another future) and a thread that is shutting
/// down get a parker of their own.
#[cfg(not(any(callbridge_loom, callbridge_shuttle)))]
pub(super) fn with_cached_parker<R>(body: impl FnOnce(&Parker) -> R) -> R {
    use std::cell::Cell;

    std::thread_local! {
        static CACHED: Cell<Option<Parker>> = const { Cell::new(None) };
    }

    let parker = CACHED.try_with(Cell::take).ok().flatten().unwrap_or_else(Parker::new);
    let result = body(&parker);
    let _ = CACHED.try_with(|cached| cached.set(Some(parker)));
    result
}

#[cfg(any(callbridge_loom, callbridge_shuttle))]
pub(super) fn with_cached_parker<R>(body: impl FnOnce(&Parker) -> R) -> R {
    body(&Parker::new())
}
