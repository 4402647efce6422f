//! Clones, weak senders, and what is freed when.

use crate::*;
use callbridge::channel;

/// neon: clone and drop in a tight loop leaves nothing behind.
#[test]
fn clones_are_counted() {
    let (sender, frames) = channel::<u8>(1);
    for _ in 0..10_000 {
        assert_eq!(sender.clone().sender_count(), 2);
    }
    assert_eq!(sender.sender_count(), 1);
    assert!(frames.ending().is_none() && !sender.is_closed());
}

#[test]
fn a_weak_sender_keeps_nothing_open() {
    let (sender, mut frames) = channel(1);
    let weak = sender.downgrade();
    let again = weak.clone().upgrade().unwrap();
    assert!(again.same_channel(&sender));
    drop(sender);
    again.send(1).unwrap();
    drop(again);
    assert!(weak.upgrade().is_none());
    assert_eq!(frames.try_recv(), Ok(1));
    assert_eq!(frames.try_recv(), Err(callbridge::TryRecvError::Ended));
}

#[test]
fn frames_in_the_air_are_dropped_with_the_channel() {
    let alive = Arc::new(AtomicUsize::new(0));
    let (sender, mut frames) = channel(2);
    for _ in 0..2 {
        sender.send(Live::new(&alive)).unwrap();
    }
    drop(frames.try_recv().unwrap());
    let mut waiting = sender.send_async(Live::new(&alive));
    assert!(poll_once(&mut waiting).is_ready());
    assert_eq!(alive.load(Ordering::Relaxed), 2);
    drop(frames);
    assert_eq!(alive.load(Ordering::Relaxed), 0, "the senders are still there");
    assert!(sender.send(Live::new(&alive)).is_err());
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}
