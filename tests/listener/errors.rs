//! What is done about a source's errors and its silence: tried again, given up, told.

use crate::common::{LONG, eventually};
use crate::support::*;
use callbridge::channel::Ending;
use callbridge::listener::{FrameSource, Listener, OnError};
use callbridge::testing::{ScriptedSource, script};
use std::io::{self, ErrorKind};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A bus that is down for a while after its first frame.
fn bus(down: u32) -> ScriptedSource<u32> {
    let (source, script) = script();
    script.frame(1);
    for n in 1..=down {
        script.fail(io::Error::other(format!("down {n}")));
    }
    script.frame(2);
    source
}

#[test]
fn a_source_is_tried_again_as_told_and_the_attempts_are_counted() {
    let (tell, told) = mpsc::channel();
    let (listener, mut frames) = Listener::builder(bus(3))
        .on_error(move |error, attempt| {
            tell.send((error.to_string(), attempt)).unwrap();
            OnError::Retry(MS)
        })
        .spawn()
        .unwrap();
    assert_eq!([next(&mut frames), next(&mut frames)], [1, 2]);
    assert_eq!(end(&mut frames), Ending::Finished);
    let told: Vec<_> = told.try_iter().collect();
    assert_eq!(told, [1, 2, 3].map(|n| (format!("down {n}"), n)));
    let stats = clean(&listener);
    assert_eq!((stats.retries, stats.frames), (3, 2));
}

#[test]
fn the_attempts_begin_anew_after_a_frame() {
    let mut turn = 0;
    let source = FromFn(move || {
        turn += 1;
        if turn % 2 == 0 {
            Err(io::Error::other("now and then"))
        } else {
            Ok((turn < 20).then_some(turn))
        }
    });
    let (listener, mut frames) = Listener::builder(source)
        .on_error(|_, attempt| if attempt == 1 { OnError::Retry(MS) } else { OnError::Fail })
        .spawn()
        .unwrap();
    for n in 0..10 {
        assert_eq!(next(&mut frames), 2 * n + 1);
    }
    assert_eq!(end(&mut frames), Ending::Finished);
    clean(&listener);
}

#[test]
fn a_source_is_given_up_as_told_with_its_last_error() {
    let (listener, mut frames) = Listener::builder(bus(10))
        .on_error(|_, attempt| if attempt < 3 { OnError::Retry(MS) } else { OnError::Fail })
        .spawn()
        .unwrap();
    assert_eq!(next(&mut frames), 1);
    assert_eq!(end(&mut frames), Ending::Failed);
    assert_eq!(listener.error().unwrap().to_string(), "down 3");
    assert_eq!(clean(&listener).retries, 2);
}

#[test]
fn a_stop_doesnt_wait_for_the_next_attempt() {
    let (tell, told) = mpsc::channel();
    let (listener, mut frames) = Listener::builder(bus(10))
        .on_error(move |_, _| {
            tell.send(()).unwrap();
            OnError::Retry(Duration::MAX)
        })
        .spawn()
        .unwrap();
    told.recv_timeout(LONG).unwrap();
    let began = Instant::now();
    clean(&listener);
    assert!(began.elapsed() < LONG / 2);
    assert_eq!(next(&mut frames), 1);
    assert_eq!(end(&mut frames), Ending::Aborted);
}

#[test]
fn a_hook_that_panics_gives_the_source_up() {
    let (listener, mut frames) =
        Listener::builder(bus(1)).on_error(|_, _| panic!("a bug in a hook")).spawn().unwrap();
    assert_eq!(next(&mut frames), 1);
    assert_eq!(end(&mut frames), Ending::Failed);
    assert_eq!(listener.error().unwrap().to_string(), "down 1");
    clean(&listener);
}

#[test]
fn a_service_is_tried_again_too() {
    struct Line(u32);
    impl FrameSource for Line {
        type Frame = u32;
        fn next_frame(&mut self) -> io::Result<Option<u32>> {
            self.0 += 1;
            match self.0 {
                2 => Err(ErrorKind::BrokenPipe.into()),
                n if n < 5 => Ok(Some(n)),
                _ => Ok(None),
            }
        }
    }
    impl callbridge::listener::RequestSource<u32> for Line {
        type Address = ();
        fn address(&mut self, _: &mut u32) {}
        fn answer(&mut self, (): (), _: u32) -> io::Result<bool> {
            Ok(true)
        }
    }
    let (_loop, bridge) = event_loop();
    let listener = Listener::builder(Line(0))
        .on_error(|_, _| OnError::Retry(MS))
        .serve(&bridge, |n: u32| async move { Some(n) })
        .spawn()
        .unwrap();
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(listener.ending(), Some(Ending::Finished));
    let stats = clean(&listener);
    assert_eq!((stats.requests, stats.replies, stats.retries), (3, 3, 1));
}

/// A thread that is always told that there is something and finds nothing doesn't spin.
#[cfg(target_os = "linux")]
#[test]
fn a_source_whose_descriptor_is_always_ready_costs_no_core() {
    use std::io::Write;
    use std::os::fd::{AsFd, BorrowedFd};
    struct Stubborn(os_pipe::PipeReader);
    impl FrameSource for Stubborn {
        type Frame = ();
        fn next_frame(&mut self) -> io::Result<Option<()>> {
            self.next_ready()
        }
        fn as_fd(&self) -> Option<BorrowedFd<'_>> {
            Some(self.0.as_fd())
        }
    }
    let (reader, mut writer) = os_pipe::pipe().unwrap();
    writer.write_all(b"x").unwrap();
    let (listener, _frames) = Listener::builder(Stubborn(reader)).name("stubborn").spawn().unwrap();
    let percent = percent_of_a_core("stubborn");
    assert!(percent < 10, "{percent} % of a core");
    clean(&listener);
}

// --- silence -----------------------------------------------------------------------------------

#[test]
fn a_source_that_falls_silent_is_told_once_until_it_speaks_again() {
    let (source, client) = udp();
    let (tell, told) = mpsc::channel();
    let (listener, mut frames) = Listener::builder(source)
        .quiet_after(20 * MS, move || tell.send(()).unwrap())
        .spawn()
        .unwrap();
    for _ in 0..3 {
        told.recv_timeout(LONG).unwrap();
        assert!(told.recv_timeout(60 * MS).is_err(), "once");
        client.send(b"x").unwrap();
        next(&mut frames);
    }
    clean(&listener);
}

#[test]
fn a_source_without_a_descriptor_falls_silent_too_and_a_panic_of_the_hook_is_contained() {
    let (source, script) = script();
    let (tell, told) = mpsc::channel();
    let (listener, mut frames) = Listener::builder(source)
        .poll_timeout(MS)
        .quiet_after(20 * MS, move || {
            tell.send(()).unwrap();
            panic!("a bug in a hook");
        })
        .spawn()
        .unwrap();
    told.recv_timeout(LONG).unwrap();
    script.frame(7);
    assert_eq!(next(&mut frames), 7);
    told.recv_timeout(LONG).unwrap();
    drop(script);
    assert_eq!(end(&mut frames), Ending::Finished);
    clean(&listener);
    eventually("the hook is gone", || {
        told.recv_timeout(MS) == Err(mpsc::RecvTimeoutError::Disconnected)
    });
}

/// Its thread waits for the end of the pause alone.
#[cfg(target_os = "linux")]
#[test]
fn a_source_that_goes_quiet_in_a_pause_is_told_and_costs_no_core() {
    let mut asked = false;
    let source = FromFn(move || {
        let noise = std::mem::replace(&mut asked, true);
        let error = if noise { io::Error::other("noise") } else { ErrorKind::WouldBlock.into() };
        Err::<Option<()>, _>(error)
    });
    let (tell, told) = mpsc::channel();
    let (listener, _frames) = Listener::builder(source)
        .name("quiet-pause")
        .on_error(|_, _| OnError::Retry(LONG))
        .quiet_after(100 * MS, move || tell.send(()).unwrap())
        .spawn()
        .unwrap();
    wait_for(&listener, |stats| stats.retries == 1);
    let percent = percent_of_a_core("quiet-pause");
    assert!(percent < 20, "{percent} % of a core");
    assert_eq!(told.try_iter().count(), 1);
    clean(&listener);
}

/// What it says of itself is no sign of life.
#[test]
fn a_source_that_only_tells_of_itself_is_quiet() {
    struct Telling;
    impl FrameSource for Telling {
        type Frame = ();
        fn next_frame(&mut self) -> io::Result<Option<()>> {
            std::thread::sleep(MS);
            Ok(Some(()))
        }
        fn is_control(&self, _: &()) -> bool {
            true
        }
    }
    let (tell, quiet) = mpsc::channel();
    let builder = Listener::builder(Telling).quiet_after(20 * MS, move || tell.send(()).unwrap());
    let (listener, _told) = builder.spawn().unwrap();
    assert_eq!(quiet.recv_timeout(LONG), Ok(()));
    clean(&listener);
}
