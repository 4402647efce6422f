//! Requests without a reply: late, panicking, not encodable.

use crate::common::{LONG, in_parallel};
use crate::support::*;
use bytes::{Bytes, BytesMut};
use callbridge::channel::Ending;
use callbridge::listener::{Datagram, Listener, Request, TcpServer, TcpSource, Unanswered};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::{Mutex, mpsc};
use std::time::Duration;
use tokio_util::codec::{Encoder, LinesCodec};

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
    told.recv_timeout(LONG).expect("the hanging handler was dropped");
    assert_eq!(ask(&client, "fine"), "fine");
    let stats = clean(&listener);
    assert_eq!((stats.requests, stats.replies, stats.late, stats.fallbacks), (2, 1, 1, 1));
}

#[test]
fn a_late_reply_without_a_fallback_is_only_counted_if_told_so() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines(1 << 20);
    let listener = Listener::builder(server)
        .serve(&bridge, hang_or_echo)
        .reply_timeout(LATE)
        .close_on_missing_reply(false)
        .pipeline(3)
        .spawn()
        .unwrap();
    let mut client = talk(addr);
    say(client.get_ref(), "a\nhang\nb\n");
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
    let requests = [("hang", 1), ("hang", 8), ("panic", 1), ("panic", 8)];
    in_parallel(requests, |(bad, pipeline)| {
        let (server, addr) = lines(1 << 20);
        let listener = Listener::builder(server)
            .serve(&bridge, hang_or_echo)
            .reply_timeout(LATE)
            .fallback(|_| None)
            .pipeline(pipeline)
            .spawn()
            .unwrap();
        let (mut client, mut other) = (talk(addr), talk(addr));
        say(client.get_ref(), &format!("a\nhush\nb\n{bad}\n"));
        let heard = [(); 3].map(|()| hear(&mut client));
        assert_eq!(heard, ["a", "b", ""], "then the end");
        say(other.get_ref(), "c\n");
        assert_eq!(hear(&mut other), "c", "it costs only its own connection");
        let stats = clean(&listener);
        assert_eq!((stats.replies, stats.no_reply, stats.late + stats.panicked), (3, 1, 1));
    });
}

#[test]
fn no_reply_after_a_missing_one_is_written() {
    let (_runtime, bridge) = event_loop();
    let (server, addr) = lines(1 << 20);
    let listener = Listener::builder(server)
        .serve(&bridge, hang_or_echo)
        .reply_timeout(LATE)
        .pipeline(8)
        .spawn()
        .unwrap();
    let mut client = talk(addr);
    say(client.get_ref(), "a\nhang\nb\nc\n");
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
    let report = listener.close_blocking(LONG);
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
    let (server, addr) = lines(1 << 20);
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
    let mut client = talk(addr);
    say(client.get_ref(), "early\ninside\nfine\n");
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
    let mut client = talk(addr);
    say(client.get_ref(), "a\nlong line\nb\n");
    assert_eq!((hear(&mut client), hear(&mut client)), ("a".into(), "b".into()));
    let stats = clean(&listener);
    assert_eq!((stats.replies, stats.reply_errors), (2, 1));
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
    let mut client = talk(addr);
    say(client.get_ref(), "a\nb\nmuch too long a line\n");
    let mut all = Vec::new();
    match client.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert_eq!(all, b"a\nb\n");
    drop(client);
    wait_for(&listener, |stats| stats.open == 0);
    let stats = clean(&listener);
    assert_eq!((stats.replies, stats.decode_errors), (2, 1));
}
