//! Where to listen: `udp://IP:PORT`, `tcp://IP:PORT` or `unix://PATH`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Udp(SocketAddr),
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = match text.split_once("://") {
            Some(("udp", rest)) => socket(rest).map(Address::Udp),
            Some(("tcp", rest)) => socket(rest).map(Address::Tcp),
            Some(("unix", path)) if !path.is_empty() => Some(Address::Unix(path.into())),
            _ => None,
        };
        parsed.ok_or_else(|| {
            "write udp://127.0.0.1:7000, tcp://127.0.0.1:7000 or unix:///tmp/echo.sock".to_owned()
        })
    }
}

/// An IP address and a port; `localhost` is the one name that needs no resolver.
fn socket(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Udp(at) => write!(f, "udp://{at}"),
            Address::Tcp(at) => write!(f, "tcp://{at}"),
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}
