//! Frames that no policy may drop.

use crate::*;
use callbridge::channel::{self, Fallback};
use callbridge::channel::{LossReason, Pressure, SendError, Sent};
use callbridge::{FrameStream, Overflow};
use std::sync::Mutex;

const POLICIES: [Overflow; 9] = [
    Overflow::Block,
    Overflow::BlockFor(Duration::ZERO, Fallback::DropNewest),
    Overflow::BlockFor(Duration::ZERO, Fallback::DropOldest),
    Overflow::BlockFor(Duration::ZERO, Fallback::Fail),
    Overflow::DropNewest,
    Overflow::DropOldest,
    Overflow::Latest,
    Overflow::Fail,
    Overflow::Unbounded,
];

/// Sends a data frame, or loses it, without waiting.
fn offer(sender: &Sender<i32>, overflow: Overflow, frame: i32) {
    if overflow == Overflow::Block {
        let _ = sender.try_send(frame);
    } else {
        let _ = sender.send(frame);
    }
}

fn read_all<T>(frames: &mut FrameStream<T>) -> Vec<T> {
    std::iter::from_fn(|| frames.try_recv().ok()).collect()
}

#[test]
fn no_policy_loses_a_control_frame_or_moves_it() {
    for overflow in POLICIES {
        let (sender, mut frames) =
            channel::builder().capacity(2).overflow(overflow).build().unwrap();
        for control in [-1, -2, -3] {
            for data in 0..5 {
                offer(&sender, overflow, data);
                assert_balanced(&sender.stats());
            }
            sender.send_control(control).unwrap();
            assert_balanced(&sender.stats());
        }
        offer(&sender, overflow, 5);
        assert_eq!(frames.len() as u64, frames.stats().queued, "{overflow:?}");
        let read = read_all(&mut frames);
        let controls: Vec<_> = read.iter().copied().filter(|frame| *frame < 0).collect();
        assert_eq!(controls, [-1, -2, -3], "{overflow:?}: {read:?}");
        let data = read.len() - 3;
        let expected = match overflow {
            Overflow::Unbounded => 16,
            Overflow::Latest => 1,
            _ => 2,
        };
        assert_eq!(data, expected, "{overflow:?}: {read:?}");
        let stats = frames.stats();
        assert_balanced(&stats);
        assert_eq!((stats.offered, stats.delivered), (19, read.len() as u64), "{overflow:?}");
    }
}

#[test]
fn what_is_evicted_lies_before_and_behind_control_frames() {
    let (sender, mut frames) =
        channel::builder().capacity(2).overflow(Overflow::DropOldest).build().unwrap();
    sender.send_control(-1).unwrap();
    sender.send(1).unwrap();
    sender.send_control(-2).unwrap();
    sender.send_control(-3).unwrap();
    sender.send(2).unwrap();
    assert_eq!(sender.send(3), Ok(Sent::Evicted(1)));
    sender.send_control(-4).unwrap();
    assert_eq!(sender.send(4), Ok(Sent::Evicted(2)));
    assert_eq!(frames.try_recv(), Ok(-1));
    assert_eq!(sender.send(5), Ok(Sent::Evicted(3)));
    assert_eq!(read_all(&mut frames), [-2, -3, -4, 4, 5]);
    assert_balanced(&frames.stats());
    assert_eq!(frames.stats().lost.evicted, 3);
}

#[test]
fn a_control_frame_keeps_its_place_however_the_stream_is_read() {
    // One at a time, several at once, and across an exchange of batches.
    for most in [1, 2, 3, 16] {
        let (sender, mut frames) = channel::channel(4);
        let mut read = Vec::new();
        for frame in 0..4 {
            sender.send(frame).unwrap();
        }
        sender.send_control(4).unwrap();
        assert_eq!(frames.recv_many_blocking(&mut read, 1, None), Ok(1));
        sender.send(5).unwrap();
        sender.send_control(6).unwrap();
        sender.send_control(7).unwrap();
        while read.len() < 8 {
            frames.recv_many_blocking(&mut read, most, Duration::ZERO).unwrap();
            assert_eq!(
                (frames.len(), frames.stats().delivered),
                (8 - read.len(), read.len() as u64)
            );
            assert_balanced(&frames.stats());
        }
        assert_eq!(read, [0, 1, 2, 3, 4, 5, 6, 7], "at most {most} at a time");
        assert!(frames.is_empty());
    }
}

#[test]
fn a_control_frame_takes_no_room() {
    let (sender, mut frames) = channel::channel(2);
    for frame in 0..100 {
        sender.send_control(frame).unwrap();
    }
    assert_eq!(sender.try_send(100), Ok(Sent::Queued { remaining: 1 }));
    assert_eq!(sender.try_send(101), Ok(Sent::Queued { remaining: 0 }));
    assert_eq!(sender.try_send(102), Err(SendError::Full(102)));
    sender.send_control(103).unwrap();
    assert_eq!((sender.len(), sender.stats().high_water), (103, 2));
    for frame in 0..100 {
        assert_eq!(frames.try_recv(), Ok(frame));
        assert_eq!(sender.try_send(102), Err(SendError::Full(102)), "it freed none, either");
    }
    assert_eq!(frames.try_recv(), Ok(100));
    assert!(sender.try_send(104).is_ok());
    assert_eq!(read_all(&mut frames), [101, 103, 104]);
    assert_balanced(&frames.stats());
}

#[test]
fn a_control_frame_weighs_nothing_and_is_never_too_heavy() {
    let (sender, mut frames) = channel::builder()
        .weigh(
            |text: &&str| if text.is_empty() { panic!("can't be weighed") } else { text.len() },
            4,
        )
        .build()
        .unwrap();
    sender.send_control("far too heavy for this budget").unwrap();
    sender.send_control("").unwrap();
    assert_eq!(sender.try_send("abcd"), Ok(Sent::Queued { remaining: 0 }));
    sender.send_control("as heavy").unwrap();
    assert_eq!(sender.try_send("e"), Err(SendError::Full("e")));
    assert_eq!(frames.try_recv(), Ok("far too heavy for this budget"));
    assert_eq!(frames.try_recv(), Ok(""));
    assert_eq!(frames.try_recv(), Ok("abcd"));
    assert_eq!(sender.try_send("efgh"), Ok(Sent::Queued { remaining: 0 }));
    assert_eq!(read_all(&mut frames), ["as heavy", "efgh"]);
    assert_balanced(&frames.stats());
}

#[test]
fn a_control_frame_moves_no_watermark() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let (sender, mut frames) = channel::builder()
        .capacity(4)
        .watermarks(0, 2, move |pressure| log.lock().unwrap().push(pressure))
        .build()
        .unwrap();
    for frame in 0..5 {
        sender.send_control(frame).unwrap();
    }
    assert!(told.lock().unwrap().is_empty());
    sender.send(5).unwrap();
    sender.send(6).unwrap();
    assert_eq!(*told.lock().unwrap(), [Pressure::High]);
    sender.send_control(7).unwrap();
    for frame in 0..7 {
        assert_eq!(frames.try_recv(), Ok(frame));
    }
    assert_eq!(*told.lock().unwrap(), [Pressure::High, Pressure::Low]);
    assert_eq!(frames.try_recv(), Ok(7));
}

#[test]
fn a_control_frame_comes_back_from_an_ended_channel_only() {
    let (sender, mut frames) = channel::channel(1);
    sender.send_control(1).unwrap();
    sender.close();
    assert_eq!(sender.send_control(2), Err(SendError::Closed(2)));
    assert_eq!(read_all(&mut frames), [1]);
    let stats = frames.stats();
    assert_balanced(&stats);
    assert_eq!((stats.offered, stats.refused), (2, 1));

    let (sender, frames) = channel::channel(1);
    drop(frames);
    assert_eq!(sender.send_control(3), Err(SendError::Closed(3)));
    assert_balanced(&sender.stats());
}

#[test]
fn control_frames_that_nobody_read_are_lost_and_told() {
    for overflow in [Overflow::Block, Overflow::DropOldest] {
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        let (sender, mut frames) = channel::builder()
            .capacity(4)
            .overflow(overflow)
            .on_loss(move |loss| log.lock().unwrap().push((*loss.frame, loss.reason)))
            .build()
            .unwrap();
        // Some in the consumer's batch, some in the queue.
        sender.send(0).unwrap();
        sender.send_control(1).unwrap();
        sender.send(2).unwrap();
        assert_eq!(frames.try_recv(), Ok(0));
        sender.send_control(3).unwrap();
        drop(frames);
        assert_eq!(*told.lock().unwrap(), [1, 2, 3].map(|n| (n, LossReason::ConsumerDropped)));
        let stats = sender.stats();
        assert_balanced(&stats);
        assert_eq!((stats.queued, stats.lost.consumer_dropped), (0, 3));
    }
}

#[test]
fn a_control_frame_wakes_the_consumer() {
    for overflow in [Overflow::Block, Overflow::Latest] {
        let (sender, mut frames) = channel::builder().overflow(overflow).build().unwrap();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        assert!(frames.poll_recv(&mut cx).is_pending());
        sender.send_control(7).unwrap();
        assert_eq!(wakes.count(), 1);
        assert_eq!(frames.poll_recv(&mut cx), Poll::Ready(Some(7)));
        assert!(frames.poll_recv(&mut cx).is_pending());
    }
}

#[test]
fn a_sender_that_waits_for_a_slot_is_overtaken_by_a_control_frame() {
    let (sender, mut frames) = channel::channel(1);
    sender.send(1).unwrap();
    let mut waiting = sender.send_async(2);
    assert!(poll_once(&mut waiting).is_pending());
    sender.send_control(3).unwrap();
    assert_eq!(frames.try_recv(), Ok(1));
    assert!(poll_once(&mut waiting).is_ready());
    assert_eq!(read_all(&mut frames), [3, 2]);
    assert_balanced(&frames.stats());
}

#[test]
fn a_control_frame_never_waits_on_a_loop_either() {
    for runtime in runtimes() {
        let (sender, mut frames) = channel::channel(1);
        runtime.block_on(async {
            sender.send(1).unwrap();
            assert_eq!(sender.send(2), Err(SendError::WouldDeadlock(2)));
            sender.send_control(3).unwrap();
            assert_eq!(frames.recv().await, Some(1));
            assert_eq!(frames.recv().await, Some(3));
        });
    }
}
