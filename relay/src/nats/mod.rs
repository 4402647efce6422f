//! NATS: JetStream as an engine, its consumers as streams, requests and services.

mod connect;
mod consumer;
mod jetstream;
mod request;
mod service;
mod subject;

pub use connect::{ConnectError, connect};
pub use consumer::{ConsumeError, Consumer, ConsumerBuilder, ConsumerReport, Delivery};
pub use jetstream::JetStream;
pub use request::{RequestError, Requester};
pub use service::{Service, ServiceRequest, ServiceStats};
