//! How a listener's thread waits: for its descriptor, and for whoever wakes it.
//!
//! Invariants:
//! 1. `woken` is set under the lock. The thread looks at it, and says that it polls, in one critical
//!    section, so no wake falls between a look and the wait after it.
//! 2. The bell is rung only while the thread polls; a ring that comes late ends the next wait early.

use crate::sync::{Deadline, Monitor, park_until};
use std::sync::Arc;
use std::task::{Wake as Waking, Waker};

#[cfg(unix)]
pub(crate) use bell::{Bell, Interest};

/// Wakes one thread, wherever that waits.
pub(crate) struct Wake {
    state: Monitor<State>,
    #[cfg(unix)]
    bell: std::sync::OnceLock<Option<Bell>>,
}

#[derive(Default)]
struct State {
    woken: bool,
    /// The thread waits in the system, where only the bell reaches it.
    #[cfg(unix)]
    polling: bool,
}

impl Wake {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Wake {
            state: Monitor::new(State::default()),
            #[cfg(unix)]
            bell: std::sync::OnceLock::new(),
        })
    }

    /// Ends the thread's wait, or its next one.
    pub(crate) fn notify(&self) {
        #[cfg(unix)]
        {
            let polling = self.state.change(|state| {
                state.woken = true;
                state.polling
            });
            if let (true, Some(Some(bell))) = (polling, self.bell.get()) {
                bell.ring();
            }
        }
        #[cfg(not(unix))]
        self.state.change(|state| state.woken = true);
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

#[cfg(unix)]
mod bell {
    use super::Wake;
    use crate::listener::source::poll::POLL_TIMEOUT;
    use crate::sync::Deadline;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
        heard: OwnedFd,
        /// The other end, where one descriptor isn't enough.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        rung: OwnedFd,
    }

    impl Bell {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        pub(crate) fn new() -> io::Result<Self> {
            use rustix::event::{EventfdFlags, eventfd};
            Ok(Bell { heard: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
        }

        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        pub(crate) fn new() -> io::Result<Self> {
            let (heard, rung) = std::os::unix::net::UnixStream::pair()?;
            heard.set_nonblocking(true)?;
            rung.set_nonblocking(true)?;
            Ok(Bell { heard: heard.into(), rung: rung.into() })
        }

        pub(crate) fn ring(&self) {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            let rung = &self.heard;
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            let rung = &self.rung;
            // Where it is full, it has been rung.
            let _ = rustix::io::write(rung, &1_u64.to_ne_bytes());
        }

        pub(crate) fn silence(&self) {
            while rustix::io::read(&self.heard, &mut [0_u8; 64]).is_ok_and(|read| read == 64) {}
        }
    }

    impl AsFd for Bell {
        fn as_fd(&self) -> BorrowedFd<'_> {
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
            Some(bell) => PollFd::new(bell, PollFlags::IN),
            // Nobody can ring; the descriptor stands in for the bell, asked for nothing.
            None => PollFd::from_borrowed_fd(fd, PollFlags::empty()),
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, interest.flags()), bell];
        let timeout = deadline.remaining().and_then(|left| Timespec::try_from(left).ok());
        // A signal ends the wait early, which does no harm.
        let _ = poll(&mut fds, timeout.as_ref());
        (!fds[0].revents().is_empty(), !fds[1].revents().is_empty())
    }
}
