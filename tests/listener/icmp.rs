//! Errors that the network reports about a datagram that was sent: they are counted, and end nothing.

use crate::support::*;
use callbridge::listener::{Datagram, Listener, UdpSource};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into());
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// Sends a packet past UDP; `false` where that isn't allowed, and there is nothing to test.
fn send_raw(domain: Domain, protocol: Protocol, packet: &[u8], to: SocketAddr) -> bool {
    let Ok(raw) = Socket::new(domain, Type::RAW, Some(protocol)) else {
        eprintln!("raw sockets aren't allowed here");
        return false;
    };
    raw.send_to(packet, &to.into()).unwrap();
    true
}

/// Sends an ICMP error about a datagram from the local `from` to the local `to`, as a router would.
fn icmp(from: SocketAddr, to: SocketAddr, kind: u8, code: u8, rest: [u8; 4]) -> bool {
    let mut ip = vec![0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 1];
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![kind, code, 0, 0];
    packet.extend(rest);
    packet.extend(ip);
    packet.extend(from.port().to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    send_raw(Domain::IPV4, Protocol::ICMPV4, &packet, ([127, 0, 0, 1], 0).into())
}

/// Two connected sockets: the listener's, and its peer's.
fn connected(local: &str) -> (UdpSocket, UdpSocket) {
    let ours = UdpSocket::bind(local).unwrap();
    let peer = UdpSocket::bind(local).unwrap();
    ours.connect(peer.local_addr().unwrap()).unwrap();
    peer.connect(ours.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(crate::common::LONG)).unwrap();
    (ours, peer)
}

/// The listener meets the error that `report` brings about; what its peer then sends arrives.
fn survives(local: &str, report: impl FnOnce(SocketAddr, SocketAddr) -> bool) {
    let (ours, peer) = connected(local);
    let (from, to) = (ours.local_addr().unwrap(), peer.local_addr().unwrap());
    let (listener, mut frames) =
        Listener::builder(UdpSource::from_socket(ours).unwrap()).spawn().unwrap();
    if !report(from, to) {
        return;
    }
    wait_for(&listener, |stats| stats.source.transient_errors > 0 || listener.is_finished());
    let _ = peer.send(b"here");
    let frame = frames.recv_blocking(crate::common::LONG);
    assert!(frame.is_ok(), "ended as {:?}: {:?}", listener.ending(), listener.error());
    clean(&listener);
}

#[test]
fn no_icmp_error_ends_a_udp_listener() {
    let mtu = 1000_u16.to_be_bytes();
    let errors = [
        ("port unreachable", 3, 3, [0; 4]),
        ("fragmentation needed", 3, 4, [0, 0, mtu[0], mtu[1]]),
        ("protocol unreachable", 3, 2, [0; 4]),
        ("host unknown", 3, 7, [0; 4]),
        ("host isolated", 3, 8, [0; 4]),
        ("administratively prohibited", 3, 13, [0; 4]),
        ("parameter problem", 12, 0, [0; 4]),
    ];
    for (name, kind, code, rest) in errors {
        println!("{name}");
        survives("127.0.0.1:0", |from, to| icmp(from, to, kind, code, rest));
    }
}

/// "Administratively prohibited", with which firewalls reject: EACCES.
#[test]
fn no_icmp6_error_ends_a_udp_listener() {
    survives("[::1]:0", |from, to| {
        let local = Ipv6Addr::LOCALHOST.octets();
        let mut packet = vec![1, 1, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 8, 17, 64];
        packet.extend(local);
        packet.extend(local);
        packet.extend(from.port().to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend([0, 8, 0, 0]);
        // The kernel makes the checksum.
        let at = (Ipv6Addr::LOCALHOST, 0).into();
        send_raw(Domain::IPV6, Protocol::ICMPV6, &packet, at)
    });
}

#[test]
fn no_icmp_error_ends_a_udp_service() {
    let (_loop, bridge) = event_loop();
    let (ours, peer) = connected("127.0.0.1:0");
    let (from, to) = (ours.local_addr().unwrap(), peer.local_addr().unwrap());
    let listener = Listener::builder(UdpSource::from_socket(ours).unwrap())
        .serve(&bridge, |datagram: Datagram| async move { Some(datagram.payload) })
        .spawn()
        .unwrap();
    if !icmp(from, to, 3, 4, [0, 0, 3, 232]) {
        return;
    }
    wait_for(&listener, |stats| stats.source.transient_errors > 0 || listener.is_finished());
    assert_eq!(ask(&peer, "here"), "here");
    clean(&listener);
}

/// An error that is pending when a reply is sent is another datagram's.
#[test]
fn a_pending_icmp_error_doesnt_cost_the_next_reply() {
    let (_loop, bridge) = event_loop();
    let (ours, peer) = connected("127.0.0.1:0");
    let (from, to) = (ours.local_addr().unwrap(), peer.local_addr().unwrap());
    let listener = Listener::builder(UdpSource::from_socket(ours).unwrap())
        .serve(&bridge, move |datagram: Datagram| async move {
            icmp(from, to, 3, 3, [0; 4]);
            Some(datagram.payload)
        })
        .spawn()
        .unwrap();
    for n in 0..10 {
        assert_eq!(ask(&peer, &n.to_string()), n.to_string());
    }
    assert_eq!(clean(&listener).reply_errors, 0);
}
