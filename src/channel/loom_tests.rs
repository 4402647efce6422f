//! Model checks of the wake-up, close and hand-over protocols, over every interleaving.
//!
//! `RUSTFLAGS="--cfg callbridge_loom" LOOM_MAX_PREEMPTIONS=2 cargo test --release --lib channel`
//!
//! A lost wake-up shows as a deadlock, a lost frame as a wrong sum or as counters that don't balance.

use super::*;
use crate::sync::{Deadline, park_until};
use loom::thread::{self, JoinHandle};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

fn model(check: impl Fn() + Send + Sync + 'static) {
    loom::model::Builder::new().check(check);
}

/// As [`model`], where what is looked for takes a thread to be passed over several times.
fn deep_model(check: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(5);
    model.check(check);
}

fn send_on_thread(sender: &Sender<u64>, frame: u64) -> JoinHandle<bool> {
    let sender = sender.clone();
    thread::spawn(move || match sender.send(frame) {
        Ok(_) => true,
        Err(refused) => {
            assert_eq!(refused.into_inner(), frame, "the sender's own frame comes back");
            false
        }
    })
}

fn read_all(frames: &mut FrameStream<u64>) -> Vec<u64> {
    std::iter::from_fn(|| frames.recv_blocking(None).ok()).collect()
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    park_until(Deadline::Never, |cx| future.as_mut().poll(cx)).expect("there is no deadline")
}

fn assert_balanced(stats: &Stats) {
    assert!(stats.balances(), "{stats:?}");
    assert_eq!(stats.waiting, 0, "{stats:?}");
}

#[test]
fn a_parked_consumer_sees_the_frame_and_the_end() {
    model(|| {
        let (sender, mut frames) = channel(1);
        let source = thread::spawn(move || sender.send(7).is_ok());
        assert_eq!(read_all(&mut frames), [7]);
        assert!(source.join().unwrap());
        assert_balanced(&frames.stats());
    });
}

#[test]
fn an_awaiting_consumer_misses_nothing_between_its_looks() {
    model(|| {
        let (sender, mut frames) = channel(1);
        let source = thread::spawn(move || [1, 2].map(|frame| sender.send(frame).is_ok()));
        let read = [(); 3].map(|()| block_on(frames.recv()));
        assert_eq!(read, [Some(1), Some(2), None]);
        assert_eq!(source.join().unwrap(), [true; 2]);
        assert_balanced(&frames.stats());
    });
}

/// Two threads send a frame each, in some way, through one slot.
fn both_get_through(send: fn(&Sender<u64>, u64) -> bool) {
    model(move || {
        let (sender, mut frames) = channel(1);
        let sources = [1, 2].map(|frame| {
            let sender = sender.clone();
            thread::spawn(move || send(&sender, frame))
        });
        drop(sender);
        assert_eq!(read_all(&mut frames).iter().sum::<u64>(), 3);
        assert!(sources.into_iter().all(|source| source.join().unwrap()));
        assert_balanced(&frames.stats());
        assert!(frames.stats().high_water <= 1);
    });
}

#[test]
fn two_senders_parked_on_one_slot_both_get_through() {
    both_get_through(|sender, frame| sender.send(frame).is_ok());
}

#[test]
fn a_slot_freed_out_of_the_batch_releases_a_sender_that_is_just_parking() {
    model(|| {
        let (sender, mut frames) = channel(2);
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        assert_eq!(frames.recv_blocking(None), Ok(1));
        sender.send(3).unwrap();
        let source = send_on_thread(&sender, 4);
        drop(sender);
        assert_eq!(frames.recv_blocking(None), Ok(2));
        // The consumer reads no further before the sender is through.
        assert!(source.join().unwrap());
        assert_eq!(read_all(&mut frames), [3, 4]);
        assert_balanced(&frames.stats());
        assert!(frames.stats().high_water <= 2);
    });
}

#[test]
fn a_batch_that_is_exchanged_keeps_the_count_of_its_slots() {
    model(|| {
        let (sender, mut frames) = channel(1);
        let source = thread::spawn(move || [1, 2, 3].map(|frame| sender.send(frame).is_ok()));
        assert_eq!(read_all(&mut frames), [1, 2, 3]);
        assert_eq!(source.join().unwrap(), [true; 3]);
        assert_balanced(&frames.stats());
    });
}

#[test]
fn a_control_frame_frees_no_slot_and_keeps_its_place() {
    model(|| {
        let (sender, mut frames) = channel(1);
        let source = thread::spawn(move || {
            sender.send(1).unwrap();
            sender.send_control(2).unwrap();
            sender.send(3).is_ok()
        });
        assert_eq!(read_all(&mut frames), [1, 2, 3]);
        assert!(source.join().unwrap());
        assert_balanced(&frames.stats());
        assert!(frames.stats().high_water <= 1);
    });
}

#[test]
fn a_control_frame_meets_the_consumer_that_leaves() {
    model(|| {
        let (sender, mut frames) = channel(1);
        let control = thread::spawn(move || {
            let sent = sender.send_control(1).is_ok();
            (sent, sender)
        });
        let read = frames.try_recv().is_ok();
        drop(frames);
        let (sent, sender) = control.join().unwrap();
        let stats = sender.stats();
        assert_balanced(&stats);
        assert_eq!(stats.lost.consumer_dropped, u64::from(sent && !read));
    });
}

#[test]
fn close_releases_two_parked_senders_each_with_its_frame() {
    model(|| {
        let (sender, mut frames) = channel(1);
        sender.send(10).unwrap();
        let sources = [1, 2].map(|frame| send_on_thread(&sender, frame));
        assert!(sender.close());
        assert!(sources.into_iter().all(|source| !source.join().unwrap()));
        assert_eq!(read_all(&mut frames), [10]);
        assert_balanced(&frames.stats());
    });
}

#[test]
fn close_races_a_consumer_that_frees_the_slot() {
    model(|| {
        let (sender, mut frames) = channel(1);
        sender.send(10).unwrap();
        let source = send_on_thread(&sender, 1);
        let closer = thread::spawn(move || sender.close());
        let read = read_all(&mut frames);
        assert!(closer.join().unwrap());
        let expected: &[u64] = if source.join().unwrap() { &[10, 1] } else { &[10] };
        assert_eq!(read, expected);
        assert_balanced(&frames.stats());
    });
}

#[test]
fn a_send_that_races_the_drop_leaves_nothing_in_a_dead_queue() {
    model(|| {
        let losses = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&losses);
        let (sender, frames) = builder()
            .capacity(1)
            .on_loss(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            })
            .build()
            .unwrap();
        let sources = [1, 2].map(|frame| send_on_thread(&sender, frame));
        drop(frames);
        let sent = sources.into_iter().map(|source| source.join().unwrap());
        let sent = sent.filter(|sent| *sent).count();
        let stats = sender.stats();
        assert_balanced(&stats);
        assert_eq!(stats.lost.consumer_dropped as usize, sent);
        assert_eq!(losses.load(Ordering::Relaxed), sent);
        assert_eq!(stats.queued, 0);
    });
}

#[test]
fn a_sending_future_dropped_at_any_time_holds_nobody_up() {
    model(|| {
        let (sender, mut frames) = channel(1);
        sender.send(10).unwrap();
        let dropper = {
            let sender = sender.clone();
            thread::spawn(move || {
                let mut sending = pin!(sender.send_async(1));
                let mut cx = Context::from_waker(Waker::noop());
                let _ = sending.as_mut().poll(&mut cx);
            })
        };
        let source = send_on_thread(&sender, 2);
        drop(sender);
        let read = read_all(&mut frames);
        assert!(source.join().unwrap());
        dropper.join().unwrap();
        let stats = frames.stats();
        assert_balanced(&stats);
        assert_eq!(stats.lost.send_cancelled + read.len() as u64, 3);
        assert!(read.contains(&10) && read.contains(&2));
    });
}

#[test]
fn a_frame_that_would_fit_does_not_overtake_one_that_is_parked() {
    model(|| {
        let (sender, mut frames) = channel(1);
        sender.send(10).unwrap();
        let mut sending = pin!(sender.send_async(1));
        assert!(sending.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let consumer = thread::spawn(move || [(); 2].map(|()| frames.recv_blocking(None).ok()));
        let _ = sender.try_send(2);
        assert_eq!(consumer.join().unwrap(), [Some(10), Some(1)]);
    });
}

#[test]
fn an_awaited_send_is_woken_by_the_freed_slot() {
    model(|| {
        let (sender, mut frames) = channel(1);
        sender.send(10).unwrap();
        let source =
            thread::spawn(move || block_on(async move { sender.send_async(1).await.is_ok() }));
        assert_eq!(read_all(&mut frames), [10, 1]);
        assert!(source.join().unwrap());
        assert_balanced(&frames.stats());
    });
}

#[test]
fn an_evicting_sender_races_the_consumer() {
    model(|| {
        let (sender, mut frames) =
            builder().capacity(1).overflow(Overflow::DropOldest).build().unwrap();
        let source = thread::spawn(move || {
            for frame in [1, 2] {
                sender.send(frame).unwrap();
            }
        });
        let read = read_all(&mut frames);
        source.join().unwrap();
        assert_eq!(read.last(), Some(&2));
        let stats = frames.stats();
        assert_balanced(&stats);
        assert_eq!(stats.lost.evicted + read.len() as u64, 2);
    });
}

#[test]
fn gaps_and_frames_add_up_while_the_consumer_reads() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        model(move || {
            let (sender, frames) = builder().capacity(1).overflow(overflow).build().unwrap();
            let mut frames = frames.with_gaps();
            let source = thread::spawn(move || {
                for frame in [0, 1, 2] {
                    sender.send(frame).unwrap();
                }
            });
            let mut next = 0;
            while let Some(item) = block_on(frames.recv()) {
                next += match item {
                    FrameOrGap::Frame(frame) => {
                        assert_eq!(frame, next);
                        1
                    }
                    FrameOrGap::Gap(frames) => frames,
                };
            }
            assert_eq!(next, 3);
            source.join().unwrap();
            assert_balanced(&frames.get_ref().stats());
        });
    }
}

#[test]
fn the_last_pressure_told_is_that_of_the_empty_queue() {
    model(|| {
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = Arc::clone(&told);
        let (sender, mut frames) = builder()
            .capacity(1)
            .watermarks(0, 1, move |pressure| log.lock().unwrap().push(pressure))
            .build()
            .unwrap();
        let source = thread::spawn(move || [1, 2].map(|frame| sender.send(frame).is_ok()));
        assert_eq!(read_all(&mut frames), [1, 2]);
        assert_eq!(source.join().unwrap(), [true; 2]);
        assert_eq!(told.lock().unwrap().last().copied().unwrap_or(Pressure::Low), Pressure::Low);
    });
}

#[test]
fn the_last_drop_races_an_upgrade() {
    model(|| {
        let (sender, mut frames) = channel(1);
        let weak = sender.downgrade();
        let dropper = thread::spawn(move || drop(sender));
        let sent = weak.upgrade().is_some_and(|sender| sender.send(1).is_ok());
        dropper.join().unwrap();
        assert_eq!(read_all(&mut frames).len(), usize::from(sent));
        assert_eq!(frames.ending(), Some(Ending::Finished));
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn a_termination_callback_runs_once_however_late_it_comes() {
    model(|| {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let (sender, frames) = channel::<u64>(1);
        let consumer = thread::spawn(move || drop(frames));
        sender.on_termination(move |ending| {
            assert_eq!(ending, Ending::ConsumerDropped);
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(sender.closed(None), Ok(Ending::ConsumerDropped));
        consumer.join().unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn an_awaited_end_is_woken() {
    model(|| {
        let (sender, frames) = channel::<u64>(1);
        let consumer = thread::spawn(move || drop(frames));
        let ending = block_on(async { sender.closed_async().await });
        assert_eq!(ending, Ending::ConsumerDropped);
        consumer.join().unwrap();
    });
}

#[test]
fn a_flush_is_released_by_the_last_frame_handed_out() {
    model(|| {
        let (sender, mut frames) = channel(2);
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        let consumer = thread::spawn(move || {
            // No third look: nothing but the hand-over of the second frame can release the flush.
            let read = [(); 2].map(|()| frames.recv_blocking(None));
            (read, frames)
        });
        assert_eq!(sender.flush(None), Ok(Ok(())));
        assert_eq!(sender.stats().delivered, 2);
        let (read, frames) = consumer.join().unwrap();
        assert_eq!(read, [Ok(1), Ok(2)]);
        assert_balanced(&frames.stats());
    });
}

#[test]
fn a_flush_races_a_parked_sender_and_an_eviction() {
    for overflow in [Overflow::Block, Overflow::DropOldest] {
        model(move || {
            let (sender, mut frames) = builder().capacity(1).overflow(overflow).build().unwrap();
            sender.send(1).unwrap();
            let source = send_on_thread(&sender, 2);
            let flusher = thread::spawn(move || sender.flush(None));
            let read = read_all(&mut frames);
            assert_eq!(flusher.join().unwrap(), Ok(Ok(())));
            assert!(source.join().unwrap());
            assert_eq!(read.last(), Some(&2));
            assert_balanced(&frames.stats());
        });
    }
}

#[test]
fn a_reservation_is_served_by_the_freed_slot_or_gives_it_back() {
    model(|| {
        let (sender, mut frames) = channel(1);
        sender.send(1).unwrap();
        let source = send_on_thread(&sender, 2);
        let reserving = thread::spawn(move || {
            let mut reserve = pin!(sender.reserve_async());
            let mut cx = Context::from_waker(Waker::noop());
            // In line, served, or with the slot in hand: given up in each case.
            let _ = reserve.as_mut().poll(&mut cx);
        });
        let read = read_all(&mut frames);
        assert_eq!(read, [1, 2]);
        assert!(source.join().unwrap());
        reserving.join().unwrap();
        assert_balanced(&frames.stats());
    });
}

#[test]
fn two_permits_for_one_slot_come_one_after_the_other() {
    both_get_through(|sender, frame| sender.reserve(None).unwrap().send(frame).is_ok());
}

#[test]
fn a_flush_and_a_sender_wait_for_the_same_consumer() {
    model(|| {
        let (sender, mut frames) = channel(1);
        sender.send(1).unwrap();
        let mut parked = pin!(sender.send_async(2));
        assert!(parked.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let flushing = sender.clone();
        let flusher = thread::spawn(move || flushing.flush(None));
        let consumer = thread::spawn(move || {
            let read = [(); 2].map(|()| frames.recv_blocking(None));
            (read, frames)
        });
        assert_eq!(flusher.join().unwrap(), Ok(Ok(())));
        let (read, frames) = consumer.join().unwrap();
        assert_eq!(read, [Ok(1), Ok(2)]);
        assert_balanced(&frames.stats());
    });
}

#[test]
fn a_flush_meets_the_consumer_that_leaves() {
    model(|| {
        let (sender, mut frames) = channel(2);
        sender.send(1).unwrap();
        let consumer = thread::spawn(move || frames.try_recv().unwrap());
        let flushed = sender.flush(None);
        consumer.join().unwrap();
        assert_eq!(flushed, Ok(Ok(())), "everything was read before the stream was dropped");
        let (sender, frames) = channel(2);
        sender.send(1).unwrap();
        let consumer = thread::spawn(move || drop(frames));
        assert_eq!(sender.flush(None), Ok(Err(NotDone::Lost(LossReason::ConsumerDropped))));
        consumer.join().unwrap();
    });
}

#[test]
fn a_ready_hook_misses_neither_a_frame_nor_the_end() {
    model(|| {
        let (sender, mut frames) = channel(1);
        let source = thread::spawn(move || sender.send(1).is_ok());
        let bell = Arc::new(loom::sync::Notify::new());
        let rung = Arc::clone(&bell);
        frames.on_ready(move || rung.notify());
        let mut read = 0;
        while frames.ending().is_none() {
            bell.wait();
            while frames.try_recv().is_ok() {
                read += 1;
            }
        }
        assert_eq!(read, 1);
        assert!(source.join().unwrap());
    });
}

#[test]
fn an_evicting_sender_races_the_drop() {
    model(|| {
        let losses = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&losses);
        let (sender, frames) = builder()
            .capacity(1)
            .overflow(Overflow::DropOldest)
            .on_loss(move |_| {
                count.fetch_add(1, Ordering::Relaxed);
            })
            .build()
            .unwrap();
        let source = send_on_thread(&sender, 1);
        let consumer = thread::spawn(move || drop(frames));
        let sent = usize::from(sender.send(2).is_ok()) + usize::from(source.join().unwrap());
        consumer.join().unwrap();
        let stats = sender.stats();
        assert_balanced(&stats);
        assert_eq!(stats.queued, 0, "nothing stays in a queue that nobody reads");
        assert_eq!(losses.load(Ordering::Relaxed), sent);
    });
}

#[test]
fn an_awaiting_consumer_sees_the_latest_frame() {
    model(|| {
        let (sender, mut frames) = builder().overflow(Overflow::Latest).build().unwrap();
        let source = thread::spawn(move || [1, 2].map(|frame| sender.send(frame).is_ok()));
        let mut last = None;
        while let Some(frame) = block_on(frames.recv()) {
            last = Some(frame);
        }
        assert_eq!(last, Some(2));
        assert_eq!(source.join().unwrap(), [true; 2]);
        assert_balanced(&frames.stats());
    });
}

#[test]
fn an_awaited_send_meets_the_close() {
    model(|| {
        let (sender, mut frames) = channel(1);
        sender.send(10).unwrap();
        let sending = sender.clone();
        let source = thread::spawn(move || {
            block_on(async move { sending.send_async(1).await.map_err(SendError::into_inner) })
        });
        let closer = thread::spawn(move || sender.close());
        let read = read_all(&mut frames);
        closer.join().unwrap();
        match source.join().unwrap() {
            Ok(_) => assert_eq!(read, [10, 1]),
            Err(frame) => assert_eq!((read, frame), (vec![10], 1)),
        }
        assert_balanced(&frames.stats());
    });
}

#[test]
fn a_withdrawn_heavy_frame_lets_the_light_one_behind_it_in() {
    model(|| {
        let (sender, mut frames) =
            builder().capacity(4).weigh(|frame: &u64| *frame as usize, 4).build().unwrap();
        sender.send(2).unwrap();
        let mut heavy = Box::pin(sender.send_async(3));
        assert!(heavy.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let light = send_on_thread(&sender, 1);
        drop(heavy);
        assert!(light.join().unwrap());
        sender.close();
        assert_eq!(read_all(&mut frames), [2, 1]);
        assert_balanced(&frames.stats());
    });
}

#[test]
fn senders_that_wait_for_their_turn_all_get_through() {
    model(|| {
        let (sender, mut frames) = builder().capacity(2).turns(2, Duration::MAX).build().unwrap();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        let sources = [3, 4].map(|frame| send_on_thread(&sender, frame));
        drop(sender);
        assert_eq!(read_all(&mut frames).iter().sum::<u64>(), 10);
        assert!(sources.into_iter().all(|source| source.join().unwrap()));
        assert_balanced(&frames.stats());
        assert!(frames.stats().high_water <= 2);
    });
}

#[test]
fn who_waits_patiently_is_served_before_the_consumer_sleeps() {
    deep_model(|| {
        let (sender, mut frames) = builder().capacity(2).turns(4, Duration::MAX).build().unwrap();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        let mut first = Box::pin(sender.send_async(3));
        assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let source = send_on_thread(&sender, 4);
        assert_eq!([(); 4].map(|()| frames.recv_blocking(None)), [1, 2, 3, 4].map(Ok));
        assert!(source.join().unwrap());
        assert!(block_on(first).is_ok());
        assert_balanced(&frames.stats());
        assert!(frames.stats().high_water <= 2);
    });
}

#[test]
fn a_sender_that_has_been_patient_for_long_enough_needs_no_turn() {
    deep_model(|| {
        let (sender, mut frames) = builder().capacity(2).turns(4, Duration::ZERO).build().unwrap();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        let mut first = Box::pin(sender.send_async(3));
        assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let source = send_on_thread(&sender, 4);
        assert_eq!([1, 2].map(|_| frames.recv_blocking(None)), [1, 2].map(Ok));
        // The consumer reads no further before the sender is through.
        assert!(source.join().unwrap());
        sender.close();
        assert_eq!(read_all(&mut frames), [3, 4]);
        assert!(block_on(first).is_ok());
        assert_balanced(&frames.stats());
    });
}

#[test]
fn a_patient_sender_and_the_end_meet() {
    model(|| {
        let (sender, mut frames) = builder().capacity(2).turns(2, Duration::MAX).build().unwrap();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        let mut first = Box::pin(sender.send_async(3));
        assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let source = send_on_thread(&sender, 4);
        let closer = sender.clone();
        let closer = thread::spawn(move || closer.close());
        let read = read_all(&mut frames);
        assert!(closer.join().unwrap());
        let first = block_on(first).is_ok().then_some(3);
        let second = source.join().unwrap().then_some(4);
        let expected: Vec<u64> = [1, 2].into_iter().chain(first).chain(second).collect();
        assert_eq!(read, expected);
        assert_balanced(&frames.stats());
    });
}
