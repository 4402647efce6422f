//! Who is told of the end, once, and what it may do then.

use crate::*;
use callbridge::WaitError;
use callbridge::channel;
use callbridge::channel::{Ending, SendError};
use std::sync::Mutex;

/// b41. Swift: dropping the stream unread calls the termination hook, synchronously.
#[test]
fn a_dropped_stream_tells_its_source() {
    let (sender, frames) = channel::<u8>(1);
    let told = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..2 {
        let log = Arc::clone(&told);
        sender.on_termination(move |ending| log.lock().unwrap().push(ending));
    }
    drop(frames);
    assert_eq!(*told.lock().unwrap(), [Ending::ConsumerDropped; 2]);
    assert!(!sender.close());
    assert_eq!(told.lock().unwrap().len(), 2);
    assert_eq!(sender.ending(), Some(Ending::ConsumerDropped));
}

/// b2, b42. Swift: finishing calls the hook once, with the reason; finishing again calls nothing.
/// In Kotlin the cleanup runs after the error was read; here it is told by `fail` itself.
#[test]
fn a_source_that_ends_its_channel_is_told_once() {
    for (error, expected) in [(None, Ending::Finished), (Some("unplugged"), Ending::Failed)] {
        let (sender, mut frames) = channel(1);
        sender.send(1).unwrap();
        let (tell, told) = mpsc::channel();
        sender.on_termination(move |ending| tell.send(ending).unwrap());
        assert!(error.map_or_else(|| sender.close(), |error| sender.fail(error)));
        assert_eq!(told.try_recv(), Ok(expected));
        assert!(!sender.close() && !sender.fail("late"));
        assert!(frames.try_recv().is_ok() && frames.try_recv().is_err());
        drop((sender, frames));
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}

/// b43. Swift forgets a hook that is set after the end.
#[test]
fn a_late_termination_callback_runs_at_once() {
    let (sender, _frames) = channel::<u8>(1);
    sender.fail("unplugged");
    let (tell, told) = mpsc::channel();
    sender.on_termination(move |ending| tell.send(ending).unwrap());
    assert_eq!(told.try_recv(), Ok(Ending::Failed));
}

/// b44. In Swift the hook may supply the final error; here the end is final before anybody is told.
#[test]
fn a_termination_callback_may_use_the_channel_and_panic() {
    let told = within(|| {
        let (sender, frames) = channel::<u8>(1);
        let inside = sender.clone();
        sender.on_termination(move |_| {
            assert!(inside.is_closed() && inside.send(1).is_err());
            assert!(!inside.close() && !inside.fail("late"));
            panic!("the callback's own fault");
        });
        let (tell, told) = mpsc::channel();
        sender.on_termination(move |ending| tell.send(ending).unwrap());
        drop(frames);
        told.try_recv()
    });
    assert_eq!(told, Ok(Ending::ConsumerDropped));
}

/// b3. Kotlin: a source that hammers a stream whose consumer goes is neither hung nor panicked.
#[test]
fn a_source_that_hammers_a_vanishing_consumer_sees_the_end() {
    type Send = fn(&Sender<u8>) -> bool;
    let ways: [Send; 2] =
        [|sender| sender.send(1).is_ok(), |sender| sender.try_send(1) != Err(SendError::Closed(1))];
    within(move || {
        for (capacity, goes_on) in [(1, ways[0]), (8, ways[0]), (1, ways[1]), (8, ways[1])] {
            let (sender, mut frames) = channel(capacity);
            let sources: Vec<_> = (0..2)
                .map(|_| {
                    let sender = sender.clone();
                    std::thread::spawn(move || while goes_on(&sender) {})
                })
                .collect();
            for _ in 0..100 {
                frames.recv_blocking(None).unwrap();
            }
            drop(frames);
            sources.into_iter().for_each(|source| source.join().unwrap());
            let stats = sender.stats();
            assert_eq!((stats.delivered, stats.queued), (100, 0));
            assert!(stats.refused >= 2, "{stats:?}");
            assert_balanced(&stats);
        }
    });
}

/// b1. Kotlin: a consumer that fails on an item: the source is told, sees the end and leaves, and
/// nothing more is delivered.
#[test]
fn a_consumer_that_panics_on_a_frame_ends_its_source() {
    within(|| {
        for runtime in runtimes() {
            let (sender, mut frames) = channel(2);
            let (tell, told) = mpsc::channel();
            sender.on_termination(move |ending| tell.send(ending).unwrap());
            let source = std::thread::spawn(move || {
                (0..).take_while(|frame| sender.send(*frame).is_ok()).for_each(drop);
                sender.stats()
            });
            let consumer = runtime.spawn(async move {
                while let Some(frame) = frames.recv().await {
                    assert_ne!(frame, 3, "the consumer's own fault");
                }
            });
            assert!(runtime.block_on(consumer).unwrap_err().is_panic());
            let stats = source.join().unwrap();
            assert_eq!(stats.delivered, 4);
            assert_balanced(&stats);
            assert_eq!(told.iter().collect::<Vec<_>>(), [Ending::ConsumerDropped]);
        }
    });
}

/// b7, b61. Kotlin: a consumer that takes two of six: the producer is cancelled, and so is who
/// watches for the end. Node: the last item never arrives, and the finaliser runs once.
#[test]
fn a_consumer_that_has_enough_ends_the_source_and_its_watcher() {
    within(|| {
        let (sender, mut frames) = channel(1);
        let (tell, told) = mpsc::channel();
        sender.on_termination(move |ending| tell.send(ending).unwrap());
        let watching = sender.clone();
        let watcher = std::thread::spawn(move || watching.closed(None));
        let source = std::thread::spawn(move || (0..6).find_map(|frame| sender.send(frame).err()));
        assert_eq!([frames.recv_blocking(None), frames.recv_blocking(None)], [Ok(0), Ok(1)]);
        until("a parked sender", || frames.stats().waiting == 1);
        drop(frames);
        assert_eq!(source.join().unwrap(), Some(SendError::Closed(3)));
        assert_eq!(watcher.join().unwrap(), Ok(Ending::ConsumerDropped));
        assert_eq!(told.iter().collect::<Vec<_>>(), [Ending::ConsumerDropped]);
    });
}

/// b46. Swift: a consuming task that is cancelled ends the stream and releases the hook.
#[test]
fn an_aborted_consumer_tells_the_source_and_releases_the_callback() {
    for runtime in runtimes() {
        let (sender, mut frames) = channel::<u8>(1);
        let (tell, told) = mpsc::channel();
        sender.on_termination(move |ending| tell.send(ending).unwrap());
        let consumer = runtime.spawn(async move { frames.recv().await });
        runtime.block_on(async {
            tokio::task::yield_now().await;
            consumer.abort();
            assert!(consumer.await.unwrap_err().is_cancelled());
        });
        assert_eq!(told.try_recv(), Ok(Ending::ConsumerDropped));
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
        assert!(sender.is_closed());
    }
}

/// Swift: a consumer that is dropped tells the producer that waits.
#[test]
fn the_end_can_be_waited_for_by_threads_and_tasks() {
    within(|| {
        let (sender, frames) = channel::<u8>(1);
        assert_eq!(sender.closed(Duration::ZERO), Err(WaitError::TimedOut));
        let short = Duration::from_millis(1);
        assert_eq!(sender.closed(short), Err(WaitError::TimedOut));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut closed = sender.closed_async();
        for _ in 0..3 {
            assert!(Pin::new(&mut closed).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let mut dropped = sender.closed_async();
        assert!(Pin::new(&mut dropped).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(dropped);
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || sender.closed(Duration::MAX))
            })
            .collect();
        drop(frames);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Ok(Ending::ConsumerDropped));
        }
        assert_eq!(wakes.count(), 1);
        assert_eq!(poll_once(&mut closed), Poll::Ready(Ending::ConsumerDropped));
        assert_eq!(sender.closed(Duration::ZERO), Ok(Ending::ConsumerDropped));
    });
}
