use super::builder::BridgeBuilder;
use super::callbacks::{Callback, Callbacks};
use super::driver::Driver;
use super::error::LoopClosed;
use super::ledger::Ledger;
use super::run_queue::{From, Help, Remains, RunQueue};
use super::work::Work;
use crate::future::{BlockingFuture, Failure, Origin, promise};
use crate::sync::context::LoopMark;
use crate::sync::event_loop::{enter, on_worker, spawn};
use async_task::Runnable;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Waker;
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::sync::CancellationToken;

/// Where a call was submitted.
pub(super) type Site = &'static Location<'static>;

/// What all clones of a bridge, its drivers and its calls share.
pub(super) struct Core {
    pub(super) handle: Handle,
    pub(super) name: String,
    /// Who is in flight.
    pub(super) ledger: Ledger,
    /// What is ready, and who polls it.
    pub(super) queue: RunQueue<Runnable<Site>, Site>,
    /// Cancelled when the bridge begins to close or the loop dies.
    pub(super) token: CancellationToken,
    /// The lane of `call_soon_threadsafe`.
    pub(super) callbacks: Callbacks,
    /// How long a driver looks for more work before it sleeps.
    pub(super) linger: Duration,
    /// Whether waiters may look a little longer before they sleep.
    waiters_nap: bool,
    /// How often a driver was polled, modulo 2³²; a call that sees no turn since its submission
    /// knows that nobody drives the loop.
    turns: AtomicU32,
}

impl Origin for Core {
    fn turns(&self) -> u32 {
        self.turns.load(Ordering::Relaxed)
    }

    fn suspend(&self, waker: Waker) -> Option<u32> {
        self.queue.suspend(waker)
    }

    fn nudge(&self, place: u32) {
        if let Some(waker) = self.queue.waker_of(place) {
            waker.wake();
        }
    }

    fn enter_end(&self, place: Option<u32>, failure: Option<&Failure>) {
        if let Some(place) = place {
            self.queue.unsuspend(place);
        }
        self.ledger.release(failure);
        for driver in self.queue.leavers(|| self.ledger.in_flight()) {
            driver.wake();
        }
    }

    fn waiters_nap(&self) -> bool {
        self.waiters_nap
    }
}

impl Core {
    pub(super) fn new(settings: BridgeBuilder) -> Arc<Self> {
        let BridgeBuilder { handle, max_in_flight, name, linger, waiters_nap } = settings;
        let elastic = handle.runtime_flavor() != RuntimeFlavor::CurrentThread;
        let workers = handle.metrics().num_workers();
        let core = Arc::new(Core {
            handle,
            name,
            ledger: Ledger::new(max_in_flight),
            queue: RunQueue::new(workers, elastic),
            token: CancellationToken::new(),
            callbacks: Callbacks::new(),
            linger,
            waiters_nap,
            turns: AtomicU32::new(0),
        });
        // There is a driver from the start, whose drop tells that the loop has gone.
        core.help(core.queue.first_driver());
        core
    }

    /// Starts an admitted call.
    pub(super) fn start<F>(self: &Arc<Self>, future: F, site: Site) -> BlockingFuture<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (promise, blocking_future) = promise(Arc::clone(self) as Arc<dyn Origin>);
        let work = Work::new(future, promise);
        let core = Arc::clone(self);
        let schedule = move |runnable| core.schedule(runnable);
        let (runnable, task) =
            async_task::Builder::new().metadata(site).spawn(move |_| work, schedule);
        self.schedule(runnable);
        blocking_future.keep(task)
    }

    pub(super) fn call_soon(&self, callback: Callback) -> Result<(), LoopClosed> {
        if self.ledger.is_closed() {
            return Err(LoopClosed);
        }
        self.callbacks.push(callback, &self.handle)
    }

    fn schedule(self: &Arc<Self>, runnable: Runnable<Site>) {
        let from = if on_worker() { From::Worker } else { From::Outside };
        match self.queue.push(runnable, from) {
            Ok(help) => self.help(help),
            Err(runnable) => self.bury([runnable]),
        }
    }

    pub(super) fn help(self: &Arc<Self>, help: Help) {
        match help {
            Help::Wake(waker) => waker.wake(),
            // On a loop that is gone, tokio drops the driver here and now, which ends the queue.
            Help::Spawn(from) => spawn(&self.handle, Driver::new(Arc::clone(self), from)),
            Help::None => {}
        }
    }

    pub(super) fn note_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// The last bridge has gone: the lane ends with its last callback, drivers with the last call.
    pub(super) fn abandon(&self) {
        self.callbacks.close();
        for driver in self.queue.abandon() {
            driver.wake();
        }
    }

    /// Refuses new work from now on, and tells running work.
    pub(super) fn begin_close(&self) {
        self.ledger.close();
        self.callbacks.close();
        self.token.cancel();
    }

    /// Drops whatever is left; work inside a poll is dropped when it comes out of it.
    pub(super) fn die(&self) {
        self.begin_close();
        let Remains { ready, wakers } = self.queue.kill();
        self.bury(ready);
        let _mark = LoopMark::new();
        let _context = enter(&self.handle);
        for waker in wakers {
            // Suspended work comes back to `schedule`, which buries it.
            waker.wake();
        }
    }

    fn bury(&self, work: impl IntoIterator<Item = Runnable<Site>>) {
        let _mark = LoopMark::new();
        let _context = enter(&self.handle);
        work.into_iter().for_each(drop);
    }
}
