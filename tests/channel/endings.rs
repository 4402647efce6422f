//! Who ends a channel, what the other side is told, and in what order.

use crate::common::whole;
use crate::*;
use callbridge::channel::{Ending, RecvError, SendError, SourceError};
use callbridge::{FrameStream, channel};
use futures_core::Stream;
use futures_core::stream::FusedStream;
use std::io;

fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    match Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(item) => item,
        Poll::Pending => panic!("the stream has something to say"),
    }
}

/// b2, b33, b71, b118. Kotlin: a source that closes with an error after five items: all five, then
/// the error. Swift: the error comes once, then the end for ever.
#[test]
fn frames_the_error_and_the_end_come_in_this_order() {
    let (sender, frames) = channel(8);
    for frame in 0..5 {
        sender.send(frame).unwrap();
    }
    assert!(sender.fail(io::Error::from(io::ErrorKind::ConnectionReset)));
    let mut frames = frames.into_try_stream();
    for expected in 0..5 {
        assert_eq!(next(&mut frames).unwrap().unwrap(), expected);
        assert_eq!(frames.get_ref().ending(), None);
        assert!(!frames.is_terminated());
    }
    let error: SourceError = next(&mut frames).unwrap().unwrap_err();
    let inner = error.downcast_ref::<io::Error>().unwrap();
    assert_eq!(inner.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(error.to_string(), inner.to_string());
    assert!(next(&mut frames).is_none() && next(&mut frames).is_none());
    assert!(frames.is_terminated());
    assert_eq!(frames.get_ref().ending(), Some(Ending::Failed));
}

#[test]
fn a_plain_stream_just_ends_and_keeps_the_reason() {
    let (sender, mut frames) = channel(2);
    sender.send(1).unwrap();
    sender.fail("unplugged");
    assert_eq!(next(&mut frames), Some(1));
    assert!(frames.ending().is_none() && frames.error().is_none() && !frames.is_terminated());
    assert_eq!((next(&mut frames), next(&mut frames)), (None, None));
    assert_eq!(frames.ending(), Some(Ending::Failed));
    assert_eq!(frames.error().unwrap().to_string(), "unplugged");
    assert!(frames.is_terminated());
}

#[test]
fn the_error_of_a_stream_has_the_cause_of_the_sources() {
    #[derive(Debug, thiserror::Error)]
    #[error("the device is gone")]
    struct Gone(#[source] io::Error);

    let (sender, mut frames) = channel::<u8>(1);
    sender.fail(Gone(io::ErrorKind::ConnectionReset.into()));
    assert!(next(&mut frames).is_none());
    assert_eq!(whole(&frames.error().unwrap()), "the device is gone: connection reset");
}

/// b8, b24, b32, b34, b48. Kotlin and Swift: true once, then false; what comes after the end
/// changes nothing.
#[test]
fn the_first_end_wins() {
    let (sender, mut frames) = channel(2);
    let other = sender.clone();
    sender.send(1).unwrap();
    assert!(sender.close());
    assert!(!sender.close() && !sender.fail("late") && !frames.close());
    assert_eq!(other.send(2), Err(SendError::Closed(2)));
    assert_eq!(poll_once(&mut other.send_async(2)), Poll::Ready(Err(SendError::Closed(2))));
    assert!(sender.send_timeout(2, LIMIT).is_err() && sender.try_send(2).is_err());
    assert_eq!(next(&mut frames), Some(1));
    assert_eq!((next(&mut frames), next(&mut frames)), (None, None));
    drop((sender, other));
    assert_eq!(frames.ending(), Some(Ending::Finished));
    assert!(frames.error().is_none());
    assert_balanced(&frames.stats());
}

/// b10. Kotlin: a blocking send, parked or late, is closed with exactly the channel's cause.
#[test]
fn a_refused_send_finds_the_cause_in_the_ending() {
    type End = fn(&Sender<u8>, &mut Option<FrameStream<u8>>) -> bool;
    let ends: [(End, Ending); 4] = [
        (|sender, _| sender.close(), Ending::Finished),
        (|sender, _| sender.fail("unplugged"), Ending::Failed),
        (|_, frames| frames.as_mut().unwrap().close(), Ending::ConsumerDropped),
        (|_, frames| frames.take().is_some(), Ending::ConsumerDropped),
    ];
    within(move || {
        for (end, cause) in ends {
            let (sender, frames) = channel(1);
            let mut frames = Some(frames);
            sender.send(1).unwrap();
            let parked = sender.clone();
            let source = std::thread::spawn(move || (parked.send(2), parked.ending()));
            until_parked(&sender, 1);
            assert!(end(&sender, &mut frames));
            assert_eq!(source.join().unwrap(), (Err(SendError::Closed(2)), Some(cause)));
            assert_eq!((sender.send(3), sender.ending()), (Err(SendError::Closed(3)), Some(cause)));
        }
    });
}

/// b40. Swift ends a stream with the first error that is yielded; here a frame that is an error is
/// a frame like any other, and `fail` ends.
#[test]
fn a_frame_that_is_an_error_ends_nothing() {
    let (sender, mut frames) = channel(2);
    sender.send(Err("bad checksum")).unwrap();
    sender.send(Ok(1)).unwrap();
    assert_eq!((next(&mut frames), next(&mut frames)), (Some(Err("bad checksum")), Some(Ok(1))));
    assert!(sender.fail("unplugged"));
    assert_eq!(sender.send(Ok(2)), Err(SendError::Closed(Ok(2))));
    assert_eq!(next(&mut frames), None);
}

/// b47. Swift: dropping one of several producers ends nothing, the last one ends the stream after
/// its frames.
#[test]
fn the_last_sender_ends_the_stream() {
    let (sender, mut frames) = channel(2);
    let other = sender.clone();
    drop(sender);
    other.send(1).unwrap();
    assert_eq!(frames.try_recv(), Ok(1));
    assert_eq!(frames.try_recv(), Err(RecvError::Empty));
    other.send(2).unwrap();
    drop(other);
    assert_eq!(frames.try_recv(), Ok(2));
    assert_eq!(frames.try_recv(), Err(RecvError::Ended));
    assert_eq!(frames.ending(), Some(Ending::Finished));
}

#[test]
fn a_source_that_panics_is_told_apart_from_one_that_finishes() {
    let (sender, mut frames) = channel(2);
    let source = std::thread::spawn(move || {
        sender.send(1).unwrap();
        panic!("the source's own fault");
    });
    assert!(source.join().is_err());
    assert_eq!(frames.try_recv(), Ok(1));
    assert_eq!(next(&mut frames), None);
    assert_eq!(frames.ending(), Some(Ending::Panicked));
    let mut frames = frames.into_try_stream();
    let error = next(&mut frames).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the source panicked");
    assert!(next(&mut frames).is_none());
}

#[test]
fn a_stream_whose_source_was_stopped_yields_no_error() {
    let stopped = callbridge::Listener::from_fn(|sink: callbridge::listener::LoopHandle<u8>| {
        sink.wait_stop(None).unwrap();
        Ok(())
    });
    let (listener, frames) = stopped.spawn().unwrap();
    assert!(listener.close_blocking(std::time::Duration::from_secs(30)).is_clean());
    let mut frames = frames.into_try_stream();
    assert!(next(&mut frames).is_none());
    assert_eq!(frames.get_ref().ending(), Some(Ending::Aborted));
}

#[test]
fn a_finished_or_closed_stream_yields_no_error() {
    for close_the_stream in [false, true] {
        let (sender, mut frames) = channel::<u8>(1);
        if close_the_stream {
            frames.close();
        } else {
            sender.close();
        }
        assert!(next(&mut frames.into_try_stream()).is_none());
    }
}

#[test]
fn what_is_queued_at_the_end_of_the_source_is_lost_when_the_consumer_goes() {
    let (sender, frames) = channel(2);
    sender.send(1).unwrap();
    sender.close();
    drop(frames);
    assert_eq!(sender.ending(), Some(Ending::Finished));
    assert_eq!(sender.stats().lost.consumer_dropped, 1);
    assert_balanced(&sender.stats());
}

#[test]
fn a_frame_whose_destructor_panics_does_not_stop_the_others_from_going() {
    struct Bomb(Arc<AtomicUsize>);
    impl Drop for Bomb {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            panic!("the frame's own fault");
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let (sender, frames) = channel(4);
    for _ in 0..3 {
        assert!(sender.send(Bomb(Arc::clone(&dropped))).is_ok());
    }
    drop(frames);
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
    assert_balanced(&sender.stats());
}
