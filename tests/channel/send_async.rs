//! Sends that are awaited: cancelled, dropped, forgotten, and in one line with threads.

use crate::*;
use callbridge::channel::{Fallback, Loss, LossReason, RecvError, SendError, Sent};
use callbridge::{Overflow, channel};
use std::sync::Mutex;

/// b19. Kotlin: a parked send that is cancelled gets the drop hook for its item only.
#[test]
fn a_sending_future_that_is_dropped_loses_its_frame_and_no_other() {
    let losses = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&losses);
    let (sender, mut frames) = channel::builder()
        .capacity(1)
        .on_loss(move |loss: Loss<'_, u32>| log.lock().unwrap().push((*loss.frame, loss.reason)))
        .build()
        .unwrap();
    sender.send(1).unwrap();
    let mut waiting = sender.send_async(2);
    assert!(poll_once(&mut waiting).is_pending());
    drop(waiting);
    drop(sender.send_async(3));
    let reason = LossReason::SendCancelled;
    assert_eq!(*losses.lock().unwrap(), [(2, reason), (3, reason)]);
    assert_eq!(frames.try_recv(), Ok(1));
    assert!(frames.try_recv().is_err());
    assert_eq!(frames.stats().lost.send_cancelled, 2);
    assert_balanced(&frames.stats());
}

#[test]
fn a_sending_future_that_got_its_room_is_sent_even_if_it_is_dropped_unpolled() {
    let (sender, mut frames) = channel(1);
    sender.send(1).unwrap();
    let mut waiting = sender.send_async(2);
    assert!(poll_once(&mut waiting).is_pending());
    assert_eq!(frames.try_recv(), Ok(1));
    drop(waiting);
    assert_eq!(frames.try_recv(), Ok(2));
    assert_eq!(frames.stats().lost.total(), 0);
    assert_balanced(&frames.stats());
}

/// event-listener and async-channel: a future that was woken, or forgotten, keeps the slot to
/// itself.
#[test]
fn a_forgotten_sending_future_freezes_nobody() {
    let (sender, mut frames) = channel(1);
    sender.send(1).unwrap();
    let mut forgotten = sender.send_async(2);
    assert!(poll_once(&mut forgotten).is_pending());
    std::mem::forget(forgotten);
    let mut waiting = sender.send_async(3);
    assert!(poll_once(&mut waiting).is_pending());
    let read: Vec<_> = std::iter::from_fn(|| frames.try_recv().ok()).collect();
    assert_eq!(read, [1, 2, 3]);
    assert!(poll_once(&mut waiting).is_ready());
}

#[test]
fn a_sending_future_hands_its_frame_back_on_cancel_and_on_close() {
    let (sender, _frames) = channel(1);
    sender.send(1).unwrap();
    let mut cancelled = sender.send_async(2);
    let mut closed = sender.send_async(3);
    assert!(poll_once(&mut cancelled).is_pending() && poll_once(&mut closed).is_pending());
    assert_eq!(cancelled.cancel(), Some(2));
    assert_eq!(cancelled.cancel(), None);
    sender.close();
    assert_eq!(poll_once(&mut closed), Poll::Ready(Err(SendError::Closed(3))));
    assert_eq!(sender.stats().refused, 2);
    assert_balanced(&sender.stats());
}

#[test]
fn a_frame_that_waits_enters_no_channel_that_has_ended() {
    for overflow in [Overflow::Block, Overflow::BlockFor(LIMIT, Fallback::DropOldest)] {
        let (sender, mut frames) =
            channel::builder().capacity(1).overflow(overflow).build().unwrap();
        sender.send(1).unwrap();
        let mut late = sender.send_async(2);
        assert!(poll_once(&mut late).is_pending());
        sender.close();
        assert_eq!(frames.try_recv(), Ok(1));
        assert_eq!(frames.try_recv(), Err(RecvError::Ended));
        assert_eq!(poll_once(&mut late), Poll::Ready(Err(SendError::Closed(2))));
        assert_balanced(&frames.stats());
    }
}

/// b50. Swift: a token that is cancelled before it waits is told so; what was accepted stays.
#[test]
fn a_sending_future_can_be_cancelled_before_it_waits_but_not_once_it_has_its_room() {
    let (sender, mut frames) = channel(1);
    assert_eq!(sender.send_async(1).cancel(), Some(1));
    sender.send(2).unwrap();
    let mut waiting = sender.send_async(3);
    assert!(poll_once(&mut waiting).is_pending());
    assert_eq!(frames.try_recv(), Ok(2));
    assert_eq!(waiting.cancel(), None);
    assert_eq!(frames.try_recv(), Ok(3));
    assert_eq!((frames.stats().refused, frames.stats().lost.total()), (1, 0));
    assert_balanced(&frames.stats());
}

/// b51. Swift: room that appears between the send and the wait calls back at once. Room that comes
/// while the sender is just parking is for the model
/// `a_slot_freed_out_of_the_batch_releases_a_sender_that_is_just_parking`.
#[test]
fn room_that_comes_before_the_first_poll_is_taken_at_once() {
    let (sender, mut frames) = channel(1);
    sender.send(1).unwrap();
    let mut sending = sender.send_async(2);
    assert_eq!(frames.try_recv(), Ok(1));
    assert!(poll_once(&mut sending).is_ready());
    assert_eq!(frames.try_recv(), Ok(2));
}

#[test]
fn a_sending_future_that_moves_to_another_task_wakes_the_new_one() {
    let (sender, mut frames) = channel(1);
    sender.send(1).unwrap();
    let mut waiting = sender.send_async(2);
    let wakes: Vec<_> = (0..2).map(|_| Arc::new(Wakes::default())).collect();
    for wakes in &wakes {
        let waker = Waker::from(Arc::clone(wakes));
        assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    assert_eq!(frames.try_recv(), Ok(1));
    assert_eq!((wakes[0].count(), wakes[1].count()), (0, 1));
    assert!(poll_once(&mut waiting).is_ready());
}

#[test]
fn an_awaited_send_applies_the_policy() {
    for (policy, expected) in [
        (Overflow::DropNewest, Ok(Sent::Dropped(2))),
        (Overflow::DropOldest, Ok(Sent::Evicted(1))),
        (Overflow::Latest, Ok(Sent::Evicted(1))),
        (Overflow::Fail, Err(SendError::Full(2))),
    ] {
        let (sender, frames) = channel::builder().capacity(1).overflow(policy).build().unwrap();
        assert!(poll_once(&mut sender.send_async(1)).is_ready());
        assert_eq!(poll_once(&mut sender.send_async(2)), Poll::Ready(expected));
        assert_balanced(&frames.stats());
    }
}

#[test]
fn threads_and_tasks_wait_in_one_line() {
    within(|| {
        let (sender, mut frames) = channel(1);
        sender.send(0).unwrap();
        let mut first = sender.send_async(1);
        assert!(poll_once(&mut first).is_pending());
        let second = {
            let sender = sender.clone();
            std::thread::spawn(move || {
                sender.send(2).unwrap();
            })
        };
        until_parked(&sender, 2);
        let mut third = sender.send_async(3);
        assert!(poll_once(&mut third).is_pending());
        for expected in 0..4 {
            assert_eq!(frames.try_recv(), Ok(expected));
        }
        second.join().unwrap();
        assert!(poll_once(&mut first).is_ready() && poll_once(&mut third).is_ready());
    });
}
