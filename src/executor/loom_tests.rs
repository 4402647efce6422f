//! Model checks of who looks at a pool's queue next and who has a place, of its threads' end, and of the
//! token.

use super::threads::{Current, Threads};
use super::token::{CancelToken, Signal, Signalled};
use super::workers::{Action, IdleWorker, Next, Workers};
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Deadline, Parker, Woken, park_until};
use loom::thread;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

type Job = Box<dyn FnOnce(&Worker) + Send>;

/// A pool, with the workers' state under test and the simplest of queues.
struct Pool {
    workers: Workers,
    queue: Mutex<VecDeque<Job>>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    started: AtomicUsize,
}

/// What a job sees of its thread.
struct Worker {
    pool: Arc<Pool>,
    number: usize,
    parker: Parker,
}

impl Pool {
    fn new(max: usize, max_threads: usize) -> Arc<Self> {
        Arc::new(Pool {
            workers: Workers::new(max, max_threads - max),
            queue: Mutex::new(VecDeque::new()),
            threads: Mutex::new(Vec::new()),
            started: AtomicUsize::new(0),
        })
    }

    fn queued(&self) -> usize {
        lock(&self.queue).len()
    }

    fn submit(self: &Arc<Self>, job: impl FnOnce(&Worker) + Send + 'static) {
        let push = || {
            lock(&self.queue).push_back(Box::new(job));
            self.queued()
        };
        let action = self.workers.submit(push).expect("it is open");
        self.act(action);
    }

    fn act(self: &Arc<Self>, action: Action) {
        match action {
            Action::Nothing => {}
            Action::Wake(waker) => waker.wake(),
            Action::Start => {
                let number = self.started.fetch_add(1, SeqCst);
                let worker = Worker { pool: Arc::clone(self), number, parker: Parker::new() };
                let handle = thread::spawn(move || worker.work());
                lock(&self.threads).push(handle);
            }
        }
    }

    fn close(&self) {
        self.workers.close().into_iter().for_each(std::task::Waker::wake);
        // Each is entered before the one that started it leaves.
        while let Some(thread) = { lock(&self.threads).pop() } {
            thread.join().unwrap();
        }
        assert_eq!(self.workers.count().threads, 0);
        assert_eq!(self.queued(), 0);
    }
}

impl Worker {
    fn as_idle(&self) -> IdleWorker {
        IdleWorker { worker: self.number, waker: self.parker.waker().clone() }
    }

    fn wait_for_place(&self) {
        let mut returning = self.pool.workers.come_back(self.as_idle());
        while returning.is_some() {
            self.parker.park(Deadline::Never);
            returning = self.pool.workers.still_returning(self.number);
        }
    }

    /// Waits inside a job, with its place lent.
    fn wait(&self, parker: &Parker) {
        self.pool.act(self.pool.workers.lend(false, || self.pool.queued()));
        parker.park(Deadline::Never);
        self.wait_for_place();
    }

    fn work(&self) {
        let pool = &self.pool;
        let mut looking = true;
        loop {
            let job = match pool.workers.is_crowded() {
                true => None,
                false => lock(&pool.queue).pop_front(),
            };
            if let Some(job) = job {
                if std::mem::take(&mut looking) {
                    let (has_place, action) = pool.workers.found_job(|| pool.queued());
                    pool.act(action);
                    if !has_place {
                        self.wait_for_place();
                    }
                }
                job(self);
                continue;
            }
            let looked = std::mem::take(&mut looking);
            let (mut next, action) =
                pool.workers.sit_down(self.as_idle(), looked, || pool.queued());
            pool.act(action);
            while next == Next::Sleep {
                let timed_out = self.parker.park(Deadline::Never) == Woken::TimedOut;
                next = pool.workers.get_up(self.number, timed_out);
            }
            match next {
                Next::Work { looking: now } => looking = now,
                _ => return,
            }
        }
    }
}

fn counting(ran: &Arc<AtomicUsize>) -> impl FnOnce(&Worker) + Send + use<> {
    let ran = Arc::clone(ran);
    move |_: &Worker| {
        ran.fetch_add(1, SeqCst);
    }
}

#[test]
fn every_job_is_run_by_one_worker() {
    loom::model(|| {
        let (pool, ran) = (Pool::new(1, 1), Arc::new(AtomicUsize::new(0)));
        pool.submit(counting(&ran));
        pool.submit(counting(&ran));
        pool.close();
        assert_eq!(ran.load(SeqCst), 2);
    });
}

#[test]
fn a_job_reaches_the_worker_that_is_about_to_sit_down() {
    loom::model(|| {
        let (pool, ran) = (Pool::new(1, 1), Arc::new(AtomicUsize::new(0)));
        pool.submit(counting(&ran));
        // Awaited before the close, which would wake whoever sleeps.
        let parker = Parker::new();
        let done = parker.waker().clone();
        pool.submit(move |_| done.wake());
        parker.park(Deadline::Never);
        pool.close();
        assert_eq!(ran.load(SeqCst), 1);
    });
}

#[test]
fn two_jobs_that_wait_for_each_other_get_a_worker_each() {
    loom::model(|| {
        let pool = Pool::new(2, 2);
        let (first, second) = (Arc::new(Parker::new()), Arc::new(Parker::new()));
        for (mine, theirs) in [(&first, &second), (&second, &first)] {
            let (mine, theirs) = (Arc::clone(mine), theirs.waker().clone());
            pool.submit(move |_| {
                theirs.wake();
                mine.park(Deadline::Never);
            });
        }
        pool.close();
    });
}

/// One that comes back gets a place, from a thread that has nothing to do or from one that has.
#[test]
fn a_job_may_wait_for_a_later_one_in_a_pool_of_one() {
    loom::model(|| {
        let (pool, inside) = (Pool::new(1, 2), Arc::new(AtomicUsize::new(0)));
        let parker = Parker::new();
        let over = parker.waker().clone();
        let counted = Arc::clone(&inside);
        pool.submit(move |worker| {
            let inner = Parker::new();
            let (done, also) = (inner.waker().clone(), Arc::clone(&counted));
            worker.pool.submit(move |_| {
                assert_eq!(also.fetch_add(1, SeqCst), 0, "one at a time");
                also.fetch_sub(1, SeqCst);
                done.wake();
            });
            worker.wait(&inner);
            assert_eq!(counted.fetch_add(1, SeqCst), 0, "one at a time");
            counted.fetch_sub(1, SeqCst);
            over.wake();
        });
        parker.park(Deadline::Never);
        pool.close();
    });
}

/// A thread that delivers a result has lent its place, and takes up what is left when nobody else can.
#[test]
fn a_job_that_comes_during_a_delivery_is_run() {
    loom::model(|| {
        let workers = Arc::new(Workers::new(1, 0));
        let queued = Arc::new(AtomicUsize::new(0));
        let start = workers.submit(|| queued.fetch_add(1, SeqCst) + 1);
        assert!(matches!(start, Some(Action::Start)));
        queued.fetch_sub(1, SeqCst);
        assert!(workers.found_job(|| 0).0);
        let (submitting, more) = (Arc::clone(&workers), Arc::clone(&queued));
        let submitter = thread::spawn(move || submitting.submit(|| more.fetch_add(1, SeqCst) + 1));
        let action = workers.lend(false, || queued.load(SeqCst));
        assert!(matches!(action, Action::Nothing), "there is one thread only");
        let parker = Parker::new();
        let idle = IdleWorker { worker: 0, waker: parker.waker().clone() };
        let mut next = workers.end_delivery(idle, || queued.load(SeqCst));
        if let Some(Action::Wake(waker)) = submitter.join().unwrap() {
            waker.wake();
        }
        if next == Next::Sleep {
            parker.park(Deadline::Never);
            next = workers.get_up(0, false);
        }
        assert_eq!(next, Next::Work { looking: true });
    });
}

/// Who has joined what can be joined, when none runs any more, has seen all threads end.
#[test]
fn every_thread_is_joined() {
    loom::model(|| {
        let threads = Arc::new(Threads::new());
        // A step of the model: one of std's would come along with the one before.
        let ended = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        for _ in 0..2 {
            let key = threads.enter(Current::new(0, "worker"));
            let (leaving, ended) = (Arc::clone(&threads), Arc::clone(&ended));
            let handle = thread::spawn(move || {
                leaving.leave(key);
                // What comes last: the destructors of its thread-locals, say.
                ended.fetch_add(1, SeqCst);
            });
            threads.started(key, handle);
        }
        let mut all = pin!(threads.all_ended());
        park_until(Deadline::Never, |cx| all.as_mut().poll(cx));
        threads.join_ended(|| ());
        assert_eq!((threads.still_running(), ended.load(SeqCst)), (Vec::new(), 2));
    });
}

struct Alone(Signal);

impl Signalled for Alone {
    fn signal(&self) -> &Signal {
        &self.0
    }
}

#[test]
fn a_wake_function_runs_once_or_is_withdrawn() {
    loom::model(|| {
        let token = CancelToken::new(Arc::new(Alone(Signal::new())));
        let cancelling = token.clone();
        let canceller = thread::spawn(move || cancelling.cancel());
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let hook = token.on_cancel(move || {
            counted.fetch_add(1, SeqCst);
        });
        token.wait(None).unwrap();
        canceller.join().unwrap();
        drop(hook);
        assert_eq!(runs.load(SeqCst), 1);
    });
}
