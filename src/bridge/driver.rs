use super::core::Core;
use super::run_queue::Next;
use async_task::Runnable;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::task::coop::has_budget_remaining;

/// How many polls of work a driver does before it lets other tasks of the loop have a turn.
const POLLS_PER_TURN: usize = 32;

/// A task on the loop that polls ready work.
///
/// It ends by itself only when there is no more to do; dropped before that, it knows that its loop
/// is gone.
pub(super) struct Driver {
    core: Arc<Core>,
    /// Its number in the queue's books, from its first poll on.
    number: Option<usize>,
    /// It went to the back of the loop's own queue with work left, not to sleep.
    yielded: bool,
    left: bool,
}

impl Driver {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Driver { core, number: None, yielded: false, left: false }
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let queue = &this.core.queue;
        this.core.note_turn();
        let number = match this.number {
            Some(number) => number,
            None => match queue.enter() {
                Some(number) => *this.number.insert(number),
                None => {
                    this.left = true;
                    return Poll::Ready(());
                }
            },
        };
        if !std::mem::take(&mut this.yielded) {
            queue.woke(number);
        }
        let in_flight = || this.core.ledger.stats().in_flight;
        for _ in 0..POLLS_PER_TURN {
            match queue.next(number, cx.waker(), |work: &Runnable<_>| *work.metadata(), in_flight) {
                Next::Poll(work, help) => {
                    this.core.help(help);
                    work.run();
                    if !has_budget_remaining() {
                        break;
                    }
                }
                Next::Sleep => return Poll::Pending,
                Next::Leave => {
                    this.left = true;
                    return Poll::Ready(());
                }
            }
        }
        this.yielded = true;
        queue.yields(number);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.left {
            self.core.die();
        }
    }
}
