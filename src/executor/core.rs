use super::cycle::Cycle;
use super::job::{Body, Job, Left, Submission, prepare};
use super::threads::{Current, Threads};
use super::worker;
use super::workers::{Action, Workers};
use crate::future::Refusal;
use crate::future::{BlockingFuture, SubmitError};
use crate::sync::prim::CachePadded;
use crate::sync::{
    AcquirePermit, Began, Deadline, Limiter, NoPermit, Site, ThreadSettings, Timing, WaitError,
    contain, wait, wake,
};
use async_channel::{Receiver, Sender};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub(super) type Reason = Box<dyn Error + Send + Sync>;

/// Makes what a thread owns: at its start, and again after a panic, by that panic's message.
pub(super) type Make<S> = Box<dyn Fn(Option<&str>) -> Result<S, Reason> + Send + Sync>;

/// What an executor is made of.
pub(super) struct Settings<S> {
    pub(super) name: String,
    pub(super) threads: ThreadSettings,
    /// How many submitted jobs may wait; `usize::MAX` for no limit.
    pub(super) capacity: usize,
    pub(super) max_workers: usize,
    /// How many threads there may be beyond `max_workers`.
    pub(super) spare_threads: usize,
    /// How long a thread sleeps before it ends; `None` for ever.
    pub(super) idle_timeout: Option<Duration>,
    pub(super) make: Make<S>,
    /// It is one thread with a value of its own, and no pool.
    pub(super) alone: Option<Alone>,
}

/// What a dedicated thread does after a panic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alone {
    /// How often in a row it makes a new value.
    pub(super) rebuilds: u32,
    /// How long it waits before the second time in a row; twice as long before each further one.
    pub(super) backoff: Duration,
}

/// What all handles of an executor, its threads and its jobs share.
pub(super) struct Core<S: 'static> {
    pub(super) settings: Settings<S>,
    queue: (Sender<Job<S>>, Receiver<Job<S>>),
    /// Jobs that go before all others, and how many.
    first: (Sender<Job<S>>, Receiver<Job<S>>),
    first_len: AtomicUsize,
    /// How many submitted jobs wait.
    room: Arc<Limiter>,
    pub(super) workers: Workers,
    pub(super) threads: Threads,
    pub(super) cycle: Cycle,
    /// Apart from what submitters write.
    ran: CachePadded<Ran>,
    /// Jobs that ended without having begun.
    dropped: AtomicU64,
    /// Threads started so far, for their names.
    started: AtomicUsize,
    /// Why no more work is taken, if not because it was closed.
    broken: OnceLock<Refusal>,
    /// From the submission to the begin, and from there to the result, of the jobs that are measured.
    pub(super) waited: Timing,
    pub(super) took: Timing,
    /// The process that has the threads.
    process: u32,
}

/// How many jobs have begun, and how many are delivered.
struct Ran {
    begun: AtomicU64,
    completed: AtomicU64,
}

/// Tells the threads when the last handle has gone.
pub(super) struct Owner<S: 'static> {
    pub(super) core: Arc<Core<S>>,
}

impl<S> Drop for Owner<S> {
    fn drop(&mut self) {
        self.core.close();
    }
}

/// Jobs at one instant; their sum is all that were accepted.
pub(super) struct Jobs {
    pub(super) queued: u64,
    pub(super) active: u64,
    pub(super) completed: u64,
    pub(super) dropped: u64,
}

impl<S: 'static> Core<S> {
    pub(super) fn new(settings: Settings<S>) -> Arc<Self> {
        let core = Arc::new(Core {
            queue: async_channel::unbounded(),
            first: async_channel::unbounded(),
            first_len: AtomicUsize::new(0),
            room: Arc::new(Limiter::new(settings.capacity)),
            workers: Workers::new(settings.max_workers, settings.spare_threads),
            threads: Threads::new(),
            cycle: Cycle::new(),
            settings,
            ran: CachePadded(Ran { begun: AtomicU64::new(0), completed: AtomicU64::new(0) }),
            dropped: AtomicU64::new(0),
            started: AtomicUsize::new(0),
            broken: OnceLock::new(),
            waited: Timing::new(),
            took: Timing::new(),
            process: std::process::id(),
        });
        #[cfg(feature = "metrics")]
        crate::sync::observe(&core);
        core
    }

    pub(super) fn is_alone(&self) -> bool {
        self.settings.alone.is_some()
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    pub(super) fn is_own_thread(&self) -> bool {
        Current::is_of(self.address())
    }

    pub(super) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    // The queue.

    pub(super) fn queued(&self) -> usize {
        self.queue.1.len() + self.first_len.load(Relaxed)
    }

    pub(super) fn next_job(&self) -> Option<Job<S>> {
        if self.first_len.load(Relaxed) > 0 {
            if let Ok(job) = self.first.1.try_recv() {
                self.first_len.fetch_sub(1, Relaxed);
                return Some(job);
            }
        }
        self.queue.1.try_recv().ok()
    }

    fn push(&self, queue: &Sender<Job<S>>, job: &mut Option<Job<S>>) -> usize {
        if let Some(job) = job.take() {
            job.accepted();
            // Never full, and never closed.
            let _ = queue.try_send(job);
        }
        self.queued()
    }

    /// Whether the job was accepted.
    fn accept(self: &Arc<Self>, job: &mut Option<Job<S>>) -> bool {
        let action = self.workers.submit(|| self.push(&self.queue.0, job));
        action.map(|action| self.act(action)).is_some()
    }

    /// Queues a job that its caller waits for, whatever room there is.
    pub(super) fn call<B: Body<S>>(
        self: &Arc<Self>,
        body: B,
        site: Site,
    ) -> BlockingFuture<B::Output> {
        let (job, submission) = prepare(self, body, false, site);
        let mut job = Some(job);
        if !self.accept(&mut job) {
            job.into_iter().for_each(|job| job.refuse(self.why()));
        }
        submission.result
    }

    /// Queues a job when there is room, until the deadline.
    pub(super) fn submit<B: Body<S>>(
        self: &Arc<Self>,
        body: B,
        deadline: Deadline,
        site: Site,
    ) -> Result<BlockingFuture<B::Output>, SubmitError<B>> {
        match self.room.try_acquire() {
            Ok(_) => {}
            Err(NoPermit::Closed) => return Err(SubmitError::refused(self.why(), body)),
            Err(NoPermit::Full) if deadline == Deadline::Now => {
                return Err(SubmitError::Full(body));
            }
            Err(NoPermit::Full) if self.is_forked() => return Err(SubmitError::Forked(body)),
            // Nobody is left who could make room while this thread waits for it.
            Err(NoPermit::Full) if deadline == Deadline::Never && self.is_own_and_full() => {
                let (job, submission) = prepare(self, body, false, site);
                return self.accept_prepared(job, submission);
            }
            Err(NoPermit::Full) => {
                let mut acquire = AcquirePermit::new(&self.room);
                match wait(deadline, |cx| Pin::new(&mut acquire).poll(cx)) {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(SubmitError::refused(self.why(), body)),
                    // Room that came this late.
                    Err(_) if acquire.leave() => {}
                    Err(WaitError::TimedOut) => return Err(SubmitError::TimedOut(body)),
                    Err(WaitError::WouldDeadlock) => return Err(SubmitError::WouldDeadlock(body)),
                }
            }
        }
        let (job, submission) = prepare(self, body, true, site);
        self.accept_prepared(job, submission)
    }

    /// Whether this is a thread of a pool's that has no other to take its place while it waits.
    pub(super) fn is_own_and_full(&self) -> bool {
        !self.is_alone() && self.is_own_thread() && self.workers.is_full()
    }

    fn accept_prepared<B: Body<S>>(
        self: &Arc<Self>,
        job: Job<S>,
        submission: Submission<S, B>,
    ) -> Result<BlockingFuture<B::Output>, SubmitError<B>> {
        let mut job = Some(job);
        if self.accept(&mut job) {
            return Ok(submission.result);
        }
        Err(SubmitError::refused(self.why(), submission.take_back()))
    }

    /// As [`submit`](Self::submit), and awaits the room.
    pub(super) fn submit_async<B: Body<S>>(
        self: &Arc<Self>,
        body: B,
        site: Site,
    ) -> impl Future<Output = Result<BlockingFuture<B::Output>, SubmitError<B>>> + Send + use<S, B>
    {
        let core = Arc::clone(self);
        let (job, submission) = prepare(self, body, true, site);
        async move {
            match core.room.try_acquire() {
                Err(NoPermit::Full) if core.is_forked() => {
                    return Err(SubmitError::Forked(submission.take_back()));
                }
                Err(NoPermit::Full) => {
                    if AcquirePermit::new(&core.room).await.is_err() {
                        return Err(SubmitError::refused(core.why(), submission.take_back()));
                    }
                }
                Err(NoPermit::Closed) => {
                    return Err(SubmitError::refused(core.why(), submission.take_back()));
                }
                Ok(_) => {}
            }
            core.accept_prepared(job, submission)
        }
    }

    /// Queues a job before all others, as long as there is a thread for it, and whatever room there is.
    pub(super) fn call_first<B: Body<S>>(self: &Arc<Self>, body: B, site: Site) {
        let (job, _unread) = prepare(self, body, false, site);
        let mut job = Some(job);
        let action = self.workers.submit_late(|| {
            self.first_len.fetch_add(1, Relaxed);
            self.push(&self.first.0, &mut job)
        });
        action.into_iter().for_each(|action| self.act(action));
    }

    pub(super) fn leave_room(&self) {
        self.room.release();
    }

    // Its threads.

    pub(super) fn act(self: &Arc<Self>, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Wake(waker) => wake(waker),
            Action::Start => self.start_worker(),
        }
    }

    fn start_worker(self: &Arc<Self>) {
        // The jobs are the parent's; who waits for one in a forked process is told so.
        if self.is_forked() {
            return;
        }
        let Err(error) = self.start(|_| ()) else { return };
        match self.workers.start_failed() {
            Some(action) => self.act(action),
            None => self.refuse_queued(&Refusal::not_started(error)),
        }
    }

    /// Starts a thread; `ready` is told on it how its initialisation went.
    pub(super) fn start(
        self: &Arc<Self>,
        ready: impl FnOnce(Result<(), Refusal>) + Send + 'static,
    ) -> std::io::Result<()> {
        let number = self.started.fetch_add(1, Relaxed);
        let mut name = self.settings.name.clone();
        if !self.is_alone() {
            name += &format!("-{number}");
        }
        self.spawn(name, move |core, key, current| worker::run(core, key, current, ready))
    }

    /// Starts a thread that counts as one of the executor's.
    pub(super) fn spawn(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce(&Arc<Self>, usize, &Arc<Current>) + Send + 'static,
    ) -> std::io::Result<()> {
        let current = Current::new(self.address(), &name);
        let key = self.threads.enter(Arc::clone(&current));
        let core = Arc::clone(self);
        let started = self.settings.threads.spawn(name, move || {
            current.enter();
            contain("a thread of an executor", || body(&core, key, &current));
            core.settings.threads.stopping();
            core.threads.leave(key);
        });
        started
            .map(|handle| self.threads.started(key, handle))
            .inspect_err(|_| self.threads.not_started(key))
    }

    // Its end.

    /// Why work is refused.
    pub(super) fn why(&self) -> Refusal {
        self.broken.get().cloned().unwrap_or(Refusal::Closed)
    }

    /// Refuses everything from now on; running jobs go on.
    pub(super) fn break_down(&self, reason: Reason) -> Refusal {
        let why = self.broken.get_or_init(|| Refusal::Broken(Arc::from(reason)));
        self.close();
        self.refuse_queued(why);
        why.clone()
    }

    /// Refuses new work; what is queued still runs.
    pub(super) fn close(&self) {
        let sleepers = self.workers.close();
        self.room.close();
        sleepers.into_iter().for_each(wake);
    }

    /// Resolves what is queued.
    pub(super) fn refuse_queued(&self, why: &Refusal) {
        while let Some(job) = self.next_job() {
            job.refuse(why.clone());
        }
    }

    // What has become of the jobs.

    /// A job is submitted.
    pub(super) fn submitted(&self) -> Began {
        self.waited.begin(|| self.ran.0.begun.load(Relaxed))
    }

    /// Tells when to measure it from.
    pub(super) fn note_begun(&self, submitted: Began) -> Began {
        self.waited.end(submitted);
        let number = self.ran.0.begun.fetch_add(1, Relaxed);
        self.took.begin(|| number)
    }

    /// A thread has run a job and delivered its result.
    pub(super) fn note_end(&self, left: &Left) {
        if !matches!(left, Left::Skipped) {
            self.ran.0.completed.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn note_dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
        self.workers.tell();
    }

    /// Whether nothing is left of so many jobs.
    pub(super) fn is_done(&self, submitted: u64) -> bool {
        self.ran.0.completed.load(Relaxed) + self.dropped.load(Relaxed) == submitted
    }

    pub(super) fn jobs(&self) -> Jobs {
        // From the end to the beginning, so that no job is further on than it was before.
        let completed = self.ran.0.completed.load(Relaxed);
        let begun = self.ran.0.begun.load(Relaxed).max(completed);
        let dropped = self.dropped.load(Relaxed);
        let submitted = self.workers.count().submitted;
        let queued = submitted.saturating_sub(begun + dropped);
        Jobs { queued, active: begun - completed, completed, dropped }
    }
}
