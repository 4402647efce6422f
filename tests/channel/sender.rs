//! The sender's end: waiting for room on a thread, order, giving up, callbacks.

use crate::*;
use callbridge::channel::{Loss, LossReason, SendError};
use callbridge::{Overflow, channel};
use std::sync::Mutex;

const fn assert_send_sync<T: Send + Sync>() {}
const fn assert_unpin<T: Unpin>() {}
const _: () = {
    assert_send_sync::<Sender<std::cell::Cell<u8>>>();
    assert_send_sync::<channel::WeakSender<std::cell::Cell<u8>>>();
    assert_send_sync::<channel::SendFuture<'static, u8>>();
    assert_send_sync::<channel::SendError<u8>>();
    assert_unpin::<channel::SendFuture<'static, std::marker::PhantomPinned>>();
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

/// b65. Node: two or more producers parked at abort are all released. In Kotlin a parked blocking
/// sender stays parked.
#[test]
fn close_releases_every_parked_sender_with_its_frame() {
    within(|| {
        let (sender, mut frames, sources) = eight_parked();
        assert!(sender.close());
        sources.into_iter().for_each(|source| source.join().unwrap());
        assert_eq!(frames.try_recv(), Ok(100));
        let stats = frames.stats();
        assert_eq!((stats.refused, stats.waiting, stats.blocked.count), (8, 0, 8));
        let blocked = stats.blocked;
        assert!(blocked.longest <= blocked.time && blocked.time <= blocked.longest * 8);
        assert_balanced(&stats);
    });
}

/// b49, b65, b125. tokio: a blocked send gets its item back.
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

/// b125: and what is queued stays readable.
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

/// b66. Node: three producers parked on a full queue of three all finish when the consumer drains
/// it in a burst, without further traffic.
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

/// b9, b58, b111. Kotlin: ten blocking sends into a rendezvous channel arrive in order; the
/// tightest here is a slot. Node: 10 000 items through a queue of two. UniFFI: through a buffer of
/// ten.
#[test]
fn ten_thousand_frames_pass_through_a_few_slots_in_order() {
    within(|| {
        for slots in [1, 2, 10] {
            let (sender, mut frames) = channel(slots);
            let source = std::thread::spawn(move || {
                (0..10_000).for_each(|frame| {
                    sender.send(frame).unwrap();
                });
            });
            for expected in 0..10_000 {
                assert_eq!(frames.recv_blocking(None), Ok(expected));
            }
            source.join().unwrap();
            let stats = frames.stats();
            assert!(stats.high_water <= slots as u64 && stats.lost.total() == 0, "{stats:?}");
        }
    });
}

/// b59. Node: the same without a bound, and with a source that tries again, which saw "full".
#[test]
fn ten_thousand_frames_pass_without_a_bound_and_with_retries() {
    within(|| {
        let (sender, mut frames) =
            channel::builder().overflow(Overflow::Unbounded).build().unwrap();
        let source = std::thread::spawn(move || {
            (0..10_000).for_each(|frame| {
                sender.send(frame).unwrap();
            });
        });
        for expected in 0..10_000 {
            assert_eq!(frames.recv_blocking(None), Ok(expected));
        }
        source.join().unwrap();

        let (sender, mut frames) = channel(2);
        let (saw_full, full) = mpsc::sync_channel(1);
        let source = std::thread::spawn(move || {
            for mut frame in 0..10_000 {
                while let Err(refused) = sender.try_send(frame) {
                    frame = refused.into_inner();
                    let _ = saw_full.try_send(());
                    std::thread::yield_now();
                }
            }
        });
        full.recv().unwrap();
        for expected in 0..10_000 {
            assert_eq!(frames.recv_blocking(None), Ok(expected));
        }
        source.join().unwrap();
        assert!(frames.stats().refused > 0);
        assert_balanced(&frames.stats());
    });
}

/// b55. Swift: with two producers the order of each is kept.
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

/// b70. napi-rs: 100 threads with a clone each, one call each.
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
    assert_eq!(sender.send_timeout(2, Duration::ZERO), Err(SendError::TimedOut(2)));
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
    assert_eq!(sender.send_timeout(2, limit), Err(SendError::TimedOut(2)));
    let stats = frames.stats();
    assert_eq!((stats.refused, stats.waiting, stats.blocked.count), (1, 0, 1));
    assert!(stats.blocked.time >= limit);
    assert_balanced(&stats);
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
fn a_callback_counts_a_frame_that_is_too_heavy_once() {
    let (sender, frames) = channel::builder().weigh(|frame: &usize| *frame, 1).build().unwrap();
    sender.callback()(2);
    let stats = frames.stats();
    assert_eq!((stats.offered, stats.lost.too_heavy, stats.lost.total()), (1, 1, 1));
    assert_balanced(&stats);
}

/// b39. Swift: unit items count one by one.
#[test]
fn frames_without_size_are_counted() {
    let (sender, mut frames) = channel(2);
    sender.try_send(()).unwrap();
    sender.try_send(()).unwrap();
    assert!(sender.try_send(()).is_err());
    assert_eq!(frames.try_recv(), Ok(()));
    assert_eq!(frames.len(), 1);
}
