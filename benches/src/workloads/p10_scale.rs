//! P10: what an operation costs when there are a thousand times more of them; callbridge's limit of
//! calls in flight is lifted for the pending ones.

use super::p01_stream::Stream;
use super::p05_in_flight::pipeline;
use super::{Bench, Workload};
use crate::contestants::callers::{self, Caller};
use crate::contestants::channels::{self, Channel};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::contestants::frames::{Pool, Sink, Stamps};
use crate::contestants::pending::{Gate, burst};
use crate::harness::{Case, CaseResult, Goal, Meter, Role, Round, Versus};
use std::thread;

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P10",
    title: "Scale: producers, calls in flight, calls pending (cost per operation)",
    run,
    goals,
};

const PRODUCERS: [(&str, u64); 4] =
    [("1 producer", 1), ("10 producers", 10), ("100 producers", 100), ("1000 producers", 1000)];
const IN_FLIGHT: [(&str, usize); 5] = [
    ("1 in flight", 1),
    ("10 in flight", 10),
    ("100 in flight", 100),
    ("1000 in flight", 1000),
    ("10000 in flight", 10_000),
];
const PENDING: [(&str, u64); 4] = [
    ("10 pending", 10),
    ("1000 pending", 1000),
    ("100000 pending", 100_000),
    ("1000000 pending", 1_000_000),
];

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let on = &Loop::new(Flavour::Mt1);
    let most = if bench.plan.quick { 1000 } else { u64::MAX };
    let mut results = Vec::new();
    for (name, producers) in PRODUCERS.into_iter().filter(|it| bench.wants(it.0) && it.1 <= most) {
        let stream = Stream { on, capacity: 1024, producers, pool: Pool::Plain };
        let mut case = Case::new("P10", name).at_least(50_000).in_steps(producers).longer(3);
        case.add(Role::Ours, "callbridge", |ops| stream.round::<channels::Ours>(ops));
        case.add(Role::Peer, "tokio try_send + recv_many", |ops| {
            stream.round::<channels::TokioBest>(ops)
        });
        case.add(Role::Peer, "crossfire mpsc", |ops| stream.round::<channels::CrossfireMpsc>(ops));
        case.add(Role::Peer, "kanal", |ops| stream.round::<channels::Kanal>(ops));
        case.add(Role::Peer, "fibre mpsc", |ops| stream.round::<channels::FibreMpsc>(ops));
        case.add(Role::Peer, "tachyonix", |ops| stream.round::<channels::Tachyonix>(ops));
        results.push(bench.measure(case));
    }
    if bench.wants(WAITS) {
        let mut case = Case::new("P10", WAITS).at_least(200_000).in_steps(100).longer(3);
        case.add(Role::Ours, "callbridge", |ops| waits::<channels::Ours>(on, ops));
        case.add(Role::Peer, "tokio try_send + recv_many", |ops| {
            waits::<channels::TokioBest>(on, ops)
        });
        case.add(Role::Peer, "crossfire mpsc", |ops| waits::<channels::CrossfireMpsc>(on, ops));
        case.add(Role::Peer, "kanal", |ops| waits::<channels::Kanal>(on, ops));
        case.add(Role::Peer, "fibre mpsc", |ops| waits::<channels::FibreMpsc>(on, ops));
        case.add(Role::Peer, "tachyonix", |ops| waits::<channels::Tachyonix>(on, ops));
        results.push(bench.measure(case));
    }
    for (name, in_flight) in
        IN_FLIGHT.into_iter().filter(|it| bench.wants(it.0) && it.1 as u64 <= most)
    {
        let mut case = Case::new("P10", name).at_least(4 * in_flight as u64);
        case.add(Role::Ours, "callbridge", |ops| ready::<callers::Ours>(on, in_flight, ops));
        case.add(Role::Peer, "spawn + tokio oneshot", |ops| {
            ready::<callers::SpawnTokioOneshot>(on, in_flight, ops)
        });
        results.push(bench.measure(case));
    }
    for (name, calls) in PENDING.into_iter().filter(|it| bench.wants(it.0) && it.1 <= most) {
        let mut case = Case::new("P10", name).at_least(calls).in_steps(calls).at_most(3);
        case.add(Role::Ours, "callbridge", |ops| pending::<callers::Ours<true>>(on, calls, ops));
        case.add(Role::Peer, "spawn + tokio oneshot", |ops| {
            pending::<callers::SpawnTokioOneshot>(on, calls, ops)
        });
        results.push(bench.measure(case));
    }
    results
}

/// How long a frame of a hundred producers is on its way, from the beginning of its send: none may be
/// passed over for long.
const WAITS: &str = "100 producers, from send to receipt";

fn goals() -> Vec<Goal> {
    let flat = |case, than| Goal {
        workload: "P10",
        case,
        ours: "callbridge",
        figure: "ns",
        versus: Versus::Case(than, "callbridge"),
        at_most: 1.5,
    };
    let producers = PRODUCERS[2..].iter().map(|it| flat(it.0, "10 producers"));
    let beside_peers = Goal {
        workload: "P10",
        case: PRODUCERS[2].0,
        ours: "callbridge",
        figure: "ns",
        versus: Versus::BestPeer,
        at_most: 2.0,
    };
    // With ten, most of the cost is wake-ups, beside which nothing that grows would be seen.
    let in_flight = IN_FLIGHT[3..].iter().map(|it| flat(it.0, IN_FLIGHT[2].0));
    let pending = PENDING[2..].iter().map(|it| flat(it.0, PENDING[1].0));
    producers.chain([beside_peers]).chain(in_flight).chain(pending).collect()
}

fn waits<C: Channel>(on: &Loop, ops: u64) -> Round {
    let (tx, rx) = C::open(1024);
    let stamps = Stamps::new(0);
    let (sink, seen) = Sink::new(Some(stamps.clone()));
    C::consume(rx, on.handle(), sink);
    let senders: Vec<_> = (0..100).map(|_| C::another(&tx)).collect();
    let meter = Meter::start();
    thread::scope(|scope| {
        for mut tx in senders {
            let stamps = &stamps;
            let send = move || (0..ops / 100).for_each(|_| C::send(&mut tx, stamps.frame()));
            thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn_scoped(scope, send)
                .expect("a thread");
        }
    });
    let longest_wait = C::longest_wait(&tx);
    drop(tx);
    let seen = seen.recv().expect("the consumer reports");
    assert_eq!(seen.frames, ops, "frames were lost");
    let latency = seen.latency.expect("it was asked for");
    let (most, longest) = (latency.value_at_quantile(0.9999), latency.max());
    let round = meter.stop(ops).with_latency(latency);
    let round = round.with("p99.99", most as f64).with("longest", longest as f64);
    match longest_wait {
        Some(longest) => round.with("longest wait for room", longest.as_nanos() as f64),
        None => round,
    }
}

fn ready<C: Caller>(on: &Loop, in_flight: usize, ops: u64) -> Round {
    pipeline(&C::new(on), in_flight, ops, |n| async move { n })
}

/// Bursts of `calls`, as many as it takes; only the submitting and the resolving are timed.
fn pending<C: Caller>(on: &Loop, calls: u64, ops: u64) -> Round {
    let caller = C::new(on);
    let meter = Meter::start();
    let mut wall = std::time::Duration::ZERO;
    for _ in 0..ops / calls {
        let took = burst::<C, 0>(&caller, &Gate::new(calls), || ());
        wall += took.submit + took.resolve;
    }
    let mut round = meter.stop(ops);
    round.wall = wall;
    round
}
