use crate::check::{Dice, PATIENCE, frame, number};
use bytes::{Bytes, BytesMut};
use callbridge::Bridge;
use callbridge::listener::{
    Connection, Listener, Origin, Request, TcpServer, UdpSource, UnixServer,
};
use futures_util::{SinkExt, StreamExt};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio_util::codec::LengthDelimitedCodec;

const LONGEST: u64 = 3000;
const CLIENTS: u64 = 6;
const FRAMES: u64 = 60;

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

fn take(from: &mut impl Read) -> Vec<u8> {
    let mut length = [0; 4];
    from.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    from.read_exact(&mut frame).unwrap();
    frame
}

/// Sends its frames in pieces that heed no frame's end, then reads each back.
fn converse(mut socket: impl Read + Write, client: u64, seed: u64) {
    let mut dice = Dice::new(seed ^ (client << 40));
    let numbers = (0..FRAMES).map(|n| (client << 32) + n);
    let mut out = Vec::new();
    numbers.clone().for_each(|n| put(&mut out, &frame(n, LONGEST)));
    // Every third one breaks off in the middle of a frame.
    if client % 3 == 2 {
        let cut = out.len() / 2 + dice.below(100) as usize;
        socket.write_all(&out[..cut]).unwrap();
        return;
    }
    let mut rest = &out[..];
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(1 + dice.below(4000) as usize));
        socket.write_all(piece).unwrap();
        rest = after;
    }
    for n in numbers {
        assert_eq!(number(&take(&mut socket), LONGEST), n);
    }
}

/// Reads a connection to its end, answers each frame, and checks their order; how many there were.
async fn answer(mut connection: Connection<LengthDelimitedCodec>) -> u64 {
    let (mut next, mut seen) = (None, 0);
    while let Some(frame) = connection.next().await {
        // A client that breaks off does so inside a frame.
        let Ok(frame) = frame else { break };
        let n = number(&frame, LONGEST);
        assert_eq!(n, next.unwrap_or(n & !0xffff_ffff));
        next = Some(n + 1);
        seen += 1;
        // Refused only by a connection whose client has broken off.
        let _ = connection.send(frame.freeze()).await;
    }
    let stats = connection.frames().stats();
    assert!(stats.balances() && stats.lost.total() == 0 && stats.delivered == seen, "{stats:?}");
    seen
}

fn streamed<S, C>(source: S, seed: u64, connect: impl Fn(&Listener) -> C) -> u64
where
    S: Origin<Item = Connection<LengthDelimitedCodec>>,
    C: Read + Write + Send,
{
    let runtime = Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (listener, mut connections) = Listener::builder(source).capacity(1).spawn().unwrap();
    let seen = std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let socket = connect(&listener);
            scope.spawn(move || converse(socket, client, seed));
        }
        runtime.block_on(async {
            let mut answers = JoinSet::new();
            for _ in 0..CLIENTS {
                answers.spawn(answer(connections.recv().await.unwrap()));
            }
            answers.join_all().await.iter().sum()
        })
    });
    let report = listener.close_blocking(PATIENCE);
    assert!(report.is_clean() && report.stats.open == 0, "{report} {:?}", report.stats);
    assert_eq!((report.stats.accepted, report.stats.frames), (CLIENTS, seen));
    let stats = connections.stats();
    assert!(stats.balances() && stats.lost.total() == 0, "{stats:?}");
    seen
}

fn tcp(listener: &Listener) -> TcpStream {
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn tcp_server(seed: u64) -> TcpServer<fn() -> LengthDelimitedCodec> {
    TcpServer::bind("127.0.0.1:0", 1 << 16, LengthDelimitedCodec::new as fn() -> _)
        .unwrap()
        .with_connection_capacity(1 + seed as usize % 16)
        .with_write_buffer(1 + seed as usize % 4096)
}

pub(crate) fn tcp_streamed(seed: u64) -> u64 {
    streamed(tcp_server(seed), seed, tcp)
}

pub(crate) fn unix_streamed(seed: u64) -> u64 {
    let path = std::env::temp_dir().join(format!("callbridge-soak-{}", std::process::id()));
    let server = UnixServer::bind(&path, 1 << 16, LengthDelimitedCodec::new)
        .unwrap()
        .with_connection_capacity(1 + seed as usize % 16);
    let seen = streamed(server, seed, |_| {
        let socket = UnixStream::connect(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket
    });
    assert!(!path.exists(), "the listener removes its path");
    seen
}

pub(crate) fn tcp_served(seed: u64) -> u64 {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(8).build().unwrap();
    let listener = Listener::builder(tcp_server(seed))
        .serve(&bridge, |request: Request<BytesMut>| async move {
            if request.frame.len() % 7 == 0 {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            Some(Bytes::from(request.frame))
        })
        .reply_timeout(PATIENCE)
        .pipeline(1 + seed as usize % 16)
        .spawn()
        .unwrap();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let socket = tcp(&listener);
            scope.spawn(move || converse(socket, client, seed));
        }
    });
    let report = listener.close_blocking(PATIENCE);
    assert!(report.is_clean(), "{report}");
    let stats = report.stats;
    assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
    assert_eq!((stats.late, stats.panicked), (0, 0));
    assert!(bridge.close_blocking(PATIENCE).is_clean());
    stats.requests
}

/// Listeners that are started and let go of in every way, with connections open and unread.
pub(crate) fn restarted(seed: u64) -> u64 {
    const TIMES: u64 = 12;
    let mut dice = Dice::new(seed);
    for _ in 0..TIMES {
        let (listener, connections) =
            Listener::builder(tcp_server(seed)).capacity(1).spawn().unwrap();
        let mut client = tcp(&listener);
        let mut out = Vec::new();
        (0..5).for_each(|n| put(&mut out, &frame(n, LONGEST)));
        client.write_all(&out).unwrap();
        match dice.below(4) {
            0 => drop((listener, connections)),
            1 => drop((connections, listener)),
            2 => listener.stop(),
            _ => {
                let report = listener.close_blocking(PATIENCE);
                assert!(report.is_clean(), "{report}");
                let stats = connections.stats();
                assert!(stats.balances(), "{stats:?}");
            }
        }
        drop(Listener::builder(UdpSource::bind("127.0.0.1:0").unwrap()).spawn().unwrap());
    }
    TIMES
}
