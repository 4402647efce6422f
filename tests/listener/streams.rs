//! Stream sockets of the client side: resets, peers that vanish, halves of frames, small replies.

use crate::common::LONG;
use crate::support::*;
use callbridge::Bridge;
use callbridge::channel::Ending;
use callbridge::listener::{
    Interrupter, Listener, Origin, ReadSource, Request, TcpServer, TcpSource,
};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;
use tokio_util::codec::{Decoder, LengthDelimitedCodec, LinesCodec};

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

// --- a peer that vanishes ----------------------------------------------------------------------

/// A connection over which "ok\nhal" came before its peer stopped reading for good. The kernel gives it
/// up after a while, as it does with a peer that a keep-alive finds gone.
#[cfg(target_os = "linux")]
fn connection_whose_peer_vanishes() -> (TcpStream, TcpStream) {
    let (ours, mut theirs) = pair();
    let socket = socket2::SockRef::from(&ours);
    socket.set_tcp_user_timeout(Some(300 * MS)).unwrap();
    theirs.write_all(b"ok\nhal").unwrap();
    ours.set_nonblocking(true).unwrap();
    let junk = vec![0; 1 << 20];
    while (&ours).write(&junk).is_ok() {}
    ours.set_nonblocking(false).unwrap();
    (ours, theirs)
}

/// What the kernel says of such a connection: the bytes, one ETIMEDOUT, then the end. If this fails, the
/// next two tests prove nothing.
#[cfg(target_os = "linux")]
#[test]
fn the_kernel_reports_a_vanished_peer_once() {
    let (mut ours, _theirs) = connection_whose_peer_vanishes();
    ours.set_read_timeout(Some(LONG)).unwrap();
    let mut bytes = [0; 64];
    assert_eq!(ours.read(&mut bytes).unwrap(), 6);
    let error = ours.read(&mut bytes).unwrap_err();
    assert_eq!(
        (error.kind(), error.raw_os_error().is_some()),
        (ErrorKind::TimedOut, true),
        "{error}"
    );
    assert_eq!(ours.read(&mut bytes).unwrap(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_peer_that_vanishes_in_mid_line_fails_the_stream() {
    let (ours, _theirs) = connection_whose_peer_vanishes();
    let source = TcpSource::from_socket(ours, 1024, LinesCodec::new()).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    assert_eq!(next(&mut frames), "ok");
    assert_eq!(end(&mut frames), Ending::Failed, "half a line is no frame");
    let error = frames.error().unwrap();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), ErrorKind::TimedOut, "{error}");
    clean(&listener);
}

#[cfg(target_os = "linux")]
#[test]
fn a_peer_that_vanishes_in_mid_line_makes_no_request() {
    let (_loop, bridge) = event_loop();
    let (ours, _theirs) = connection_whose_peer_vanishes();
    let source = TcpSource::from_socket(ours, 1024, LinesCodec::new()).unwrap();
    let (said, heard) = mpsc::channel();
    let listener = Listener::builder(source)
        .serve(&bridge, move |line: String| {
            said.send(line).unwrap();
            async { None::<String> }
        })
        .spawn()
        .unwrap();
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(listener.ending(), Some(Ending::Failed));
    drop(listener);
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["ok"]);
}

// --- small replies -----------------------------------------------------------------------------

/// Replies don't wait for the peer's acknowledgement of the ones before.
#[cfg(target_os = "linux")]
#[test]
fn a_connected_tcp_source_sends_small_replies_without_delay() {
    use std::os::fd::AsFd;
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let source =
        TcpSource::connect(listening.local_addr().unwrap(), 1024, LinesCodec::new()).unwrap();
    let copy =
        callbridge::listener::FrameSource::as_fd(&source).unwrap().as_fd().try_clone_to_owned();
    let no_delay = socket2::SockRef::from(&copy.unwrap()).tcp_nodelay().unwrap();
    assert!(no_delay, "TCP_NODELAY is off");
}

// --- half a frame is there when this side ends the stream --------------------------------------
//
// It is no frame, and no fault of the peer. `LinesCodec` makes a frame of what is left at the end, a codec
// with lengths an error.

/// A whole frame and half of the next one: as lines, and behind lengths.
const LINES: &[u8] = b"whole\nhal";
const LENGTHS: &[u8] = b"\0\0\0\x05whole\0\0\0\x05hal";

/// Stops a source that has given the whole frame and holds half of one.
fn stop<S: Origin>(source: S, mut peer: TcpStream, bytes: &[u8], drains: bool) {
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    peer.write_all(bytes).unwrap();
    next(&mut frames);
    if drains {
        assert!(listener.close_blocking(LONG).is_clean());
    }
    let stats = clean(&listener);
    assert!(listener.error().is_none(), "{:?}", listener.error());
    assert_eq!((stats.frames, stats.decode_errors), (1, 0));
    assert_eq!(end(&mut frames), Ending::Aborted);
}

#[test]
fn a_source_that_is_stopped_gives_no_half_frame() {
    for drains in [false, true] {
        let (ours, theirs) = pair();
        stop(TcpSource::from_socket(ours, 100, LinesCodec::new()).unwrap(), theirs, LINES, drains);
        let (ours, theirs) = pair();
        let source = TcpSource::from_socket(ours, 100, LengthDelimitedCodec::new()).unwrap();
        stop(source, theirs, LENGTHS, drains);
    }
}

#[test]
fn a_reader_whose_interrupter_ends_it_gives_no_half_frame() {
    fn socket() -> (TcpStream, Interrupter, TcpStream) {
        let (ours, theirs) = pair();
        let handle = ours.try_clone().unwrap();
        (ours, Interrupter::new(move || drop(handle.shutdown(Shutdown::Both))), theirs)
    }
    for drains in [false, true] {
        let (ours, interrupter, theirs) = socket();
        let source = ReadSource::new(ours, 100, LinesCodec::new()).unwrap();
        stop(source.with_interrupter(interrupter), theirs, LINES, drains);
        let (ours, interrupter, theirs) = socket();
        let source = ReadSource::new(ours, 100, LengthDelimitedCodec::new()).unwrap();
        stop(source.with_interrupter(interrupter), theirs, LENGTHS, drains);
    }
}

#[test]
fn a_handler_is_given_no_half_request() {
    let (_loop, bridge) = event_loop();
    handler_is_given_none(&bridge, Listener::stop);
    handler_is_given_none(&bridge, |listener| drop(listener.close_blocking(LONG)));
}

fn handler_is_given_none(bridge: &Bridge, end: fn(&Listener)) {
    let (said, heard) = mpsc::channel();
    let (server, addr) = lines(100);
    let listener = Listener::builder(server.with_linger(MS))
        .serve(bridge, move |request: Request<String>| {
            said.send(request.frame.clone()).unwrap();
            async move { Some(request.frame) }
        })
        .spawn()
        .unwrap();
    let mut client = connect(addr);
    client.write_all(LINES).unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    end(&listener);
    assert_eq!(clean(&listener).requests, 1);
    drop(listener);
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["whole"]);
}

/// A connection that holds half a frame when `end` ends it.
fn connection_ends<C>(make: fn() -> C, bytes: &[u8], end: impl Fn(&Listener))
where
    C: Decoder + Send + 'static,
    C::Item: Send + 'static,
    C::Error: std::error::Error + Send + Sync + 'static,
{
    for by_handle in [false, true] {
        let server = TcpServer::bind("127.0.0.1:0", 100, make).unwrap();
        let addr = server.local_addr().unwrap();
        let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
        let mut client = connect(addr);
        client.write_all(bytes).unwrap();
        let mut connection = next(&mut connections);
        frame(&mut connection);
        if by_handle {
            connection.handle().close();
        } else {
            end(&listener);
        }
        assert_eq!(ending(&mut connection), Ending::Aborted);
        drop(connection);
        let stats = clean(&listener);
        assert_eq!((stats.frames, stats.decode_errors), (1, 0), "{stats:?}");
    }
}

#[test]
fn a_connection_that_is_ended_on_this_side_gives_no_half_frame() {
    connection_ends(LinesCodec::new, LINES, Listener::stop);
    connection_ends(LengthDelimitedCodec::new, LENGTHS, Listener::stop);
}
