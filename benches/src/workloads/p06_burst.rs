//! P6: a burst of pending calls: memory and allocations per call, and what is left after.
//!
//! Each round is a process of its own, so that memory which another contestant has given back to
//! the allocator doesn't hide what this one takes. The allocator counts all the while, which costs
//! a few nanoseconds per allocation. callbridge's limit of calls in flight is lifted.

use super::{Bench, Workload};
use crate::contestants::callers::{self, Caller};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::contestants::pending::{Gate, burst, call_size};
use crate::harness::alloc;
use crate::harness::{Case, CaseResult, Goal, Meter, Role, Round, Versus};
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::time::Duration;

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P6",
    title: "A burst: 1 000 000 pending calls (bytes beyond the user's future)",
    run,
    goals,
};

/// What a call's future holds besides the 24 bytes that the gate takes.
const STATES: [&str; 3] = ["no state", "64 B state", "256 B state"];

const OURS: &str = "callbridge";
const TOKIO_ONESHOT: &str = "spawn + tokio oneshot";
const ONESHOT: &str = "spawn + oneshot crate";
const SYNC_CHANNEL: &str = "spawn + std sync_channel";
const JOIN_HANDLE: &str = "spawn, JoinHandle";

/// What a child process tells.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    cpu_ns: u64,
    switches: u64,
    allocations: u64,
    submit_ns: u64,
    resolve_ns: u64,
    resident: i64,
    live: i64,
    left: i64,
}

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let calls = if bench.plan.quick { 20_000 } else { 1_000_000 };
    let mut results = Vec::new();
    for state in STATES {
        if !bench.wants(state) {
            continue;
        }
        let mut case = Case::new("P6", state).fixed(calls).at_most(3);
        for (role, name) in [
            (Role::Ours, OURS),
            (Role::Peer, TOKIO_ONESHOT),
            (Role::Peer, ONESHOT),
            (Role::Peer, SYNC_CHANNEL),
            (Role::Peer, JOIN_HANDLE),
        ] {
            case.add(role, name, move |ops| in_a_child(name, state, ops));
        }
        results.push(bench.measure(case));
    }
    results
}

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    for case in STATES {
        let goal = |figure, bound| Goal {
            workload: "P6",
            case,
            ours: OURS,
            figure,
            versus: Versus::Number(bound),
            at_most: 1.0,
        };
        let beside_oneshot =
            |figure| Goal { versus: Versus::Contestant(TOKIO_ONESHOT), ..goal(figure, f64::NAN) };
        goals.extend([
            beside_oneshot("allocated bytes"),
            beside_oneshot("resident bytes"),
            // A little for what grows by doubling.
            // One for the task that holds the future, one beyond it; and the queues' growth, shared by all.
            goal("allocations", 2.05),
            goal("resident bytes", 200.0),
            goal("bytes left", 1.0),
        ]);
    }
    goals
}

fn in_a_child(contestant: &str, state: &str, calls: u64) -> Round {
    let this = std::env::current_exe().expect("this program has a path");
    let output = Command::new(this)
        .args(["--burst", &format!("{contestant}:{state}:{calls}")])
        .output()
        .expect("a child process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Told = serde_json::from_slice(&output.stdout).expect("the child tells what it found");
    let each = |value: f64| value / calls as f64;
    let round = Round {
        ops: calls,
        wall: Duration::from_nanos(told.submit_ns + told.resolve_ns),
        cpu: Duration::from_nanos(told.cpu_ns),
        switches: told.switches,
        allocations: told.allocations,
        latency: None,
        extra: Vec::new(),
    };
    round
        .with("submit ns", each(told.submit_ns as f64))
        .with("resolve ns", each(told.resolve_ns as f64))
        .with("resident bytes", each(told.resident as f64))
        .with("allocated bytes", each(told.live as f64))
        .with("bytes left", each(told.left as f64))
}

/// The child's side: one burst, and what it took as JSON.
pub(crate) fn child(order: &str) -> anyhow::Result<()> {
    let mut parts = order.split(':');
    let (contestant, state, calls) = (parts.next(), parts.next(), parts.next());
    let calls = calls.unwrap_or_default().parse()?;
    let state = STATES.iter().position(|known| state == Some(known)).unwrap_or_default();
    let measure = match contestant {
        Some(OURS) => with_state::<callers::Ours<true>>,
        Some(TOKIO_ONESHOT) => with_state::<callers::SpawnTokioOneshot>,
        Some(ONESHOT) => with_state::<callers::SpawnOneshot>,
        Some(SYNC_CHANNEL) => with_state::<callers::SpawnSyncChannel>,
        Some(JOIN_HANDLE) => with_state::<callers::HandleBlockOn>,
        _ => anyhow::bail!("there is no such contestant: {order}"),
    };
    println!("{}", serde_json::to_string(&measure(state, calls))?);
    Ok(())
}

/// Measures with one of the [`STATES`].
fn with_state<C: Caller>(state: usize, calls: u64) -> Told {
    [measure::<C, 0>, measure::<C, 64>, measure::<C, 256>][state](calls)
}

fn measure<C: Caller, const STATE: usize>(calls: u64) -> Told {
    let on = Loop::new(Flavour::Mt1);
    let caller = C::new(&on);
    // Warm, so that what is there once isn't counted per call.
    burst::<C, STATE>(&caller, &Gate::new(64), || ());
    let gate = Gate::new(calls);
    let mut told = Told::default();

    alloc::count(true);
    let futures = (calls as usize * call_size::<STATE>()) as i64;
    let (resident_before, live_before) = (resident(), alloc::live_bytes());
    let meter = Meter::start();
    let took = burst::<C, STATE>(&caller, &gate, || {
        told.resident = resident() - resident_before - futures;
        told.live = alloc::live_bytes() - live_before - futures;
    });
    let round = meter.stop(calls);
    told.left = (settled() - live_before).max(0);
    drop(caller);
    Told {
        cpu_ns: round.cpu.as_nanos() as u64,
        switches: round.switches,
        allocations: round.allocations,
        submit_ns: took.submit.as_nanos() as u64,
        resolve_ns: took.resolve.as_nanos() as u64,
        ..told
    }
}

/// Live bytes once the loop has dropped what it still held.
fn settled() -> i64 {
    let mut before = i64::MAX;
    for _ in 0..100 {
        std::thread::sleep(Duration::from_millis(10));
        let now = alloc::live_bytes();
        if now == before {
            break;
        }
        before = now;
    }
    before
}

/// Resident memory in bytes.
fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: i64 = statm.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    pages * 4096
}
