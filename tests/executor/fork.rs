//! A process that forks: an executor's threads stay in the parent, and the child is told so.
//!
//! Each test runs in a process of its own, which forks.

use super::{block_on, blocker};
use crate::child::in_a_child;
use crate::common::fork::in_a_fork;
use crate::common::tasks::until_all_others_sleep;
use crate::common::{LONG, eventually};
use callbridge::future::SubmitError;
use callbridge::{DedicatedThread, ResultError, ThreadPool, run_in_executor, to_thread};

fn forked<T: std::fmt::Debug>(result: &Result<T, ResultError>) {
    assert!(matches!(result, Err(ResultError::Forked)), "{result:?}");
}

/// Lets the pool's threads go to sleep: a lock that one holds at the fork stays locked in the child.
fn settle(pool: &ThreadPool) {
    pool.submit(|| ()).result(LONG).unwrap();
    eventually("they are idle", || pool.stats().idle == pool.stats().workers);
    until_all_others_sleep();
}

#[test]
fn to_thread_works_in_a_forked_process() {
    in_a_child("fork::to_thread_works_in_a_forked_process", || {
        assert_eq!(block_on(to_thread(|| 1)).unwrap(), 1);
        settle(ThreadPool::shared());
        in_a_fork(|| {
            assert_eq!(block_on(async { to_thread(|| 2).await }).unwrap(), 2);
            assert_eq!(ThreadPool::shared().submit(|| 3).result(LONG).unwrap(), 3);
            in_a_fork(|| {
                assert_eq!(block_on(async { to_thread(|| 4).await }).unwrap(), 4);
            });
            assert!(ThreadPool::shared().close_blocking(LONG).is_clean());
        });
        assert_eq!(block_on(async { to_thread(|| 5).await }).unwrap(), 5);
    });
}

/// The child goes on with the parent's loop.
#[test]
fn to_thread_answers_when_a_loop_forks_under_itself() {
    in_a_child("fork::to_thread_answers_when_a_loop_forks_under_itself", || {
        block_on(async {
            assert_eq!(to_thread(|| 1).await.unwrap(), 1);
            until_all_others_sleep();
            in_a_fork(|| {
                let call = to_thread(|| 2);
                forked(&futures_executor::block_on(call));
            });
        });
    });
}

#[test]
fn a_pool_of_the_parent_answers_in_a_forked_process() {
    in_a_child("fork::a_pool_of_the_parent_answers_in_a_forked_process", || {
        let idle = ThreadPool::builder().max_workers(1).build().unwrap();
        settle(&idle);
        let busy = ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
        let (release, _busy_job) = blocker(&busy);
        let mut inherited = busy.submit(|| 7);
        until_all_others_sleep();
        in_a_fork(|| {
            forked(&inherited.result(None));
            forked(&idle.submit(|| 2).result(None));
            forked(&block_on(run_in_executor(&idle, || 2)));
            forked(&busy.submit(|| 2).result(None));
            let refused = busy.submit_timeout(|| 2, LONG).unwrap_err();
            assert!(matches!(refused, SubmitError::Forked(_)), "{refused:?}");
            assert!(matches!(block_on(busy.submit_async(|| 2)), Err(SubmitError::Forked(_))));
            for pool in [&idle, &busy] {
                assert!(pool.wait_idle_blocking(None).is_err());
                assert!(!pool.close_blocking(None).is_clean());
                assert!(!block_on(pool.close(None)).is_clean());
            }
            let own = ThreadPool::builder().max_workers(1).build().unwrap();
            assert_eq!(own.submit(|| 3).result(LONG).unwrap(), 3);
            assert!(own.close_blocking(LONG).is_clean());
        });
        drop(release);
        assert_eq!(inherited.result(LONG).unwrap(), 7, "the parent's has noticed nothing");
        assert!(busy.close_blocking(LONG).is_clean() && idle.close_blocking(LONG).is_clean());
    });
}

#[test]
fn a_dedicated_thread_of_the_parent_answers_in_a_forked_process() {
    in_a_child("fork::a_dedicated_thread_of_the_parent_answers_in_a_forked_process", || {
        let thread = DedicatedThread::spawn(|| Ok::<_, String>(1)).result(LONG).unwrap();
        thread.call_blocking(|value| *value, LONG).unwrap();
        until_all_others_sleep();
        in_a_fork(|| {
            forked(&thread.call_blocking(|value| *value, None));
            forked(&thread.submit(|value| *value).result(None));
            forked(&block_on(thread.call(|value| *value)));
            forked(&thread.finish(|value| value).result(None));
            assert!(!thread.close_blocking(None).is_clean());
            let own = DedicatedThread::spawn(|| Ok::<_, String>(1)).result(LONG).unwrap();
            assert!(own.close_blocking(LONG).is_clean());
        });
        assert_eq!(thread.call_blocking(|value| *value, LONG).unwrap(), 1);
    });
}
