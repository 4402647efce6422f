//! A connection of a server, from both ends at once: whatever its peer sends and its holder does, the
//! frames come in order, what was flushed arrives, and it ends as it should.

use super::Script;
use bytes::{Bytes, BytesMut};
use callbridge::FrameStream;
use callbridge::channel::{Ending, RecvError};
use callbridge::listener::{Connection, Listener, TcpServer};
use futures_sink::Sink;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio_util::codec::{Decoder, LengthDelimitedCodec};

const PATIENCE: Duration = Duration::from_secs(30);
const MAX_FRAME: usize = 64;

fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME).new_codec()
}

fn framed(len: usize, fill: u8) -> Vec<u8> {
    let mut frame = (len as u32).to_be_bytes().to_vec();
    frame.resize(4 + len, fill);
    frame
}

/// The result of a poll of the sink's, which must not hang.
fn done<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Poll::Ready(result) = poll(&mut Context::from_waker(Waker::noop())) {
            return result;
        }
        assert!(Instant::now() < deadline, "the sink hangs");
        std::thread::yield_now();
    }
}

/// What the peer has sent, decoded in one piece.
struct Paper {
    codec: LengthDelimitedCodec,
    rest: BytesMut,
    due: VecDeque<BytesMut>,
    decoded: u64,
    /// Bytes that came and are of no whole frame: also a header that the codec has taken.
    inside: usize,
    broken: bool,
}

impl Paper {
    fn take(&mut self, bytes: &[u8], last: bool) {
        self.rest.extend_from_slice(bytes);
        self.inside += bytes.len();
        while !self.broken {
            let decode = if last { Decoder::decode_eof } else { Decoder::decode };
            match decode(&mut self.codec, &mut self.rest) {
                Ok(Some(frame)) => {
                    self.decoded += 1;
                    self.inside -= 4 + frame.len();
                    self.due.push_back(frame);
                }
                Ok(None) => {
                    self.broken = last && self.inside > 0;
                    return;
                }
                Err(_) => self.broken = true,
            }
        }
    }
}

struct Ends {
    client: TcpStream,
    connection: Connection<LengthDelimitedCodec>,
    paper: Paper,
    /// The peer has said all.
    said: bool,
    /// Fed and not flushed: the bytes, and of how many frames.
    fed: (Vec<u8>, u64),
    /// Flushed, and not read by the peer.
    flushed: Vec<u8>,
    /// The sink is closed.
    shut: bool,
}

impl Ends {
    fn sink(&mut self) -> Pin<&mut (impl Sink<Bytes, Error = io::Error> + use<>)> {
        Pin::new(&mut self.connection)
    }

    fn say(&mut self, bytes: &[u8]) {
        if !self.said {
            let sent = self.client.write_all(bytes);
            assert!(sent.is_ok() || self.paper.broken, "{sent:?}");
            self.paper.take(bytes, false);
        }
    }

    fn say_no_more(&mut self) {
        if !self.said {
            let _ = self.client.shutdown(Shutdown::Write);
            self.said = true;
            self.paper.take(&[], true);
        }
    }

    /// Takes what is due, if anything is.
    fn receive(&mut self) {
        let frames = self.connection.frames();
        match self.paper.due.pop_front() {
            Some(frame) => assert_eq!(frames.recv_blocking(PATIENCE), Ok(frame)),
            None if self.paper.broken => self.ends_with(Ending::Failed),
            None if self.said => self.ends_with(Ending::Finished),
            None => assert_eq!(frames.try_recv(), Err(RecvError::Empty)),
        }
    }

    fn ends_with(&mut self, ending: Ending) {
        let frames = self.connection.frames();
        assert_eq!(frames.recv_blocking(PATIENCE), Err(RecvError::Ended));
        assert_eq!(frames.ending(), Some(ending));
    }

    fn feed(&mut self, len: usize, fill: u8) {
        if self.shut {
            return;
        }
        let frame = framed(len, fill);
        let mut taken = done(|cx| self.sink().poll_ready(cx));
        if taken.is_ok() {
            taken = self.sink().start_send(Bytes::from(frame[4..].to_vec()));
        }
        assert!(taken.is_ok() || self.paper.broken, "{taken:?}");
        if taken.is_ok() {
            self.fed.0.extend(frame);
            self.fed.1 += 1;
        }
    }

    fn flush(&mut self) {
        if self.shut {
            return;
        }
        let flushed = done(|cx| self.sink().poll_flush(cx));
        assert!(flushed.is_ok() || self.paper.broken, "{flushed:?}");
        self.flushed.append(&mut self.fed.0);
        self.fed.1 = 0;
    }

    fn shut_down(&mut self) {
        if self.shut {
            return;
        }
        let closed = done(|cx| self.sink().poll_close(cx));
        assert!(closed.is_ok() || self.paper.broken, "{closed:?}");
        self.flushed.append(&mut self.fed.0);
        (self.fed.1, self.shut) = (0, true);
    }

    /// The peer reads what was flushed.
    fn hear(&mut self) {
        if self.paper.broken {
            return;
        }
        let mut heard = vec![0; self.flushed.len()];
        self.client.read_exact(&mut heard).unwrap();
        assert_eq!(heard, std::mem::take(&mut self.flushed));
    }
}

/// The peer reads to the end, which must be where what was flushed ends.
fn hear_the_end(mut client: TcpStream, flushed: &[u8], broken: bool) {
    let mut heard = Vec::new();
    match client.read_to_end(&mut heard) {
        Ok(_) if !broken => assert_eq!(heard, flushed),
        Ok(_) => assert!(flushed.starts_with(&heard)),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "the server hangs: {error}");
            assert!(broken, "a well-framed connection was reset");
        }
    }
}

fn start(capacity: usize) -> (Listener, FrameStream<Connection<LengthDelimitedCodec>>, TcpStream) {
    let server = TcpServer::bind("127.0.0.1:0", MAX_FRAME + 4, codec).unwrap();
    let addr = server.local_addr().unwrap();
    let server = server.with_connection_capacity(capacity).with_write_buffer(100);
    let (listener, connections) = Listener::builder(server).spawn().unwrap();
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_nodelay(true).unwrap();
    (listener, connections, client)
}

pub fn check(input: &[u8]) {
    let mut script = Script::new(input);
    let (listener, mut connections, client) = start(1 + usize::from(script.byte() % 4));
    let connection = connections.recv_blocking(PATIENCE).unwrap();
    let paper = Paper {
        codec: codec(),
        rest: BytesMut::new(),
        due: VecDeque::new(),
        decoded: 0,
        inside: 0,
        broken: false,
    };
    let (fed, flushed) = ((Vec::new(), 0), Vec::new());
    let mut ends = Ends { client, connection, paper, said: false, fed, flushed, shut: false };
    let (mut closed, mut dropped) = (false, false);
    while let Some(step) = script.next() {
        match step % 16 {
            0..4 => ends.say(&framed(usize::from(script.byte()) % (MAX_FRAME + 1), step)),
            4 => {
                let bytes: Vec<u8> = (0..script.byte() % 8).map(|_| script.byte()).collect();
                ends.say(&bytes);
            }
            5..9 => ends.receive(),
            9 | 10 => ends.feed(usize::from(script.byte()) % (MAX_FRAME + 1), step),
            11 => ends.flush(),
            12 => ends.hear(),
            13 => ends.say_no_more(),
            14 => ends.shut_down(),
            _ => {
                (closed, dropped) = (true, script.byte() % 2 == 0);
                break;
            }
        }
    }
    let Ends { ref paper, fed: (_, unflushed), .. } = ends;
    let whole = !paper.broken;
    if dropped {
        let Ends { client, connection, flushed, .. } = ends;
        drop(connection);
        let _ = client.shutdown(Shutdown::Write);
        hear_the_end(client, &flushed, !whole);
        let stats = end(&listener);
        assert!(!whole || stats.replies_lost == unflushed, "{stats:?}");
        return;
    }
    if closed {
        ends.connection.handle().close();
        let _ = ends.client.shutdown(Shutdown::Write);
        // What had been read by then still comes.
        while let Ok(frame) = ends.connection.frames().recv_blocking(PATIENCE) {
            assert_eq!(Some(frame), ends.paper.due.pop_front());
        }
        assert!(ends.connection.frames().ending().is_some(), "it hangs");
        hear_the_end(ends.client, &ends.flushed, !whole);
        drop(ends.connection);
        end(&listener);
        return;
    }
    ends.say_no_more();
    let decoded = ends.paper.decoded;
    while !ends.paper.due.is_empty() {
        ends.receive();
    }
    ends.receive();
    ends.shut_down();
    hear_the_end(ends.client, &ends.flushed, ends.paper.broken);
    drop(ends.connection);
    let stats = end(&listener);
    assert_eq!((stats.accepted, stats.frames), (1, decoded), "{stats:?}");
    assert_eq!(stats.decode_errors, u64::from(ends.paper.broken), "{stats:?}");
    assert!(ends.paper.broken || stats.replies_lost == 0, "{stats:?}");
}

/// Stops the listener; what it counts.
fn end(listener: &Listener) -> callbridge::listener::ListenerStats {
    let report = listener.close_blocking(PATIENCE);
    assert!(report.is_clean() && report.stats.open == 0, "{report}");
    report.stats
}
