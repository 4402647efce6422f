//! The thread that accepts connections and gives each a thread of its own.

use super::connection::Peer;
use super::core::{Core, Verdict};
use super::socket::{self, Line};
use super::source::{Interrupter, is_tick};
use super::stats::{count, uncount};
use crate::sync::prim::atomic::Ordering;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// The first and the longest pause after a failed accept.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// What all connections of a server share.
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) answer_budget: usize,
    pub(super) poll_interval: Duration,
    pub(super) max_frame: usize,
}

/// A connection's place among those that may be open.
pub(crate) struct Slot(Arc<Shared>);

impl Slot {
    fn take(shared: &Arc<Shared>) -> Self {
        count(&shared.core.counters.open);
        Slot(Arc::clone(shared))
    }
}

impl Deref for Slot {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        uncount(&self.0.core.counters.open);
    }
}

/// A connection that was accepted and has its place.
pub(crate) struct Accepted {
    pub(crate) id: u64,
    pub(crate) peer: Peer,
    pub(crate) socket: Arc<Line>,
    pub(crate) slot: Slot,
}

pub(super) struct Acceptor {
    pub(super) socket: Arc<Socket>,
    pub(super) own: bool,
    pub(super) max_connections: usize,
    pub(super) shared: Arc<Shared>,
    /// The number of the last connection.
    pub(super) next_id: u64,
}

impl Acceptor {
    pub(super) fn run(&mut self, work: &Arc<impl Fn(Accepted) + Send + Sync + 'static>) -> Verdict {
        let core = Arc::clone(&self.shared.core);
        let _nudge = core.stop.register(self.interrupter());
        let mut pause = BACK_OFF.0;
        while !core.stop.is_set() {
            match self.socket.accept() {
                // The connection to itself that a stop may have made.
                Ok(_) if core.stop.is_set() => break,
                Ok((socket, peer)) => match self.admit(socket, &peer, work) {
                    Ok(()) => pause = BACK_OFF.0,
                    Err(_) => self.back_off(&mut pause),
                },
                Err(error) if is_tick(&error) => {}
                Err(error) if is_gone(&error) => count(&core.counters.accept_errors),
                Err(_) if core.stop.is_set() => break,
                Err(_) => {
                    count(&core.counters.accept_errors);
                    self.back_off(&mut pause);
                }
            }
        }
        Verdict::Stopped
    }

    fn back_off(&self, pause: &mut Duration) {
        let _stopped = self.shared.core.stop.wait(Some(*pause));
        *pause = (*pause * 2).min(BACK_OFF.1);
    }

    /// Gives a connection its thread; fails if there is none to be had.
    fn admit(
        &mut self,
        socket: Socket,
        peer: &SockAddr,
        work: &Arc<impl Fn(Accepted) + Send + Sync + 'static>,
    ) -> io::Result<()> {
        let core = &self.shared.core;
        if core.counters.open.load(Ordering::Acquire) >= self.max_connections as u64 {
            count(&core.counters.refused);
            return Ok(());
        }
        let peer = peer_of(peer);
        let ready = socket::set_slow_tick(&SockRef::from(&socket), self.shared.poll_interval)
            .and_then(|()| match peer {
                Peer::Ip(_) => socket.set_tcp_nodelay(true),
                Peer::Unix(_) => Ok(()),
            });
        if ready.is_err() {
            // It has gone already.
            count(&core.counters.accept_errors);
            return Ok(());
        }
        self.next_id += 1;
        let id = self.next_id;
        let slot = Slot::take(&self.shared);
        let accepted = Accepted { id, peer, socket: Line::new(socket), slot };
        let work = Arc::clone(work);
        let started = core.stop.spawn(&format!("{}-{id}", core.name), move || work(accepted));
        count(if started.is_ok() { &core.counters.accepted } else { &core.counters.refused });
        started
    }

    fn interrupter(&self) -> Interrupter {
        let (socket, own) = (Arc::downgrade(&self.socket), self.own);
        Interrupter::new(move || {
            let Some(socket) = socket.upgrade() else { return };
            // Not every system wakes an accept by a shutdown, and a socket that others listen on as
            // well must not be shut down. Where neither helps, the tick will do.
            if !own || socket.shutdown(Shutdown::Both).is_err() {
                let _ = connect_to(&socket);
            }
        })
    }
}

/// Connects to a listening socket and hangs up, without waiting.
fn connect_to(listening: &Socket) -> io::Result<()> {
    let local = listening.local_addr()?;
    let (domain, to) = match local.as_socket() {
        Some(addr) => (Domain::for_address(addr), socket::reach(addr).into()),
        None => (Domain::UNIX, local),
    };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&to)
}

/// Whether an accept failed because the connection had gone before its turn.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

fn peer_of(addr: &SockAddr) -> Peer {
    if let Some(addr) = addr.as_socket() {
        return Peer::Ip(addr);
    }
    #[cfg(unix)]
    return Peer::Unix(addr.as_pathname().map(std::path::Path::to_owned));
    #[cfg(not(unix))]
    Peer::Unix(None)
}
