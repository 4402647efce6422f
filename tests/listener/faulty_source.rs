//! A reader that gives its bytes in pieces, times out in between, and then ends, fails or panics.

use crate::common::LONG;
use callbridge::Listener;
use callbridge::channel::Ending;
use callbridge::listener::ReadSource;
use std::io::{self, ErrorKind, Read};
use tokio_util::codec::LinesCodec;

const FRAMES: usize = 200;

struct Faulty {
    bytes: Vec<u8>,
    at: usize,
    dice: u64,
    last: Ending,
}

impl Faulty {
    fn roll(&mut self, sides: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice % sides
    }
}

impl Read for Faulty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let tick = match self.roll(6) {
            0 => Some(ErrorKind::Interrupted),
            1 => Some(ErrorKind::WouldBlock),
            2 => Some(ErrorKind::TimedOut),
            _ => None,
        };
        if let Some(tick) = tick {
            return Err(tick.into());
        }
        if self.at == self.bytes.len() {
            return match self.last {
                Ending::Failed => Err(io::Error::from_raw_os_error(5)),
                Ending::Panicked => panic!("a device driver of the last century"),
                _ => Ok(0),
            };
        }
        let most = buffer.len().min(self.bytes.len() - self.at) as u64;
        let length = 1 + self.roll(most.min(7)) as usize;
        buffer[..length].copy_from_slice(&self.bytes[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[test]
fn every_frame_before_the_fault_comes_then_the_ending_that_it_was() {
    for seed in 1..=20 {
        for last in [Ending::Finished, Ending::Failed, Ending::Panicked] {
            let lines: String = (0..FRAMES).map(|n| format!("{n}\n")).collect();
            let faulty = Faulty { bytes: lines.into_bytes(), at: 0, dice: seed, last };
            let source = ReadSource::new(faulty, 100, LinesCodec::new()).unwrap();
            let (listener, mut frames) = Listener::builder(source).capacity(3).spawn().unwrap();
            for n in 0..FRAMES {
                assert_eq!(frames.recv_blocking(LONG).unwrap(), n.to_string(), "seed {seed}");
            }
            frames.recv_blocking(LONG).unwrap_err();
            assert_eq!(frames.ending(), Some(last), "seed {seed}");
            assert!(frames.stats().balances() && frames.stats().lost.total() == 0);
            let report = listener.close_blocking(LONG);
            assert!(report.is_clean(), "{report}");
            let errno = report.error.map(|error| error.to_string());
            assert_eq!(errno.is_some(), last == Ending::Failed, "{errno:?}");
        }
    }
}

/// `ENOBUFS` can't be provoked on loopback; a source that reports it fails with it.
#[test]
fn a_source_without_buffers_fails_with_the_systems_error() {
    let (listener, mut frames) =
        Listener::from_fn::<(), _>(|_| Err(io::Error::from_raw_os_error(105))).spawn().unwrap();
    frames.recv_blocking(LONG).unwrap_err();
    assert_eq!(frames.ending(), Some(Ending::Failed));
    let report = listener.close_blocking(LONG);
    assert!(report.is_clean() && report.error.is_some(), "{report}");
}
