//! The hook that says that there is something to read.

use crate::*;
use callbridge::channel::RecvError;
use callbridge::channel::{self, FrameOrGap};
use callbridge::{FrameStream, Overflow};
use std::sync::{Condvar, Mutex};

/// A channel of either kind, and how often its hook was called.
fn watched(overflow: Overflow) -> (Sender<u32>, FrameStream<u32>, Arc<Wakes>) {
    let (sender, mut frames) = channel::builder().capacity(4).overflow(overflow).build().unwrap();
    let calls = watch(&mut frames);
    (sender, frames, calls)
}

fn watch<T>(frames: &mut FrameStream<T>) -> Arc<Wakes> {
    let calls = Arc::new(Wakes::default());
    let hook = Arc::clone(&calls);
    frames.on_ready(move || Arc::clone(&hook).wake());
    calls
}

const KINDS: [Overflow; 2] = [Overflow::Block, Overflow::DropOldest];

#[test]
fn the_hook_is_called_once_until_the_stream_was_found_empty() {
    for overflow in KINDS {
        let (sender, mut frames, calls) = watched(overflow);
        assert_eq!(calls.count(), 0, "nothing is there yet");
        for frame in 0..3 {
            sender.send(frame).unwrap();
            assert_eq!(calls.count(), 1, "coalesced");
        }
        assert_eq!(frames.try_recv(), Ok(0));
        sender.send(3).unwrap();
        for frame in 1..4 {
            assert_eq!(frames.try_recv(), Ok(frame));
        }
        sender.send(4).unwrap();
        assert_eq!(calls.count(), 1, "an edge: the stream was never found empty");
        assert_eq!(frames.try_recv(), Ok(4));
        assert_eq!(frames.try_recv(), Err(RecvError::Empty));
        assert_eq!(frames.try_recv(), Err(RecvError::Empty));
        sender.send(5).unwrap();
        assert_eq!(calls.count(), 2);
    }
}

#[test]
fn the_hook_is_called_at_once_for_what_is_there_already() {
    for overflow in KINDS {
        let (sender, mut frames) =
            channel::builder().capacity(4).overflow(overflow).build().unwrap();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert_eq!(watch(&mut frames).count(), 1, "queued");
        assert_eq!(frames.try_recv(), Ok(1));
        assert_eq!(watch(&mut frames).count(), 1, "queued, or in the consumer's batch");
        assert_eq!(frames.try_recv(), Ok(2));
        assert_eq!(watch(&mut frames).count(), 0);
        drop(sender);
        assert_eq!(watch(&mut frames).count(), 1, "ended");
        assert_eq!(frames.try_recv(), Err(RecvError::Ended));
        assert_eq!(watch(&mut frames).count(), 1, "ended, and seen so");
    }
}

#[test]
fn the_end_and_control_frames_and_gaps_count_as_readable() {
    for overflow in KINDS {
        let (sender, _frames, calls) = watched(overflow);
        sender.fail("unplugged");
        assert_eq!(calls.count(), 1);

        let (sender, mut frames, calls) = watched(overflow);
        sender.send_control(7).unwrap();
        assert_eq!(calls.count(), 1);
        assert_eq!(frames.try_recv(), Ok(7));
        assert_eq!(frames.try_recv(), Err(RecvError::Empty));
        drop(sender);
        assert_eq!(calls.count(), 2);

        let (sender, frames, calls) = watched(overflow);
        let mut frames = frames.with_gaps();
        drop(sender.send_async(1));
        assert_eq!(calls.count(), 1);
        assert_eq!(frames.try_recv(), Ok(FrameOrGap::Gap(1)));
        assert_eq!(frames.try_recv(), Err(RecvError::Empty));
        sender.send(2).unwrap();
        assert_eq!(calls.count(), 2);
    }
}

#[test]
fn a_later_hook_replaces_the_first() {
    let (sender, mut frames, first) = watched(Overflow::Block);
    let second = watch(&mut frames);
    sender.send(1).unwrap();
    assert_eq!((first.count(), second.count()), (0, 1));
    assert_eq!(Arc::strong_count(&first), 1, "the first is gone");
    drop(frames);
    assert_eq!(Arc::strong_count(&second), 1, "and goes with the stream");
}

#[test]
fn who_waits_is_woken_instead_and_leaves_the_hook_armed() {
    let (sender, mut frames, calls) = watched(Overflow::Block);
    let task = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&task));
    assert!(frames.poll_recv(&mut Context::from_waker(&waker)).is_pending());
    sender.send(1).unwrap();
    assert_eq!((task.count(), calls.count()), (1, 0));
    assert_eq!(frames.try_recv(), Ok(1));
    let late = frames.recv_blocking(Duration::from_millis(1));
    assert_eq!(late, Err(RecvError::TimedOut));
    sender.send(2).unwrap();
    assert_eq!((task.count(), calls.count()), (1, 1));
}

#[test]
fn a_hook_that_panics_or_sends_is_contained() {
    let (sender, mut frames) = channel::channel(4);
    frames.on_ready(|| panic!("contained"));
    assert!(sender.send(1).is_ok());
    assert_eq!(frames.try_recv(), Ok(1));

    let answering = sender.downgrade();
    frames.on_ready(move || {
        if let Some(sender) = answering.upgrade() {
            let _ = sender.try_send(9);
        }
    });
    assert_eq!(frames.try_recv(), Err(RecvError::Empty));
    sender.send(2).unwrap();
    assert_eq!(frames.try_recv(), Ok(2));
    assert_eq!(frames.try_recv(), Ok(9));
    assert_eq!(frames.try_recv(), Err(RecvError::Empty));
}

#[test]
fn one_thread_serves_several_streams_that_others_fill() {
    within(|| {
        let bell = Arc::new((Mutex::new(false), Condvar::new()));
        let mut streams = Vec::new();
        let mut sources = Vec::new();
        for source in 0..4_u32 {
            let overflow = KINDS[source as usize % 2];
            let builder = channel::builder().capacity(1000).overflow(overflow);
            let (sender, mut frames) = builder.build().unwrap();
            let rung = Arc::clone(&bell);
            frames.on_ready(move || {
                *rung.0.lock().unwrap() = true;
                rung.1.notify_one();
            });
            streams.push(frames);
            sources.push(std::thread::spawn(move || {
                for frame in 0..1000 {
                    sender.send(frame).unwrap();
                    if frame % 100 == 0 {
                        std::thread::yield_now();
                    }
                }
            }));
        }
        let mut read = [0; 4];
        while streams.iter().any(|frames| frames.ending().is_none()) {
            for (frames, next) in streams.iter_mut().zip(&mut read) {
                while let Ok(frame) = frames.try_recv() {
                    assert_eq!(frame, *next);
                    *next += 1;
                }
            }
            if streams.iter().all(|frames| frames.ending().is_some()) {
                break;
            }
            let mut rung = bell.0.lock().unwrap();
            while !*rung {
                rung = bell.1.wait(rung).unwrap();
            }
            *rung = false;
        }
        assert_eq!(read, [1000; 4]);
        sources.into_iter().for_each(|source| source.join().unwrap());
    });
}
