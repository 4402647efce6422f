use bytes::Bytes;
use std::ffi::c_int;

/// What the library's thread has told, in the order it told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The broker accepted the connection; subscriptions have been asked for again.
    Connected,
    /// The connection is gone; the library's thread tries again every second.
    Disconnected,
    /// A message of a subscription.
    Message(Message),
}

/// A message, copied out of the library's memory, which lives only as long as the callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic it was published under.
    pub topic: String,
    /// What was published.
    pub payload: Bytes,
    /// The quality of service it came with.
    pub qos: c_int,
    /// Whether the broker had kept it from before the subscription.
    pub retained: bool,
}

/// MQTT's quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum QoS {
    /// At most once: delivered means written to the socket.
    AtMostOnce = 0,
    /// At least once: delivered means that the broker has it.
    AtLeastOnce = 1,
    /// Exactly once: delivered means that the broker has it and both know.
    ExactlyOnce = 2,
}
