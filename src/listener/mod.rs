//! A foreign thread that owns a blocking source, and what comes out of it in the event loop.
//!
//! | someone has | they use |
//! |---|---|
//! | datagrams to receive | [`UdpSource`], `UnixDatagramSource` |
//! | connections to accept | [`TcpServer`], `UnixServer` |
//! | a connection that talks to them | [`TcpSource`], `UnixSource` |
//! | anything else that is [`Read`](std::io::Read): a serial port, a pipe | [`ReadSource`] |
//! | a blocking call of their own | an implementation of [`FrameSource`] |
//! | a loop that exists already | [`Listener::from_fn`] |
//!
//! Over each of these, [`Listener::builder`] starts a named thread that either feeds a
//! [`FrameStream`](crate::FrameStream) ([`spawn`](ListenerBuilder::spawn)), or has an async handler
//! answer ([`serve`](ListenerBuilder::serve)). On the stream side, answers go out through a
//! [`Replier`] for datagrams and a [`Connection`] for connections.
//!
//! # Stopping
//!
//! A listener stops when it is told to ([`Listener::stop`], [`Listener::shutdown`], a drop, a
//! [token](ListenerBuilder::stop_on)), when its stream is dropped, and when its source ends. A thread
//! that is blocked is nudged (its socket is shut down, connected to, or sent an empty datagram; sources
//! of your own bring an [`Interrupter`]), and looks at its stop flag every
//! [poll interval](ListenerBuilder::poll_interval) in any case. Nothing here waits without a deadline.
//!
//! # Examples
//!
//! See [`Listener`], [`StreamServer`] and [`ServeBuilder`].

mod accept;
mod builder;
mod connection;
mod core;
mod datagram;
mod framing;
mod handle;
mod incoming;
mod pool;
mod reader;
mod report;
mod serve;
mod server;
mod sink;
mod socket;
mod source;
mod stats;
mod stop;
mod stream;
#[cfg(unix)]
mod unix;
mod worker;

#[doc(hidden)]
pub use builder::Setup;
pub use builder::{ListenerBuilder, Origin};
pub use connection::{AnswerError, Connection, ConnectionReplier, Peer};
pub use datagram::{Datagram, DatagramSocket, DatagramSource, Replier, UdpSource};
pub use framing::FrameError;
pub use handle::Listener;
pub use incoming::{CloseReason, Event, Incoming};
pub use reader::ReadSource;
pub use report::StopReport;
#[doc(hidden)]
pub use serve::Service;
pub use serve::{FirstPoll, Request, Serve, ServeBuilder, Unanswered};
pub use server::{StreamServer, TcpServer};
pub use sink::{FnSource, Sink, StopGuard};
pub use source::{FrameSource, Gauge, Interrupter, RequestSource, SourceStats};
pub use stats::ListenerStats;
pub use stream::{StreamSource, Tcp, TcpSource};

#[cfg(unix)]
pub use server::UnixServer;
#[cfg(unix)]
pub use stream::{Unix, UnixSource};
#[cfg(unix)]
pub use unix::UnixDatagramSource;
