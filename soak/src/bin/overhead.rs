//! What the feature `metrics` costs: the hand-over of frames (P1 of the benches), calls (P4) and an echo over UDP.
//!
//! One line of nanoseconds per operation. `scripts/overhead.sh` builds it with and without the feature, runs the
//! two by turns and compares the medians.

use callbridge::listener::{Datagram, Listener, UdpSource};
use callbridge::{Bridge, channel};
use std::net::UdpSocket;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;

const SLICE: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests on their way at once.
const OUT: usize = 64;

fn main() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let bridge =
        Bridge::builder(runtime.handle().clone()).name("measured").build().expect("right settings");
    let task = |n: u64| bridge.run_coroutine_threadsafe(async move { n }).result(PATIENCE);
    let ready = |n: u64| bridge.call(async move { n }, PATIENCE);
    let answer = |_: Datagram| async { Some("y") };
    let source = UdpSource::bind("127.0.0.1:0").expect("a socket");
    let address = source.local_addr().expect("an address");
    let echo = Listener::builder(source).name("echo").serve(&bridge, answer).spawn();
    let _echo = echo.expect("a thread");
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.connect(address).expect("a peer");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let round = |_| {
        for _ in 0..OUT {
            client.send(b"x").expect("it is there");
        }
        for _ in 0..OUT {
            client.recv(&mut [0; 8]).expect("an answer");
        }
    };
    let figures = [
        ("p1", frames()),
        ("p4 task", each(1, |n| assert_eq!(task(n).expect("a value"), n))),
        ("p4 call", each(1, |n| assert_eq!(ready(n).expect("a value"), n))),
        ("echo", each(OUT as u64, round)),
    ];
    let line: Vec<_> = figures.iter().map(|(what, nanos)| format!("{what} {nanos:.1}")).collect();
    println!("{}", line.join(", "));
}

/// Nanoseconds per operation, of which each turn does so many; the first half of the time warms up.
fn each(operations: u64, mut turn: impl FnMut(u64)) -> f64 {
    let mut nanos = 0.0;
    for _ in 0..2 {
        let (began, mut turns) = (Instant::now(), 0);
        while began.elapsed() < SLICE {
            for _ in 0..16 {
                turn(turns);
                turns += 1;
            }
        }
        nanos = began.elapsed().as_nanos() as f64 / (turns * operations) as f64;
    }
    nanos
}

/// Nanoseconds per frame that a thread hands to a task.
fn frames() -> f64 {
    let (sender, mut frames) =
        channel::builder().capacity(1024).name("measured").build().expect("a channel");
    let source = std::thread::spawn(move || {
        each(1, |frame| {
            sender.send(frame).expect("it is read");
        })
    });
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async { while frames.recv().await.is_some() {} });
    source.join().expect("it only sends")
}
