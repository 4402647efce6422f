//! What a worker does with a result holds nobody else up: callbacks, drops, reports.

use super::block_on;
use crate::common::{LONG, SHORT};
use callbridge::{ThreadPool, to_thread};
use std::sync::mpsc;
use std::thread;

/// A connection, say, whose close takes until somebody allows it.
struct SlowDrop(mpsc::Receiver<()>, mpsc::Sender<()>);

impl Drop for SlowDrop {
    fn drop(&mut self) {
        self.1.send(()).unwrap();
        let _ = self.0.recv_timeout(LONG);
    }
}

/// What allows the drop, what tells that it has begun, and the value.
fn slow_drop() -> (mpsc::Sender<()>, mpsc::Receiver<()>, SlowDrop) {
    let (allow, allowed) = mpsc::channel();
    let (began, begun) = mpsc::channel();
    (allow, begun, SlowDrop(allowed, began))
}

/// Leaves a job whose result nobody reads, and returns when its drop has begun.
fn unread(pool: &ThreadPool) -> mpsc::Sender<()> {
    let (allow, begun, value) = slow_drop();
    let (go, gone) = mpsc::channel::<()>();
    drop(pool.submit(move || {
        let _ = gone.recv();
        value
    }));
    drop(go);
    begun.recv_timeout(LONG).unwrap();
    allow
}

#[test]
fn the_drop_of_an_unread_result_holds_up_no_other_job() {
    for workers in [1, 8] {
        let pool = ThreadPool::builder().max_workers(workers).build().unwrap();
        let allow = unread(&pool);
        assert_eq!(pool.submit(|| 7).result(LONG).unwrap(), 7, "of {workers}");
        assert_eq!(pool.submit(|| 8).result(LONG).unwrap(), 8, "of {workers}");
        drop(allow);
    }
}

#[test]
fn the_drop_of_an_unread_result_holds_up_no_idle_worker() {
    let pool = ThreadPool::builder().max_workers(8).build().unwrap();
    let meeting = std::sync::Arc::new(std::sync::Barrier::new(4));
    let warm = [(); 4].map(|()| {
        let meeting = std::sync::Arc::clone(&meeting);
        pool.submit(move || {
            let _ = meeting.wait();
        })
    });
    warm.into_iter().for_each(|mut job| job.result(LONG).unwrap());
    let allow = unread(&pool);
    let (met, meet) = mpsc::channel();
    for _ in 0..7 {
        let met = met.clone();
        drop(pool.submit(move || met.send(()).unwrap()));
    }
    for _ in 0..7 {
        meet.recv_timeout(LONG).unwrap();
    }
    drop(allow);
}

/// The callback waits by std's means, which the pool can't see.
#[test]
fn a_done_callback_may_wait_for_a_later_job() {
    for workers in [1, 8] {
        let pool = ThreadPool::builder().max_workers(workers).build().unwrap();
        let (go, gone) = mpsc::channel::<()>();
        let first = pool.submit(move || {
            let _ = gone.recv();
        });
        let (release, held) = mpsc::channel::<()>();
        let (told, tell) = mpsc::channel();
        first.add_done_callback(move |_| told.send(held.recv_timeout(LONG)).unwrap());
        drop(go);
        { first }.wait(LONG).unwrap();
        pool.submit(move || release.send(()).unwrap()).result(LONG).unwrap();
        assert_eq!(tell.recv_timeout(LONG).unwrap(), Ok(()), "of {workers}");
    }
}

#[test]
fn an_abandoned_to_thread_holds_up_no_other() {
    block_on(async {
        let (allow, begun, value) = slow_drop();
        let (go, gone) = mpsc::channel::<()>();
        let connect = to_thread(move || {
            let _ = gone.recv();
            value
        });
        assert!(tokio::time::timeout(SHORT, connect).await.is_err());
        drop(go);
        // The shared pool has more threads than this test's callers need.
        let waited = to_thread(move || begun.recv_timeout(LONG)).await.unwrap();
        let never_begun = waited.is_err();
        assert_eq!(to_thread(|| 7).await.unwrap(), 7);
        assert!(!never_begun || allow.send(()).is_err(), "neither run nor abandoned");
    });
}

#[test]
fn a_close_names_the_job_whose_callback_blocks() {
    let pool = ThreadPool::builder().max_workers(2).name("calls-back").build().unwrap();
    let (go, gone) = mpsc::channel::<()>();
    let first = pool.submit(move || {
        let _ = gone.recv();
    });
    let (release, held) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    first.add_done_callback(move |_| {
        began.send(()).unwrap();
        let _ = held.recv_timeout(LONG);
    });
    drop(go);
    begun.recv_timeout(LONG).unwrap();
    let report = pool.close_blocking(SHORT);
    assert_eq!((report.in_flight, report.stuck.len()), (1, 1), "{report}");
    assert!(report.stuck[0].location.file().ends_with("delivery.rs"), "{report}");
    assert_eq!(report.stuck[0].thread.as_deref(), Some("calls-back-0"));
    drop(release);
    assert!(pool.close_blocking(LONG).is_clean());
}

/// A callback may wait through the crate, too, which lends what it has lent already.
#[test]
fn a_done_callback_may_wait_through_the_crate() {
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let (go, gone) = mpsc::channel::<()>();
    let job = pool.submit(move || {
        let _ = gone.recv();
    });
    let (told, tell) = mpsc::channel();
    let nested = pool.clone();
    job.add_done_callback(move |_| {
        told.send(nested.submit(|| 7).result(LONG).map_err(|error| error.to_string())).unwrap();
    });
    drop(go);
    assert_eq!(tell.recv_timeout(LONG).unwrap(), Ok(7));
    assert!(pool.close_blocking(LONG).is_clean());
}

#[test]
fn callbacks_that_block_are_not_threads_without_end() {
    let pool = ThreadPool::builder().max_workers(1).max_threads(3).unbounded().build().unwrap();
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    for _ in 0..20 {
        let held = std::sync::Arc::clone(&held);
        let (go, gone) = mpsc::channel::<()>();
        let job = pool.submit(move || {
            let _ = gone.recv();
        });
        job.add_done_callback(move |_| {
            let _ = held.lock().unwrap().recv();
        });
        drop(go);
    }
    for _ in 0..20 {
        assert!(pool.stats().workers <= 3);
        thread::yield_now();
    }
    drop(release);
    assert!(pool.close_blocking(LONG).is_clean());
    assert!(pool.stats().largest <= 3);
}
