//! The side that callbridge serves: a listener thread, answered by the event loop.

mod answer;
mod codec;
mod counters;

pub(crate) use counters::Counters;

use crate::address::Address;
use crate::cli::{Framing, MAX_DATAGRAM, Mode};
use answer::Answered;
use bytes::{Bytes, BytesMut};
use callbridge::listener::{
    Connection, Datagram, ListenerBuilder, Origin, Request, Serve, StopReport, TcpServer, UdpSource,
};
use callbridge::{BlockingFuture, Bridge, Listener};
use codec::FrameCodec;
use std::io;
use std::time::Duration;
use tokio::runtime::Handle;

/// Datagrams that may wait for the loop in `stream` mode.
const QUEUE: usize = 256;
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a peer may not read its replies before its connection is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// A listener that echoes.
pub(crate) struct Server {
    address: Address,
    listener: Listener,
    /// In `stream` mode, the loop's part: ends with the stream.
    answering: Option<BlockingFuture<Answered>>,
}

/// How a server stopped.
pub(crate) struct Stopped {
    pub(crate) report: StopReport,
    pub(crate) counters: Counters,
    problems: Vec<String>,
}

impl Server {
    pub(crate) fn start(
        address: &Address,
        mode: Mode,
        framing: Framing,
        max_frame: usize,
        event_loop: &Handle,
    ) -> io::Result<Self> {
        let bridge = Bridge::new(event_loop.clone());
        let codec = FrameCodec::new(framing, max_frame);
        let on_the_wire = codec.on_the_wire(max_frame);
        let make = move || codec.clone();
        match address {
            Address::Udp(at) => {
                let source = UdpSource::bind(at)?.with_max_datagram(MAX_DATAGRAM)?;
                let address = Address::Udp(source.local_addr()?);
                Self::datagrams(address, source, mode, &bridge)
            }
            Address::Tcp(at) => {
                let server = TcpServer::bind(at, on_the_wire, make)?;
                let address = Address::Tcp(server.local_addr()?);
                let builder = Listener::builder(server).name("echo-tcp");
                Self::connections(address, builder, mode, &bridge)
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                let server = callbridge::listener::UnixServer::bind(path, on_the_wire, make)?;
                let builder = Listener::builder(server).name("echo-unix");
                Self::connections(address.clone(), builder, mode, &bridge)
            }
            #[cfg(not(unix))]
            Address::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn datagrams(
        address: Address,
        source: UdpSource,
        mode: Mode,
        bridge: &Bridge,
    ) -> io::Result<Self> {
        let replier = source.replier();
        let builder = Listener::builder(source).name("echo-udp").capacity(QUEUE);
        Ok(match mode {
            Mode::Stream => {
                let (listener, datagrams) = builder.spawn()?;
                let answering = answer::datagrams(datagrams, replier);
                let answering = Some(bridge.run_coroutine_threadsafe(answering));
                Server { address, listener, answering }
            }
            Mode::Call => {
                let handler =
                    async |datagram: Datagram| (!datagram.truncated).then_some(datagram.payload);
                let listener =
                    builder.serve(bridge, handler).reply_timeout(REPLY_TIMEOUT).spawn()?;
                Server { address, listener, answering: None }
            }
        })
    }

    fn connections<S>(
        address: Address,
        builder: ListenerBuilder<S>,
        mode: Mode,
        bridge: &Bridge,
    ) -> io::Result<Self>
    where
        S: Origin<Item = Connection<FrameCodec>, Request = Request<BytesMut>> + Serve<Bytes>,
    {
        let builder = builder.write_timeout(WRITE_TIMEOUT);
        Ok(match mode {
            Mode::Stream => {
                let (listener, connections) = builder.spawn()?;
                let answering = answer::connections(connections);
                let answering = Some(bridge.run_coroutine_threadsafe(answering));
                Server { address, listener, answering }
            }
            Mode::Call => {
                let handler = async |request: Request<BytesMut>| Some(request.frame.freeze());
                let listener =
                    builder.serve(bridge, handler).reply_timeout(REPLY_TIMEOUT).spawn()?;
                Server { address, listener, answering: None }
            }
        })
    }

    /// Where it listens, the port that the system chose included.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Waits until the listener has ended by itself: it doesn't unless it fails.
    pub(crate) async fn failed(&self) {
        let _report = self.listener.finished().await;
    }

    /// Stops the listener and closes the counters.
    pub(crate) fn stop(self, deadline: Duration) -> Stopped {
        let report = self.listener.close_blocking(deadline);
        let mut problems = Vec::new();
        if !report.is_clean() {
            problems.push(format!("still running after {deadline:?}: {:?}", report.still_running));
        }
        if let Some(error) = &report.error {
            problems.push(format!("the listener failed: {error}"));
        }
        let answered = self.answering.and_then(|mut answering| match answering.result(deadline) {
            Ok(answered) => Some(answered),
            Err(error) => {
                problems.push(format!("the loop's part gives no counters: {error}"));
                None
            }
        });
        let counters = Counters { listener: report.stats, answered };
        Stopped { report, counters, problems }
    }
}

impl Stopped {
    /// Everything that is not as it should be.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = self.problems.clone();
        if !self.counters.balance() {
            problems.push("the counters don't balance".to_owned());
        }
        problems
    }
}
