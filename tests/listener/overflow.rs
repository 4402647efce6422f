//! A full channel, and what becomes of frames at the end.

use crate::common::{LONG, eventually};
use crate::support::*;
use callbridge::channel::{Ending, LossReason};
use callbridge::listener::Listener;
use callbridge::{FrameStream, Overflow, channel};
use futures_util::StreamExt;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

type Losses = Arc<Mutex<Vec<(usize, LossReason)>>>;

/// A listener over a source that yields 0, 1, 2, ... without end, once it has yielded `count`.
fn endless(overflow: Overflow, count: usize) -> (Listener, FrameStream<usize>, Losses) {
    let (reached, wait) = mpsc::channel();
    let mut at = 0;
    let source = FromFn(move || {
        let frame = at;
        at += 1;
        if frame == count {
            let _ = reached.send(());
        }
        Ok(Some(frame))
    });
    let losses = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&losses);
    let (listener, frames) = Listener::builder(source)
        .capacity(4)
        .overflow(overflow)
        .on_loss(move |loss| seen.lock().unwrap().push((*loss.frame, loss.reason)))
        .spawn()
        .unwrap();
    wait.recv_timeout(LONG).expect("the source gets that far");
    (listener, frames, losses)
}

#[test]
fn a_full_queue_under_block_stops_the_source_and_the_stop_counts_what_it_held() {
    let (listener, mut frames, losses) = endless(Overflow::Block, 4);
    while frames.stats().waiting == 0 {
        thread::yield_now();
    }
    assert_eq!(listener.stats().frames, 5, "four queued and one in its hands");
    clean(&listener);
    assert_eq!([(); 4].map(|()| next(&mut frames)), [0, 1, 2, 3]);
    assert_eq!(end(&mut frames), Ending::Aborted);
    assert_eq!(*losses.lock().unwrap(), [(4, LossReason::Shutdown)]);
    assert_eq!(frames.stats().lost.shutdown, 1);
    assert!(frames.stats().balances());
}

#[test]
fn a_full_queue_under_the_other_policies_never_stops_the_source() {
    let patience = Overflow::BlockFor(Duration::from_millis(1), channel::Fallback::DropNewest);
    for policy in [
        patience,
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Latest,
        Overflow::Fail,
        Overflow::Unbounded,
    ] {
        let (listener, mut frames, losses) = endless(policy, 50);
        clean(&listener);
        let mut delivered = 0;
        while frames.try_recv().is_ok() {
            delivered += 1;
        }
        let stats = frames.stats();
        assert!(stats.balances(), "{policy:?}: {stats:?}");
        assert_eq!(stats.refused, 0, "a refusal that nobody hears of is a loss");
        assert_eq!(stats.offered, listener.stats().frames, "{policy:?}");
        assert_eq!(stats.delivered, delivered);
        assert_eq!(stats.lost.total(), losses.lock().unwrap().len() as u64, "{policy:?}");
        assert!(policy == Overflow::Unbounded || stats.lost.total() >= 46, "{policy:?}: {stats:?}");
    }
}

/// The listener's thread finds the stream gone before whoever drops it has come to say so: that thread is
/// held up by a waker's destructor.
#[test]
fn a_consumer_that_has_gone_is_the_reason_whoever_notes_it_first() {
    struct Slow(mpsc::Sender<usize>, Arc<Listener>);
    impl Wake for Slow {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.send(1).unwrap();
            eventually("the listener has ended", || self.1.is_finished());
        }
    }
    let (send, frames) = mpsc::channel();
    let source = FromFn(move || Ok(frames.recv().ok()));
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    let listener = Arc::new(listener);
    let waker = Waker::from(Arc::new(Slow(send, Arc::clone(&listener))));
    assert!(frames.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    drop(frames);
    assert_eq!(listener.ending(), Some(Ending::ConsumerDropped));
}

#[test]
fn dropping_the_consumer_stops_the_listener() {
    let (listener, frames, losses) = endless(Overflow::Block, 4);
    drop(frames);
    let report = listener.close_blocking(LONG);
    assert!(report.is_clean(), "{report}");
    assert_eq!(listener.ending(), Some(Ending::ConsumerDropped));
    let losses = losses.lock().unwrap();
    assert!(losses.iter().all(|(_, reason)| *reason == LossReason::ConsumerDropped));
    assert_eq!(losses.len() as u64, listener.stats().frames);

    // An idle one as well, without being asked.
    let (source, _client) = udp();
    let (listener, frames) = Listener::builder(source).spawn().unwrap();
    drop(frames);
    while !listener.is_finished() {
        thread::yield_now();
    }
}

#[test]
fn dropping_the_listener_stops_it_and_keeps_what_is_queued() {
    let (listener, mut frames, _) = endless(Overflow::Block, 4);
    drop(listener);
    assert_eq!([(); 4].map(|()| next(&mut frames)), [0, 1, 2, 3]);
    assert_eq!(end(&mut frames), Ending::Aborted);
}

#[test]
fn a_close_waits_for_the_reader_of_a_full_stream_and_for_none_that_is_gone() {
    for (timeout, gone) in [(Duration::from_millis(300), false), (LONG, true)] {
        let (listener, frames, _) = endless(Overflow::Block, 4);
        eventually("a full queue", || frames.stats().waiting == 1);
        let _kept = (!gone).then_some(frames); // or dropped
        let report = listener.close_blocking(timeout);
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.elapsed < timeout / 2, gone, "{report}");
    }
}
