//! ThreadPool::scope: jobs that borrow.

use super::block_on;
use crate::common::{HUGE_STACK, LONG, refusal, rounds};
use callbridge::future::Refusal;
use callbridge::{ResultError, ThreadPool, WaitError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Barrier, mpsc};
use std::thread;

fn pool_of(workers: usize) -> ThreadPool {
    ThreadPool::builder().max_workers(workers).name("scoped").build().unwrap()
}

#[test]
fn jobs_borrow_and_are_over_when_the_scope_is() {
    let pool = pool_of(3);
    let mut numbers = [1, 2, 3, 4, 5];
    let sum = AtomicUsize::new(0);
    let doubled = pool.scope(|scope| {
        for number in &mut numbers {
            let _unread = scope.submit(|| {
                sum.fetch_add(*number, SeqCst);
                *number *= 2;
            });
        }
        scope.submit(|| sum.load(SeqCst)).result(LONG).unwrap() <= 15
    });
    assert!(doubled.unwrap());
    assert_eq!((numbers, sum.load(SeqCst)), ([2, 4, 6, 8, 10], 15));
    assert_eq!(pool.stats().workers, 0, "the threads are the scope's");
}

#[test]
fn as_many_jobs_run_at_a_time_as_the_pool_may() {
    let pool = pool_of(3);
    let (running, most, meeting) = (AtomicUsize::new(0), AtomicUsize::new(0), Barrier::new(3));
    pool.scope(|scope| {
        for _ in 0..30 {
            let _unread = scope.submit(|| {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                meeting.wait();
                running.fetch_sub(1, SeqCst);
            });
        }
    })
    .unwrap();
    assert_eq!(most.load(SeqCst), 3);
}

#[test]
fn a_panic_in_a_job_is_a_value_and_one_in_the_scope_goes_on_after_its_jobs() {
    let pool = pool_of(2);
    let ran = AtomicUsize::new(0);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        pool.scope(|scope| {
            let job = scope.submit(|| panic!("in a job")).result(LONG);
            let job: Result<(), _> = job;
            assert!(matches!(job, Err(ResultError::Panicked(_))));
            for _ in 0..10 {
                let _unread = scope.submit(|| ran.fetch_add(1, SeqCst));
            }
            panic!("in the scope");
        })
    }));
    let payload = panicked.unwrap_err();
    assert_eq!(payload.downcast_ref(), Some(&"in the scope"));
    assert_eq!(ran.load(SeqCst), 10);
}

#[test]
fn a_job_may_submit_others_to_its_scope() {
    let pool = pool_of(1);
    let ran = AtomicUsize::new(0);
    pool.scope(|scope| {
        let inner = scope.clone();
        let ran = &ran;
        let _unread = scope.submit(move || {
            for _ in 0..3 {
                let _unread = inner.submit(|| ran.fetch_add(1, SeqCst));
            }
        });
    })
    .unwrap();
    assert_eq!(ran.load(SeqCst), 3);
}

#[test]
fn a_scope_is_refused_on_a_loop_and_lends_the_place_of_a_worker() {
    let pool = pool_of(1);
    let refused = block_on(async { pool.scope(|_| unreachable!("nothing is run")) });
    assert_eq!(refused, Err(WaitError::WouldDeadlock));
    let own = pool.clone();
    let mut outer = pool.submit(move || {
        let inner = own.clone();
        own.scope(|scope| scope.submit(|| inner.submit(|| 7).result(LONG).unwrap()).result(LONG))
    });
    assert_eq!(outer.result(LONG).unwrap().unwrap().unwrap(), 7);
}

#[test]
fn a_closed_or_broken_pool_refuses_scoped_jobs() {
    let pool = pool_of(1);
    assert!(pool.close_blocking(LONG).is_clean());
    let refused = pool.scope(|scope| scope.submit(|| ()).result(LONG)).unwrap().unwrap_err();
    assert!(matches!(refusal(&refused), Some(Refusal::Closed)), "{refused:?}");

    let broken = ThreadPool::builder().initializer(|| Err::<(), _>("no licence")).build().unwrap();
    let refused = broken.scope(|scope| scope.submit(|| ()).result(LONG)).unwrap().unwrap_err();
    assert!(matches!(refusal(&refused), Some(Refusal::Broken(_))), "{refused:?}");

    let no_thread = ThreadPool::builder().stack_size(HUGE_STACK).build().unwrap();
    let refused = no_thread.scope(|scope| scope.submit(|| ()).result(LONG)).unwrap().unwrap_err();
    assert!(matches!(refusal(&refused), Some(Refusal::NotStarted(_))), "{refused:?}");
}

/// Each counts on a thread that another is about to start in vain.
#[test]
fn jobs_that_get_no_thread_are_refused_whoever_submits_beside() {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let pool = ThreadPool::builder().max_workers(2).stack_size(HUGE_STACK).build().unwrap();
        for _ in 0..rounds(300) {
            let (pool, together) = (&pool, Barrier::new(3));
            let all = pool.scope(|scope| {
                let submit = || {
                    together.wait();
                    scope.submit(|| ()).result(LONG)
                };
                thread::scope(|threads| {
                    let submits = [(); 3].map(|()| threads.spawn(submit));
                    submits.map(|submit| submit.join().unwrap())
                })
            });
            assert!(all.unwrap().iter().all(|job| refusal(job.as_ref().unwrap_err()).is_some()));
        }
        tell.send(()).unwrap();
    });
    assert_eq!(told.recv_timeout(LONG), Ok(()));
}
