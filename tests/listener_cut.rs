//! Half a frame is there when this side ends the stream: it is no frame, and no fault of the peer.
//!
//! `LinesCodec` makes a frame of what is left at the end, a codec with lengths an error.

use callbridge::listener::{
    CloseReason, Connection, Event, Incoming, Interrupter, Listener, Origin, ReadSource, Request,
    TcpServer, TcpSource,
};
use callbridge::{Bridge, Ending, FrameStream};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;
use tokio_util::codec::{Decoder, LengthDelimitedCodec, LinesCodec};

const PATIENCE: Duration = Duration::from_secs(30);

/// A whole frame and half of the next one: as lines, and behind lengths.
const LINES: &[u8] = b"whole\nhal";
const LENGTHS: &[u8] = b"\0\0\0\x05whole\0\0\0\x05hal";

fn connect(listener: &Listener) -> TcpStream {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// A pair of connected sockets.
fn pair() -> (TcpStream, TcpStream) {
    let device = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(device.local_addr().unwrap()).unwrap();
    (ours, device.accept().unwrap().0)
}

fn next<F>(events: &mut FrameStream<Incoming<F>>) -> Incoming<F> {
    events.recv_blocking(PATIENCE).expect("an event is on its way")
}

/// Stops a source that has given the whole frame and holds half of one.
fn stop<S: Origin>(source: S, mut peer: TcpStream, bytes: &[u8]) {
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    peer.write_all(bytes).unwrap();
    frames.recv_blocking(PATIENCE).unwrap();
    let report = listener.shutdown_blocking(PATIENCE);
    assert!(report.is_clean() && report.error.is_none(), "{report}");
    assert_eq!((report.stats.frames, report.stats.decode_errors), (1, 0));
    assert!(frames.recv_blocking(PATIENCE).is_err());
    assert_eq!(frames.ending(), Some(Ending::Aborted));
}

#[test]
fn a_source_that_is_stopped_gives_no_half_frame() {
    let (ours, theirs) = pair();
    stop(TcpSource::from_socket(ours, 100, LinesCodec::new()).unwrap(), theirs, LINES);
    let (ours, theirs) = pair();
    stop(TcpSource::from_socket(ours, 100, LengthDelimitedCodec::new()).unwrap(), theirs, LENGTHS);
}

#[test]
fn a_reader_whose_interrupter_ends_it_gives_no_half_frame() {
    fn socket() -> (TcpStream, Interrupter, TcpStream) {
        let (ours, theirs) = pair();
        let handle = ours.try_clone().unwrap();
        (ours, Interrupter::new(move || drop(handle.shutdown(Shutdown::Both))), theirs)
    }
    let (ours, nudge, theirs) = socket();
    let source = ReadSource::new(ours, 100, LinesCodec::new()).unwrap();
    stop(source.with_interrupter(nudge), theirs, LINES);
    let (ours, nudge, theirs) = socket();
    let source = ReadSource::new(ours, 100, LengthDelimitedCodec::new()).unwrap();
    stop(source.with_interrupter(nudge), theirs, LENGTHS);
}

#[test]
fn a_handler_is_given_no_half_request() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let (said, heard) = mpsc::channel();
    let server = TcpServer::bind("127.0.0.1:0", 100, LinesCodec::new).unwrap();
    let listener = Listener::builder(server)
        .serve(&Bridge::new(runtime.handle().clone()), move |request: Request<String>| {
            said.send(request.frame.clone()).unwrap();
            async move { Some(request.frame) }
        })
        .spawn()
        .unwrap();
    let mut client = connect(&listener);
    client.write_all(LINES).unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    let report = listener.shutdown_blocking(PATIENCE);
    assert!(report.is_clean() && report.stats.requests == 1, "{report}");
    drop(listener);
    assert_eq!(heard.iter().collect::<Vec<_>>(), ["whole"]);
}

/// What comes of a connection that holds half a frame when `end` ends it; `None` for a stop.
fn ended<C>(make: fn() -> C, bytes: &[u8], end: fn(&Listener, &Connection)) -> Option<CloseReason>
where
    C: Decoder + Send + 'static,
    C::Item: Send + 'static,
    C::Error: std::error::Error + Send + Sync + 'static,
{
    let server = TcpServer::bind("127.0.0.1:0", 100, make).unwrap();
    let (listener, mut events) = Listener::builder(server).spawn().unwrap();
    let mut client = connect(&listener);
    client.write_all(bytes).unwrap();
    assert!(matches!(next(&mut events).event, Event::Opened));
    let Incoming { connection, event, .. } = next(&mut events);
    assert!(matches!(event, Event::Frame(_)));
    end(&listener, &connection);
    let reason = match events.recv_blocking(PATIENCE).map(|incoming| incoming.event) {
        Ok(Event::Closed(reason)) => Some(reason),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    };
    let report = listener.shutdown_blocking(PATIENCE);
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.stats.frames, report.stats.decode_errors), (1, 0), "{report}");
    reason
}

#[test]
fn a_connection_that_is_closed_on_this_side_says_so() {
    let end = |_: &Listener, connection: &Connection| connection.close();
    for reason in
        [ended(LinesCodec::new, LINES, end), ended(LengthDelimitedCodec::new, LENGTHS, end)]
    {
        assert!(matches!(reason, Some(CloseReason::Closed)), "{reason:?}");
    }
}

#[test]
fn a_server_that_is_stopped_gives_no_half_frame() {
    let end = |listener: &Listener, _: &Connection| listener.stop();
    for reason in
        [ended(LinesCodec::new, LINES, end), ended(LengthDelimitedCodec::new, LENGTHS, end)]
    {
        assert!(reason.is_none(), "{reason:?}");
    }
}
