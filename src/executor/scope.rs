use super::core::Core;
use super::job::Caller;
use super::pool::ThreadPool;
use crate::future::Refusal;
use crate::future::{BlockingFuture, Panic, ResultError, lone_promise, resolved};
use crate::sync::{
    Deadline, Monitor, WaitError, contain, discard, may_wait, panic_message, park_until,
};
use async_channel::{Receiver, Sender};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

/// Runs, or is refused.
type Job<'scope> = Box<dyn FnOnce(Option<Refusal>) + Send + 'scope>;

/// Jobs that borrow from whoever waits for them; see [`ThreadPool::scope`].
///
/// A clone is a handle to the same scope, for a job that submits others.
pub struct PoolScope<'scope, 'env> {
    threads: &'scope thread::Scope<'scope, 'env>,
    shared: Arc<Shared<'scope>>,
}

struct Shared<'scope> {
    core: Arc<Core<()>>,
    queue: (Sender<Job<'scope>>, Receiver<Job<'scope>>),
    state: Monitor<State<'scope>>,
}

struct State<'scope> {
    /// Jobs that haven't ended.
    pending: usize,
    /// Those that run or are being started.
    threads: usize,
    /// Why the last one couldn't be started.
    not_started: Option<Refusal>,
    handles: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl ThreadPool {
    /// Runs `body`, whose jobs may borrow what lives longer than this call, and waits for all of them.
    ///
    /// The jobs run on threads of the scope's own, since no thread that lives longer can be lent what is
    /// borrowed: at most [`max_workers`](Self::max_workers) at a time, with the pool's name, stack, hooks
    /// and initializer. They are started when there is work for them and end with the scope, before this
    /// returns.
    ///
    /// Python: `with ThreadPoolExecutor() as pool`.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread until all jobs have ended. A worker of a pool lends its place meanwhile.
    ///
    /// # Errors
    ///
    /// [`WaitError::WouldDeadlock`], and nothing is run, on a thread that drives an event loop.
    ///
    /// # Panics
    ///
    /// If `body` does, once its jobs have ended. The panic of a job is a value, see
    /// [`PoolScope::submit`].
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().max_workers(2).build()?;
    /// let mut halves = [vec![3, 1, 2], vec![6, 5, 4]];
    /// pool.scope(|scope| {
    ///     for half in &mut halves {
    ///         let _sorted = scope.submit(|| half.sort());
    ///     }
    /// }).unwrap();
    /// assert_eq!(halves.concat(), [1, 2, 3, 4, 5, 6]);
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn scope<'env, R>(
        &self,
        body: impl for<'scope> FnOnce(&PoolScope<'scope, 'env>) -> R,
    ) -> Result<R, WaitError> {
        may_wait(Deadline::Never)?;
        let result = thread::scope(|threads| {
            let shared = Arc::new(Shared {
                core: Arc::clone(self.core()),
                queue: async_channel::unbounded(),
                state: Monitor::new(State {
                    pending: 0,
                    threads: 0,
                    not_started: None,
                    handles: Vec::new(),
                }),
            });
            let scope = PoolScope { threads, shared };
            let result = catch_unwind(AssertUnwindSafe(|| body(&scope)));
            scope.shared.end();
            result
        });
        Ok(result.unwrap_or_else(|payload| resume_unwind(payload)))
    }
}

impl<'scope> PoolScope<'scope, '_> {
    /// Queues a job that may borrow, and returns a [`BlockingFuture`] for its result.
    ///
    /// A cancel keeps a queued job from running, and doesn't reach a running one. A job that the pool
    /// refuses comes back as a future that is [`Refused`](ResultError::Refused) already.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = callbridge::ThreadPool::builder().build()?;
    /// let text = String::from("borrowed");
    /// let length = pool.scope(|scope| scope.submit(|| text.len()).result(None));
    /// assert_eq!(length.unwrap().unwrap(), 8);
    /// # Ok::<(), callbridge::SettingError>(())
    /// ```
    pub fn submit<F, T>(&self, job: F) -> BlockingFuture<T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let Shared { core, queue, state } = &*self.shared;
        if !core.workers.is_open() {
            return resolved(core.why().into());
        }
        let (promise, result) = lone_promise();
        let (caller, shared) = (Caller::current(), Arc::clone(&self.shared));
        let run = move |refused: Option<Refusal>| match refused {
            Some(why) => promise.resolve(Err(why.into())),
            None if promise.cancel_requested() => drop(promise),
            None => {
                promise.start();
                let panicked = |payload| ResultError::Panicked(Panic::new(payload));
                promise.resolve(caller.run(job).map_err(panicked));
            }
        };
        let job = move |refused: Option<Refusal>| {
            let refused = refused.or_else(|| shared.refusal());
            contain("the delivery of a job's result", || run(refused));
            shared.end_job();
        };
        let max = core.workers.max();
        let starts = state.with(|state| {
            state.pending += 1;
            let starts = state.threads < state.pending.min(max);
            state.threads += usize::from(starts);
            starts
        });
        if starts {
            self.start();
        }
        // Never full, and closed only when no job is pending.
        let _ = queue.0.try_send(Box::new(job));
        // Behind the start and the job: of two that count on each other's thread, the last one looks.
        self.shared.refuse_without_threads();
        result
    }

    fn start(&self) {
        let shared = Arc::clone(&self.shared);
        let settings = &self.shared.core.settings;
        let mut builder = thread::Builder::new().name(format!("{}-scope", settings.name));
        if let Some(bytes) = settings.threads.stack_size {
            builder = builder.stack_size(bytes);
        }
        let spawned = builder.spawn_scoped(self.threads, move || shared.work());
        let _former = self.shared.state.with(|state| match spawned {
            Ok(handle) => {
                state.handles.push(handle);
                None
            }
            Err(error) => {
                state.threads -= 1;
                state.not_started.replace(Refusal::not_started(error))
            }
        });
    }
}

impl Shared<'_> {
    fn work(&self) {
        let settings = &self.core.settings;
        settings.threads.started();
        let reason = match catch_unwind(AssertUnwindSafe(|| (settings.make)(None))) {
            Ok(Ok(())) => None,
            Ok(Err(reason)) => Some(reason),
            Err(payload) => {
                let text = format!("its initialisation panicked: {}", panic_message(&*payload));
                discard(payload);
                Some(text.into())
            }
        };
        reason.map(|reason| self.core.break_down(reason));
        loop {
            let mut next = pin!(self.queue.1.recv());
            match park_until(Deadline::Never, |cx| next.as_mut().poll(cx)) {
                Some(Ok(job)) => job(None),
                _ => break,
            }
        }
        settings.threads.stopping();
    }

    /// Refuses what is queued, if no thread can be had for it.
    fn refuse_without_threads(&self) {
        let alone = |state: &mut State<'_>| match state.threads {
            0 => state.not_started.clone(),
            _ => None,
        };
        while let Some(why) = self.state.with(alone) {
            let Ok(job) = self.queue.1.try_recv() else { return };
            job(Some(why));
        }
    }

    /// Why the jobs aren't run, if the pool is broken.
    fn refusal(&self) -> Option<Refusal> {
        Some(self.core.why()).filter(|why| matches!(why, Refusal::Broken(_)))
    }

    fn end_job(&self) {
        self.state.change(|state| state.pending -= 1);
    }

    /// Waits for all jobs, and for all threads.
    fn end(&self) {
        let done = |state: &mut State<'_>| (state.pending == 0).then_some(());
        let mut idle = pin!(self.state.until(done));
        park_until(Deadline::Never, |cx| idle.as_mut().poll(cx));
        self.queue.0.close();
        let handles = self.state.with(|state| std::mem::take(&mut state.handles));
        for handle in handles {
            // What they run is contained.
            let _ = handle.join();
        }
    }
}

impl Clone for PoolScope<'_, '_> {
    fn clone(&self) -> Self {
        PoolScope { threads: self.threads, shared: Arc::clone(&self.shared) }
    }
}

impl fmt::Debug for PoolScope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolScope")
            .field("pending", &self.shared.state.with(|state| state.pending))
            .finish_non_exhaustive()
    }
}
