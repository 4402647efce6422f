//! Clones, weak senders, and what is freed when.

use crate::*;
use callbridge::channel;
use callbridge::channel::{Ending, SendError};

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
    assert_eq!(again.sender_count(), 2);
    drop(sender);
    again.send(1).unwrap();
    drop(again);
    assert!(weak.upgrade().is_none());
    assert_eq!(frames.try_recv(), Ok(1));
    assert_eq!(frames.try_recv(), Err(callbridge::channel::RecvError::Ended));
}

/// b60, b62. Node: a thread that gives its own reference up, the consumer's among them, finalises
/// nothing; the others deliver everything, and then the end is told.
#[test]
fn a_sender_that_is_given_up_early_ends_nothing() {
    within(|| {
        let (sender, mut frames) = channel(2);
        let (tell, told) = mpsc::channel();
        sender.on_termination(move |ending| tell.send(ending).unwrap());
        let own = sender.clone();
        let source = std::thread::spawn(move || {
            (0..100).for_each(|frame| {
                sender.send(frame).unwrap();
            });
        });
        assert_eq!(frames.recv_blocking(None), Ok(0));
        let acquired = own.clone();
        std::thread::spawn(move || drop((acquired.clone(), acquired))).join().unwrap();
        drop(own);
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Empty));
        for expected in 1..100 {
            assert_eq!(frames.recv_blocking(None), Ok(expected));
        }
        source.join().unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), [Ending::Finished]);
    });
}

/// b67. Node: what is acquired after an abort is told that it is closing; a count can't go below
/// zero.
#[test]
fn a_sender_made_after_the_end_is_refused_like_the_others() {
    let (sender, frames) = channel(1);
    let weak = sender.downgrade();
    drop(frames);
    for late in [sender.clone(), weak.upgrade().unwrap()] {
        assert_eq!(late.send(1), Err(SendError::Closed(1)));
        assert_eq!(late.ending(), Some(Ending::ConsumerDropped));
    }
    drop(sender);
    assert!(weak.upgrade().is_none() && weak.clone().upgrade().is_none());
}

/// b68. Node: the finaliser runs though the last reference goes long after the abort.
#[test]
fn the_last_sender_after_the_consumers_drop_tells_nothing_more_and_frees_the_channel() {
    let held = Arc::new(());
    let (by_hook, by_callback) = (Arc::clone(&held), Arc::clone(&held));
    let (sender, frames) = channel::builder::<u8>()
        .on_loss(move |_| {
            let _ = &by_hook;
        })
        .build()
        .unwrap();
    let (tell, told) = mpsc::channel();
    sender.on_termination(move |ending| {
        let _ = &by_callback;
        tell.send(ending).unwrap();
    });
    drop(frames);
    assert_eq!(told.try_recv(), Ok(Ending::ConsumerDropped));
    assert_eq!(Arc::strong_count(&held), 2, "the callback is gone, the hook is still needed");
    let last = sender.clone();
    drop(sender);
    drop(last);
    assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    assert_eq!(Arc::strong_count(&held), 1);
}

/// b69, b119. Node: what is queued at the teardown is freed once. cxx-async: a send into a future
/// that was dropped frees its frame as well.
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
