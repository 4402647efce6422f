use callbridge::Overflow;
use std::time::Duration;

/// How a client connects and how much it holds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker's host.
    pub host: String,
    /// The broker's port.
    pub port: u16,
    /// What the broker knows the client by; needed if it is to keep the session.
    pub client_id: Option<String>,
    /// Whether the broker forgets the client when the connection ends.
    pub clean_session: bool,
    /// Seconds without traffic after which both sides look whether the other is there, from 5 up.
    pub keepalive: u16,
    /// How long [`Client::connect`](crate::Client::connect) waits for the broker's answer.
    pub connect_timeout: Duration,
    /// How many events the stream holds.
    pub capacity: usize,
    /// What the library's thread does with an event when the stream is full.
    pub overflow: Overflow,
    /// Publishes without a receipt, at most 32 768: MQTT has 65 535 message ids, used in turn.
    pub max_in_flight: u16,
}

impl Settings {
    /// The settings for most: nothing lost in the bridge, the session kept for nobody.
    ///
    /// `Overflow::Block` stops the library's thread while the consumer is behind. That is how the
    /// broker gets to hold its messages back; but the thread also answers the broker's keep-alive, so
    /// a consumer that is stuck for longer than that loses the connection. Where only the newest
    /// matters, `DropOldest` leaves the thread alone.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Settings {
            host: host.into(),
            port,
            client_id: None,
            clean_session: true,
            keepalive: 60,
            connect_timeout: Duration::from_secs(10),
            capacity: 1024,
            overflow: Overflow::Block,
            max_in_flight: 1000,
        }
    }
}
