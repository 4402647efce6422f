//! What the socket sources share: sends that don't wait, checks.

#[cfg(not(unix))]
use super::poll::check_poll_timeout;
#[cfg(not(unix))]
use socket2::SockRef;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::ToSocketAddrs;
use std::time::Duration;

/// What the sockets of std and of socket2 are all made into: no signature needs a type of socket2's.
#[cfg(unix)]
pub(crate) use std::os::fd::OwnedFd as OwnedSocket;
#[cfg(windows)]
pub(crate) use std::os::windows::io::OwnedSocket;

/// How long a receive waits on a socket that nobody else has, where no other wait is needed: a stop is
/// seen that much later.
#[cfg(unix)]
pub(crate) const BRIEF: Duration = Duration::from_millis(10);

/// Has calls that wait return at least this often, where the system can't wait for two things at once.
#[cfg(not(unix))]
pub(crate) fn set_timeouts(socket: &SockRef<'_>, timeout: Duration) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(check_poll_timeout(timeout)?))?;
    socket.set_write_timeout(Some(check_poll_timeout(timeout)?))
}

/// Receives, on a socket whose receive timeout is brief.
#[cfg(unix)]
pub(crate) fn receive_briefly(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    let (received, _) = rustix::net::recv(socket, buffer, rustix::net::RecvFlags::empty())?;
    Ok(received)
}

/// Receives what is there, whatever the mode that the socket's owners have set.
#[cfg(unix)]
pub(crate) fn receive_now(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    use rustix::net::{RecvFlags, recv};
    let (received, _) = recv(socket, buffer, RecvFlags::DONTWAIT)?;
    Ok(received)
}

/// Sends what fits now, without a SIGPIPE.
#[cfg(unix)]
pub(crate) fn send_now(socket: &Socket, data: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, data, no_wait())?)
}

/// Sends what fits within the poll timeout.
#[cfg(not(unix))]
pub(crate) fn send_now(socket: &Socket, data: &[u8]) -> io::Result<usize> {
    match socket.send(data) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        sent => sent,
    }
}

#[cfg(unix)]
pub(crate) fn no_wait() -> rustix::net::SendFlags {
    use rustix::net::SendFlags;
    // Where the flag doesn't exist, socket2 has set SO_NOSIGPIPE.
    #[cfg(not(target_vendor = "apple"))]
    return SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    #[cfg(target_vendor = "apple")]
    SendFlags::DONTWAIT
}

/// Tries the addresses one after the other; gives the last error.
pub(crate) fn first_that_works<T>(
    addrs: impl ToSocketAddrs,
    mut attempt: impl FnMut(std::net::SocketAddr) -> io::Result<T>,
) -> io::Result<T> {
    let mut failure =
        io::Error::new(io::ErrorKind::InvalidInput, "the name stands for no address: check it");
    for addr in addrs.to_socket_addrs()? {
        match attempt(addr) {
            Ok(outcome) => return Ok(outcome),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Refuses a socket of another type or family than the source reads.
pub(crate) fn check_kind(socket: &Socket, kind: Type, unix: bool) -> io::Result<()> {
    let family = match socket.local_addr()?.domain() {
        Domain::IPV4 | Domain::IPV6 => !unix,
        Domain::UNIX => unix,
        _ => false,
    };
    if family && socket.r#type()? == kind {
        return Ok(());
    }
    let wants = match (kind, unix) {
        (Type::DGRAM, false) => "a UDP socket",
        (Type::DGRAM, true) => "a Unix datagram socket",
        (_, false) => "a TCP socket",
        (_, true) => "a Unix stream socket",
    };
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("the socket is of the wrong kind: give {wants}"),
    ))
}

/// How many datagrams the kernel has dropped because the socket's buffer was full.
#[cfg(target_os = "linux")]
pub(crate) fn kernel_drops(socket: &impl std::os::fd::AsRawFd) -> Option<u64> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    let link = link.to_str()?;
    let inode = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    ["/proc/self/net/udp", "/proc/self/net/udp6"].into_iter().find_map(|table| {
        let table = std::fs::read_to_string(table).ok()?;
        // The tenth column is the inode, the last one the drops.
        let row = table.lines().find(|row| row.split_whitespace().nth(9) == Some(inode))?;
        row.split_whitespace().last()?.parse().ok()
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn kernel_drops<S>(_socket: &S) -> Option<u64> {
    None
}
