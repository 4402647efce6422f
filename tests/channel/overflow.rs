//! Policies at their boundaries, the loss hook, and what a builder refuses.

use crate::*;
use callbridge::channel::{Fallback, WeakSender};
use callbridge::channel::{Loss, LossReason, SendError, Sent};
use callbridge::{FrameStream, Overflow, Sender, channel};
use std::sync::{Mutex, OnceLock};

pub(crate) type Losses<T> = Arc<Mutex<Vec<(T, LossReason)>>>;

fn with_hook(capacity: usize, overflow: Overflow) -> (Sender<u32>, FrameStream<u32>, Losses<u32>) {
    let losses = Losses::default();
    let log = Arc::clone(&losses);
    let (sender, frames) = channel::builder()
        .capacity(capacity)
        .overflow(overflow)
        .on_loss(move |loss: Loss<'_, u32>| log.lock().unwrap().push((*loss.frame, loss.reason)))
        .build()
        .unwrap();
    (sender, frames, losses)
}

pub(crate) fn drain<T>(frames: &mut FrameStream<T>) -> Vec<T> {
    std::iter::from_fn(|| frames.try_recv().ok()).collect()
}

fn remaining<T>(sent: Sent<T>) -> usize {
    match sent {
        Sent::Queued { remaining } => remaining,
        other => panic!("{other:?}"),
    }
}

#[test]
fn block_fills_to_exactly_its_capacity() {
    for capacity in [1, 2, 7] {
        let (sender, mut frames) = channel(capacity);
        for frame in 0..capacity {
            assert_eq!(remaining(sender.send(frame).unwrap()), capacity - 1 - frame);
        }
        assert_eq!(sender.try_send(99), Err(SendError::Full(99)));
        assert_eq!(drain(&mut frames).len(), capacity);
        assert_eq!(frames.stats().high_water, capacity as u64);
        assert_balanced(&frames.stats());
    }
}

/// b12, b35. Kotlin: drop-latest of capacity 2 keeps 1, 2. Swift: bufferingOldest(3) with 5 reports
/// the room 2, 1, 0 and hands 4 and 5 back.
#[test]
fn drop_newest_keeps_the_first_and_hands_back_the_rest() {
    let (sender, mut frames, losses) = with_hook(3, Overflow::DropNewest);
    let room: Vec<_> = (1..=3).map(|frame| remaining(sender.send(frame).unwrap())).collect();
    assert_eq!(room, [2, 1, 0]);
    assert_eq!(sender.send(4), Ok(Sent::Dropped(4)));
    assert_eq!(sender.send(5), Ok(Sent::Dropped(5)));
    assert_eq!(*losses.lock().unwrap(), [(4, LossReason::Overflow), (5, LossReason::Overflow)]);
    assert_eq!(drain(&mut frames), [1, 2, 3]);
    assert_eq!(frames.stats().lost.overflow, 2);
    assert_balanced(&frames.stats());
}

/// b11, b36. Kotlin: drop-oldest of capacity 2 keeps 3, 4. Swift: bufferingNewest(3) with 5 hands 1
/// and 2 back.
#[test]
fn drop_oldest_keeps_the_last_and_hands_back_the_evicted() {
    let (sender, mut frames, losses) = with_hook(3, Overflow::DropOldest);
    let room: Vec<_> = (1..=3).map(|frame| remaining(sender.send(frame).unwrap())).collect();
    assert_eq!(room, [2, 1, 0]);
    assert_eq!(sender.send(4), Ok(Sent::Evicted(1)));
    assert_eq!(sender.send(5), Ok(Sent::Evicted(2)));
    assert_eq!(*losses.lock().unwrap(), [(1, LossReason::Evicted), (2, LossReason::Evicted)]);
    assert_eq!(drain(&mut frames), [3, 4, 5]);
    assert_eq!(frames.stats().lost.evicted, 2);
    assert_balanced(&frames.stats());
}

/// b23. Kotlin: the drop hook is called for overflow in both modes, for a capacity of one as well.
#[test]
fn a_capacity_of_one_drops_and_evicts_like_any_other() {
    let (sender, mut frames, losses) = with_hook(1, Overflow::DropNewest);
    sender.send(1).unwrap();
    assert_eq!(sender.send(2), Ok(Sent::Dropped(2)));
    assert_eq!(drain(&mut frames), [1]);
    assert_eq!(losses.lock().unwrap().len(), 1);

    let (sender, mut frames, losses) = with_hook(1, Overflow::DropOldest);
    sender.send(1).unwrap();
    assert_eq!(sender.send(2), Ok(Sent::Evicted(1)));
    assert_eq!(drain(&mut frames), [2]);
    assert_eq!(losses.lock().unwrap().len(), 1);
}

/// b13, b14. Kotlin: a conflated channel shows the last of many, keeps it readable after the close,
/// and discards it when the consumer goes.
#[test]
fn latest_keeps_the_newest_only_whatever_capacity_was_set() {
    for leave in [false, true] {
        let (sender, mut frames, losses) = with_hook(64, Overflow::Latest);
        assert_eq!(sender.capacity(), 1);
        for frame in 1..=5 {
            sender.send(frame).unwrap();
        }
        assert_eq!(losses.lock().unwrap().len(), 4);
        if leave {
            drop(frames);
            assert_eq!(losses.lock().unwrap()[4..], [(5, LossReason::ConsumerDropped)]);
        } else {
            sender.close();
            assert_eq!(drain(&mut frames), [5]);
            assert_eq!(frames.try_recv(), Err(callbridge::channel::RecvError::Ended));
            assert_eq!(losses.lock().unwrap().len(), 4);
        }
        assert_balanced(&sender.stats());
    }
}

/// b13. Kotlin hands the first frame to a parked receiver directly; here the consumer is woken, and
/// reads the newest there is by the time it comes.
#[test]
fn a_parked_consumer_of_the_latest_is_woken_and_reads_the_newest() {
    let (sender, mut frames, _) = with_hook(1, Overflow::Latest);
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    assert!(frames.poll_recv(&mut cx).is_pending());
    sender.send(1).unwrap();
    assert_eq!(wakes.count(), 1);
    assert_eq!(frames.poll_recv(&mut cx), Poll::Ready(Some(1)));
    assert!(frames.poll_recv(&mut cx).is_pending());
    sender.send(2).unwrap();
    assert_eq!(sender.send(3), Ok(Sent::Evicted(2)));
    assert_eq!(wakes.count(), 2);
    assert_eq!(frames.poll_recv(&mut cx), Poll::Ready(Some(3)));
}

#[test]
fn fail_fails_the_call_and_the_stream_goes_on() {
    let (sender, mut frames, losses) = with_hook(1, Overflow::Fail);
    sender.send(1).unwrap();
    assert_eq!(sender.send(2), Err(SendError::Full(2)));
    assert_eq!(frames.try_recv(), Ok(1));
    sender.send(3).unwrap();
    assert_eq!(frames.try_recv(), Ok(3));
    assert!(losses.lock().unwrap().is_empty());
    assert_eq!(frames.stats().refused, 1);
    assert_balanced(&frames.stats());
}

/// b38. Swift: an unbounded buffer reports infinite room.
#[test]
fn unbounded_is_never_full() {
    let (sender, frames, _) = with_hook(1, Overflow::Unbounded);
    for frame in 0..10_000 {
        assert_eq!(remaining(sender.send(frame).unwrap()), usize::MAX);
    }
    assert_eq!(frames.len(), 10_000);
    assert_eq!(frames.capacity(), usize::MAX);
}

#[test]
fn block_for_falls_back_when_its_time_is_up() {
    let short = Duration::from_millis(2);
    for limit in [Duration::ZERO, short] {
        let (sender, mut frames, losses) =
            with_hook(1, Overflow::BlockFor(limit, Fallback::DropNewest));
        sender.send(1).unwrap();
        assert_eq!(sender.send(2), Ok(Sent::Dropped(2)));
        assert_eq!(drain(&mut frames), [1]);
        assert_eq!(*losses.lock().unwrap(), [(2, LossReason::Overflow)]);

        let (sender, mut frames, losses) =
            with_hook(1, Overflow::BlockFor(limit, Fallback::DropOldest));
        sender.send(1).unwrap();
        assert_eq!(sender.send(2), Ok(Sent::Evicted(1)));
        assert_eq!(drain(&mut frames), [2]);
        assert_eq!(*losses.lock().unwrap(), [(1, LossReason::Evicted)]);

        let (sender, frames, losses) = with_hook(1, Overflow::BlockFor(limit, Fallback::Fail));
        sender.send(1).unwrap();
        assert_eq!(sender.send(2), Err(SendError::TimedOut(2)));
        assert!(losses.lock().unwrap().is_empty());
        assert_balanced(&frames.stats());
        assert_eq!(frames.stats().blocked.count, u64::from(!limit.is_zero()));
    }
}

#[test]
fn block_for_sends_when_room_comes_in_time() {
    for fallback in [Fallback::DropNewest, Fallback::DropOldest, Fallback::Fail] {
        let (sender, mut frames, losses) = with_hook(1, Overflow::BlockFor(LIMIT, fallback));
        sender.send(1).unwrap();
        let source = {
            let sender = sender.clone();
            std::thread::spawn(move || sender.send(2))
        };
        until_parked(&sender, 1);
        assert_eq!(frames.try_recv(), Ok(1));
        assert!(matches!(source.join().unwrap(), Ok(Sent::Queued { .. })));
        assert_eq!(frames.try_recv(), Ok(2));
        assert!(losses.lock().unwrap().is_empty());
    }
}

/// b21. .NET and Kotlin drop modes apply to their try-send too; here a call that can hand the frame
/// back never loses one. Kotlin: the drop hook is not called for a rejected try-send.
#[test]
fn try_send_and_send_timeout_never_drop_a_frame() {
    for policy in [Overflow::DropNewest, Overflow::DropOldest, Overflow::Latest] {
        let (sender, mut frames, losses) = with_hook(1, policy);
        sender.try_send(1).unwrap();
        assert_eq!(sender.try_send(2), Err(SendError::Full(2)));
        assert!(sender.send_timeout(3, Duration::from_millis(1)).is_err());
        assert_eq!(drain(&mut frames), [1]);
        assert!(losses.lock().unwrap().is_empty());
        assert_eq!(frames.stats().refused, 2);
        assert_balanced(&frames.stats());
    }
}

/// b17. Kotlin: with a slow consumer drop-oldest shows the first frame and the last c, drop-latest
/// the first and the next c.
#[test]
fn a_slow_consumer_sees_what_the_policy_promises() {
    for (policy, expected) in
        [(Overflow::DropOldest, [1, 8, 9, 10]), (Overflow::DropNewest, [1, 2, 3, 4])]
    {
        let (sender, mut frames, _) = with_hook(3, policy);
        sender.send(1).unwrap();
        let mut seen = vec![frames.try_recv().unwrap()];
        for frame in 2..=10 {
            sender.send(frame).unwrap();
        }
        seen.extend(drain(&mut frames));
        assert_eq!(seen, expected);
    }
}

#[test]
fn capacity_counts_what_was_not_handed_out_whatever_is_batched() {
    let (sender, mut frames) = channel(4);
    for frame in 0..4 {
        sender.send(frame).unwrap();
    }
    assert_eq!(frames.try_recv(), Ok(0));
    assert_eq!((sender.len(), frames.len()), (3, 3));
    sender.try_send(4).unwrap();
    assert_eq!(sender.try_send(5), Err(SendError::Full(5)));
    assert_eq!(frames.stats().high_water, 4);
    assert_eq!(drain(&mut frames), [1, 2, 3, 4]);
}

/// b18. Kotlin: buffered items get the drop hook when the channel is cancelled, exactly once each,
/// and none on normal delivery.
#[test]
fn the_hook_sees_each_lost_frame_once_and_no_delivered_one() {
    let (sender, mut frames, losses) = with_hook(8, Overflow::Block);
    for frame in 1..=5 {
        sender.send(frame).unwrap();
    }
    assert_eq!(frames.try_recv(), Ok(1));
    sender.send(6).unwrap();
    drop(frames);
    let reason = LossReason::ConsumerDropped;
    assert_eq!(*losses.lock().unwrap(), [2, 3, 4, 5, 6].map(|frame| (frame, reason)));
    let stats = sender.stats();
    assert_eq!((stats.delivered, stats.lost.consumer_dropped, stats.queued), (1, 5, 0));
    assert_balanced(&stats);
}

/// b22. Kotlin: a drop hook that panics doesn't corrupt the channel; `tests/tracing.rs` sees the
/// report.
#[test]
fn a_panic_in_the_hook_is_contained() {
    let (sender, mut frames) = channel::builder()
        .capacity(1)
        .overflow(Overflow::DropOldest)
        .on_loss(|_: Loss<'_, u32>| panic!("the hook's own fault"))
        .build()
        .unwrap();
    sender.send(1).unwrap();
    assert_eq!(sender.send(2), Ok(Sent::Evicted(1)));
    assert_eq!(frames.try_recv(), Ok(2));
    sender.send(3).unwrap();
    drop(frames);
    assert_eq!(sender.stats().lost.total(), 2);
    assert_balanced(&sender.stats());
}

#[test]
fn the_hook_runs_outside_the_lock() {
    let stats = within(|| {
        let cell = Arc::new(Mutex::new(None::<Sender<u32>>));
        let inside = Arc::clone(&cell);
        let (sender, frames) = channel::builder()
            .capacity(1)
            .overflow(Overflow::DropNewest)
            .on_loss(move |loss: Loss<'_, u32>| {
                let sender = inside.lock().unwrap().take();
                if let Some(sender) = sender {
                    assert!(sender.stats().balances());
                    assert_eq!(sender.send(*loss.frame + 1), Ok(Sent::Dropped(3)));
                    sender.on_termination(|_| {});
                }
            })
            .build()
            .unwrap();
        *cell.lock().unwrap() = Some(sender.clone());
        sender.send(1).unwrap();
        assert_eq!(sender.send(2), Ok(Sent::Dropped(2)));
        frames.stats()
    });
    assert_eq!(stats.lost.overflow, 2);
}

#[test]
#[should_panic(expected = "capacity is 0")]
fn a_channel_without_capacity_is_a_mistake_that_shows_at_once() {
    let _ = channel::<u8>(0);
}

/// b15, b37. In Kotlin a capacity of 0 is 1 in a drop mode, in Swift it drops everything; here it
/// is a mistake that is told, but for the policies that need no capacity.
#[test]
fn a_builder_refuses_what_makes_no_sense() {
    type Setup = fn(channel::Builder<u8>) -> channel::Builder<u8>;
    let refusals: [(Setup, &str, &str); 4] = [
        (|b| b.capacity(0), "capacity", "at least 1"),
        (|b| b.name("a\0b"), "name", "NUL byte"),
        (|b| b.weigh(|_| 1, 0), "weigh", "must be at least 1"),
        (
            |b| b.weigh(|_| 1, 9).overflow(Overflow::Unbounded),
            "weigh",
            "no use in an unbounded channel",
        ),
    ];
    for (setup, expected, text) in refusals {
        let refused = setup(channel::builder()).build().unwrap_err();
        assert_eq!(refused.setting(), expected);
        assert!(refused.to_string().contains(text), "{refused}");
    }
    let patience = Overflow::BlockFor(LIMIT, Fallback::DropOldest);
    for policy in [patience, Overflow::DropNewest, Overflow::DropOldest, Overflow::Fail] {
        let refused = channel::builder::<u8>().capacity(0).overflow(policy).build();
        assert_eq!(refused.unwrap_err().setting(), "capacity", "{policy:?}");
    }
    for (policy, capacity) in [(Overflow::Latest, 1), (Overflow::Unbounded, usize::MAX)] {
        let (sender, _) = channel::builder::<u8>().capacity(0).overflow(policy).build().unwrap();
        assert_eq!(sender.capacity(), capacity);
    }
    let order = channel::builder::<u8>().watermarks(3, 2, |_| {}).build().unwrap_err();
    assert_eq!(order.setting(), "watermarks");
    assert!(order.to_string().contains("low one (3) must lie below the high one (2)"), "{order}");
    let above = channel::builder::<u8>().capacity(4).watermarks(1, 5, |_| {}).build().unwrap_err();
    assert!(above.to_string().contains("high one (5) is above the capacity (4)"), "{above}");
}

/// b16. Kotlin: setting twice, the last one wins; strategy and capacity combine predictably.
#[test]
fn the_last_setting_wins_and_policy_and_capacity_come_in_any_order() {
    type Setup = fn(channel::Builder<u8>) -> channel::Builder<u8>;
    type Third = Result<Sent<u8>, SendError<u8>>;
    let setups: [(Setup, Third); 4] = [
        (|b| b.capacity(2).overflow(Overflow::Fail), Err(SendError::Full(2))),
        (|b| b.overflow(Overflow::Fail).capacity(2), Err(SendError::Full(2))),
        (|b| b.overflow(Overflow::DropNewest), Ok(Sent::Dropped(2))),
        // The capacity outlives a policy that has no use for it.
        (|b| b.overflow(Overflow::Latest).overflow(Overflow::DropOldest), Ok(Sent::Evicted(0))),
    ];
    for (setup, third) in setups {
        let earlier = channel::builder().capacity(0).overflow(Overflow::Unbounded).capacity(2);
        let (sender, _frames) = setup(earlier).build().unwrap();
        assert_eq!(sender.capacity(), 2);
        sender.send(0).unwrap();
        sender.send(1).unwrap();
        assert_eq!(sender.send(2), third);
    }
}

#[test]
fn debug_shows_no_payload() {
    struct Secret;
    let (sender, mut frames) = channel(1);
    let texts = [
        format!("{:?}", sender.send(Secret)),
        format!("{:?}", sender.try_send(Secret)),
        format!("{:?}", Sent::Evicted(Secret)),
        format!("{sender:?} {frames:?}"),
        format!("{:?}", sender.send_async(Secret)),
    ];
    assert_eq!(texts[0], "Ok(Queued { remaining: 0 })");
    assert_eq!(texts[1], "Err(Full(..))");
    assert_eq!(texts[2], "Evicted(..)");
    assert!(texts[3].contains("len: 1"), "{}", texts[3]);
    assert!(frames.try_recv().is_ok());
}

/// Two frames into a channel of one, whose loss hook sends a third into the same channel; returns
/// how often the hook ran.
fn hook_that_sends(overflow: Overflow) -> (FrameStream<u32>, usize) {
    let sender = Arc::new(OnceLock::<WeakSender<u32>>::new());
    let (own, runs) = (Arc::clone(&sender), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&runs);
    let (first, frames) = channel::builder()
        .capacity(1)
        .overflow(overflow)
        .on_loss(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
            if let Some(sender) = own.get().and_then(WeakSender::upgrade) {
                let _ = sender.send(99);
            }
        })
        .build()
        .unwrap();
    sender.set(first.downgrade()).unwrap();
    first.send(1).unwrap();
    first.send(2).unwrap();
    (frames, runs.load(Ordering::Relaxed))
}

#[test]
fn a_loss_hook_that_sends_into_its_own_full_channel_is_not_called_for_its_own_loss() {
    let wait = Overflow::BlockFor(std::time::Duration::from_millis(1), Fallback::DropNewest);
    for overflow in [Overflow::DropNewest, wait] {
        let (mut frames, runs) = hook_that_sends(overflow);
        assert_eq!((runs, frames.stats().lost.overflow), (1, 2), "{overflow:?}");
        assert_eq!(drain(&mut frames), [1]);
    }
    for overflow in [Overflow::DropOldest, Overflow::Latest] {
        let (mut frames, runs) = hook_that_sends(overflow);
        assert_eq!((runs, frames.stats().lost.evicted), (1, 2), "{overflow:?}");
        assert_eq!(drain(&mut frames), [99]);
        assert_balanced(&frames.stats());
    }
}

#[test]
fn the_hooks_of_two_channels_that_send_into_each_other_come_to_an_end() {
    let ends = Arc::new(OnceLock::<[Sender<u32>; 2]>::new());
    let make = |other: usize| {
        let ends = Arc::clone(&ends);
        let builder = channel::builder().capacity(1).overflow(Overflow::DropNewest);
        let hook = move |_: Loss<'_, u32>| {
            let _ = ends.get().unwrap()[other].send(7);
        };
        builder.on_loss(hook).build().unwrap()
    };
    let ((one, one_frames), (other, other_frames)) = (make(1), make(0));
    assert!(ends.set([one.clone(), other.clone()]).is_ok());
    other.send(0).unwrap();
    one.send(1).unwrap();
    // Told to the first hook, whose frame is lost in the second channel and told there; what
    // that hook sends is lost in the first channel, whose hook is still at work.
    one.send(2).unwrap();
    assert_eq!((one_frames.stats().lost.overflow, other_frames.stats().lost.overflow), (2, 1));
}

/// A frame whose destructor can panic.
struct Fragile {
    weight: usize,
    panics: bool,
}

impl Fragile {
    fn new(weight: usize, panics: bool) -> Self {
        Fragile { weight, panics }
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.panics, "a frame's destructor");
    }
}

#[test]
fn evicted_frames_whose_destructors_panic_neither_unwind_nor_hold_a_waiting_sender_up() {
    within(|| {
        let (sender, mut frames) = channel::builder()
            .capacity(16)
            .weigh(|frame: &Fragile| frame.weight, 8)
            .overflow(Overflow::DropOldest)
            .build()
            .unwrap();
        for (weight, panics) in [(1, false), (1, true), (1, true), (5, true)] {
            sender.send(Fragile::new(weight, panics)).unwrap();
        }
        let waiting = {
            let sender = sender.clone();
            std::thread::spawn(move || sender.send_timeout(Fragile::new(1, false), LIMIT).is_ok())
        };
        until_parked(&sender, 1);
        // Evicts all four, which leaves room for the one that waits.
        let Sent::Evicted(first) = sender.send(Fragile::new(4, false)).unwrap() else {
            panic!("nothing was evicted")
        };
        assert!(!first.panics);
        assert!(waiting.join().unwrap());
        assert_eq!(drain(&mut frames).len(), 2);
        assert_eq!(frames.stats().lost.evicted, 4);
        assert_balanced(&frames.stats());
    });
}

#[test]
fn a_frame_that_is_lost_in_a_callback_may_panic_in_its_destructor() {
    let (sender, frames) =
        channel::builder().capacity(1).overflow(Overflow::DropNewest).build().unwrap();
    let callback = sender.callback();
    callback(Fragile::new(1, false));
    callback(Fragile::new(1, true));
    drop(frames);
    callback(Fragile::new(1, true));
    drop(sender.send_async(Fragile::new(1, true)));
    let lost = sender.stats().lost;
    assert_eq!((lost.overflow, lost.closed, lost.send_cancelled), (1, 1, 1));
}
