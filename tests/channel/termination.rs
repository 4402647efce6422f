//! Who is told of the end, once, and what it may do then.

use crate::*;
use callbridge::channel::WaitClosedError;
use callbridge::{Ending, channel};
use std::sync::Mutex;

/// Swift: dropping the stream unread calls the termination hook, synchronously.
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

/// Swift forgets a hook that is set after the end.
#[test]
fn a_late_termination_callback_runs_at_once() {
    let (sender, _frames) = channel::<u8>(1);
    sender.fail("unplugged");
    let (tell, told) = mpsc::channel();
    sender.on_termination(move |ending| tell.send(ending).unwrap());
    assert_eq!(told.try_recv(), Ok(Ending::Failed));
}

#[test]
fn a_termination_callback_may_use_the_channel_and_panic() {
    let told = within(|| {
        let (sender, frames) = channel::<u8>(1);
        let inside = sender.clone();
        sender.on_termination(move |_| {
            assert!(inside.is_closed() && inside.send(1).is_err() && !inside.close());
            panic!("the callback's own fault");
        });
        let (tell, told) = mpsc::channel();
        sender.on_termination(move |ending| tell.send(ending).unwrap());
        drop(frames);
        told.try_recv()
    });
    assert_eq!(told, Ok(Ending::ConsumerDropped));
}

/// Kotlin: a source that hammers a stream whose consumer goes is neither hung nor panicked.
#[test]
fn a_source_that_hammers_a_vanishing_consumer_sees_the_end() {
    within(|| {
        for capacity in [1, 8] {
            let (sender, mut frames) = channel(capacity);
            let sources: Vec<_> = (0..2)
                .map(|_| {
                    let sender = sender.clone();
                    std::thread::spawn(move || while sender.send(1).is_ok() {})
                })
                .collect();
            for _ in 0..100 {
                frames.recv_blocking(None).unwrap();
            }
            drop(frames);
            sources.into_iter().for_each(|source| source.join().unwrap());
            let stats = sender.stats();
            assert_eq!((stats.delivered, stats.refused, stats.queued), (100, 2, 0));
            assert_balanced(&stats);
        }
    });
}

/// Swift: a consumer that is dropped tells the producer that waits.
#[test]
fn the_end_can_be_waited_for_by_threads_and_tasks() {
    within(|| {
        let (sender, frames) = channel::<u8>(1);
        assert_eq!(sender.wait_closed(Duration::ZERO), Err(WaitClosedError::TimedOut));
        let short = Duration::from_millis(1);
        assert_eq!(sender.wait_closed(short), Err(WaitClosedError::TimedOut));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut closed = sender.closed();
        for _ in 0..3 {
            assert!(Pin::new(&mut closed).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let mut dropped = sender.closed();
        assert!(Pin::new(&mut dropped).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(dropped);
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let sender = sender.clone();
                std::thread::spawn(move || sender.wait_closed(Duration::MAX))
            })
            .collect();
        drop(frames);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Ok(Ending::ConsumerDropped));
        }
        assert_eq!(wakes.count(), 1);
        assert_eq!(poll_once(&mut closed), Poll::Ready(Ending::ConsumerDropped));
        assert_eq!(sender.wait_closed(Duration::ZERO), Ok(Ending::ConsumerDropped));
    });
}
