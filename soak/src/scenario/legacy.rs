use super::{ON_PURPOSE, PANICS};
use crate::check::{Dice, PATIENCE, frame, number};
use callbridge::channel::Ending;
use callbridge::{Listener, Overflow};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const LONGEST: u64 = 200;

/// Loops that finish, fail and panic; consumers that stay and that go.
pub(crate) fn loops(seed: u64) -> u64 {
    const TIMES: u64 = 12;
    const FRAMES: u64 = 200;
    let mut dice = Dice::new(seed);
    let mut checked = 0;
    for _ in 0..TIMES {
        let overflow = match dice.below(4) {
            0 => Overflow::Block,
            1 => Overflow::DropOldest,
            2 => Overflow::DropNewest,
            _ => Overflow::Unbounded,
        };
        let (end, leave) = (dice.below(if PANICS { 3 } else { 2 }), dice.below(2) == 0);
        let losses = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&losses);
        let (listener, mut frames) = Listener::from_fn(move |sink| {
            for n in 0..FRAMES {
                // Refused by a stream that is gone or a listener that stops.
                let _ = sink.send(frame(n, LONGEST));
            }
            match end {
                0 => Ok(()),
                1 => Err(io::Error::other(ON_PURPOSE)),
                _ => std::panic::panic_any(ON_PURPOSE),
            }
        })
        .overflow(overflow)
        .capacity(1 + dice.below(8) as usize)
        .on_loss(move |loss| {
            number(loss.frame, LONGEST);
            counted.fetch_add(1, Ordering::SeqCst);
        })
        .spawn()
        .unwrap();
        let (mut last, mut delivered) = (None, 0);
        while let Ok(bytes) = frames.recv_blocking(PATIENCE) {
            let n = number(&bytes, LONGEST);
            assert!(last.is_none_or(|last| last < n), "{n} after {last:?}");
            (last, delivered) = (Some(n), delivered + 1);
            if leave && delivered == 20 {
                break;
            }
        }
        if leave {
            drop(frames);
        } else {
            let stats = frames.stats();
            assert!(stats.balances() && stats.queued == 0, "{stats:?}");
            assert_eq!(stats.delivered, delivered);
            assert_eq!(stats.lost.total(), losses.load(Ordering::SeqCst));
            let expected = [Ending::Finished, Ending::Failed, Ending::Panicked][end as usize];
            assert_eq!(frames.ending(), Some(expected));
        }
        let report = listener.close_blocking(PATIENCE);
        assert!(report.is_clean(), "{report}");
        checked += delivered;
    }
    checked
}
