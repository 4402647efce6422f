//! The workloads, each in a file of its own; P11 is `python/p11.py`.

mod p01_stream;
mod p02_pressure;
mod p03_paced;
mod p04_call;
mod p05_in_flight;
pub(crate) mod p06_burst;
mod p07_udp;
mod p08_tcp;
mod p09_to_thread;
mod p10_scale;
mod p12_idle;
mod p13_by_hand;
mod p13_requests;

use crate::harness::{CaseResult, Goal, Plan};
use std::process::Command;

/// One workload.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) run: fn(&Bench<'_>) -> Vec<CaseResult>,
    pub(crate) goals: fn() -> Vec<Goal>,
}

/// What a workload is run with.
pub(crate) struct Bench<'a> {
    pub(crate) plan: Plan,
    /// Only cases whose name contains this.
    pub(crate) only_case: Option<&'a str>,
    /// Only contestants whose name contains one of these; all of them if there is none.
    pub(crate) only_contestants: &'a [String],
}

impl Bench<'_> {
    /// Whether to run a case of this name.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.only_case.is_none_or(|part| case.contains(part))
    }

    /// Runs a case, and tells how it went on.
    pub(crate) fn measure(&self, mut case: crate::harness::Case<'_>) -> CaseResult {
        if !self.only_contestants.is_empty() {
            case.retain(|name| self.only_contestants.iter().any(|part| name.contains(part)));
        }
        let result = case.measure(&self.plan);
        eprintln!("  {} {} done", result.workload, result.case);
        result
    }
}

/// All of them; the idle one first, before the others' threads have anything left to do.
pub(crate) fn all() -> Vec<Workload> {
    vec![
        p12_idle::WORKLOAD,
        p01_stream::WORKLOAD,
        p02_pressure::WORKLOAD,
        p03_paced::WORKLOAD,
        p04_call::WORKLOAD,
        p05_in_flight::WORKLOAD,
        p06_burst::WORKLOAD,
        p07_udp::WORKLOAD,
        p08_tcp::WORKLOAD,
        p09_to_thread::WORKLOAD,
        p10_scale::WORKLOAD,
        p13_by_hand::WORKLOAD,
    ]
}

/// P11: what the Python script says, if Python is there.
pub(crate) fn python(quick: bool) -> Option<serde_json::Value> {
    eprintln!("P11: Python");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/p11.py");
    let mut command = Command::new("python3");
    command.arg(script).args(quick.then_some("--quick"));
    let output = command.output().ok()?;
    if !output.status.success() {
        eprintln!("  left out: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    serde_json::from_slice(&output.stdout).ok()
}
