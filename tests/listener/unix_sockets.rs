//! Unix sockets: paths and names, who is answered, and peers that don't read.

use crate::child::{child, in_a_child, is_child};
use crate::common::{LONG, eventually};
use crate::support::*;
use callbridge::Bridge;
use callbridge::channel::Ending;
use callbridge::listener::{
    Datagram, Listener, Peer, TcpServer, TcpSource, UdpSource, UnixDatagramSource, UnixServer,
    UnixSource,
};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{self, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::codec::LinesCodec;

#[test]
fn a_datagram_path_is_answered_and_removed_on_stop() {
    let (ours, theirs) = (scratch("dgram"), scratch("dgram-client"));
    let source = UnixDatagramSource::bind(&ours.0).unwrap();
    let replier = source.replier();
    let client = UnixDatagram::bind(&theirs.0).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    client.send_to(b"ping", &ours.0).unwrap();
    let datagram = next(&mut frames);
    assert_eq!(&datagram.payload[..], b"ping");
    replier.send_to(b"pong", &datagram.peer).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(client.recv(&mut [0; 8]).unwrap(), 4);
    clean(&listener);
    assert!(!ours.0.exists());
}

#[test]
fn a_unix_server_answers_and_removes_its_path() {
    let path = scratch("server");
    let server = UnixServer::bind(&path.0, 100, LinesCodec::new).unwrap();
    let refused = UnixServer::bind(&path.0, 100, LinesCodec::new).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    // To find that out makes no connection.
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = UnixStream::connect(&path.0).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    let mut connection = next(&mut connections);
    assert_eq!(connection.peer(), &Peer::Unix(None));
    client.write_all(b"ping\n").unwrap();
    assert_eq!(frame(&mut connection), "ping");
    send(&mut connection, "pong").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong\n");
    clean(&listener);
    assert!(!path.0.exists());
}

#[test]
fn a_stream_source_connects_to_a_path() {
    let ours = scratch("stream");
    let device = UnixListener::bind(&ours.0).unwrap();
    let source = UnixSource::connect(&ours.0, 100, LinesCodec::new()).unwrap();
    let (mut line, _) = device.accept().unwrap();
    let (_listener, mut frames) = Listener::builder(source).spawn().unwrap();
    line.write_all(b"hello\nbye\n").unwrap();
    drop(line);
    assert_eq!([next(&mut frames), next(&mut frames)], ["hello", "bye"]);
    assert_eq!(end(&mut frames), Ending::Finished);
}

// --- paths and names ---------------------------------------------------------------------------

#[test]
fn a_path_that_somebody_has_replaced_is_left_alone() {
    let ours = scratch("replaced");
    let source = UnixDatagramSource::bind(&ours.0).unwrap();
    std::fs::remove_file(&ours.0).unwrap();
    std::fs::write(&ours.0, b"another's").unwrap();
    drop(source);
    assert!(ours.0.exists());
}

#[test]
fn a_path_that_is_served_is_an_error() {
    let ours = scratch("exists");
    let _first = UnixDatagramSource::bind(&ours.0).unwrap();
    assert_eq!(UnixDatagramSource::bind(&ours.0).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert!(ours.0.exists());
    let file = scratch("exists-file");
    std::fs::write(&file.0, b"no socket").unwrap();
    assert!(UnixDatagramSource::bind(&file.0).is_err());
    assert_eq!(std::fs::read(&file.0).unwrap(), b"no socket");
}

const KILLED: &str = "unix_sockets::a_path_left_by_a_process_that_was_killed_is_taken_over";
const PATH: &str = "CALLBRIDGE_TEST_PATH";

#[test]
fn a_path_left_by_a_process_that_was_killed_is_taken_over() {
    use rustix::process::{Signal, getpid, kill_process};
    if is_child() {
        let path = PathBuf::from(std::env::var_os(PATH).unwrap());
        let server = UnixServer::bind(&path, 1024, LinesCodec::new).unwrap();
        let _running = Listener::builder(server).spawn().unwrap();
        kill_process(getpid(), Signal::KILL).unwrap();
    }
    let path = scratch("killed");
    let status = child(KILLED).env(PATH, &path.0).output().unwrap().status;
    assert!(!status.success() && path.0.exists(), "{status}");
    let again = UnixServer::bind(&path.0, 1024, LinesCodec::new).unwrap();
    let (listener, mut connections) = Listener::builder(again).spawn().unwrap();
    let _client = UnixStream::connect(&path.0).unwrap();
    drop(next(&mut connections));
    clean(&listener);
    assert!(!path.0.exists());
}

#[test]
fn a_relative_path_is_removed_after_a_change_of_directory() {
    const NAME: &str = "unix_sockets::a_relative_path_is_removed_after_a_change_of_directory";
    in_a_child(NAME, || {
        let path = scratch("relative");
        std::env::set_current_dir(path.0.parent().unwrap()).unwrap();
        let source = UnixDatagramSource::bind(path.0.file_name().unwrap()).unwrap();
        assert!(path.0.exists());
        std::env::set_current_dir("/").unwrap();
        drop(source);
        assert!(!path.0.exists(), "it is still there");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn an_abstract_name_can_be_bound_and_has_no_file() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("callbridge-abstract-{}", std::process::id());
    let source = UnixDatagramSource::bind(format!("\0{name}")).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    let to = net::SocketAddr::from_abstract_name(&name).unwrap();
    UnixDatagram::unbound().unwrap().send_to_addr(b"hi", &to).unwrap();
    assert_eq!(&next(&mut frames).payload[..], b"hi");
    clean(&listener);
    drop(UnixDatagramSource::bind(format!("\0{name}")).unwrap());
}

#[test]
fn sockets_of_another_family_are_refused() {
    let (ours, _theirs) = UnixDatagram::pair().unwrap();
    let refused = UdpSource::from_socket(OwnedFd::from(ours)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let refused = TcpSource::from_socket(OwnedFd::from(ours), 1024, LinesCodec::new());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    let path = scratch("family");
    let listening = UnixListener::bind(&path.0).unwrap();
    let refused = TcpServer::from_socket(OwnedFd::from(listening), 1024, LinesCodec::new);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let refused = UnixDatagramSource::from_socket(OwnedFd::from(udp)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

// --- datagrams of no bytes, and a shutdown by another owner ------------------------------------

#[test]
fn many_empty_datagrams_dont_end_a_listener() {
    let path = scratch("pokes");
    let source = UnixDatagramSource::bind(&path.0).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    let peer = UnixDatagram::unbound().unwrap();
    for _ in 0..1100 {
        peer.send_to(b"", &path.0).unwrap();
        assert!(next(&mut frames).payload.is_empty());
    }
    peer.send_to(b"still there?", &path.0).unwrap();
    assert_eq!(&next(&mut frames).payload[..], b"still there?");
    clean(&listener);
}

#[test]
fn a_shutdown_by_another_owner_ends_it_without_frames_that_nobody_sent() {
    let path = scratch("phantoms");
    let socket = UnixDatagram::bind(&path.0).unwrap();
    let other = socket.try_clone().unwrap();
    let source = UnixDatagramSource::from_socket(socket).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    other.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(end(&mut frames), Ending::Failed);
    assert_eq!(clean(&listener).frames, 0);
}

#[test]
fn stopping_a_listener_leaves_an_injected_socket_alive() {
    let path = scratch("manager");
    let managers = UnixDatagram::bind(&path.0).unwrap();
    let source = UnixDatagramSource::from_socket(managers.try_clone().unwrap()).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    let client = UnixDatagram::unbound().unwrap();
    client.send_to(b"w", &path.0).unwrap();
    next(&mut frames);
    clean(&listener);
    client.send_to(b"xy", &path.0).unwrap();
    managers.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(managers.recv(&mut [0; 8]).unwrap(), 2);
}

// --- peers that don't read ---------------------------------------------------------------------

/// A peer that floods a service and never reads what it gets; until dropped. It isn't connected: for a
/// peer that is connected to the sender the kernel sets no limit.
struct Rude {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
    sent: Arc<AtomicU64>,
    /// Open until the end, whatever becomes of the thread.
    _socket: UnixDatagram,
    _path: Scratch,
}

impl Rude {
    fn towards(service: &Path, name: &str) -> Self {
        let path = scratch(name);
        let (socket, service) = (UnixDatagram::bind(&path.0).unwrap(), service.to_owned());
        socket.set_write_timeout(Some(20 * MS)).unwrap();
        let _socket = socket.try_clone().unwrap();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                match socket.send_to(b"rude", &service) {
                    Ok(_) => drop(count.fetch_add(1, Ordering::Relaxed)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        });
        Rude { stop, thread: Some(thread), sent, _socket, _path: path }
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().unwrap().join();
    }
}

fn echo(path: &Path, bridge: &Bridge, poll_timeout: Duration) -> Listener {
    Listener::builder(UnixDatagramSource::bind(path).unwrap())
        .poll_timeout(poll_timeout)
        .serve(bridge, |datagram: Datagram<net::SocketAddr>| async move { Some(datagram.payload) })
        .spawn()
        .unwrap()
}

/// What doesn't fit is a reply error; nobody waits for the one whose queue is full.
#[test]
fn a_peer_that_never_reads_doesnt_hold_up_the_others() {
    let (_loop, bridge) = event_loop();
    let (path, own) = (scratch("rude"), scratch("honest"));
    // A send that waited would wait for so long.
    let listener = echo(&path.0, &bridge, LONG);
    let rude = Rude::towards(&path.0, "rude-peer");
    eventually("its queue is full", || listener.stats().reply_errors > 20);
    let honest = UnixDatagram::bind(&own.0).unwrap();
    honest.connect(&path.0).unwrap();
    honest.set_read_timeout(Some(LONG / 2)).unwrap();
    honest.set_write_timeout(Some(LONG / 2)).unwrap();
    for _ in 0..3 {
        honest.send(b"honest").unwrap();
        assert_eq!(honest.recv(&mut [0; 8]).unwrap(), 6);
    }
    assert!(rude.sent.load(Ordering::Relaxed) > 20);
    drop(rude);
    clean(&listener);
}

#[test]
fn a_stop_doesnt_wait_for_a_peer_that_doesnt_read() {
    let (_loop, bridge) = event_loop();
    let path = scratch("rude-stop");
    let listener = echo(&path.0, &bridge, LONG);
    let rude = Rude::towards(&path.0, "rude-stop-peer");
    eventually("its queue is full", || listener.stats().reply_errors > 20);
    let began = Instant::now();
    clean(&listener);
    assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
    drop(rude);
}

/// An event loop may call it: a full queue is told at once.
#[cfg(target_os = "linux")]
#[test]
fn answering_an_abstract_peer_never_waits() {
    use std::os::linux::net::SocketAddrExt;
    let path = scratch("abstract-peer");
    let source = UnixDatagramSource::bind(&path.0).unwrap();
    let replier = source.replier();
    let (listener, _frames) = Listener::builder(source).poll_timeout(LONG).spawn().unwrap();
    let name = format!("callbridge-mute-{}", std::process::id());
    let peer = net::SocketAddr::from_abstract_name(name).unwrap();
    let _mute = UnixDatagram::bind_addr(&peer).unwrap();
    let began = Instant::now();
    let full = loop {
        if let Err(error) = replier.send_to(b"answer", &peer) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    assert!(began.elapsed() < LONG / 2);
    clean(&listener);
}
