//! Measures callbridge beside its peers and beside physical limits; see `README.md`.

mod contestants;
mod harness;
mod workloads;

use clap::Parser;
use harness::{Plan, Report};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use workloads::{Bench, Workload};

#[global_allocator]
static ALLOCATOR: harness::alloc::Counting = harness::alloc::Counting;

/// Measures callbridge beside its peers; a full run writes its results to `benches/results`.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only these workloads, for example p1,p5.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only cases whose name contains this, for example mt1.
    #[arg(long)]
    case: Option<String>,
    /// Only contestants whose name contains one of these, for example callbridge,tachyonix.
    #[arg(long, value_delimiter = ',')]
    contestants: Vec<String>,
    /// A smoke test: short rounds, no figures worth keeping.
    #[arg(long)]
    quick: bool,
    /// Timed rounds of each contestant.
    #[arg(long)]
    rounds: Option<usize>,
    /// How long a round should take, in milliseconds.
    #[arg(long)]
    slice: Option<u64>,
    /// Where to write latest.json, latest.md and the charts.
    #[arg(long)]
    out: Option<PathBuf>,
    /// The work of a child process, see P6.
    #[arg(long, hide = true)]
    burst: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(order) = arguments.burst {
        return workloads::p06_burst::child(&order);
    }
    let plan = Plan {
        rounds: arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 7 }).max(1),
        slice: Duration::from_millis(arguments.slice.unwrap_or(if arguments.quick {
            5
        } else {
            60
        })),
        quick: arguments.quick,
    };
    let chosen = |workload: &str| {
        let named = |name: &String| name.eq_ignore_ascii_case(workload);
        arguments.only.is_empty() || arguments.only.iter().any(named)
    };
    let mut workloads: Vec<Workload> = workloads::all();
    workloads.retain(|it| chosen(it.name));
    let bench = Bench {
        plan,
        only_case: arguments.case.as_deref(),
        only_contestants: &arguments.contestants,
    };

    let start = Instant::now();
    let mut cases = Vec::new();
    for workload in &workloads {
        eprintln!("{}: {}", workload.name, workload.title);
        cases.extend((workload.run)(&bench));
    }
    let goals: Vec<_> = workloads.iter().flat_map(|it| (it.goals)()).collect();
    let titles = workloads.iter().map(|it| (it.name, it.title)).collect();
    let python = if chosen("P11") { workloads::python(plan.quick) } else { None };
    let report = Report::new(&plan, titles, &goals, cases, python);
    print!("{}", report.markdown());
    eprintln!("took {:.0?}", start.elapsed());

    let all = arguments.only.is_empty() && arguments.contestants.is_empty();
    let full = all && arguments.case.is_none() && !arguments.quick;
    let results = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/results"));
    if let Some(to) = arguments.out.or_else(|| full.then(results)) {
        report.save(&to)?;
    }
    Ok(())
}
