//! What the socket sources share: sends that don't wait, checks.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{Domain, SockRef, Socket, Type};
use std::io;
use std::net::ToSocketAddrs;
use std::time::Duration;

/// What the sockets of std and of socket2 are all made into: no signature needs a type of socket2's.
pub(crate) use rustix::fd::OwnedFd as OwnedSocket;

/// How long a receive waits on a socket that nobody else has, where no other wait is needed: a stop is
/// seen that much later.
pub(crate) const BRIEF: Duration = Duration::from_millis(10);

/// Has a receive not wait, whatever the mode that the socket's owners have set.
#[cfg(unix)]
pub(crate) const RECEIVE_NOW: RecvFlags = RecvFlags::DONTWAIT;

// Where no flag says it, the mode does; where no flag spares us a SIGPIPE, socket2 has set SO_NOSIGPIPE.
#[cfg(windows)]
pub(crate) const RECEIVE_NOW: RecvFlags = RecvFlags::empty();
#[cfg(windows)]
pub(crate) const SEND_NOW: SendFlags = SendFlags::empty();
#[cfg(target_vendor = "apple")]
pub(crate) const SEND_NOW: SendFlags = SendFlags::DONTWAIT;
#[cfg(all(unix, not(target_vendor = "apple")))]
pub(crate) const SEND_NOW: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// Sets the mode of a socket whose calls can't be told one by one not to wait: Windows' can't.
pub(crate) fn set_mode(socket: &SockRef<'_>) -> io::Result<()> {
    if cfg!(windows) { socket.set_nonblocking(true) } else { Ok(()) }
}

/// Has a socket that nobody else has wait briefly, where one call may wait and another not.
pub(crate) fn set_brief(socket: &Socket) -> io::Result<bool> {
    if cfg!(unix) {
        socket.set_read_timeout(Some(BRIEF))?;
    }
    Ok(cfg!(unix))
}

/// Receives, on a socket whose receive timeout is brief.
pub(crate) fn receive_briefly(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    let (received, _) = recv(socket, buffer, RecvFlags::empty()).map_err(told)?;
    Ok(received)
}

/// Receives what is there.
pub(crate) fn receive_now(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    let (received, _) = recv(socket, buffer, RECEIVE_NOW).map_err(told)?;
    Ok(received)
}

/// Sends what fits now, without a SIGPIPE.
pub(crate) fn send_now(socket: &Socket, data: &[u8]) -> io::Result<usize> {
    send(socket, data, SEND_NOW).map_err(told)
}

/// What an error of a connection is to its listener.
fn told(error: Errno) -> io::Error {
    match error {
        // Others' receive timeouts say this on Windows; ours has none, so the system has given it up.
        Errno::TIMEDOUT if cfg!(windows) => io::ErrorKind::ConnectionAborted.into(),
        error => error.into(),
    }
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
