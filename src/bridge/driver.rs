use super::core::{Core, Site};
use super::run_queue::{From, Next, Place};
use async_task::Runnable;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::task::coop::has_budget_remaining;

/// How many polls of work a driver does before it lets other tasks of the loop have a turn.
const POLLS_PER_TURN: usize = 32;

/// A task on the loop that polls ready work.
///
/// It ends by itself only when there is no more to do; dropped before that, it knows that its loop
/// is gone.
pub(super) struct Driver {
    core: Arc<Core>,
    /// Who asked for it.
    from: From,
    /// Its place in the queue, from its first poll on.
    place: Option<Place<Runnable<Site>, Site>>,
    /// When it found nothing to do, while it lingers.
    idle_since: Option<Instant>,
    left: bool,
}

impl Driver {
    pub(super) fn new(core: Arc<Core>, from: From) -> Self {
        Driver { core, from, place: None, idle_since: None, left: false }
    }

    fn leave(&mut self) -> Poll<()> {
        self.left = true;
        Poll::Ready(())
    }
}

/// Whether to look again instead of going to sleep.
fn lingers(linger: Duration, idle_since: &mut Option<Instant>) -> bool {
    linger > Duration::ZERO && idle_since.get_or_insert_with(Instant::now).elapsed() < linger
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.core.note_turn();
        let Some(mut place) = this.place.take().or_else(|| this.core.queue.enter(this.from)) else {
            return this.leave();
        };
        let mut polls = 0;
        let step = loop {
            let (core, idle_since) = (&this.core, &mut this.idle_since);
            let linger = || lingers(core.linger, idle_since);
            let site_of = |work: &Runnable<Site>| *work.metadata();
            let in_flight = || core.ledger.in_flight();
            match core.queue.next(&mut place, cx.waker(), linger, site_of, in_flight) {
                Next::Poll(work, help) => {
                    core.help(help);
                    work.run();
                    this.idle_since = None;
                    polls += 1;
                    if polls == POLLS_PER_TURN || !has_budget_remaining() {
                        core.queue.yields(&mut place);
                        break Next::Linger;
                    }
                }
                step => break step,
            }
        };
        match step {
            Next::Leave => return this.leave(),
            Next::Linger => cx.waker().wake_by_ref(),
            _ => {}
        }
        this.place = Some(place);
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
