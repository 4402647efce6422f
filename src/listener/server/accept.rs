//! A listening socket as a source of connections.

use super::super::core::Core;
use super::super::driver::Limits;
use super::super::source::{FrameSource, is_timeout, poll};
use super::super::stats::{count, uncount};
use super::super::stop::Phase;
use super::Peer;
use super::link::Link;
use crate::sync::prim::atomic::Ordering;
use crate::sync::prim::{Mutex, lock};
use crate::sync::{SettingError, contain};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use socket2::{SockAddr, Socket, TcpKeepalive};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// After how much silence the system can be told to ask a peer: Linux counts whole seconds, in 15 bits.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(32_767));

/// What a server asks of its connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) max_frame: usize,
    pub(super) max_connections: usize,
    pub(super) max_connections_per_peer: usize,
    pub(super) capacity: usize,
    pub(super) write_buffer: usize,
    pub(super) keepalive: Option<Duration>,
    pub(super) limits: Limits,
    pub(super) linger: Duration,
}

impl Terms {
    /// Zeros that nobody means: they would turn everybody away, without a word.
    pub(super) fn check(&self) -> Result<(), SettingError> {
        let nothing = Some(Duration::ZERO);
        let refused = [
            (
                self.capacity == 0,
                "with_connection_capacity",
                "is 0, which lets no frame through: give at least 1",
            ),
            (
                self.max_connections == 0,
                "with_max_connections",
                "is 0, which lets nobody in: allow at least 1",
            ),
            (
                self.max_connections_per_peer == 0,
                "with_max_connections_per_peer",
                "is 0, which lets nobody in: allow at least 1",
            ),
            (
                self.limits.idle == nothing,
                "with_idle_timeout",
                "is 0, which nobody can keep: give more, or none",
            ),
            (
                self.limits.frame == nothing,
                "with_frame_timeout",
                "is 0, which nobody can keep: give more, or none",
            ),
            (
                self.keepalive == nothing,
                "with_keepalive",
                "is 0, which no system takes: give at least 1 s, or none",
            ),
        ];
        match refused.into_iter().find(|(refused, ..)| *refused) {
            Some((_, setting, why)) => Err(SettingError::new(setting, why)),
            None => Ok(()),
        }
    }
}

/// A connection that was admitted, on its own thread.
pub(crate) struct Accepted {
    pub(crate) link: Arc<Link>,
    pub(crate) socket: Arc<Socket>,
    pub(crate) limits: Limits,
    pub(crate) linger: Duration,
    pub(super) max_frame: usize,
    pub(crate) place: Place,
}

/// How many connections each host has.
type Hosts = Mutex<HashMap<IpAddr, usize>>;

/// A connection's place among those that are allowed.
pub(crate) struct Place {
    core: Arc<Core>,
    hosts: Arc<Hosts>,
    host: Option<IpAddr>,
}

impl Place {
    /// A place, if there is one for another connection of this host.
    fn take(
        core: &Arc<Core>,
        hosts: &Arc<Hosts>,
        host: Option<IpAddr>,
        terms: &Terms,
    ) -> Option<Self> {
        // Only the accepting thread counts up.
        if core.counters.open.load(Ordering::Acquire) >= terms.max_connections as u64 {
            return None;
        }
        if let Some(host) = host {
            let mut hosts = lock(hosts);
            let connections = hosts.entry(host).or_default();
            if *connections >= terms.max_connections_per_peer {
                return None;
            }
            *connections += 1;
        }
        count(&core.counters.open);
        Some(Place { core: Arc::clone(core), hosts: Arc::clone(hosts), host })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(host) = self.host {
            let mut hosts = lock(&self.hosts);
            if let Some(connections) = hosts.get_mut(&host) {
                *connections -= 1;
                if *connections == 0 {
                    hosts.remove(&host);
                }
            }
        }
        uncount(&self.core.counters.open);
    }
}

/// Accepts, and starts a thread for each connection by `start`.
pub(super) struct Acceptor<T, W> {
    socket: Arc<Socket>,
    injected: bool,
    core: Arc<Core>,
    terms: Terms,
    hosts: Arc<Hosts>,
    next_id: u64,
    start: W,
    /// Removed when the acceptor is dropped.
    #[cfg(unix)]
    _path: Option<super::super::source::unix::BoundPath>,
    connection: std::marker::PhantomData<fn() -> T>,
}

impl<T, W> Acceptor<T, W>
where
    T: Send + 'static,
    W: FnMut(Accepted) -> io::Result<T> + Send + 'static,
{
    pub(super) fn new(socket: Listening, core: &Arc<Core>, terms: Terms, start: W) -> Self {
        Acceptor {
            socket: socket.socket,
            injected: socket.injected,
            core: Arc::clone(core),
            terms,
            hosts: Arc::default(),
            next_id: 0,
            start,
            #[cfg(unix)]
            _path: socket.path,
            connection: std::marker::PhantomData,
        }
    }

    /// A connection, if it may stay and has a thread; none is closed at once and counted.
    fn admit(&mut self, socket: Socket, addr: &SockAddr) -> io::Result<Option<T>> {
        let counters = &self.core.counters;
        let peer = Peer::of(addr);
        let Some(place) = Place::take(&self.core, &self.hosts, peer.host(), &self.terms) else {
            count(&counters.refused);
            return Ok(None);
        };
        if self.set_up(&socket, &peer).is_err() {
            // It has gone already.
            count(&counters.accept_errors);
            return Ok(None);
        }
        self.next_id += 1;
        let socket = Arc::new(socket);
        let link = Link::new(self.next_id, peer, &self.core, Arc::clone(&socket));
        let Terms { max_frame, limits, linger, .. } = self.terms;
        let accepted = Accepted { link, socket, limits, linger, max_frame, place };
        let Some(started) = contain("a maker of codecs", || (self.start)(accepted)) else {
            count(&counters.failed_connections);
            return Ok(None);
        };
        match started {
            Ok(connection) => {
                count(&counters.accepted);
                Ok(Some(connection))
            }
            Err(error) => {
                count(&counters.refused);
                Err(error)
            }
        }
    }

    fn set_up(&self, socket: &Socket, peer: &Peer) -> io::Result<()> {
        if let Peer::Ip(_) = peer {
            socket.set_tcp_nodelay(true)?;
            if let Some(time) = self.terms.keepalive {
                let time = time.clamp(KEEPALIVE.0, KEEPALIVE.1);
                socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(time))?;
            }
        }
        Ok(())
    }
}

impl<T, W> FrameSource for Acceptor<T, W>
where
    T: Send + 'static,
    W: FnMut(Accepted) -> io::Result<T> + Send + 'static,
{
    type Frame = T;

    fn next_frame(&mut self) -> io::Result<Option<T>> {
        self.next_ready()
    }

    fn next_ready(&mut self) -> io::Result<Option<T>> {
        // However many peers are turned away, a stop is seen.
        while self.core.stop.phase() == Phase::Running {
            // Others' sockets keep their mode, so an accept may wait.
            if self.injected && !poll::wait_readable(self.socket.as_fd(), Duration::ZERO) {
                return Err(ErrorKind::WouldBlock.into());
            }
            match self.socket.accept() {
                Ok((socket, addr)) => match self.admit(socket, &addr) {
                    Ok(None) => {}
                    Ok(connection) => return Ok(connection),
                    // There was no thread to be had: a pause may help.
                    Err(_) => return Err(ErrorKind::Interrupted.into()),
                },
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
                Err(error) if is_timeout(&error) => {}
                Err(error) => {
                    count(&self.core.counters.accept_errors);
                    return match is_final(&error) {
                        true => Err(error),
                        false if is_gone(&error) => continue,
                        // Out of descriptors or memory: it passes, and the kernel keeps who waits.
                        false => Err(ErrorKind::Interrupted.into()),
                    };
                }
            }
        }
        Err(ErrorKind::Interrupted.into())
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn bound_to(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }
}

/// A listening socket, and the path that goes with it.
pub(super) struct Listening {
    pub(super) socket: Arc<Socket>,
    /// Others may have the socket, too: its mode is theirs.
    pub(super) injected: bool,
    #[cfg(unix)]
    pub(super) path: Option<super::super::source::unix::BoundPath>,
}

impl Listening {
    /// Sees to it that an accept doesn't wait for long.
    pub(super) fn prepare(&self, poll_timeout: Duration) -> io::Result<()> {
        let poll_timeout = poll::check_poll_timeout(poll_timeout)?;
        // Windows' receive timeouts don't end an accept.
        if cfg!(windows) || !self.injected {
            return self.socket.set_nonblocking(true);
        }
        // A connection that was seen may be another owner's by now.
        self.socket.set_read_timeout(Some(poll_timeout.min(poll::POLL_TIMEOUT)))
    }
}

/// The connection went before its turn.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

/// The socket doesn't listen any more: another owner has shut it down.
fn is_final(error: &io::Error) -> bool {
    let never = [Errno::INVAL, Errno::BADF, Errno::NOTSOCK, Errno::OPNOTSUPP];
    Errno::from_io_error(error).is_some_and(|errno| never.contains(&errno))
}
