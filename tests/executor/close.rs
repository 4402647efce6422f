//! How a pool ends: closed, dropped, with work that runs on.

use super::map::next;
use super::{block_on, blocker, clean, pool_of};
use crate::common::{Alive, Census, LONG, Loop, SHORT, eventually, refusal};
use callbridge::future::Refusal;
use callbridge::future::SubmitError;
use callbridge::{BlockingFuture, Bridge, ThreadPool, run_in_executor, to_thread};
use std::collections::HashSet;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

/// C59, C92: after close every way in refuses, and shutting down twice is fine.
#[test]
fn a_pool_that_is_closed_refuses() {
    let pool = pool_of(1);
    clean(&pool.close_blocking(LONG));
    clean(&pool.close_blocking(Duration::ZERO));
    assert!(pool.is_closed());
    let refused = |error| matches!(refusal(&error), Some(Refusal::Closed));
    assert!(refused(pool.submit(|| ()).result(LONG).unwrap_err()));
    assert!(matches!(pool.try_submit(|| ()), Err(SubmitError::Closed(_))));
    assert!(matches!(pool.submit_timeout(|| (), LONG), Err(SubmitError::Closed(_))));
    assert!(refused(block_on(run_in_executor(&pool, || ())).unwrap_err()));
    let mut mapped = pool.map(0.., |n| n, 3);
    for _ in 0..3 {
        assert!(refused(block_on(next(&mut mapped)).unwrap().unwrap_err()));
    }
    assert!(block_on(next(&mut mapped)).is_none(), "no errors without end");
}

/// C62, C66, C60: accepted work is done and every thread has ended.
#[test]
fn close_lets_accepted_work_finish() {
    let pool = pool_of(4);
    let mut jobs: Vec<_> = (0..50).map(|n| pool.submit(move || n)).collect();
    clean(&pool.close_blocking(LONG));
    assert_eq!(pool.stats().workers, 0);
    for (n, job) in jobs.iter_mut().enumerate() {
        assert_eq!(job.try_result().unwrap().unwrap(), n);
    }
}

/// C48: shutting down right after saturating doesn't hang. C65: nor after a cancel.
#[test]
fn close_right_after_submissions_and_cancels_ends() {
    for _ in 0..50 {
        let pool = pool_of(3);
        let jobs: Vec<_> = (0..9).map(|n| pool.submit(move || n)).collect();
        jobs[8].cancel();
        clean(&pool.close_blocking(LONG));
        assert!(jobs.iter().all(BlockingFuture::is_done));
    }
}

/// C63, C94: at the deadline queued jobs are refused and the ones that run are named.
#[test]
fn close_names_what_is_stuck_at_the_deadline() {
    let pool = ThreadPool::builder().max_workers(2).name("stuck").build().unwrap();
    let (first, mut first_job) = blocker(&pool);
    let (second, mut second_job) = blocker(&pool);
    let mut queued: Vec<_> = (0..10).map(|_| pool.submit(|| ())).collect();
    let report = pool.close_blocking(SHORT);
    assert_eq!((report.cut_off, report.still_running.len(), report.stuck.len()), (10, 2, 2));
    assert!(!report.would_deadlock);
    let names: HashSet<_> =
        report.stuck.iter().map(|job| job.thread.as_deref().unwrap().to_owned()).collect();
    assert_eq!(names, HashSet::from(["stuck-0".to_owned(), "stuck-1".to_owned()]));
    assert!(report.stuck.iter().all(|job| job.location.file().ends_with("main.rs")));
    assert!(report.to_string().contains("stuck-1"), "{report}");
    for job in &mut queued {
        let error = job.result(Duration::ZERO).unwrap_err();
        assert!(matches!(refusal(&error), Some(Refusal::Closed)), "{error:?}");
    }
    // What ran goes on to its end.
    drop((first, second));
    first_job.result(LONG).unwrap();
    second_job.result(LONG).unwrap();
    clean(&pool.close_blocking(LONG));
}

/// G14, G15: an awaited close blocks neither the loop nor the pool that its jobs need.
#[test]
fn an_awaited_close_lets_a_job_that_needs_the_loop_end() {
    for event_loop in Loop::both() {
        let mut call = event_loop.bridge().run_coroutine_threadsafe(async {
            let pool = pool_of(1);
            let bridge = Bridge::current();
            let (began, begun) = tokio::sync::oneshot::channel();
            let job = pool.submit(move || {
                began.send(()).unwrap();
                bridge
                    .run_coroutine_threadsafe(async { to_thread(|| 5).await.unwrap() })
                    .result(LONG)
            });
            begun.await.unwrap();
            clean(&pool.close(LONG).await);
            job.await.unwrap().unwrap()
        });
        assert_eq!(call.result(LONG).unwrap(), 5);
    }
}

#[test]
fn close_on_a_thread_that_must_not_wait_says_so() {
    let pool = pool_of(1);
    let own = pool.clone();
    let report = pool.submit(move || own.close_blocking(LONG)).result(LONG).unwrap();
    assert!(report.would_deadlock, "on its own thread");
    clean(&pool.close_blocking(LONG));

    let pool = pool_of(1);
    let (release, _busy) = blocker(&pool);
    let report = block_on(async { pool.close_blocking(LONG) });
    assert!(report.would_deadlock, "on the loop");
    assert_eq!(report.stuck.len(), 1);
    drop(release);
    clean(&pool.close_blocking(LONG));
}

/// C67, C68, C64, C70: dropping the pool waits for nothing; accepted work is done, threads end.
#[test]
fn a_dropped_pool_finishes_its_work() {
    let census = Census::default();
    let pool = {
        let census = census.clone();
        ThreadPool::builder()
            .max_workers(2)
            .initializer(move || {
                std::thread_local! {
                    static HERE: std::cell::RefCell<Option<Alive>> =
                        const { std::cell::RefCell::new(None) };
                }
                HERE.set(Some(census.guard()));
                Ok::<_, String>(())
            })
            .build()
            .unwrap()
    };
    let (release, mut busy) = blocker(&pool);
    let mut queued: Vec<_> = (0..20).map(|n| pool.submit(move || n)).collect();
    drop(pool);
    drop(release);
    busy.result(LONG).unwrap();
    for (n, job) in queued.iter_mut().enumerate() {
        assert_eq!(job.result(LONG).unwrap(), n);
    }
    eventually("its threads", || census.alive() == 0);
}

/// Many pools, submitted to from several threads and shut down meanwhile: every job is decided.
#[test]
fn no_submission_hangs_when_the_pool_closes_meanwhile() {
    for _ in 0..100 {
        let pool = ThreadPool::builder().max_workers(2).capacity(2).build().unwrap();
        let submitters: Vec<_> = (0..3)
            .map(|_| {
                let pool = pool.clone();
                thread::spawn(move || {
                    for n in 0..20 {
                        match pool.submit(move || n).result(LONG) {
                            Ok(value) => assert_eq!(value, n),
                            Err(ref error) if matches!(refusal(error), Some(Refusal::Closed)) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        clean(&pool.close_blocking(LONG));
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
    }
}

/// What was accepted runs, however closely the close follows, and before a clean report.
#[test]
fn a_job_accepted_just_before_a_close_runs() {
    for round in 0..500 {
        let pool = pool_of(1);
        let both = Arc::new(Barrier::new(2));
        let submitter = {
            let (pool, both) = (pool.clone(), Arc::clone(&both));
            thread::spawn(move || {
                both.wait();
                pool.try_submit(|| 1)
            })
        };
        both.wait();
        for _ in 0..round % 200 {
            std::hint::spin_loop();
        }
        clean(&pool.close_blocking(LONG));
        if let Ok(mut accepted) = submitter.join().unwrap() {
            assert_eq!(accepted.try_result().expect("it is there").unwrap(), 1);
        }
    }
}

/// At the deadline queued closures are dropped: by nobody who could be held up.
#[test]
fn a_close_is_not_held_up_by_the_drop_of_a_queued_job() {
    struct Blocks(mpsc::Receiver<()>);
    impl Drop for Blocks {
        fn drop(&mut self) {
            let _ = self.0.recv_timeout(LONG);
        }
    }
    let pool = ThreadPool::builder().max_workers(1).name("drops").build().unwrap();
    let (release, mut busy) = blocker(&pool);
    let (let_go, blocked) = mpsc::channel();
    let blocks = Blocks(blocked);
    let line = line!() + 1;
    let mut queued = pool.submit(move || drop(blocks));
    let report = pool.close_blocking(SHORT);
    drop(release);
    busy.result(LONG).unwrap();
    assert!(!report.is_clean(), "{report}");
    let named = report.stuck.iter().find(|job| job.location.line() == line).unwrap();
    assert_eq!(named.thread.as_deref(), Some("drops-close"), "{report}");
    drop(let_go);
    assert!(matches!(refusal(&queued.result(LONG).unwrap_err()), Some(Refusal::Closed)));
    assert!(pool.close_blocking(LONG).still_running.is_empty());
}

/// A close that is given up ends what is left at once.
#[test]
fn an_awaited_close_that_is_dropped_refuses_and_tells() {
    let pool = pool_of(1);
    let (began, begun) = mpsc::channel();
    let mut told = pool.submit(move || {
        began.send(()).unwrap();
        callbridge::executor::CancelToken::current().unwrap().wait(LONG)
    });
    begun.recv_timeout(LONG).unwrap();
    let mut queued = pool.submit(|| ());
    block_on(async {
        assert!(tokio::time::timeout(SHORT, pool.close(None)).await.is_err());
    });
    assert_eq!(told.result(LONG).unwrap(), Ok(()));
    assert!(matches!(refusal(&queued.result(LONG).unwrap_err()), Some(Refusal::Closed)));
    clean(&pool.close_blocking(LONG));
}
