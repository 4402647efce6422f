//! Requests answered by an async handler: which replies go where, in which order.

use crate::support::*;
use bytes::BytesMut;
use callbridge::Bridge;
use callbridge::channel::Ending;
use callbridge::listener::{
    Datagram, FirstPoll, FrameSource, Interrupter, Listener, Request, RequestSource, TcpServer,
    TcpSource,
};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio_util::codec::{LengthDelimitedCodec, LinesCodec};

#[test]
fn datagrams_are_answered_on_both_flavours_of_loop() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let driver = thread::spawn(move || undriven.block_on(stopped.notified()));
    let (_runtime, multi) = event_loop();
    for bridge in [bridge, multi] {
        for pipeline in [0, 1, 8] {
            let (source, client) = udp();
            let listener = Listener::builder(source)
                .serve(&bridge, |d: Datagram| async move {
                    tokio::task::yield_now().await;
                    Some([b"re: ", &d.payload[..]].concat())
                })
                .pipeline(pipeline)
                .spawn()
                .unwrap();
            for n in 0..20 {
                assert_eq!(ask(&client, &n.to_string()), format!("re: {n}"));
            }
            assert_eq!(clean(&listener).replies, 20);
        }
    }
    stop.notify_one();
    driver.join().unwrap();
}

#[test]
fn a_handler_may_choose_not_to_reply() {
    let (_runtime, bridge) = event_loop();
    let (source, client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move { (d.payload != "hush").then_some(d.payload) })
        .spawn()
        .unwrap();
    client.send(b"hush").unwrap();
    assert_eq!(ask(&client, "loud"), "loud");
    let stats = clean(&listener);
    assert_eq!((stats.requests, stats.replies, stats.no_reply), (2, 1, 1));
}

#[test]
fn a_connection_is_served_with_its_number_and_peer() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines(1 << 20);
    let listener = Listener::builder(server)
        .name("asked")
        .serve(&bridge, |request: Request<String>| async move {
            let Request { frame, connection, .. } = request;
            Some(format!("{} {} {frame}", connection.id(), connection.peer()))
        })
        .spawn()
        .unwrap();
    for number in 1..=3 {
        let mut client = talk(addr);
        say(client.get_ref(), "hi\n");
        let me = client.get_ref().local_addr().unwrap();
        assert_eq!(hear(&mut client), format!("{number} {me} hi"));
    }
    assert_eq!(clean(&listener).accepted, 3);
}

#[test]
fn replies_keep_the_order_of_requests_however_long_each_takes() {
    let (_runtime, bridge) = event_loop();
    let server = TcpServer::bind("127.0.0.1:0", 1024, LengthDelimitedCodec::new).unwrap();
    let addr = server.local_addr().unwrap();
    let at_once = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = Arc::clone(&at_once);
    let listener = Listener::builder(server)
        .serve(&bridge, move |request: Request<BytesMut>| {
            let seen = Arc::clone(&seen);
            async move {
                let now = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
                seen.1.fetch_max(now, Ordering::SeqCst);
                // The later the request, the sooner it is done.
                let turns = 64 - u64::from(request.frame[0] % 64);
                tokio::time::sleep(Duration::from_micros(turns * 50)).await;
                seen.0.fetch_sub(1, Ordering::SeqCst);
                Some(request.frame.freeze())
            }
        })
        .pipeline(16)
        .spawn()
        .unwrap();
    let mut client = talk(addr);
    let mut all = Vec::new();
    for n in 0..200 {
        all.extend_from_slice(&[0, 0, 0, 1, n]);
    }
    client.get_ref().write_all(&all).unwrap();
    let mut back = vec![0; all.len()];
    client.read_exact(&mut back).unwrap();
    assert_eq!(back, all);
    let most = at_once.1.load(Ordering::SeqCst);
    assert!((2..=16).contains(&most), "{most} at once");
    assert_eq!(clean(&listener).replies, 200);
}

#[test]
fn without_a_pipeline_requests_run_one_at_a_time() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines(1 << 20);
    let busy = Arc::new(AtomicUsize::new(0));
    let listener = Listener::builder(server)
        .serve(&bridge, move |request: Request<String>| {
            let busy = Arc::clone(&busy);
            async move {
                assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                busy.fetch_sub(1, Ordering::SeqCst);
                Some(request.frame)
            }
        })
        .pipeline(1)
        .spawn()
        .unwrap();
    let mut client = talk(addr);
    say(client.get_ref(), &(0..100).map(|n| format!("{n}\n")).collect::<String>());
    for n in 0..100 {
        assert_eq!(hear(&mut client), n.to_string());
    }
    assert_eq!(clean(&listener).panicked, 0);
}

#[test]
fn a_ready_reply_doesnt_wait_for_a_slow_one_behind_it() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines(1 << 20);
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let listener = Listener::builder(server)
        .serve(&bridge, move |request: Request<String>| {
            let gate = Arc::clone(&gate);
            async move {
                if request.frame == "slow" {
                    gate.notified().await;
                }
                Some(request.frame)
            }
        })
        .pipeline(4)
        .spawn()
        .unwrap();
    let mut client = talk(addr);
    say(client.get_ref(), "fast\nslow\nlast\n");
    assert_eq!(hear(&mut client), "fast");
    opened.notify_one();
    assert_eq!((hear(&mut client), hear(&mut client)), ("slow".into(), "last".into()));
    clean(&listener);
}

#[test]
fn a_peer_that_ends_its_side_still_gets_every_reply() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines(1 << 20);
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<String>| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some(request.frame)
        })
        .pipeline(8)
        .spawn()
        .unwrap();
    let mut client = talk(addr);
    say(client.get_ref(), "a\nb\nc");
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all, "a\nb\nc\n");
    assert_eq!(clean(&listener).replies, 3);
}

#[test]
fn a_connected_source_can_be_served() {
    let (_runtime, bridge) = event_loop();
    let device = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = TcpSource::connect(device.local_addr().unwrap(), 100, LinesCodec::new()).unwrap();
    let mut device = BufReader::new(device.accept().unwrap().0);
    let listener = Listener::builder(source)
        .serve(&bridge, |question: String| async move { Some(format!("{question} yes")) })
        .spawn()
        .unwrap();
    say(device.get_ref(), "alive?\n");
    assert_eq!(hear(&mut device), "alive? yes");
    drop(device);
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(listener.ending(), Some(Ending::Finished));
    clean(&listener);
}

#[test]
fn a_source_of_ones_own_can_be_served() {
    struct Queue {
        requests: mpsc::Receiver<u32>,
        replies: Arc<Mutex<Vec<(u32, u32)>>>,
    }
    impl FrameSource for Queue {
        type Frame = u32;
        fn next_frame(&mut self) -> io::Result<Option<u32>> {
            match self.requests.recv_timeout(Duration::from_millis(10)) {
                Ok(request) => Ok(Some(request)),
                Err(mpsc::RecvTimeoutError::Timeout) => Err(ErrorKind::TimedOut.into()),
                Err(mpsc::RecvTimeoutError::Disconnected) => Ok(None),
            }
        }
        fn interrupter(&self) -> Interrupter {
            Interrupter::default()
        }
    }
    impl RequestSource<u32> for Queue {
        type Address = u32;
        fn address(&mut self, frame: &mut u32) -> u32 {
            *frame
        }
        fn answer(&mut self, to: u32, reply: u32) -> io::Result<bool> {
            self.replies.lock().unwrap().push((to, reply));
            Ok(true)
        }
    }
    let (_runtime, bridge) = event_loop();
    let (ask, requests) = mpsc::channel();
    let replies = Arc::new(Mutex::new(Vec::new()));
    let source = Queue { requests, replies: Arc::clone(&replies) };
    let listener = Listener::builder(source)
        .serve(&bridge, |n: u32| async move { Some(n * n) })
        .spawn()
        .unwrap();
    (0..5).for_each(|n| ask.send(n).unwrap());
    drop(ask);
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(*replies.lock().unwrap(), [(0, 0), (1, 1), (2, 4), (3, 9), (4, 16)]);
    assert_eq!(clean(&listener).replies, 5);
}

/// A handler that needs nothing of the loop is answered by the listener's thread alone.
#[test]
fn a_handler_that_is_ready_at_once_needs_no_loop() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let (source, client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move { Some(d.payload) })
        .spawn()
        .unwrap();
    assert_eq!(ask(&client, "hello?"), "hello?");
    assert_eq!(clean(&listener).replies, 1);
    let stats = bridge.stats();
    assert_eq!((stats.submitted, stats.finished, stats.in_flight), (1, 1, 0), "{stats:?}");
}

/// What blocks in a handler's first poll would stop the loop if it ran there: it is refused here, too.
#[test]
fn blocking_in_a_handler_is_refused_where_it_is_polled_first() {
    let (_runtime, bridge) = event_loop();
    for place in [FirstPoll::Here, FirstPoll::OnLoop] {
        let (source, client) = udp();
        let own = bridge.clone();
        let listener = Listener::builder(source)
            .serve(&bridge, move |_: Datagram| {
                let refused = own.call(async {}, None).is_err();
                async move { Some(refused.to_string()) }
            })
            .first_poll(place)
            .spawn()
            .unwrap();
        assert_eq!(ask(&client, "blocks?"), "true", "{place:?}");
        assert_eq!(clean(&listener).replies, 1);
    }
}
