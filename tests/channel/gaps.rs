//! A stream that says where frames are missing.

use crate::*;
use callbridge::Overflow;
use callbridge::channel::{self, FrameOrGap, GapStream};
use callbridge::channel::{Ending, RecvError};
use futures_core::stream::FusedStream;

fn lossy<T>(capacity: usize, overflow: Overflow) -> (Sender<T>, GapStream<T>) {
    let (sender, frames) =
        channel::builder().capacity(capacity).overflow(overflow).build().unwrap();
    (sender, frames.with_gaps())
}

/// What is there, gaps as negative numbers.
fn read_all(frames: &mut GapStream<i64>) -> Vec<i64> {
    let next = || match frames.try_recv().ok()? {
        FrameOrGap::Frame(frame) => Some(frame),
        FrameOrGap::Gap(frames) => Some(-i64::try_from(frames).unwrap()),
    };
    std::iter::from_fn(next).collect()
}

fn send_all(sender: &Sender<i64>, frames: impl IntoIterator<Item = i64>) {
    for frame in frames {
        sender.send(frame).unwrap();
    }
}

#[test]
fn evicted_frames_leave_a_gap_before_what_remains() {
    let (sender, mut frames) = lossy(3, Overflow::DropOldest);
    send_all(&sender, 1..=5);
    assert_eq!(read_all(&mut frames), [-2, 3, 4, 5]);
    send_all(&sender, 6..=8);
    assert_eq!(frames.try_recv(), Ok(FrameOrGap::Frame(6)));
    send_all(&sender, 9..=11);
    assert_eq!(read_all(&mut frames), [-2, 9, 10, 11]);
    assert_eq!(frames.try_recv(), Err(RecvError::Empty));
}

#[test]
fn dropped_frames_leave_a_gap_behind_what_was_queued() {
    let (sender, mut frames) = lossy(2, Overflow::DropNewest);
    send_all(&sender, 1..=5);
    assert_eq!(frames.try_recv(), Ok(FrameOrGap::Frame(1)));
    send_all(&sender, 6..=8);
    assert_eq!(read_all(&mut frames), [2, -3, 6, -2]);
    send_all(&sender, 9..=9);
    assert_eq!(read_all(&mut frames), [9]);
}

#[test]
fn the_latest_frame_knows_how_many_it_replaced() {
    let (sender, mut frames) = lossy(1, Overflow::Latest);
    send_all(&sender, 1..=1);
    assert_eq!(read_all(&mut frames), [1]);
    send_all(&sender, 2..=1000);
    assert_eq!(read_all(&mut frames), [-998, 1000]);
}

#[test]
fn gaps_and_control_frames_keep_their_order() {
    let (sender, mut frames) = lossy(2, Overflow::DropOldest);
    sender.send_control(100).unwrap();
    send_all(&sender, 1..=1);
    sender.send_control(101).unwrap();
    send_all(&sender, 2..=2);
    sender.send_control(102).unwrap();
    send_all(&sender, 3..=5);
    assert_eq!(read_all(&mut frames), [100, -1, 101, -1, 102, -1, 4, 5]);
}

#[test]
fn a_heavy_frame_leaves_one_gap_for_all_that_it_evicts() {
    let (sender, frames) = channel::builder()
        .weigh(|weight: &i64| usize::try_from(*weight).unwrap(), 10)
        .overflow(Overflow::DropOldest)
        .build()
        .unwrap();
    let mut frames = frames.with_gaps();
    send_all(&sender, [1, 2, 3, 4]);
    send_all(&sender, [5]);
    assert!(sender.send(11).is_err(), "too heavy: lost, and counted so");
    send_all(&sender, [1]);
    assert_eq!(read_all(&mut frames), [-3, 4, 5, -1, 1]);
    assert_eq!(frames.get_ref().stats().lost.total(), 4);
}

#[test]
fn what_was_lost_before_anybody_asked_comes_as_one_gap_in_front() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let (sender, mut frames) =
            channel::builder().capacity(2).overflow(overflow).build().unwrap();
        send_all(&sender, 1..=5);
        let first = frames.try_recv().unwrap();
        let mut frames = frames.with_gaps();
        send_all(&sender, 6..=7);
        let mut read = vec![first];
        read.extend(read_all(&mut frames));
        let expected = match overflow {
            Overflow::DropOldest => [4, -3, -1, 6, 7],
            _ => [1, -3, 2, 6, -1],
        };
        assert_eq!(read, expected, "{overflow:?}");
    }
}

#[test]
fn a_frame_that_went_back_to_its_sender_leaves_no_gap() {
    let (sender, mut frames) = lossy(1, Overflow::Fail);
    sender.send(1).unwrap();
    assert!(sender.send(2).is_err());
    assert!(sender.send_timeout(3, Duration::ZERO).is_err());
    let mut taken_back = sender.send_async(4);
    assert_eq!(taken_back.cancel(), Some(4));
    assert_eq!(read_all(&mut frames), [1]);
}

#[test]
fn an_awaiting_consumer_is_woken_for_a_gap() {
    let (sender, mut frames) = lossy(1, Overflow::Block);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    {
        let mut next = Box::pin(frames.recv());
        let mut cx = Context::from_waker(&waker);
        assert!(next.as_mut().poll(&mut cx).is_pending());
        drop(sender.send_async(1));
        assert_eq!(wakes.count(), 1);
        assert_eq!(next.as_mut().poll(&mut cx), Poll::Ready(Some(FrameOrGap::Gap(1))));
    }
    assert_eq!(frames.try_recv(), Err(RecvError::Empty));
}

#[test]
fn a_gap_is_read_before_the_end_and_losses_after_it_are_none() {
    let (sender, mut frames) = lossy(1, Overflow::DropNewest);
    send_all(&sender, 1..=3);
    let callback = sender.callback();
    sender.close();
    callback(4);
    assert_eq!(frames.get_ref().stats().lost.closed, 1);
    assert_eq!(frames.recv_blocking(None), Ok(FrameOrGap::Frame(1)));
    assert!(!frames.is_terminated());
    assert_eq!(frames.recv_blocking(None), Ok(FrameOrGap::Gap(2)));
    assert_eq!(frames.try_recv(), Err(RecvError::Ended));
    assert!(frames.is_terminated());
    assert_eq!(frames.get_ref().ending(), Some(Ending::Finished));
}

#[test]
fn gaps_that_nobody_read_are_no_frames() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let (sender, mut frames) = lossy(2, overflow);
        send_all(&sender, 1..=4);
        assert!(frames.try_recv().is_ok());
        send_all(&sender, 5..=7);
        let counters = frames.get_ref().stats();
        assert_eq!(frames.get_ref().len() as u64, counters.queued);
        assert_balanced(&counters);
        drop(frames);
        assert_eq!(sender.stats().lost.consumer_dropped, counters.queued);
        assert_balanced(&sender.stats());
    }
}
