//! Would blocking this thread stop an event loop?
//!
//! | context | probe that tells |
//! |---|---|
//! | worker of either flavour, root of a current-thread `block_on` | `worker_index` |
//! | root of a multi-thread `block_on`, of `Handle::block_on`, a `LocalSet` task there | the poll budget |
//! | a future of `Bridge::call`, a destructor of a submitted future that its loop drops | own marker |
//! | `spawn_blocking`, `Runtime::enter`, `block_in_place`, plain threads | none: blocking is allowed |
//!
//! Before tokio 1.54 there is no `worker_index`. The budget tells almost all of its row, too, and these
//! are lost, so that blocking there blocks: a task and a current-thread root that opted out of the
//! budget, a destructor of a task that isn't the crate's which a worker runs at its runtime's end, and a
//! runtime's hooks (`on_thread_park` and such).
//!
//! tokio gives every future that it drives a finite poll budget, and code that may block none.
//! Counting it down and putting it back tells the two apart without the panic that tokio's own
//! blocking calls raise. What can't be told: a future that opted out of the budget
//! (`tokio::task::coop::unconstrained`) directly inside a `block_on` root, an executor that isn't
//! tokio's, and a destructor that a current-thread runtime runs while it is being dropped.

use super::event_loop::on_worker;
use super::prim::thread_local;
use std::cell::Cell;
use std::task::{Context, Poll, Waker};
use tokio::runtime::Handle;
use tokio::task::coop::poll_proceed;

thread_local! {
    static MARKED: Cell<usize> = const { Cell::new(0) };
}

/// Marks this thread as doing the loop's work for as long as it lives.
pub(crate) struct LoopMark(());

impl LoopMark {
    pub(crate) fn new() -> Self {
        mark(1);
        LoopMark(())
    }
}

impl Drop for LoopMark {
    fn drop(&mut self) {
        mark(-1);
    }
}

fn mark(by: isize) {
    // loom's threads share one of the system's, and its models mark none.
    if !cfg!(callbridge_loom) {
        let _ = MARKED.try_with(|marked| marked.set(marked.get().wrapping_add_signed(by)));
    }
}

/// Whether this thread is driving an event loop, so that blocking it could deadlock.
///
/// Costs some nanoseconds on a plain thread and about half a microsecond on a thread that merely
/// knows a runtime, so it is asked only right before a wait.
pub(crate) fn drives_a_loop() -> bool {
    on_worker()
        || MARKED.try_with(|marked| marked.get() > 0).unwrap_or(false)
        || (Handle::try_current().is_ok() && has_finite_budget())
}

fn has_finite_budget() -> bool {
    let mut context = Context::from_waker(Waker::noop());
    // The first permit remembers the budget as it was and puts it back when it is dropped.
    let mut restore = None;
    for _ in 0..=u8::MAX {
        match poll_proceed(&mut context) {
            Poll::Pending => return true,
            Poll::Ready(permit) if restore.is_none() => restore = Some(permit),
            Poll::Ready(permit) => permit.made_progress(),
        }
    }
    false
}
