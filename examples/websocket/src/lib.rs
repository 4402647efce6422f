//! A WebSocket client made of a blocking library: one thread owns the session, reads it and writes it.
//!
//! Such a session (tungstenite here; a TLS session is alike) can't be cut into a half that reads and one
//! that writes: reading may have to write, an answer to a ping. So both are done by the listener's
//! thread, which waits for the socket, a message to write and a stop at once.

#![cfg(unix)]

pub mod echo;
mod session;

pub use session::Session;
pub use tungstenite::Message;

use callbridge::listener::FrameSink;
use callbridge::{FrameStream, Listener};
use std::io;

/// A session: what comes, and the way for what goes.
#[derive(Debug)]
pub struct Client {
    pub listener: Listener,
    pub incoming: FrameStream<Message>,
    pub outgoing: FrameSink<Message>,
}

/// Connects to `address` (a host and a port), and asks for `ws://address/`.
///
/// # Blocking
///
/// Until the handshake is done, at most some seconds.
///
/// # Errors
///
/// When there is no connection, when the server refuses, or when the thread can't be started.
pub fn connect(address: &str) -> io::Result<Client> {
    let mut builder = Listener::builder(Session::connect(address)?).name("websocket");
    let outgoing = builder.writer(64);
    let (listener, incoming) = builder.spawn()?;
    Ok(Client { listener, incoming, outgoing })
}
