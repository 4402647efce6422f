//! A frame of a connection costs no allocation once the listener is warm, a datagram the one of its payload;
//! requests that are read together cost a few for all of them.
//!
//! A binary of its own, with one test, so that nobody else allocates meanwhile.

#[path = "common/heap.rs"]
mod heap;

use bytes::BytesMut;
use callbridge::listener::{Listener, Request, TcpServer, UdpSource};
use heap::once_warm;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::codec::LengthDelimitedCodec;

const PATIENCE: Duration = Duration::from_secs(30);
const FRAMES: usize = 2000;

#[test]
fn frames_cost_no_allocation_but_a_datagrams_payload_once_warm() {
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let addr = source.local_addr().unwrap();
    let (_listener, mut frames) = Listener::builder(source).spawn().unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for size in [1, 64, 1200, 65_507] {
        let payload = vec![7; size];
        let allocations = once_warm(|| {
            for _ in 0..FRAMES {
                client.send_to(&payload, addr).unwrap();
                let datagram = frames.recv_blocking(PATIENCE).unwrap();
                assert_eq!(datagram.payload.len(), size);
            }
        });
        let most = FRAMES as u64 + 20;
        assert!(allocations < most, "{allocations} allocations for {FRAMES} datagrams of {size}");
    }

    let server = TcpServer::bind("127.0.0.1:0", 1 << 20, LengthDelimitedCodec::new).unwrap();
    let addr = server.local_addr().unwrap();
    let (_listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = TcpStream::connect(addr).unwrap();
    let mut batch = Vec::new();
    for _ in 0..10 {
        batch.extend_from_slice(b"\0\0\0\x05frame");
    }
    let mut connection = connections.recv_blocking(PATIENCE).unwrap();
    let allocations = once_warm(|| {
        for _ in 0..FRAMES / 10 {
            client.write_all(&batch).unwrap();
            for _ in 0..10 {
                assert_eq!(connection.frames().recv_blocking(PATIENCE).unwrap(), "frame");
            }
        }
    });
    // The buffer is used again when its frames are gone, and a frame may just not be at that time.
    assert!(allocations < FRAMES as u64 / 20, "{allocations} allocations for {FRAMES} frames");

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let bridge = callbridge::Bridge::new(runtime.handle().clone());
    let server = TcpServer::bind("127.0.0.1:0", 1 << 20, LengthDelimitedCodec::new).unwrap();
    let on_the_loop = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&on_the_loop);
    let listener = Listener::builder(server)
        .serve(&bridge, move |request: Request<BytesMut>| {
            let counted = Arc::clone(&counted);
            async move {
                counted.fetch_add(u64::from(tokio::task::try_id().is_some()), Ordering::Relaxed);
                Some(request.frame.freeze())
            }
        })
        .pipeline(64)
        .spawn()
        .unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let requests = b"\0\0\0\x05frame".repeat(50);
    let mut replies = vec![0; requests.len()];
    let mut round = || {
        on_the_loop.store(0, Ordering::Relaxed);
        for _ in 0..FRAMES / 50 {
            client.write_all(&requests).unwrap();
            client.read_exact(&mut replies).unwrap();
            assert_eq!(replies, requests);
        }
        // After a first poll that took over 50 µs, which on a busy machine is one that was interrupted, the
        // next sixteen requests become tasks of the loop, and a task allocates.
        10 * on_the_loop.load(Ordering::Relaxed)
    };
    round();
    let mut measured = || {
        let before = heap::allocations();
        let of_tasks = round();
        (heap::allocations() - before).saturating_sub(of_tasks)
    };
    let least = (0..5).map(|_| measured()).min().unwrap();
    assert!(least < FRAMES as u64 / 5, "{least} allocations for {FRAMES} requests");
}
