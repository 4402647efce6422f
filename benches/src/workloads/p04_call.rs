//! P4: a thread runs a future on the loop and waits for its result, one at a time.

use super::{Bench, Workload};
use crate::contestants::callers::{self, Caller};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::harness::{Case, CaseResult, Goal, Meter, Role, Round, Versus, latency_histogram};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P4",
    title: "Call from a thread and wait for the result, one at a time",
    run,
    goals,
};

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for flavour in [Flavour::Ct, Flavour::Mt1, Flavour::Mt2] {
        if !bench.wants(flavour.name()) {
            continue;
        }
        let on = Loop::new(flavour);
        let mut case = Case::new("P4", flavour.name());
        case.add(Role::Ours, "callbridge", |ops| round::<callers::Ours>(&on, ops));
        case.add(Role::Peer, "spawn + tokio oneshot", |ops| {
            round::<callers::SpawnTokioOneshot>(&on, ops)
        });
        case.add(Role::Peer, "spawn + oneshot crate", |ops| {
            round::<callers::SpawnOneshot>(&on, ops)
        });
        case.add(Role::Peer, "spawn + std sync_channel", |ops| {
            round::<callers::SpawnSyncChannel>(&on, ops)
        });
        case.add(Role::Peer, "Handle::block_on(spawn)", |ops| {
            round::<callers::HandleBlockOn>(&on, ops)
        });
        case.add(Role::Peer, "futures block_on(JoinHandle)", |ops| {
            round::<callers::FuturesBlockOn>(&on, ops)
        });
        case.add(Role::Limit, "parking ping-pong, two threads", parking);
        case.add(Role::Limit, "spinning ping-pong, two threads", spinning);
        results.push(bench.measure(case));
    }
    results
}

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    for case in ["ct", "mt1", "mt2"] {
        let goal = |ours, figure, at_most| Goal {
            workload: "P4",
            case,
            ours,
            figure,
            versus: Versus::Contestant("spawn + tokio oneshot"),
            at_most,
        };
        goals.push(goal("callbridge", "ns", 1.1));
    }
    goals
}

fn round<C: Caller>(on: &Loop, ops: u64) -> Round {
    let caller = C::new(on);
    let mut latency = latency_histogram();
    let mut sum = 0;
    let meter = Meter::start();
    let mut before = Instant::now();
    for n in 0..ops {
        sum += caller.wait(caller.submit(async move { n }));
        let now = Instant::now();
        let _ = latency.record((now - before).as_nanos() as u64);
        before = now;
    }
    let round = meter.stop(ops);
    assert_eq!(sum, ops * (ops - 1) / 2, "wrong results");
    round.with_latency(latency)
}

/// Two threads that park for each other: two wake-ups by the kernel.
fn parking(ops: u64) -> Round {
    let turn = AtomicU64::new(0);
    let caller = thread::current();
    ping_pong(
        ops,
        &turn,
        &|wanted, wake: Option<&thread::Thread>| {
            if let Some(other) = wake {
                other.unpark();
            }
            while turn.load(Ordering::Acquire) < wanted {
                thread::park();
            }
        },
        Some(&caller),
    )
}

/// Two threads that spin for each other: two transfers of a cache line.
fn spinning(ops: u64) -> Round {
    let turn = AtomicU64::new(0);
    ping_pong(
        ops,
        &turn,
        &|wanted, _| {
            while turn.load(Ordering::Acquire) < wanted {
                std::hint::spin_loop();
            }
        },
        None,
    )
}

fn ping_pong(
    ops: u64,
    turn: &AtomicU64,
    wait: &(dyn Fn(u64, Option<&thread::Thread>) + Sync),
    caller: Option<&thread::Thread>,
) -> Round {
    thread::scope(|scope| {
        let echo = scope.spawn(move || {
            wait(1, None);
            for n in 0..ops {
                turn.store(2 * n + 2, Ordering::Release);
                if n + 1 < ops {
                    wait(2 * n + 3, caller);
                } else if let Some(caller) = caller {
                    caller.unpark();
                }
            }
        });
        let mut latency = latency_histogram();
        let meter = Meter::start();
        let mut before = Instant::now();
        for n in 0..ops {
            turn.store(2 * n + 1, Ordering::Release);
            wait(2 * n + 2, caller.map(|_| echo.thread()));
            let now = Instant::now();
            let _ = latency.record((now - before).as_nanos() as u64);
            before = now;
        }
        meter.stop(ops).with_latency(latency)
    })
}
