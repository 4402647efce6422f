//! What every scenario uses: numbered frames whose bytes can be checked, and dice.

use bytes::Bytes;
use std::time::Duration;

/// How long anything may take. Nothing is expected to; a slow machine is no failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// SplitMix64: repeatable from the seed that is printed when a scenario fails.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}

/// The frame of this number: the number, then up to `most` bytes that follow from it.
pub(crate) fn frame(number: u64, most: u64) -> Bytes {
    let mut dice = Dice::new(number);
    let length = dice.below(most + 1);
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.extend((0..length).map(|_| dice.roll() as u8));
    bytes.into()
}

/// The number of a frame whose every byte is as it was made.
pub(crate) fn number(bytes: &[u8], most: u64) -> u64 {
    let head = bytes.first_chunk().expect("a frame begins with its number");
    let number = u64::from_be_bytes(*head);
    assert!(frame(number, most) == bytes, "frame {number} was altered");
    number
}
