//! Requests answered by an async handler: order, timeouts, panics, stops, a loop that goes away.

use bytes::{Bytes, BytesMut};
use callbridge::listener::{
    Datagram, FirstPoll, FrameSource, Interrupter, Listener, ListenerStats, Request, RequestSource,
    TcpServer, TcpSource, UdpSource, Unanswered,
};
use callbridge::{Bridge, Ending};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio_util::codec::{Encoder, LengthDelimitedCodec, LinesCodec};
use tokio_util::sync::CancellationToken;

/// A reply timeout that hanging requests run into and others, also on a busy machine, do not.
const LATE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(30);

fn event_loop() -> (Runtime, Bridge) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let bridge = Bridge::new(runtime.handle().clone());
    (runtime, bridge)
}

fn udp() -> (UdpSource, UdpSocket) {
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(source.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (source, client)
}

fn ask(client: &UdpSocket, request: &str) -> String {
    client.send(request.as_bytes()).unwrap();
    let mut reply = [0; 1024];
    let n = client.recv(&mut reply).unwrap();
    String::from_utf8(reply[..n].to_vec()).unwrap()
}

fn lines() -> (TcpServer<fn() -> LinesCodec>, SocketAddr) {
    let server = TcpServer::bind("127.0.0.1:0", 1 << 20, LinesCodec::new as fn() -> _).unwrap();
    let addr = server.local_addr().unwrap();
    (server, addr)
}

fn connect(addr: SocketAddr) -> BufReader<TcpStream> {
    let client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    BufReader::new(client)
}

fn say(client: &mut BufReader<TcpStream>, lines: &str) {
    client.get_mut().write_all(lines.as_bytes()).unwrap();
}

fn hear(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// Stops the listener; its books must balance, with nothing in flight.
fn clean(listener: &Listener) -> ListenerStats {
    let report = listener.shutdown_blocking(PATIENCE);
    assert!(report.is_clean() && !report.would_deadlock, "{report}");
    let stats = report.stats;
    assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
    stats
}

fn wait_for(listener: &Listener, what: impl Fn(&ListenerStats) -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !what(&listener.stats()) {
        assert!(std::time::Instant::now() < deadline, "{:?}", listener.stats());
        thread::yield_now();
    }
}

// --- replies -----------------------------------------------------------------------------------

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
    let (server, addr) = lines();
    let listener = Listener::builder(server)
        .name("asked")
        .serve(&bridge, |request: Request<String>| async move {
            Some(format!("{} {} {}", request.connection, request.peer, request.frame))
        })
        .spawn()
        .unwrap();
    for number in 1..=3 {
        let mut client = connect(addr);
        say(&mut client, "hi\n");
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
    let mut client = connect(addr);
    let mut all = Vec::new();
    for n in 0..200 {
        all.extend_from_slice(&[0, 0, 0, 1, n]);
    }
    client.get_mut().write_all(&all).unwrap();
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
    let (server, addr) = lines();
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
        .spawn()
        .unwrap();
    let mut client = connect(addr);
    say(&mut client, &(0..100).map(|n| format!("{n}\n")).collect::<String>());
    for n in 0..100 {
        assert_eq!(hear(&mut client), n.to_string());
    }
    assert_eq!(clean(&listener).panicked, 0);
}

#[test]
fn a_ready_reply_doesnt_wait_for_a_slow_one_behind_it() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines();
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
    let mut client = connect(addr);
    say(&mut client, "fast\nslow\nlast\n");
    assert_eq!(hear(&mut client), "fast");
    opened.notify_one();
    assert_eq!((hear(&mut client), hear(&mut client)), ("slow".into(), "last".into()));
    clean(&listener);
}

#[test]
fn a_peer_that_ends_its_side_still_gets_every_reply() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines();
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<String>| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Some(request.frame)
        })
        .pipeline(8)
        .spawn()
        .unwrap();
    let mut client = connect(addr);
    say(&mut client, "a\nb\nc");
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all, "a\nb\nc\n");
    assert_eq!(clean(&listener).replies, 3);
}

#[test]
fn requests_before_a_bad_frame_are_answered_before_the_connection_closes() {
    let (_runtime, bridge) = event_loop();
    let server = TcpServer::bind("127.0.0.1:0", 10, LinesCodec::new).unwrap();
    let addr = server.local_addr().unwrap();
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<String>| async move { Some(request.frame) })
        .pipeline(8)
        .spawn()
        .unwrap();
    let mut client = connect(addr);
    say(&mut client, "a\nb\nmuch too long a line\n");
    let mut all = Vec::new();
    match client.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert_eq!(all, b"a\nb\n");
    wait_for(&listener, |stats| stats.open == 0);
    let stats = clean(&listener);
    assert_eq!((stats.replies, stats.decode_errors), (2, 1));
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
    say(&mut device, "alive?\n");
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
            Interrupter::none()
        }
    }
    impl RequestSource<u32> for Queue {
        type Address = u32;
        fn address(&self, frame: &u32) -> u32 {
            *frame
        }
        fn answer(&mut self, to: &u32, reply: u32) -> io::Result<bool> {
            self.replies.lock().unwrap().push((*to, reply));
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

// --- late, panicking, unencodable --------------------------------------------------------------

#[test]
fn a_late_reply_is_counted_cancelled_and_replaced_by_the_fallback() {
    struct Tell(mpsc::Sender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (_runtime, bridge) = event_loop();
    let (source, client) = udp();
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let listener = Listener::builder(source)
        .serve(&bridge, move |d: Datagram| {
            let tell = Tell(tell.lock().unwrap().clone());
            async move {
                if d.payload == "hang" {
                    std::future::pending::<()>().await;
                }
                drop(tell);
                Some(d.payload)
            }
        })
        .reply_timeout(LATE)
        .fallback(|why| (why == Unanswered::TimedOut).then(|| Bytes::from("busy")))
        .spawn()
        .unwrap();
    assert_eq!(ask(&client, "hang"), "busy");
    told.recv_timeout(PATIENCE).expect("the hanging handler was dropped");
    assert_eq!(ask(&client, "fine"), "fine");
    let stats = clean(&listener);
    assert_eq!((stats.requests, stats.replies, stats.late, stats.fallbacks), (2, 1, 1, 1));
}

#[test]
fn a_late_reply_without_a_fallback_is_only_counted_if_told_so() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines();
    let listener = Listener::builder(server)
        .serve(&bridge, hang_or_echo)
        .reply_timeout(LATE)
        .close_on_missing_reply(false)
        .pipeline(3)
        .spawn()
        .unwrap();
    let mut client = connect(addr);
    say(&mut client, "a\nhang\nb\n");
    assert_eq!((hear(&mut client), hear(&mut client)), ("a".into(), "b".into()));
    let stats = clean(&listener);
    assert_eq!((stats.replies, stats.late, stats.fallbacks), (2, 1, 0));
}

async fn hang_or_echo(request: Request<String>) -> Option<String> {
    match &*request.frame {
        "hang" => std::future::pending().await,
        "panic" => panic!("as asked"),
        "hush" => None,
        _ => Some(request.frame),
    }
}

#[test]
fn a_missing_reply_closes_its_connection_after_the_replies_before_it() {
    let (_runtime, bridge) = event_loop();
    for (bad, pipeline) in [("hang", 1), ("hang", 8), ("panic", 1), ("panic", 8)] {
        let (server, addr) = lines();
        let listener = Listener::builder(server)
            .serve(&bridge, hang_or_echo)
            .reply_timeout(LATE)
            .fallback(|_| None)
            .pipeline(pipeline)
            .spawn()
            .unwrap();
        let (mut client, mut other) = (connect(addr), connect(addr));
        say(&mut client, &format!("a\nhush\nb\n{bad}\n"));
        let heard = [(); 3].map(|()| hear(&mut client));
        assert_eq!(heard, ["a", "b", ""], "then the end");
        say(&mut other, "c\n");
        assert_eq!(hear(&mut other), "c", "it costs only its own connection");
        let stats = clean(&listener);
        assert_eq!((stats.replies, stats.no_reply, stats.late + stats.panicked), (3, 1, 1));
    }
}

#[test]
fn no_reply_after_a_missing_one_is_written() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines();
    let listener = Listener::builder(server)
        .serve(&bridge, hang_or_echo)
        .reply_timeout(LATE)
        .pipeline(8)
        .spawn()
        .unwrap();
    let mut client = connect(addr);
    say(&mut client, "a\nhang\nb\nc\n");
    let mut heard = Vec::new();
    // The requests that nobody reads any more may turn the end into a reset.
    let _ = client.read_to_end(&mut heard);
    assert_eq!(heard, b"a\n");
    let stats = clean(&listener);
    assert_eq!((stats.replies, stats.late), (1, 1));
    assert_eq!(stats.requests, 2 + stats.aborted);
}

#[test]
fn a_missing_reply_ends_a_client_side_listener_as_failed() {
    let (_runtime, bridge) = event_loop();
    let device = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = TcpSource::connect(device.local_addr().unwrap(), 100, LinesCodec::new()).unwrap();
    let (mut device, _) = device.accept().unwrap();
    let listener = Listener::builder(source)
        .serve(&bridge, async |line: String| {
            assert_ne!(line, "panic");
            Some(line)
        })
        .spawn()
        .unwrap();
    device.write_all(b"panic\n").unwrap();
    wait_for(&listener, |_| listener.is_finished());
    let report = listener.shutdown_blocking(PATIENCE);
    assert_eq!(report.ending, Some(Ending::Failed));
    assert!(report.error.as_ref().unwrap().to_string().starts_with("a request has no reply"));
    assert!(report.to_string().contains("(the source failed: a request has no reply"), "{report}");
}

#[test]
fn the_shortest_and_the_longest_reply_timeout_work() {
    let (_runtime, bridge) = event_loop();
    for timeout in [Duration::ZERO, Duration::MAX] {
        let (source, client) = udp();
        let listener = Listener::builder(source)
            .serve(&bridge, |d: Datagram| async move {
                if d.payload == "hang" {
                    std::future::pending::<()>().await;
                }
                Some(d.payload)
            })
            .reply_timeout(timeout)
            .fallback(|_| Some("busy".into()))
            .spawn()
            .unwrap();
        if timeout.is_zero() {
            assert_eq!(ask(&client, "hang"), "busy");
        } else {
            assert_eq!(ask(&client, "fine"), "fine");
        }
        clean(&listener);
    }
}

#[test]
fn a_panicking_handler_costs_one_request() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines();
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<String>| {
            // In the synchronous part as well.
            assert_ne!(request.frame, "early");
            async move {
                assert_ne!(request.frame, "inside");
                Some(request.frame)
            }
        })
        .fallback(|why| Some(format!("sorry: {why:?}")))
        .pipeline(2)
        .spawn()
        .unwrap();
    let mut client = connect(addr);
    say(&mut client, "early\ninside\nfine\n");
    let heard = [(); 3].map(|()| hear(&mut client));
    assert_eq!(heard, ["sorry: Panicked", "sorry: Panicked", "fine"]);
    let stats = clean(&listener);
    assert_eq!((stats.panicked, stats.replies, stats.fallbacks), (2, 1, 2));
}

#[test]
fn a_panicking_fallback_sends_nothing() {
    let (_runtime, bridge) = event_loop();
    let (source, client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move {
            assert_ne!(d.payload, "bad");
            Some(d.payload)
        })
        .fallback(|_| panic!("worse"))
        .spawn()
        .unwrap();
    client.send(b"bad").unwrap();
    assert_eq!(ask(&client, "good"), "good");
    let stats = clean(&listener);
    assert_eq!((stats.panicked, stats.fallbacks, stats.replies), (1, 0, 1));
}

#[test]
fn a_reply_that_cant_be_encoded_costs_that_reply() {
    /// Lines in; upper-case lines out, if they are short.
    #[derive(Debug)]
    struct Short(LinesCodec);
    impl tokio_util::codec::Decoder for Short {
        type Item = String;
        type Error = tokio_util::codec::LinesCodecError;
        fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<String>, Self::Error> {
            self.0.decode(bytes)
        }
    }
    impl Encoder<String> for Short {
        type Error = io::Error;
        fn encode(&mut self, item: String, out: &mut BytesMut) -> io::Result<()> {
            out.extend_from_slice(item.as_bytes());
            if item.len() > 5 {
                return Err(io::Error::other("too long"));
            }
            out.extend_from_slice(b"\n");
            Ok(())
        }
    }
    let (_runtime, bridge) = event_loop();
    let server = TcpServer::bind("127.0.0.1:0", 100, || Short(LinesCodec::new())).unwrap();
    let addr = server.local_addr().unwrap();
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<String>| async move { Some(request.frame) })
        .close_on_missing_reply(false)
        .spawn()
        .unwrap();
    let mut client = connect(addr);
    say(&mut client, "a\nlong line\nb\n");
    assert_eq!((hear(&mut client), hear(&mut client)), ("a".into(), "b".into()));
    let stats = clean(&listener);
    assert_eq!((stats.replies, stats.reply_errors), (2, 1));
}

#[test]
fn a_peer_that_doesnt_read_its_replies_loses_its_connection_only() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines();
    let listener = Listener::builder(server)
        .poll_interval(Duration::from_millis(5))
        .write_timeout(Duration::from_millis(50))
        .serve(&bridge, |_: Request<String>| async move { Some("x".repeat(1 << 20)) })
        .pipeline(4)
        .spawn()
        .unwrap();
    let mut deaf = connect(addr);
    // More than any buffer between the two takes.
    say(&mut deaf, &"more\n".repeat(200));
    wait_for(&listener, |stats| stats.accepted == 1 && stats.open == 0);
    let mut client = connect(addr);
    say(&mut client, "me\n");
    assert_eq!(hear(&mut client).len(), 1 << 20);
    let stats = clean(&listener);
    assert!(stats.reply_errors > 0, "{stats:?}");
}

// --- limits and ends ---------------------------------------------------------------------------

#[test]
fn a_bridge_with_little_room_serves_all_the_same() {
    let (runtime, _) = event_loop();
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build();
    let (server, addr) = lines();
    let listener = Listener::builder(server)
        .serve(&bridge, |request: Request<String>| async move {
            tokio::task::yield_now().await;
            Some(request.frame)
        })
        .pipeline(16)
        .spawn()
        .unwrap();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                let mut client = connect(addr);
                say(&mut client, &(0..50).map(|n| format!("{n}\n")).collect::<String>());
                for n in 0..50 {
                    assert_eq!(hear(&mut client), n.to_string());
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(clean(&listener).replies, 200);
}

#[test]
fn a_bridge_without_room_in_time_makes_the_request_late() {
    let (runtime, _) = event_loop();
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build();
    let hog = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    let (source, client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move { Some(d.payload) })
        .reply_timeout(Duration::from_millis(60))
        .fallback(|_| Some("busy".into()))
        .spawn()
        .unwrap();
    assert_eq!(ask(&client, "anyone?"), "busy");
    client.send(b"again").unwrap();
    wait_for(&listener, |stats| stats.requests == 2);
    let stats = clean(&listener);
    assert_eq!(stats.late + stats.aborted, 2);
    drop(hog);
}

#[test]
fn a_stop_with_handlers_that_hang_is_prompt_and_cancels_them() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines();
    let listener = Listener::builder(server)
        .serve(&bridge, |_: Request<String>| std::future::pending::<Option<String>>())
        .reply_timeout(Duration::MAX)
        .pipeline(4)
        .spawn()
        .unwrap();
    let mut clients: Vec<_> = (0..4).map(|_| connect(addr)).collect();
    clients.iter_mut().for_each(|client| say(client, "a\nb\nc\nd\ne\n"));
    wait_for(&listener, |stats| stats.in_flight == 16);
    let stats = clean(&listener);
    assert_eq!(stats.aborted, 16);
    assert_eq!(listener.ending(), Some(Ending::Aborted));
    // Their futures were dropped, not left behind.
    let patience = std::time::Instant::now() + PATIENCE;
    while bridge.in_flight() > 0 {
        assert!(std::time::Instant::now() < patience);
        thread::yield_now();
    }
}

#[test]
fn a_handler_may_stop_its_own_listener() {
    let (_runtime, bridge) = event_loop();
    // By a token.
    let (source, client) = udp();
    let token = CancellationToken::new();
    let cancel = token.clone();
    let listener = Listener::builder(source)
        .stop_on(token)
        .serve(&bridge, move |d: Datagram| {
            let cancel = cancel.clone();
            async move {
                cancel.cancel();
                Some(d.payload)
            }
        })
        .spawn()
        .unwrap();
    client.send(b"stop").unwrap();
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(clean(&listener).requests, 1);

    // By the handle, even waiting for the end: the handler is cancelled at that await.
    let (source, client) = udp();
    let slot = Arc::new(Mutex::new(None::<Arc<Listener>>));
    let inside = Arc::clone(&slot);
    let listener = Listener::builder(source)
        .serve(&bridge, move |d: Datagram| {
            let listener = inside.lock().unwrap().clone();
            async move {
                if let Some(listener) = listener {
                    assert!(listener.shutdown_blocking(PATIENCE).would_deadlock);
                    let _ = listener.shutdown(PATIENCE).await;
                }
                Some(d.payload)
            }
        })
        .spawn()
        .unwrap();
    let listener = Arc::new(listener);
    *slot.lock().unwrap() = Some(Arc::clone(&listener));
    client.send(b"stop").unwrap();
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(clean(&listener).requests, 1);
    slot.lock().unwrap().take();
}

#[test]
fn a_runtime_that_is_dropped_ends_the_listener_as_loop_gone() {
    for asked in [false, true] {
        let (runtime, bridge) = event_loop();
        let (server, addr) = lines();
        let listener = Listener::builder(server)
            .serve(&bridge, |_: Request<String>| std::future::pending::<Option<String>>())
            .spawn()
            .unwrap();
        let mut client = connect(addr);
        if asked {
            say(&mut client, "anyone?\n");
            wait_for(&listener, |stats| stats.in_flight == 1);
        }
        drop(runtime);
        wait_for(&listener, |_| listener.is_finished());
        assert_eq!(listener.ending(), Some(Ending::LoopGone));
        assert_eq!(clean(&listener).aborted, u64::from(asked));
    }
}

#[test]
fn a_bridge_that_is_closed_ends_the_listener_as_loop_gone() {
    let (_runtime, bridge) = event_loop();
    let (source, client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move { Some(d.payload) })
        .spawn()
        .unwrap();
    assert_eq!(ask(&client, "hi"), "hi");
    assert!(bridge.close_blocking(PATIENCE).is_clean());
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(listener.ending(), Some(Ending::LoopGone));

    // And one that was closed before.
    let (source, _client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move { Some(d.payload) })
        .spawn()
        .unwrap();
    wait_for(&listener, |_| listener.is_finished());
    assert_eq!(listener.ending(), Some(Ending::LoopGone));
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

#[test]
fn a_loop_that_nobody_drives_makes_requests_late() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let (source, client) = udp();
    let listener = Listener::builder(source)
        .serve(&bridge, |d: Datagram| async move { Some(d.payload) })
        .first_poll(FirstPoll::OnLoop)
        .reply_timeout(Duration::from_millis(20))
        .fallback(|_| Some("nobody home".into()))
        .spawn()
        .unwrap();
    assert_eq!(ask(&client, "hello?"), "nobody home");
    assert_eq!(clean(&listener).late, 1);
}

#[test]
fn a_source_that_panics_or_fails_while_requests_are_at_work_settles_them() {
    struct Once(Option<&'static str>, bool);
    impl FrameSource for Once {
        type Frame = &'static str;
        fn next_frame(&mut self) -> io::Result<Option<&'static str>> {
            self.next_ready()
        }
        fn next_ready(&mut self) -> io::Result<Option<&'static str>> {
            match self.0.take() {
                Some(frame) => Ok(Some(frame)),
                None if self.1 => panic!("a bug in a driver"),
                None => Err(io::Error::other("unplugged")),
            }
        }
    }
    impl RequestSource<()> for Once {
        type Address = ();
        fn address(&self, _: &&'static str) {}
        fn answer(&mut self, _: &(), _: ()) -> io::Result<bool> {
            Ok(true)
        }
    }
    let (_runtime, bridge) = event_loop();
    for (panics, ending) in [(true, Ending::Panicked), (false, Ending::Failed)] {
        let listener = Listener::builder(Once(Some("request"), panics))
            .serve(&bridge, move |_: &str| async move {
                match panics {
                    true => std::future::pending().await,
                    false => tokio::task::yield_now().await,
                }
                Some(())
            })
            .pipeline(2)
            .spawn()
            .unwrap();
        wait_for(&listener, |_| listener.is_finished());
        assert_eq!(listener.ending(), Some(ending));
        let stats = clean(&listener);
        // What came before an error is still answered; a panic leaves nobody to answer it.
        assert_eq!((stats.aborted, stats.replies), if panics { (1, 0) } else { (0, 1) });
    }
}

// --- many requests of one read ------------------------------------------------------------------

/// A client that sends all its requests in one write.
fn say_at_once(listener: &Listener, requests: std::ops::Range<usize>) -> BufReader<TcpStream> {
    let mut client = connect(listener.local_addr().unwrap());
    let lines: Vec<String> = requests.map(|n| format!("{n}\n")).collect();
    say(&mut client, &lines.concat());
    client
}

#[test]
fn requests_of_one_read_that_wait_are_at_work_at_the_same_time() {
    for room in [10, 1000] {
        let (runtime, _) = event_loop();
        let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(room).build();
        let all_there = Arc::new(tokio::sync::Barrier::new(10));
        let listener = Listener::builder(lines().0)
            .serve(&bridge, move |request: Request<String>| {
                let all_there = Arc::clone(&all_there);
                async move {
                    all_there.wait().await;
                    Some(request.frame)
                }
            })
            .pipeline(10)
            .spawn()
            .unwrap();
        let mut client = say_at_once(&listener, 0..50);
        for n in 0..50 {
            assert_eq!(hear(&mut client), n.to_string());
        }
        assert_eq!(clean(&listener).replies, 50);
    }
}

#[test]
fn requests_of_one_read_that_wait_get_by_with_room_for_one() {
    let (runtime, _) = event_loop();
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build();
    let listener = Listener::builder(lines().0)
        .serve(&bridge, async |request: Request<String>| {
            tokio::task::yield_now().await;
            Some(request.frame)
        })
        .pipeline(16)
        .spawn()
        .unwrap();
    let mut client = say_at_once(&listener, 0..100);
    for n in 0..100 {
        assert_eq!(hear(&mut client), n.to_string());
    }
    assert_eq!(clean(&listener).replies, 100);
}

#[test]
fn requests_that_wait_get_by_when_the_bridge_fills_up_under_them() {
    let (runtime, _) = event_loop();
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(100).build();
    let hogs = Arc::new(Mutex::new(Vec::new()));
    let (own, filled) = (bridge.clone(), Arc::clone(&hogs));
    let listener = Listener::builder(lines().0)
        .serve(&bridge, move |request: Request<String>| {
            if request.frame == "1" {
                let mut hogs = filled.lock().unwrap();
                while let Ok(hog) = own.try_run_coroutine_threadsafe(std::future::pending::<()>()) {
                    hogs.push(hog.cancel_on_drop());
                }
            }
            async move {
                tokio::task::yield_now().await;
                Some(request.frame)
            }
        })
        .pipeline(8)
        .spawn()
        .unwrap();
    let mut client = say_at_once(&listener, 0..20);
    let deadline = std::time::Instant::now() + PATIENCE;
    while hogs.lock().unwrap().is_empty() {
        assert!(std::time::Instant::now() < deadline, "nobody filled it");
        thread::yield_now();
    }
    assert_eq!(hear(&mut client), "0");
    hogs.lock().unwrap().clear();
    for n in 1..20 {
        assert_eq!(hear(&mut client), n.to_string());
    }
    assert_eq!(clean(&listener).replies, 20);
}

#[test]
fn requests_behind_one_that_blocks_the_loop_are_late_on_their_own() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let bridge = Bridge::new(runtime.handle().clone());
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let listener = Listener::builder(lines().0)
        .serve(&bridge, move |request: Request<String>| {
            if request.frame == "1" {
                let _ = released.lock().unwrap().recv_timeout(PATIENCE);
            }
            async move { Some(request.frame) }
        })
        .first_poll(FirstPoll::OnLoop)
        .reply_timeout(LATE)
        .fallback(|why| Some(format!("{why:?}")))
        .pipeline(100)
        .spawn()
        .unwrap();
    let mut client = say_at_once(&listener, 0..20);
    let heard = [(); 20].map(|()| hear(&mut client));
    assert_eq!(heard[0], "0", "it was done before");
    assert!(heard[1..].iter().all(|reply| reply == "TimedOut"), "{heard:?}");
    release.send(()).unwrap();
    // The connection goes on as before.
    say(&mut client, "2\n3\n");
    let heard = [(); 2].map(|()| hear(&mut client));
    assert_eq!(heard, ["2", "3"]);
    let stats = clean(&listener);
    assert_eq!((stats.late, stats.fallbacks, stats.replies), (19, 19, 3));
}

#[test]
fn requests_of_one_read_that_nobody_takes_up_are_late() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let listener = Listener::builder(lines().0)
        .serve(&bridge, async |request: Request<String>| Some(request.frame))
        .first_poll(FirstPoll::OnLoop)
        .reply_timeout(Duration::from_millis(20))
        .fallback(|_| Some("nobody home".into()))
        .pipeline(8)
        .spawn()
        .unwrap();
    let mut client = say_at_once(&listener, 0..20);
    for _ in 0..20 {
        assert_eq!(hear(&mut client), "nobody home");
    }
    assert_eq!(clean(&listener).late, 20);
    assert_eq!(
        bridge.stats().submitted,
        bridge.stats().cancelled + bridge.stats().in_flight as u64
    );
}

#[test]
fn panics_and_silence_among_requests_of_one_read_cost_only_themselves() {
    let (_runtime, bridge) = event_loop();
    let listener = Listener::builder(lines().0)
        .serve(&bridge, |request: Request<String>| {
            let n: usize = request.frame.parse().unwrap();
            assert_ne!(n % 7, 3, "as asked");
            async move {
                if n % 5 == 0 {
                    tokio::task::yield_now().await;
                }
                assert_ne!(n % 7, 4, "as asked");
                (n % 7 != 5).then_some(request.frame)
            }
        })
        .fallback(|why| Some(format!("{why:?}")))
        .pipeline(64)
        .spawn()
        .unwrap();
    let mut client = say_at_once(&listener, 0..700);
    for n in (0..700).filter(|n| n % 7 != 5) {
        let expected = if n % 7 == 3 || n % 7 == 4 { "Panicked".into() } else { n.to_string() };
        assert_eq!(hear(&mut client), expected);
    }
    let stats = clean(&listener);
    assert_eq!((stats.replies, stats.panicked, stats.no_reply), (400, 200, 100));
}

#[test]
fn a_stop_cancels_all_requests_of_one_read() {
    let (_runtime, bridge) = event_loop();
    let at_work = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&at_work);
    let listener = Listener::builder(lines().0)
        .serve(&bridge, move |_: Request<String>| {
            begun.fetch_add(1, Ordering::AcqRel);
            std::future::pending::<Option<String>>()
        })
        .pipeline(32)
        .spawn()
        .unwrap();
    let _client = say_at_once(&listener, 0..32);
    wait_for(&listener, |_| at_work.load(Ordering::Acquire) == 32);
    let stats = clean(&listener);
    assert_eq!((stats.requests, stats.aborted), (32, 32));
    let deadline = std::time::Instant::now() + PATIENCE;
    while bridge.in_flight() > 0 {
        assert!(std::time::Instant::now() < deadline, "handlers are still at work");
        thread::yield_now();
    }
}
