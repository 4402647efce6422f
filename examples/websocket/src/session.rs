//! The session as a source of messages that can be written to.

use callbridge::FrameSource;
use callbridge::listener::RequestSource;
use std::io::{self, ErrorKind};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use tungstenite::{Error, Message, WebSocket};

/// How long connecting and each step of the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A WebSocket session over a socket in non-blocking mode.
#[derive(Debug)]
pub struct Session {
    socket: WebSocket<TcpStream>,
    /// Bytes that were given to the session and may not have left it.
    staged: usize,
    /// Whether the session has bytes that the socket had no room for, answers to pings among them.
    unsent: bool,
}

impl Session {
    /// Connects and shakes hands.
    ///
    /// # Errors
    ///
    /// What the system says, and what the server's answer lacks.
    pub fn connect(address: &str) -> io::Result<Self> {
        let mut failure = io::Error::new(ErrorKind::InvalidInput, "the name stands for no address");
        for at in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&at, HANDSHAKE) {
                Ok(stream) => return Self::shake_hands(stream, address),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn shake_hands(stream: TcpStream, address: &str) -> io::Result<Self> {
        stream.set_read_timeout(Some(HANDSHAKE))?;
        stream.set_write_timeout(Some(HANDSHAKE))?;
        stream.set_nodelay(true)?;
        let shaken = tungstenite::client(format!("ws://{address}/"), stream);
        let (socket, _response) = shaken.map_err(|error| io::Error::other(error.to_string()))?;
        // From here on the listener waits, for more than this socket.
        socket.get_ref().set_nonblocking(true)?;
        Ok(Session { socket, staged: 0, unsent: false })
    }
}

impl FrameSource for Session {
    type Frame = Message;

    /// Not called on a source with a descriptor.
    fn next_frame(&mut self) -> io::Result<Option<Message>> {
        self.next_ready()
    }

    /// Reads on until the session has nothing: what it has buffered is no longer in the socket, where a
    /// wait would see it. Pings are answered by the session, while it reads.
    fn next_ready(&mut self) -> io::Result<Option<Message>> {
        loop {
            match self.socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => return Ok(Some(message)),
                Ok(_) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Ok(None),
                Err(error) => {
                    self.unsent = self.socket.flush().is_err();
                    return Err(into_io(error));
                }
            }
        }
    }

    fn wants_to_write(&self) -> bool {
        self.unsent
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.get_ref().as_fd())
    }
}

impl RequestSource<Message> for Session {
    type Address = ();

    fn address(&mut self, _message: &mut Message) {}

    /// Stages: what the socket doesn't take is kept by the session until it is flushed.
    fn answer(&mut self, _to: (), message: Message) -> io::Result<bool> {
        let length = message.len();
        match self.socket.write(message).map_err(into_io) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            _ => self.staged += length,
        }
        Ok(false)
    }

    fn flush(&mut self) -> io::Result<bool> {
        self.socket.flush().map_err(into_io)?;
        self.staged = 0;
        Ok(true)
    }

    fn staged(&self) -> usize {
        self.staged
    }
}

impl Drop for Session {
    /// Says goodbye, on the listener's thread, as far as the socket has room.
    fn drop(&mut self) {
        let _ = self.socket.close(None);
    }
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::other(other),
    }
}
