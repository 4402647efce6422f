//! What a thread that serves waits for: never for what is there already, and asleep for what isn't.

use crate::common::LONG;
use crate::support::*;
use callbridge::Bridge;
use callbridge::listener::{
    FrameSource, Interrupter, Listener, OnError, ReadSource, Request, RequestSource,
};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use tokio_util::codec::LinesCodec;

/// More than a socket takes at once.
const BIG: usize = 1 << 20;

/// How long what is due at once may take.
const SOON: Duration = Duration::from_secs(10);

// --- what is to be written ---------------------------------------------------------------------

/// A client whose request has been answered by a big fallback.
fn a_big_fallback(name: &str, bridge: &Bridge, ends: bool) -> (Listener, UnixStream) {
    let (server, path) = unix_lines(name);
    let listener = Listener::builder(server)
        .serve(bridge, |_: Request<String>| std::future::pending::<Option<String>>())
        .reply_timeout(20 * MS)
        .fallback(|_| Some("x".repeat(BIG)))
        .spawn()
        .unwrap();
    let mut client = UnixStream::connect(&path.0).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.write_all(b"a\n").unwrap();
    if ends {
        client.shutdown(Shutdown::Write).unwrap();
    }
    wait_for(&listener, |stats| stats.late == 1);
    (listener, client)
}

#[test]
fn a_fallback_leaves_whole_though_its_peer_has_ended_its_side() {
    let (_loop, bridge) = event_loop();
    let (listener, mut client) = a_big_fallback("fallback-end", &bridge, true);
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), BIG + 1);
    clean(&listener);
}

#[test]
fn a_fallback_leaves_whole_before_a_close() {
    let (_loop, bridge) = event_loop();
    let (listener, mut client) = a_big_fallback("fallback-close", &bridge, false);
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        all.len()
    });
    assert!(listener.close_blocking(LONG).is_clean());
    assert_eq!(reader.join().unwrap(), BIG + 1);
}

/// Nothing can be done about them until the peer reads.
#[cfg(target_os = "linux")]
#[test]
fn a_thread_with_much_to_write_sleeps_though_replies_behind_it_are_late() {
    const SIZE: usize = 300 * 1024;
    let (_loop, bridge) = event_loop();
    let (server, path) = unix_lines("laden");
    let listener = Listener::builder(server)
        .name("laden")
        .serve(&bridge, |request: Request<String>| async move {
            // All are at work before the first is done.
            if request.frame == "0" {
                tokio::time::sleep(20 * MS).await;
            }
            Some(request.frame.repeat(SIZE))
        })
        .reply_timeout(LATE)
        .spawn()
        .unwrap();
    let mut client = UnixStream::connect(&path.0).unwrap();
    client.write_all(b"0\n1\n2\n3\n4\n5\n").unwrap();
    // Until all that is behind is late.
    thread::sleep(LATE);
    let percent = percent_of_a_core("1-laden");
    let mut client = BufReader::new(client);
    for n in 0..6 {
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        assert!(line.trim_end() == n.to_string().repeat(SIZE), "{n}: {} bytes", line.len());
    }
    assert!(percent < 20, "{percent} % of a core");
    clean(&listener);
}

/// A device of one's own, with requests of one byte; a read or all writes can be made to fail.
struct Device {
    socket: UnixStream,
    out: Vec<u8>,
    fails: Arc<AtomicBool>,
    takes_nothing: bool,
}

fn device() -> (Device, UnixStream) {
    let (socket, theirs) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    theirs.set_read_timeout(Some(SOON)).unwrap();
    let device = Device { socket, out: Vec::new(), fails: Arc::default(), takes_nothing: false };
    (device, theirs)
}

impl FrameSource for Device {
    type Frame = u8;
    fn next_frame(&mut self) -> io::Result<Option<u8>> {
        self.next_ready()
    }
    fn next_ready(&mut self) -> io::Result<Option<u8>> {
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("noise on the line"));
        }
        let mut byte = [0];
        Ok((self.socket.read(&mut byte)? == 1).then_some(byte[0]))
    }
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }
}

impl RequestSource<Vec<u8>> for Device {
    type Address = ();
    fn address(&mut self, _: &mut u8) {}
    fn answer(&mut self, (): (), reply: Vec<u8>) -> io::Result<bool> {
        self.out.extend(reply);
        Ok(false)
    }
    fn flush(&mut self) -> io::Result<bool> {
        if !self.out.is_empty() {
            if self.takes_nothing {
                return Err(ErrorKind::WouldBlock.into());
            }
            let n = self.socket.write(&self.out)?;
            self.out.drain(..n);
        }
        Ok(self.out.is_empty())
    }
    fn staged(&self) -> usize {
        self.out.len()
    }
}

#[test]
fn replies_leave_while_the_reading_pauses() {
    let (_loop, bridge) = event_loop();
    let (device, mut client) = device();
    let fails = Arc::clone(&device.fails);
    let listener = Listener::builder(device)
        .on_error(|_, _| OnError::Retry(LONG))
        .serve(&bridge, move |_: u8| {
            fails.store(true, Ordering::SeqCst);
            async { Some(vec![b'x'; 240 * 1024]) }
        })
        .spawn()
        .unwrap();
    client.write_all(b"a").unwrap();
    wait_for(&listener, |stats| stats.retries == 1);
    client.read_exact(&mut [0; 240 * 1024]).unwrap();
    clean(&listener);
}

/// As TLS does that has to hear something first, though its descriptor takes what is written.
#[cfg(target_os = "linux")]
#[test]
fn a_session_that_could_write_and_doesnt_is_waited_for_asleep() {
    let (_loop, bridge) = event_loop();
    let (mut device, mut client) = device();
    device.takes_nothing = true;
    let listener = Listener::builder(device)
        .name("handshake")
        .serve(&bridge, |byte: u8| async move { Some(vec![byte]) })
        .spawn()
        .unwrap();
    client.write_all(b"a").unwrap();
    wait_for(&listener, |stats| stats.requests == 1);
    let percent = percent_of_a_core("handshake");
    assert!(percent < 20, "{percent} % of a core");
    clean(&listener);
}

// --- what is at work ---------------------------------------------------------------------------

#[test]
fn a_request_begins_once_the_bridge_has_room_though_one_before_it_is_at_work() {
    let (event_loop, _) = event_loop();
    let bridge = Bridge::builder(event_loop.handle().clone()).max_in_flight(2).build().unwrap();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = Mutex::new(Some(released));
    let (begins, begun) = mpsc::channel();
    let (server, addr) = lines(1024);
    let listener = Listener::builder(server)
        .serve(&bridge, move |request: Request<String>| {
            begins.send(request.frame.clone()).unwrap();
            let first = released.lock().unwrap().take();
            async move {
                if let Some(first) = first {
                    let _ = first.await;
                }
                Some(request.frame)
            }
        })
        .spawn()
        .unwrap();
    let (leave, left) = tokio::sync::oneshot::channel::<()>();
    let mut other = bridge.run_coroutine_threadsafe(left);
    let mut client = talk(addr);
    say(client.get_ref(), "a\n");
    assert_eq!(begun.recv_timeout(LONG).unwrap(), "a");
    say(client.get_ref(), "b\n");
    wait_for(&listener, |stats| stats.in_flight == 2);
    leave.send(()).unwrap();
    other.result(LONG).unwrap().unwrap();
    assert_eq!(begun.recv_timeout(SOON).as_deref(), Ok("b"));
    release.send(()).unwrap();
    assert_eq!([hear(&mut client), hear(&mut client)], ["a", "b"]);
    clean(&listener);
}

/// Has numbers without end: whenever it is asked, or only if it may wait for them.
struct Numbers {
    at_once: bool,
    next: u64,
    sent: mpsc::Sender<u64>,
}

impl FrameSource for Numbers {
    type Frame = u64;
    fn next_frame(&mut self) -> io::Result<Option<u64>> {
        thread::sleep(MS);
        self.next += 1;
        Ok(Some(self.next))
    }
    fn next_ready(&mut self) -> io::Result<Option<u64>> {
        if !self.at_once {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.next += 1;
        Ok(Some(self.next))
    }
}

impl RequestSource<u64> for Numbers {
    type Address = ();
    fn address(&mut self, _: &mut u64) {}
    fn answer(&mut self, (): (), reply: u64) -> io::Result<bool> {
        let _ = self.sent.send(reply);
        Ok(true)
    }
}

#[test]
fn a_reply_leaves_while_more_comes_that_is_ready_at_once() {
    let (_loop, bridge) = event_loop();
    let (sent, heard) = mpsc::channel();
    let listener = Listener::builder(Numbers { at_once: true, next: 0, sent })
        .serve(&bridge, |n: u64| async move {
            if n == 1 {
                tokio::time::sleep(5 * MS).await;
            }
            (n == 1).then_some(n)
        })
        // As many as may be at work hold nothing up.
        .pipeline(1_000_000)
        .spawn()
        .unwrap();
    assert_eq!(heard.recv_timeout(SOON), Ok(1));
    clean(&listener);
}

// --- a source that waits by itself -------------------------------------------------------------

/// Lines that a call waits for; nothing else brings the thread back to it soon.
fn waiting_echo(bridge: &Bridge) -> (Listener, BufReader<UnixStream>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(SOON)).unwrap();
    let handle = ours.try_clone().unwrap();
    let source = ReadSource::new(ours, 1024, LinesCodec::new())
        .unwrap()
        .with_interrupter(Interrupter::new(move || drop(handle.shutdown(Shutdown::Both))));
    let listener = Listener::builder(source)
        .poll_timeout(LONG)
        .serve(bridge, |line: String| async move {
            assert_ne!(line, "bad", "as asked");
            Some(line)
        })
        .fallback(|_| Some("failed".to_owned()))
        .spawn()
        .unwrap();
    (listener, BufReader::new(theirs))
}

fn asks(client: &mut BufReader<UnixStream>, question: &str) -> String {
    client.get_mut().write_all(question.as_bytes()).unwrap();
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

#[test]
fn a_fallback_leaves_before_a_source_that_waits_is_asked_again() {
    let (_loop, bridge) = event_loop();
    let (listener, mut client) = waiting_echo(&bridge);
    assert_eq!(asks(&mut client, "bad\n"), "failed\n");
    clean(&listener);
}

#[test]
fn a_source_that_waits_is_asked_again_once_a_reply_has_left() {
    let (_loop, bridge) = event_loop();
    let (listener, mut client) = waiting_echo(&bridge);
    for _ in 0..3 {
        assert_eq!(asks(&mut client, "hello\n"), "hello\n");
    }
    clean(&listener);
}

#[test]
fn a_source_that_waits_is_asked_again_once_a_handler_that_waited_is_done() {
    let (_loop, bridge) = event_loop();
    let (sent, heard) = mpsc::channel();
    let listener = Listener::builder(Numbers { at_once: false, next: 0, sent })
        .poll_timeout(LONG)
        .serve(&bridge, |n: u64| async move {
            tokio::time::sleep(MS).await;
            Some(n)
        })
        .spawn()
        .unwrap();
    for n in 1..=3 {
        assert_eq!(heard.recv_timeout(SOON), Ok(n));
    }
    clean(&listener);
}
