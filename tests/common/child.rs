//! Tests that need a process of their own: this binary, started again for the one test.
//!
//! For binaries whose test runner knows the names of tests as they are given here.
#![allow(dead_code, unreachable_pub)]

use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A child that runs for longer hangs.
const LIMIT: Duration = Duration::from_secs(60);

const CHILD: &str = "CALLBRIDGE_TEST_CHILD";

pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// This binary once more, to run nothing but the test of this name; by the command in
/// `CALLBRIDGE_EMULATOR` where the system can't run it by itself.
pub fn child(test: &str) -> Command {
    let program = std::env::current_exe().unwrap();
    let emulator = std::env::var("CALLBRIDGE_EMULATOR").unwrap_or_default();
    let mut words = emulator.split_whitespace();
    let mut command = Command::new(words.next().map_or(program.as_os_str(), OsStr::new));
    if !emulator.is_empty() {
        command.args(words).arg(&program);
    }
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    command
}

/// Runs `body` in a child process that runs nothing but the test of this name, and must come to its
/// end.
pub fn in_a_child(test: &str, body: impl FnOnce()) {
    if is_child() {
        return body();
    }
    let mut child = child(test).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
        }
        std::thread::yield_now();
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{}: {said}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}
