use socket2::SockAddr;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Who is at the other end of a connection.
///
/// # Examples
///
/// ```
/// use callbridge::listener::Peer;
///
/// let peer = Peer::Ip("127.0.0.1:4000".parse().unwrap());
/// assert_eq!(peer.to_string(), "127.0.0.1:4000");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// An address and a port.
    Ip(SocketAddr),
    /// The path that a Unix socket is bound to, if it is.
    Unix(Option<PathBuf>),
}

impl Peer {
    pub(super) fn of(addr: &SockAddr) -> Self {
        if let Some(addr) = addr.as_socket() {
            return Peer::Ip(addr);
        }
        #[cfg(unix)]
        return Peer::Unix(addr.as_pathname().map(std::path::Path::to_owned));
        #[cfg(not(unix))]
        Peer::Unix(None)
    }

    /// The address, if it has one.
    ///
    /// # Examples
    ///
    /// ```
    /// # use callbridge::listener::Peer;
    /// assert_eq!(Peer::Unix(None).as_socket(), None);
    /// ```
    pub fn as_socket(&self) -> Option<SocketAddr> {
        match self {
            Peer::Ip(addr) => Some(*addr),
            Peer::Unix(_) => None,
        }
    }

    /// The host, which many ports may belong to.
    pub(super) fn host(&self) -> Option<IpAddr> {
        self.as_socket().map(|addr| addr.ip())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Ip(addr) => addr.fmt(f),
            Peer::Unix(Some(path)) => path.display().fmt(f),
            Peer::Unix(None) => f.write_str("unnamed"),
        }
    }
}
