//! libmosquitto, a C library with a thread of its own, as an async MQTT client.
//!
//! The library is made, used, stopped and destroyed by one [`DedicatedThread`], so that no call of
//! it ever blocks the event loop and none can meet its destruction. Its own thread calls back with
//! messages and connection events, which go into a [`FrameStream`], and with delivery receipts,
//! which wake the publishers that await them. See [`Client`].
//!
//! [`DedicatedThread`]: callbridge::DedicatedThread
//! [`FrameStream`]: callbridge::FrameStream

pub mod broker;
mod callbacks;
mod client;
mod error;
mod event;
mod library;
mod receipts;
mod settings;
#[allow(unsafe_code)]
mod sys;
mod tally;

pub use client::{Client, CloseReport};
pub use error::{CallError, DeliveryError};
pub use event::{Event, Message, QoS};
pub use receipts::Delivery;
pub use settings::Settings;
pub use tally::Tally;
