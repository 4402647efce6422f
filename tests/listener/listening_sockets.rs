//! The sockets that servers listen on: injected ones, others' and ports.

use crate::support::*;
use callbridge::channel::Ending;
use callbridge::listener::{Listener, TcpServer};
use std::io::ErrorKind;
use std::net::TcpListener;
use tokio_util::codec::LinesCodec;

#[test]
fn an_injected_listening_socket_is_left_listening_for_its_other_owners() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    let other = socket.try_clone().unwrap();
    let server = TcpServer::from_socket(socket, 100, LinesCodec::new).unwrap();
    assert_eq!(server.local_addr().unwrap(), addr);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let first = connect(addr);
    say(&first, "hi\n");
    assert_eq!(frame(&mut next(&mut connections)), "hi");
    clean(&listener);
    // Nothing of the stop waits there.
    let client = connect(addr);
    let (_, peer) = other.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[test]
#[cfg_attr(windows, ignore = "a listening socket can't be shut down there")]
fn a_server_whose_listening_socket_was_shut_down_ends() {
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = listening.try_clone().unwrap();
    let server = TcpServer::from_socket(listening, 1024, LinesCodec::new).unwrap();
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    socket2::SockRef::from(&other).shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(end(&mut connections), Ending::Failed);
    assert!(listener.error().is_some());
    clean(&listener);
}

#[test]
fn a_socket_that_doesnt_listen_is_refused() {
    let plain = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let refused = TcpServer::from_socket(plain, 100, LinesCodec::new);
    if cfg!(target_os = "linux") {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(TcpServer::bind("127.0.0.1:0", 0, LinesCodec::new).is_err());
}

#[test]
fn a_port_in_use_is_an_error() {
    let (_server, addr) = lines(10);
    let refused = TcpServer::bind(addr, 10, LinesCodec::new).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AddrInUse);
}

#[test]
fn a_port_can_be_bound_again_right_after_the_stop() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let _client = connect(addr);
    drop(next(&mut connections));
    clean(&listener);
    let server = TcpServer::bind(addr, 100, LinesCodec::new).unwrap();
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let _client = connect(addr);
    drop(next(&mut connections));
    clean(&listener);
}
