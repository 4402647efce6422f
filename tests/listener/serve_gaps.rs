//! Serving sources of one's own and peers that don't read: no reply behind a gap, no spinning, no hoard.

use crate::common::LONG;
use crate::support::*;
use callbridge::channel::Ending;
use callbridge::listener::{FrameSource, Listener, Request, RequestSource};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

/// The loop goes away under the requests of many connections: no reply is taken for another's.
#[test]
fn no_reply_follows_a_gap_when_the_loop_goes_away() {
    for _ in 0..20 {
        let (event_loop, bridge) = event_loop();
        let (server, addr) = lines(1024);
        let listener = Listener::builder(server)
            .serve(&bridge, |request: Request<String>| async move {
                if request.frame == "0" {
                    return std::future::pending().await;
                }
                tokio::task::yield_now().await;
                Some(request.frame)
            })
            .spawn()
            .unwrap();
        let clients: Vec<_> = (0..20).map(|_| connect(addr)).collect();
        for client in &clients {
            say(client, "0\n1\n2\n");
        }
        wait_for(&listener, |stats| stats.requests == 60);
        drop(event_loop);
        for client in clients {
            let heard = read_all(client);
            assert!(heard.is_empty(), "{:?}", String::from_utf8_lossy(&heard));
        }
        wait_for(&listener, |_| listener.is_finished());
        assert_eq!(listener.ending(), Some(Ending::LoopClosed));
        clean(&listener);
    }
}

/// The same for a source of one's own, which isn't cut.
#[test]
fn a_source_of_ones_own_is_given_no_reply_behind_a_gap() {
    struct Ordered {
        left: std::ops::Range<u32>,
        answered: Arc<Mutex<Vec<u32>>>,
    }
    impl FrameSource for Ordered {
        type Frame = u32;
        fn next_frame(&mut self) -> io::Result<Option<u32>> {
            std::thread::sleep(MS);
            self.next_ready()
        }
        fn next_ready(&mut self) -> io::Result<Option<u32>> {
            self.left.next().map(Some).ok_or_else(|| io::ErrorKind::WouldBlock.into())
        }
    }
    impl RequestSource<u32> for Ordered {
        type Address = ();
        fn address(&mut self, _: &mut u32) {}
        fn answer(&mut self, (): (), reply: u32) -> io::Result<bool> {
            self.answered.lock().unwrap().push(reply);
            Ok(true)
        }
        fn replies_in_order(&self) -> bool {
            true
        }
    }
    for _ in 0..50 {
        let (event_loop, bridge) = event_loop();
        let answered = Arc::new(Mutex::new(Vec::new()));
        let source = Ordered { left: 0..2, answered: Arc::clone(&answered) };
        let listener = Listener::builder(source)
            .serve(&bridge, |n: u32| async move {
                match n {
                    0 => std::future::pending().await,
                    _ => tokio::task::yield_now().await,
                }
                Some(n)
            })
            .spawn()
            .unwrap();
        wait_for(&listener, |stats| stats.requests == 2);
        drop(event_loop);
        wait_for(&listener, |_| listener.is_finished());
        assert_eq!(*answered.lock().unwrap(), [], "an answer to 1 where one to 0 was awaited");
        clean(&listener);
    }
}

/// A source of one's own that has a natural answer for "nothing ready" doesn't spin, and is answered.
#[test]
fn a_source_that_would_block_is_answered() {
    struct Once(bool, Arc<AtomicUsize>, mpsc::Sender<u32>);
    impl FrameSource for Once {
        type Frame = u32;
        fn next_frame(&mut self) -> io::Result<Option<u32>> {
            std::thread::sleep(MS);
            self.next_ready()
        }
        fn next_ready(&mut self) -> io::Result<Option<u32>> {
            self.1.fetch_add(1, Ordering::SeqCst);
            match std::mem::replace(&mut self.0, true) {
                false => Ok(Some(7)),
                true => Err(io::ErrorKind::WouldBlock.into()),
            }
        }
    }
    impl RequestSource<u32> for Once {
        type Address = ();
        fn address(&mut self, _: &mut u32) {}
        fn answer(&mut self, (): (), reply: u32) -> io::Result<bool> {
            self.2.send(reply).unwrap();
            Ok(true)
        }
    }
    let (_loop, bridge) = event_loop();
    let calls = Arc::new(AtomicUsize::new(0));
    let (tell, told) = mpsc::channel();
    let listener = Listener::builder(Once(false, Arc::clone(&calls), tell))
        .serve(&bridge, |n: u32| async move {
            tokio::time::sleep(20 * MS).await;
            Some(n)
        })
        .spawn()
        .unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(7));
    assert!(calls.load(Ordering::SeqCst) < 1000, "{calls:?} looks in 20 ms");
    clean(&listener);
}

/// Replies are bounded by their bytes, too: a peer that doesn't read costs so much at most.
#[test]
fn big_replies_to_a_peer_that_doesnt_read_are_not_gathered_without_end() {
    const REPLY: usize = 4 << 20;
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(1024);
    let listener = Listener::builder(server)
        .serve(&bridge, |_: Request<String>| async { Some("r".repeat(REPLY)) })
        .spawn()
        .unwrap();
    let client = connect(addr);
    say(&client, &"g\n".repeat(256));
    // Those that the kernel took, and one that is on its way.
    let mut last = (0, Instant::now());
    while last.1.elapsed() < 300 * MS {
        let requests = listener.stats().requests;
        if requests != last.0 {
            last = (requests, Instant::now());
        }
    }
    assert!(last.0 < 16, "{} replies of {REPLY} bytes were made", last.0);
    clean(&listener);
}
