//! A server of one's own, and what is in its streams.
#![allow(dead_code, reason = "not every test needs everything")]

use async_nats::jetstream::{self, stream};
use callbridge_relay::server::NatsServer;
use std::time::Duration;

pub(crate) const STREAM: &str = "METERS";
pub(crate) const SUBJECT: &str = "meters.7";
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn context(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.expect("a server"))
}

pub(crate) fn config() -> stream::Config {
    stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["meters.>".to_owned()],
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    }
}

/// A server with an empty stream.
pub(crate) async fn server(config: stream::Config) -> NatsServer {
    let server = NatsServer::start().expect("nats-server");
    context(&server).await.create_stream(config).await.expect("a stream");
    server
}

/// The payloads in the stream, as numbers, in order.
pub(crate) async fn stored(server: &NatsServer) -> Vec<u64> {
    let mut stream = context(server).await.get_stream(STREAM).await.expect("a stream");
    let state = stream.info().await.expect("its state").state.clone();
    let mut numbers = Vec::new();
    if state.messages == 0 {
        return numbers;
    }
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        let text = std::str::from_utf8(&message.payload).expect("text");
        numbers.push(text.parse().expect("a number"));
    }
    numbers
}
