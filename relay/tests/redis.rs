//! The same forwarder with another engine, and a real redis-server.
#![cfg(feature = "redis")]

use callbridge::channel::channel;
use callbridge_relay::redis::RedisStream;
use callbridge_relay::{Forwarder, Message};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// A redis-server that has on disk what it has acknowledged; killed when dropped.
struct Server {
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let child = spawn(&directory, port);
        Server { directory, port, child }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = spawn(&self.directory, self.port);
    }

    async fn query<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await.unwrap()
    }

    async fn stored(&self) -> Vec<u64> {
        type Entry = (String, Vec<String>);
        let entries: Vec<Entry> = self.query(&["XRANGE", "meters", "-", "+"]).await;
        entries.iter().map(|(_, fields)| fields[5].parse().unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(directory: &TempDir, port: u16) -> Child {
    let child = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .args(["--maxmemory-policy", "noeviction"])
        .arg("--dir")
        .arg(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("install the Debian package redis-server");
    let late = Instant::now() + LIMIT;
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(Instant::now() < late);
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn message(frame: &u64) -> Message {
    Message::new("meters.7", frame.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_in_order_though_the_server_is_killed() {
    let mut server = Server::start();
    let (sender, frames) = channel(64);
    let (told, done) = mpsc::channel();
    let mut forwarder = Forwarder::builder(frames, message)
        .window(32)
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .on_acknowledged(move |frame| told.send(frame).unwrap())
        .start(RedisStream::new(&server.url(), "meters").unwrap())
        .await
        .unwrap();
    let source = std::thread::spawn(move || (1..=3_000).all(|frame| sender.send(frame).is_ok()));
    tokio::task::block_in_place(|| while done.recv_timeout(LIMIT).unwrap() != 1_000 {});
    server.kill();
    server.restart();
    let report = tokio::time::timeout(LIMIT, forwarder.finished()).await.unwrap();
    assert!(source.join().unwrap());
    assert!(report.is_clean() && report.stats.effort.rounds > 0, "{report}");
    assert_eq!(server.stored().await, (1..=3_000).collect::<Vec<_>>(), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_known_by_its_number() {
    let server = Server::start();
    for range in [1..=20, 11..=30] {
        let (sender, frames) = channel(64);
        let mut forwarder = Forwarder::builder(frames, message)
            .run("meter 7")
            .sequence(|frame| *frame)
            .start(RedisStream::new(&server.url(), "meters").unwrap())
            .await
            .unwrap();
        range.for_each(|frame| _ = sender.try_send(frame).unwrap());
        drop(sender);
        assert!(forwarder.finished().await.is_clean());
    }
    assert_eq!(server.stored().await, (1..=30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_holds_the_frames_back() {
    let server = Server::start();
    let (sender, frames) = channel(64);
    let mut forwarder = Forwarder::builder(frames, message)
        .backoff(Duration::from_millis(5), Duration::from_millis(50))
        .start(RedisStream::new(&server.url(), "meters").unwrap())
        .await
        .unwrap();
    let () = server.query(&["CONFIG", "SET", "maxmemory", "1"]).await;
    sender.send(1).unwrap();
    while forwarder.stats().effort.full == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let () = server.query(&["CONFIG", "SET", "maxmemory", "0"]).await;
    drop(sender);
    let report = tokio::time::timeout(LIMIT, forwarder.finished()).await.unwrap();
    assert!(report.is_clean(), "{report}");
    assert_eq!(server.stored().await, [1]);
}
