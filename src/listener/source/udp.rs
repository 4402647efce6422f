//! UDP sockets as sources.

use super::datagram::{DatagramSocket, DatagramSource, Received};
use super::socket;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::net::RecvFlags;
use socket2::{Domain, SockRef, Socket, Type};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};

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

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn local(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }

    fn fixed_peer(&self) -> Option<SocketAddr> {
        self.peer_addr().ok()
    }

    /// std's receive takes no flags, and trips over the address that a socket which was shut down doesn't give.
    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> Received<SocketAddr> {
        let (received, _, peer) = rustix::net::recvfrom(self, buffer, flags)?;
        Ok((received, peer.and_then(|peer| peer.try_into().ok())))
    }

    fn send_now(&self, data: &[u8], to: Option<&SocketAddr>) -> io::Result<usize> {
        Ok(match to {
            None => rustix::net::send(self, data, socket::SEND_NOW)?,
            Some(to) => rustix::net::sendto(self, data, socket::SEND_NOW, to)?,
        })
    }

    fn kernel_drops(&self) -> Option<u64> {
        socket::kernel_drops(self)
    }
}
