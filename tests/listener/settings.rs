//! Settings: which are refused, what the extremes do, what can be sent and shared.

use crate::common::{SHORT, eventually};
use crate::support::*;
use bytes::Bytes;
use callbridge::SettingError;
use callbridge::channel;
use callbridge::channel::Ending;
use callbridge::listener::{
    Connection, ConnectionHandle, DatagramSource, FrameSink, Inbox, Listener, LoopHandle,
    ReadSource, Replier, TcpServer, TcpSource,
};
use std::io::ErrorKind;
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio_util::codec::LinesCodec;
use tokio_util::sync::CancellationToken;

#[test]
fn settings_that_make_no_sense_are_refused_with_a_reason() {
    let refused = Listener::builder(udp().0).capacity(0).spawn().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let reason = refused.get_ref().unwrap().downcast_ref::<SettingError>();
    assert_eq!(reason.map(SettingError::setting), Some("capacity"));

    let refused = Listener::builder(udp().0).poll_timeout(Duration::ZERO).spawn().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    let refused = Listener::builder(udp().0).name("a\0b").spawn().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
}

/// Linux takes 1 to 32 767 s.
#[test]
fn a_keepalive_that_the_system_wouldnt_take_turns_nobody_away() {
    let server = |time| {
        let server = TcpServer::bind("127.0.0.1:0", 100, LinesCodec::new).unwrap();
        Listener::builder(server.with_keepalive(time)).spawn()
    };
    for time in [Duration::from_nanos(1), Duration::MAX] {
        let (listener, mut connections) = server(time).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        eventually("a connection", || {
            listener.stats().accepted + listener.stats().accept_errors > 0
        });
        assert!(connections.recv_blocking(SHORT).is_ok(), "{time:?}: {:?}", listener.stats());
    }
}

#[test]
fn a_zero_that_would_turn_everybody_away_is_refused() {
    type Server = TcpServer<fn() -> LinesCodec>;
    type Set = fn(Server) -> Server;
    let zeros: [(&str, Set); 6] = [
        ("with_connection_capacity", |server| server.with_connection_capacity(0)),
        ("with_max_connections", |server| server.with_max_connections(0)),
        ("with_max_connections_per_peer", |server| server.with_max_connections_per_peer(0)),
        ("with_idle_timeout", |server| server.with_idle_timeout(Duration::ZERO)),
        ("with_frame_timeout", |server| server.with_frame_timeout(Duration::ZERO)),
        ("with_keepalive", |server| server.with_keepalive(Duration::ZERO)),
    ];
    for (setting, set) in zeros {
        let make: fn() -> LinesCodec = LinesCodec::new;
        let server = TcpServer::bind("127.0.0.1:0", 100, make).unwrap();
        let refused = Listener::builder(set(server)).spawn().unwrap_err();
        let reason = refused.get_ref().unwrap().downcast_ref::<SettingError>();
        assert_eq!(reason.map(SettingError::setting), Some(setting));
    }
}

#[test]
fn the_longest_poll_timeout_doesnt_overflow_and_still_stops() {
    let (source, client) = udp();
    let (listener, mut frames) =
        Listener::builder(source).poll_timeout(Duration::MAX).spawn().unwrap();
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

#[test]
fn the_handles_can_be_sent_and_shared() {
    fn both<T: Send + Sync>() {}
    fn send<T: Send>() {}
    both::<Listener>();
    both::<Replier>();
    both::<ConnectionHandle>();
    both::<FrameSink<Bytes>>();
    both::<LoopHandle<Bytes>>();
    send::<Connection<LinesCodec>>();
    send::<Inbox<Bytes>>();
    send::<DatagramSource<UdpSocket>>();
    send::<TcpSource<LinesCodec>>();
    send::<ReadSource<TcpStream, LinesCodec>>();
}
