//! What the socket sources share: tick intervals, addresses to nudge, sends that can't block.

use crate::sync::prim::atomic::{AtomicBool, Ordering};
use socket2::{SockAddr, SockRef, Socket, Type};
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, ToSocketAddrs};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// The tick of every socket source unless told otherwise.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// How much slower an idle connection ticks.
const SLOWER: u32 = 20;

/// Longer ticks are cut to this: a socket option counts in the system's own, smaller, units.
const LONGEST_TICK: Duration = Duration::from_secs(3600);

/// The flags of `send`: one makes a call fail rather than wait, the other keeps a broken connection
/// from raising `SIGPIPE` (where a program hasn't turned that off, as one not written in Rust
/// may not have).
///
/// socket2 takes flags as plain numbers and names none; these have never changed.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod flags {
    pub(super) const DONT_WAIT: Option<i32> = Some(0x40);
    pub(super) const NO_SIGNAL: i32 = 0x4000;
}
#[cfg(target_os = "freebsd")]
mod flags {
    pub(super) const DONT_WAIT: Option<i32> = Some(0x80);
    pub(super) const NO_SIGNAL: i32 = 0x2_0000;
}
// socket2 sets SO_NOSIGPIPE on these.
#[cfg(target_vendor = "apple")]
mod flags {
    pub(super) const DONT_WAIT: Option<i32> = Some(0x80);
    pub(super) const NO_SIGNAL: i32 = 0;
}
#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "freebsd",
    target_vendor = "apple"
)))]
mod flags {
    pub(super) const DONT_WAIT: Option<i32> = None;
    pub(super) const NO_SIGNAL: i32 = 0;
}

use flags::{DONT_WAIT, NO_SIGNAL};

/// A connected stream socket that knows whether this side has shut it down: what reads then like the
/// peer's end is none.
pub(crate) struct Line {
    socket: Socket,
    cut: AtomicBool,
}

impl Line {
    pub(crate) fn new(socket: Socket) -> Arc<Self> {
        Arc::new(Line { socket, cut: AtomicBool::new(false) })
    }

    /// Ends both directions, and wakes whoever is blocked in one.
    pub(crate) fn cut(&self) {
        // First: the shutdown is what the reader sees.
        self.cut.store(true, Ordering::Release);
        // A socket that isn't connected any more has nobody blocked on it.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Whether this side has shut it down.
    pub(crate) fn is_cut(&self) -> &AtomicBool {
        &self.cut
    }
}

impl Deref for Line {
    type Target = Socket;
    fn deref(&self) -> &Socket {
        &self.socket
    }
}

/// Makes blocking calls on the socket return at least this often: receiving and accepting, sending.
pub(crate) fn set_tick(socket: &SockRef<'_>, receive: Duration, send: Duration) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(check_tick(receive)?))?;
    socket.set_write_timeout(Some(check_tick(send)?))
}

/// As [`set_tick`] for a connected stream socket, on which a shutdown wakes a read everywhere: so
/// the tick is a second line there, and 10 000 idle connections shouldn't cost a core.
pub(crate) fn set_slow_tick(socket: &SockRef<'_>, interval: Duration) -> io::Result<()> {
    set_tick(socket, interval.saturating_mul(SLOWER), interval)
}

/// The interval as a socket takes it.
pub(crate) fn check_tick(interval: Duration) -> io::Result<Duration> {
    if interval.is_zero() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a poll interval of zero would spin: give at least 1 ms",
        ));
    }
    Ok(interval.clamp(Duration::from_millis(1), LONGEST_TICK))
}

/// The address at which a socket bound to `local` can be reached from its own machine.
pub(crate) fn reach(mut local: SocketAddr) -> SocketAddr {
    if local.ip().is_unspecified() {
        local.set_ip(match local {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    local
}

/// Whether a send can be told not to wait.
pub(crate) fn can_send_now() -> bool {
    DONT_WAIT.is_some()
}

/// Sends without waiting; `WouldBlock` says that the kernel's buffer is full.
///
/// Without a flag for that, the call waits for the socket's write timeout at most.
pub(crate) fn send_now(socket: &Socket, data: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(data, DONT_WAIT.unwrap_or(0) | NO_SIGNAL)
}

/// Sends, waiting at most for the socket's write timeout.
pub(crate) fn send_waiting(socket: &Socket, data: &[u8]) -> io::Result<usize> {
    socket.send_with_flags(data, NO_SIGNAL)
}

/// As [`send_now`] or [`send_waiting`], for several pieces at once.
pub(crate) fn send_pieces(socket: &Socket, data: &[IoSlice<'_>], wait: bool) -> io::Result<usize> {
    let no_wait = if wait { 0 } else { DONT_WAIT.unwrap_or(0) };
    socket.send_vectored_with_flags(data, no_wait | NO_SIGNAL)
}

/// As [`send_now`], to an address.
pub(crate) fn send_to_now(socket: &Socket, data: &[u8], to: &SockAddr) -> io::Result<usize> {
    socket.send_to_with_flags(data, to, DONT_WAIT.unwrap_or(0) | NO_SIGNAL)
}

/// The outcome of `attempt` for the first address that works, or the last error.
pub(crate) fn first_that_works<T>(
    addrs: impl ToSocketAddrs,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
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

/// Refuses a socket of the wrong type.
pub(crate) fn check_type(socket: &Socket, wanted: Type) -> io::Result<()> {
    if socket.r#type()? == wanted {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        "the socket is of the wrong type: datagram sources need SOCK_DGRAM, the others SOCK_STREAM",
    ))
}

/// What the kernel has dropped on this datagram socket for want of buffer space.
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
