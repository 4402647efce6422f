//! Waiting until the consumer has been handed what was queued.

use crate::*;
use callbridge::channel::{self, LossReason, NotDone};
use callbridge::{Overflow, WaitError::*};

const LEFT: NotDone = NotDone::Lost(LossReason::ConsumerDropped);

/// Channels that are read in batches and frame by frame.
fn both_kinds() -> [(Sender<u32>, callbridge::FrameStream<u32>); 2] {
    let setup = || channel::builder().capacity(4);
    [setup().build().unwrap(), setup().overflow(Overflow::DropOldest).build().unwrap()]
}

#[test]
fn nothing_queued_is_nothing_to_wait_for() {
    for (sender, mut frames) in both_kinds() {
        assert_eq!(sender.flush(Duration::ZERO), Ok(Ok(())));
        sender.send(1).unwrap();
        assert_eq!(sender.flush(Duration::ZERO), Err(TimedOut));
        assert_eq!(frames.try_recv(), Ok(1));
        assert_eq!(sender.flush(Duration::ZERO), Ok(Ok(())));
    }
}

#[test]
fn a_flush_waits_for_what_was_queued_when_it_was_called_and_no_more() {
    for (sender, mut frames) in both_kinds() {
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        let mut two = sender.flush_async();
        sender.send(3).unwrap();
        let mut three = sender.flush_async();
        // Polled in the other order: each waits for its own frames.
        assert!(poll_once(&mut three).is_pending());
        assert!(poll_once(&mut two).is_pending());
        assert_eq!(frames.try_recv(), Ok(1));
        assert!(poll_once(&mut two).is_pending());
        assert_eq!(frames.try_recv(), Ok(2));
        assert_eq!(poll_once(&mut two), Poll::Ready(Ok(())));
        assert!(poll_once(&mut three).is_pending());
        sender.send(4).unwrap();
        assert_eq!(frames.try_recv(), Ok(3));
        assert_eq!(poll_once(&mut three), Poll::Ready(Ok(())));
        assert_eq!(frames.len(), 1);
    }
}

#[test]
fn each_flush_is_woken_once_by_the_frame_it_waits_for() {
    for (sender, mut frames) in both_kinds() {
        let wakes: [Arc<Wakes>; 2] = Default::default();
        sender.send(1).unwrap();
        let mut first = sender.flush_async();
        sender.send(2).unwrap();
        sender.send(3).unwrap();
        let mut second = sender.flush_async();
        for (flush, wakes) in [&mut first, &mut second].into_iter().zip(&wakes) {
            let waker = Waker::from(Arc::clone(wakes));
            assert!(Pin::new(flush).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        for counts in [(1, 0), (1, 0), (1, 1)] {
            frames.try_recv().unwrap();
            assert_eq!((wakes[0].count(), wakes[1].count()), counts);
        }
    }
}

#[test]
fn a_flush_that_is_given_up_holds_nobody_up() {
    for (sender, mut frames) in both_kinds() {
        sender.send(1).unwrap();
        let given_up = sender.flush_async();
        sender.send(2).unwrap();
        let mut kept = sender.flush_async();
        drop(given_up);
        assert_eq!(sender.flush(Duration::from_millis(1)), Err(TimedOut));
        assert_eq!(frames.recv_blocking(None), Ok(1));
        assert_eq!(frames.recv_blocking(None), Ok(2));
        assert_eq!(poll_once(&mut kept), Poll::Ready(Ok(())));
    }
}

#[test]
fn a_thread_waits_while_another_reads() {
    for (sender, mut frames) in both_kinds() {
        let stats = within(move || {
            for frame in 0..4 {
                sender.send(frame).unwrap();
            }
            let consumer = std::thread::spawn(move || {
                let mut buffer = Vec::new();
                while frames.recv_many_blocking(&mut buffer, 3, None).is_ok() {}
                buffer
            });
            assert_eq!(sender.flush(None), Ok(Ok(())));
            let stats = sender.stats();
            drop(sender);
            assert_eq!(consumer.join().unwrap(), [0, 1, 2, 3]);
            stats
        });
        assert_eq!((stats.delivered, stats.queued), (4, 0));
    }
}

#[test]
fn a_closed_channel_is_flushed_by_reading_it_and_not_by_leaving_it() {
    for (sender, mut frames) in both_kinds() {
        sender.send(1).unwrap();
        sender.close();
        let mut flush = sender.flush_async();
        assert!(poll_once(&mut flush).is_pending());
        assert_eq!(frames.try_recv(), Ok(1));
        assert_eq!(poll_once(&mut flush), Poll::Ready(Ok(())));
        drop(frames);
        assert_eq!(sender.flush(None), Ok(Ok(())), "everything was read before");
    }
    for (sender, frames) in both_kinds() {
        sender.send(1).unwrap();
        let mut flush = sender.flush_async();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(Pin::new(&mut flush).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(frames);
        assert_eq!(wakes.count(), 1);
        assert_eq!(poll_once(&mut flush), Poll::Ready(Err(LEFT)));
        assert_eq!(poll_once(&mut flush), Poll::Ready(Err(LEFT)));
        assert_eq!(sender.flush(None), Ok(Err(LEFT)), "still so for who asks later");
    }
}

#[test]
fn evicted_frames_are_waited_for_no_longer_but_control_frames_are() {
    let (sender, mut frames) =
        channel::builder().capacity(1).overflow(Overflow::DropOldest).build().unwrap();
    sender.send(1).unwrap();
    let mut evicted = sender.flush_async();
    sender.send(2).unwrap();
    assert_eq!(poll_once(&mut evicted), Poll::Ready(Ok(())));

    sender.send_control(3).unwrap();
    let mut control = sender.flush_async();
    sender.send(4).unwrap();
    sender.send(5).unwrap();
    sender.send(6).unwrap();
    assert!(poll_once(&mut control).is_pending(), "3 evictions are no hand-over");
    assert_eq!(frames.try_recv(), Ok(3));
    assert_eq!(poll_once(&mut control), Poll::Ready(Ok(())));
    assert_eq!(frames.len(), 1);
}

#[test]
fn a_flush_waits_for_control_frames_in_a_batch() {
    let (sender, mut frames) = channel::channel(4);
    sender.send(1).unwrap();
    sender.send_control(2).unwrap();
    sender.send_control(3).unwrap();
    let mut flush = sender.flush_async();
    for _ in 0..2 {
        assert!(frames.try_recv().is_ok());
        assert!(poll_once(&mut flush).is_pending());
    }
    assert!(frames.try_recv().is_ok());
    assert_eq!(poll_once(&mut flush), Poll::Ready(Ok(())));
}

#[test]
fn a_control_frame_that_is_read_is_no_slot_that_a_flush_waits_for() {
    for (sender, mut frames) in both_kinds() {
        sender.send_control(1).unwrap();
        sender.send(2).unwrap();
        let mut flush = sender.flush_async();
        assert_eq!(frames.try_recv(), Ok(1));
        assert!(poll_once(&mut flush).is_pending());
        assert_eq!(frames.try_recv(), Ok(2));
        assert_eq!(poll_once(&mut flush), Poll::Ready(Ok(())));
    }
}

#[test]
fn a_flush_that_is_given_up_keeps_no_waker() {
    for (sender, _frames) in both_kinds() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        sender.send(1).unwrap();
        let mut flush = sender.flush_async();
        assert!(Pin::new(&mut flush).poll(&mut Context::from_waker(&waker)).is_pending());
        drop((flush, waker));
        assert_eq!(Arc::strong_count(&wakes), 1);
    }
}

#[test]
fn waiting_senders_and_flushes_share_the_consumer() {
    let (sender, mut frames) = channel::channel(1);
    sender.send(1).unwrap();
    let mut parked = sender.send_async(2);
    assert!(poll_once(&mut parked).is_pending());
    let mut flush = sender.flush_async();
    assert!(poll_once(&mut flush).is_pending());
    // The flush is over with the first frame, and the sender is still served by the second.
    assert_eq!(frames.try_recv(), Ok(1));
    assert_eq!(poll_once(&mut flush), Poll::Ready(Ok(())));
    assert!(poll_once(&mut parked).is_ready());
    let mut another = sender.send_async(3);
    assert!(poll_once(&mut another).is_pending());
    assert_eq!(frames.try_recv(), Ok(2));
    assert!(poll_once(&mut another).is_ready());
}

#[test]
fn a_flush_is_refused_on_a_loop_where_it_would_wait() {
    for runtime in runtimes() {
        let (sender, mut frames) = channel::channel(1);
        runtime.block_on(async {
            assert_eq!(sender.flush(LIMIT), Ok(Ok(())));
            sender.send(1).unwrap();
            assert_eq!(sender.flush(LIMIT), Err(WouldDeadlock));
            assert_eq!(sender.flush(Duration::ZERO), Err(TimedOut));
            let (flushed, frame) = tokio::join!(sender.flush_async(), frames.recv());
            assert_eq!((flushed, frame), (Ok(()), Some(1)));
        });
    }
}
