//! What the figures were taken on: enough to judge them, nothing that names the machine.

use serde::Serialize;
use std::process::Command;

#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) rustc: String,
    pub(crate) tokio: String,
}

impl Machine {
    pub(crate) fn here() -> Self {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        // The release may go on with what a builder called it.
        let kernel: String =
            kernel.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        Machine {
            cpu: model
                .map_or(std::env::consts::ARCH, |it| it.trim_matches([' ', '\t', ':']))
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: format!("{} {kernel}", std::env::consts::OS),
            rustc: rustc().unwrap_or_else(|| "unknown".to_owned()),
            tokio: locked("tokio").unwrap_or_else(|| "unknown".to_owned()),
        }
    }
}

fn rustc() -> Option<String> {
    let output = Command::new("rustc").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

/// The version of a package in the lock file that this was built with.
fn locked(package: &str) -> Option<String> {
    let lock = include_str!("../../../Cargo.lock");
    let entry =
        lock.split("[[package]]").find(|it| it.contains(&format!("name = \"{package}\"\n")))?;
    let version = entry.lines().find_map(|line| line.strip_prefix("version = "))?;
    Some(version.trim_matches('"').to_owned())
}
