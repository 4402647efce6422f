use crate::check::{Dice, PATIENCE};
use callbridge::Overflow;
use callbridge::channel::Ending;
use callbridge::channel::{self, Fallback};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Producers under every policy, a consumer that stays or goes.
pub(crate) fn policies(seed: u64) -> u64 {
    const PRODUCERS: usize = 3;
    const FRAMES: u64 = 300;
    let policies = [
        Overflow::Block,
        Overflow::BlockFor(Duration::from_micros(50), Fallback::DropOldest),
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Latest,
        Overflow::Fail,
        Overflow::Unbounded,
    ];
    let mut dice = Dice::new(seed);
    let mut checked = 0;
    for overflow in policies {
        let losses = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&losses);
        let (sender, mut frames) = channel::builder()
            .capacity(1 + dice.below(8) as usize)
            .overflow(overflow)
            .on_loss(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
            })
            .build()
            .unwrap();
        let counters = sender.downgrade();
        let leave = (dice.below(3) == 0).then(|| dice.below(100));
        let kept = sender.clone();
        let delivered = std::thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let sender = sender.clone();
                scope.spawn(move || {
                    for n in 0..FRAMES {
                        // Each way of not being sent is in the counters.
                        let _ = sender.send((producer, n));
                    }
                });
            }
            drop(sender);
            let (mut delivered, mut next) = (0, [0; PRODUCERS]);
            let mut take = |(producer, n): (usize, u64)| {
                assert!(n >= next[producer], "each producer's frames keep their order");
                next[producer] = n + 1;
                delivered += 1;
                leave.is_none_or(|leave| delivered < leave)
            };
            // The producers' handles go as they end; the one that is kept reads the counters.
            while frames.stats().offered < PRODUCERS as u64 * FRAMES {
                if let Ok(frame) = frames.recv_blocking(Duration::from_millis(1)) {
                    if !take(frame) {
                        break;
                    }
                }
            }
            if leave.is_none_or(|leave| delivered < leave) {
                while let Ok(frame) = frames.try_recv() {
                    delivered += 1;
                    assert!(frame.1 >= next[frame.0]);
                    next[frame.0] = frame.1 + 1;
                }
            }
            drop(frames);
            delivered
        });
        let stats = counters.stats();
        assert!(stats.balances() && stats.queued == 0, "{overflow:?}: {stats:?}");
        assert_eq!((stats.offered, stats.delivered), (PRODUCERS as u64 * FRAMES, delivered));
        assert_eq!(stats.lost.total(), losses.load(Ordering::SeqCst), "{overflow:?}: {stats:?}");
        assert_eq!(kept.closed(PATIENCE).unwrap(), Ending::ConsumerDropped);
        checked += stats.offered;
    }
    checked
}
