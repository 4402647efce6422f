//! Sources and streams: what comes in, what bad input gets, what becomes of frames at the end.

use bytes::{Bytes, BytesMut};
use callbridge::channel::{self, BuildError};
use callbridge::listener::{
    Datagram, DatagramSource, FrameError, FrameSource, Interrupter, Listener, ReadSource,
    TcpSource, UdpSource,
};
use callbridge::{Ending, FrameStream, LossReason, Overflow, RecvBlockingError};
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use tokio_util::codec::{AnyDelimiterCodec, Decoder, LengthDelimitedCodec, LinesCodec};
use tokio_util::sync::CancellationToken;

/// No wait in these tests takes nearly as long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

fn next<T>(frames: &mut FrameStream<T>) -> T {
    frames.recv_blocking(PATIENCE).expect("a frame is on its way")
}

fn end<T>(frames: &mut FrameStream<T>) -> Ending {
    assert_eq!(frames.recv_blocking(PATIENCE).err(), Some(RecvBlockingError::Ended));
    frames.ending().expect("it has ended")
}

fn udp() -> (UdpSource, UdpSocket) {
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(source.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (source, client)
}

fn clean(listener: &Listener) {
    let report = listener.shutdown_blocking(PATIENCE);
    assert!(report.is_clean() && !report.would_deadlock, "{report}");
}

/// Yields what the closure returns.
struct FromFn<F>(F);

impl<T: Send + 'static, F> FrameSource for FromFn<F>
where
    F: FnMut() -> io::Result<Option<T>> + Send + 'static,
{
    type Frame = T;
    fn next_frame(&mut self) -> io::Result<Option<T>> {
        (self.0)()
    }
}

// --- FrameSource -------------------------------------------------------------------------------

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

#[test]
fn ticks_are_not_errors() {
    let mut ticks =
        [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted].into_iter();
    let source =
        FromFn(move || ticks.next().map_or(Ok(Some("after the ticks")), |k| Err(k.into())));
    let (_listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!(next(&mut frames), "after the ticks");
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
    next_owner.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(next_owner.recv(&mut [0; 8]).unwrap(), 5);
}

// --- UDP ---------------------------------------------------------------------------------------

#[test]
fn datagrams_of_every_size_arrive_whole_with_their_peer() {
    let (source, client) = udp();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    for size in [0, 1, 2, 1200, 1500, 9000, 65_506, 65_507] {
        let sent = vec![size as u8; size];
        client.send(&sent).unwrap();
        let Datagram { payload, peer, truncated, .. } = next(&mut frames);
        assert_eq!((&payload[..], truncated), (&sent[..], false));
        assert_eq!(peer, client.local_addr().unwrap());
    }
    clean(&listener);
}

#[test]
fn a_datagram_over_the_limit_is_cut_off_flagged_and_counted() {
    let (source, client) = udp();
    let source = source.with_max_datagram(4).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    for (sent, received, cut) in
        [("123", "123", false), ("1234", "1234", false), ("12345", "1234", true)]
    {
        client.send(sent.as_bytes()).unwrap();
        let datagram = next(&mut frames);
        assert_eq!((&datagram.payload[..], datagram.truncated), (received.as_bytes(), cut));
    }
    clean(&listener);
    assert_eq!(listener.stats().source.truncated, 1, "readable after the stop, too");
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_kernel_drops_is_told() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    socket2::SockRef::from(&socket).set_recv_buffer_size(4096).unwrap();
    let source = UdpSource::from_socket(socket).unwrap();
    let (listener, frames) = Listener::builder(source).capacity(1).spawn().unwrap();
    assert_eq!(listener.stats().source.kernel_drops, Some(0));
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..100 {
        client.send_to(&[0; 1000], addr).unwrap();
    }
    let dropped = listener.stats().source.kernel_drops.unwrap();
    assert!((1..100).contains(&dropped), "{dropped}");
    clean(&listener);
    assert_eq!(listener.stats().source.kernel_drops, Some(dropped), "the last reading stays");
    drop(frames);
}

#[test]
fn a_replier_answers_from_the_stream_side_until_the_stop() {
    let (source, client) = udp();
    let replier = source.replier();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    client.send(b"ping").unwrap();
    let peer = next(&mut frames).peer;
    replier.send_to(b"pong", &peer).unwrap();
    let mut answer = [0; 8];
    assert_eq!(client.recv(&mut answer).unwrap(), 4);
    clean(&listener);
    assert_eq!(replier.send_to(b"late", &peer).unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn an_injected_socket_keeps_its_settings() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let other_handle = socket.try_clone().unwrap();
    let size = other_handle.recv_buffer_size().unwrap();
    let source = UdpSource::from_socket(socket).unwrap();
    let addr = source.local_addr().unwrap();
    assert_ne!(addr.port(), 0);
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hi", addr).unwrap();
    assert_eq!(&next(&mut frames).payload[..], b"hi");
    assert_eq!(other_handle.recv_buffer_size().unwrap(), size);
    clean(&listener);
    // The stop has not shut down what others hold.
    let other = UdpSocket::from(other_handle);
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"still open", addr).unwrap();
    let mut buffer = [0; 16];
    // The nudge of the stop may still lie there.
    let received = std::iter::repeat_with(|| other.recv(&mut buffer).unwrap()).find(|&n| n > 0);
    assert_eq!(received, Some(10));
}

#[cfg(unix)]
#[test]
fn a_socket_can_be_injected_as_an_owned_descriptor() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let fd = std::os::fd::OwnedFd::from(socket);
    let (_listener, mut frames) =
        Listener::builder(UdpSource::from_socket(fd).unwrap()).spawn().unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hi", addr).unwrap();
    assert_eq!(&next(&mut frames).payload[..], b"hi");
}

#[test]
fn a_socket_of_the_wrong_type_is_refused() {
    let stream = TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = UdpSource::from_socket(stream).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = TcpSource::from_socket(datagrams, 10, LinesCodec::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_connected_socket_names_its_peer_answers_it_and_stops() {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(client.local_addr().unwrap()).unwrap();
    client.connect(socket.local_addr().unwrap()).unwrap();
    let source = UdpSource::from_socket(socket).unwrap();
    let replier = source.replier();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    client.send(b"ping").unwrap();
    let peer = next(&mut frames).peer;
    assert_eq!(peer, client.local_addr().unwrap());
    replier.send_to(b"pong", &peer).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.recv(&mut [0; 8]).unwrap(), 4);
    clean(&listener);
}

#[test]
fn a_peer_that_is_gone_is_counted_not_fatal() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(gone.local_addr().unwrap()).unwrap();
    let back = gone.local_addr().unwrap();
    drop(gone);
    let source = UdpSource::from_socket(socket.try_clone().unwrap()).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    // The system answers the first with "connection refused", which a later receive reports.
    let _ = socket.send(b"anyone?");
    let again = loop {
        match UdpSocket::bind(back) {
            Ok(again) => break again,
            Err(_) => thread::yield_now(),
        }
    };
    again.send_to(b"here", socket.local_addr().unwrap()).unwrap();
    assert_eq!(&next(&mut frames).payload[..], b"here");
    clean(&listener);
}

#[test]
fn a_socket_that_another_owner_shuts_down_ends_the_source() {
    for connected in [false, true] {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        if connected {
            socket.connect(socket.local_addr().unwrap()).unwrap();
        }
        let other = socket2::Socket::from(socket.try_clone().unwrap());
        let source = UdpSource::from_socket(socket).unwrap();
        let (listener, mut frames) =
            Listener::builder(source).overflow(Overflow::DropOldest).spawn().unwrap();
        // Unconnected, it says that it isn't connected, and wakes the receiver all the same.
        let _ = other.shutdown(std::net::Shutdown::Both);
        while frames.recv_blocking(PATIENCE).is_ok() {}
        let ending = frames.ending().expect("the stream ended");
        assert!(
            ending == Ending::Failed || cfg!(not(unix)) && ending == Ending::Panicked,
            "{ending}"
        );
        clean(&listener);
    }
}

#[test]
fn datagram_limits_outside_the_possible_are_refused() {
    for (bytes, fine) in [(0, false), (1, true), (65_535, true), (65_536, false)] {
        assert_eq!(udp().0.with_max_datagram(bytes).is_ok(), fine, "{bytes}");
    }
}

// --- byte streams ------------------------------------------------------------------------------

/// Returns at most `chunk` bytes at a time, with a tick now and then.
struct Chopped {
    data: Cursor<Vec<u8>>,
    state: u64,
    most: u64,
}

impl Chopped {
    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

impl Read for Chopped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.random() % 5 == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let most = (1 + self.random() % self.most) as usize;
        let most = most.min(buffer.len());
        self.data.read(&mut buffer[..most])
    }
}

/// Everything a source gives, and how it ends.
fn drain<D>(data: &[u8], seed: u64, most: u64, limit: usize, codec: D) -> (Vec<D::Item>, String)
where
    D: Decoder + Send + 'static,
    D::Item: Send + 'static,
    D::Error: std::error::Error + Send + Sync + 'static,
{
    let reader = Chopped { data: Cursor::new(data.to_vec()), state: seed, most };
    let mut source = ReadSource::new(reader, limit, codec).unwrap();
    let mut frames = Vec::new();
    loop {
        match source.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, "finished".to_owned()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return (frames, error.to_string()),
        }
    }
}

#[test]
fn a_stream_chopped_anywhere_decodes_as_in_one_piece() {
    let mut random = Chopped { data: Cursor::default(), state: 0x9e37_79b9_7f4a_7c15, most: 1 };
    for round in 0..300 {
        // Lengths and noise: some streams are whole, some break off, some are garbage.
        let mut lines = Vec::new();
        let mut blocks = Vec::new();
        for _ in 0..random.random() % 20 {
            let size = (random.random() % 40) as usize;
            lines.extend(std::iter::repeat_n(b'a' + (size % 26) as u8, size));
            lines.push(b'\n');
            blocks.extend_from_slice(&(size as u32).to_be_bytes());
            blocks.extend(std::iter::repeat_n(size as u8, size));
        }
        if round % 3 == 0 {
            lines.truncate(lines.len() - lines.len().min(3));
            blocks.truncate(blocks.len() - blocks.len().min(3));
        }
        let whole = |data: &[u8]| drain(data, 1, u64::MAX, 30, LinesCodec::new());
        let whole_blocks = |data: &[u8]| drain(data, 1, u64::MAX, 30, LengthDelimitedCodec::new());
        for most in [1, 2, 7, 64] {
            let seed = random.random() | 1;
            assert_eq!(drain(&lines, seed, most, 30, LinesCodec::new()), whole(&lines));
            assert_eq!(
                drain(&blocks, seed, most, 30, LengthDelimitedCodec::new()),
                whole_blocks(&blocks)
            );
        }
    }
}

#[test]
fn a_frame_that_is_too_long_and_malformed_is_too_long_however_it_is_chopped() {
    let line = b"good\n\xff\xff\xff\xff\xff\xff\n";
    let (frames, end) = drain(line, 1, u64::MAX, 5, LinesCodec::new());
    assert_eq!(frames, ["good"]);
    assert!(end.contains("too long"), "{end}");
    assert_eq!(drain(line, 1, 1, 5, LinesCodec::new()), (frames, end));
}

#[test]
fn frames_before_a_bad_one_are_handed_over_first() {
    let (frames, end) =
        drain(b"one\ntwo\nmuch too long\nnever seen\n", 1, 99, 9, LinesCodec::new());
    assert_eq!(frames, ["one", "two"]);
    assert_eq!(
        end,
        "frame at byte 8 is too long: raise the limit (9 bytes, or the decoder's own) or check the peer"
    );
}

#[test]
fn a_frame_of_exactly_the_limit_passes() {
    assert_eq!(drain(b"12345\n", 1, 99, 6, LinesCodec::new()).0, ["12345"]);
    assert!(drain(b"123456\n", 1, 99, 6, LinesCodec::new()).0.is_empty());
}

#[test]
fn a_garbage_length_is_an_error_with_its_offset() {
    let mut data = b"\0\0\0\x02ok".to_vec();
    data.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
    let mut source = ReadSource::new(Cursor::new(data), 1024, LengthDelimitedCodec::new()).unwrap();
    assert_eq!(source.next_frame().unwrap(), Some(BytesMut::from("ok")));
    let error = source.next_frame().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    let error = error.get_ref().unwrap().downcast_ref::<FrameError>().unwrap();
    assert!(matches!(error, FrameError::TooLong { offset: 6, .. }), "{error}");
    assert!(source.next_frame().unwrap().is_none(), "a framing error is final");
}

#[test]
fn a_frame_over_any_limit_is_too_long_whichever_fires() {
    let length = |most| LengthDelimitedCodec::builder().max_frame_length(most).new_codec();
    fn refused<C>(data: &'static [u8], limit: usize, codec: C)
    where
        C: Decoder<Error: std::error::Error + Send + Sync, Item: Send> + Send + 'static,
    {
        let mut source = ReadSource::new(Cursor::new(data), limit, codec).unwrap();
        let Err(error) = source.next_frame() else { panic!("it is too long") };
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let error = error.get_ref().unwrap().downcast_ref::<FrameError>().unwrap();
        assert!(matches!(error, FrameError::TooLong { offset: 0, .. }), "{error}");
    }
    // The source's limit fires, and the codec's.
    for (limit, most) in [(12, 100), (100, 8)] {
        refused(b"\0\0\0\x09123456789", limit, length(most));
        refused(b"123456789012\n", limit, LinesCodec::new_with_max_length(most));
        let (end, ends) = (b";".to_vec(), b";".to_vec());
        refused(b"123456789012;", limit, AnyDelimiterCodec::new_with_max_length(end, ends, most));
    }
}

#[test]
fn a_frame_that_isnt_one_is_malformed() {
    let mut source = ReadSource::new(Cursor::new(b"\xff\xff\n"), 100, LinesCodec::new()).unwrap();
    let error = source.next_frame().unwrap_err();
    let error = error.get_ref().unwrap().downcast_ref::<FrameError>().unwrap();
    assert!(matches!(error, FrameError::Malformed { offset: 0, .. }), "{error}");
}

#[test]
fn half_a_frame_then_the_end_is_an_error() {
    // Inside the header, right behind it, inside the payload.
    for (data, offset, received) in
        [(&b"\0\0\0\x01a\0\0"[..], 5, 2), (b"\0\0\0\x05", 0, 4), (b"\0\0\0\x05half", 0, 8)]
    {
        let mut source =
            ReadSource::new(Cursor::new(data), 1024, LengthDelimitedCodec::new()).unwrap();
        let error = loop {
            if let Err(error) = source.next_frame() {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        match error.get_ref().unwrap().downcast_ref::<FrameError>().unwrap() {
            FrameError::Incomplete { offset: o, received: r } => {
                assert_eq!((*o, *r), (offset, received));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_limit_of_zero_is_refused_with_a_reason() {
    let refused = ReadSource::new(io::empty(), 0, LinesCodec::new()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("at least 1"));
}

#[test]
fn a_reader_that_lies_about_its_length_is_an_error_not_a_panic() {
    struct Liar;
    impl Read for Liar {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(usize::MAX)
        }
    }
    let mut source = ReadSource::new(Liar, 10, LinesCodec::new()).unwrap();
    assert_eq!(source.next_frame().unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn a_tcp_source_reads_a_device_and_fails_on_a_reset() {
    let device = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = TcpSource::connect(device.local_addr().unwrap(), 100, LinesCodec::new()).unwrap();
    let (mut line, _) = device.accept().unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    line.write_all(b"21.5\n22").unwrap();
    assert_eq!(next(&mut frames), "21.5");
    let line = socket2::Socket::from(line);
    line.set_linger(Some(Duration::ZERO)).unwrap();
    drop(line);
    assert_eq!(end(&mut frames), Ending::Failed);
    let error = frames.error().unwrap();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), ErrorKind::ConnectionReset);
    clean(&listener);
}

#[cfg(unix)]
mod unix {
    use super::*;
    use callbridge::listener::{UnixDatagramSource, UnixSource};
    use std::os::unix::net::{UnixDatagram, UnixListener};

    fn path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("callbridge-{}-{name}", std::process::id()))
    }

    #[test]
    fn a_datagram_path_is_answered_and_removed_on_stop() {
        let (ours, theirs) = (path("dgram"), path("dgram-client"));
        let source = UnixDatagramSource::bind(&ours).unwrap();
        let replier = source.replier();
        let client = UnixDatagram::bind(&theirs).unwrap();
        let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
        client.send_to(b"ping", &ours).unwrap();
        let datagram = next(&mut frames);
        assert_eq!(&datagram.payload[..], b"ping");
        replier.send_to(b"pong", &datagram.peer).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(client.recv(&mut [0; 8]).unwrap(), 4);
        clean(&listener);
        assert!(!ours.exists());
        std::fs::remove_file(theirs).unwrap();
    }

    #[test]
    fn a_path_that_somebody_has_replaced_is_left_alone() {
        let ours = path("replaced");
        let source = UnixDatagramSource::bind(&ours).unwrap();
        std::fs::remove_file(&ours).unwrap();
        std::fs::write(&ours, b"another's").unwrap();
        drop(source);
        assert!(ours.exists());
        std::fs::remove_file(ours).unwrap();
    }

    #[test]
    fn a_path_that_exists_is_an_error() {
        let ours = path("exists");
        let _first = UnixDatagramSource::bind(&ours).unwrap();
        assert_eq!(UnixDatagramSource::bind(&ours).unwrap_err().kind(), ErrorKind::AddrInUse);
    }

    #[test]
    fn a_stream_source_connects_to_a_path() {
        let ours = path("stream");
        let device = UnixListener::bind(&ours).unwrap();
        let source = UnixSource::connect(&ours, 100, LinesCodec::new()).unwrap();
        let (mut line, _) = device.accept().unwrap();
        let (_listener, mut frames) = Listener::builder(source).spawn().unwrap();
        line.write_all(b"hello\nbye\n").unwrap();
        drop(line);
        assert_eq!([next(&mut frames), next(&mut frames)], ["hello", "bye"]);
        assert_eq!(end(&mut frames), Ending::Finished);
        std::fs::remove_file(ours).unwrap();
    }
}

// --- settings ----------------------------------------------------------------------------------

#[test]
fn settings_that_make_no_sense_are_refused_with_a_reason() {
    let refused = Listener::builder(udp().0).capacity(0).spawn().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let reason = refused.get_ref().unwrap().downcast_ref::<BuildError>();
    assert_eq!(reason, Some(&BuildError::ZeroCapacity));

    let refused = Listener::builder(udp().0).poll_interval(Duration::ZERO).spawn().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let refused = Listener::builder(udp().0).name("a\0b").spawn().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

#[test]
fn the_longest_poll_interval_doesnt_overflow_and_still_stops() {
    let (source, client) = udp();
    let (listener, mut frames) =
        Listener::builder(source).poll_interval(Duration::MAX).spawn().unwrap();
    client.send(b"x").unwrap();
    next(&mut frames);
    clean(&listener);
}

#[test]
fn the_whole_channel_can_be_set_up() {
    let marks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&marks);
    let channel = channel::builder().capacity(4).watermarks(1, 2, move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    let mut left = 4;
    let source = FromFn(move || {
        left -= 1;
        Ok((left >= 0).then_some(left))
    });
    let (_listener, mut frames) = Listener::builder(source).channel(channel).spawn().unwrap();
    while frames.stats().queued < 4 {
        thread::yield_now();
    }
    for _ in 0..4 {
        next(&mut frames);
    }
    end(&mut frames);
    assert!(marks.load(Ordering::Relaxed) >= 2);
}

#[test]
fn a_cancelled_token_stops_the_listener_without_a_runtime() {
    let (before, during) = (CancellationToken::new(), CancellationToken::new());
    before.cancel();
    let (listener, mut frames) =
        Listener::builder(udp().0).stop_on(during.clone()).stop_on(before).spawn().unwrap();
    assert_eq!(end(&mut frames), Ending::Aborted);
    clean(&listener);

    let (listener, mut frames) =
        Listener::builder(udp().0).stop_on(during.clone()).spawn().unwrap();
    assert!(frames.try_recv().is_err());
    during.cancel();
    assert_eq!(end(&mut frames), Ending::Aborted);
    clean(&listener);
}

// --- a full queue, and the end -----------------------------------------------------------------

type Losses = Arc<Mutex<Vec<(usize, LossReason)>>>;

/// A listener over a source that yields 0, 1, 2, ... without end, once it has yielded `count`.
fn endless(overflow: Overflow, count: usize) -> (Listener, FrameStream<usize>, Losses) {
    let (reached, wait) = mpsc::channel();
    let mut at = 0;
    let source = FromFn(move || {
        let frame = at;
        at += 1;
        if frame == count {
            let _ = reached.send(());
        }
        Ok(Some(frame))
    });
    let losses = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&losses);
    let (listener, frames) = Listener::builder(source)
        .capacity(4)
        .overflow(overflow)
        .on_loss(move |loss| seen.lock().unwrap().push((*loss.frame, loss.reason)))
        .spawn()
        .unwrap();
    wait.recv_timeout(PATIENCE).expect("the source gets that far");
    (listener, frames, losses)
}

#[test]
fn a_full_queue_under_block_stops_the_source_and_the_stop_counts_what_it_held() {
    let (listener, mut frames, losses) = endless(Overflow::Block, 4);
    while frames.stats().waiting == 0 {
        thread::yield_now();
    }
    assert_eq!(listener.stats().frames, 5, "four queued and one in its hands");
    clean(&listener);
    assert_eq!([(); 4].map(|()| next(&mut frames)), [0, 1, 2, 3]);
    assert_eq!(end(&mut frames), Ending::Aborted);
    assert_eq!(*losses.lock().unwrap(), [(4, LossReason::Shutdown)]);
    assert_eq!(frames.stats().lost.shutdown, 1);
    assert!(frames.stats().balances());
}

#[test]
fn a_full_queue_under_the_other_policies_never_stops_the_source() {
    let patience = Overflow::BlockFor(Duration::from_millis(1), channel::Fallback::DropNewest);
    for policy in [
        patience,
        Overflow::DropNewest,
        Overflow::DropOldest,
        Overflow::Latest,
        Overflow::Fail,
        Overflow::Unbounded,
    ] {
        let (listener, mut frames, losses) = endless(policy, 50);
        clean(&listener);
        let mut delivered = 0;
        while frames.try_recv().is_ok() {
            delivered += 1;
        }
        let books = frames.stats();
        assert!(books.balances(), "{policy:?}: {books:?}");
        assert_eq!(books.refused, 0, "a refusal that nobody hears of is a loss");
        assert_eq!(books.offered, listener.stats().frames, "{policy:?}");
        assert_eq!(books.delivered, delivered);
        assert_eq!(books.lost.total(), losses.lock().unwrap().len() as u64, "{policy:?}");
        assert!(policy == Overflow::Unbounded || books.lost.total() >= 46, "{policy:?}: {books:?}");
    }
}

#[test]
fn dropping_the_consumer_stops_the_listener() {
    let (listener, frames, losses) = endless(Overflow::Block, 4);
    drop(frames);
    let report = listener.shutdown_blocking(PATIENCE);
    assert!(report.is_clean(), "{report}");
    assert_eq!(listener.ending(), Some(Ending::ConsumerDropped));
    let losses = losses.lock().unwrap();
    assert!(losses.iter().all(|(_, reason)| *reason == LossReason::ConsumerDropped));
    assert_eq!(losses.len() as u64, listener.stats().frames);

    // An idle one as well, without being asked.
    let (source, _client) = udp();
    let (listener, frames) = Listener::builder(source).spawn().unwrap();
    drop(frames);
    while !listener.is_finished() {
        thread::yield_now();
    }
}

#[test]
fn dropping_the_listener_stops_it_and_keeps_what_is_queued() {
    let (listener, mut frames, _) = endless(Overflow::Block, 4);
    drop(listener);
    assert_eq!([(); 4].map(|()| next(&mut frames)), [0, 1, 2, 3]);
    assert_eq!(end(&mut frames), Ending::Aborted);
}

// --- stop and shutdown -------------------------------------------------------------------------

/// A source that nothing can wake, until it is let go.
fn stuck() -> (Listener, FrameStream<()>, mpsc::Sender<()>) {
    let (release, blocked) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let source = FromFn(move || {
        let _ = entered.send(());
        let _ = blocked.recv();
        Ok(None)
    });
    let (listener, frames) = Listener::builder(source).name("stuck").spawn().unwrap();
    inside.recv_timeout(PATIENCE).unwrap();
    (listener, frames, release)
}

#[test]
fn a_deadline_that_passes_names_the_straggler_and_a_later_wait_succeeds() {
    let (listener, _frames, release) = stuck();
    for deadline in [Duration::ZERO, Duration::from_millis(30)] {
        let report = listener.shutdown_blocking(deadline);
        assert_eq!(report.stragglers, ["stuck"]);
        assert!(!report.is_clean() && !report.would_deadlock);
        assert!(report.to_string().contains("still running: stuck"), "{report}");
    }
    drop(release);
    assert!(listener.shutdown_blocking(Duration::MAX).is_clean());
}

#[tokio::test]
async fn the_async_shutdown_keeps_its_deadline_without_a_timer() {
    let (listener, _frames, release) = stuck();
    for deadline in [Duration::ZERO, Duration::from_millis(30)] {
        assert_eq!(listener.shutdown(deadline).await.stragglers, ["stuck"]);
    }
    drop(release);
    assert!(listener.shutdown(Duration::MAX).await.is_clean());
}

#[tokio::test]
async fn an_async_shutdown_that_is_dropped_leaves_the_stop_asked_for() {
    let (listener, frames, release) = stuck();
    tokio::time::timeout(Duration::from_millis(20), listener.shutdown(Duration::MAX))
        .await
        .expect_err("it is stuck");
    drop(release);
    assert!(listener.shutdown(PATIENCE).await.is_clean());
    drop(frames);
}

#[tokio::test]
async fn a_blocking_shutdown_on_the_loop_is_refused_not_waited_for() {
    let (listener, _frames, release) = stuck();
    let report = listener.shutdown_blocking(PATIENCE);
    assert!(report.would_deadlock);
    assert_eq!(report.stragglers, ["stuck"]);
    drop(release);
    assert!(listener.shutdown(PATIENCE).await.is_clean());
    assert!(!listener.shutdown_blocking(PATIENCE).would_deadlock, "nothing to wait for any more");
}

#[test]
fn a_shutdown_on_the_listeners_own_thread_is_refused_and_stops_it_all_the_same() {
    let (give, take) = mpsc::channel::<Arc<Listener>>();
    let (tell, told) = mpsc::channel();
    let (listener, mut frames) = Listener::from_fn::<(), _>(move |sink| {
        let myself = take.recv_timeout(PATIENCE).map_err(io::Error::other)?;
        tell.send(myself.shutdown_blocking(PATIENCE)).map_err(io::Error::other)?;
        assert!(sink.is_stopping());
        Ok(())
    })
    .spawn()
    .unwrap();
    let listener = Arc::new(listener);
    give.send(Arc::clone(&listener)).unwrap();
    assert!(told.recv_timeout(PATIENCE).unwrap().would_deadlock);
    assert_eq!(end(&mut frames), Ending::Aborted);
    clean(&listener);
}

#[test]
fn a_loss_hook_may_stop_its_listener() {
    let slot = Arc::new(Mutex::new(None::<Listener>));
    let inside = Arc::clone(&slot);
    let (tell, told) = mpsc::channel();
    let (listener, frames) = Listener::builder(FromFn(|| Ok(Some(0_u8))))
        .capacity(1)
        .overflow(Overflow::DropNewest)
        .on_loss(move |_| {
            if let Some(listener) = inside.lock().unwrap().as_ref() {
                let _ = tell.send(listener.shutdown_blocking(PATIENCE).would_deadlock);
            }
        })
        .spawn()
        .unwrap();
    *slot.lock().unwrap() = Some(listener);
    assert!(told.recv_timeout(PATIENCE).unwrap());
    let listener = slot.lock().unwrap().take().unwrap();
    clean(&listener);
    drop(frames);
}

#[test]
fn stop_can_be_asked_for_by_many_at_once() {
    let (source, client) = udp();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    client.send(b"x").unwrap();
    next(&mut frames);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| listener.stop());
            scope.spawn(|| clean(&listener));
        }
    });
    assert_eq!(end(&mut frames), Ending::Aborted);
}

#[test]
fn the_handles_can_be_sent_and_shared() {
    fn both<T: Send + Sync>() {}
    fn send<T: Send>() {}
    both::<Listener>();
    both::<callbridge::listener::Replier>();
    both::<callbridge::listener::Connection>();
    both::<callbridge::listener::Sink<Bytes>>();
    send::<DatagramSource<UdpSocket>>();
    send::<TcpSource<LinesCodec>>();
    send::<ReadSource<TcpStream, LinesCodec>>();
}
