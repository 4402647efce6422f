//! ThreadPool::map.

use super::{block_on, pool_of};
use crate::common::{LONG, SHORT};
use callbridge::{ResultError, ThreadPool};
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

pub(super) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

/// C38, C44: the results of a plain map, in order, with any buffer.
#[test]
fn map_keeps_the_order_of_its_input() {
    block_on(async {
        let pool = pool_of(4);
        for buffer in [1, 2, 5, 100] {
            let mut squares = pool.map(0..50_u64, |n| n * n, buffer);
            for n in 0..50 {
                assert_eq!(next(&mut squares).await.unwrap().unwrap(), n * n);
            }
            assert!(next(&mut squares).await.is_none());
            assert!(next(&mut squares).await.is_none(), "the end stays the end");
        }
    });
}

/// C39: a failing item gives its error in its place, and the stream goes on.
#[test]
fn map_goes_on_after_a_panic() {
    block_on(async {
        let pool = pool_of(2);
        let mut mapped = pool.map(0..5, |n| if n == 2 { panic!("not {n}") } else { n }, 3);
        let mut outcomes = Vec::new();
        while let Some(outcome) = next(&mut mapped).await {
            outcomes.push(outcome.map_err(|error| matches!(error, ResultError::Panicked(_))));
        }
        assert_eq!(outcomes, [Ok(0), Ok(1), Err(true), Ok(3), Ok(4)]);
    });
}

/// C40: a timeout that the work returns is the work's. C41, C58: after a deadline of the caller's
/// the stream is dropped, and what hasn't begun never runs.
#[test]
fn dropping_a_map_keeps_what_has_not_begun_from_running() {
    block_on(async {
        let pool = pool_of(1);
        let mut own = pool.map(0..1, |_| Err::<(), _>("timed out"), 1);
        assert_eq!(next(&mut own).await.unwrap().unwrap(), Err("timed out"));

        let ran = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&ran);
        let (began, begun) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = std::sync::Mutex::new(blocked);
        let count = move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            began.send(()).unwrap();
            drop(blocked.lock().map(|blocked| blocked.recv()));
        };
        let mut mapped = pool.map(0..10, count, 10);
        begun.recv_timeout(LONG).unwrap();
        assert!(tokio::time::timeout(SHORT, next(&mut mapped)).await.is_err());
        drop(mapped);
        drop(release);
        super::clean(&pool.close(LONG).await);
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    });
}

/// C45, C47: endless input; never more taken than the buffer holds. C53: submission is eager.
#[test]
fn map_takes_no_more_than_its_buffer() {
    block_on(async {
        let pool = pool_of(2);
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&taken);
        let endless = (0_usize..).inspect(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let mut mapped = pool.map(endless, |n| n, 4);
        assert_eq!(taken.load(Ordering::SeqCst), 4, "at once, without a reader");
        for n in 0..100 {
            assert_eq!(next(&mut mapped).await.unwrap().unwrap(), n);
            assert_eq!(taken.load(Ordering::SeqCst), n + 5);
        }
    });
}

/// C46: empty input ends at once.
#[test]
fn map_over_nothing_ends_at_once() {
    block_on(async {
        let pool = pool_of(1);
        assert!(next(&mut pool.map(std::iter::empty::<u8>(), |n| n, 1)).await.is_none());
        assert_eq!(pool.stats().workers, 0);
    });
}

/// A buffer that is longer than the queue fills it and waits.
#[test]
fn map_waits_for_a_queue_shorter_than_its_buffer() {
    block_on(async {
        let pool = ThreadPool::builder().max_workers(2).capacity(1).build().unwrap();
        let mut mapped = pool.map(0..500, |n| n, 64);
        for n in 0..500 {
            assert_eq!(next(&mut mapped).await.unwrap().unwrap(), n);
        }
        assert!(next(&mut mapped).await.is_none());
    });
}

/// The stream is a handle to its pool.
#[test]
fn a_map_outlives_the_other_handles_of_its_pool() {
    fn numbers() -> impl Stream<Item = Result<u64, ResultError>> + Unpin {
        pool_of(2).map(0.., |n| n, 8)
    }
    let mut numbers = numbers();
    block_on(async {
        for n in 0..500 {
            assert_eq!(next(&mut numbers).await.unwrap().unwrap(), n);
        }
    });
}
