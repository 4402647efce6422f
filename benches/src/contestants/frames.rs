//! The frames that are handed over, and the consumer's counters about them.

use crate::harness::{Latency, latency_histogram};
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::Instant;

/// How many different frames there are; a power of two.
const POOL: usize = 1024;

/// The size of a frame in bytes.
const FRAME: usize = 64;

static MEMORY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let frame = |n: u64| n.to_le_bytes().into_iter().chain([0x5a; FRAME - 8]);
    (0..POOL as u64).flat_map(frame).collect()
});

/// Frames in static memory: neither an allocation nor a reference count, so that what is measured
/// is the hand-over. Each holds its number.
static PLAIN: LazyLock<Vec<Bytes>> =
    LazyLock::new(|| MEMORY.chunks(FRAME).map(Bytes::from_static).collect());

/// Frames that share one reference count, as slices of one receive buffer do.
static COUNTED: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let whole = Bytes::from(MEMORY.clone());
    (0..POOL).map(|n| whole.slice(n * FRAME..(n + 1) * FRAME)).collect()
});

/// Where frames come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pool {
    Plain,
    Counted,
}

impl Pool {
    pub(crate) fn frames(self) -> &'static [Bytes] {
        match self {
            Pool::Plain => &PLAIN,
            Pool::Counted => &COUNTED,
        }
    }
}

/// The `n`th frame that a producer sends.
pub(crate) fn nth(frames: &[Bytes], n: u64) -> Bytes {
    frames[n as usize % POOL].clone()
}

/// When each frame was sent, in nanoseconds since the start: a paced source's here, those of several
/// producers in themselves.
pub(crate) struct Stamps {
    start: Instant,
    sent: Vec<AtomicU64>,
}

impl Stamps {
    pub(crate) fn new(frames: u64) -> Arc<Self> {
        let sent = (0..frames).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Stamps { start: Instant::now(), sent })
    }

    pub(crate) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// A frame of one of several producers: it holds the time instead of its number.
    pub(crate) fn frame(&self) -> Bytes {
        Bytes::copy_from_slice(&self.now().to_le_bytes())
    }

    pub(crate) fn send(&self, n: u64) {
        self.sent[n as usize].store(self.now(), Relaxed);
    }
}

/// What a consumer has seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) frames: u64,
    /// The sum of the frames' numbers.
    sum: u64,
    /// Frames that did not follow the one before; only meaningful for a single producer.
    out_of_order: u64,
    pub(crate) latency: Option<Latency>,
}

impl Seen {
    /// Fails the run if a frame is missing, doubled or (from one producer) out of order.
    pub(crate) fn check(&self, producers: u64, each: u64) {
        let numbers = POOL as u64;
        let one = each / numbers * (numbers * (numbers - 1) / 2) + (0..each % numbers).sum::<u64>();
        assert_eq!(
            (self.frames, self.sum),
            (each * producers, one * producers),
            "frames were lost"
        );
        assert!(producers > 1 || self.out_of_order == 0, "frames came out of order");
    }
}

/// What a consumer does with frames: it reads and counts each, and reports at the end.
pub(crate) struct Sink {
    seen: Seen,
    stamps: Option<Arc<Stamps>>,
    done: mpsc::Sender<Seen>,
}

impl Sink {
    pub(crate) fn new(stamps: Option<Arc<Stamps>>) -> (Self, mpsc::Receiver<Seen>) {
        let (done, seen) = mpsc::channel();
        let latency = stamps.as_ref().map(|_| latency_histogram());
        (Sink { seen: Seen { frames: 0, sum: 0, out_of_order: 0, latency }, stamps, done }, seen)
    }

    #[inline]
    pub(crate) fn take(&mut self, frame: &Bytes) {
        let number = u64::from_le_bytes(frame[..8].try_into().expect("a frame has 64 bytes"));
        self.seen.out_of_order += u64::from(number != self.seen.frames % POOL as u64);
        self.seen.sum += number;
        if let (Some(stamps), Some(latency)) = (&self.stamps, &mut self.seen.latency) {
            let by_number = stamps.sent.get(self.seen.frames as usize);
            let sent = by_number.map_or(number, |sent| sent.load(Relaxed));
            let _ = latency.record((stamps.now() - sent).max(1));
        }
        self.seen.frames += 1;
    }

    /// The channel has ended.
    pub(crate) fn finish(self) {
        let _ = self.done.send(self.seen);
    }
}
