//! Readers: pipes, ttys and devices that wait, or don't, or are noisy.

use crate::common::{LONG, eventually, in_parallel};
use crate::support::*;
use bytes::BytesMut;
use callbridge::channel::Ending;
use callbridge::listener::{BadFrames, Interrupter, Listener, ReadSource};
#[cfg(feature = "testing")]
use callbridge::testing::script;
use rustix::fd::{AsFd, BorrowedFd};
#[cfg(target_os = "linux")]
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Cursor, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::codec::{Decoder, LengthDelimitedCodec, LinesCodec, LinesCodecError};

/// A device that never waits: it says at once that there is nothing.
struct Impatient {
    says: ErrorKind,
    reads: Arc<AtomicU64>,
}

impl Read for Impatient {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Err(self.says.into())
    }
}

/// A serial port whose read timeout is zero, and a device file that was opened without blocking.
#[cfg(target_os = "linux")]
#[test]
fn a_device_that_says_at_once_that_there_is_nothing_costs_no_core() {
    let devices =
        [(ErrorKind::TimedOut, "at-once-timeout"), (ErrorKind::WouldBlock, "at-once-block")];
    in_parallel(devices, |(says, name)| {
        let reads = Arc::new(AtomicU64::new(0));
        let device = Impatient { says, reads: Arc::clone(&reads) };
        let source = ReadSource::new(device, 1024, LinesCodec::new()).unwrap();
        let (listener, _lines) = Listener::builder(source).name(name).spawn().unwrap();
        let percent = percent_of_a_core(name);
        assert!(percent < 10, "{percent} % of a core, {} reads", reads.load(Ordering::Relaxed));
        clean(&listener);
    });
}

#[test]
fn an_idle_reader_costs_no_core_whether_it_blocks_or_not() {
    let readers = [
        (true, false, "idle-nonblock"),
        (true, true, "idle-nb-polled"),
        (false, true, "idle-polled"),
    ];
    in_parallel(readers, |(nonblocking, polled, name)| {
        let (ours, mut theirs) = pair();
        ours.set_nonblocking(nonblocking).unwrap();
        let mut source = ReadSource::new(ours, 1024, LinesCodec::new()).unwrap();
        if polled {
            source = source.polled().unwrap();
        }
        let (listener, mut frames) = Listener::builder(source).name(name).spawn().unwrap();
        theirs.write_all(b"hello\n").unwrap();
        assert_eq!(next(&mut frames), "hello");
        #[cfg(target_os = "linux")]
        {
            let percent = percent_of_a_core(name);
            assert!(percent < 10, "{name}: {percent} % of a core in silence");
        }
        theirs.write_all(b"awake\n").unwrap();
        assert_eq!(next(&mut frames), "awake");
        clean(&listener);
    });
}

/// A pipe that nothing comes from can be stopped, since its descriptor is waited for.
#[cfg(unix)]
#[test]
fn a_polled_pipe_is_stopped_while_its_writer_is_silent() {
    let (reader, mut writer) = os_pipe::pipe().unwrap();
    let source = ReadSource::new(reader, 1024, LinesCodec::new()).unwrap().polled().unwrap();
    let (listener, mut frames) = Listener::builder(source).poll_timeout(LONG).spawn().unwrap();
    writer.write_all(b"one\nhal").unwrap();
    assert_eq!(next(&mut frames), "one");
    clean(&listener);
    assert_eq!(end(&mut frames), Ending::Aborted);

    // And read to its end.
    let (reader, mut writer) = os_pipe::pipe().unwrap();
    let source = ReadSource::new(reader, 1024, LinesCodec::new()).unwrap().polled().unwrap();
    let (_listener, mut frames) = Listener::builder(source).spawn().unwrap();
    writer.write_all(b"one\ntwo").unwrap();
    drop(writer);
    assert_eq!([next(&mut frames), next(&mut frames)], ["one", "two"]);
    assert_eq!(end(&mut frames), Ending::Finished);
}

/// A tty with VMIN=0 reads nothing when nothing came in time: that isn't the end.
#[cfg(feature = "testing")]
#[test]
fn a_read_of_no_bytes_can_be_a_read_of_nothing() {
    let device = || {
        let (device, script) = script::<&[u8]>();
        script.frame(b"one\n").frame(b"").frame(b"").frame(b"two\n");
        script.fail(ErrorKind::BrokenPipe.into());
        device
    };
    let source = ReadSource::new(device(), 1024, LinesCodec::new()).unwrap().with_empty_reads();
    let (_listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!([next(&mut frames), next(&mut frames)], ["one", "two"]);
    assert_eq!(end(&mut frames), Ending::Failed, "its own error");

    let source = ReadSource::new(device(), 1024, LinesCodec::new()).unwrap();
    let (_listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!(next(&mut frames), "one");
    assert_eq!(end(&mut frames), Ending::Finished);
}

// --- noise -------------------------------------------------------------------------------------

#[test]
fn noise_can_be_left_out_and_is_counted() {
    let noisy = || Cursor::new(b"\xFFa\ntemp 21\n\xFE\xFD\ntemp 22\n".to_vec());
    let source = ReadSource::new(noisy(), 1024, LinesCodec::new()).unwrap();
    let (listener, mut frames) =
        Listener::builder(source.with_bad_frames(BadFrames::Skip)).spawn().unwrap();
    assert_eq!([next(&mut frames), next(&mut frames)], ["temp 21", "temp 22"]);
    assert_eq!(end(&mut frames), Ending::Finished);
    let stats = clean(&listener);
    assert_eq!((stats.source.skipped, stats.decode_errors), (2, 0));

    // As it comes, it ends the stream.
    let source = ReadSource::new(noisy(), 1024, LinesCodec::new()).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!(end(&mut frames), Ending::Failed);
    assert_eq!(clean(&listener).decode_errors, 1);
}

#[test]
fn a_frame_that_is_too_long_can_be_left_out() {
    for chunk in [1, 7, 40] {
        let mut bytes = vec![b'x'; 3000];
        bytes.extend_from_slice(b"\nok\n");
        let mut pieces = bytes.chunks(chunk).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter();
        let reader = move |buffer: &mut [u8]| -> io::Result<usize> {
            let Some(piece) = pieces.next() else { return Ok(0) };
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        };
        let codec = LinesCodec::new_with_max_length(50);
        let source = ReadSource::new(ReadFn(reader), 100, codec).unwrap();
        let (listener, mut frames) =
            Listener::builder(source.with_bad_frames(BadFrames::Skip)).spawn().unwrap();
        let mut lines = Vec::new();
        while let Ok(line) = frames.recv_blocking(LONG) {
            lines.push(line);
        }
        assert_eq!(lines.last().map(String::as_str), Some("ok"), "{chunk}: {lines:?}");
        assert!(clean(&listener).source.skipped >= 1);
    }
}

/// The source's own limit can't be got over, since the decoder has its place in the bytes.
#[test]
fn a_frame_without_end_fails_though_bad_frames_are_left_out() {
    let device = Trickle(Cursor::new(vec![b'x'; 3000]));
    let source = ReadSource::new(device, 100, LinesCodec::new()).unwrap();
    let (listener, mut frames) =
        Listener::builder(source.with_bad_frames(BadFrames::Skip)).spawn().unwrap();
    assert_eq!(end(&mut frames), Ending::Failed);
    assert_eq!(clean(&listener).decode_errors, 1);
}

struct ReadFn<F>(F);

impl<F: FnMut(&mut [u8]) -> io::Result<usize>> Read for ReadFn<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.0)(buffer)
    }
}

/// Bytes of which no two make a frame end nothing, and no loop.
#[test]
fn nothing_but_noise_comes_to_its_end() {
    let noise: Vec<u8> =
        (0..20_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let codec = LengthDelimitedCodec::builder().max_frame_length(32).new_codec();
    let source = ReadSource::new(Cursor::new(noise), 64, codec).unwrap();
    let (listener, mut frames) =
        Listener::builder(source.with_bad_frames(BadFrames::Skip)).spawn().unwrap();
    while frames.recv_blocking(LONG).is_ok() {}
    assert_eq!(frames.ending(), Some(Ending::Finished));
    assert!(clean(&listener).source.skipped > 0);
}

// --- heartbeats --------------------------------------------------------------------------------

/// Lines; an empty one is a heartbeat and makes no frame.
struct Heartbeats(LinesCodec);

impl Decoder for Heartbeats {
    type Item = String;
    type Error = LinesCodecError;
    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<String>, LinesCodecError> {
        loop {
            match self.0.decode(bytes)? {
                Some(line) if line.is_empty() => {}
                other => return Ok(other),
            }
        }
    }
}

/// A device whose bytes come one by one.
struct Trickle(Cursor<Vec<u8>>);

impl Read for Trickle {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(&mut bytes[..1])
    }
}

#[test]
fn heartbeats_that_a_decoder_takes_dont_make_the_next_frame_too_long() {
    let device = Trickle(Cursor::new([&b"\n".repeat(100)[..], b"21\n"].concat()));
    let source = ReadSource::new(device, 16, Heartbeats(LinesCodec::new())).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!(next(&mut frames), "21");
    assert_eq!(end(&mut frames), Ending::Finished);
    clean(&listener);
}

#[test]
fn a_peer_that_leaves_after_a_heartbeat_left_between_frames() {
    let device = Cursor::new(b"21\n\n".to_vec());
    let source = ReadSource::new(device, 16, Heartbeats(LinesCodec::new())).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!(next(&mut frames), "21");
    assert_eq!(end(&mut frames), Ending::Finished);
    assert_eq!(clean(&listener).decode_errors, 0);
}

// --- what was read and not decoded -------------------------------------------------------------

/// What the consumer doesn't get is counted, also what lay in the decoder's buffer.
#[cfg(unix)]
#[test]
fn lines_that_were_read_and_never_decoded_are_counted() {
    for drains in [false, true] {
        let (reader, mut writer) = os_pipe::pipe().unwrap();
        let lines: String = (0..1000).map(|n| format!("{n}\n")).collect();
        writer.write_all(lines.as_bytes()).unwrap();
        // A close reaches it also if all has been taken before.
        let source = ReadSource::new(reader, 1024, LinesCodec::new()).unwrap().polled().unwrap();
        let (listener, mut frames) = Listener::builder(source).capacity(4).spawn().unwrap();
        for n in 0..2 {
            assert_eq!(next(&mut frames), n.to_string());
        }
        eventually("the thread waits for room", || frames.stats().waiting == 1);
        if drains {
            // All that was read is delivered.
            let close = std::thread::spawn(move || listener.close_blocking(LONG));
            for n in 2..1000 {
                assert_eq!(next(&mut frames), n.to_string());
            }
            assert_eq!(end(&mut frames), Ending::Aborted);
            assert!(close.join().unwrap().is_clean());
        } else {
            clean(&listener);
            while frames.recv_blocking(LONG).is_ok() {}
        }
        let stats = frames.stats();
        assert!(stats.balances(), "{stats:?}");
        assert_eq!(stats.delivered + stats.lost.total() + stats.refused, 1000, "{stats:?}");
        assert_eq!(drains, stats.lost.total() == 0);
        drop(writer);
    }
}

/// An interrupter ends a blocking reader, whatever that makes of it.
#[test]
fn an_interrupter_ends_a_reader_that_blocks() {
    let (ours, _theirs) = pair();
    let handle = ours.try_clone().unwrap();
    let source = ReadSource::new(ours, 100, LinesCodec::new()).unwrap().with_interrupter(
        Interrupter::new(move || drop(handle.shutdown(std::net::Shutdown::Both))),
    );
    let (listener, mut frames) = Listener::builder(source).poll_timeout(LONG).spawn().unwrap();
    clean(&listener);
    assert_eq!(end(&mut frames), Ending::Aborted);
}

// --- what is written ---------------------------------------------------------------------------

/// Gathers what is written until it is flushed.
struct Gathering(TcpStream, BufWriter<TcpStream>);

impl Read for Gathering {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Gathering {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.1.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

impl AsFd for Gathering {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[test]
fn a_writer_that_gathers_is_flushed_also_where_it_blocks() {
    let (_loop, bridge) = event_loop();
    let (ours, theirs) = pair();
    let device = Gathering(ours.try_clone().unwrap(), BufWriter::new(ours));
    let source = ReadSource::new(device, 1024, LinesCodec::new()).unwrap().polled().unwrap();
    let echo = |line: String| async move { Some(line) };
    let listener = Listener::builder(source).serve(&bridge, echo).spawn().unwrap();
    theirs.set_read_timeout(Some(10 * SECOND)).unwrap();
    say(&theirs, "hello\n");
    assert_eq!(hear(&mut BufReader::new(theirs)), "hello");
    clean(&listener);
}

/// It counts as writable as soon as it takes a byte. Where there is room for little in the end depends on
/// the piece that comes first behind what its line discipline holds: 4 KiB.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_that_takes_no_more_doesnt_hold_a_stop_up() {
    use rustix::fs::{Mode, OFlags, open};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    in_parallel([4100, 4150, 4200, 4300], |size| {
        let (_loop, bridge) = event_loop();
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let port = ptsname(&ours, Vec::new()).unwrap();
        let port = open(port, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let source = ReadSource::new(File::from(port), 1024, LinesCodec::new()).unwrap();
        let listener = Listener::builder(source.polled().unwrap())
            .serve(&bridge, |size: String| async move { Some("x".repeat(size.parse().unwrap())) })
            .spawn()
            .unwrap();
        let mut ours = File::from(ours);
        ours.write_all(format!("{size}\n").as_bytes()).unwrap();
        wait_for(&listener, |stats| stats.replies == 1);
        ours.write_all(b"100000\n").unwrap();
        // Nothing tells when the terminal has taken all that it takes.
        std::thread::sleep(200 * MS);
        listener.stop();
        let report = listener.close_blocking(10 * SECOND);
        drop(ours);
        assert!(report.is_clean(), "{size}: {report}");
    });
}
