//! The sender's end: waiting for room, giving up, callbacks, clones and weak senders.

use crate::*;
use callbridge::channel::SendTimeoutError;
use callbridge::{Loss, LossReason, Overflow, SendError, Sent, channel};
use std::sync::Mutex;

const fn assert_send_sync<T: Send + Sync>() {}
const fn assert_unpin<T: Unpin>() {}
const _: () = {
    assert_send_sync::<Sender<std::cell::Cell<u8>>>();
    assert_send_sync::<channel::WeakSender<std::cell::Cell<u8>>>();
    assert_send_sync::<channel::SendFuture<'static, u8>>();
    assert_send_sync::<channel::SendError<u8>>();
    assert_unpin::<channel::SendFuture<'static, std::marker::PhantomPinned>>();
    assert_unpin::<channel::Closed<'static, std::marker::PhantomPinned>>();
};

/// Eight producers parked on a full channel, each with a frame of its own.
fn eight_parked() -> (Sender<u32>, callbridge::FrameStream<u32>, Vec<std::thread::JoinHandle<()>>) {
    let (sender, frames) = channel(1);
    sender.send(100).unwrap();
    let sources = (0..8)
        .map(|frame| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                assert_eq!(sender.send(frame), Err(SendError::Closed(frame)));
            })
        })
        .collect();
    until_parked(&sender, 8);
    (sender, frames, sources)
}

/// Node: two or more producers parked at abort are all released. tokio: a blocked send gets its
/// item back. In Kotlin a parked blocking sender stays parked.
#[test]
fn close_releases_every_parked_sender_with_its_frame() {
    within(|| {
        let (sender, mut frames, sources) = eight_parked();
        assert!(sender.close());
        sources.into_iter().for_each(|source| source.join().unwrap());
        assert_eq!(frames.try_recv(), Ok(100));
        let stats = frames.stats();
        assert_eq!((stats.refused, stats.waiting, stats.blocked.count), (8, 0, 8));
        assert_balanced(&stats);
    });
}

#[test]
fn consumer_drop_releases_every_parked_sender_with_its_frame() {
    within(|| {
        let (sender, frames, sources) = eight_parked();
        drop(frames);
        sources.into_iter().for_each(|source| source.join().unwrap());
        let stats = sender.stats();
        assert_eq!((stats.refused, stats.lost.consumer_dropped, stats.queued), (8, 1, 0));
        assert_balanced(&stats);
    });
}

#[test]
fn stream_close_releases_every_parked_sender_with_its_frame() {
    within(|| {
        let (_sender, mut frames, sources) = eight_parked();
        assert!(frames.close());
        sources.into_iter().for_each(|source| source.join().unwrap());
        assert_eq!(frames.try_recv(), Ok(100));
        assert!(frames.try_recv().is_err());
    });
}

/// Node: three producers parked on a full queue of three all finish when the consumer drains it in a
/// burst, without further traffic.
#[test]
fn a_burst_of_freed_slots_releases_as_many_senders() {
    within(|| {
        let (sender, mut frames) = channel(3);
        for frame in 0..3 {
            sender.send(frame).unwrap();
        }
        let sources: Vec<_> = (3..6)
            .map(|frame| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    sender.send(frame).unwrap();
                })
            })
            .collect();
        until_parked(&sender, 3);
        for frame in 0..3 {
            assert_eq!(frames.try_recv(), Ok(frame));
        }
        sources.into_iter().for_each(|source| source.join().unwrap());
        assert_eq!(frames.len(), 3);
        assert_balanced(&frames.stats());
    });
}

#[test]
fn each_freed_slot_releases_one_sender_in_the_order_of_their_coming() {
    let (sender, mut frames) = channel(1);
    sender.send(0).unwrap();
    let wakes: Vec<_> = (0..3).map(|_| Arc::new(Wakes::default())).collect();
    let mut waiting: Vec<_> = (1..4).map(|frame| sender.send_async(frame)).collect();
    for (future, wakes) in waiting.iter_mut().zip(&wakes) {
        let waker = Waker::from(Arc::clone(wakes));
        assert!(Pin::new(future).poll(&mut Context::from_waker(&waker)).is_pending());
    }
    for freed in 0..3 {
        assert_eq!(frames.try_recv(), Ok(freed));
        let counts: Vec<_> = wakes.iter().map(|wakes| wakes.count()).collect();
        let expected: Vec<_> = (0..3).map(|index| usize::from(index <= freed)).collect();
        assert_eq!(counts, expected, "after {freed}");
    }
    assert!(waiting.iter_mut().all(|future| poll_once(future).is_ready()));
}

/// Kotlin: ten blocking sends into a rendezvous channel arrive in order. Node: 10 000 items through
/// a queue of two.
#[test]
fn ten_thousand_frames_pass_through_two_slots_in_order() {
    within(|| {
        let (sender, mut frames) = channel(2);
        let source = std::thread::spawn(move || {
            (0..10_000).for_each(|frame| {
                sender.send(frame).unwrap();
            });
        });
        for expected in 0..10_000 {
            assert_eq!(frames.recv_blocking(None), Ok(expected));
        }
        source.join().unwrap();
        assert!(frames.stats().high_water <= 2);
    });
}

/// Swift: with two producers the order of each is kept.
#[test]
fn each_producer_keeps_its_order() {
    within(|| {
        let (sender, mut frames) = channel(5);
        let sources: Vec<_> = (0..4)
            .map(|producer| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    (0..2_000).for_each(|frame| {
                        sender.send((producer, frame)).unwrap();
                    });
                })
            })
            .collect();
        drop(sender);
        let mut next = [0; 4];
        while let Ok((producer, frame)) = frames.recv_blocking(None) {
            assert_eq!(frame, next[producer]);
            next[producer] += 1;
        }
        assert_eq!(next, [2_000; 4]);
        sources.into_iter().for_each(|source| source.join().unwrap());
        assert!(frames.stats().high_water <= 5);
        assert_balanced(&frames.stats());
    });
}

/// napi-rs: 100 threads with a clone each, one call each.
#[test]
fn a_hundred_threads_send_one_frame_each() {
    within(|| {
        let (sender, mut frames) = channel(3);
        let sources: Vec<_> = (0..100_u64)
            .map(|frame| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    sender.send(frame).unwrap();
                })
            })
            .collect();
        drop(sender);
        let mut sum = 0;
        while let Ok(frame) = frames.recv_blocking(None) {
            sum += frame;
        }
        sources.into_iter().for_each(|source| source.join().unwrap());
        assert_eq!(sum, 4950);
    });
}

#[test]
fn send_timeout_answers_at_once_for_zero_and_takes_the_longest_time_there_is() {
    let (sender, mut frames) = channel(1);
    sender.send_timeout(1, Duration::MAX).unwrap();
    assert_eq!(sender.send_timeout(2, Duration::ZERO), Err(SendTimeoutError::TimedOut(2)));
    assert_eq!(sender.stats().blocked.count, 0);
    let source = {
        let sender = sender.clone();
        std::thread::spawn(move || sender.send_timeout(3, Duration::MAX))
    };
    until_parked(&sender, 1);
    assert_eq!(frames.try_recv(), Ok(1));
    assert!(source.join().unwrap().is_ok());
}

#[test]
fn send_timeout_hands_the_frame_back_and_leaves_the_line() {
    let (sender, frames) = channel(1);
    sender.send(1).unwrap();
    let limit = Duration::from_millis(5);
    assert_eq!(sender.send_timeout(2, limit), Err(SendTimeoutError::TimedOut(2)));
    let stats = frames.stats();
    assert_eq!((stats.refused, stats.waiting, stats.blocked.count), (1, 0, 1));
    assert!(stats.blocked.time >= limit);
    assert_balanced(&stats);
}

/// Kotlin: a parked send that is cancelled gets the drop hook for its item only.
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

#[test]
fn a_callback_counts_as_lost_what_it_cannot_hand_back() {
    let losses = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&losses);
    let (sender, frames) = channel::builder()
        .capacity(1)
        .overflow(Overflow::Fail)
        .on_loss(move |loss: Loss<'_, u32>| log.lock().unwrap().push((*loss.frame, loss.reason)))
        .build()
        .unwrap();
    let callback = sender.callback();
    callback(1);
    callback(2);
    sender.close();
    callback.clone()(3);
    let expected = [(2, LossReason::Overflow), (3, LossReason::Closed)];
    assert_eq!(*losses.lock().unwrap(), expected);
    let stats = frames.stats();
    assert_eq!((stats.offered, stats.refused, stats.lost.total()), (3, 0, 2));
    assert_balanced(&stats);
}

#[test]
fn a_callback_books_a_frame_that_is_too_heavy_once() {
    let (sender, frames) = channel::builder().weigh(|frame: &usize| *frame, 1).build().unwrap();
    sender.callback()(2);
    let stats = frames.stats();
    assert_eq!((stats.offered, stats.lost.too_heavy, stats.lost.total()), (1, 1, 1));
    assert_balanced(&stats);
}

/// Swift: unit items count one by one.
#[test]
fn frames_without_size_are_counted() {
    let (sender, mut frames) = channel(2);
    sender.try_send(()).unwrap();
    sender.try_send(()).unwrap();
    assert!(sender.try_send(()).is_err());
    assert_eq!(frames.try_recv(), Ok(()));
    assert_eq!(frames.len(), 1);
}

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
