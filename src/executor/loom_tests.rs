//! Model checks of who looks at a pool's queue next, of the limiter, and of the token.

use super::crew::{Crew, Next, Order, Seat};
use super::token::{CancelToken, Signal, Signalled};
use crate::sync::prim::{Mutex, lock};
use crate::sync::{Deadline, Parker, Woken, park_until};
use loom::thread;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

type Job = Box<dyn FnOnce(&Desk) + Send>;

/// A pool, with the crew under test and the simplest of queues.
struct Pool {
    crew: Crew,
    /// The jobs, and whether there will be more.
    queue: Mutex<(VecDeque<Job>, bool)>,
    hired: AtomicUsize,
}

/// What a job sees of its worker.
struct Desk {
    pool: Arc<Pool>,
}

impl Pool {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Pool {
            crew: Crew::new(max),
            queue: Mutex::new((VecDeque::new(), false)),
            hired: AtomicUsize::new(0),
        })
    }

    fn queued(&self) -> usize {
        lock(&self.queue).0.len()
    }

    fn submit(self: &Arc<Self>, job: impl FnOnce(&Desk) + Send + 'static) {
        lock(&self.queue).0.push_back(Box::new(job));
        self.carry_out(self.crew.summon(|| self.queued(), 0));
    }

    fn carry_out(self: &Arc<Self>, order: Order) {
        match order {
            Order::Nothing => {}
            Order::Wake(waker) => waker.wake(),
            Order::Hire => {
                let pool = Arc::clone(self);
                let number = self.hired.fetch_add(1, SeqCst);
                thread::spawn(move || work(pool, number));
            }
        }
    }

    fn close(&self) {
        lock(&self.queue).1 = true;
        self.crew.close().into_iter().for_each(std::task::Waker::wake);
        let mut gone = pin!(self.crew.gone());
        park_until(Deadline::Never, |cx| gone.as_mut().poll(cx));
    }
}

fn work(pool: Arc<Pool>, worker: usize) {
    let parker = Parker::new();
    let mut searching = true;
    let desk = Desk { pool };
    let pool = &desk.pool;
    loop {
        let (job, closed) = {
            let mut queue = lock(&pool.queue);
            (queue.0.pop_front(), queue.1)
        };
        if let Some(job) = job {
            if std::mem::take(&mut searching) {
                pool.carry_out(pool.crew.stop_search(|| pool.queued(), 0));
            }
            job(&desk);
            if let Some(order) = pool.crew.leave_if_crowded(false, || pool.queued(), 0) {
                return pool.carry_out(order);
            }
            continue;
        }
        if closed {
            return pool.crew.resign(searching, false);
        }
        let seat = Seat { worker, waker: parker.waker().clone() };
        let mut next = pool.crew.sit_down(seat, std::mem::take(&mut searching), || pool.queued());
        while next == Next::Sleep {
            let timed_out = parker.park(Deadline::Never) == Woken::TimedOut;
            next = pool.crew.get_up(worker, timed_out, || pool.queued());
        }
        match next {
            Next::Look { searching: now } => searching = now,
            _ => return,
        }
    }
}

fn counting(ran: &Arc<AtomicUsize>) -> impl FnOnce(&Desk) + Send + use<> {
    let ran = Arc::clone(ran);
    move |_: &Desk| {
        ran.fetch_add(1, SeqCst);
    }
}

#[test]
fn every_job_is_run_by_one_worker() {
    loom::model(|| {
        let (pool, ran) = (Pool::new(1), Arc::new(AtomicUsize::new(0)));
        pool.submit(counting(&ran));
        pool.submit(counting(&ran));
        pool.close();
        assert_eq!(ran.load(SeqCst), 2);
    });
}

#[test]
fn a_job_reaches_the_worker_that_is_about_to_sit_down() {
    loom::model(|| {
        let (pool, ran) = (Pool::new(1), Arc::new(AtomicUsize::new(0)));
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
        let pool = Pool::new(2);
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

#[test]
fn a_job_may_wait_for_a_later_one_in_a_pool_of_one() {
    loom::model(|| {
        let (pool, ran) = (Pool::new(1), Arc::new(AtomicUsize::new(0)));
        let inner = Arc::clone(&ran);
        pool.submit(move |desk| {
            let pool = &desk.pool;
            let parker = Parker::new();
            let done = parker.waker().clone();
            pool.submit(move |_| {
                inner.fetch_add(1, SeqCst);
                done.wake();
            });
            pool.carry_out(pool.crew.lend(false, || pool.queued(), 0));
            parker.park(Deadline::Never);
            pool.crew.take_back();
        });
        pool.submit(counting(&ran));
        // Closing doesn't keep an accepted job from queueing another: only after it is all run.
        while ran.load(SeqCst) < 2 {
            thread::yield_now();
        }
        pool.close();
    });
}

#[test]
fn a_watcher_that_is_relied_on_looks_again() {
    loom::model(|| {
        let (pool, ran) = (Pool::new(2), Arc::new(AtomicUsize::new(0)));
        // A worker that is busy for good, and one that watches with a timeout.
        assert!(matches!(pool.crew.summon(|| 1, 0), Order::Hire));
        let parker = Parker::new();
        let _ = pool.crew.stop_search(|| 0, 0);
        assert!(matches!(pool.crew.summon(|| 1, 0), Order::Hire));
        let seat = Seat { worker: 1, waker: parker.waker().clone() };
        assert!(pool.crew.watch(seat));
        let submitting = Arc::clone(&pool);
        let job = counting(&ran);
        let submitter = thread::spawn(move || submitting.submit(job));
        // The busy one waits in its job: nobody is active, so the watcher is called, or sees it.
        pool.carry_out(pool.crew.lend(false, || pool.queued(), 0));
        submitter.join().unwrap();
        let next = pool.crew.stop_watch(1);
        assert_eq!(pool.queued(), 1);
        assert_eq!(next, Next::Look { searching: true }, "called: nobody else is active");
        assert_eq!(parker.park(Deadline::Never), Woken::Notified);
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
