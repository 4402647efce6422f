//! A sender as a `Sink`.

use crate::*;
use callbridge::Overflow;
use callbridge::channel::{self, SenderSink};
use callbridge::channel::{Ending, SendError};
use futures_sink::Sink;

type Polled = Poll<Result<(), SendError<u32>>>;

fn ready(sink: &mut SenderSink<u32>) -> Polled {
    Pin::new(sink).poll_ready(&mut Context::from_waker(Waker::noop()))
}

fn flush(sink: &mut SenderSink<u32>) -> Polled {
    Pin::new(sink).poll_flush(&mut Context::from_waker(Waker::noop()))
}

fn close(sink: &mut SenderSink<u32>) -> Polled {
    Pin::new(sink).poll_close(&mut Context::from_waker(Waker::noop()))
}

fn start(sink: &mut SenderSink<u32>, frame: u32) -> Result<(), SendError<u32>> {
    assert_eq!(ready(sink), Poll::Ready(Ok(())));
    Pin::new(sink).start_send(frame)
}

#[test]
fn frames_go_in_while_there_is_room_and_wait_otherwise() {
    let (sender, mut frames) = channel::channel(1);
    let mut sink = sender.into_sink();
    assert_eq!(flush(&mut sink), Poll::Ready(Ok(())), "nothing to flush");
    start(&mut sink, 1).unwrap();
    start(&mut sink, 2).unwrap();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(Pin::new(&mut sink).poll_ready(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(frames.try_recv(), Ok(1));
    assert_eq!(wakes.count(), 1);
    assert_eq!(flush(&mut sink), Poll::Ready(Ok(())));
    assert_eq!(frames.try_recv(), Ok(2));
    assert_balanced(&frames.stats());
}

#[test]
fn closing_sends_what_waits_and_ends_the_channel_with_the_last_sender() {
    let (sender, mut frames) = channel::channel(1);
    let another = sender.clone();
    let mut sink = sender.into_sink();
    start(&mut sink, 1).unwrap();
    start(&mut sink, 2).unwrap();
    assert!(close(&mut sink).is_pending());
    assert_eq!(frames.try_recv(), Ok(1));
    assert_eq!(close(&mut sink), Poll::Ready(Ok(())));
    assert_eq!(close(&mut sink), Poll::Ready(Ok(())), "closed is closed");
    assert_eq!(Pin::new(&mut sink).start_send(3), Err(SendError::Closed(3)));
    assert_eq!((another.ending(), another.sender_count()), (None, 1));
    drop(another);
    assert_eq!(frames.try_recv(), Ok(2));
    assert!(frames.try_recv().is_err());
    assert_eq!(frames.ending(), Some(Ending::Finished));
}

#[test]
fn the_policy_and_the_end_speak_through_the_next_poll() {
    let (sender, frames) = channel::builder().capacity(1).overflow(Overflow::Fail).build().unwrap();
    let mut sink = sender.clone().into_sink();
    start(&mut sink, 1).unwrap();
    start(&mut sink, 2).unwrap();
    assert_eq!(flush(&mut sink), Poll::Ready(Err(SendError::Full(2))));
    start(&mut sink, 3).unwrap();
    drop(frames);
    assert_eq!(close(&mut sink), Poll::Ready(Err(SendError::Closed(3))));
    assert_balanced(&sender.stats());

    let (sender, mut frames) =
        channel::builder().capacity(1).overflow(Overflow::DropOldest).build().unwrap();
    let mut sink = sender.into_sink();
    for frame in 1..=3 {
        start(&mut sink, frame).unwrap();
    }
    assert_eq!(flush(&mut sink), Poll::Ready(Ok(())));
    assert_eq!((frames.try_recv(), frames.stats().lost.evicted), (Ok(3), 2));
}

#[test]
fn a_sink_that_is_dropped_loses_the_frame_that_waits() {
    for polled in [false, true] {
        let (sender, frames) = channel::channel(1);
        sender.send(1).unwrap();
        let mut sink = sender.clone().into_sink();
        start(&mut sink, 2).unwrap();
        assert!(!polled || flush(&mut sink).is_pending());
        drop(sink);
        let stats = frames.stats();
        assert_balanced(&stats);
        assert_eq!((stats.lost.send_cancelled, stats.waiting), (1, 0));
    }
}

#[test]
#[should_panic = "a sink was used before it was ready"]
fn a_second_frame_before_the_first_is_on_its_way_is_a_mistake() {
    let (sender, _frames) = channel::channel(1);
    let mut sink = sender.into_sink();
    start(&mut sink, 1).unwrap();
    let _ = Pin::new(&mut sink).start_send(2);
}
