//! How a listener's thread waits: for its descriptor, and for whoever wakes it.
//!
//! Invariants:
//! 1. `woken` is set under the lock. The thread looks at it, and says that it polls, in one critical
//!    section, so no wake falls between a look and the wait after it.
//! 2. The bell is rung only while the thread polls; a ring that comes late ends the next wait early.

use crate::sync::{Deadline, Monitor, park_until};
use std::sync::{Arc, OnceLock};
use std::task::{Wake as Waking, Waker};

pub(crate) use bell::{Bell, Interest};

/// Wakes one thread, wherever that waits.
pub(crate) struct Wake {
    state: Monitor<State>,
    bell: OnceLock<Option<Bell>>,
}

#[derive(Default)]
struct State {
    woken: bool,
    /// The thread waits in the system, where only the bell reaches it.
    polling: bool,
}

impl Wake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Wake { state: Monitor::new(State::default()), bell: OnceLock::new() })
    }

    /// Ends the thread's wait, or its next one.
    pub(crate) fn notify(&self) {
        let polling = self.state.change(|state| {
            state.woken = true;
            state.polling
        });
        if let (true, Some(Some(bell))) = (polling, self.bell.get()) {
            bell.ring();
        }
    }

    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// Waits for a wake, up to the deadline.
    pub(crate) fn wait(&self, deadline: Deadline) {
        let mut ticket = None;
        park_until(deadline, |cx| {
            self.state.poll(&mut ticket, cx, |state| std::mem::take(&mut state.woken).then_some(()))
        });
        if let Some(ticket) = ticket {
            self.state.forget(ticket);
        }
    }
}

impl Waking for Wake {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

mod bell {
    use super::Wake;
    use crate::listener::source::poll::{LONGEST_POLL, POLL_TIMEOUT};
    use crate::sync::Deadline;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fd::{AsFd, BorrowedFd};
    use std::io;
    use std::time::Duration;

    #[cfg(any(target_os = "linux", target_os = "android"))]
    type End = rustix::fd::OwnedFd;
    #[cfg(windows)]
    type End = std::net::UdpSocket;
    #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
    type End = std::os::unix::net::UnixStream;

    /// How often room to write is looked for where the system can't be asked to tell of it.
    const LOOK: Duration = Duration::from_millis(10);

    /// What a thread waits for on its descriptor; an error and a hang-up always end the wait.
    #[derive(Clone, Copy, Default)]
    pub(crate) struct Interest {
        pub(crate) read: bool,
        pub(crate) write: bool,
    }

    impl Interest {
        fn flags(self) -> PollFlags {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, self.read);
            flags.set(PollFlags::OUT, self.write);
            flags
        }
    }

    /// A descriptor that is readable once it was rung.
    pub(crate) struct Bell {
        heard: End,
        /// The other end, where one descriptor isn't enough.
        #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
        rung: End,
    }

    impl Bell {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        pub(crate) fn new() -> io::Result<Self> {
            use rustix::event::{EventfdFlags, eventfd};
            Ok(Bell { heard: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
        }

        /// A socket that is connected to itself: it sends to nobody else, and hears nobody else.
        #[cfg(windows)]
        pub(crate) fn new() -> io::Result<Self> {
            use crate::listener::source::poll::wait_readable;
            let heard = End::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
            heard.connect(heard.local_addr()?)?;
            heard.set_nonblocking(true)?;
            let bell = Bell { heard };
            bell.ring();
            if !wait_readable(bell.descriptor(), POLL_TIMEOUT) {
                return Err(io::Error::other("something keeps the loopback's datagrams away"));
            }
            bell.silence();
            Ok(bell)
        }

        #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
        pub(crate) fn new() -> io::Result<Self> {
            let (heard, rung) = End::pair()?;
            heard.set_nonblocking(true)?;
            rung.set_nonblocking(true)?;
            Ok(Bell { heard, rung })
        }

        pub(crate) fn ring(&self) {
            #[cfg(any(target_os = "linux", target_os = "android", windows))]
            let rung = &self.heard;
            #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
            let rung = &self.rung;
            let once = 1_u64.to_ne_bytes();
            // Where it is full, it has been rung.
            #[cfg(unix)]
            let _ = rustix::io::write(rung, &once);
            #[cfg(windows)]
            let _ = rung.send(&once);
        }

        pub(crate) fn silence(&self) {
            #[cfg(unix)]
            while rustix::io::read(&self.heard, &mut [0_u8; 64]).is_ok_and(|read| read == 64) {}
            #[cfg(windows)]
            while self.heard.recv(&mut [0_u8; 64]).is_ok() {}
        }

        pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
            self.heard.as_fd()
        }
    }

    impl Wake {
        /// Waits for the descriptor or a wake, up to the deadline; true if the descriptor is ready.
        pub(crate) fn wait_on(
            &self,
            fd: BorrowedFd<'_>,
            interest: Interest,
            mut deadline: Deadline,
        ) -> bool {
            let bell = self.bell.get_or_init(|| Bell::new().ok()).as_ref();
            if bell.is_none() {
                // Out of descriptors: nobody can wake the thread, so it looks for itself.
                deadline = deadline.or_after(POLL_TIMEOUT);
            }
            let woken = self.state.with(|state| {
                let woken = std::mem::take(&mut state.woken);
                state.polling = !woken;
                woken
            });
            if woken {
                return false;
            }
            let (ready, rung) = poll_both(fd, interest, bell, deadline);
            self.state.with(|state| *state = Default::default());
            if let (true, Some(bell)) = (rung, bell) {
                bell.silence();
            }
            ready
        }
    }

    fn poll_both(
        fd: BorrowedFd<'_>,
        interest: Interest,
        bell: Option<&Bell>,
        deadline: Deadline,
    ) -> (bool, bool) {
        let bell = match bell {
            Some(bell) => PollFd::from_borrowed_fd(bell.descriptor(), PollFlags::IN),
            // Nobody can ring; the descriptor stands in for the bell, asked for nothing.
            None => PollFd::from_borrowed_fd(fd, PollFlags::empty()),
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, interest.flags()), bell];
        // Not every system can be told of weeks.
        let timeout = deadline.remaining().map(|left| left.min(LONGEST_POLL));
        let timeout = timeout.and_then(|left| Timespec::try_from(left).ok());
        // A signal ends the wait early, which does no harm.
        let _ = poll(&mut fds, timeout.as_ref());
        if cfg!(windows) && !interest.read && fds[0].revents() == PollFlags::HUP {
            // Windows tells of a peer that has ended its side whatever it is asked, again and again: room to
            // write has to be looked for.
            let _ = poll(&mut fds[1..], Timespec::try_from(LOOK).ok().as_ref());
        }
        (!fds[0].revents().is_empty(), !fds[1].revents().is_empty())
    }
}
