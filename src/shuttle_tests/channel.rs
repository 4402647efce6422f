//! The whole channel: every policy, every way of sending and reading, every end.

use super::*;
use crate::channel::{self, Builder, Fallback};
use crate::channel::{Ending, SendError};
use crate::{FrameStream, Overflow, Sender};
use shuttle::future::block_on;
use shuttle::thread::{self, JoinHandle};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

const SOON: Duration = Duration::from_millis(1);

fn builder() -> Builder<Counted> {
    channel::builder()
        .spin_before_park(maybe())
        .on_loss(|loss: channel::Loss<'_, Counted>| loss.frame.became("lost"))
}

/// Sends in one of all ways.
fn send(sender: &Sender<Counted>, frame: Counted) {
    let refused = match any(8) {
        0 => sender.send(frame).err().and_then(given_back),
        1 => sender.try_send(frame).err().and_then(|error| match error {
            crate::channel::SendError::TooHeavy(_) => None,
            error => Some(error.into_inner()),
        }),
        2 => sender.send_timeout(frame, SOON).err().and_then(|error| match error {
            crate::channel::SendError::TooHeavy(_) => None,
            error => Some(error.into_inner()),
        }),
        3 => block_on(sender.send_async(frame)).err().and_then(given_back),
        4 => {
            let mut sending = pin!(sender.send_async(frame));
            let polled = sending.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            match polled {
                std::task::Poll::Ready(sent) => sent.err().and_then(given_back),
                // Taken back, or lost with the future.
                std::task::Poll::Pending if maybe() => sending.cancel(),
                std::task::Poll::Pending => None,
            }
        }
        6 => {
            let permit = if maybe() {
                sender.reserve(SOON).ok()
            } else {
                // Given up at any time.
                let mut reserve = pin!(sender.reserve_async());
                match reserve.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    std::task::Poll::Ready(reserved) => reserved.ok(),
                    std::task::Poll::Pending => None,
                }
            };
            let sent = match permit {
                Some(permit) => permit.send(frame),
                None => sender.try_send(frame),
            };
            sent.err().and_then(|error| match error {
                crate::channel::SendError::TooHeavy(_) => None,
                error => Some(error.into_inner()),
            })
        }
        5 => sender.send_control(frame).err().and_then(given_back),
        _ => {
            sender.callback()(frame);
            None
        }
    };
    if let Some(frame) = refused {
        frame.became("refused");
    }
}

/// A frame that is too heavy comes back, but is booked as lost.
fn given_back(error: SendError<Counted>) -> Option<Counted> {
    match error {
        SendError::TooHeavy(_) => None,
        error => Some(error.into_inner()),
    }
}

fn source(sender: Sender<Counted>, tally: &Tally) -> JoinHandle<()> {
    let tally = tally.clone();
    thread::spawn(move || (0..3).for_each(|_| send(&sender, tally.make())))
}

/// Reads in one of all ways; false at the end.
fn read(frames: &mut FrameStream<Counted>) -> bool {
    let mut got = Vec::new();
    let more = match any(5) {
        0 => block_on(frames.recv()).map(|frame| got.push(frame)).is_some(),
        1 => block_on(frames.recv_many(&mut got, 2)) > 0,
        2 => frames.recv_blocking(None).map(|frame| got.push(frame)).is_ok(),
        3 => {
            let read = frames.recv_blocking(SOON);
            let more = read.as_ref().err() != Some(&crate::channel::RecvError::Ended);
            got.extend(read);
            more
        }
        _ => {
            thread::yield_now();
            let read = frames.try_recv();
            let more = read.as_ref().err() != Some(&crate::channel::RecvError::Ended);
            got.extend(read);
            more
        }
    };
    got.iter().for_each(|frame| frame.became("delivered"));
    more
}

/// Three sources, a consumer that may leave, and somebody who may end it all.
fn run(builder: Builder<Counted>, tally: &Tally) {
    let (sender, mut frames) = builder.build().unwrap();
    let capacity = frames.capacity() as u64;
    let ends = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&ends);
    sender.on_termination(move |_| {
        told.fetch_add(1, Relaxed);
    });
    let sources = [(); 3].map(|()| source(sender.clone(), tally));
    let leaves = maybe();
    let flusher = {
        let sender = sender.downgrade();
        // A flush ends, whatever the others do; a consumer that reads on has been handed it all.
        thread::spawn(move || {
            let Some(sender) = sender.upgrade() else { return };
            let flushed =
                if maybe() { sender.flush(None).unwrap() } else { block_on(sender.flush_async()) };
            assert!(flushed.is_ok() || leaves, "{flushed:?}");
        })
    };
    let breaker = {
        let sender = sender.clone();
        // A consumer that leaves may wait before, while the sender that is kept for the counters lives.
        thread::spawn(move || match any(if leaves { 2 } else { 3 }) {
            0 => drop(sender.close()),
            1 => drop(sender.fail("unplugged")),
            _ => {}
        })
    };
    let stats = if leaves {
        let leaves_after = any(5);
        let consumer = thread::spawn(move || {
            let _ = (0..leaves_after).try_for_each(|_| read(&mut frames).then_some(()));
            if maybe() {
                frames.close();
            }
        });
        consumer.join().unwrap();
        sources.into_iter().for_each(|source| source.join().unwrap());
        sender.stats()
    } else {
        drop(sender);
        while read(&mut frames) {}
        assert!(frames.ending().is_some());
        sources.into_iter().for_each(|source| source.join().unwrap());
        frames.stats()
    };
    breaker.join().unwrap();
    flusher.join().unwrap();
    assert_eq!(ends.load(Relaxed), 1);
    assert!(stats.high_water <= capacity, "{stats:?}");
    assert_balanced(&stats, tally);
}

fn every_frame_has_one_fate(policies: &[Overflow]) {
    let tally = Tally::default();
    let policy = policies[any(policies.len())];
    let capacity = 1 + any(3);
    let mut builder = builder().capacity(capacity).overflow(policy);
    if policy != Overflow::Unbounded {
        if any(3) == 0 {
            builder = builder.weigh(|frame| 1 + frame.id % 3, 2);
        }
        if any(3) == 0 {
            // What it is told is the newest state: calls of several threads overlap.
            builder = builder.watermarks(0, 1, |_| {});
        }
    }
    run(builder, &tally);
    tally.assert_settled();
}

#[test]
fn every_frame_has_one_fate_where_senders_wait() {
    check(|| {
        every_frame_has_one_fate(&[
            Overflow::Block,
            Overflow::BlockFor(SOON, Fallback::Fail),
            Overflow::BlockFor(SOON, Fallback::DropNewest),
            Overflow::BlockFor(SOON, Fallback::DropOldest),
        ]);
    });
}

#[test]
fn every_frame_has_one_fate_where_senders_do_not_wait() {
    check(|| {
        every_frame_has_one_fate(&[
            Overflow::DropNewest,
            Overflow::DropOldest,
            Overflow::Latest,
            Overflow::Fail,
            Overflow::Unbounded,
        ]);
    });
}

/// Senders and waiters of every kind, and three who end the channel.
#[test]
fn an_end_releases_everybody_with_one_reason() {
    check(|| {
        let tally = Tally::default();
        let (sender, mut frames) = builder().capacity(1).build().unwrap();
        sender.try_send(tally.make()).map_err(|_| ()).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut waiters = Vec::new();
        for way in 0..4 {
            let (sender, seen) = (sender.clone(), Arc::clone(&seen));
            waiters.push(thread::spawn(move || {
                let ending = match way {
                    0 => sender.closed(None).unwrap(),
                    1 => block_on(sender.closed_async()),
                    2 => loop {
                        if let Ok(ending) = sender.closed(SOON) {
                            break ending;
                        }
                    },
                    _ => {
                        let told = Arc::clone(&seen);
                        sender.on_termination(move |ending| told.lock().unwrap().push(ending));
                        return;
                    }
                };
                seen.lock().unwrap().push(ending);
            }));
        }
        let parked = [false, true].map(|awaits| {
            let (sender, frame) = (sender.clone(), tally.make());
            thread::spawn(move || {
                let sent =
                    if awaits { block_on(sender.send_async(frame)) } else { sender.send(frame) };
                sent.err().map(SendError::into_inner).inspect(|frame| frame.became("refused"));
            })
        });
        let closer = {
            let sender = sender.clone();
            thread::spawn(move || usize::from(sender.close()))
        };
        let breaker = {
            let sender = sender.clone();
            thread::spawn(move || usize::from(sender.fail("unplugged")))
        };
        if maybe() {
            read(&mut frames);
        }
        drop(frames);
        let enders = closer.join().unwrap() + breaker.join().unwrap();
        parked.into_iter().chain(waiters).for_each(|thread| thread.join().unwrap());
        let ending = sender.ending().unwrap();
        assert_eq!(enders, usize::from(ending != Ending::ConsumerDropped));
        assert_eq!(*seen.lock().unwrap(), [ending; 4]);
        assert_balanced(&sender.stats(), &tally);
        drop(sender);
        tally.assert_settled();
    });
}
