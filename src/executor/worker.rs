use super::card::Card;
use super::core::{Core, Reason};
use super::crew::{Next, Seat};
use super::job::Job;
use crate::sync::prim::Instant;
use crate::sync::prim::atomic::{AtomicBool, Ordering};
use crate::sync::{
    BlockingHook, Deadline, Parker, Woken, contain, discard, panic_message, set_blocking_hook,
    spin_until,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How soon a queue has to be empty without help for help to be too much, and how long a worker
/// looks away until it asks again.
const WATCH: Duration = Duration::from_micros(100);

/// Runs jobs until the pool is closed and empty, or nothing comes for the idle time.
pub(super) fn run(core: Arc<Core>, number: usize, name: &str) {
    let desk = Arc::new(Desk {
        core,
        number,
        searching: AtomicBool::new(true),
        crowded: AtomicBool::new(false),
    });
    set_blocking_hook(Arc::clone(&desk) as Arc<dyn BlockingHook>);
    let card = Card::issue(name);
    let key = desk.core.enter(Arc::clone(&card));
    let worker = Worker { desk, parker: Parker::new(), card };
    worker.work();
    worker.desk.core.strike(key);
}

/// What a worker's own waits have to know of it.
struct Desk {
    core: Arc<Core>,
    number: usize,
    /// It is the one who searches; changed by its own thread only.
    searching: AtomicBool,
    /// There were too many workers after a wait; changed by its own thread only.
    crowded: AtomicBool,
}

impl Desk {
    fn queued(&self) -> impl Fn() -> usize {
        || self.core.inbox.len()
    }

    fn searching(&self) -> bool {
        self.searching.load(Ordering::Relaxed)
    }

    fn set_searching(&self, searching: bool) {
        self.searching.store(searching, Ordering::Relaxed);
    }
}

impl BlockingHook for Desk {
    fn before_wait(&self) {
        let searching = self.searching.swap(false, Ordering::Relaxed);
        let order = self.core.crew.lend(searching, self.queued(), self.core.begun());
        self.core.carry_out(order);
    }

    fn after_wait(&self) {
        if self.core.crew.take_back() {
            self.crowded.store(true, Ordering::Relaxed);
        }
    }
}

struct Worker {
    desk: Arc<Desk>,
    parker: Parker,
    card: Arc<Card>,
}

impl Worker {
    fn core(&self) -> &Arc<Core> {
        &self.desk.core
    }

    fn seat(&self) -> Seat {
        Seat { worker: self.desk.number, waker: self.parker.waker().clone() }
    }

    fn work(&self) {
        if !self.start() {
            return;
        }
        self.lend_a_hand();
        loop {
            match self.core().inbox.take() {
                Ok(job) => {
                    if self.desk.searching() {
                        self.stop_search();
                    }
                    self.run(job);
                    if self.desk.crowded.swap(false, Ordering::Relaxed) && self.leave_if_crowded() {
                        return;
                    }
                }
                Err(closed) if closed => {
                    self.core().crew.resign(self.desk.searching(), false);
                    return;
                }
                Err(_empty) => {
                    if !self.rest() {
                        return;
                    }
                }
            }
        }
    }

    /// Runs the initializer; whether the worker may work.
    fn start(&self) -> bool {
        let core = self.core();
        let Some(initializer) = &core.settings.initializer else { return true };
        self.desk.set_searching(false);
        let order = core.crew.begin_start(self.desk.queued(), core.begun());
        core.carry_out(order);
        let failure = match catch_unwind(AssertUnwindSafe(|| initializer())) {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some(reason),
            Err(payload) => {
                let text = format!("its initializer panicked: {}", panic_message(payload.as_ref()));
                discard(payload);
                Some(Reason::from(text))
            }
        };
        match failure {
            None => self.desk.set_searching(core.crew.end_start()),
            Some(reason) => {
                core.break_down(reason);
                core.crew.resign(false, true);
                return false;
            }
        }
        true
    }

    fn run(&self, job: Job<()>) {
        let core = self.core();
        self.card.note(&job);
        core.note_begun();
        contain("the delivery of a job's result", || {
            // A job that the waiting side submits next finds this worker looking for it.
            job.run(&mut (), || {
                self.card.clear();
                if core.inbox.is_empty() && core.crew.search() {
                    self.desk.set_searching(true);
                }
            })
        });
        self.card.clear();
    }

    fn stop_search(&self) {
        self.desk.set_searching(false);
        let core = self.core();
        core.carry_out(core.crew.stop_search(self.desk.queued(), core.begun()));
    }

    fn leave_if_crowded(&self) -> bool {
        let core = self.core();
        let searching = self.desk.searching();
        let left = core.crew.leave_if_crowded(searching, self.desk.queued(), core.begun());
        match left {
            Some(order) => {
                self.desk.set_searching(false);
                core.carry_out(order);
                true
            }
            None => false,
        }
    }

    /// The queue is empty: looks a little longer, then sleeps; `false` when the worker has left.
    fn rest(&self) -> bool {
        let core = self.core();
        if !self.desk.searching() {
            self.desk.set_searching(core.crew.search());
        }
        let more = || !core.inbox.is_empty() || core.inbox.is_closed();
        if self.desk.searching() && spin_until(Deadline::Never, more) {
            return true;
        }
        let searching = self.desk.searching.swap(false, Ordering::Relaxed);
        let mut next = core.crew.sit_down(self.seat(), searching, self.desk.queued());
        let deadline = Deadline::after(Some(core.settings.idle_timeout));
        while next == Next::Sleep {
            let woken = self.parker.park(deadline);
            let timed_out = woken == Woken::TimedOut;
            next = core.crew.get_up(self.desk.number, timed_out, self.desk.queued());
            if next == (Next::Look { searching: true }) {
                self.desk.set_searching(true);
                self.lend_a_hand();
                return true;
            }
        }
        self.desk.set_searching(next == Next::Look { searching: true });
        next != Next::Leave
    }

    /// Summoned: watches the queue as long as it would soon be empty without this worker, too.
    fn lend_a_hand(&self) {
        let core = self.core();
        let mut since = core.crew.summoned();
        while self.desk.searching() {
            let queued = core.inbox.len();
            let begun = core.begun().wrapping_sub(since.begun);
            // `queued` jobs at the pace of `begun` jobs in the time elapsed.
            let pace = since.at.elapsed().as_nanos().saturating_mul(queued as u128);
            let soon_empty = begun > 0 && pace < WATCH.as_nanos() * begun as u128;
            if queued == 0 || !soon_empty || !core.crew.watch(self.seat()) {
                return;
            }
            self.desk.set_searching(false);
            since.begun = core.begun();
            since.at = Instant::now();
            self.parker.park(Deadline::after(Some(WATCH)));
            match core.crew.stop_watch(self.desk.number) {
                // Nobody called: it goes on searching, and asks again.
                Next::Sleep => self.desk.set_searching(true),
                next => {
                    self.desk.set_searching(next == Next::Look { searching: true });
                    return;
                }
            }
        }
    }
}
