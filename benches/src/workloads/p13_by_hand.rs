//! P13: calls and requests from a foreign thread beside the adapters that one writes by hand.
//!
//! The shortest is `Handle::block_on`: nothing is handed over, the future is polled where the caller is.
//! A task that sends its result, or whose handle is waited for, runs on the loop instead. Requests are in [`super::p13_requests`].

use super::p05_in_flight::pipeline;
use super::{Bench, Workload, p13_requests};
use crate::contestants::callers::{self, Call, Caller};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::harness::{Case, CaseResult, Goal, Meter, Role, Round, Versus};
use std::time::Duration;

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P13",
    title: "Calls and requests beside the adapters written by hand",
    run,
    goals,
};

const IN_FLIGHT: usize = 64;
const CALL: &str = "callbridge call";
const SUBMITTED: &str = "callbridge run_coroutine_threadsafe";
const HERE: &str = "Handle::block_on";
const ONESHOT: &str = "spawn + tokio oneshot";
const JOIN_HANDLE: &str = "Handle::block_on(spawn)";
/// tokio's timers round this up to its next millisecond.
const SLEEP: Duration = Duration::from_micros(50);

/// What a future does before it returns its number.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Nothing.
    Ready,
    /// Waits for a timer of the loop.
    Timer,
    /// Waits for a task that it spawns.
    Task,
}

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for flavour in [Flavour::Ct, Flavour::Mt1, Flavour::Mt2] {
        for (text, kind) in [("ready", Kind::Ready), ("timer", Kind::Timer), ("task", Kind::Task)] {
            let name = format!("{text}/{}", flavour.name());
            if bench.wants(&name) {
                results.push(bench.measure(one_at_a_time(&Loop::new(flavour), name, kind)));
            }
        }
        let name = format!("64 in flight/{}", flavour.name());
        if bench.wants(&name) {
            results.push(bench.measure(in_flight(&Loop::new(flavour), name)));
        }
    }
    results.extend(p13_requests::run(bench));
    results
}

fn one_at_a_time(on: &Loop, name: String, kind: Kind) -> Case<'_> {
    let mut case = Case::new("P13", name);
    if matches!(kind, Kind::Timer) {
        case = case.at_least(20).longer(2);
    }
    case.add(Role::Ours, CALL, move |ops| round::<callers::PolledByBridge>(on, kind, ops));
    case.add(Role::Ours, SUBMITTED, move |ops| round::<callers::Ours>(on, kind, ops));
    case.add(Role::Peer, HERE, move |ops| round::<callers::PolledByHandle>(on, kind, ops));
    case.add(Role::Peer, ONESHOT, move |ops| round::<callers::SpawnTokioOneshot>(on, kind, ops));
    case.add(Role::Peer, JOIN_HANDLE, move |ops| round::<callers::HandleBlockOn>(on, kind, ops));
    case
}

fn in_flight(on: &Loop, name: String) -> Case<'_> {
    fn ready<C: Caller>(on: &Loop, ops: u64) -> Round {
        pipeline(&<C as Caller>::new(on), IN_FLIGHT, ops, |n| async move { n })
    }
    let mut case = Case::new("P13", name);
    case.add(Role::Ours, SUBMITTED, move |ops| ready::<callers::Ours>(on, ops));
    case.add(Role::Peer, ONESHOT, move |ops| ready::<callers::SpawnTokioOneshot>(on, ops));
    case.add(Role::Peer, JOIN_HANDLE, move |ops| ready::<callers::HandleBlockOn>(on, ops));
    case
}

fn goals() -> Vec<Goal> {
    const TASKS: Versus = Versus::BestOf(&[ONESHOT, JOIN_HANDLE]);
    let goal = |case, ours, figure, at_most, versus| Goal {
        workload: "P13",
        case,
        ours,
        figure,
        versus,
        at_most,
    };
    let mut goals = Vec::new();
    let here = Versus::Contestant(HERE);
    for case in ["ready/ct", "ready/mt1", "ready/mt2"] {
        goals.push(goal(case, CALL, "ns", 2.0, here));
        // The bridge itself is there once.
        goals.push(goal(case, CALL, "allocations", 1.0, Versus::Number(0.001)));
        goals.push(goal(case, SUBMITTED, "ns", 1.1, TASKS));
    }
    for case in ["timer/ct", "timer/mt1", "timer/mt2", "task/ct", "task/mt1", "task/mt2"] {
        goals.push(goal(case, CALL, "ns", 1.1, here));
    }
    for case in ["64 in flight/ct", "64 in flight/mt1", "64 in flight/mt2"] {
        goals.push(goal(case, SUBMITTED, "ns", 1.1, TASKS));
    }
    goals.extend(p13_requests::goals());
    goals
}

fn round<C: Call>(on: &Loop, kind: Kind, ops: u64) -> Round {
    let caller = C::new(on);
    match kind {
        Kind::Ready => each(&caller, ops, |n| async move { n }),
        Kind::Timer => each(&caller, ops, |n| async move {
            tokio::time::sleep(SLEEP).await;
            n
        }),
        Kind::Task => each(&caller, ops, |n| async move {
            tokio::spawn(async move { n }).await.expect("it doesn't panic")
        }),
    }
}

/// Calls one after the other and checks the sum of what they return. Takes no time of each: a ready
/// future costs less than reading the clock twice.
fn each<C: Call, F>(caller: &C, ops: u64, make: impl Fn(u64) -> F) -> Round
where
    F: Future<Output = u64> + Send + 'static,
{
    let meter = Meter::start();
    let sum: u64 = (0..ops).map(|n| caller.call(make(n))).sum();
    let round = meter.stop(ops);
    assert_eq!(sum, ops * (ops - 1) / 2, "wrong results");
    round
}
