//! A listener's thread never waits for what it has already, nor has others wait for what can't come.

use crate::common::SHORT;
use bytes::{Bytes, BytesMut};
use callbridge::Bridge;
use callbridge::listener::{Listener, Request, TcpServer};
use futures_util::{SinkExt, StreamExt};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use tokio_util::codec::{LengthDelimitedCodec, LinesCodec};

const PATIENCE: Duration = Duration::from_secs(30);

fn connect(listener: &Listener) -> TcpStream {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

#[test]
fn requests_that_were_read_beyond_the_pipeline_are_answered() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    for (pipeline, in_flight) in [(2, 64), (64, 2)] {
        let bridge =
            Bridge::builder(runtime.handle().clone()).max_in_flight(in_flight).build().unwrap();
        let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new).unwrap();
        let server = server.with_linger(SHORT);
        let listener = Listener::builder(server)
            .serve(&bridge, |request: Request<String>| async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Some(request.frame)
            })
            .pipeline(pipeline)
            .spawn()
            .unwrap();
        let mut client = connect(&listener);
        let asked = "what?\n".repeat(20);
        client.write_all(asked.as_bytes()).unwrap();
        let mut answered = vec![0; asked.len()];
        client.read_exact(&mut answered).expect("every request is answered");
        assert_eq!(answered, asked.as_bytes());
        assert!(listener.close_blocking(PATIENCE).is_clean());
    }
}

#[tokio::test]
async fn a_sink_whose_peer_has_gone_is_told_although_its_frames_are_unread() {
    let server = TcpServer::bind("127.0.0.1:0", 1 << 20, LengthDelimitedCodec::new)
        .unwrap()
        .with_connection_capacity(1);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = connect(&listener);
    client.write_all(&[0, 0, 0, 1, b'a'].repeat(100)).unwrap();
    let mut connection = connections.recv().await.unwrap();
    let _: BytesMut = connection.next().await.unwrap().unwrap();
    // More than the system takes, by far.
    let big = Bytes::from(vec![0; 4 << 20]);
    let flood = async {
        loop {
            if connection.send(big.clone()).await.is_err() {
                return;
            }
        }
    };
    let gone = tokio::task::spawn_blocking(move || {
        let mut some = [0; 1];
        client.read_exact(&mut some).unwrap();
        // What is unread makes the system reset the connection.
        drop(client);
    });
    let told = async { tokio::join!(flood, gone) };
    tokio::time::timeout(PATIENCE, told).await.expect("the sink gives an error").1.unwrap();
    drop(connection);
    assert!(listener.close(PATIENCE).await.is_clean());
}
