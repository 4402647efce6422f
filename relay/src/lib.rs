//! Carries callbridge's frames and requests to another machine.
//!
//! A [`Forwarder`] takes the frames of any [`FrameStream`](callbridge::channel::FrameStream) into an engine, and
//! each is done once the engine has acknowledged it. Engines are reached through the small trait [`Publish`];
//! [`nats::JetStream`] is the one that the relay is made for. [`nats::Consumer`] is the other way round, and
//! [`nats::Requester`] asks a [`nats::Service`] on another machine.
#![deny(missing_docs)]

mod driver;
mod forwarder;
mod id;
pub mod nats;
mod panics;
mod publish;
#[cfg(feature = "redis")]
pub mod redis;
mod report;
pub mod server;
mod stats;
mod window;

pub use forwarder::{Forwarder, ForwarderBuilder, StartError};
pub use id::{MessageId, ParseIdError};
pub use publish::{After, Attempt, Bound, BoxError, Fault, Message, Publish, Said, Stored, Ticket};
pub use report::{ForwarderEnding, ForwarderReport};
pub use stats::{Effort, ForwarderStats};

/// The program of the README is compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
