//! Frames whose sender learns what became of them.

use crate::*;
use callbridge::channel::{self, NotDone, Receipt, Tracked};
use callbridge::channel::{LossReason, SendError};
use callbridge::future::ReturnWhen;
use callbridge::{FrameStream, Overflow, ResultError, as_completed, wait};
use std::sync::Mutex;

/// What has become of a frame by now.
#[track_caller]
fn fate(receipt: &mut Receipt) -> Option<Result<(), NotDone>> {
    receipt.try_result().map(|fate| fate.expect("a receipt always resolves"))
}

fn lossy(overflow: Overflow) -> (Sender<Tracked<u32>>, FrameStream<Tracked<u32>>) {
    channel::builder().capacity(1).overflow(overflow).build().unwrap()
}

#[test]
fn a_receipt_resolves_when_the_consumer_is_done_and_not_before() {
    let (sender, mut frames) = channel::channel(2);
    let mut receipt = sender.send_tracked(String::from("frame")).unwrap();
    assert_eq!(fate(&mut receipt), None);
    let mut frame = frames.try_recv().unwrap();
    assert_eq!(fate(&mut receipt), None);
    frame.push('s');
    assert_eq!((frame.len(), frame.done().as_str()), (6, "frames"));
    assert_eq!(fate(&mut receipt), Some(Ok(())));
}

#[test]
fn a_frame_that_is_dropped_unfinished_says_so() {
    let (sender, mut frames) = channel::channel(2);
    let mut dropped = sender.send_tracked(1).unwrap();
    let mut panicked = sender.send_tracked(2).unwrap();
    drop(frames.try_recv().unwrap());
    assert_eq!(fate(&mut dropped), Some(Err(NotDone::Unfinished)));
    let consumer = std::thread::spawn(move || {
        let _frame = frames.try_recv().unwrap();
        panic!("the consumer's own");
    });
    assert!(consumer.join().is_err());
    assert_eq!(panicked.result(LIMIT).unwrap(), Err(NotDone::Unfinished));
}

#[test]
fn what_a_policy_drops_is_lost_with_its_reason() {
    let (sender, mut frames) = lossy(Overflow::DropNewest);
    let mut kept = sender.send_tracked(1).unwrap();
    let mut dropped = sender.send_tracked(2).unwrap();
    assert_eq!(fate(&mut dropped), Some(Err(NotDone::Lost(LossReason::Overflow))));
    frames.try_recv().unwrap().done();
    assert_eq!(fate(&mut kept), Some(Ok(())));

    for overflow in [Overflow::DropOldest, Overflow::Latest] {
        let (sender, mut frames) = lossy(overflow);
        let mut evicted = sender.send_tracked(1).unwrap();
        let mut kept = sender.send_tracked(2).unwrap();
        assert_eq!(fate(&mut evicted), Some(Err(NotDone::Lost(LossReason::Evicted))));
        assert_eq!(frames.try_recv().unwrap().done(), 2);
        assert_eq!(fate(&mut kept), Some(Ok(())));
    }
}

#[test]
fn a_heavy_frame_settles_all_that_it_evicts() {
    let (sender, frames) = channel::builder()
        .weigh(|frame: &Tracked<usize>| **frame, 4)
        .overflow(Overflow::DropOldest)
        .build()
        .unwrap();
    let mut light = [1, 2, 1].map(|weight| sender.send_tracked(weight).unwrap());
    let mut heavy = sender.send_tracked(4).unwrap();
    for receipt in &mut light {
        assert_eq!(fate(receipt), Some(Err(NotDone::Lost(LossReason::Evicted))));
    }
    assert_eq!(sender.send_tracked(5).unwrap_err(), SendError::TooHeavy(5));
    assert_eq!(fate(&mut heavy), None);
    assert_eq!(frames.stats().lost.evicted, 3);
}

#[test]
fn frames_that_the_consumer_leaves_behind_are_lost() {
    let (sender, mut frames) = channel::channel(4);
    let mut receipts = [1, 2, 3].map(|frame| sender.send_tracked(frame).unwrap());
    // One handed out and kept, one in the consumer's batch, one in the queue.
    let kept = frames.try_recv().unwrap();
    let mut queued = sender.send_tracked(4).unwrap();
    drop(frames);
    let lost = Some(Err(NotDone::Lost(LossReason::ConsumerDropped)));
    assert_eq!([fate(&mut receipts[1]), fate(&mut receipts[2]), fate(&mut queued)], [lost; 3]);
    assert_eq!(fate(&mut receipts[0]), None);
    kept.done();
    assert_eq!(fate(&mut receipts[0]), Some(Ok(())));
    assert_eq!(sender.send_tracked(5).unwrap_err(), SendError::Closed(5));
    assert_balanced(&sender.stats());
}

#[test]
fn an_awaited_send_gives_its_receipt_and_loses_its_frame_when_it_is_dropped() {
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let (sender, mut frames) = channel::channel(1);
        let receipt = sender.send_tracked_async(1).await.unwrap();
        {
            let mut waiting = std::pin::pin!(sender.send_tracked_async(2));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(waiting.as_mut().poll(&mut cx).is_pending());
        }
        assert_eq!(sender.stats().lost.send_cancelled, 1);
        let consume = async { frames.recv().await.unwrap().done() };
        let (fate, frame) = tokio::join!(receipt, consume);
        assert_eq!((fate.unwrap(), frame), (Ok(()), 1));
    });
}

#[test]
fn the_loss_hook_finds_the_receipt_settled() {
    let seen = Arc::new(Mutex::new(None::<Receipt>));
    let told = Arc::new(Mutex::new(Vec::new()));
    let (receipt, log) = (Arc::clone(&seen), Arc::clone(&told));
    let (sender, frames) = channel::builder()
        .on_loss(move |loss: channel::Loss<'_, Tracked<u32>>| {
            let mut receipt = receipt.lock().unwrap();
            log.lock().unwrap().push((**loss.frame, fate(receipt.as_mut().unwrap())));
        })
        .build()
        .unwrap();
    *seen.lock().unwrap() = Some(sender.send_tracked(7).unwrap());
    drop(frames);
    let lost = Some(Err(NotDone::Lost(LossReason::ConsumerDropped)));
    assert_eq!(*told.lock().unwrap(), [(7, lost)]);
}

#[test]
fn a_receipt_that_nobody_keeps_changes_nothing_for_its_frame() {
    let (sender, mut frames) = channel::channel(2);
    drop(sender.send_tracked(1).unwrap());
    let mut cancelled = sender.send_tracked(2).unwrap();
    assert!(cancelled.cancel());
    assert_eq!(frames.try_recv().unwrap().done(), 1);
    assert_eq!(frames.try_recv().unwrap().done(), 2);
    assert_eq!(fate(&mut cancelled), Some(Ok(())));
}

#[test]
fn receipts_are_waited_for_together_and_with_a_limit() {
    let (sender, mut frames) = channel::channel(4);
    let mut receipts = [1, 2, 3].map(|frame| sender.send_tracked(frame).unwrap());
    assert!(matches!(
        receipts[0].result(Duration::from_millis(1)),
        Err(ResultError::TimedOut { .. })
    ));
    let consumer = std::thread::spawn(move || {
        while let Ok(frame) = frames.recv_blocking(None) {
            if *frame != 2 {
                frame.done();
            }
        }
    });
    drop(sender);
    let waited = wait(&mut receipts, LIMIT, ReturnWhen::AllCompleted).unwrap();
    assert_eq!(waited.0.len(), 3);
    let fates = as_completed(receipts, LIMIT).map(|ended| fate(&mut ended.unwrap()));
    assert_eq!(fates.filter(|fate| *fate == Some(Ok(()))).count(), 2);
    consumer.join().unwrap();
}

#[test]
fn a_done_callback_runs_where_the_frame_is_done_or_lost() {
    let (sender, mut frames) = channel::channel(2);
    let ran = Arc::new(Mutex::new(Vec::new()));
    for frame in [1, 2] {
        let ran = Arc::clone(&ran);
        let receipt = sender.send_tracked(frame).unwrap();
        receipt.add_done_callback(move |_| {
            ran.lock().unwrap().push((frame, std::thread::current().id()));
            panic!("contained");
        });
    }
    let consumer = std::thread::spawn(move || {
        frames.try_recv().unwrap().done();
        drop(frames);
        std::thread::current().id()
    });
    let there = consumer.join().unwrap();
    assert_eq!(*ran.lock().unwrap(), [(1, there), (2, there)]);
}

#[test]
fn whoever_sends_again_what_was_lost_delivers_everything() {
    let (sender, mut frames) = lossy(Overflow::DropOldest);
    let done = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&done);
    let consumer = std::thread::spawn(move || {
        let mut number = 0;
        while let Ok(frame) = frames.recv_blocking(None) {
            number += 1;
            // Every third is dropped by the consumer, too.
            if number % 3 != 0 {
                log.lock().unwrap().push(frame.done());
            }
        }
    });
    within(move || {
        let mut open: Vec<(u32, Receipt)> = Vec::new();
        for frame in 0..100 {
            open.push((frame, sender.send_tracked(frame).unwrap()));
        }
        while let Some((frame, mut receipt)) = open.pop() {
            if receipt.result(LIMIT).unwrap().is_err() {
                open.push((frame, sender.send_tracked(frame).unwrap()));
            }
        }
        assert_balanced(&sender.stats());
    });
    consumer.join().unwrap();
    let mut done = done.lock().unwrap().clone();
    done.sort_unstable();
    done.dedup();
    assert_eq!(done, (0..100).collect::<Vec<_>>());
}

#[test]
fn what_a_split_frame_leaves_is_passed_on_like_a_frame() {
    let (sender, mut frames) = channel::channel(2);
    let mut receipt = sender.send_tracked(1).unwrap();
    let (frame, left) = frames.try_recv().unwrap().split();
    assert_eq!(frame, 1);
    let (passed_on, mut later) = channel::channel(1);
    passed_on.send(left).unwrap();
    assert_eq!(fate(&mut receipt), None);
    later.try_recv().unwrap().done();
    assert_eq!(fate(&mut receipt), Some(Ok(())));
}
