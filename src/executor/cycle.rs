//! A thread that waits for async work which itself awaits that very thread.
//!
//! Only what can be seen directly is told: the work that the thread waits for was polled, and polled the
//! thread's job inside that poll. Tasks in between hide it.
//!
//! Invariants:
//! 1. A job is in `awaited` only while it isn't over: who enters it looks under the lock whether it is,
//!    and it is taken out after it was marked as over.
//! 2. The thread notes what it waits for, and whoever enters a job looks at that, both under the lock: one
//!    of the two sees the cycle.

use crate::sync::prim::{Mutex, lock};
use crate::sync::wake;
use std::collections::HashMap;
use std::task::Waker;

pub(super) struct Cycle {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The work that the thread waits for.
    waits_for: Option<(usize, Waker)>,
    /// Jobs of the thread, each with the work that polled for its result last.
    awaited: HashMap<usize, usize>,
}

impl Cycle {
    pub(super) fn new() -> Self {
        Cycle { state: Mutex::new(State::default()) }
    }

    /// The job is awaited inside the work, or not any more.
    pub(super) fn awaited_in(&self, job: usize, work: Option<usize>, is_over: impl Fn() -> bool) {
        let closed = {
            let mut state = lock(&self.state);
            match work {
                Some(work) if !is_over() => {
                    state.awaited.insert(job, work);
                    state.waits_for.take_if(|(waits_for, _)| *waits_for == work)
                }
                _ => {
                    state.awaited.remove(&job);
                    None
                }
            }
        };
        if let Some((_, waker)) = closed {
            wake(waker);
        }
    }

    /// The thread waits for the work: whether that awaits the thread. If it comes to that, the waker is
    /// woken.
    pub(super) fn wait_for(&self, work: usize, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = lock(&self.state);
        let closed = state.awaited.values().any(|awaits| *awaits == work);
        let before = state.waits_for.replace((work, waker));
        drop(state);
        drop(before);
        closed
    }

    /// The thread waits no more.
    pub(super) fn go_on(&self) {
        let before = lock(&self.state).waits_for.take();
        drop(before);
    }
}
