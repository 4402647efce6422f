//! UDP sockets as sources.

use super::datagram::{DatagramSocket, DatagramSource};
use super::socket;
#[cfg(unix)]
use rustix::net::RecvFlags;
use socket2::{Domain, SockRef, Socket, Type};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
#[cfg(unix)]
use std::os::fd::{AsFd, BorrowedFd};

/// A UDP socket as a source. Python: `loop.create_datagram_endpoint`.
pub type UdpSource = DatagramSource<UdpSocket>;

impl UdpSource {
    /// Binds a socket to `addr`; port 0 lets the system choose, see
    /// [`local_addr`](Self::local_addr).
    ///
    /// # Errors
    ///
    /// What the system says: the port is in use, the address isn't this machine's, ...
    pub fn bind(addr: impl ToSocketAddrs) -> io::Result<Self> {
        let socket = socket::first_that_works(addr, |addr| {
            let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, None)?;
            socket.bind(&addr.into())?;
            Ok(socket)
        })?;
        Self::over_own(socket)
    }
}

impl DatagramSocket for UdpSocket {
    type Addr = SocketAddr;

    const IS_UNIX: bool = false;

    fn sock(&self) -> SockRef<'_> {
        SockRef::from(self)
    }

    #[cfg(unix)]
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn local(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn fixed_peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    #[cfg(unix)]
    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<SocketAddr>)> {
        receive(self, buffer, RecvFlags::DONTWAIT)
    }

    #[cfg(unix)]
    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<SocketAddr>)> {
        receive(self, buffer, RecvFlags::empty())
    }

    #[cfg(not(unix))]
    fn receive_now(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<SocketAddr>)> {
        self.set_nonblocking(true)?;
        let received = self.receive(buffer);
        self.set_nonblocking(false)?;
        received
    }

    /// Windows names the sender of each datagram, connected or not. Of a socket that was shut down std's `recv`
    /// says that nothing came, again and again; `recv_from` has no address then, which is an error to it.
    #[cfg(not(unix))]
    fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<SocketAddr>)> {
        self.recv_from(buffer).map(|(received, peer)| (received, Some(peer)))
    }

    #[cfg(unix)]
    fn send_now(&self, data: &[u8], to: Option<&SocketAddr>) -> io::Result<usize> {
        Ok(match to {
            None => rustix::net::send(self, data, socket::no_wait())?,
            Some(to) => rustix::net::sendto(self, data, socket::no_wait(), to)?,
        })
    }

    #[cfg(not(unix))]
    fn send_now(&self, data: &[u8], to: Option<&SocketAddr>) -> io::Result<usize> {
        match to {
            None => self.send(data),
            Some(to) => self.send_to(data, to),
        }
    }

    fn kernel_drops(&self) -> Option<u64> {
        socket::kernel_drops(self)
    }
}

/// std's receive takes no flags, and trips over the address that a socket which was shut down doesn't give.
#[cfg(unix)]
fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    flags: RecvFlags,
) -> io::Result<(usize, Option<SocketAddr>)> {
    let (received, _, peer) = rustix::net::recvfrom(socket, buffer, flags)?;
    Ok((received, peer.and_then(|peer| peer.try_into().ok())))
}
