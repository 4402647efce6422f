//! Sockets and ports that others have, too: a stop sends nobody anything, and nothing of theirs is shut
//! down, read for them or set.

use crate::common::LONG;
use crate::support::*;
use callbridge::listener::{Datagram, Listener, TcpServer, UdpSource};
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use tokio_util::codec::LinesCodec;

/// A socket on a port that others may have, too.
fn shared(addr: SocketAddr, reuse_port: bool) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    if reuse_port {
        socket.set_reuse_port(true).unwrap();
    } else {
        socket.set_reuse_address(true).unwrap();
    }
    socket.bind(&addr.into()).unwrap();
    socket
}

fn address(socket: &Socket) -> SocketAddr {
    socket.local_addr().unwrap().as_socket().unwrap()
}

/// Two sockets on one port, such that the kernel gives the second what the first sends to the port.
fn a_pair(reuse_port: bool) -> (Socket, Socket) {
    for _ in 0..64 {
        let first = shared((Ipv4Addr::LOCALHOST, 0).into(), reuse_port);
        let second = shared(address(&first), reuse_port);
        first.send_to(b"whose?", &address(&first).into()).unwrap();
        second.set_nonblocking(true).unwrap();
        if (&second).read(&mut [0; 16]).is_ok() {
            return (first, second);
        }
    }
    panic!("on 64 ports, the kernel gave the first socket its own datagram");
}

/// A listener on a thread that waits in the kernel.
macro_rules! waits {
    ($source:expr, $name:expr) => {{
        let spawned = Listener::builder($source).name($name).spawn().unwrap();
        until_asleep($name);
        spawned
    }};
}

/// By SO_REUSEADDR, where the last to bind gets what comes, and by SO_REUSEPORT, where a hash decides.
#[test]
fn stopping_one_socket_of_a_shared_port_sends_the_other_nothing() {
    for (reuse_port, name) in [(false, "reuse-addr"), (true, "reuse-port")] {
        let (first, second) = a_pair(reuse_port);
        let to = address(&first);
        let (first, _frames) = waits!(UdpSource::from_socket(first).unwrap(), name);
        clean(&first);
        drop(first);
        // What arrives first is what is sent now.
        let (second, mut frames) =
            Listener::builder(UdpSource::from_socket(second).unwrap()).spawn().unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"real", to).unwrap();
        assert_eq!(&next(&mut frames).payload[..], b"real");
        assert_eq!(clean(&second).frames, 1);
    }
}

/// A service that answered a datagram of its own port would answer itself for ever.
#[test]
fn stopping_one_socket_does_not_set_the_other_ones_echo_off() {
    let (_loop, bridge) = event_loop();
    let (first, second) = a_pair(false);
    let to = address(&first);
    let (first, _frames) = waits!(UdpSource::from_socket(first).unwrap(), "echo-off");
    let second = Listener::builder(UdpSource::from_socket(second).unwrap())
        .serve(&bridge, |datagram: Datagram| async move { Some(datagram.payload) })
        .spawn()
        .unwrap();
    clean(&first);
    drop(first);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(to).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(ask(&client, "real"), "real");
    assert_eq!(clean(&second).requests, 1);
}

#[test]
fn stopping_a_member_of_a_multicast_group_sends_the_group_nothing() {
    let group = Ipv4Addr::new(239, 255, 77, 7);
    let join = |port: u16| {
        let socket = shared((group, port).into(), false);
        socket.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
        socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
        socket
    };
    let first = join(0);
    let to = SockAddr::from(address(&first));
    let sender = first.try_clone().unwrap();
    let other: UdpSocket = join(address(&first).port()).into();
    other.set_read_timeout(Some(LONG)).unwrap();
    let mut buffer = [0; 16];
    sender.send_to(b"hello", &to).unwrap();
    assert_eq!(other.recv(&mut buffer).unwrap(), 5, "the group works at all");
    let (listener, _frames) = waits!(UdpSource::from_socket(first).unwrap(), "multicast");
    clean(&listener);
    sender.send_to(b"goodbye", &to).unwrap();
    assert_eq!(other.recv(&mut buffer).unwrap(), 7, "nothing came before it");
}

#[test]
fn stopping_a_server_of_a_shared_port_connects_to_no_other() {
    let shared = |addr: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&addr.into()).unwrap();
        socket.listen(16).unwrap();
        socket
    };
    for n in 0..12 {
        let first = shared((Ipv4Addr::LOCALHOST, 0).into());
        let others = TcpListener::from(shared(address(&first)));
        let server = TcpServer::from_socket(first, 1024, LinesCodec::new).unwrap();
        let (listener, _connections) = waits!(server, &format!("shared-{n}"));
        clean(&listener);
        others.set_nonblocking(true).unwrap();
        assert!(others.accept().is_err(), "a connection from nobody");
    }
}

#[test]
fn stopping_a_listener_leaves_an_injected_socket_alive() {
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    ours.connect(peer.local_addr().unwrap()).unwrap();
    peer.connect(ours.local_addr().unwrap()).unwrap();
    let source = UdpSource::from_socket(ours.try_clone().unwrap()).unwrap();
    let (listener, mut frames) = Listener::builder(source).spawn().unwrap();
    peer.send(b"w").unwrap();
    next(&mut frames);
    clean(&listener);
    for socket in [&ours, &peer] {
        socket.set_read_timeout(Some(LONG)).unwrap();
    }
    ours.send(b"x").unwrap();
    assert_eq!(peer.recv(&mut [0; 8]).unwrap(), 1);
    peer.send(b"yz").unwrap();
    assert_eq!(ours.recv(&mut [0; 8]).unwrap(), 2);
}

/// The mode belongs to all owners of a socket: tokio's handle makes it non-blocking.
#[test]
fn a_socket_that_tokio_has_a_copy_of_costs_no_core() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let source = UdpSource::from_socket(socket.try_clone().unwrap()).unwrap();
    let (udp, _frames) = waits!(source, "copied-udp");
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let copy = listening.try_clone().unwrap();
    let (tcp, _connections) =
        waits!(TcpServer::from_socket(copy, 1024, LinesCodec::new).unwrap(), "copied-tcp");
    socket.set_nonblocking(true).unwrap();
    listening.set_nonblocking(true).unwrap();
    // So that they find nothing once more.
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", socket.local_addr().unwrap()).unwrap();
    drop(connect(listening.local_addr().unwrap()));
    let cost = thread::scope(|scope| {
        let costs =
            ["copied-udp", "copied-tcp"].map(|name| scope.spawn(|| percent_of_a_core(name)));
        costs.map(|cost| cost.join().unwrap())
    });
    assert!(cost.iter().all(|percent| *percent < 10), "{cost:?} % of a core in silence");
    clean(&udp);
    clean(&tcp);
}

/// The other way round: tokio has it first, and its loop must not be held up by a receive that waits.
#[tokio::test]
async fn a_loop_that_reads_a_copy_of_the_socket_isnt_blocked() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (copy, addr) = (socket.try_clone().unwrap(), socket.local_addr().unwrap());
    socket.set_nonblocking(true).unwrap();
    let theirs = tokio::net::UdpSocket::from_std(socket).unwrap();
    let (listener, frames) =
        Listener::builder(UdpSource::from_socket(copy).unwrap()).spawn().unwrap();
    let mut bytes = [0; 8];
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..20 {
        client.send_to(b"x", addr).unwrap();
        // Whoever gets it: a receive for nothing doesn't wait.
        let _ = tokio::time::timeout(5 * MS, theirs.recv_from(&mut bytes)).await;
        assert!(
            theirs
                .try_recv_from(&mut bytes)
                .is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
        );
    }
    drop(frames);
    assert!(listener.close(LONG).await.is_clean());
}
