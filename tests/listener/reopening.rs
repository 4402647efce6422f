//! Devices that are opened again.

use crate::common::LONG as PATIENCE;
#[cfg(target_os = "linux")]
use crate::common::eventually;
use crate::support::*;
use callbridge::channel::Ending;
use callbridge::listener::{
    Backoff, FrameSource, Gauge, Interrupter, Listener, ReadSource, Reopened, RequestSource,
    SourceStats, TcpSource,
};
use callbridge::{Bridge, Overflow, SettingError};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tokio_util::codec::LinesCodec;

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
    assert_eq!(seen, "dufdufd");
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

/// A device behind TCP: its line breaks, it is away for a while, and it comes back.
#[test]
fn a_line_that_breaks_is_connected_again_and_written_to_meanwhile_in_vain() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = port.local_addr().unwrap();
    let away = Arc::new(AtomicBool::new(false));
    let is_away = Arc::clone(&away);
    let mut builder = Listener::reopening(
        move |opening| {
            if is_away.load(Ordering::SeqCst) {
                return Err(ErrorKind::NotFound.into());
            }
            TcpSource::from_socket(opening.connect(addr, PATIENCE)?, 1024, LinesCodec::new())
        },
        Backoff { attempts: u32::MAX, ..AT_ONCE },
    );
    let sink = builder.writer::<String>(4);
    let (listener, mut told) = builder.spawn().unwrap();
    for n in 0..2 {
        while !matches!(next(&mut told), Reopened::Up) {}
        let (device, _) = port.accept().unwrap();
        sink.send_blocking(format!("ask {n}"), PATIENCE).unwrap();
        let mut device = BufReader::new(device);
        assert_eq!(hear(&mut device), format!("ask {n}"));
        say(device.get_ref(), &format!("answer {n}\n"));
        assert_eq!(next(&mut told).frame(), Some(format!("answer {n}")));

        away.store(true, Ordering::SeqCst);
        drop(device);
        let Reopened::Down(error) = next(&mut told) else { panic!("it is down") };
        let error = error.downcast_ref::<io::Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        let in_vain = sink.send_blocking("anybody?".into(), PATIENCE).unwrap_err();
        assert_eq!(io::Error::from(in_vain).kind(), ErrorKind::NotConnected);
        away.store(false, Ordering::SeqCst);
    }
    clean(&listener);
}

/// Its read side is silent, so that only a write finds out.
#[test]
fn a_write_that_fails_takes_the_device_down() {
    struct Unplugged;
    impl Read for Unplugged {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(1)); // A device's own timeout.
            Err(ErrorKind::TimedOut.into())
        }
    }
    impl Write for Unplugged {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut builder =
        Listener::reopening(|_| ReadSource::new(Unplugged, 80, LinesCodec::new()), AT_ONCE);
    let sink = builder.writer::<String>(1);
    let (listener, mut told) = builder.spawn().unwrap();
    for _ in 0..2 {
        assert!(matches!(next(&mut told), Reopened::Up));
        let failed = sink.send_blocking("hello".into(), PATIENCE).unwrap_err();
        assert_eq!(io::Error::from(failed).kind(), ErrorKind::BrokenPipe);
        let Reopened::Down(error) = next(&mut told) else { panic!("it is down") };
        assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), ErrorKind::BrokenPipe);
    }
    clean(&listener);
}

/// What a connect comes to whose peer refuses, or doesn't answer: its error, its timeout, or a stop.
#[cfg(target_os = "linux")]
#[test]
fn a_connect_that_gets_no_answer_ends_by_its_timeout_and_by_a_stop() {
    use socket2::{Domain, Socket, Type};
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let bound = |backlog: Option<i32>| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&loopback.into()).unwrap();
        if let Some(backlog) = backlog {
            socket.listen(backlog).unwrap();
        }
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, addr)
    };
    let (_deaf, deaf) = bound(None);
    let (_full, full) = bound(Some(0));
    // More than there is room for, none of which is accepted.
    let waiting = [(); 4].map(|()| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _under_way = socket.connect(&full.into());
        socket
    });
    let mut attempt = 0;
    let (waits, is_waiting) = mpsc::channel();
    let device = Listener::reopening(
        move |opening| {
            attempt += 1;
            let line = match attempt {
                1 => opening.connect(deaf, PATIENCE)?,
                2 => {
                    let timed_out = opening.connect(full, Duration::from_millis(10)).unwrap_err();
                    assert_eq!(timed_out.kind(), ErrorKind::TimedOut);
                    return Err(timed_out);
                }
                _ => {
                    waits.send(()).unwrap();
                    let interrupted = opening.connect(full, PATIENCE * 10).unwrap_err();
                    assert!(opening.is_stopping());
                    waits.send(()).unwrap();
                    return Err(interrupted);
                }
            };
            TcpSource::from_socket(line, 1024, LinesCodec::new())
        },
        Backoff { attempts: u32::MAX, ..AT_ONCE },
    );
    let (listener, mut told) = device.spawn().unwrap();
    let Reopened::Down(error) = next(&mut told) else { panic!("there is no line") };
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), ErrorKind::ConnectionRefused);
    is_waiting.recv_timeout(PATIENCE).unwrap();
    assert!(listener.close_blocking(PATIENCE).is_clean());
    assert!(is_waiting.try_recv().is_ok(), "the connect was told to stop");
    assert_eq!(end(&mut told), Ending::Aborted);
    drop(waiting);
}

/// Has numbers, the first already received; can't be written to.
struct Deaf(Vec<u32>);

impl FrameSource for Deaf {
    type Frame = u32;

    fn next_frame(&mut self) -> io::Result<Option<u32>> {
        self.next_buffered()?.map(Some).ok_or(ErrorKind::TimedOut.into())
    }

    fn next_buffered(&mut self) -> io::Result<Option<u32>> {
        Ok(self.0.pop())
    }
}

impl RequestSource<u32> for Deaf {
    type Address = ();

    fn address(&mut self, _: &mut u32) {}

    fn answer(&mut self, _to: (), _frame: u32) -> io::Result<bool> {
        Ok(false)
    }

    fn flush(&mut self) -> io::Result<bool> {
        Err(ErrorKind::BrokenPipe.into())
    }
}

#[test]
fn what_came_before_a_write_failed_is_still_read() {
    let mut builder = Listener::reopening(|_| Ok(Deaf((0..100).collect())), AT_ONCE).capacity(1);
    let sink = builder.writer::<u32>(4);
    let (listener, mut told) = builder.spawn().unwrap();
    assert!(matches!(next(&mut told), Reopened::Up));
    let failed = sink.send_blocking(1, PATIENCE).unwrap_err();
    assert_eq!(io::Error::from(failed).kind(), ErrorKind::BrokenPipe);
    let in_vain = sink.send_blocking(2, PATIENCE).unwrap_err();
    assert_eq!(io::Error::from(in_vain).kind(), ErrorKind::NotConnected);
    for n in (0..100).rev() {
        assert_eq!(next(&mut told).frame(), Some(n));
    }
    let Reopened::Down(error) = next(&mut told) else { panic!("all is read") };
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), ErrorKind::BrokenPipe);
    assert!(matches!(next(&mut told), Reopened::Up));
    clean(&listener);
}

/// It is in the system's hands, not in the source's.
#[cfg(target_os = "linux")]
#[test]
fn what_a_device_said_before_a_write_failed_is_read() {
    let device = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = device.local_addr().unwrap();
    let mut builder = Listener::reopening(
        move |opening| {
            TcpSource::from_socket(opening.connect(addr, PATIENCE)?, 1024, LinesCodec::new())
        },
        Backoff { first: PATIENCE, longest: PATIENCE, ..AT_ONCE },
    )
    .capacity(1);
    let sink = builder.writer::<String>(4);
    let (_listener, mut told) = builder.spawn().unwrap();
    let (line, _) = device.accept().unwrap();
    assert!(matches!(next(&mut told), Reopened::Up));
    // The second finds the stream full, and those behind it are left to the system.
    say(&line, "1\n2\n");
    eventually("a full channel", || told.stats().waiting == 1);
    say(&line, "3\n4\n");
    drop(line);
    // The first write is answered by a reset, by which one after it fails.
    while sink.send_blocking("anybody?".into(), PATIENCE).is_ok() {
        std::thread::yield_now();
    }
    for n in 1..=4 {
        assert_eq!(next(&mut told).frame(), Some(n.to_string()));
    }
    assert!(matches!(next(&mut told), Reopened::Down(_)));
}

#[test]
fn a_device_that_doesnt_read_is_opened_again() {
    let device = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = device.local_addr().unwrap();
    let mut builder = Listener::reopening(
        move |opening| {
            TcpSource::from_socket(opening.connect(addr, PATIENCE)?, 1024, LinesCodec::new())
        },
        AT_ONCE,
    )
    .write_timeout(100 * MS);
    let sink = builder.writer::<String>(4);
    let (listener, mut told) = builder.spawn().unwrap();
    let (_stuck, _) = device.accept().unwrap();
    assert!(matches!(next(&mut told), Reopened::Up));
    assert!(sink.send_blocking("x".repeat(16 << 20), PATIENCE).is_err());
    let Reopened::Down(error) = next(&mut told) else { panic!("it is down") };
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), ErrorKind::TimedOut);
    let (mends, _) = device.accept().unwrap();
    assert!(matches!(next(&mut told), Reopened::Up));
    sink.send_blocking("hello".into(), PATIENCE).unwrap();
    assert_eq!(hear(&mut BufReader::new(mends)), "hello");
    clean(&listener);
}

#[test]
fn no_policy_drops_that_a_device_went_and_came() {
    for policy in [Overflow::DropNewest, Overflow::DropOldest, Overflow::Latest, Overflow::Fail] {
        let mut opened = 0;
        let device = Listener::reopening(
            move |_| {
                opened += 1;
                if opened < 3 { Ok(Numbers(vec![7; 10])) } else { Err(ErrorKind::NotFound.into()) }
            },
            AT_ONCE,
        );
        let (listener, mut told) = device.capacity(1).overflow(policy).spawn().unwrap();
        // Nobody reads before all has happened.
        wait_for(&listener, |_| listener.is_finished());
        assert_eq!(listener.stats().frames, 24, "two rounds of ten, and what was told");
        let (mut seen, mut frames) = (String::new(), 0);
        while let Ok(event) = told.recv_blocking(PATIENCE) {
            match event {
                Reopened::Up => seen.push('u'),
                Reopened::Down(_) => seen.push('d'),
                _ => frames += 1,
            }
        }
        assert_eq!((seen.as_str(), frames), ("udud", 1), "{policy:?}");
        clean(&listener);
    }
}

#[test]
fn a_device_that_stays_away_is_told_once_and_is_quiet() {
    let (tell, quiet) = mpsc::channel();
    let (opens, opening) = mpsc::channel();
    let device = Listener::reopening(
        move |_| -> io::Result<Numbers> {
            let _nobody_counts = opens.send(());
            Err(ErrorKind::NotFound.into())
        },
        Backoff { attempts: u32::MAX, ..AT_ONCE },
    );
    let (listener, mut told) =
        device.quiet_after(20 * MS, move || tell.send(()).unwrap()).spawn().unwrap();
    assert_eq!(quiet.recv_timeout(PATIENCE), Ok(()));
    assert!(opening.iter().take(10).count() == 10, "it is tried again and again");
    assert_eq!((listener.stats().frames, listener.stats().quiet), (1, 1));
    assert!(matches!(next(&mut told), Reopened::Down(_)));
    assert!(told.try_recv().is_err(), "it is down still");
    assert_eq!(clean(&listener).quiet, 0, "it has ended");
}

/// A stop comes just when the device fails: what the interrupter uses may go with the source.
#[test]
fn a_source_is_dropped_when_its_interrupter_is_through() {
    struct Failing {
        /// Called when it has failed and is about to go.
        gauge: Gauge,
        interrupter: Interrupter,
        _dropped: mpsc::Sender<()>,
    }
    impl FrameSource for Failing {
        type Frame = ();
        fn next_frame(&mut self) -> io::Result<Option<()>> {
            Err(io::Error::other("unplugged"))
        }
        fn interrupter(&self) -> Interrupter {
            self.interrupter.clone()
        }
        fn gauge(&self) -> Gauge {
            self.gauge.clone()
        }
    }
    let (fails, has_failed) = mpsc::channel();
    let (interrupts, is_interrupted) = mpsc::channel();
    let is_interrupted = Mutex::new(Some(is_interrupted));
    let (dropped, is_dropped) = mpsc::channel::<()>();
    let is_dropped = Mutex::new(is_dropped);
    let (seen, was_dropped) = mpsc::channel();
    let mut source = Some(Failing {
        gauge: Gauge::new(move || {
            if let Some(is_interrupted) = is_interrupted.lock().unwrap().take() {
                fails.send(()).unwrap();
                let () = is_interrupted.recv_timeout(PATIENCE).unwrap();
            }
            SourceStats::default()
        }),
        interrupter: Interrupter::new(move || {
            let _once_more = interrupts.send(());
            let gone = is_dropped.lock().unwrap().recv_timeout(50 * MS);
            seen.send(gone == Err(mpsc::RecvTimeoutError::Disconnected)).unwrap();
        }),
        _dropped: dropped,
    });
    let device =
        Listener::reopening(move |_| source.take().ok_or(ErrorKind::NotFound.into()), AT_ONCE);
    let (listener, _told) = device.spawn().unwrap();
    has_failed.recv_timeout(PATIENCE).unwrap();
    listener.stop();
    assert_eq!(was_dropped.recv_timeout(PATIENCE), Ok(false), "it was used after its source");
    clean(&listener);
}

/// Reads for ever, and can't be written to.
struct Talks;

impl Read for Talks {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        (&b"on and on\n"[..]).read(bytes)
    }
}

impl Write for Talks {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_device_that_goes_on_talking_falls_by_a_write_that_failed() {
    let mut builder = Listener::reopening(
        |_| ReadSource::new(Talks, 80, LinesCodec::new()),
        Backoff { attempts: u32::MAX, ..AT_ONCE },
    )
    .overflow(Overflow::DropOldest);
    let sink = builder.writer::<String>(1);
    let (listener, mut told) = builder.spawn().unwrap();
    for _ in 0..2 {
        while !matches!(next(&mut told), Reopened::Up) {}
        assert!(sink.send_blocking("hush".into(), PATIENCE).is_err());
        while !matches!(next(&mut told), Reopened::Down(_)) {}
    }
    clean(&listener);
}

#[test]
fn a_device_that_gives_no_frame_is_given_up_though_it_can_be_opened() {
    let device = Listener::reopening(|_| Ok(Numbers(Vec::new())), AT_ONCE);
    let (listener, mut told) = device.spawn().unwrap();
    let mut seen = String::new();
    while let Ok(event) = told.recv_blocking(PATIENCE) {
        seen.push(if let Reopened::Up = event { 'u' } else { 'd' });
    }
    assert_eq!((seen.as_str(), listener.ending()), ("ududu", Some(Ending::Failed)));
    assert_eq!(listener.error().unwrap().to_string(), "unplugged");
}

/// Of a source, such an error says that nothing has come yet.
#[test]
fn a_device_whose_opening_times_out_is_given_up_all_the_same() {
    let openings = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&openings);
    let device = Listener::reopening(
        move |_| -> io::Result<Numbers> {
            counted.fetch_add(1, Ordering::Relaxed);
            Err(io::Error::new(ErrorKind::TimedOut, "nobody answers"))
        },
        AT_ONCE,
    );
    let (listener, mut told) = device.spawn().unwrap();
    assert!(matches!(next(&mut told), Reopened::Down(_)));
    assert_eq!(end(&mut told), Ending::Failed);
    assert_eq!(listener.error().unwrap().to_string(), "nobody answers");
    assert_eq!(openings.load(Ordering::Relaxed), 3);
}

#[test]
fn a_device_that_is_opened_again_is_not_served() {
    let (runtime, _) = event_loop();
    let bridge = Bridge::new(runtime.handle().clone());
    let refused = Listener::reopening(|_| Ok(Deaf(vec![1])), AT_ONCE)
        .serve(&bridge, async |_| Some(2))
        .spawn()
        .unwrap_err();
    let reason = refused.get_ref().unwrap().downcast_ref::<SettingError>();
    assert_eq!(reason.map(SettingError::setting), Some("serve"));
}
