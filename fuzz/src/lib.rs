//! The bodies of the fuzz targets, callable on stable: `tests/fuzz_replay.rs` runs the corpus
//! through them.

pub mod bridge;
pub mod channel;
pub mod connection;
pub mod echo;
pub mod framing;

/// The input, read as a list of small decisions; zeros after its end.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Script(input)
    }

    pub(crate) fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }
}
