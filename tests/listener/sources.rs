//! Sources of one's own: how they end, what their errors do, how they are interrupted.

use crate::common::LONG;
use crate::support::*;
use callbridge::channel::Ending;
use callbridge::listener::{FrameSource, Interrupter, Listener};
#[cfg(feature = "testing")]
use callbridge::testing::script;
use std::io::{self, ErrorKind};
use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::Duration;

#[test]
fn a_source_that_finishes_ends_the_stream_as_finished() {
    let mut left = 3;
    let source = FromFn(move || {
        left -= 1;
        Ok((left >= 0).then_some(left))
    });
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!([next(&mut frames), next(&mut frames), next(&mut frames)], [2, 1, 0]);
    assert_eq!(end(&mut frames), Ending::Finished);
    clean(&listener);
    assert_eq!(listener.ending(), Some(Ending::Finished));
    assert_eq!(listener.stats().frames, 3);
}

#[test]
fn a_source_that_fails_ends_the_stream_with_its_error() {
    let source =
        FromFn(|| Err::<Option<()>, _>(io::Error::new(ErrorKind::BrokenPipe, "unplugged")));
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!(end(&mut frames), Ending::Failed);
    assert_eq!(frames.error().unwrap().to_string(), "unplugged");
    let error = listener.error().unwrap();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), ErrorKind::BrokenPipe);
    clean(&listener);
}

#[test]
fn a_source_that_panics_ends_the_stream_as_panicked() {
    let source = FromFn(|| -> io::Result<Option<()>> { panic!("a bug in a driver") });
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!(end(&mut frames), Ending::Panicked);
    clean(&listener);
    assert_eq!(listener.ending(), Some(Ending::Panicked));
}

#[cfg(feature = "testing")]
#[test]
fn timeouts_are_not_errors() {
    let (source, script) = script();
    for timeout in [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted] {
        script.fail(timeout.into());
    }
    script.frame("after the timeouts");
    let (_listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!(next(&mut frames), "after the timeouts");
}

#[test]
fn an_interrupter_that_panics_is_contained() {
    struct Grumpy(mpsc::Receiver<()>);
    impl FrameSource for Grumpy {
        type Frame = ();
        fn next_frame(&mut self) -> io::Result<Option<()>> {
            let _ = self.0.recv_timeout(Duration::from_millis(10));
            Err(ErrorKind::TimedOut.into())
        }
        fn interrupter(&self) -> Interrupter {
            Interrupter::new(|| panic!("leave me alone"))
        }
    }
    let (_keep, blocked) = mpsc::channel();
    let (listener, _frames) = Listener::builder(Grumpy(blocked)).spawn().unwrap();
    clean(&listener);
}

/// b123. rust-pcap: a break handle that is used after the capture was dropped does nothing; here,
/// not to whoever has the port by then either.
#[test]
fn an_interrupter_may_outlive_its_source() {
    let (source, client) = udp();
    let (interrupter, addr) = (source.interrupter(), source.local_addr().unwrap());
    drop(source);
    let next_owner = UdpSocket::bind(addr).unwrap();
    interrupter.interrupt();
    client.send(b"first").unwrap();
    next_owner.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(next_owner.recv(&mut [0; 8]).unwrap(), 5);
}
