//! What Unix sockets need beside the rest: their addresses, and paths that go with the source.

use super::datagram::{DatagramSocket, DatagramSource};
use super::socket;
use rustix::net::RecvFlags;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fs;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

/// A socket's path that the crate has made, and removes again.
#[derive(Debug)]
pub(crate) struct BoundPath {
    path: PathBuf,
    /// Device and inode: if somebody has put another file there, it isn't ours to remove.
    identity: (u64, u64),
}

impl BoundPath {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(BoundPath { path: path.to_owned(), identity: identity(path)? })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // Without the right to remove it there is nobody to tell; the next bind will say so.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A socket bound to a new path.
pub(crate) fn bind(path: &Path, kind: Type) -> io::Result<(Socket, BoundPath)> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    Ok((socket, BoundPath::of(path)?))
}

/// A Unix datagram socket as a source; its peers are `std::os::unix::net::SocketAddr`s.
///
/// Only a peer that is bound to a path can be answered.
///
/// # Examples
///
/// ```
/// use callbridge::listener::{FrameSource, UnixDatagramSource};
/// use std::os::unix::net::UnixDatagram;
///
/// # fn main() -> std::io::Result<()> {
/// let (ours, theirs) = UnixDatagram::pair()?;
/// let mut source = UnixDatagramSource::from_socket(ours)?;
/// theirs.send(b"ping")?;
/// assert_eq!(&source.next_frame()?.unwrap().payload[..], b"ping");
/// # Ok(())
/// # }
/// ```
pub type UnixDatagramSource = DatagramSource<UnixDatagram>;

impl UnixDatagramSource {
    /// Binds a socket to `path`, which must not exist yet; it is removed with the source.
    ///
    /// # Errors
    ///
    /// What the system says: the path exists, is too long, can't be written, ...
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::listener::UnixDatagramSource;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let path = std::env::temp_dir().join(format!("callbridge-doc-d-{}", std::process::id()));
    /// let source = UnixDatagramSource::bind(&path)?;
    /// assert!(path.exists());
    /// drop(source);
    /// assert!(!path.exists());
    /// # Ok(())
    /// # }
    /// ```
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        let (socket, path) = bind(path.as_ref(), Type::DGRAM)?;
        let mut source = Self::from_socket(socket)?;
        source._path = Some(path);
        Ok(source)
    }
}

impl DatagramSocket for UnixDatagram {
    type Addr = SocketAddr;

    fn sock(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    fn local(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn fixed_peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    fn receive(
        &self,
        buffer: &mut [u8],
        fixed_peer: Option<&SocketAddr>,
        wait: bool,
    ) -> io::Result<(usize, Option<SocketAddr>)> {
        if !wait {
            rustix::net::recv(self, &mut [0_u8; 0], RecvFlags::DONTWAIT | RecvFlags::PEEK)?;
        }
        match fixed_peer {
            Some(peer) => self.recv(buffer).map(|received| (received, Some(peer.clone()))),
            None => self.recv_from(buffer).map(|(received, peer)| (received, Some(peer))),
        }
    }

    fn send_waiting(&self, data: &[u8], to: Option<&SocketAddr>) -> io::Result<usize> {
        match to {
            None => self.send(data),
            Some(to) => self.send_to_addr(data, to),
        }
    }

    fn send_now(&self, data: &[u8], to: Option<&SocketAddr>) -> io::Result<usize> {
        match to.map(SocketAddr::as_pathname) {
            None => socket::send_now(&self.sock(), data),
            Some(Some(path)) => socket::send_to_now(&self.sock(), data, &SockAddr::unix(path)?),
            Some(None) => self.send_waiting(data, to),
        }
    }

    fn nudge(&self, _connected: bool) {
        // Where that isn't possible, the tick will do.
        let _ = self.sock().shutdown(Shutdown::Both);
    }

    fn was_shut_down(&self, empty: u32) -> io::Result<bool> {
        // Nothing tells it from a peer that sends nothing, but no peer does that so often.
        Ok(empty > 1000)
    }

    fn kernel_drops(&self) -> Option<u64> {
        None
    }
}
