//! The table, as Markdown and as JSON.

use super::case::{CaseResult, Plan, Role, Row};
use super::chart::{self, Panel};
use super::goal::{Goal, Verdict};
use super::machine::Machine;
use anyhow::Context as _;
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Everything that a run has found out.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) slice_ms: u128,
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) cases: Vec<CaseResult>,
    /// What the Python script said, if it ran.
    pub(crate) python: Option<Value>,
    #[serde(skip)]
    titles: Vec<(&'static str, &'static str)>,
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        titles: Vec<(&'static str, &'static str)>,
        goals: &[Goal],
        cases: Vec<CaseResult>,
        python: Option<Value>,
    ) -> Self {
        Report {
            machine: Machine::here(),
            rounds: plan.rounds,
            slice_ms: plan.slice.as_millis(),
            verdicts: goals.iter().filter_map(|goal| goal.judge(&cases)).collect(),
            cases,
            python,
            titles,
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("a string takes everything");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Machine { cpu, cores, kernel, rustc, tokio } = &self.machine;
        writeln!(out, "# Benchmarks\n")?;
        writeln!(
            out,
            "{cpu}, {cores} cores, {kernel}, rustc {rustc}, tokio {tokio}. Contestants by turns in one \
             process, {} rounds of {} ms each, medians.\n",
            self.rounds, self.slice_ms
        )?;
        if !self.verdicts.is_empty() {
            writeln!(out, "## Goals\n")?;
            writeln!(
                out,
                "| | goal | callbridge | compared with | ratio | |\n|---|---|--:|---|--:|---|"
            )?;
            for it in &self.verdicts {
                let (ours, other) = (number(it.ours), number(it.other));
                let met = match it.met {
                    true => "met",
                    false if it.ours.is_nan() => "**not there**",
                    false => "**not met**",
                };
                writeln!(
                    out,
                    "| {} | {} | {ours} | {other} ({}) | {:.2} | {met} |",
                    it.workload, it.goal, it.versus, it.ratio
                )?;
            }
            writeln!(out)?;
        }
        for (workload, title) in &self.titles {
            let cases = self.cases.iter().filter(|it| it.workload == *workload);
            for (n, case) in cases.enumerate() {
                if n == 0 {
                    writeln!(out, "## {workload}: {title}\n")?;
                }
                table(out, case)?;
            }
        }
        self.python(out)
    }

    fn python(&self, out: &mut String) -> std::fmt::Result {
        let Some(python) = &self.python else { return Ok(()) };
        let version = python["python"].as_str().unwrap_or("?");
        writeln!(out, "## P11: Python {version} on the same machine\n")?;
        writeln!(out, "| contestant | workload | ns |\n|---|---|--:|")?;
        for row in python["rows"].as_array().into_iter().flatten() {
            let text = |key: &str| row[key].as_str().unwrap_or("?");
            let ns = number(row["ns"].as_f64().unwrap_or(f64::NAN));
            writeln!(out, "| {} | {} | {ns} |", text("contestant"), text("workload"))?;
        }
        writeln!(out)
    }

    /// Writes `latest.json`, `latest.md` and the charts.
    pub(crate) fn save(&self, to: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(to).context("the directory for the results can't be made")?;
        fs::write(to.join("latest.json"), serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(to.join("latest.md"), self.markdown())?;
        for (file, title, panels) in charts() {
            let panels: Vec<_> = panels.iter().filter_map(|it| it.filled(&self.cases)).collect();
            if !panels.is_empty() {
                chart::draw(&to.join(file), title, &panels)?;
            }
        }
        Ok(())
    }
}

fn charts() -> Vec<(&'static str, &'static str, Vec<Panel>)> {
    let panel = |workload, case, figure, title| Panel { workload, case, figure, title };
    vec![
        (
            "p1.svg",
            "One thread hands 64-byte frames to a task",
            vec![
                panel("P1", "ct", "ns", "current-thread runtime, ns per frame"),
                panel("P1", "mt1", "ns", "multi-thread runtime, ns per frame"),
            ],
        ),
        (
            "p3.svg",
            "A paced source: latency and CPU",
            vec![
                panel("P3", "10k/mt1", "p50", "10 000 frames/s: median latency, ns"),
                panel("P3", "10k/mt1", "p99", "10 000 frames/s: 99th percentile, ns"),
                panel("P3", "10k/mt1", "cpu ns", "10 000 frames/s: CPU ns per frame"),
            ],
        ),
        (
            "p4_p5.svg",
            "A thread calls async code",
            vec![
                panel("P4", "mt1", "ns", "one at a time, ns per call"),
                panel("P5", "ready/mt1", "ns", "64 in flight, ns per call"),
            ],
        ),
        (
            "p7_p8.svg",
            "Echo servers",
            vec![
                panel("P7", "64B/mt1/win64", "ns", "UDP, 64 in flight, ns per datagram"),
                panel("P7", "64B/mt1/win1", "ns", "UDP, one at a time, ns per datagram"),
                panel("P8", "mt1/win64", "ns", "TCP, 64 in flight, ns per frame"),
                panel("P8", "mt1/win1", "ns", "TCP, one at a time, ns per frame"),
            ],
        ),
    ]
}

fn table(out: &mut String, case: &CaseResult) -> std::fmt::Result {
    let best = |role| {
        let rows = case.rows.iter().filter(move |row| row.role == role);
        rows.map(|row| row.ns).min_by(f64::total_cmp)
    };
    let best_cpu = case.rows.iter().filter(|row| row.role == Role::Peer).map(|row| row.cpu_ns);
    let best_cpu = best_cpu.min_by(f64::total_cmp);
    let (peer, limit) = (best(Role::Peer), best(Role::Limit));
    let latency = case.rows.iter().any(|row| row.p50.is_some());
    let mut extras: Vec<&String> = case.rows.iter().flat_map(|row| row.extra.keys()).collect();
    extras.sort();
    extras.dedup();

    writeln!(out, "### {}\n", case.case)?;
    write!(
        out,
        "| | ns | from – to | × best peer | × limit | CPU ns | × best peer | switches | allocations |"
    )?;
    if latency {
        write!(out, " p50 | p99 |")?;
    }
    extras.iter().try_for_each(|extra| write!(out, " {extra} |"))?;
    write!(out, "\n|---|--:|--:|--:|--:|--:|--:|--:|--:|")?;
    let more = extras.len() + if latency { 2 } else { 0 };
    writeln!(out, "{}", "--:|".repeat(more))?;
    for row in &case.rows {
        let name = match row.role {
            Role::Ours => format!("**{}**", row.contestant),
            Role::Peer => row.contestant.clone(),
            Role::Limit => format!("*{}*", row.contestant),
        };
        let ratio = |value: f64, to: Option<f64>| {
            to.map_or("–".to_owned(), |to| format!("{:.2}", value / to))
        };
        let Row { ns, ns_range: (low, high), cpu_ns, switches, allocations, .. } = row;
        write!(
            out,
            "| {name} | {} | {} – {} | {} | {} | {} | {} | {switches:.3} | {allocations:.3} |",
            number(*ns),
            number(*low),
            number(*high),
            ratio(*ns, peer),
            ratio(*ns, limit),
            number(*cpu_ns),
            ratio(*cpu_ns, best_cpu)
        )?;
        if latency {
            let show = |value: Option<f64>| value.map_or("–".to_owned(), number);
            write!(out, " {} | {} |", show(row.p50), show(row.p99))?;
        }
        for extra in &extras {
            write!(out, " {} |", row.extra.get(*extra).map_or("–".to_owned(), |it| number(*it)))?;
        }
        writeln!(out)?;
    }
    writeln!(out)
}

/// Three digits where they matter.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        it if it.is_nan() => "–".to_owned(),
        it if it >= 100.0 => format!("{value:.0}"),
        it if it >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        it if it < 0.1 => format!("{value:.4}"),
        _ => format!("{value:.2}"),
    }
}
