//! The consumer's end: reading, waking, and the loop's budget.

use crate::common::rounds;
use crate::*;
use callbridge::channel::{RecvError, SendError};
use callbridge::{FrameStream, Overflow, channel};
use futures_core::Stream;
use std::marker::PhantomPinned;
use std::sync::atomic::{AtomicBool, Ordering};

const fn assert_send<T: Send>() {}
const fn assert_unpin<T: Unpin>() {}
const _: () = {
    assert_send::<FrameStream<std::cell::Cell<u8>>>();
    assert_send::<channel::TryFrameStream<std::cell::Cell<u8>>>();
    assert_unpin::<FrameStream<PhantomPinned>>();
    assert_unpin::<channel::TryFrameStream<PhantomPinned>>();
};

fn poll_with(frames: &mut FrameStream<u32>, wakes: &Arc<Wakes>) -> Poll<Option<u32>> {
    let waker = Waker::from(Arc::clone(wakes));
    frames.poll_recv(&mut Context::from_waker(&waker))
}

/// b31. Swift: yield without a consumer, then a consumer; yield from another thread.
#[test]
fn frames_wait_for_their_consumer_and_the_consumer_for_frames() {
    for runtime in runtimes() {
        let (sender, mut frames) = channel(1);
        sender.send(1).unwrap();
        let source = std::thread::spawn(move || sender.send(2).is_ok());
        let read = async { [frames.recv().await, frames.recv().await, frames.recv().await] };
        let read = runtime.block_on(async { tokio::time::timeout(LIMIT, read).await.unwrap() });
        assert_eq!(read, [Some(1), Some(2), None]);
        assert!(source.join().unwrap());
    }
}

/// b20. Kotlin: a receive that is cancelled after the hand-off gets the drop hook; here nothing is
/// handed off before it is taken, and nothing lost. iroh and flume: a cancelled receive swallowed
/// the notification, or the frame.
#[test]
fn a_recv_that_loses_a_race_takes_nothing() {
    let (enough_lost_races, enough_frames) = (rounds(10_000), rounds(1_000));
    for (policy, capacity) in [(Overflow::Block, 3), (Overflow::Fail, 1), (Overflow::Block, 1)] {
        let (sender, mut frames) =
            channel::builder().capacity(capacity).overflow(policy).build().unwrap();
        let enough = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&enough);
        let source = std::thread::spawn(move || {
            let mut sent = 0;
            while !stop.load(Ordering::Acquire) {
                while matches!(sender.send(sent), Err(SendError::Full(_))) {
                    std::thread::yield_now();
                }
                sent += 1;
            }
            sent
        });
        let [runtime, _] = runtimes();
        let read = runtime.block_on(async {
            let (mut next, mut lost_races, mut last) = (0_usize, 0, Instant::now());
            loop {
                tokio::select! {
                    frame = frames.recv() => match frame {
                        Some(frame) => {
                            assert_eq!(frame, next);
                            (next, last) = (next + 1, Instant::now());
                        }
                        None => break next,
                    },
                    () = tokio::task::yield_now() => lost_races += 1,
                    () = tokio::time::sleep(Duration::from_micros(next as u64 % 3)) => {
                        lost_races += 1;
                    }
                }
                // Of the frames, not of the whole: how long so many take is up to the machine.
                assert!(last.elapsed() < LIMIT, "a frame was lost");
                let is_enough = next >= enough_frames && lost_races >= enough_lost_races;
                enough.store(is_enough, Ordering::Release);
            }
        });
        assert_eq!(source.join().unwrap(), read);
        assert_eq!(frames.stats().delivered, read as u64);
        assert_balanced(&frames.stats());
    }
}

/// b124. libpcap: a count of 0 is none, not "for ever".
#[test]
fn recv_many_takes_what_is_there_up_to_its_limit() {
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        for watermarked in [false, true] {
            let builder = channel::builder().capacity(100);
            let builder = if watermarked { builder.watermarks(1, 2, |_| {}) } else { builder };
            let (sender, mut frames) = builder.build().unwrap();
            for frame in 0..10 {
                sender.send(frame).unwrap();
            }
            let mut buffer = vec![99];
            assert_eq!(frames.recv_many(&mut buffer, 0).await, 0);
            assert_eq!(frames.recv_many(&mut buffer, 4).await, 4);
            assert_eq!(frames.len(), 6);
            for frame in 10..15 {
                sender.send(frame).unwrap();
            }
            assert_eq!(frames.recv_many(&mut buffer, 50).await, 11);
            assert_eq!(buffer[0], 99);
            assert_eq!(buffer[1..], (0..15).collect::<Vec<_>>());
            drop(sender);
            assert_eq!(frames.recv_many(&mut buffer, 50).await, 0);
            assert_eq!(frames.stats().delivered, 15);
            assert_balanced(&frames.stats());
        }
    });
}

#[test]
fn try_recv_tells_empty_from_ended() {
    let (sender, mut frames) = channel(1);
    assert_eq!(frames.try_recv(), Err(RecvError::Empty));
    sender.send(1).unwrap();
    drop(sender);
    assert_eq!(frames.try_recv(), Ok(1));
    for _ in 0..2 {
        assert_eq!(frames.try_recv(), Err(RecvError::Ended));
    }
}

#[test]
fn recv_blocking_waits_for_a_frame_the_end_or_its_limit() {
    within(|| {
        let (sender, mut frames) = channel(1);
        assert_eq!(frames.recv_blocking(Duration::ZERO), Err(RecvError::TimedOut));
        let short = Duration::from_millis(1);
        assert_eq!(frames.recv_blocking(short), Err(RecvError::TimedOut));
        let consumer = std::thread::spawn(move || {
            let read = [frames.recv_blocking(Duration::MAX), frames.recv_blocking(None)];
            (read, frames.recv_blocking(None))
        });
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        drop(sender);
        let (read, end) = consumer.join().unwrap();
        assert_eq!((read, end), ([Ok(1), Ok(2)], Err(RecvError::Ended)));
    });
}

#[test]
fn a_closed_stream_is_read_to_its_end() {
    let (sender, mut frames) = channel(4);
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    assert_eq!(frames.try_recv(), Ok(1));
    assert!(frames.close());
    assert!(sender.send(3).is_err());
    assert_eq!(frames.try_recv(), Ok(2));
    assert_eq!(frames.try_recv(), Err(RecvError::Ended));
    assert_eq!(frames.ending(), Some(callbridge::channel::Ending::ConsumerDropped));
    assert_balanced(&frames.stats());
}

#[test]
fn the_size_hint_counts_what_will_surely_come() {
    let (sender, mut frames) = channel(4);
    assert_eq!(frames.size_hint(), (0, None));
    assert!(sender.is_empty() && frames.is_empty());
    sender.send(1).unwrap();
    sender.send(2).unwrap();
    sender.send(3).unwrap();
    assert_eq!(frames.try_recv(), Ok(1));
    assert!(!sender.is_empty() && !frames.is_empty());
    assert_eq!(frames.size_hint(), (2, None));
    drop(sender);
    assert_eq!(frames.size_hint(), (2, Some(2)));
    assert_eq!(frames.iter_blocking().size_hint(), (2, None), "errors may come as well");
    assert_eq!(frames.with_gaps().size_hint(), (2, None), "gaps may come as well");

    let (sender, frames) = channel::builder().weigh(|_: &u8| 1, 4).build().unwrap();
    sender.send(1).unwrap();
    assert_eq!(frames.size_hint(), (0, None), "a heavy frame may evict light ones");
}

/// event-listener: a fast path that sees nobody listening loses the notification. async-channel:
/// every waiting task is woken for every message.
#[test]
fn a_parked_consumer_is_woken_once_and_a_busy_one_never() {
    for evicting in [false, true] {
        let policy = if evicting { Overflow::DropOldest } else { Overflow::Block };
        let (sender, mut frames) = channel::builder().capacity(8).overflow(policy).build().unwrap();
        let wakes = Arc::new(Wakes::default());
        sender.send(1).unwrap();
        assert!(poll_with(&mut frames, &wakes).is_ready());
        sender.send(2).unwrap();
        assert_eq!(wakes.count(), 0, "nobody was parked");
        assert!(poll_with(&mut frames, &wakes).is_ready());
        for _ in 0..3 {
            assert!(poll_with(&mut frames, &wakes).is_pending());
        }
        for frame in 3..6 {
            sender.send(frame).unwrap();
        }
        assert_eq!(wakes.count(), 1, "one park, one wake");
        for frame in 3..6 {
            assert_eq!(poll_with(&mut frames, &wakes), Poll::Ready(Some(frame)));
        }
        assert!(poll_with(&mut frames, &wakes).is_pending());
        drop(sender);
        assert_eq!(wakes.count(), 2, "the end wakes, too");
        assert_eq!(poll_with(&mut frames, &wakes), Poll::Ready(None));
    }
}

#[test]
fn a_stream_that_moves_to_another_task_wakes_the_new_one() {
    let (sender, mut frames) = channel(1);
    let wakes: Vec<_> = (0..2).map(|_| Arc::new(Wakes::default())).collect();
    for wakes in &wakes {
        assert!(poll_with(&mut frames, wakes).is_pending());
    }
    sender.send(1).unwrap();
    assert_eq!((wakes[0].count(), wakes[1].count()), (0, 1));
}

#[test]
fn a_waker_that_uses_the_channel_is_woken_outside_the_lock() {
    struct Nosy(Sender<u32>);
    impl Wake for Nosy {
        fn wake(self: Arc<Self>) {
            assert!(self.0.stats().balances());
        }
    }
    impl Drop for Nosy {
        fn drop(&mut self) {
            assert!(self.0.stats().balances());
        }
    }
    within(|| {
        let (sender, mut frames) = channel(1);
        for _ in 0..2 {
            let waker = Waker::from(Arc::new(Nosy(sender.clone())));
            assert!(frames.poll_recv(&mut Context::from_waker(&waker)).is_pending());
        }
        sender.send(1).unwrap();
        let waker = Waker::from(Arc::new(Nosy(sender.clone())));
        let mut waiting = sender.send_async(2);
        assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        assert_eq!(frames.try_recv(), Ok(1));
        assert!(poll_once(&mut waiting).is_ready());
        let waker = Waker::from(Arc::new(Nosy(sender.clone())));
        let mut waiting = sender.send_async(3);
        assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        drop(frames);
    });
}

#[test]
fn a_consumer_that_always_finds_frames_lets_its_neighbours_run() {
    const FRAMES: u32 = 10_000;
    let [runtime, _] = runtimes();
    runtime.block_on(async {
        let (sender, mut frames) =
            channel::builder().overflow(Overflow::Unbounded).build().unwrap();
        for frame in 0..FRAMES {
            sender.send(frame).unwrap();
        }
        drop(sender);
        let ran = Arc::new(AtomicBool::new(false));
        let neighbour = Arc::clone(&ran);
        let consumer = tokio::spawn(async move {
            let mut read = 0;
            while !ran.load(Ordering::Relaxed) && frames.recv().await.is_some() {
                read += 1;
            }
            read
        });
        tokio::spawn(async move { neighbour.store(true, Ordering::Relaxed) });
        // Polled first, the consumer must give way before it has read everything.
        assert!(consumer.await.unwrap() < FRAMES);
    });
}

#[test]
fn a_sender_that_always_finds_room_lets_its_neighbours_run() {
    let [runtime, _] = runtimes();
    let rounds = runtime.block_on(async {
        let (sender, mut frames) = channel(8);
        let sending = async {
            for _ in 0..10_000 {
                sender.send_async(1).await.unwrap();
                frames.recv().await.unwrap();
            }
        };
        let ran = tokio::spawn(async { 7 });
        tokio::select! {
            () = sending => panic!("the neighbour never ran"),
            answer = ran => answer.unwrap(),
        }
    });
    assert_eq!(rounds, 7);
}

/// b112. UniFFI: several loops one after another.
#[test]
fn the_stream_outlives_the_loop_it_was_read_on() {
    let (sender, mut frames) = channel(4);
    for runtime in runtimes() {
        sender.send(1).unwrap();
        assert_eq!(runtime.block_on(frames.recv()), Some(1));
        drop(runtime);
    }
    sender.send(2).unwrap();
    assert_eq!(frames.recv_blocking(LIMIT), Ok(2));
}

/// b64. Node: a loop that is torn down while threads send.
#[test]
fn a_loop_that_dies_with_the_stream_releases_its_senders() {
    within(|| {
        for runtime in runtimes() {
            let (sender, mut frames) = channel(1);
            runtime.spawn(async move {
                while frames.recv().await != Some(3) {}
                std::future::pending::<()>().await;
            });
            let source = std::thread::spawn(move || {
                let mut frame = 0;
                while sender.send(frame).is_ok() {
                    frame += 1;
                }
                sender.ending()
            });
            if runtime.handle().runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread {
                runtime.block_on(tokio::task::yield_now());
            }
            drop(runtime);
            assert_eq!(source.join().unwrap(), Some(callbridge::channel::Ending::ConsumerDropped));
        }
    });
}

#[test]
fn a_thread_takes_what_is_there_in_one_go() {
    within(|| {
        let (sender, mut frames) = channel(8);
        let mut buffer = Vec::new();
        let none = frames.recv_many_blocking(&mut buffer, 8, Duration::ZERO);
        assert_eq!(none, Err(RecvError::TimedOut));
        let source = std::thread::spawn(move || {
            (0..1000).for_each(|frame| assert!(sender.send(frame).is_ok()));
        });
        loop {
            assert_eq!(frames.recv_many_blocking(&mut buffer, 0, None), Ok(0));
            let before = buffer.len();
            match frames.recv_many_blocking(&mut buffer, 5, None) {
                Ok(taken) => assert!((1..=5).contains(&taken) && taken == buffer.len() - before),
                Err(error) => break assert_eq!(error, RecvError::Ended),
            }
        }
        assert!(buffer.into_iter().eq(0..1000));
        source.join().unwrap();
    });
}

#[test]
fn a_thread_iterates_over_the_frames_to_the_end_and_not_beyond() {
    let (sender, mut frames) = channel(2);
    let source = std::thread::spawn(move || {
        for frame in 0..5 {
            sender.send(frame).unwrap();
        }
        sender.fail("unplugged");
    });
    let first: Vec<_> = frames.iter_blocking().take(2).map(Result::unwrap).collect();
    let mut rest = Vec::new();
    for frame in frames.iter_blocking() {
        rest.push(frame.unwrap());
    }
    assert_eq!((first, rest), (vec![0, 1], vec![2, 3, 4]));
    assert_eq!(frames.iter_blocking().next(), None);
    assert_eq!(frames.error().unwrap().to_string(), "unplugged");
    source.join().unwrap();
}

#[test]
fn iterating_on_a_loop_is_refused_where_it_would_wait() {
    for runtime in runtimes() {
        let (sender, mut frames) = channel(2);
        runtime.block_on(async {
            sender.send(1).unwrap();
            let mut iter = frames.iter_blocking();
            assert_eq!(iter.next(), Some(Ok(1)));
            assert_eq!(iter.next(), Some(Err(RecvError::WouldDeadlock)));
            drop(sender);
            assert_eq!(iter.next(), None);
        });
    }
}
