//! Room in a pool's queue: who needs it, who waits for it, who is refused.

use super::{block_on, blocker};
use crate::common::{Census, LONG, SHORT, refusal};
use callbridge::future::{FutureState, Refusal, SubmitError};
use callbridge::{ThreadPool, run_in_executor};
use std::future::poll_fn;
use std::pin::Pin;
use std::thread;

/// A call that somebody waits for needs no room; one that is cancelled gives its own back at once.
#[test]
fn awaited_calls_do_not_count_against_the_capacity() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
        let (release, _busy) = blocker(&pool);
        let first = run_in_executor(&pool, || 1);
        let second = run_in_executor(&pool, || 2);
        let submitted = pool.try_submit(|| 3).unwrap();
        assert!(matches!(pool.try_submit(|| 4), Err(SubmitError::Full(_))));
        assert_eq!(pool.stats().queued, 3);
        drop(release);
        let (second, third, first) = tokio::join!(second, submitted, first);
        assert_eq!((first.unwrap(), second.unwrap(), third.unwrap()), (1, 2, 3));
    });
}

#[test]
fn a_cancelled_job_gives_its_room_back_at_once() {
    let pool = ThreadPool::builder().max_workers(1).capacity(2).build().unwrap();
    let (release, mut busy) = blocker(&pool);
    let _first = pool.try_submit(|| 1).unwrap();
    for n in 0..100 {
        let job = pool.try_submit(move || n).unwrap();
        assert!(matches!(pool.try_submit(|| ()), Err(SubmitError::Full(_))));
        assert!(job.cancel());
        assert_eq!(pool.stats().queued, 1);
    }
    let waiting = pool.clone();
    let last = pool.try_submit(|| 2).unwrap();
    let waiting = thread::spawn(move || waiting.submit_timeout(|| 3, LONG).unwrap());
    last.cancel();
    let mut third = waiting.join().unwrap();
    drop(release);
    busy.result(LONG).unwrap();
    assert_eq!(third.result(LONG).unwrap(), 3);
}

#[test]
fn a_submission_that_awaits_room_is_refused_when_the_pool_closes() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
        let (release, _busy) = blocker(&pool);
        let _queued = pool.submit(|| ());
        let mut waiting = Box::pin(pool.submit_async(|| 7));
        assert!(futures_poll_once(&mut waiting).await.is_none());
        let called = run_in_executor(&pool, || ());
        let report = pool.close(SHORT).await;
        assert_eq!((report.cut_off, report.in_flight), (2, 1), "{report}");
        let refused = waiting.await.unwrap_err();
        assert!(matches!(refused, SubmitError::Closed(_)), "{refused:?}");
        assert_eq!(refused.into_inner()(), 7);
        let refused = called.await.unwrap_err();
        assert!(matches!(refusal(&refused), Some(Refusal::Closed)), "{refused:?}");
        drop(release);
    });
}

#[test]
fn try_submit_hands_the_job_back_when_the_queue_is_full() {
    let pool = ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
    let (release, _busy) = blocker(&pool);
    let mut queued = pool.try_submit(|| 1).unwrap();
    let error = pool.try_submit(|| 2).unwrap_err();
    assert!(matches!(error, SubmitError::Full(_)));
    assert_eq!(error.into_inner()(), 2);
    let error = pool.submit_timeout(|| 3, SHORT).unwrap_err();
    assert!(matches!(error, SubmitError::TimedOut(_)));
    assert_eq!(error.into_inner()(), 3);
    drop(release);
    assert_eq!(queued.result(LONG).unwrap(), 1);
}

#[test]
fn submit_waits_for_room() {
    let pool = ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
    let (release, _busy) = blocker(&pool);
    let _queued = pool.submit(|| 1);
    let submitting = pool.clone();
    let waiting = thread::spawn(move || submitting.submit(|| 2).result(LONG).unwrap());
    drop(release);
    assert_eq!(waiting.join().unwrap(), 2);
}

#[test]
fn a_submission_that_would_block_the_loop_is_refused() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
        let (release, _busy) = blocker(&pool);
        let queued = pool.submit(|| 1);
        let refused = pool.submit(|| 2);
        assert_eq!(refused.state(), FutureState::WouldDeadlock);
        let error = pool.submit_timeout(|| 3, LONG).unwrap_err();
        assert!(matches!(error, SubmitError::WouldDeadlock(_)));
        drop(release);
        assert_eq!(queued.await.unwrap(), 1);
    });
}

#[test]
fn submit_async_awaits_room_and_hands_back_when_closed() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(1).capacity(1).build().unwrap();
        let (release, _busy) = blocker(&pool);
        let queued = pool.submit_async(|| 1).await.unwrap();
        let mut third = Box::pin(pool.submit_async(|| 2));
        assert!(futures_poll_once(&mut third).await.is_none(), "there is no room");
        // Cancel safety: the job of a submission that is dropped never runs.
        let census = Census::default();
        let guard = census.guard();
        let mut dropped = Box::pin(pool.submit_async(move || drop(guard)));
        assert!(futures_poll_once(&mut dropped).await.is_none());
        drop(dropped);
        assert_eq!(census.alive(), 0);
        drop(release);
        assert_eq!(third.await.unwrap().await.unwrap(), 2);
        assert_eq!(queued.await.unwrap(), 1);
        super::clean(&pool.close(LONG).await);
        let error = pool.submit_async(|| 4).await.unwrap_err();
        assert!(matches!(error, SubmitError::Closed(_)));
        assert_eq!(error.into_inner()(), 4);
    });
}

async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    poll_fn(|cx| match Pin::new(&mut *future).poll(cx) {
        std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}
