//! offered = delivered + queued + lost + refused, over random runs of everything there is.
//!
//! `CALLBRIDGE_SEED` starts the runs at another seed; a failure names the seed of its run.

use crate::common::rounds;
use crate::*;
use callbridge::channel::Fallback;
use callbridge::channel::{LossReason, Lost, Pressure, Sent};
use callbridge::{FrameStream, Overflow, channel};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

/// Xorshift; good enough to shuffle.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            dice.roll(2);
        }
        dice
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

struct Frame {
    producer: usize,
    number: u64,
    weight: usize,
    _live: Live,
}

/// What the callers saw, to be compared with the counters.
#[derive(Default, Debug)]
struct Seen {
    offered: u64,
    refused: u64,
    dropped: u64,
    evicted: u64,
}

impl Seen {
    /// `Err` says whether the frame was too heavy.
    fn sent(&mut self, outcome: &Result<Sent<Frame>, bool>) {
        self.offered += 1;
        match outcome {
            Ok(Sent::Queued { .. }) => {}
            Ok(Sent::Evicted(_)) => self.evicted += 1,
            Ok(Sent::Dropped(_)) => self.dropped += 1,
            Err(too_heavy) => self.refused += u64::from(!too_heavy),
        }
    }
}

fn produce(sender: &Sender<Frame>, producer: usize, seed: u64, alive: &Arc<AtomicUsize>) -> Seen {
    use callbridge::channel::SendError;
    let mut dice = Dice::new(seed);
    let mut seen = Seen::default();
    let callback = sender.callback();
    for number in 0..dice.roll(8) {
        let weight = dice.roll(7) as usize;
        let frame = Frame { producer, number, weight, _live: Live::new(alive) };
        match dice.roll(40) {
            0..16 => seen.sent(
                &sender.send(frame).map_err(|refused| matches!(refused, SendError::TooHeavy(_))),
            ),
            16..22 => seen.sent(
                &sender
                    .try_send(frame)
                    .map_err(|refused| matches!(refused, SendError::TooHeavy(_))),
            ),
            22..27 => {
                let limit = Duration::from_micros(dice.roll(3) * 30);
                seen.sent(
                    &sender
                        .send_timeout(frame, limit)
                        .map_err(|refused| matches!(refused, SendError::TooHeavy(_))),
                );
            }
            27..36 => {
                let mut sending = sender.send_async(frame);
                let polls = dice.roll(3);
                let settled = (0..polls).find_map(|_| match poll_once(&mut sending) {
                    Poll::Ready(outcome) => Some(outcome),
                    Poll::Pending => None,
                });
                match settled {
                    Some(outcome) => seen.sent(
                        &outcome.map_err(|refused| matches!(refused, SendError::TooHeavy(_))),
                    ),
                    None => {
                        seen.offered += 1;
                        if dice.roll(2) == 0 {
                            seen.refused += u64::from(sending.cancel().is_some());
                        }
                    }
                }
            }
            36..38 => {
                seen.offered += 1;
                callback(frame);
            }
            38 if dice.roll(3) == 0 => drop(sender.close()),
            39 if dice.roll(3) == 0 => drop(sender.fail("random")),
            _ => {}
        }
    }
    seen
}

/// Reads until it has enough; returns how many frames it got.
fn consume(frames: &mut FrameStream<Frame>, dice: &mut Dice, producers: usize) -> u64 {
    let mut next = vec![0; producers];
    let mut read = 0;
    let mut take = |frame: Frame| {
        assert!(frame.number >= next[frame.producer], "a producer's frames swapped their order");
        next[frame.producer] = frame.number + 1;
        read += 1;
    };
    for _ in 0..dice.roll(25) {
        match dice.roll(4) {
            0 => drop(frames.try_recv().map(&mut take)),
            1 => drop(frames.recv_blocking(Duration::from_micros(dice.roll(40))).map(&mut take)),
            2 => {
                let mut buffer = Vec::new();
                let mut cx = Context::from_waker(Waker::noop());
                let max = 1 + dice.roll(4) as usize;
                if let Poll::Ready(count) = frames.poll_recv_many(&mut cx, &mut buffer, max) {
                    assert_eq!(count, buffer.len());
                    assert!(count <= max);
                }
                buffer.into_iter().for_each(&mut take);
            }
            _ => {
                let mut cx = Context::from_waker(Waker::noop());
                if let Poll::Ready(Some(frame)) = frames.poll_recv(&mut cx) {
                    take(frame);
                }
            }
        }
    }
    match dice.roll(3) {
        0 => {}
        1 => {
            frames.close();
            std::iter::from_fn(|| frames.try_recv().ok()).for_each(&mut take);
            assert!(frames.ending().is_some());
        }
        _ => std::iter::from_fn(|| frames.recv_blocking(LIMIT).ok()).for_each(&mut take),
    }
    read
}

fn policy(dice: &mut Dice) -> Overflow {
    let patience = Duration::from_micros(dice.roll(3) * 30);
    match dice.roll(10) {
        0..3 => Overflow::Block,
        3 => Overflow::BlockFor(patience, Fallback::DropNewest),
        4 => Overflow::BlockFor(patience, Fallback::DropOldest),
        5 => Overflow::BlockFor(patience, Fallback::Fail),
        6 => Overflow::DropNewest,
        7 => Overflow::DropOldest,
        8 => Overflow::Latest,
        _ if dice.roll(2) == 0 => Overflow::Fail,
        _ => Overflow::Unbounded,
    }
}

fn run(seed: u64) {
    let mut dice = Dice::new(seed);
    let alive = Arc::new(AtomicUsize::new(0));
    let losses = Arc::new(Mutex::new(Vec::new()));
    let crossings = Arc::new(Mutex::new(Vec::new()));
    let overflow = policy(&mut dice);
    let capacity = 1 + dice.roll(4) as usize;

    let log = Arc::clone(&losses);
    let mut builder = channel::builder()
        .capacity(capacity)
        .overflow(overflow)
        .on_loss(move |loss| log.lock().unwrap().push(loss.reason));
    if overflow != Overflow::Unbounded && dice.roll(3) == 0 {
        builder = builder.weigh(|frame: &Frame| frame.weight, 5);
    }
    if dice.roll(3) == 0 {
        let log = Arc::clone(&crossings);
        builder = builder.watermarks(0, 1, move |pressure| log.lock().unwrap().push(pressure));
    }
    let (sender, mut frames) = builder.build().unwrap();
    let weak = sender.downgrade();

    let producers = 1 + dice.roll(3) as usize;
    let threads: Vec<_> = (0..producers)
        .map(|producer| {
            let (sender, alive, seed) = (sender.clone(), Arc::clone(&alive), dice.roll(u64::MAX));
            std::thread::spawn(move || produce(&sender, producer, seed, &alive))
        })
        .collect();
    drop(sender);
    let consumer = std::thread::spawn(move || {
        let read = consume(&mut frames, &mut dice, producers);
        assert_balanced(&frames.stats());
        read
    });
    let mut seen = Seen::default();
    for thread in threads {
        let more = thread.join().unwrap();
        seen.offered += more.offered;
        seen.refused += more.refused;
        seen.dropped += more.dropped;
        seen.evicted += more.evicted;
    }
    let read = consumer.join().unwrap();

    let stats = weak.stats();
    assert_balanced(&stats);
    assert_eq!((stats.offered, stats.delivered), (seen.offered, read), "{stats:?}");
    assert_eq!((stats.refused, stats.queued, stats.waiting), (seen.refused, 0, 0), "{stats:?}");
    let losses = losses.lock().unwrap();
    let told = |reason| losses.iter().filter(|told| **told == reason).count() as u64;
    assert_eq!(losses.len() as u64, stats.lost.total(), "{stats:?}");
    assert_eq!(told(LossReason::Overflow), stats.lost.overflow);
    assert_eq!(told(LossReason::Evicted), stats.lost.evicted);
    assert_eq!(told(LossReason::ConsumerDropped), stats.lost.consumer_dropped);
    assert!(seen.dropped <= stats.lost.overflow && seen.evicted <= stats.lost.evicted);
    let bound = if overflow == Overflow::Unbounded { u64::MAX } else { capacity as u64 };
    assert!(stats.high_water <= bound, "{stats:?}");
    let crossings = crossings.lock().unwrap();
    let last = crossings.last().copied().unwrap_or(Pressure::Low);
    assert_eq!(last, Pressure::Low, "an empty queue is below the low mark");
    drop(weak);
    assert_eq!(alive.load(Ordering::Relaxed), 0, "frames are left");
}

fn run_all(residue: u64) {
    let first = std::env::var("CALLBRIDGE_SEED").map_or(0, |seed| seed.parse().unwrap());
    for seed in (first..first + rounds(4_000) as u64).filter(|seed| seed % 2 == residue) {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "the counters don't balance for CALLBRIDGE_SEED={seed}");
    }
}

#[test]
fn the_counters_balance_over_random_runs_even() {
    within(|| run_all(0));
}

#[test]
fn the_counters_balance_over_random_runs_odd() {
    within(|| run_all(1));
}

#[test]
fn a_frame_that_is_in_no_column_is_missed() {
    let mut stats = Stats::default();
    assert!(stats.balances());
    stats.offered = 1;
    assert!(!stats.balances());
    let columns: [fn(&mut Lost) -> &mut u64; 8] = [
        |lost| &mut lost.overflow,
        |lost| &mut lost.evicted,
        |lost| &mut lost.consumer_dropped,
        |lost| &mut lost.closed,
        |lost| &mut lost.shutdown,
        |lost| &mut lost.too_heavy,
        |lost| &mut lost.send_cancelled,
        |lost| &mut lost.would_deadlock,
    ];
    for column in columns {
        *column(&mut stats.lost) += 1;
    }
    assert_eq!(stats.lost.total(), 8);
}

#[test]
fn the_counters_balance_at_every_look() {
    for overflow in [Overflow::Block, Overflow::DropNewest, Overflow::DropOldest, Overflow::Fail] {
        let (sender, frames) = channel::builder().capacity(8).overflow(overflow).build().unwrap();
        let mut frames = frames.with_gaps();
        let monitor = sender.downgrade();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let sender = sender.clone();
                scope.spawn(move || {
                    for frame in 0..5_000 {
                        let _ = sender.send(frame);
                        if frame % 5 == 0 {
                            let _ = sender.send_control(frame);
                        }
                    }
                });
            }
            drop(sender);
            scope.spawn(|| {
                while frames.recv_blocking(LIMIT).is_ok() {}
                over.store(true, Ordering::Release);
            });
            while !over.load(Ordering::Acquire) {
                assert_balanced(&monitor.stats());
            }
        });
        let stats = monitor.stats();
        assert_balanced(&stats);
        assert_eq!((stats.offered, stats.queued), (12_000, 0));
    }
}
