//! What Unix sockets need beside the rest: their addresses, and paths that go with the source.

use super::datagram::{DatagramSocket, DatagramSource, Received};
use super::socket;
use rustix::net::{RecvFlags, SocketAddrUnix, recvfrom};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fs;
use std::io;
#[cfg(target_os = "android")]
use std::os::android::net::SocketAddrExt;
use std::os::fd::{AsFd, BorrowedFd};
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
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
        // The directory may be another when it is removed.
        let path = std::path::absolute(path)?;
        Ok(BoundPath { identity: identity(&path)?, path })
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

/// A socket bound to a path, or to an abstract name (which begins with a NUL byte).
///
/// A path that nobody serves any more, since its process was killed, is taken over.
pub(crate) fn bind(path: &Path, kind: Type) -> io::Result<(Socket, Option<BoundPath>)> {
    let socket = Socket::new(Domain::UNIX, kind, None)?;
    let addr = SockAddr::unix(path)?;
    match socket.bind(&addr) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_dead(path, kind) => {
            fs::remove_file(path)?;
            socket.bind(&addr)?;
        }
        bound => bound?,
    }
    let is_abstract = path.as_os_str().as_bytes().first() == Some(&0);
    let path = if is_abstract { None } else { Some(BoundPath::of(path)?) };
    Ok((socket, path))
}

/// Whether a path is a socket that nobody has open.
fn is_dead(path: &Path, kind: Type) -> bool {
    // A file of another kind refuses connections, too.
    if !fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        return false;
    }
    let Ok(addr) = SockAddr::unix(path) else { return false };
    // A socket of the other kind can't connect: one that is served says so, and gets no connection.
    let other = if kind == Type::STREAM { Type::DGRAM } else { Type::STREAM };
    let tried = Socket::new(Domain::UNIX, other, None).and_then(|socket| socket.connect(&addr));
    tried.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
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
    /// Binds a socket to `path`, which is removed with the source.
    ///
    /// A path that is left over, since its process was killed, is taken over; one that is served is an
    /// error. A name that begins with a NUL byte is abstract (Linux). The file's mode is what the umask
    /// leaves: set that, or choose a directory that only the right users may enter.
    ///
    /// # Errors
    ///
    /// What the system says: the path is in use, is too long, can't be written, ...
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
        let mut source = Self::over_own(socket)?;
        source.path = path;
        Ok(source)
    }
}

impl DatagramSocket for UnixDatagram {
    type Addr = SocketAddr;

    const IS_UNIX: bool = true;

    fn sock(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn local(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn fixed_peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> Received<SocketAddr> {
        let (received, _, peer) = recvfrom(self, buffer, flags)?;
        let peer = match peer.and_then(|peer| SocketAddrUnix::try_from(peer).ok()) {
            Some(peer) => std_address(&peer),
            None => None,
        };
        // The system gives no address of a peer that has none.
        Ok((received, peer.or_else(unnamed)))
    }

    fn send_now(&self, data: &[u8], to: Option<&SocketAddr>) -> io::Result<usize> {
        Ok(match to {
            None => rustix::net::send(self, data, socket::SEND_NOW)?,
            Some(to) => rustix::net::sendto(self, data, socket::SEND_NOW, &own_address(to)?)?,
        })
    }

    fn kernel_drops(&self) -> Option<u64> {
        None
    }
}

fn unnamed() -> Option<SocketAddr> {
    SocketAddr::from_pathname("").ok()
}

fn std_address(addr: &SocketAddrUnix) -> Option<SocketAddr> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = addr.abstract_name() {
        return SocketAddr::from_abstract_name(name).ok();
    }
    let path = addr.path()?;
    SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path.to_bytes())).ok()
}

fn own_address(addr: &SocketAddr) -> io::Result<SocketAddrUnix> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Some(name) = addr.as_abstract_name() {
        return Ok(SocketAddrUnix::new_abstract_name(name)?);
    }
    match addr.as_pathname() {
        Some(path) => Ok(SocketAddrUnix::new(path)?),
        None => Err(io::Error::new(
            io::ErrorKind::AddrNotAvailable,
            "the peer has no address: only one that is bound can be answered",
        )),
    }
}
