//! Processes that are forked off, for tests that run in a process of their own.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// What the forked process may take.
const LIMIT: Duration = Duration::from_secs(20);

mod system {
    #![allow(unsafe_code)]

    use std::ffi::c_int;

    // SAFETY: these are the C library's, as POSIX declares them.
    unsafe extern "C" {
        safe fn fork() -> c_int;
        safe fn _exit(code: c_int) -> !;
    }

    /// Forks; `None` in the new process.
    pub(super) fn fork_off() -> Option<c_int> {
        let pid = fork();
        assert!(pid >= 0, "no new process");
        (pid > 0).then_some(pid)
    }

    /// Ends the process without what `exit` does, which belongs to the parent.
    pub(super) fn leave(code: c_int) -> ! {
        _exit(code)
    }
}

/// Runs `body` in a process that is forked off; that must come to its end in time.
pub fn in_a_fork(body: impl FnOnce()) {
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    let Some(pid) = system::fork_off() else {
        let fine = catch_unwind(AssertUnwindSafe(body)).is_ok();
        system::leave(if fine { 0 } else { 1 });
    };
    let pid = Pid::from_raw(pid).unwrap();
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match waitpid(Some(pid), WaitOptions::NOHANG).unwrap() {
            Some((_, status)) => break status,
            None if Instant::now() > deadline => {
                kill_process(pid, Signal::KILL).unwrap();
                waitpid(Some(pid), WaitOptions::empty()).unwrap();
                panic!("the forked process hangs");
            }
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(status.exit_status(), Some(0), "{status:?}");
}
