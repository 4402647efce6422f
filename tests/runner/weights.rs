//! `wrap_iter_weighed`.

use crate::both;
use crate::common::{Alive, Census, LONG};
use crate::iter::{FromFn, numbers};
use callbridge::{ResultError, ThreadRunner};
use futures_core::Stream;
use std::task::{Context, Poll};

/// Pieces of that size, for ever.
pub(crate) fn pieces(
    size: usize,
    census: &Census,
) -> impl Stream<Item = (Vec<u8>, Alive)> + Send + use<> {
    let census = census.clone();
    FromFn(move |_: &mut Context<'_>| Poll::Ready(Some((vec![0; size], census.guard()))))
}

/// A loop over a large body holds some of it, not all.
#[test]
fn the_stream_is_read_ahead_no_heavier_than_told() {
    for runner in both() {
        for (size, budget) in [(100_000, 1 << 20), (1, 4096), (5_000_000, 1 << 20), (7, 0)] {
            let census = Census::default();
            let most = budget / size + 3;
            let weigh = |(piece, _): &(Vec<u8>, Alive)| piece.len();
            let mut items = runner.wrap_iter_weighed(pieces(size, &census), budget, weigh);
            for _ in 0..100 {
                let item = items.next().unwrap().unwrap();
                // Let the reader go as far as it will: it only yields while it has room.
                for _ in 0..20 {
                    runner.spawn(tokio::task::yield_now()).result(LONG).unwrap();
                }
                drop(item);
                let ahead = census.alive();
                assert!(ahead <= most, "{ahead} pieces of {size} B ahead with {budget} B");
            }
            drop(items);
            assert_eq!(census.alive(), 0);
        }
    }
}

#[test]
fn items_without_weight_are_read_ahead_in_bounds_too() {
    let runner = ThreadRunner::new();
    let census = Census::default();
    let mut items = runner.wrap_iter_weighed(pieces(1, &census), 30, |_| 0);
    items.next().unwrap().unwrap();
    for _ in 0..100 {
        runner.spawn(tokio::task::yield_now()).result(LONG).unwrap();
    }
    assert!(census.alive() <= 30, "{} items ahead", census.alive());
}

#[test]
fn a_weight_that_panics_ends_the_iterator_after_the_items_before_it() {
    let runner = ThreadRunner::new();
    let weigh = |n: &u64| if *n < 3 { 1 } else { panic!("no scales") };
    let mut items = runner.wrap_iter_weighed(numbers(), 100, weigh);
    for expected in 0..3 {
        assert_eq!(items.next().unwrap().unwrap(), expected);
    }
    assert!(matches!(items.next(), Some(Err(ResultError::Panicked(_)))));
    assert!(items.next().is_none());
}
