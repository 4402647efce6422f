//! A slow request costs nobody else: other peers, later requests, requests of the same read.

use crate::common::{LONG, eventually};
use crate::support::*;
use bytes::{Bytes, BytesMut};
use callbridge::Bridge;
use callbridge::listener::{
    ConnectionHandle, Datagram, FirstPoll, Listener, Request, TcpServer, UdpSource,
};
use std::net::{Shutdown, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::codec::{Decoder, Encoder, LinesCodec, LinesCodecError};

/// An echo; "slow" waits until the gate is opened.
fn udp_echo(source: UdpSource, bridge: &Bridge) -> (Listener, mpsc::Receiver<Bytes>, Arc<Notify>) {
    let (entered, begun) = mpsc::channel();
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let listener = Listener::builder(source)
        .serve(bridge, move |datagram: Datagram| {
            entered.send(datagram.payload.clone()).unwrap();
            let gate = Arc::clone(&gate);
            async move {
                if datagram.payload == "slow" {
                    gate.notified().await;
                }
                Some(datagram.payload)
            }
        })
        .reply_timeout(Duration::MAX)
        .spawn()
        .unwrap();
    (listener, begun, opened)
}

#[test]
fn a_slow_datagram_doesnt_hold_up_a_later_one_of_another_client() {
    let (_loop, bridge) = event_loop();
    let (source, slow) = udp();
    let quick = UdpSocket::bind("127.0.0.1:0").unwrap();
    quick.connect(source.local_addr().unwrap()).unwrap();
    quick.set_read_timeout(Some(LONG)).unwrap();
    let (listener, begun, gate) = udp_echo(source, &bridge);
    slow.send(b"slow").unwrap();
    assert_eq!(begun.recv_timeout(LONG).unwrap(), "slow");
    // It is at work for as long as we like; more of them than there are loop threads.
    for n in 0..10 {
        slow.send(b"slow").unwrap();
        assert_eq!(ask(&quick, &n.to_string()), n.to_string());
    }
    for _ in 0..11 {
        gate.notify_one();
        assert_eq!(slow.recv(&mut [0; 8]).unwrap(), 4);
    }
    assert_eq!(clean(&listener).replies, 21);
}

#[test]
fn a_slow_datagram_doesnt_hold_up_the_ready_reply_of_one_read_with_it() {
    let (_loop, bridge) = event_loop();
    let (source, slow) = udp();
    slow.send(b"slow").unwrap();
    slow.send(b"quick").unwrap();
    let (listener, _begun, gate) = udp_echo(source, &bridge);
    let mut reply = [0; 8];
    assert_eq!(slow.recv(&mut reply).unwrap(), 5);
    gate.notify_one();
    assert_eq!(slow.recv(&mut reply).unwrap(), 4);
    clean(&listener);
}

/// Its reply waits for its turn; its handler doesn't.
#[test]
fn a_request_that_comes_later_is_at_work_beside_an_earlier_one() {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(1024);
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let (entered, begun) = mpsc::channel();
    let listener = Listener::builder(server)
        .serve(&bridge, move |request: Request<String>| {
            entered.send(()).unwrap();
            let both = Arc::clone(&both);
            async move {
                both.wait().await;
                Some(request.frame)
            }
        })
        .spawn()
        .unwrap();
    let client = talk(addr);
    say(client.get_ref(), "one\n");
    begun.recv_timeout(LONG).unwrap();
    say(client.get_ref(), "two\n");
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(client.into_inner()), b"one\ntwo\n");
    clean(&listener);
}

/// Handlers that compute before their first await run on the listener's thread one after the other; begun
/// on the loop, they run on all of its threads.
#[test]
fn requests_of_one_read_that_compute_run_at_the_same_time_on_the_loop() {
    let (_loop, bridge) = event_loop();
    let inside = Arc::new(AtomicUsize::new(0));
    let (server, addr) = lines(1024);
    let listener = Listener::builder(server)
        .serve(&bridge, move |request: Request<String>| {
            let inside = Arc::clone(&inside);
            async move {
                inside.fetch_add(1, Ordering::SeqCst);
                eventually("the other one", || inside.load(Ordering::SeqCst) == 2);
                Some(request.frame)
            }
        })
        .first_poll(FirstPoll::OnLoop)
        .spawn()
        .unwrap();
    let client = connect(addr);
    say(&client, "1\n2\n");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(client), b"1\n2\n");
    clean(&listener);
}

#[test]
fn each_request_of_one_read_is_a_call_in_the_bridges_counters() {
    let (_loop, bridge) = event_loop();
    let (listener, addr) = echo(&bridge);
    let client = connect(addr);
    say(&client, "1\n2\n");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(client), b"1\n2\n");
    assert_eq!((listener.stats().requests, bridge.stats().submitted), (2, 2));
    clean(&listener);
}

/// A first poll that holds the thread is counted, and those after it begin on the loop.
#[test]
fn a_handler_that_holds_the_thread_is_counted_and_its_successors_begin_on_the_loop() {
    let (_loop, bridge) = event_loop();
    let (source, client) = udp();
    let own = Arc::new(Mutex::new(Vec::new()));
    let places = Arc::clone(&own);
    let listener = Listener::builder(source)
        .name("held")
        .serve(&bridge, move |datagram: Datagram| {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            places.lock().unwrap().push(name);
            if datagram.payload == "slow" {
                std::thread::sleep(20 * MS);
            }
            async move { Some(datagram.payload) }
        })
        .spawn()
        .unwrap();
    assert_eq!(ask(&client, "slow"), "slow");
    assert_eq!(ask(&client, "next"), "next");
    let stats = clean(&listener);
    assert_eq!(stats.slow_polls, 1, "{stats:?}");
    let places = own.lock().unwrap().clone();
    assert_eq!(places[0], "held");
    assert_ne!(places[1], "held", "{places:?}");
}

/// Takes a millisecond to encode a reply.
struct SlowEncoder(LinesCodec);

impl Decoder for SlowEncoder {
    type Item = String;
    type Error = LinesCodecError;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<String>, LinesCodecError> {
        self.0.decode(bytes)
    }
}

impl Encoder<String> for SlowEncoder {
    type Error = LinesCodecError;

    fn encode(&mut self, line: String, bytes: &mut BytesMut) -> Result<(), LinesCodecError> {
        std::thread::sleep(MS);
        self.0.encode(line, bytes)
    }
}

#[test]
fn what_a_codec_takes_doesnt_send_the_handlers_to_the_loop() {
    let (_loop, bridge) = event_loop();
    let codec = || SlowEncoder(LinesCodec::new());
    let server = TcpServer::bind("127.0.0.1:0", 1024, codec).unwrap();
    let addr = server.local_addr().unwrap();
    let listener = Listener::builder(server)
        .name("codec")
        .serve(&bridge, |_: Request<String>| {
            let place = std::thread::current().name().unwrap_or_default().to_owned();
            async { Some(place) }
        })
        .spawn()
        .unwrap();
    let mut client = talk(addr);
    say(client.get_ref(), &"where?\n".repeat(100));
    let here = (0..100).filter(|_| hear(&mut client).contains("codec")).count();
    // One whose thread had to wait for its turn was slow.
    assert!(here > 50, "{here} of 100");
    clean(&listener);
}

// --- a request's connection --------------------------------------------------------------------

#[test]
fn a_handler_may_close_its_connection_after_its_reply() {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(1024);
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<String>| async move {
            assert!(request.deadline.is_some_and(|deadline| deadline > Instant::now()));
            if request.frame == "quit" {
                request.connection.close();
            }
            Some(request.frame)
        })
        .spawn()
        .unwrap();
    let client = connect(addr);
    say(&client, "hello\nquit\n");
    assert_eq!(read_all(client), b"hello\nquit\n");
    wait_for(&listener, |stats| stats.open == 0);
    let stats = clean(&listener);
    assert_eq!((stats.replies, stats.failed_connections), (2, 0), "{stats:?}");
}

/// A peer that leaves while its request is at work is told to whoever asks.
#[test]
fn a_request_is_told_when_its_peer_is_gone() {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(1024);
    let (tell, told) = mpsc::channel();
    let listener = Listener::builder(server)
        .serve(&bridge, move |request: Request<String>| {
            let tell = tell.clone();
            async move {
                request.connection.gone().cancelled().await;
                tell.send(request.connection.is_open()).unwrap();
                None::<String>
            }
        })
        .spawn()
        .unwrap();
    let client = connect(addr);
    say(&client, "wait\n");
    wait_for(&listener, |stats| stats.in_flight == 1);
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(told.recv_timeout(LONG), Ok(false));
    clean(&listener);
}

/// The room of one that was ready at once is free for the next, also where that begins on the loop.
#[test]
fn a_bridge_with_room_for_one_refuses_none_of_those_behind_a_slow_one() {
    let (event_loop, _) = event_loop();
    let bridge = Bridge::builder(event_loop.handle().clone()).max_in_flight(1).build().unwrap();
    let (server, addr) = lines(1024);
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<String>| async move {
            if request.frame == "slow" {
                std::thread::sleep(Duration::from_millis(1));
            }
            Some(request.frame)
        })
        .spawn()
        .unwrap();
    let mut client = talk(addr);
    say(client.get_ref(), "slow\nquick\n");
    for line in ["slow", "quick"] {
        assert_eq!(hear(&mut client), line);
    }
    assert_eq!(clean(&listener).replies, 2);
    assert_eq!(bridge.stats().refused, 0);
}

/// A handler can be tested without a listener.
#[test]
fn requests_can_be_made_by_hand() {
    async fn shout(request: Request<String>) -> Option<String> {
        let handle: ConnectionHandle = request.connection;
        (!handle.is_open()).then(|| request.frame.to_uppercase())
    }
    let shouted = futures_executor::block_on(shout(Request::new("hey".to_owned())));
    assert_eq!(shouted.as_deref(), Some("HEY"));
    let peer = ([127, 0, 0, 1], 1).into();
    let datagram: Datagram = Datagram::new("payload", peer);
    assert_eq!((&datagram.payload[..], datagram.truncated), (&b"payload"[..], false));
}
