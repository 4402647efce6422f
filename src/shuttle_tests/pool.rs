//! A pool of threads from the submission to the result: who looks at the queue, lends, delivers, and
//! leaves. And a dedicated thread, which waits for work that waits for it.

use super::*;
use crate::executor::{DedicatedThread, ThreadPool};
use crate::future::SubmitError;
use crate::{BlockingFuture, Bridge, ResultError};
use shuttle::future::block_on;
use shuttle::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_millis(1);

fn pool() -> ThreadPool {
    let idle_timeout = if maybe() { SOON } else { Duration::MAX };
    let workers = 1 + any(2);
    let builder = ThreadPool::builder()
        .max_workers(workers)
        .max_threads(workers + any(3))
        .idle_timeout(idle_timeout);
    let builder = if maybe() { builder.capacity(1 + any(2)) } else { builder.unbounded() };
    builder.build().unwrap()
}

/// A job of one of all kinds; one waits for another job of its own pool.
fn job(value: Counted, pool: ThreadPool) -> impl FnOnce() -> Counted + Send {
    move || {
        match any(4) {
            0 => thread::yield_now(),
            1 => drop(pool.submit(thread::yield_now).result(None)),
            2 => {
                let token = crate::executor::CancelToken::current().unwrap();
                let _ = token.wait(SOON);
            }
            _ => {}
        }
        value
    }
}

fn submit(pool: &ThreadPool, tally: &Tally) -> Option<BlockingFuture<Counted>> {
    let value = tally.make();
    let id = value.id;
    let job = job(value, pool.clone());
    let submitted = if maybe() {
        Some(pool.submit(job))
    } else {
        match pool.try_submit(job) {
            Ok(call) => Some(call),
            Err(SubmitError::Full(_) | SubmitError::Closed(_) | SubmitError::Refused(..)) => None,
            Err(error) => panic!("{error}"),
        }
    };
    match &submitted {
        Some(call) => {
            let tally = tally.clone();
            call.add_done_callback(move |state| tally.note(id, name(state)));
        }
        None => tally.note(id, "refused"),
    }
    submitted
}

fn wait(mut call: BlockingFuture<Counted>) {
    let result = match any(5) {
        0 => call.result(None),
        1 => block_on(call),
        2 => {
            call.cancel();
            call.result(None)
        }
        3 => match call.result(SOON) {
            Err(ResultError::TimedOut { .. }) => call.result(None),
            result => result,
        },
        _ => return,
    };
    match result {
        Ok(_) | Err(ResultError::Cancelled | ResultError::Refused(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_job_ends_once_however_the_pool_ends() {
    check(|| {
        let (tally, pool) = (Tally::default(), pool());
        let threads = [(); 2].map(|()| {
            let (pool, tally) = (pool.clone(), tally.clone());
            thread::spawn(move || {
                let calls = [(); 2].map(|()| submit(&pool, &tally));
                calls.into_iter().flatten().for_each(wait);
            })
        });
        let ender = {
            let pool = pool.clone();
            thread::spawn(move || match any(3) {
                0 => drop(pool.close_blocking(SOON)),
                1 => drop(block_on(pool.close(SOON))),
                _ => drop(pool),
            })
        };
        threads.into_iter().chain([ender]).for_each(|thread| thread.join().unwrap());
        // Without a deadline that could pass: all there is left is the workers' own way out.
        let report = pool.close_blocking(Duration::MAX);
        assert_eq!((report.cut_off, report.still_running.len()), (0, 0), "{report}");
        assert_eq!(pool.stats().workers, 0);
        tally.assert_settled();
    });
}

/// Nobody closes the pool before every answer is there.
#[test]
fn every_job_is_answered_while_the_pool_is_open() {
    check(|| {
        let pool = pool();
        let threads = [(); 2].map(|()| {
            let pool = pool.clone();
            thread::spawn(move || {
                for answer in 0..3 {
                    let inner = maybe().then(|| pool.clone());
                    let job = move || match inner {
                        Some(pool) => pool.submit(move || answer).result(None).unwrap(),
                        None => answer,
                    };
                    assert_eq!(pool.submit(job).result(None).unwrap(), answer);
                }
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(pool.close_blocking(Duration::MAX).is_clean());
    });
}

/// A call of a dedicated thread of one of all kinds.
fn use_thread(thread: &DedicatedThread<usize>, tally: &Tally) {
    let value = tally.make();
    let id = value.id;
    match any(4) {
        0 => {
            let result = thread.call_blocking(move |_| value, None);
            let fate = if result.is_ok() { "taken" } else { "refused" };
            tally.note(id, fate);
        }
        1 => {
            let undo = |count: &mut usize, _: Counted| *count += 1;
            let mut call = thread.call_or_undo(move |_| value, undo);
            if maybe() {
                return match block_on(call) {
                    Ok(_) => tally.note(id, "taken"),
                    Err(_) => tally.note(id, "refused"),
                };
            }
            call.cancel();
            drop(call);
        }
        2 => {
            // It waits for work that waits for the thread.
            let (own, bridge) = (thread.clone(), Bridge::new(handle()));
            let waits = move |_: &mut usize| {
                let later = async move { own.call(|count| *count += 1).await };
                let mut inner = bridge.run_coroutine_threadsafe(later);
                match inner.result(None) {
                    Err(ResultError::WouldDeadlock) | Ok(Err(ResultError::Refused(_))) => {}
                    other => panic!("{other:?}"),
                }
                value
            };
            let result = thread.call_blocking(waits, None);
            let fate = if result.is_ok() { "taken" } else { "refused" };
            tally.note(id, fate);
        }
        _ => {
            let mut call = thread.submit(move |_| value);
            call.cancel();
            let _ = call.result(None);
            tally.note(id, "ended");
        }
    }
}

#[test]
fn every_call_of_a_thread_ends_once_and_cycles_are_told() {
    check(|| {
        let tally = Tally::default();
        let thread = DedicatedThread::spawn(|| Ok::<_, String>(0)).result(None).unwrap();
        let users = [(); 2].map(|()| {
            let (thread, tally) = (thread.clone(), tally.clone());
            thread::spawn(move || (0..2).for_each(|_| use_thread(&thread, &tally)))
        });
        let ender = {
            let thread = thread.clone();
            thread::spawn(move || match any(3) {
                0 => drop(thread.close_blocking(SOON)),
                1 => drop({ thread.finish(|count| count) }.result(None)),
                _ => drop(thread),
            })
        };
        users.into_iter().chain([ender]).for_each(|thread| thread.join().unwrap());
        let report = thread.close_blocking(Duration::MAX);
        assert_eq!((report.in_flight, report.still_running.len()), (0, 0), "{report}");
        tally.assert_gone();
    });
}
