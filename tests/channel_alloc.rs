//! Sending and receiving allocate nothing per frame once the channel is warm.
//!
//! A binary of its own, with one test, so that nobody else allocates meanwhile.

#[path = "common/heap.rs"]
mod heap;

use callbridge::channel::{self, Overflow};
use heap::{live_bytes, once_warm};
use std::task::{Context, Waker};
use std::time::Duration;

type Setup = fn(channel::Builder<[u64; 8]>) -> channel::Builder<[u64; 8]>;

#[test]
fn nothing_is_allocated_per_frame_once_warm() {
    let setups: [(&str, Setup); 6] = [
        ("block", |b| b),
        ("drop newest", |b| b.overflow(Overflow::DropNewest)),
        ("drop oldest", |b| b.overflow(Overflow::DropOldest)),
        ("latest", |b| b.overflow(Overflow::Latest)),
        ("weights", |b| b.weigh(|frame| frame[0] as usize % 5, 16).overflow(Overflow::DropOldest)),
        ("watermarks and hook", |b| b.watermarks(2, 8, |_| {}).on_loss(|_| {})),
    ];
    for (name, setup) in setups {
        let (sender, mut frames) = setup(channel::builder().capacity(16)).build().unwrap();
        let mut buffer = Vec::with_capacity(16);
        let mut cx = Context::from_waker(Waker::noop());
        let allocations = once_warm(|| {
            for batch in 0..100_u64 {
                for frame in 0..=batch % 20 {
                    // A full channel that blocks is left alone; the others drop or evict.
                    let _ = if name == "block" || name == "watermarks and hook" {
                        sender.try_send([frame; 8]).is_ok()
                    } else {
                        sender.send([frame; 8]).is_ok()
                    };
                }
                let _ = sender.send_timeout([4; 8], Duration::from_micros(1));
                assert!(frames.poll_recv(&mut cx).is_ready());
                buffer.clear();
                let _ = frames.poll_recv_many(&mut cx, &mut buffer, 16);
                assert!(frames.poll_recv(&mut cx).is_pending());
            }
        });
        assert_eq!(allocations, 0, "{name}");
    }

    // Across threads, with parked senders and a parked consumer: the threads' parkers and the
    // channel's line are warm after the first round.
    let (sender, mut frames) = channel::channel(2);
    let (start, started) = std::sync::mpsc::sync_channel(1);
    let source = std::thread::spawn(move || {
        while started.recv().is_ok() {
            for frame in 0..10_000_u64 {
                sender.send(frame).unwrap();
            }
        }
    });
    let allocations = once_warm(|| {
        start.send(()).unwrap();
        for expected in 0..10_000 {
            assert_eq!(frames.recv_blocking(Duration::from_secs(30)), Ok(expected));
        }
    });
    drop(start);
    source.join().unwrap();
    assert!(allocations < 10, "{allocations} allocations for 10 000 frames");

    // b75. napi-rs and neon: clone and drop in a tight loop, 100 000 times.
    let (sender, _frames) = channel::channel::<u64>(2);
    let before = live_bytes();
    let allocations = once_warm(|| {
        for _ in 0..100_000 {
            drop(sender.clone().downgrade().upgrade());
        }
    });
    assert_eq!((allocations, live_bytes() - before), (0, 0));

    a_gap_costs_no_allocation();
    memory_of_a_burst_is_given_back();
}

fn a_gap_costs_no_allocation() {
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let (sender, frames) = channel::builder().capacity(16).overflow(overflow).build().unwrap();
        let mut frames = frames.with_gaps();
        let allocations = once_warm(|| {
            for batch in 0..100 {
                for frame in 0..batch % 20 {
                    sender.send(frame).unwrap();
                }
                for _ in 0..batch % 7 {
                    let _ = frames.try_recv();
                }
            }
            while frames.try_recv().is_ok() {}
        });
        assert_eq!(allocations, 0, "{overflow:?}");
    }
}

fn memory_of_a_burst_is_given_back() {
    type Frame = [u64; 128];
    let setups: [fn(channel::Builder<Frame>) -> channel::Builder<Frame>; 2] =
        [|b| b.overflow(Overflow::Unbounded), |b| b.capacity(20_000).weigh(|_| 1, 20_000)];
    for setup in setups {
        let before = live_bytes();
        let (sender, mut frames) = setup(channel::builder()).build().unwrap();
        for round in 0..2 {
            for frame in 0..10_000 {
                sender.send([frame; 128]).unwrap();
            }
            assert!(live_bytes() - before > 10_000 * 1024);
            while frames.try_recv().is_ok() {}
            let kept = live_bytes() - before;
            assert!(kept < 512 << 10, "round {round}: {kept} bytes are kept for an empty queue");
        }
        // A few frames that are always there don't hold the room of the burst either.
        for frame in 0..10_000 {
            sender.send([frame; 128]).unwrap();
        }
        for frame in 0..10_100 {
            sender.send([frame; 128]).unwrap();
            for _ in 0..if frame < 10_000 { 2 } else { 1 } {
                frames.try_recv().unwrap();
            }
        }
        let kept = live_bytes() - before;
        assert!(kept < 512 << 10, "{kept} bytes are kept for {} frames", frames.len());
    }
}
