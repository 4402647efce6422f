//! A reader that gives its bytes in pieces, times out in between, and then ends, fails or panics.

use crate::common::{LONG, in_parallel, rounds};
use callbridge::Listener;
use callbridge::channel::Ending;
use callbridge::listener::ReadSource;
use callbridge::testing::{Script, script};
use std::io::{self, ErrorKind};
use tokio_util::codec::LinesCodec;

const FRAMES: usize = 200;

/// Tears the bytes where the dice say, with timeouts in between.
fn tell(script: &Script<Vec<u8>>, mut bytes: &[u8], mut dice: u64) {
    let mut roll = |sides: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % sides
    };
    while !bytes.is_empty() {
        match roll(6) {
            0 => script.fail(ErrorKind::Interrupted.into()),
            1 => script.fail(ErrorKind::TimedOut.into()),
            2 => script.nothing(),
            _ => {
                let (piece, rest) = bytes.split_at(bytes.len().min(1 + roll(7) as usize));
                bytes = rest;
                script.frame(piece.to_vec())
            }
        };
    }
}

#[test]
fn every_frame_before_the_fault_comes_then_the_ending_that_it_was() {
    // What a source that says "nothing" at once is slowed down by makes up most of the time.
    in_parallel([Ending::Finished, Ending::Failed, Ending::Panicked], |last| {
        for seed in 1..=rounds(8) as u64 {
            let lines: String = (0..FRAMES).map(|n| format!("{n}\n")).collect();
            let (device, script) = script();
            tell(&script, lines.as_bytes(), seed);
            match last {
                Ending::Failed => _ = script.fail(io::Error::from_raw_os_error(5)),
                Ending::Panicked => _ = script.panic("a device driver of the last century"),
                _ => drop(script),
            }
            let source = ReadSource::new(device, 100, LinesCodec::new()).unwrap();
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
    });
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
