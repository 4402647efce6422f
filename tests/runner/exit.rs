//! Runners that end with their thread, or with the process.

use crate::child::in_a_child;
use crate::common::{LONG, SHORT};
use callbridge::{ResultError, ThreadRunner};
use std::future::pending;
use std::sync::LazyLock;
use std::thread;

/// The thread's end drops the runner after tokio's own thread-local is gone.
#[test]
fn a_runner_in_a_thread_local_ends_with_its_thread() {
    std::thread_local!(static RUNNER: ThreadRunner = ThreadRunner::new());
    in_a_child("exit::a_runner_in_a_thread_local_ends_with_its_thread", || {
        let suspended = thread::spawn(|| {
            RUNNER.with(|runner| {
                runner.run(async {}).unwrap();
                runner.spawn(pending::<()>())
            })
        });
        let mut suspended = suspended.join().unwrap();
        assert!(matches!(suspended.result(LONG), Err(ResultError::LoopClosed)));
    });
}

/// As above, on the thread whose end is the process's.
#[test]
fn a_runner_in_a_thread_local_ends_with_the_process() {
    std::thread_local!(static RUNNER: ThreadRunner = ThreadRunner::new());
    in_a_child("exit::a_runner_in_a_thread_local_ends_with_the_process", || {
        RUNNER.with(|runner| {
            runner.run(async {}).unwrap();
            drop(runner.spawn(pending::<()>()));
        });
    });
}

mod system {
    #![allow(unsafe_code)]

    use std::ffi::c_int;

    // SAFETY: this is the C library's, as C declares it.
    unsafe extern "C" {
        safe fn atexit(callback: extern "C" fn()) -> c_int;
    }

    /// Runs `callback` when the process ends, after its thread-locals are gone.
    pub(super) fn at_exit(callback: extern "C" fn()) {
        assert_eq!(atexit(callback), 0);
    }
}

/// A static is dropped by nobody; what a library does at the end of the process may close it.
#[test]
fn a_static_runner_is_closed_at_the_end_of_the_process() {
    static RUNNER: LazyLock<ThreadRunner> = LazyLock::new(ThreadRunner::new);
    extern "C" fn close() {
        let suspended = RUNNER.spawn(pending::<()>());
        let _cut_off = RUNNER.close(SHORT);
        let report = RUNNER.close(LONG);
        assert!(report.still_running.is_empty() && suspended.is_done(), "{report}");
    }
    in_a_child("exit::a_static_runner_is_closed_at_the_end_of_the_process", || {
        RUNNER.run(async {}).unwrap();
        system::at_exit(close);
    });
}
