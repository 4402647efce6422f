use crate::event::Message;
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Mutex, PoisonError};

/// Counts and hashes messages in their order.
///
/// The callback keeps one of what the library delivered; a consumer that keeps another finds the two
/// equal exactly if nothing was lost, doubled, changed or reordered in between.
#[derive(Default)]
pub struct Tally {
    state: Mutex<(u64, DefaultHasher)>,
}

impl Tally {
    /// Adds the next message.
    pub fn add(&self, message: &Message) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        state.1.write_usize(message.topic.len());
        state.1.write(message.topic.as_bytes());
        state.1.write_usize(message.payload.len());
        state.1.write(&message.payload);
    }

    /// How many messages there were, and the hash of them all.
    pub fn sum(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.0, state.1.finish())
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (count, hash) = self.sum();
        write!(f, "Tally({count} messages, {hash:016x})")
    }
}
