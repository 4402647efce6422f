//! What a client sends, and how it knows every byte of it again.
//!
//! A payload starts with its number, as many low bytes of it as fit, and goes on with a window
//! into a table of noise that the number places. So a payload that was altered, cut, mixed with
//! another or delivered for another never equals what was sent.

/// The bytes of a payload that hold its number.
const NUMBER: usize = 8;
/// How many places in the table a payload can start at: a prime, so that no size divides it.
const PLACES: u64 = 4_093;

pub(crate) struct Payloads {
    /// Noise, longer than the longest payload by `PLACES`.
    table: Vec<u8>,
}

impl Payloads {
    /// Payloads of up to `longest` bytes; `seed` tells the clients' noise apart.
    pub(crate) fn new(longest: usize, seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let noise = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        Payloads { table: noise.flatten().take(longest + PLACES as usize).collect() }
    }

    /// Appends the payload with this number and size to `out`.
    pub(crate) fn append(&self, number: u64, size: usize, out: &mut Vec<u8>) {
        let head = number.to_le_bytes();
        let head = &head[..size.min(NUMBER)];
        out.extend_from_slice(head);
        out.extend_from_slice(self.tail(number, size));
    }

    /// Whether `payload` is, byte for byte, the one with this number and size.
    pub(crate) fn matches(&self, number: u64, size: usize, payload: &[u8]) -> bool {
        let head = size.min(NUMBER);
        payload.len() == size
            && payload[..head] == number.to_le_bytes()[..head]
            && payload[head..] == *self.tail(number, size)
    }

    fn tail(&self, number: u64, size: usize) -> &[u8] {
        let from = (number.wrapping_mul(7) % PLACES) as usize;
        &self.table[from..from + size.saturating_sub(NUMBER)]
    }
}

/// The number in `payload`, given that it is less than 128 away from `near`.
///
/// A payload of one byte holds a number modulo 256: enough, as a client has at most 128 outstanding.
pub(crate) fn number_near(payload: &[u8], near: u64) -> u64 {
    let mut low = [0; NUMBER];
    let held = payload.len().min(NUMBER);
    low[..held].copy_from_slice(&payload[..held]);
    let low = u64::from_le_bytes(low);
    if held == NUMBER {
        return low;
    }
    let modulus = 1u64 << (8 * held);
    let ahead = low.wrapping_sub(near) % modulus;
    if ahead < modulus / 2 { near + ahead } else { near.wrapping_sub(modulus - ahead) }
}
