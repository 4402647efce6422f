//! The threads of an executor: when they start, what runs on them, and that they end.

use super::blocker;
use crate::child::in_a_child;
use crate::common::{LONG, SHORT, eventually};
use callbridge::{DedicatedThread, ThreadPool};
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// One worker is idle, another hangs in its initializer; a job is submitted.
#[test]
fn an_idle_worker_is_used_before_one_that_starts() {
    let (release_start, held) = mpsc::channel::<()>();
    let (held, started) = (Mutex::new(held), AtomicUsize::new(0));
    let (hangs, hanging) = mpsc::channel();
    let initialize = move || {
        if started.fetch_add(1, SeqCst) > 0 {
            hangs.send(()).unwrap();
            let _ = held.lock().unwrap().recv_timeout(LONG);
        }
        Ok::<_, String>(())
    };
    let pool = ThreadPool::builder().max_workers(2).initializer(initialize).build().unwrap();
    let (release, mut first) = blocker(&pool);
    let mut second = pool.submit(|| ());
    hanging.recv_timeout(LONG).unwrap();
    drop(release);
    first.result(LONG).unwrap();
    second.result(LONG).unwrap();
    for n in 0..10 {
        eventually("it is idle", || pool.stats().idle == 1);
        assert_eq!(pool.submit(move || n).result(LONG).unwrap(), n);
    }
    drop(release_start);
    assert!(pool.close_blocking(LONG).is_clean());
}

/// Leaves something on the calling thread whose destructor takes a while, and raises the flag.
fn leave_something_slow(gone: &Arc<AtomicBool>) {
    struct Connection(Arc<AtomicBool>);
    impl Drop for Connection {
        fn drop(&mut self) {
            std::thread::sleep(10 * SHORT);
            self.0.store(true, SeqCst);
        }
    }
    std::thread_local! {
        static CONNECTION: RefCell<Option<Connection>> = const { RefCell::new(None) };
    }
    CONNECTION.set(Some(Connection(Arc::clone(gone))));
}

#[test]
fn a_clean_close_has_seen_the_thread_locals_go() {
    let gone = Arc::new(AtomicBool::new(false));
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let flag = Arc::clone(&gone);
    pool.submit(move || leave_something_slow(&flag)).result(LONG).unwrap();
    let report = pool.close_blocking(LONG);
    assert!(report.is_clean() && gone.load(SeqCst), "{report}");

    // A worker that had nothing to do and left by itself, too.
    let gone = Arc::new(AtomicBool::new(false));
    let pool = ThreadPool::builder().max_workers(1).idle_timeout(Duration::ZERO).build().unwrap();
    let flag = Arc::clone(&gone);
    pool.submit(move || leave_something_slow(&flag)).result(LONG).unwrap();
    eventually("it leaves", || pool.stats().workers == 0);
    let report = pool.close_blocking(LONG);
    assert!(report.is_clean() && gone.load(SeqCst), "{report}");

    let gone = Arc::new(AtomicBool::new(false));
    let thread = DedicatedThread::spawn(|| Ok::<_, String>(())).result(LONG).unwrap();
    let flag = Arc::clone(&gone);
    thread.call_blocking(move |()| leave_something_slow(&flag), LONG).unwrap();
    let report = thread.close_blocking(LONG);
    assert!(report.is_clean() && gone.load(SeqCst), "{report}");
}

#[tokio::test]
async fn an_awaited_close_has_seen_the_thread_locals_go() {
    let gone = Arc::new(AtomicBool::new(false));
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let flag = Arc::clone(&gone);
    pool.submit(move || leave_something_slow(&flag)).await.unwrap();
    let report = pool.close(LONG).await;
    assert!(report.is_clean() && gone.load(SeqCst), "{report}");
}

/// A thread that doesn't come out of its thread-locals' destructors is reported, in time.
#[test]
fn a_close_does_not_wait_for_a_destructor_beyond_its_deadline() {
    struct Hangs(mpsc::Receiver<()>);
    impl Drop for Hangs {
        fn drop(&mut self) {
            let _ = self.0.recv_timeout(LONG);
        }
    }
    std::thread_local! {
        static HANGS: RefCell<Option<Hangs>> = const { RefCell::new(None) };
    }
    let (release, held) = mpsc::channel();
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    pool.submit(move || HANGS.set(Some(Hangs(held)))).result(LONG).unwrap();
    let report = pool.close_blocking(SHORT);
    assert_eq!(
        (report.in_flight, &report.still_running[..]),
        (0, &["callbridge-pool-0".to_owned()][..])
    );
    assert!(!report.is_clean());
    drop(release);
    assert!(pool.close_blocking(LONG).is_clean());
}

/// A worker's thread-local waits, in its destructor, for a job of the pool that the worker has left.
#[test]
#[cfg_attr(windows, ignore = "no thread starts or ends there while a thread-local is dropped")]
fn a_thread_local_of_a_worker_may_wait_in_its_destructor() {
    in_a_child("threads::a_thread_local_of_a_worker_may_wait_in_its_destructor", || {
        struct Waits(ThreadPool, mpsc::Sender<Option<i32>>);
        impl Drop for Waits {
            fn drop(&mut self) {
                let answer = self.0.submit(|| 7).result(LONG);
                let _ = self.1.send(answer.ok());
            }
        }
        std::thread_local! {
            static WAITS: RefCell<Option<Waits>> = const { RefCell::new(None) };
        }
        let pool = ThreadPool::builder().max_workers(1).idle_timeout(SHORT).build().unwrap();
        let (inner, (tell, told)) = (pool.clone(), mpsc::channel());
        pool.submit(move || WAITS.set(Some(Waits(inner, tell)))).result(LONG).unwrap();
        assert_eq!(told.recv_timeout(LONG).unwrap(), Some(7));
        assert_eq!(pool.submit(|| 1).result(LONG).unwrap(), 1);
    });
}

/// It waits for room in a channel, while a job is submitted.
#[test]
#[cfg_attr(windows, ignore = "no thread starts or ends there while a thread-local is dropped")]
fn a_job_runs_while_a_worker_that_left_waits_in_a_destructor() {
    in_a_child("threads::a_job_runs_while_a_worker_that_left_waits_in_a_destructor", || {
        struct Waits(callbridge::Sender<u8>, mpsc::Sender<()>);
        impl Drop for Waits {
            fn drop(&mut self) {
                self.1.send(()).unwrap();
                let _ = self.0.send(1);
            }
        }
        std::thread_local! {
            static WAITS: RefCell<Option<Waits>> = const { RefCell::new(None) };
        }
        let (sender, frames) = callbridge::channel(1);
        sender.send(0).unwrap();
        let pool = ThreadPool::builder().max_workers(1).idle_timeout(SHORT).build().unwrap();
        let (tell, told) = mpsc::channel();
        pool.submit(move || WAITS.set(Some(Waits(sender, tell)))).result(LONG).unwrap();
        told.recv_timeout(LONG).unwrap();
        assert_eq!(pool.submit(|| 1).result(LONG).unwrap(), 1);
        drop(frames);
        assert!(pool.close_blocking(LONG).is_clean());
    });
}

#[test]
fn hooks_run_on_every_thread_of_an_executor() {
    let (started, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let count = |counter: &Arc<AtomicUsize>| {
        let counter = Arc::clone(counter);
        move || {
            counter.fetch_add(1, SeqCst);
            assert!(counter.load(SeqCst) % 3 != 0, "a hook that panics does no harm");
        }
    };
    let pool = ThreadPool::builder()
        .max_workers(4)
        .on_thread_start(count(&started))
        .on_thread_stop(count(&stopped))
        .build()
        .unwrap();
    let meeting = Arc::new(std::sync::Barrier::new(4));
    let mut jobs = [(); 4].map(|()| {
        let meeting = Arc::clone(&meeting);
        pool.submit(move || {
            let _ = meeting.wait();
        })
    });
    jobs.iter_mut().for_each(|job| job.result(LONG).unwrap());
    assert_eq!((started.load(SeqCst), stopped.load(SeqCst)), (4, 0));
    assert!(pool.close_blocking(LONG).is_clean());
    let (began, ended) = (started.load(SeqCst), stopped.load(SeqCst));
    // The one that joins the others is a thread like them.
    assert!(began >= 4 && ended >= 4 && began - ended <= 1, "{began} started, {ended} stopped");

    let (started, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let thread = DedicatedThread::builder()
        .on_thread_start(count(&started))
        .on_thread_stop(count(&stopped))
        .spawn(|| Ok::<_, String>(()));
    assert!({ thread }.result(LONG).unwrap().close_blocking(LONG).is_clean());
    assert!(started.load(SeqCst) >= 1 && stopped.load(SeqCst) >= 1);
}

#[test]
fn a_pool_grows_and_shrinks_while_it_works() {
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let (first, mut first_job) = blocker(&pool);
    let (began, begun) = mpsc::channel();
    let mut queued: Vec<_> = (0..3)
        .map(|_| {
            let (began, (release, blocked)) = (began.clone(), mpsc::channel::<()>());
            let job = pool.submit(move || {
                began.send(()).unwrap();
                let _ = blocked.recv();
            });
            (release, job)
        })
        .collect();
    pool.set_max_workers(3).unwrap();
    begun.recv_timeout(LONG).unwrap();
    begun.recv_timeout(LONG).unwrap();
    let stats = pool.stats();
    assert_eq!((stats.workers, stats.active, stats.queued), (3, 3, 1), "{stats:?}");
    pool.set_max_workers(1).unwrap();
    assert_eq!(pool.max_workers(), 1);
    // Those that run go on; the last one begins when they have ended, all but one.
    let (last_release, mut last) = queued.pop().unwrap();
    queued.into_iter().for_each(|(release, mut job)| {
        drop(release);
        job.result(LONG).unwrap();
    });
    assert!(begun.try_recv().is_err(), "one place, and the first job has it");
    drop(first);
    first_job.result(LONG).unwrap();
    begun.recv_timeout(LONG).unwrap();
    drop(last_release);
    last.result(LONG).unwrap();
    eventually("the others leave", || pool.stats().workers == 1);
    assert!(pool.set_max_workers(0).is_err());
    assert_eq!(pool.stats().largest, 3);
}

/// Two jobs wait for a third, whatever the limit was meanwhile.
#[test]
fn the_spare_threads_stay_as_many_when_the_limit_was_lifted() {
    for workers in [2, usize::MAX] {
        let pool = ThreadPool::builder().max_workers(workers).build().unwrap();
        pool.set_max_workers(usize::MAX).unwrap();
        pool.set_max_workers(2).unwrap();
        let (sender, mut frames) = callbridge::channel(1);
        sender.send(0).unwrap();
        let sends = [(); 2].map(|()| {
            let sender = sender.clone();
            pool.submit(move || sender.send_timeout(1, LONG).is_ok())
        });
        eventually("both wait", || sender.stats().waiting == 2);
        let third = pool.submit(move || [(); 3].map(|()| frames.recv_blocking(LONG).unwrap()));
        assert_eq!(sends.map(|mut send| send.result(LONG).unwrap()), [true, true]);
        drop(third);
    }
}

#[test]
fn a_pool_tells_when_it_is_idle() {
    let pool = ThreadPool::builder().max_workers(2).build().unwrap();
    pool.wait_idle_blocking(Duration::ZERO).unwrap();
    let (release, busy) = blocker(&pool);
    let _queued: Vec<_> = (0..5).map(|_| pool.submit(|| ())).collect();
    let (done, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&done);
    busy.add_done_callback(move |_| {
        std::thread::sleep(SHORT);
        flag.store(true, SeqCst);
    });
    assert!(pool.wait_idle_blocking(SHORT).is_err());
    let (waiting, flag) = (pool.clone(), Arc::clone(&told));
    let waiter = std::thread::spawn(move || {
        waiting.wait_idle_blocking(LONG).unwrap();
        flag.store(true, SeqCst);
    });
    super::block_on(async {
        let mut idle = Box::pin(pool.wait_idle());
        assert!(tokio::time::timeout(SHORT, &mut idle).await.is_err());
        assert!(!told.load(SeqCst));
        drop(release);
        idle.await;
    });
    waiter.join().unwrap();
    assert!(done.load(SeqCst), "callbacks are part of it");
    let stats = pool.stats();
    assert_eq!((stats.active, stats.queued, stats.completed), (0, 0, 6), "{stats:?}");
}
