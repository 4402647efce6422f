//! UDP: what comes in, whole or cut off, and from where; answers from the stream side.

use crate::common::LONG;
use crate::support::*;
use callbridge::Overflow;
use callbridge::channel::Ending;
use callbridge::listener::{Datagram, FrameSource, Listener, TcpSource, UdpSource};
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::thread;
use tokio_util::codec::LinesCodec;

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
    for (sent, received, cut) in [
        ("123", "123", false),
        ("1234", "1234", false),
        ("12345", "1234", true),
        ("1234567890", "1234", true),
    ] {
        client.send(sent.as_bytes()).unwrap();
        let datagram = next(&mut frames);
        assert_eq!((&datagram.payload[..], datagram.truncated), (received.as_bytes(), cut));
    }
    clean(&listener);
    assert_eq!(listener.stats().source.truncated, 2, "readable after the stop, too");
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
    // It is looked up now and then, and at the end.
    let dropped = clean(&listener).source.kernel_drops.unwrap();
    assert!((1..100).contains(&dropped), "{dropped}");
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
    // Windows has but one way to have a receive not wait.
    #[cfg(windows)]
    other.set_nonblocking(false).unwrap();
    other.set_read_timeout(Some(LONG)).unwrap();
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"still open", addr).unwrap();
    let mut buffer = [0; 16];
    // What woke the stop may still lie there.
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
    client.set_read_timeout(Some(LONG)).unwrap();
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
        while frames.recv_blocking(LONG).is_ok() {}
        assert_eq!(frames.ending(), Some(Ending::Failed));
        clean(&listener);
    }
}

#[test]
fn datagram_limits_outside_the_possible_are_refused() {
    for (bytes, fine) in [(0, false), (1, true), (65_535, true), (65_536, false)] {
        assert_eq!(udp().0.with_max_datagram(bytes).is_ok(), fine, "{bytes}");
    }
}

/// What the listener's thread does with its descriptor, a source does by itself for whoever has no listener.
#[test]
fn a_source_is_read_without_a_listener_and_says_when_nothing_came() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut source = UdpSource::from_socket(socket).unwrap();
    source.set_poll_timeout(MS).unwrap();
    assert_eq!(source.next_frame().unwrap_err().kind(), ErrorKind::WouldBlock);
    client.send_to(b"ping", source.local_addr().unwrap()).unwrap();
    assert_eq!(&source.next_frame().unwrap().unwrap().payload[..], b"ping");

    let (ours, theirs) = pair();
    let mut source = TcpSource::from_socket(ours, 80, LinesCodec::new()).unwrap();
    source.set_poll_timeout(MS).unwrap();
    assert_eq!(source.peer_addr().unwrap(), theirs.local_addr().unwrap());
    assert_eq!(source.next_frame().unwrap_err().kind(), ErrorKind::WouldBlock);
    say(&theirs, "ping\n");
    assert_eq!(source.next_frame().unwrap().as_deref(), Some("ping"));
    drop(theirs);
    assert_eq!(source.next_frame().unwrap(), None);
}
