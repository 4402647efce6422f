//! What the clients saw: a row for each size.

use std::time::{Duration, Instant};

/// The frames of one size.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub(crate) size: usize,
    /// Frames that came back as they were sent.
    pub(crate) echoed: u64,
    /// Datagrams sent again for want of a reply.
    pub(crate) resent: u64,
    /// Replies that are not what was sent.
    pub(crate) altered: u64,
    /// Frames given up.
    pub(crate) lost: u64,
    /// Frames a second, over all clients.
    pub(crate) rate: f64,
    /// Round trips in microseconds, from the first time a frame is sent.
    round_trips: Vec<u32>,
}

impl Row {
    pub(crate) fn new(size: usize, frames: u32) -> Self {
        Row { size, round_trips: Vec::with_capacity(frames as usize), ..Row::default() }
    }

    pub(crate) fn echoed(&mut self, sent: Instant) {
        self.echoed += 1;
        let micros = sent.elapsed().as_micros();
        self.round_trips.push(u32::try_from(micros).unwrap_or(u32::MAX));
    }

    /// Sets the rate, once the last frame of the row is back.
    pub(crate) fn timed(&mut self, since: Instant) {
        self.rate = self.echoed as f64 / since.elapsed().as_secs_f64().max(1e-9);
    }

    /// Adds another client's row; rates add up, as the clients work side by side.
    pub(crate) fn add(&mut self, other: &Row) {
        self.echoed += other.echoed;
        self.resent += other.resent;
        self.altered += other.altered;
        self.lost += other.lost;
        self.rate += other.rate;
        self.round_trips.extend_from_slice(&other.round_trips);
    }

    /// The round trip that `percent` of the frames were not slower than.
    pub(crate) fn percentile(&mut self, percent: usize) -> Option<Duration> {
        let last = self.round_trips.len().checked_sub(1)?;
        let (_, micros, _) = self.round_trips.select_nth_unstable(last * percent / 100);
        Some(Duration::from_micros((*micros).into()))
    }
}

/// What one client brings home: its rows, and why it stopped before the end, if it did.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rows: Vec<Row>,
    pub(crate) failure: Option<String>,
}
