//! P2: the stream of P1 with four producers, and with the tightest to the widest channels.

use super::p01_stream::Stream;
use super::{Bench, Workload};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::contestants::frames::Pool;
use crate::harness::{CaseResult, Goal, Versus};

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P2",
    title: "The same with four producers, and with capacities 1, 16 and 65 536",
    run,
    goals,
};

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let cases = [
        ("4 producers/ct", Flavour::Ct, 1024, 4),
        ("4 producers/mt1", Flavour::Mt1, 1024, 4),
        ("cap1/mt1", Flavour::Mt1, 1, 1),
        ("cap16/mt1", Flavour::Mt1, 16, 1),
        ("cap65536/mt1", Flavour::Mt1, 65_536, 1),
    ];
    let wanted = cases.into_iter().filter(|(name, ..)| bench.wants(name));
    let measured = wanted.map(|(name, flavour, capacity, producers)| {
        let on = Loop::new(flavour);
        let stream = Stream { on: &on, capacity, producers, pool: Pool::Plain };
        bench.measure(stream.case("P2", name))
    });
    measured.collect()
}

fn goals() -> Vec<Goal> {
    let goal = |case, at_most| Goal {
        workload: "P2",
        case,
        ours: "callbridge",
        figure: "ns",
        versus: Versus::BestPeer,
        at_most,
    };
    vec![
        goal("4 producers/ct", 1.0),
        goal("4 producers/mt1", 1.0),
        goal("cap1/mt1", 2.0),
        goal("cap16/mt1", 1.0),
        goal("cap65536/mt1", 1.0),
    ]
}
