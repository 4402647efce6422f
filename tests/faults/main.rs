//! What happens when everything around the crate goes wrong: sources, peers, callbacks, limits of
//! the system, a loop that goes away in the middle, and a process that ends.

#[path = "../common/mod.rs"]
mod common;

mod callbacks;
mod exit;
#[cfg(target_os = "linux")]
mod limits;
mod lost_loop;
mod peers;
mod source;

use std::process::{Command, Stdio};
use std::time::Instant;

const CHILD: &str = "CALLBRIDGE_FAULTS_CHILD";

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// This binary once more, to run nothing but the test of this name.
fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    command
}

/// Runs `body` in a child process that runs nothing but the test of this name, and must come to its
/// end.
fn in_a_child(test: &str, body: impl FnOnce()) {
    if is_child() {
        return body();
    }
    let mut child = child(test).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + common::LONG;
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

/// Waits for a state that another thread brings about.
fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < common::LONG, "never came: {what}");
        std::thread::yield_now();
    }
}
