use super::{ON_PURPOSE, PANICS};
use crate::check::{PATIENCE, frame, number};
use callbridge::listener::{Datagram, UdpSource, Unanswered};
use callbridge::{Bridge, Listener};
use std::net::UdpSocket;
use std::time::Duration;
use tokio::runtime::Builder;

const LONGEST: u64 = 1400;

fn client(source: &UdpSource) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(source.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Echoed from the stream side, a few in the air at a time so that the kernel drops none.
pub(crate) fn streamed(seed: u64) -> u64 {
    const FRAMES: u64 = 500;
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let (client, replier) = (client(&source), source.replier());
    let (listener, mut frames) = Listener::builder(source).capacity(4).spawn().unwrap();
    let first = seed << 20;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut reply = [0; 2048];
            for batch in (first..first + FRAMES).collect::<Vec<_>>().chunks(10) {
                for n in batch {
                    client.send(&frame(*n, LONGEST)).unwrap();
                }
                for n in batch {
                    let length = client.recv(&mut reply).unwrap();
                    assert_eq!(number(&reply[..length], LONGEST), *n);
                }
            }
        });
        for n in first..first + FRAMES {
            let datagram = frames.recv_blocking(PATIENCE).unwrap();
            assert!(!datagram.truncated);
            assert_eq!(number(&datagram.payload, LONGEST), n);
            replier.send_to(&datagram.payload, &datagram.peer).unwrap();
        }
    });
    let report = listener.close_blocking(PATIENCE);
    assert!(report.is_clean(), "{report}");
    let stats = frames.stats();
    assert!(stats.balances() && stats.delivered == FRAMES, "{stats:?}");
    FRAMES
}

/// Handlers that answer, say nothing, panic, and hang past the timeout.
pub(crate) fn served(seed: u64) -> u64 {
    const ROUNDS: u64 = 20;
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let bridge = Bridge::new(runtime.handle().clone());
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let client = client(&source);
    let listener = Listener::builder(source)
        .serve(&bridge, |request: Datagram| async move {
            match number(&request.payload, LONGEST) % 4 {
                0 if PANICS => std::panic::panic_any(ON_PURPOSE),
                1 => std::future::pending().await,
                2 => tokio::time::sleep(Duration::from_millis(1)).await,
                _ => {}
            }
            Some(request.payload.to_vec())
        })
        .reply_timeout(Duration::from_millis(20))
        .pipeline(4)
        .fallback(|why| Some(if why == Unanswered::Panicked { vec![b'p'] } else { vec![b'l'] }))
        .spawn()
        .unwrap();
    let (mut echoes, mut late, mut panicked) = (0, 0, 0);
    for round in 0..ROUNDS {
        let numbers: Vec<_> = (0..4).map(|n| (seed << 20) + 4 * round + n).collect();
        for n in &numbers {
            client.send(&frame(*n, LONGEST)).unwrap();
        }
        for _ in &numbers {
            let mut reply = [0; 2048];
            match client.recv(&mut reply).unwrap() {
                1 if reply[0] == b'p' => panicked += 1,
                // A machine that is busy makes others late as well.
                1 => late += 1,
                length => {
                    assert!(numbers.contains(&number(&reply[..length], LONGEST)));
                    echoes += 1;
                }
            }
        }
    }
    let report = listener.close_blocking(PATIENCE);
    assert!(report.is_clean(), "{report}");
    let stats = report.stats;
    assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
    assert_eq!((stats.replies, stats.late, stats.panicked), (echoes, late, panicked));
    assert_eq!(stats.requests, 4 * ROUNDS);
    4 * ROUNDS
}
