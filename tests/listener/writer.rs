//! Async code writes to a device through the thread that owns it.

use crate::common::{LONG, SHORT, eventually};
use crate::support::*;
use callbridge::channel::Ending;
use callbridge::listener::{
    FrameSink, FrameSource, Listener, ReadSource, RequestSource, TcpSource, WriteError, inbox,
};
use rustix::fd::{AsFd, BorrowedFd};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio_util::codec::LinesCodec;

/// A source over a socket, the other end of that, and a way to write to it.
fn device(
    capacity: usize,
) -> (Listener, callbridge::FrameStream<String>, FrameSink<String>, TcpStream) {
    let (ours, theirs) = pair();
    let source = TcpSource::from_socket(ours, 1 << 20, LinesCodec::new()).unwrap();
    let mut builder = Listener::builder(source).write_timeout(LONG);
    let sink = builder.writer::<String>(capacity);
    let (listener, frames) = builder.spawn().unwrap();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    (listener, frames, sink, theirs)
}

#[tokio::test]
async fn a_device_is_written_to_while_it_is_read() {
    let (listener, mut frames, sink, theirs) = device(8);
    let device = thread::spawn(move || {
        let mut lines = BufReader::new(theirs.try_clone().unwrap()).lines();
        for n in 0..100 {
            assert_eq!(lines.next().unwrap().unwrap(), format!("ask {n}"));
            say(&theirs, &format!("answer {n}\n"));
        }
        theirs
    });
    for n in 0..100 {
        sink.send(format!("ask {n}")).await.unwrap();
        assert_eq!(frames.recv().await.unwrap(), format!("answer {n}"));
    }
    drop(device.join().unwrap());
    assert!(frames.recv().await.is_none());
    assert_eq!(frames.ending(), Some(Ending::Finished));
    assert!(listener.close(LONG).await.is_clean());
    assert!(matches!(
        sink.send("late".into()).await,
        Err(WriteError::Closed(_) | WriteError::Failed(_))
    ));
}

#[test]
fn a_queue_of_any_length_is_taken() {
    for capacity in [0, usize::MAX] {
        let (_listener, _frames, sink, _theirs) = device(capacity);
        sink.send_blocking("written".into(), LONG).unwrap();
        let (commands, inbox) = inbox::<u8>(capacity);
        drop(commands.try_send(7).unwrap());
        assert_eq!(inbox.try_recv().map(|command| *command.frame()), Some(7));
    }
}

/// The thread waits for the device, and is woken for a frame to write.
#[test]
fn a_write_doesnt_wait_for_the_device_to_speak() {
    let (ours, theirs) = pair();
    let source = TcpSource::from_socket(ours, 100, LinesCodec::new()).unwrap();
    let mut builder = Listener::builder(source).poll_timeout(LONG).name("written");
    let sink = builder.writer::<String>(1);
    let (listener, _frames) = builder.spawn().unwrap();
    #[cfg(target_os = "linux")]
    until_asleep("written");
    sink.send_blocking("now".into(), LONG / 2).unwrap();
    let mut line = String::new();
    BufReader::new(theirs).read_line(&mut line).unwrap();
    assert_eq!(line, "now\n");
    clean(&listener);
}

#[test]
fn writes_go_on_while_nobody_takes_what_is_read() {
    let (listener, mut frames, sink, theirs) = device(1);
    say(&theirs, &"unread\n".repeat(1000));
    eventually("a full channel", || frames.stats().waiting == 1);
    let mut theirs = BufReader::new(theirs);
    for n in 0..20 {
        sink.send_blocking(n.to_string(), LONG).unwrap();
        assert_eq!(hear(&mut theirs), n.to_string());
    }
    assert_eq!(next(&mut frames), "unread");
    clean(&listener);
}

#[test]
fn a_device_that_takes_nothing_is_told_apart_and_its_frames_have_their_result() {
    let (listener, mut frames, sink, theirs) = device(2);
    let big = "x".repeat(16 << 20);
    let mut accepted = Vec::new();
    let refused = loop {
        match sink.try_send(big.clone()) {
            Ok(written) => accepted.push(written),
            Err(error) => break error,
        }
        if accepted.len() > 100 {
            panic!("it takes everything");
        }
    };
    assert!(matches!(&refused, WriteError::Full(frame) if frame.len() == big.len()), "{refused:?}");
    let late = sink.send_blocking("more".into(), SHORT);
    assert!(matches!(late, Err(WriteError::Full(_) | WriteError::NotYet)), "{late:?}");
    // It reads again: all that was accepted is written.
    let reader = thread::spawn(move || read_all(theirs).len());
    for mut written in accepted.drain(..) {
        written.result(LONG).unwrap().unwrap();
    }
    clean(&listener);
    assert_eq!(end(&mut frames), Ending::Aborted);
    assert!(reader.join().unwrap() > big.len());
}

#[test]
fn a_stop_gives_frames_that_werent_written_their_error() {
    let (listener, _frames, sink, theirs) = device(64);
    let big = "x".repeat(16 << 20);
    let mut waiting: Vec<_> = (0..8).map(|_| sink.try_send(big.clone()).unwrap()).collect();
    clean(&listener);
    let failed = waiting.iter_mut().map(|written| written.result(LONG).unwrap());
    let failed = failed.filter(Result::is_err).count();
    assert!(failed >= 1, "nobody read them");
    assert!(matches!(sink.try_send("late".into()), Err(WriteError::Closed(_))));
    drop(theirs);
}

#[test]
fn a_close_writes_what_was_given_first() {
    let (listener, _frames, sink, theirs) = device(64);
    let waiting: Vec<_> = (0..50).map(|n| sink.try_send(n.to_string()).unwrap()).collect();
    let report = listener.close_blocking(LONG);
    assert!(report.is_clean(), "{report}");
    for mut written in waiting {
        written.result(LONG).unwrap().unwrap();
    }
    let expected: String = (0..50).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8(read_all(theirs)).unwrap(), expected);
}

#[test]
fn a_device_that_doesnt_read_for_too_long_is_given_up() {
    let (ours, theirs) = pair();
    let source = TcpSource::from_socket(ours, 100, LinesCodec::new()).unwrap();
    let mut builder = Listener::builder(source).write_timeout(100 * MS);
    let sink = builder.writer::<String>(8);
    let (listener, mut frames) = builder.spawn().unwrap();
    let mut written = sink.try_send("x".repeat(32 << 20)).unwrap();
    assert!(written.result(LONG).unwrap().is_err());
    assert_eq!(end(&mut frames), Ending::Failed);
    let error = frames.error().unwrap();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), ErrorKind::TimedOut);
    clean(&listener);
    drop(theirs);
}

/// Reads and writes in turns, without a descriptor: it is written to when its call returns.
#[test]
fn a_device_without_a_descriptor_is_written_to_between_its_reads() {
    struct Loopback(std::collections::VecDeque<u8>);
    impl Read for Loopback {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                thread::sleep(MS);
                return Err(ErrorKind::TimedOut.into());
            }
            self.0.read(buffer)
        }
    }
    impl Write for Loopback {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(&bytes[..bytes.len().min(3)])
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let source = ReadSource::new(Loopback(Default::default()), 100, LinesCodec::new()).unwrap();
    let mut builder = Listener::builder(source);
    let sink = builder.writer::<String>(4);
    let (listener, mut frames) = builder.spawn().unwrap();
    for n in 0..20 {
        sink.send_blocking(format!("number {n}"), LONG).unwrap();
        assert_eq!(next(&mut frames), format!("number {n}"));
    }
    clean(&listener);
}

/// What can't be encoded, or is too much for the codec, is that frame's error.
#[test]
fn a_write_error_is_that_frames_alone() {
    struct Picky(LinesCodec);
    impl tokio_util::codec::Decoder for Picky {
        type Item = String;
        type Error = tokio_util::codec::LinesCodecError;
        fn decode(&mut self, bytes: &mut bytes::BytesMut) -> Result<Option<String>, Self::Error> {
            self.0.decode(bytes)
        }
    }
    impl tokio_util::codec::Encoder<u8> for Picky {
        type Error = io::Error;
        fn encode(&mut self, byte: u8, out: &mut bytes::BytesMut) -> io::Result<()> {
            out.extend_from_slice(&[byte, b'\n']);
            if byte == b'!' { Err(io::Error::other("not that one")) } else { Ok(()) }
        }
    }
    let (ours, theirs) = pair();
    let source = TcpSource::from_socket(ours, 100, Picky(LinesCodec::new())).unwrap();
    let mut builder = Listener::builder(source);
    let sink = builder.writer::<u8>(4);
    let (listener, _frames) = builder.spawn().unwrap();
    sink.send_blocking(b'a', LONG).unwrap();
    let refused = sink.send_blocking(b'!', LONG).unwrap_err();
    assert!(matches!(refused, WriteError::Failed(_)), "{refused:?}");
    sink.send_blocking(b'b', LONG).unwrap();
    clean(&listener);
    assert_eq!(read_all(theirs), b"a\nb\n");
}

#[test]
fn a_listener_that_serves_refuses_a_writer() {
    let (_loop, bridge) = event_loop();
    let (ours, _theirs) = pair();
    let source = TcpSource::from_socket(ours, 100, LinesCodec::new()).unwrap();
    let mut builder = Listener::builder(source);
    let sink = builder.writer::<String>(1);
    let refused =
        builder.serve(&bridge, |line: String| async move { Some(line) }).spawn().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(sink.try_send("x".into()).is_err(), "nobody writes it");
}

/// What the first was given is answered for, though its sink lives on.
#[test]
fn a_writer_that_a_later_one_replaces_says_so() {
    let (ours, theirs) = pair();
    let source = TcpSource::from_socket(ours, 100, LinesCodec::new()).unwrap();
    let mut builder = Listener::builder(source);
    let first = builder.writer::<String>(2);
    let mut early = first.try_send("early".into()).unwrap();
    let second = builder.writer::<String>(1);
    let told = early.result(LONG).unwrap().unwrap_err();
    assert!(told.to_string().contains("a later writer"), "{told}");
    let (listener, _frames) = builder.spawn().unwrap();
    let refused = first.try_send("late".into()).unwrap_err();
    assert!(refused.to_string().contains("a later writer"), "{refused}");
    second.send_blocking("heard".into(), LONG).unwrap();
    assert_eq!(hear(&mut BufReader::new(theirs)), "heard");
    clean(&listener);
}

// --- a loop of one's own -----------------------------------------------------------------------

#[test]
fn a_legacy_loop_takes_commands_between_its_turns() {
    let (commands, inbox) = inbox::<u32>(4);
    let (listener, mut frames) = Listener::from_fn(move |sink| {
        while !sink.is_stopping() {
            if let Ok(command) = inbox.recv_timeout(10 * MS) {
                let square = command.frame().checked_mul(*command.frame());
                let told = square.ok_or_else(|| io::Error::other("too much"));
                if let Ok(square) = &told {
                    sink.send(*square).map_err(io::Error::other)?;
                }
                command.done(told.map(drop));
            }
        }
        Ok(())
    })
    .spawn()
    .unwrap();
    for n in 0..50 {
        commands.send_blocking(n, LONG).unwrap();
        assert_eq!(next(&mut frames), n * n);
    }
    let failed = commands.send_blocking(u32::MAX, LONG).unwrap_err();
    assert!(matches!(failed, WriteError::Failed(_)), "{failed:?}");
    clean(&listener);
    eventually("the inbox is gone", || matches!(commands.try_send(1), Err(WriteError::Closed(_))));
}

/// A loop that waits for a device in `poll` waits for its commands there, too.
#[test]
fn a_legacy_loop_can_poll_for_its_commands() {
    use rustix::event::{PollFd, PollFlags, poll};
    let (commands, inbox) = inbox::<u32>(8);
    let (listener, mut frames) = Listener::from_fn(move |sink| {
        loop {
            let bell = inbox.descriptor().unwrap();
            let mut fds = [PollFd::from_borrowed_fd(bell, PollFlags::IN)];
            poll(&mut fds, None)?;
            if let Some(command) = inbox.try_recv() {
                let n = *command.frame();
                command.done(Ok(()));
                if n == 0 {
                    return Ok(());
                }
                sink.send(n).map_err(io::Error::other)?;
            }
        }
    })
    .spawn()
    .unwrap();
    // Several at once, and one by one: none stays unseen.
    for n in 1..=5 {
        commands.try_send(n).unwrap().detach();
    }
    for n in 1..=5 {
        assert_eq!(next(&mut frames), n);
    }
    commands.send_blocking(6, LONG).unwrap();
    assert_eq!(next(&mut frames), 6);
    commands.send_blocking(0, LONG).unwrap();
    assert_eq!(end(&mut frames), Ending::Finished);
    clean(&listener);
}

#[test]
fn a_command_that_is_dropped_has_its_error() {
    let (commands, inbox) = inbox::<u32>(1);
    let mut written = commands.try_send(1).unwrap();
    assert!(matches!(commands.try_send(2), Err(WriteError::Full(2))));
    drop(inbox);
    assert!(!matches!(written.result(LONG), Ok(Ok(()))), "nobody did it");
    assert!(matches!(commands.try_send(3), Err(WriteError::Closed(3))));
    let told = commands.send_blocking(4, Duration::ZERO);
    assert!(matches!(told, Err(WriteError::Closed(4))), "{told:?}");
}

#[test]
fn a_write_error_is_an_io_error_whose_kind_tells_which() {
    let failed = || io::Error::new(ErrorKind::BrokenPipe, "unplugged");
    for (error, kind) in [
        (WriteError::Full(1), ErrorKind::WouldBlock),
        (WriteError::Closed(1), ErrorKind::NotConnected),
        (WriteError::NotYet, ErrorKind::TimedOut),
        (WriteError::Failed(failed()), ErrorKind::BrokenPipe),
    ] {
        let said = error.to_string();
        let error = io::Error::from(error);
        assert_eq!(error.kind(), kind);
        assert!(said == error.to_string() || kind == ErrorKind::BrokenPipe, "{said}: {error}");
    }
    assert_eq!(io::Error::from(WriteError::<u8>::Failed(failed())).to_string(), "unplugged");
}

/// A port whose first write fails.
struct Noisy(TcpStream, bool);

impl Read for Noisy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Noisy {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.1, true) {
            self.0.write(bytes)
        } else {
            Err(io::Error::other("noise on the line"))
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl AsFd for Noisy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn noisy() -> (ReadSource<Noisy, LinesCodec>, TcpStream) {
    let (ours, theirs) = pair();
    ours.set_nonblocking(true).unwrap();
    let source = ReadSource::new(Noisy(ours, false), 1024, LinesCodec::new()).unwrap();
    (source.polled().unwrap(), theirs)
}

#[test]
fn a_frame_whose_write_failed_isnt_written_with_the_next() {
    let (source, theirs) = noisy();
    let mut builder = Listener::builder(source);
    let sink = builder.writer::<String>(16);
    let (listener, _frames) = builder.spawn().unwrap();
    let failed = sink.send_blocking("first".into(), LONG).unwrap_err();
    assert!(matches!(failed, WriteError::Failed(_)), "{failed:?}");
    sink.send_blocking("second".into(), LONG).unwrap();
    clean(&listener);
    assert_eq!(read_all(theirs), b"second\n");
}

/// There are more of them than are staged at once.
#[test]
fn frames_behind_a_write_that_failed_are_written_or_have_its_error() {
    const SIZE: usize = 40 * 1024;
    let (source, theirs) = noisy();
    let mut builder = Listener::builder(source);
    let sink = builder.writer::<String>(16);
    // They are there before the thread is.
    let frames = (0..6).map(|n| sink.try_send(n.to_string().repeat(SIZE)).unwrap());
    let frames: Vec<_> = frames.collect();
    let (listener, _frames) = builder.spawn().unwrap();
    let reader = thread::spawn(move || read_all(theirs).len());
    let results = frames.into_iter().map(|mut frame| frame.result(10 * SECOND).unwrap());
    let written = results.filter(Result::is_ok).count();
    clean(&listener);
    assert!((1..6).contains(&written), "{written}");
    assert_eq!(reader.join().unwrap(), written * (SIZE + 1));
}

/// A device whose descriptor blocks is written to no faster than it takes, and read meanwhile.
#[test]
fn a_device_whose_descriptor_is_polled_is_written_to_while_it_is_read() {
    let (ours, theirs) = pair();
    theirs.set_read_timeout(Some(LONG)).unwrap();
    let source = ReadSource::new(ours, 1 << 20, LinesCodec::new()).unwrap().polled().unwrap();
    let mut builder = Listener::builder(source).write_timeout(LONG);
    let sink = builder.writer::<String>(1);
    let (listener, mut frames) = builder.spawn().unwrap();
    // More than the socket holds, and nobody reads yet.
    let mut written = sink.try_send("x".repeat(4 << 20)).unwrap();
    for n in 0..20 {
        (&theirs).write_all(format!("{n}\n").as_bytes()).unwrap();
        assert_eq!(next(&mut frames), n.to_string());
    }
    assert!(!written.is_done());
    let mut line = String::new();
    BufReader::new(theirs).read_line(&mut line).unwrap();
    assert_eq!(line.len(), (4 << 20) + 1);
    written.result(LONG).unwrap().unwrap();
    clean(&listener);
}

/// A peer that has ended its side and takes nothing costs no core: it is asked now and then, at most.
#[test]
fn a_peer_that_has_ended_its_side_and_doesnt_read_is_waited_for() {
    /// Writes by itself, and counts how often it is asked to.
    struct Counting(TcpStream, Arc<AtomicUsize>);
    impl FrameSource for Counting {
        type Frame = ();
        fn next_frame(&mut self) -> io::Result<Option<()>> {
            self.next_ready()
        }
        fn next_ready(&mut self) -> io::Result<Option<()>> {
            self.0.read(&mut [0; 8]).map(|read| (read > 0).then_some(()))
        }
        fn as_fd(&self) -> Option<BorrowedFd<'_>> {
            Some(self.0.as_fd())
        }
    }
    impl RequestSource<()> for Counting {
        type Address = ();
        fn address(&mut self, (): &mut ()) {}
        fn answer(&mut self, (): (), (): ()) -> io::Result<bool> {
            Ok(false)
        }
        fn flush(&mut self) -> io::Result<bool> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.write(&[0; 1 << 16]).map(|_| false)
        }
    }
    let (ours, theirs) = pair();
    ours.set_nonblocking(true).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let mut builder = Listener::builder(Counting(ours, Arc::clone(&asked)));
    let sink = builder.writer::<()>(1);
    let (listener, mut frames) = builder.spawn().unwrap();
    let mut written = sink.try_send(()).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    assert_eq!(end(&mut frames), Ending::Finished);
    // What the system takes on the peer's behalf has been written by then.
    let mut before = asked.load(Ordering::SeqCst);
    eventually("nothing more fits", || {
        thread::sleep(100 * MS);
        asked
            .load(Ordering::SeqCst)
            .abs_diff(std::mem::replace(&mut before, asked.load(Ordering::SeqCst)))
            < 20
    });
    assert!(!written.is_done());
    drop(theirs);
    assert!(written.result(LONG).unwrap().is_err());
    clean(&listener);
}

// --- much is written ---------------------------------------------------------------------------

/// How long what others may not hold up may take.
const SOON: Duration = Duration::from_secs(10);

/// Threads that keep a queue full until this is dropped.
struct Flood {
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Flood {
    fn of(sink: &FrameSink<String>, threads: usize, line: &str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let full = Arc::new(AtomicBool::new(false));
        let threads = (0..threads).map(|_| {
            let (sink, line) = (sink.clone(), line.to_owned());
            let (over, full) = (Arc::clone(&over), Arc::clone(&full));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if sink.try_send(line.clone()).is_err() {
                        full.store(true, Ordering::Relaxed);
                        thread::sleep(MS / 10); // The thread that writes needs the core.
                    }
                }
            })
        });
        let flood = Flood { threads: threads.collect(), over };
        eventually("a full queue", || full.load(Ordering::Relaxed));
        flood
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// A line whose reads and writes take a while, and never refuse. A write takes long enough that the queue is full
/// again behind it.
struct Serial;

impl Read for Serial {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        thread::sleep(MS);
        (&b"r\n"[..]).read(buffer)
    }
}

impl Write for Serial {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        thread::sleep(5 * MS);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn flooded() -> (Listener, callbridge::FrameStream<String>, Flood) {
    let source = ReadSource::new(Serial, 100, LinesCodec::new()).unwrap();
    let mut builder = Listener::builder(source).capacity(1);
    let sink = builder.writer::<String>(64);
    let (listener, mut frames) = builder.spawn().unwrap();
    next(&mut frames);
    let flood = Flood::of(&sink, 2, "x");
    (listener, frames, flood)
}

#[test]
fn a_device_is_read_while_much_is_written() {
    let (_listener, mut frames, _flood) = flooded();
    for _ in 0..6 {
        assert_eq!(frames.recv_blocking(SOON).unwrap(), "r");
    }
}

#[test]
fn a_close_ends_a_listener_to_which_much_is_written() {
    let (listener, mut frames, _flood) = flooded();
    let reader = thread::spawn(move || while frames.recv_blocking(LONG).is_ok() {});
    let report = listener.close_blocking(SOON);
    assert!(report.is_clean(), "{report}");
    reader.join().unwrap();
}

/// The device takes less at a time than is at hand.
#[test]
fn who_sent_a_frame_hears_of_it_although_others_go_on_sending() {
    let (ours, mut theirs) = pair();
    socket2::SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
    socket2::SockRef::from(&theirs).set_recv_buffer_size(4096).unwrap();
    let source = ReadSource::new(ours, 100, LinesCodec::new()).unwrap().polled().unwrap();
    let mut builder = Listener::builder(source);
    let sink = builder.writer::<String>(64);
    let (listener, _frames) = builder.spawn().unwrap();
    let reader = thread::spawn(move || {
        while let Ok(1..) = theirs.read(&mut [0; 2000]) {
            thread::sleep(MS);
        }
    });
    let flood = Flood::of(&sink, 1, &"x".repeat(100));
    let mut written = loop {
        if let Ok(written) = sink.try_send("mine".into()) {
            break written;
        }
    };
    let heard = written.result(SOON);
    drop(flood);
    assert!(matches!(heard, Ok(Ok(()))), "{heard:?}");
    clean(&listener);
    drop(listener);
    reader.join().unwrap();
}
