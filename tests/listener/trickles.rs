//! Bytes that keep coming and make no frame: they hold up nothing, and end in time.

use crate::common::LONG;
use crate::support::*;
use bytes::{Buf, BytesMut};
use callbridge::listener::{Listener, ReadSource, Request, UnixServer};
use std::io::{self, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::codec::{Decoder, Encoder, LinesCodec, LinesCodecError};

/// How long what is due at once may take.
const SOON: Duration = Duration::from_secs(10);

// --- heartbeats --------------------------------------------------------------------------------

/// Dots make no frames.
struct Dots;

impl Decoder for Dots {
    type Item = BytesMut;
    type Error = io::Error;
    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        let dots = bytes.iter().take_while(|byte| **byte == b'.').count();
        bytes.advance(dots);
        Ok((!bytes.is_empty()).then(|| bytes.split()))
    }
}

impl Encoder<BytesMut> for Dots {
    type Error = io::Error;
    fn encode(&mut self, frame: BytesMut, bytes: &mut BytesMut) -> io::Result<()> {
        bytes.extend_from_slice(&frame);
        Ok(())
    }
}

/// A line on which a heartbeat comes every now and then, and nothing else.
struct Beating(mpsc::Sender<()>);

impl Read for Beating {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        thread::sleep(10 * MS);
        let _nobody_counts = self.0.send(());
        (&b"."[..]).read(buffer)
    }
}

impl Write for Beating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn beating() -> (ReadSource<Beating, Dots>, mpsc::Receiver<()>) {
    let (beats, beat) = mpsc::channel();
    (ReadSource::new(Beating(beats), 100, Dots).unwrap(), beat)
}

#[test]
fn heartbeats_hold_up_no_write() {
    let (source, beat) = beating();
    let mut builder = Listener::builder(source);
    let sink = builder.writer::<BytesMut>(4);
    let (_listener, _frames) = builder.spawn().unwrap();
    assert_eq!(beat.iter().take(2).count(), 2);
    sink.send_blocking(BytesMut::from("now"), SOON).unwrap();
}

#[test]
fn heartbeats_hold_up_no_stop() {
    let (source, beat) = beating();
    let (listener, _frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!(beat.iter().take(2).count(), 2);
    listener.stop();
    let report = listener.close_blocking(SOON);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn heartbeats_hold_up_no_word_of_silence() {
    let (source, _beat) = beating();
    let (tell, quiet) = mpsc::channel();
    let builder = Listener::builder(source).quiet_after(100 * MS, move || tell.send(()).unwrap());
    let (_listener, _frames) = builder.spawn().unwrap();
    assert_eq!(quiet.recv_timeout(SOON), Ok(()));
}

// --- a frame that comes byte by byte -----------------------------------------------------------

/// A peer that speaks fast, so that the source waits by itself, then byte by byte; whether it was cut off.
fn trickle(addr: SocketAddr) -> thread::JoinHandle<bool> {
    let mut client = talk(addr);
    for _ in 0..10 {
        say(client.get_ref(), "fast\n");
        assert_eq!(hear(&mut client), "fast");
    }
    let mut client = client.into_inner();
    client.set_nodelay(true).unwrap();
    let mut byte = move || {
        // A gap of 10 ms would end the source's own wait, and a sleep may take that long.
        let next = Instant::now() + MS;
        while Instant::now() < next {
            std::hint::spin_loop();
        }
        client.write_all(b"x")
    };
    (0..100).for_each(|_| byte().unwrap());
    let end = Instant::now() + SOON;
    thread::spawn(move || {
        while Instant::now() < end {
            if byte().is_err() {
                return true;
            }
        }
        false
    })
}

#[test]
fn a_trickle_of_one_frame_holds_up_no_stop() {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(1 << 20);
    let echo = |request: Request<String>| async move { Some(request.frame) };
    let listener = Listener::builder(server).serve(&bridge, echo).spawn().unwrap();
    let client = trickle(addr);
    listener.stop();
    let report = listener.close_blocking(SOON / 2);
    assert!(report.is_clean(), "{report}");
    assert!(client.join().unwrap());
}

#[test]
fn a_trickle_of_one_frame_ends_in_time() {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(1 << 20);
    let server = server.with_frame_timeout(200 * MS).with_linger(100 * MS);
    let echo = |request: Request<String>| async move { Some(request.frame) };
    let listener = Listener::builder(server).serve(&bridge, echo).spawn().unwrap();
    let client = trickle(addr);
    assert!(client.join().unwrap(), "{:?}", listener.stats());
    clean(&listener);
}

// --- decoders that take their time -------------------------------------------------------------

/// Makes no frame of anything.
struct Slow(mpsc::Sender<()>);

impl Decoder for Slow {
    type Item = BytesMut;
    type Error = io::Error;
    fn decode(&mut self, bytes: &mut BytesMut) -> io::Result<Option<BytesMut>> {
        let _nobody_counts = self.0.send(());
        thread::sleep(5 * MS);
        bytes.clear();
        Ok(None)
    }
}

#[test]
fn a_flood_that_makes_no_frame_holds_up_no_stop() {
    let path = scratch("flood-no-frame");
    let (decodes, decoded) = mpsc::channel();
    let server = UnixServer::bind(&path.0, 1024, move || Slow(decodes.clone())).unwrap();
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = UnixStream::connect(&path.0).unwrap();
    let _connection = next(&mut connections);
    let flood = thread::spawn(move || while client.write_all(&[b'.'; 256 * 1024]).is_ok() {});
    assert_eq!(decoded.iter().take(20).count(), 20);
    listener.stop();
    let report = listener.close_blocking(SOON);
    assert!(report.is_clean(), "{report}");
    flood.join().unwrap();
}

/// Lines, of which the blank ones make no frame, and take their time.
struct Unhurried(LinesCodec);

impl Decoder for Unhurried {
    type Item = String;
    type Error = LinesCodecError;
    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<String>, LinesCodecError> {
        while bytes.starts_with(b"\n") {
            thread::sleep(5 * MS);
            bytes.advance(1);
        }
        self.0.decode(bytes)
    }
}

/// Its descriptor tells nothing of what is in its own buffer, which it gives away byte by byte.
struct Session(BufReader<UnixStream>);

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let some = buffer.len().min(1);
        self.0.read(&mut buffer[..some])
    }
}

#[test]
fn what_a_session_has_behind_much_that_makes_no_frame_is_read_at_once() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let source = ReadSource::new(Session(BufReader::new(ours)), 100, Unhurried(LinesCodec::new()));
    let source = source.unwrap().polled_by(|session| session.0.get_ref().as_fd()).unwrap();
    let (listener, mut frames) = Listener::builder(source).poll_timeout(LONG).spawn().unwrap();
    let said = "\n".repeat(40) + "hello\n";
    theirs.write_all(said.as_bytes()).unwrap();
    assert_eq!(frames.recv_blocking(SOON).unwrap(), "hello");
    clean(&listener);
}
