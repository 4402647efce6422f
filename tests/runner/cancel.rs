//! `WrapIter::canceller`.

use crate::both;
use crate::common::tasks::until_asleep;
use crate::common::{Census, LONG, eventually};
use crate::iter::{FromFn, numbers, up_to};
use crate::weights::pieces;
use callbridge::runner::WrapIter;
use callbridge::{ResultError, ThreadRunner};
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;

fn assert_cancelled<T: Send + 'static>(mut items: WrapIter<T>) {
    assert!(matches!(items.next(), Some(Err(ResultError::Cancelled))));
    assert!(items.next().is_none(), "the error comes once, last");
    assert!(items.next_timeout(LONG).unwrap().is_none());
}

#[test]
fn a_canceller_releases_an_iterator_that_waits() {
    for runner in both() {
        let census = Census::default();
        let alive = census.guard();
        let stream = FromFn(move |_: &mut Context<'_>| -> Poll<Option<()>> {
            let _alive = &alive;
            Poll::Pending
        });
        let mut items = runner.wrap_iter(stream);
        let canceller = items.canceller();
        thread::scope(|scope| {
            let reader = thread::Builder::new().name("reads-an-iter".to_owned());
            let reading = reader.spawn_scoped(scope, move || (items.next(), items)).unwrap();
            until_asleep("reads-an-iter");
            assert!(canceller.cancel());
            assert!(!canceller.cancel(), "asked before");
            let (last, mut items) = reading.join().unwrap();
            assert!(matches!(last, Some(Err(ResultError::Cancelled))));
            assert!(items.next().is_none());
        });
        assert_eq!(census.alive(), 0);
    }
}

/// Items that were read ahead, all of the stream even, don't hold a cancel up.
#[test]
fn a_cancel_comes_before_what_was_read_ahead() {
    for runner in both() {
        let endless = runner.wrap_iter(numbers());
        let mut whole = runner.wrap_iter(up_to(100));
        assert_eq!(whole.next().unwrap().unwrap(), 0);
        while runner.bridge().unwrap().in_flight() > 1 {
            thread::yield_now();
        }
        for items in [endless, whole] {
            items.canceller().cancel();
            assert_cancelled(items);
        }
    }
}

#[test]
fn a_canceller_releases_an_iterator_whose_stream_blocks() {
    for runner in both() {
        let (began, begun) = mpsc::channel();
        let (release, blocked) = mpsc::channel::<()>();
        let mut items = runner.wrap_iter(FromFn(move |_: &mut Context<'_>| -> Poll<Option<()>> {
            began.send(()).unwrap();
            let _ = blocked.recv_timeout(LONG);
            Poll::Ready(None)
        }));
        begun.recv_timeout(LONG).unwrap();
        let canceller = items.canceller();
        thread::scope(|scope| {
            let reader = thread::Builder::new().name("reads-a-blocked".to_owned());
            let reading = reader.spawn_scoped(scope, move || (items.next(), items)).unwrap();
            until_asleep("reads-a-blocked");
            canceller.cancel();
            let (last, items) = reading.join().unwrap();
            assert!(matches!(last, Some(Err(ResultError::Cancelled))));
            drop(release);
            drop(items);
        });
    }
}

/// A handler that is never dropped keeps neither the stream nor its items.
#[test]
fn a_canceller_that_stays_keeps_nothing_alive() {
    let runner = ThreadRunner::new();
    let census = Census::default();
    let mut items = runner.wrap_iter(pieces(1, &census));
    items.next().unwrap().unwrap();
    let canceller = items.canceller();
    drop(items);
    assert_eq!(census.alive(), 0);
    canceller.cancel();
}

/// What was read ahead goes with the cancel, not with the iterator.
#[test]
fn a_cancelled_iterator_holds_no_items() {
    for runner in both() {
        let census = Census::default();
        let mut items = runner.wrap_iter(pieces(1, &census));
        items.next().unwrap().unwrap();
        items.canceller().cancel();
        assert!(matches!(items.next(), Some(Err(ResultError::Cancelled))));
        eventually("the reader has gone", || census.alive() == 0);
        assert!(items.next().is_none());
    }
}
