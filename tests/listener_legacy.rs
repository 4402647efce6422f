//! `Listener::from_fn`: loops that exist already.

use callbridge::listener::Listener;
use callbridge::{Ending, FrameStream, RecvBlockingError};
use std::io;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// No wait in these tests takes nearly as long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

fn next<T>(frames: &mut FrameStream<T>) -> T {
    frames.recv_blocking(PATIENCE).expect("a frame is on its way")
}

fn end<T>(frames: &mut FrameStream<T>) -> Ending {
    assert_eq!(frames.recv_blocking(PATIENCE).err(), Some(RecvBlockingError::Ended));
    frames.ending().expect("it has ended")
}

fn clean(listener: &Listener) {
    let report = listener.shutdown_blocking(PATIENCE);
    assert!(report.is_clean() && !report.would_deadlock, "{report}");
}

#[test]
fn a_legacy_loop_runs_on_the_named_thread_until_it_is_told_to_stop() {
    let (listener, mut frames) = Listener::from_fn(|sink| {
        let name = thread::current().name().unwrap_or_default().to_owned();
        sink.send(name).map_err(io::Error::other)?;
        sink.wait_stop(PATIENCE).unwrap();
        assert!(sink.is_stopping());
        Ok(())
    })
    .name("legacy")
    .spawn()
    .unwrap();
    assert_eq!(next(&mut frames), "legacy");
    clean(&listener);
    assert_eq!(end(&mut frames), Ending::Aborted);
}

#[test]
fn a_legacy_loop_that_fails_or_panics_says_so() {
    let (_l, mut frames) =
        Listener::from_fn::<(), _>(|_| Err(io::Error::other("no carrier"))).spawn().unwrap();
    assert_eq!(end(&mut frames), Ending::Failed);
    let (_l, mut frames) = Listener::from_fn::<(), _>(|_| panic!("bug")).spawn().unwrap();
    assert_eq!(end(&mut frames), Ending::Panicked);
}

/// b6. Kotlin: a failure in the builder cancels what it started.
#[test]
fn threads_of_a_legacy_loop_that_fails_are_told_to_stop() {
    for panics in [false, true] {
        let (tell, told) = mpsc::channel();
        let (_listener, mut frames) = Listener::from_fn::<u8, _>(move |sink| {
            thread::spawn(move || tell.send((sink.wait_stop(None).is_ok(), sink.send(1).is_err())));
            if panics {
                panic!("bug");
            }
            Err(io::Error::other("no carrier"))
        })
        .spawn()
        .unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok((true, true)));
        let expected = if panics { Ending::Panicked } else { Ending::Failed };
        assert_eq!(end(&mut frames), expected);
    }
}

/// b5. Kotlin: a close inside the builder ends the collector although the builder hangs.
#[test]
fn a_legacy_loop_that_closes_its_stream_and_hangs_keeps_no_consumer() {
    let (release, blocked) = mpsc::channel::<()>();
    let (listener, mut frames) = Listener::from_fn(move |sink| {
        sink.send(1).map_err(io::Error::other)?;
        assert!(sink.sender().close());
        let _ = blocked.recv();
        Ok(())
    })
    .name("hangs")
    .spawn()
    .unwrap();
    assert_eq!(next(&mut frames), 1);
    assert_eq!(end(&mut frames), Ending::Finished);
    assert_eq!(listener.shutdown_blocking(Duration::ZERO).stragglers, ["hangs"]);
    drop(release);
    clean(&listener);
}

#[test]
fn the_stream_ends_with_the_loop_whatever_sinks_are_left() {
    let (give, take) = mpsc::channel();
    let (_listener, mut frames) =
        Listener::from_fn::<u8, _>(move |sink| give.send(sink.clone()).map_err(io::Error::other))
            .spawn()
            .unwrap();
    let sink = take.recv_timeout(PATIENCE).unwrap();
    assert_eq!(end(&mut frames), Ending::Finished);
    assert!(sink.send(1).is_err());
}
