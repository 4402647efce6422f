//! What each overflow policy does with ten frames for three slots.
//!
//! `cargo run --example overflow_policies`

use callbridge::Overflow;
use callbridge::SettingError;
use callbridge::channel::Loss;
use callbridge::channel::{self, Fallback};
use std::time::Duration;

fn main() -> Result<(), SettingError> {
    let patience = Duration::from_millis(10);
    for policy in [
        Overflow::BlockFor(patience, Fallback::DropNewest),
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Latest,
        Overflow::Fail,
        Overflow::Unbounded,
    ] {
        let (sender, mut frames) = channel::builder()
            .capacity(3)
            .overflow(policy)
            .on_loss(|loss: Loss<'_, u32>| println!("  lost {}: {}", loss.frame, loss.reason))
            .build()?;
        println!("{policy:?}");
        for frame in 1..=10 {
            if let Err(refused) = sender.send(frame) {
                println!("  kept {frame}: {refused}");
            }
        }
        drop(sender);
        let read: Vec<u32> = std::iter::from_fn(|| frames.try_recv().ok()).collect();
        println!("  read {read:?}");
        assert!(frames.stats().balances());
    }
    Ok(())
}
