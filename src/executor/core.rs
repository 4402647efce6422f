use super::call::{Sending, ThreadCall};
use super::card::{Card, StuckJob};
use super::crew::{Crew, Order};
use super::error::ExecutorError;
use super::inbox::Inbox;
use super::job::{Plain, Site, prepare};
use super::worker;

use crate::sync::prim::{Mutex, lock, thread};
use crate::sync::wake;
use async_channel::TrySendError;
use slab::Slab;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(super) type Reason = Box<dyn Error + Send + Sync>;
pub(super) type Initializer = Arc<dyn Fn() -> Result<(), Reason> + Send + Sync>;

/// What a pool was built with.
pub(super) struct Settings {
    pub(super) max_workers: usize,
    /// The length of the queue; `None` for no limit.
    pub(super) queue: Option<usize>,
    pub(super) thread_name: String,
    pub(super) initializer: Option<Initializer>,
    pub(super) idle_timeout: Duration,
    pub(super) stack_size: Option<usize>,
}

/// What all clones of a pool, its workers and its waiting callers share.
pub(super) struct Core {
    pub(super) settings: Settings,
    pub(super) inbox: Inbox<()>,
    pub(super) crew: Crew,
    /// Jobs that have begun, modulo the word size.
    begun: AtomicUsize,
    /// Threads started so far, for their names.
    started: AtomicUsize,
    /// Why the pool takes no more work, if not because it was shut down.
    broken: OnceLock<ExecutorError>,
    /// What each worker does.
    cards: Mutex<Slab<Arc<Card>>>,
}

impl Core {
    pub(super) fn new(settings: Settings) -> Arc<Self> {
        Arc::new(Core {
            inbox: Inbox::new(settings.queue),
            crew: Crew::new(settings.max_workers),
            settings,
            begun: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            broken: OnceLock::new(),
            cards: Mutex::new(Slab::new()),
        })
    }

    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    pub(super) fn note_begun(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Called after a job got into the queue.
    pub(super) fn job_queued(self: &Arc<Self>) {
        self.carry_out(self.crew.summon(|| self.inbox.len(), self.begun()));
    }

    /// Queues a call for a task, at once or while it is awaited.
    pub(super) fn call<F, T>(self: &Arc<Self>, job: F, site: Site) -> ThreadCall<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (job, submission) = prepare(Plain(job), site);
        let sending: Option<Sending> = match self.inbox.offer(job) {
            Ok(()) => {
                self.job_queued();
                None
            }
            Err(TrySendError::Full(job)) => {
                let core = Arc::clone(self);
                Some(Box::pin(async move {
                    match core.inbox.sending(job).await {
                        Ok(()) => core.job_queued(),
                        Err(job) => drop(job.refuse(core.why())),
                    }
                }))
            }
            Err(TrySendError::Closed(job)) => {
                job.refuse(self.why());
                None
            }
        };
        ThreadCall::new(sending, submission.result)
    }

    pub(super) fn carry_out(self: &Arc<Self>, order: Order) {
        match order {
            Order::Nothing => {}
            Order::Wake(waker) => wake(waker),
            Order::Hire => self.hire(),
        }
    }

    fn hire(self: &Arc<Self>) {
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", self.settings.thread_name);
        let core = Arc::clone(self);
        let mut builder = thread::Builder::new().name(name.clone());
        if let Some(bytes) = self.settings.stack_size {
            builder = builder.stack_size(bytes);
        }
        let Err(error) = builder.spawn(move || worker::run(core, number, &name)) else { return };
        match self.crew.hire_failed() {
            Some(order) => self.carry_out(order),
            None => {
                self.inbox.refuse_all(&ExecutorError::NoThread(Arc::new(error)));
            }
        }
    }

    /// Why the pool refuses work.
    pub(super) fn why(&self) -> ExecutorError {
        self.broken.get().cloned().unwrap_or(ExecutorError::Closed)
    }

    /// Refuses everything from now on; running jobs go on.
    pub(super) fn break_down(&self, reason: Reason) {
        let why = self.broken.get_or_init(|| ExecutorError::Broken(Arc::from(reason)));
        self.close();
        self.inbox.refuse_all(why);
    }

    /// Refuses new work; what is queued still runs.
    pub(super) fn close(&self) {
        self.inbox.close();
        self.crew.close().into_iter().for_each(wake);
    }

    pub(super) fn enter(&self, card: Arc<Card>) -> usize {
        lock(&self.cards).insert(card)
    }

    pub(super) fn strike(&self, key: usize) {
        let card = lock(&self.cards).remove(key);
        drop(card);
    }

    fn cards(&self) -> Vec<Arc<Card>> {
        lock(&self.cards).iter().map(|(_, card)| Arc::clone(card)).collect()
    }

    /// Whether this thread is one of the pool's.
    pub(super) fn is_own_thread(&self) -> bool {
        Card::of_this_thread()
            .is_some_and(|own| lock(&self.cards).iter().any(|(_, card)| Arc::ptr_eq(card, &own)))
    }

    /// Tells the jobs that run that they aren't wanted any more.
    pub(super) fn cancel_running(&self) {
        self.cards().iter().filter_map(|card| card.token()).for_each(|token| token.cancel());
    }

    pub(super) fn stuck(&self) -> Vec<StuckJob> {
        self.cards().iter().filter_map(|card| card.stuck()).collect()
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.inbox.close();
        self.inbox.refuse_all(&self.why());
    }
}
