//! Devices that are opened again.

use crate::common::LONG as PATIENCE;
use callbridge::channel::Ending;
use callbridge::listener::{Backoff, FrameSource, Interrupter, Listener, Reopened};
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

const AT_ONCE: Backoff =
    Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(2), attempts: 3 };

/// Gives its numbers, then fails.
struct Numbers(Vec<u32>);

impl FrameSource for Numbers {
    type Frame = u32;

    fn next_frame(&mut self) -> io::Result<Option<u32>> {
        self.0.pop().map(Some).ok_or_else(|| io::Error::other("unplugged"))
    }
}

#[test]
fn a_device_is_given_up_after_so_many_failures_in_a_row() {
    let openings = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&openings);
    let device = Listener::reopening(
        move |_| match counted.fetch_add(1, Ordering::Relaxed) {
            // It comes up twice, and each time gives a frame: the failures begin anew.
            1 | 3 => Ok(Numbers(vec![7])),
            _ => Err(io::Error::other("no such device")),
        },
        AT_ONCE,
    );
    let (listener, mut told) = device.spawn().unwrap();
    let mut seen = String::new();
    while let Ok(event) = told.recv_blocking(PATIENCE) {
        seen.push(match event {
            Reopened::Up => 'u',
            Reopened::Frame(_) => 'f',
            _ => 'd',
        });
    }
    // The third failure in a row is the end: losing the line, and two openings in vain.
    assert_eq!(seen, "dufddufdd");
    assert_eq!(listener.ending(), Some(Ending::Failed));
    assert_eq!(listener.error().unwrap().to_string(), "no such device");
    assert_eq!(openings.load(Ordering::Relaxed), 6);
}

#[test]
fn a_stop_interrupts_the_source_that_is_open_now() {
    /// Waits until it is interrupted.
    struct Waiting(mpsc::Receiver<()>, mpsc::Sender<()>);
    impl FrameSource for Waiting {
        type Frame = ();
        fn next_frame(&mut self) -> io::Result<Option<()>> {
            let _interrupted = self.0.recv_timeout(PATIENCE);
            Err(ErrorKind::Interrupted.into())
        }
        fn interrupter(&self) -> Interrupter {
            let interrupt = self.1.clone();
            Interrupter::new(move || {
                let _once_more = interrupt.send(());
            })
        }
    }
    let device = Listener::reopening(
        |_| {
            let (interrupt, interrupted) = mpsc::channel();
            Ok(Waiting(interrupted, interrupt))
        },
        AT_ONCE,
    );
    let (listener, mut told) = device.spawn().unwrap();
    assert!(matches!(told.recv_blocking(PATIENCE), Ok(Reopened::Up)));
    assert!(listener.close_blocking(PATIENCE).is_clean());
}

#[test]
fn a_stop_ends_the_pause_between_two_openings() {
    let patient = Backoff { first: PATIENCE * 10, longest: PATIENCE * 10, ..AT_ONCE };
    let device = Listener::reopening(
        |_| -> io::Result<Numbers> { Err(ErrorKind::NotFound.into()) },
        patient,
    );
    let (listener, mut told) = device.spawn().unwrap();
    assert!(matches!(told.recv_blocking(PATIENCE), Ok(Reopened::Down(_))));
    assert!(listener.close_blocking(PATIENCE).is_clean());
}
