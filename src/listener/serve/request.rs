use super::super::server::ConnectionHandle;
use std::fmt;
use std::time::Instant;

/// A request on a server's connection, as its handler gets it.
///
/// # Examples
///
/// ```
/// use callbridge::Bridge;
/// use callbridge::listener::{Listener, Request, TcpServer};
/// use std::io::{BufRead, BufReader, Write};
/// use tokio_util::codec::LinesCodec;
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
/// let bridge = Bridge::new(runtime.handle().clone());
/// let server = TcpServer::bind("127.0.0.1:0", 1024, LinesCodec::new)?;
/// let addr = server.local_addr()?;
/// let _listener = Listener::builder(server)
///     .serve(&bridge, |request: Request<String>| async move {
///         Some(format!("{} from {}", request.frame, request.connection.id()))
///     })
///     .spawn()?;
///
/// let mut client = std::net::TcpStream::connect(addr)?;
/// client.write_all(b"hello\n")?;
/// let mut reply = String::new();
/// BufReader::new(client).read_line(&mut reply)?;
/// assert_eq!(reply, "hello from 1\n");
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
pub struct Request<F> {
    /// What was asked.
    pub frame: F,
    /// Whose request it is: the number of the connection, its peer, the way to close it, and a token that is
    /// cancelled when the peer is gone.
    pub connection: ConnectionHandle,
    /// When the reply is too late; none if there is no limit.
    pub deadline: Option<Instant>,
}

impl<F> Request<F> {
    /// Makes a request by hand, to test a handler: its connection has no socket, and there is no
    /// deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::Request;
    ///
    /// async fn shout(request: Request<String>) -> Option<String> {
    ///     Some(request.frame.to_uppercase())
    /// }
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    /// # runtime.block_on(async {
    /// assert_eq!(shout(Request::new("hey".to_owned())).await.as_deref(), Some("HEY"));
    /// # });
    /// ```
    pub fn new(frame: F) -> Self {
        Request { frame, connection: ConnectionHandle::detached(), deadline: None }
    }
}

impl<F> fmt::Debug for Request<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("connection", &self.connection).finish_non_exhaustive()
    }
}
