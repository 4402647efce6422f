//! `BlockingIo`: async bytes by std's traits.

use crate::common::{LONG, Loop, SHORT};
use crate::{both, here};
use callbridge::runner::BlockingIo;
use callbridge::{ResultError, ThreadRunner};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

fn pair(runner: &ThreadRunner, room: usize) -> [BlockingIo<DuplexStream>; 2] {
    let (here, there) = tokio::io::duplex(room);
    [here, there].map(|end| runner.wrap_io(end).unwrap())
}

fn cause(error: &io::Error) -> &ResultError {
    error.get_ref().unwrap().downcast_ref().unwrap()
}

#[test]
fn bytes_cross_sockets_of_the_loop() {
    for runner in both() {
        let listener = runner.run(TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let client = runner.run(TcpStream::connect(address)).unwrap().unwrap();
        let (server, _) = runner.run(listener.accept()).unwrap().unwrap();
        let payload: Vec<u8> = (0..1 << 20).map(|n: u32| n as u8).collect();
        thread::scope(|scope| {
            let mut client = runner.wrap_io(client).unwrap();
            let sent = &payload;
            let writer = scope.spawn(move || -> io::Result<()> {
                client.write_all(sent)?;
                client.shutdown()
            });
            let mut received = Vec::new();
            runner.wrap_io(server).unwrap().read_to_end(&mut received).unwrap();
            writer.join().unwrap().unwrap();
            assert!(received == payload);
        });
    }
}

#[test]
fn std_readers_work_on_top() {
    let runner = ThreadRunner::new();
    let [mut here, there] = pair(&runner, 16);
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..100 {
                writeln!(here, "line {n}").unwrap();
            }
            here.flush().unwrap();
        });
        let lines: Vec<_> = BufReader::new(there).lines().collect::<Result<_, _>>().unwrap();
        assert_eq!((lines.len(), &*lines[99]), (100, "line 99"));
    });
}

#[test]
fn a_timeout_loses_no_bytes() {
    let runner = ThreadRunner::new();
    let [mut here, mut there] = pair(&runner, 4);
    let mut word = [0; 4];
    for timeout in [Duration::ZERO, SHORT] {
        there.set_read_timeout(timeout);
        let late = there.read(&mut word).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        assert!(matches!(cause(&late), ResultError::TimedOut { .. }));
    }
    here.write_all(b"ping").unwrap();
    here.set_write_timeout(SHORT);
    assert_eq!(here.write(b"!").unwrap_err().kind(), ErrorKind::TimedOut);
    there.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ping");
    here.write_all(b"pong").unwrap();
    there.set_read_timeout(None);
    there.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"pong");
}

/// Where `SyncIoBridge` panics, or blocks for ever.
#[test]
fn reading_on_a_loop_is_an_error() {
    let runner = ThreadRunner::new();
    let [mut here, mut there] = pair(&runner, 4);
    for other in Loop::both() {
        let refused = other.bridge().run_coroutine_threadsafe(async move {
            let read = there.read(&mut [0; 4]).unwrap_err().kind();
            (read, there)
        });
        let (kind, back) = { refused }.result(LONG).unwrap();
        assert_eq!(kind, ErrorKind::Deadlock);
        there = back;
    }
    let on_its_own = runner.spawn(async move { here.write(b"a").unwrap_err().kind() });
    assert_eq!({ on_its_own }.result(LONG).unwrap(), ErrorKind::Deadlock);
}

#[test]
fn the_end_of_the_loop_releases_a_reader() {
    for runner in both() {
        let [_here, mut there] = pair(&runner, 4);
        thread::scope(|scope| {
            let reader = scope.spawn(move || there.read(&mut [0; 4]));
            while runner.bridge().unwrap().in_flight() == 0 {
                thread::yield_now();
            }
            let began = Instant::now();
            assert!(runner.close(SHORT).still_running.is_empty());
            let error = reader.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            assert!(matches!(cause(&error), ResultError::LoopClosed));
            assert!(began.elapsed() < LONG);
        });
    }
}

struct Panics;

impl AsyncRead for Panics {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        panic!("unplugged")
    }
}

#[test]
fn a_panic_of_the_stream_is_an_error_and_the_runner_lives_on() {
    let runner = ThreadRunner::new();
    let error = runner.wrap_io(Panics).unwrap().read(&mut [0; 4]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(
        matches!(cause(&error), ResultError::Panicked(panic) if panic.message() == "unplugged")
    );
    runner.run(here()).unwrap();
}

/// Loops of std that try again after `Interrupted` must not do so for ever.
#[test]
fn no_result_error_is_of_kind_interrupted() {
    let runner = ThreadRunner::new();
    let cancelled = runner.spawn(std::future::pending::<()>());
    cancelled.cancel();
    let error = io::Error::from({ cancelled }.result(LONG).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::Other);
    assert!(matches!(cause(&error), ResultError::Cancelled));
}

#[test]
fn the_stream_inside_can_be_reached_and_taken_back() {
    let runner = ThreadRunner::new();
    let [mut here, mut there] = pair(&runner, 64);
    let pieces = [io::IoSlice::new(b"one "), io::IoSlice::new(b"two")];
    let written = here.write_vectored(&pieces).unwrap();
    let mut read = vec![0; written];
    there.read_exact(&mut read).unwrap();
    assert!(!read.is_empty() && b"one two".starts_with(&read[..]), "{read:?}");
    // What is taken out is async again.
    let mut inside: DuplexStream = here.into_inner();
    runner
        .run(async move { tokio::io::AsyncWriteExt::write_all(&mut inside, b"three").await })
        .unwrap()
        .unwrap();
    let mut rest = String::new();
    there.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "three");
}
