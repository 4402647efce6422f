//! A case: one set of parameters, and the contestants that run it by turns.

use super::alloc;
use super::meter::{Latency, Round, latency_histogram};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Timed rounds of each contestant; the median counts.
    pub(crate) rounds: usize,
    /// How long a round of one contestant should take.
    pub(crate) slice: Duration,
    /// Whether this is a smoke test.
    pub(crate) quick: bool,
}

/// What a contestant stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// callbridge.
    Ours,
    /// Another library at its best settings, or what people write by hand.
    Peer,
    /// What no bridge can beat: no hand-over, bare wake-ups, or a burnt core.
    Limit,
}

/// One contestant of a case.
struct Contestant<'a> {
    name: &'static str,
    role: Role,
    /// Does as many operations as told, checks them, and says what they took.
    run: Box<dyn FnMut(u64) -> Round + 'a>,
}

/// One set of parameters.
pub(crate) struct Case<'a> {
    workload: &'static str,
    name: String,
    /// Bounds of the operations of a round, and what they must be a multiple of.
    ops: (u64, u64, u64),
    rounds: Option<usize>,
    slice: u32,
    contestants: Vec<Contestant<'a>>,
}

impl<'a> Case<'a> {
    pub(crate) fn new(workload: &'static str, name: impl Into<String>) -> Self {
        let (name, contestants) = (name.into(), Vec::new());
        Case { workload, name, ops: (200, 20_000_000, 1), rounds: None, slice: 1, contestants }
    }

    /// Every round does `count` operations, whatever they take.
    pub(crate) fn fixed(mut self, count: u64) -> Self {
        self.ops = (count, count, 1);
        self
    }

    /// Rounds do at least `count` operations, for workloads that take long to start up.
    pub(crate) fn at_least(mut self, count: u64) -> Self {
        self.ops = (count, self.ops.1.max(count), self.ops.2);
        self
    }

    /// Rounds do a multiple of `step` operations.
    pub(crate) fn in_steps(mut self, step: u64) -> Self {
        self.ops = (self.ops.0.max(step), self.ops.1, step);
        self
    }

    /// At most this many rounds, because one takes long.
    pub(crate) fn at_most(mut self, rounds: usize) -> Self {
        self.rounds = Some(rounds);
        self
    }

    /// Rounds take `factor` times as long as others.
    pub(crate) fn longer(mut self, factor: u32) -> Self {
        self.slice = factor;
        self
    }

    pub(crate) fn add(
        &mut self,
        role: Role,
        name: &'static str,
        run: impl FnMut(u64) -> Round + 'a,
    ) {
        self.contestants.push(Contestant { name, role, run: Box::new(run) });
    }

    /// Leaves out the contestants whose name isn't `wanted`.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.contestants.retain(|contestant| wanted(contestant.name));
    }

    /// Runs all contestants by turns, so that what disturbs the machine disturbs them alike.
    pub(crate) fn measure(mut self, plan: &Plan) -> CaseResult {
        let rounds = self.rounds.map_or(plan.rounds, |most| plan.rounds.min(most));
        let counts: Vec<u64> = {
            let (ops, slice) = (self.ops, plan.slice * self.slice);
            self.contestants.iter_mut().map(|it| calibrate(&mut it.run, ops, slice)).collect()
        };
        let mut done: Vec<Vec<Round>> = self.contestants.iter().map(|_| Vec::new()).collect();
        for round in 0..rounds {
            for turn in 0..self.contestants.len() {
                // Nobody always follows the same neighbour.
                let who = if round % 2 == 0 { turn } else { self.contestants.len() - 1 - turn };
                done[who].push((self.contestants[who].run)(counts[who]));
            }
        }
        let mut rows = Vec::new();
        for ((contestant, timed), ops) in self.contestants.iter_mut().zip(done).zip(counts) {
            alloc::count(true);
            let counted = (contestant.run)(ops);
            alloc::count(false);
            rows.push(Row::new(contestant, &timed, &counted));
        }
        CaseResult { workload: self.workload.to_owned(), case: self.name, rows }
    }
}

/// Warms the contestant up and finds how many operations fill a slice.
fn calibrate(
    run: &mut dyn FnMut(u64) -> Round,
    (least, most, step): (u64, u64, u64),
    slice: Duration,
) -> u64 {
    let whole = |ops: u64| (ops.clamp(least, most) / step).max(1) * step;
    let mut ops = whole(least);
    // Starting up costs the same however few the operations are, so the first guesses are low.
    for _ in 0..10 {
        let took = run(ops).wall.as_secs_f64().max(1e-9);
        let fits = ops as f64 * slice.as_secs_f64() / took;
        let next = whole(fits.min(ops as f64 * 16.0) as u64);
        if next <= ops * 3 / 2 {
            return next;
        }
        ops = next;
    }
    ops
}

/// What came out of a case.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CaseResult {
    pub(crate) workload: String,
    pub(crate) case: String,
    pub(crate) rows: Vec<Row>,
}

/// What came out of one contestant; everything per operation, medians over the rounds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) contestant: String,
    pub(crate) role: Role,
    pub(crate) ops_per_round: u64,
    pub(crate) ns: f64,
    /// The fastest and the slowest round.
    pub(crate) ns_range: (f64, f64),
    pub(crate) cpu_ns: f64,
    pub(crate) switches: f64,
    /// From a round of its own that isn't timed.
    pub(crate) allocations: f64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) p99: Option<f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub(crate) extra: BTreeMap<String, f64>,
}

impl Row {
    fn new(contestant: &Contestant<'_>, rounds: &[Round], counted: &Round) -> Self {
        let per_op = |of: &dyn Fn(&Round) -> f64| -> Vec<f64> {
            rounds.iter().map(|round| of(round) / round.ops.max(1) as f64).collect()
        };
        let ns = per_op(&|round| round.wall.as_nanos() as f64);
        let range =
            (ns.iter().copied().fold(f64::MAX, f64::min), ns.iter().copied().fold(0.0, f64::max));
        let quantile = |q: f64| {
            let each = rounds.iter().filter_map(|round| round.latency.as_ref());
            let each: Vec<f64> = each.map(|it| it.value_at_quantile(q) as f64).collect();
            (!each.is_empty()).then(|| median(each))
        };
        let mut extra = BTreeMap::new();
        for (name, _) in rounds.first().map_or(&[][..], |round| &round.extra) {
            let same = |round: &Round| round.extra.iter().find(|(it, _)| it == name).map(|it| it.1);
            extra.insert((*name).to_owned(), median(rounds.iter().filter_map(same).collect()));
        }
        Row {
            contestant: contestant.name.to_owned(),
            role: contestant.role,
            ops_per_round: counted.ops,
            ns: median(ns),
            ns_range: range,
            cpu_ns: median(per_op(&|round| round.cpu.as_nanos() as f64)),
            switches: median(per_op(&|round| round.switches as f64)),
            allocations: counted.allocations as f64 / counted.ops.max(1) as f64,
            p50: quantile(0.5),
            // Rare by nature, so over all rounds together.
            p99: merged(rounds).map(|all| all.value_at_quantile(0.99) as f64),
            extra,
        }
    }
}

fn merged(rounds: &[Round]) -> Option<Latency> {
    let mut all = latency_histogram();
    rounds.iter().filter_map(|it| it.latency.as_ref()).try_for_each(|it| all.add(it)).ok()?;
    (!all.is_empty()).then_some(all)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (n, half) if n % 2 == 1 => values[half],
        (_, half) => f64::midpoint(values[half - 1], values[half]),
    }
}
