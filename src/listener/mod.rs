//! A foreign thread that owns a blocking source, and what comes out of it in the event loop.
//!
//! | someone has | they use |
//! |---|---|
//! | datagrams to receive | [`UdpSource`], `UnixDatagramSource` |
//! | connections to accept | [`TcpServer`], `UnixServer` |
//! | a connection that talks to them | [`TcpSource`], `UnixSource` |
//! | anything else that is [`Read`](std::io::Read): a serial port, a pipe | [`ReadSource`], best [`polled`](ReadSource::polled) |
//! | a blocking call of their own | an implementation of [`FrameSource`] |
//! | a device that comes and goes | [`Listener::reopening`] over one of these |
//! | a loop that exists already | [`Listener::from_fn`] |
//!
//! Over each of these, [`Listener::builder`] starts a named thread that either feeds a
//! [`FrameStream`](crate::FrameStream) ([`spawn`](ListenerBuilder::spawn)), or has an async handler
//! answer ([`serve`](ListenerBuilder::serve)). On the stream side, answers go out through a
//! [`Replier`] for datagrams, a [`Connection`] for connections, which is a stream and a sink, and a
//! [`writer`](ListenerBuilder::writer) for whatever else can be written to.
//!
//! # Stopping
//!
//! A listener stops when it is told to ([`Listener::stop`], [`Listener::close`], a drop, a
//! [token](ListenerBuilder::stop_on)), when its stream is dropped, and when its source ends.
//! [`close`](Listener::close) first lets it finish what it has; [`Listener::finished`] tells of an end that
//! nobody asked for.
//!
//! A thread waits for its descriptor and for whoever wakes it at once, so a stop ends its wait; nothing is sent
//! to a socket of yours for that. A source without a descriptor brings an [`Interrupter`], or returns from its
//! wait every [poll timeout](ListenerBuilder::poll_timeout). On Windows only sockets are descriptors: the thread
//! is woken by a socket of its own that is connected to itself, and the sockets that it reads are in
//! non-blocking mode, injected ones, too.
//!
//! # Examples
//!
//! Lines over TCP, answered by an async handler:
//!
//! ```
//! use callbridge::listener::{Request, TcpServer};
//! use callbridge::{Bridge, Listener};
//! use std::io::{BufRead, BufReader, Write};
//! use std::net::TcpStream;
//! use std::time::Duration;
//! use tokio_util::codec::LinesCodec;
//!
//! # fn main() -> std::io::Result<()> {
//! let runtime = tokio::runtime::Runtime::new()?;
//! let bridge = Bridge::new(runtime.handle().clone());
//! let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
//! let listener = Listener::builder(server)
//!     .serve(&bridge, async |asked: Request<String>| Some(asked.frame.to_uppercase()))
//!     .reply_timeout(Duration::from_secs(2))
//!     .fallback(|_why| Some("TRY AGAIN".to_owned()))
//!     .spawn()?;
//!
//! let mut client = TcpStream::connect(listener.local_addr().unwrap())?;
//! client.write_all(b"hello\n")?;
//! let mut answer = String::new();
//! BufReader::new(&client).read_line(&mut answer)?;
//! assert_eq!(answer, "HELLO\n");
//! drop(client);
//! assert!(listener.close_blocking(Duration::from_secs(5)).is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! Frames as a stream: see [`Listener`]; connections as streams and sinks: see [`Connection`].

mod alarms;
mod builder;
mod core;
mod driver;
mod handle;
#[cfg(feature = "metrics")]
mod observed;
mod patience;
mod pump;
mod report;
mod serve;
#[cfg(feature = "net")]
mod server;
mod source;
mod stats;
mod stop;
mod wake;
mod writer;

pub use alarms::OnError;
#[doc(hidden)]
pub use builder::Setup;
pub use builder::{ListenerBuilder, Origin};
pub use handle::Listener;
pub use report::StopReport;
#[doc(hidden)]
pub use serve::Service;
pub use serve::{FirstPoll, Serve, ServeBuilder, Unanswered};
pub use source::{
    Backoff, BadFrames, FnSource, FrameError, FrameSource, Gauge, Interrupter, LoopHandle, Opening,
    ReadSource, Reopened, Reopening, RequestSource, SourceStats, StopGuard, WholeFrames,
};
pub use stats::ListenerStats;
pub use writer::{Command, FrameSink, Inbox, WriteError, inbox};

#[cfg(feature = "net")]
pub use {
    serve::Request,
    server::{Connection, ConnectionHandle, Peer, StreamServer, TcpServer},
    source::{
        Datagram, DatagramSocket, DatagramSource, Replier, StreamKind, StreamSource, TcpSource,
        UdpSource,
    },
};
#[cfg(all(feature = "net", unix))]
pub use {
    server::UnixServer,
    source::{UnixDatagramSource, UnixSource},
};
