//! P5: the same with 64 in flight: ready at once, waiting once, computing, and one slow among many.

use super::{Bench, Workload};
use crate::contestants::callers::{self, Caller};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::harness::{
    Case, CaseResult, Goal, Latency, Meter, Role, Round, Versus, latency_histogram,
};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub(crate) const WORKLOAD: Workload =
    Workload { name: "P5", title: "Calls with 64 in flight", run, goals };

const IN_FLIGHT: usize = 64;
const SPAWN: &str = "spawn + tokio oneshot";

/// What the futures do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Return at once.
    Ready,
    /// Are pending once.
    Waiting,
    /// Compute for 100 µs.
    Computing,
    /// One in 32 computes for 1 ms; what counts is how soon the others are done.
    OneSlow,
}

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    use Flavour::{Ct, Mt1, Mt2};
    let cases = [
        ("ready", Kind::Ready, &[Ct, Mt1, Mt2][..]),
        ("waiting", Kind::Waiting, &[Ct, Mt1, Mt2]),
        ("computing", Kind::Computing, &[Mt2]),
        ("one slow", Kind::OneSlow, &[Mt2]),
    ];
    let mut results = Vec::new();
    for (text, kind, flavours) in cases {
        for flavour in flavours {
            let name = format!("{text}/{}", flavour.name());
            if bench.wants(&name) {
                results.push(bench.measure(case(&Loop::new(*flavour), name, kind)));
            }
        }
    }
    results
}

fn case(on: &Loop, name: String, kind: Kind) -> Case<'_> {
    let mut case = Case::new("P5", name);
    if matches!(kind, Kind::Computing | Kind::OneSlow) {
        case = case.longer(2);
    }
    case.add(Role::Ours, "callbridge", move |ops| round::<callers::Ours>(on, kind, ops));
    case.add(Role::Peer, SPAWN, move |ops| round::<callers::SpawnTokioOneshot>(on, kind, ops));
    case.add(Role::Peer, "spawn + oneshot crate", move |ops| {
        round::<callers::SpawnOneshot>(on, kind, ops)
    });
    case.add(Role::Peer, "spawn + std sync_channel", move |ops| {
        round::<callers::SpawnSyncChannel>(on, kind, ops)
    });
    case.add(Role::Peer, "Handle::block_on(spawn)", move |ops| {
        round::<callers::HandleBlockOn>(on, kind, ops)
    });
    case.add(Role::Peer, "futures block_on(JoinHandle)", move |ops| {
        round::<callers::FuturesBlockOn>(on, kind, ops)
    });
    case
}

fn goals() -> Vec<Goal> {
    let goal = |case, figure, at_most| Goal {
        workload: "P5",
        case,
        ours: "callbridge",
        figure,
        versus: Versus::Contestant(SPAWN),
        at_most,
    };
    vec![
        goal("ready/ct", "ns", 1.1),
        goal("ready/mt1", "ns", 1.1),
        goal("ready/mt2", "ns", 1.1),
        goal("waiting/ct", "ns", 1.1),
        goal("waiting/mt1", "ns", 1.1),
        goal("waiting/mt2", "ns", 1.1),
        goal("computing/mt2", "ns", 1.05),
        goal("one slow/mt2", "p50", 1.0),
        goal("one slow/mt2", "p99", 1.0),
    ]
}

fn round<C: Caller>(on: &Loop, kind: Kind, ops: u64) -> Round {
    let caller = C::new(on);
    match kind {
        Kind::Ready => pipeline(&caller, IN_FLIGHT, ops, |n| async move { n }),
        Kind::Waiting => {
            let waits = |n| async move {
                tokio::task::yield_now().await;
                n
            };
            pipeline(&caller, IN_FLIGHT, ops, waits)
        }
        Kind::Computing => {
            let computes = |n| async move {
                compute(Duration::from_micros(100));
                n
            };
            pipeline(&caller, IN_FLIGHT, ops, computes)
        }
        Kind::OneSlow => one_slow(&caller, ops),
    }
}

/// Keeps that many calls in flight, collects the results in order, and checks their sum.
pub(super) fn pipeline<C: Caller, F>(
    caller: &C,
    in_flight: usize,
    ops: u64,
    make: impl Fn(u64) -> F,
) -> Round
where
    F: Future<Output = u64> + Send + 'static,
{
    let mut pending = VecDeque::with_capacity(in_flight);
    let mut sum = 0;
    let meter = Meter::start();
    for n in 0..ops {
        if pending.len() == in_flight {
            sum += caller.wait(pending.pop_front().expect("some are pending"));
        }
        pending.push_back(caller.submit(make(n)));
    }
    for one in pending {
        sum += caller.wait(one);
    }
    let round = meter.stop(ops);
    assert_eq!(sum, ops * (ops - 1) / 2, "wrong results");
    round
}

fn one_slow<C: Caller>(caller: &C, ops: u64) -> Round {
    let mut pending = VecDeque::with_capacity(IN_FLIGHT);
    let mut latency = latency_histogram();
    let note = |latency: &mut Latency, took: Option<Duration>| {
        if let Some(took) = took {
            let _ = latency.record(took.as_nanos() as u64);
        }
    };
    let meter = Meter::start();
    for n in 0..ops {
        if pending.len() == IN_FLIGHT {
            note(&mut latency, caller.wait(pending.pop_front().expect("64 are pending")));
        }
        let submitted = Instant::now();
        pending.push_back(caller.submit(async move {
            if n % 32 == 31 {
                compute(Duration::from_millis(1));
                return None;
            }
            Some(submitted.elapsed())
        }));
    }
    for one in pending {
        note(&mut latency, caller.wait(one));
    }
    let round = meter.stop(ops);
    assert_eq!(latency.len(), ops - ops / 32, "wrong results");
    round.with_latency(latency)
}

/// How many steps of [`steps`] take a microsecond when nobody disturbs.
static PER_MICROSECOND: LazyLock<f64> = LazyLock::new(|| {
    let once = || {
        let start = Instant::now();
        steps(100_000);
        start.elapsed().as_nanos() as f64 / 1000.0
    };
    100_000.0 / (0..20).map(|_| once()).fold(f64::MAX, f64::min)
});

/// A fixed amount of work, not a time: what is kept from running is not done meanwhile.
fn compute(time: Duration) {
    steps((time.as_micros() as f64 * *PER_MICROSECOND) as u64);
}

fn steps(count: u64) {
    let mut state = black_box(1_u64);
    for _ in 0..count {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    black_box(state);
}
