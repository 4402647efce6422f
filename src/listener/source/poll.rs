//! Poll timeouts, and looks at one descriptor.

use crate::sync::SettingError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::BorrowedFd;
use std::io;
use std::time::Duration;

/// How often a thread that can't be woken looks at its stop, by default.
pub(crate) const POLL_TIMEOUT: Duration = Duration::from_millis(50);

pub(crate) const LONGEST_POLL: Duration = Duration::from_secs(3600);

pub(crate) fn check_poll_timeout(timeout: Duration) -> io::Result<Duration> {
    if timeout.is_zero() {
        let why = "is 0, which would spin: give at least 1 ms";
        return Err(SettingError::new("poll_timeout", why).into());
    }
    Ok(timeout.clamp(Duration::from_millis(1), LONGEST_POLL))
}

/// What a descriptor is ready for of what is asked, within the timeout; an error and a hang-up always count.
fn poll_one(fd: BorrowedFd<'_>, asked: PollFlags, timeout: Duration) -> PollFlags {
    let mut fds = [PollFd::from_borrowed_fd(fd, asked)];
    // A signal ends the wait early, which does no harm.
    let _ = poll(&mut fds, Timespec::try_from(timeout).ok().as_ref());
    fds[0].revents()
}

/// Waits until there is something to receive, up to the timeout.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    !poll_one(fd, PollFlags::IN, timeout).is_empty()
}

/// Whether something can be written without waiting.
pub(crate) fn is_writable(fd: BorrowedFd<'_>) -> bool {
    !poll_one(fd, PollFlags::OUT, Duration::ZERO).is_empty()
}

/// Whether nothing more can come, since this side or the other was shut down.
pub(crate) fn is_hung_up(fd: BorrowedFd<'_>) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let asked = PollFlags::RDHUP;
    // Windows refuses to be asked for what it always tells.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let asked = PollFlags::empty();
    poll_one(fd, asked, Duration::ZERO).intersects(asked | PollFlags::HUP)
}
