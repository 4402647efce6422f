//! Many requests of one read.

use crate::common::LONG;
use crate::support::*;
use callbridge::Bridge;
use callbridge::listener::{Datagram, FirstPoll, Listener, Request, UdpSource};
use std::io::BufReader;
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

/// A client that sends all its requests in one write.
fn say_at_once(listener: &Listener, requests: std::ops::Range<usize>) -> BufReader<TcpStream> {
    let client = talk(listener.local_addr().unwrap());
    let lines: Vec<String> = requests.map(|n| format!("{n}\n")).collect();
    say(client.get_ref(), &lines.concat());
    client
}

#[test]
fn requests_of_one_read_that_wait_are_at_work_at_the_same_time() {
    for room in [10, 1000] {
        let (runtime, _) = event_loop();
        let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(room).build().unwrap();
        let all_there = Arc::new(tokio::sync::Barrier::new(10));
        let listener = Listener::builder(lines(1 << 20).0)
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
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(1).build().unwrap();
    let listener = Listener::builder(lines(1 << 20).0)
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
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(100).build().unwrap();
    let hogs = Arc::new(Mutex::new(Vec::new()));
    let (own, filled) = (bridge.clone(), Arc::clone(&hogs));
    let listener = Listener::builder(lines(1 << 20).0)
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
    let deadline = Instant::now() + LONG;
    while hogs.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "nobody filled it");
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
    let listener = Listener::builder(lines(1 << 20).0)
        .serve(&bridge, move |request: Request<String>| {
            if request.frame == "1" {
                let _ = released.lock().unwrap().recv_timeout(LONG);
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
    say(client.get_ref(), "2\n3\n");
    let heard = [(); 2].map(|()| hear(&mut client));
    assert_eq!(heard, ["2", "3"]);
    let stats = clean(&listener);
    assert_eq!((stats.late, stats.fallbacks, stats.replies), (19, 19, 3));
}

#[test]
fn requests_of_one_read_that_nobody_takes_up_are_late() {
    let undriven = Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::new(undriven.handle().clone());
    let listener = Listener::builder(lines(1 << 20).0)
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
    let listener = Listener::builder(lines(1 << 20).0)
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
    let listener = Listener::builder(lines(1 << 20).0)
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
    let deadline = Instant::now() + LONG;
    while bridge.in_flight() > 0 {
        assert!(Instant::now() < deadline, "handlers are still at work");
        thread::yield_now();
    }
}

/// By datagrams, which leave each by itself.
#[test]
fn a_reply_that_cannot_be_sent_is_lost_among_others_that_can() {
    const REQUESTS: u8 = 100;
    let (runtime, _) = event_loop();
    let bridge = Bridge::new(runtime.handle().clone());
    let (begin, all_there) = mpsc::channel();
    let all_there = Mutex::new(all_there);
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let listener = Listener::builder(source)
        .serve(&bridge, move |request: Datagram| {
            let n = request.payload[0];
            if n == 0 {
                all_there.lock().unwrap().recv_timeout(LONG).unwrap();
            }
            // More than a datagram can hold.
            let size = if n % 7 == 3 { 70_000 } else { 8 };
            async move { Some(vec![n; size]) }
        })
        .spawn()
        .unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    (0..REQUESTS).for_each(|n| assert_eq!(client.send(&[n]).unwrap(), 1));
    begin.send(()).unwrap();
    let (mut heard, mut reply) = (Vec::new(), [0; 16]);
    let lost = (0..REQUESTS).filter(|n| n % 7 == 3).count();
    while heard.len() < usize::from(REQUESTS) - lost {
        assert_eq!(client.recv(&mut reply).unwrap(), 8);
        heard.push(reply[0]);
    }
    heard.sort_unstable();
    assert!(heard.iter().copied().eq((0..REQUESTS).filter(|n| n % 7 != 3)));
    let stats = clean(&listener);
    assert_eq!((stats.replies, stats.reply_errors), (heard.len() as u64, lost as u64));
}

/// More of them than leave in one write; they wait behind the first, and nothing else wakes the thread.
#[test]
fn large_replies_behind_one_that_waits_leave_with_it() {
    const SIZE: usize = 100 * 1024;
    let (runtime, _) = event_loop();
    let bridge = Bridge::new(runtime.handle().clone());
    let (release, released) = tokio::sync::oneshot::channel();
    let released = Mutex::new(Some(released));
    let (begins, begun) = mpsc::channel();
    let listener = Listener::builder(lines(1 << 20).0)
        .serve(&bridge, move |request: Request<String>| {
            begins.send(()).unwrap();
            let first = released.lock().unwrap().take();
            async move {
                if let Some(first) = first {
                    first.await.unwrap();
                }
                Some(request.frame.repeat(SIZE))
            }
        })
        .reply_timeout(10 * LONG)
        .spawn()
        .unwrap();
    let mut client = say_at_once(&listener, 0..9);
    client.get_ref().set_read_timeout(Some(LONG)).unwrap();
    (0..9).for_each(|_| begun.recv_timeout(LONG).unwrap());
    release.send(()).unwrap();
    for n in 0..9 {
        assert_eq!(hear(&mut client), n.to_string().repeat(SIZE));
    }
    assert_eq!(clean(&listener).replies, 9);
}
