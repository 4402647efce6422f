//! A worker that waits through the crate lends its place: how far, and until when.

use super::block_on;
use crate::common::{LONG, Loop, SHORT};
use callbridge::listener::Listener;
use callbridge::{ResultError, ThreadPool, channel, run_in_executor};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// 500 jobs send into a full channel, in a pool of 2.
#[test]
fn jobs_that_wait_through_the_crate_are_not_threads_without_end() {
    let pool = ThreadPool::builder().max_workers(2).max_threads(8).unbounded().build().unwrap();
    let (sender, mut frames) = channel(1);
    for n in 0..500 {
        let sender = sender.clone();
        drop(pool.submit(move || sender.send(n).unwrap()));
    }
    drop(sender);
    let mut sum = 0;
    while let Ok(n) = frames.recv_blocking(LONG) {
        sum += n;
    }
    assert_eq!(sum, 499 * 500 / 2);
    assert!(pool.close_blocking(LONG).is_clean());
    assert!(pool.stats().largest <= 8, "{:?}", pool.stats());
}

/// By default, too.
#[test]
fn there_is_a_limit_of_threads_by_default() {
    let pool = ThreadPool::builder().max_workers(2).unbounded().build().unwrap();
    let (sender, frames) = channel(1);
    for n in 0..200 {
        let sender = sender.clone();
        drop(pool.submit(move || {
            let _ = sender.send(n);
        }));
    }
    crate::common::eventually("all threads wait", || pool.stats().largest == 2 + 32);
    drop(frames);
    assert!(pool.close_blocking(LONG).is_clean());
    assert_eq!(pool.stats().largest, 2 + 32);
}

/// Jobs wait for a frame's room in a pool of 2; then the room comes all at once.
#[test]
fn jobs_that_come_back_from_a_wait_keep_to_max_workers() {
    let pool = ThreadPool::builder().max_workers(2).unbounded().build().unwrap();
    let (sender, frames) = channel(1);
    sender.send(0).unwrap();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for n in 0..30 {
        let (sender, running, most) = (sender.clone(), Arc::clone(&running), Arc::clone(&most));
        drop(pool.submit(move || {
            // The stream goes: every send that waits comes back at once.
            let _ = sender.send(n);
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(SHORT);
            running.fetch_sub(1, SeqCst);
        }));
    }
    crate::common::eventually("they wait", || pool.stats().largest > 20);
    drop(frames);
    assert!(pool.close_blocking(LONG).is_clean());
    assert!(most.load(SeqCst) <= 2, "{most:?} jobs ran at a time");
}

/// A wait keeps its timeout, whoever has its place meanwhile.
#[test]
fn a_wait_that_times_out_does_not_wait_for_a_place() {
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let (release, blocked) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let inner = pool.clone();
    let mut outer = pool.submit(move || {
        let mut holds_the_place = inner.submit(move || {
            began.send(()).unwrap();
            let _ = blocked.recv();
        });
        let late = holds_the_place.result(Duration::from_millis(100));
        (matches!(late, Err(ResultError::TimedOut { .. })), holds_the_place)
    });
    begun.recv_timeout(LONG).unwrap();
    let (timed_out, mut inner) = outer.result(LONG).unwrap();
    assert!(timed_out);
    drop(release);
    inner.result(LONG).unwrap();
}

/// The job in its place waits, unseen, for what it holds: then it goes on all the same.
#[test]
fn a_job_whose_place_is_not_given_back_goes_on() {
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let event_loop = Loop::multi(1);
    let lock = Arc::new(Mutex::new(0));
    let mut jobs = [(); 2].map(|()| {
        let (lock, bridge) = (Arc::clone(&lock), event_loop.bridge());
        pool.submit(move || {
            let mut sum = lock.lock().unwrap();
            let slow = async {
                tokio::time::sleep(SHORT).await;
                1
            };
            *sum += bridge.run_coroutine_threadsafe(slow).result(None).unwrap();
        })
    });
    for job in &mut jobs {
        job.result(LONG).unwrap();
    }
    assert_eq!(*lock.lock().unwrap(), 2);
}

#[test]
fn a_job_that_closes_something_lends_its_place() {
    let event_loop = Loop::multi(2);
    let bridge = event_loop.bridge();
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let (closed, inner) = (bridge.clone(), pool.clone());
    let mut closing = pool.submit(move || {
        let needs_the_pool = async move { run_in_executor(&inner, || 7).await.unwrap() };
        let call = closed.run_coroutine_threadsafe(needs_the_pool);
        let report = closed.close_blocking(LONG);
        (report.is_clean(), report.to_string(), call)
    });
    let (clean, report, _call) = closing.result(LONG).unwrap();
    assert!(clean, "of a bridge: {report}");

    let other = ThreadPool::builder().max_workers(1).build().unwrap();
    let (back, closed) = (pool.clone(), other.clone());
    let mut closing = pool.submit(move || {
        let _waits = closed.submit(move || back.submit(|| 7).result(LONG).unwrap());
        let report = closed.close_blocking(LONG);
        (report.is_clean(), report.to_string())
    });
    let (clean, report) = closing.result(LONG).unwrap();
    assert!(clean, "of a pool: {report}");
}

#[test]
fn a_job_that_stops_a_listener_lends_its_place() {
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let back = pool.clone();
    let (tell, told) = mpsc::channel();
    let legacy = move |sink: callbridge::listener::LoopHandle<()>| {
        let _ = sink.wait_stop(LONG);
        let _ = tell.send(back.submit(|| 7).result(LONG).ok());
        Ok(())
    };
    let (listener, _frames) = Listener::from_fn::<(), _>(legacy).spawn().unwrap();
    let mut closing = pool.submit(move || listener.close_blocking(LONG).is_clean());
    assert!(closing.result(LONG).unwrap());
    assert_eq!(told.recv_timeout(LONG).unwrap(), Some(7));
}

/// A wait in a thread that the job joins can't be seen: its timeout ends it.
#[test]
fn a_wait_that_cannot_be_seen_ends_with_its_timeout() {
    let pool = ThreadPool::builder().max_workers(1).build().unwrap();
    let inner = pool.clone();
    let mut outer = pool.submit(move || {
        std::thread::spawn(move || inner.submit(|| 7).result(SHORT)).join().unwrap()
    });
    let late = outer.result(LONG).unwrap();
    assert!(matches!(late, Err(ResultError::TimedOut { .. })), "{late:?}");
}

/// One queued call isn't polled and isn't dropped: others get in all the same.
#[test]
fn a_call_that_is_not_polled_keeps_no_room_from_others() {
    let pool = ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
    let (release, mut busy) = super::blocker(&pool);
    let mut queued = pool.submit(|| ());
    let mut aside = Box::pin(run_in_executor(&pool, || 3));
    block_on(async {
        let first = std::future::poll_fn(|cx| std::task::Poll::Ready(aside.as_mut().poll(cx)));
        assert!(first.await.is_pending());
    });
    let waiting = pool.clone();
    let waiting = std::thread::spawn(move || waiting.submit_timeout(|| 4, LONG));
    drop(release);
    busy.result(LONG).unwrap();
    queued.result(LONG).unwrap();
    assert_eq!(waiting.join().unwrap().unwrap().result(LONG).unwrap(), 4);
    assert_eq!(block_on(aside).unwrap(), 3);
}

/// A tree of jobs, each of which waits for others, is larger than the pool may have threads.
#[test]
fn jobs_that_wait_for_jobs_go_on_when_no_thread_is_left() {
    fn sum(pool: &ThreadPool, depth: u32) -> u64 {
        if depth == 0 {
            return 1;
        }
        let inner = [(); 3].map(|()| {
            let own = pool.clone();
            pool.submit(move || sum(&own, depth - 1))
        });
        match depth % 3 {
            0 => inner.map(|mut inner| inner.result(None).unwrap()).iter().sum(),
            1 => {
                let ended = callbridge::as_completed(inner, None);
                ended.map(|inner| inner.unwrap().result(None).unwrap()).sum()
            }
            _ => {
                let mut inner = inner;
                let when = callbridge::future::ReturnWhen::AllCompleted;
                let (ended, _) = callbridge::wait(&mut inner, None, when).unwrap();
                ended.into_iter().map(|inner| inner.result(None).unwrap()).sum()
            }
        }
    }
    for capacity in [1, 1_000] {
        let builder = ThreadPool::builder().max_workers(2).max_threads(4).capacity(capacity);
        let pool = builder.build().unwrap();
        let own = pool.clone();
        assert_eq!(pool.submit(move || sum(&own, 5)).result(LONG).unwrap(), 243);
        assert!(pool.close_blocking(LONG).is_clean());
        assert!(pool.stats().largest <= 4);
    }
}
