//! The goals, and whether a run met them.

use super::case::{CaseResult, Role, Row};
use serde::Serialize;

/// What a goal compares with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Versus {
    /// The peer that is best by the same figure in the same case.
    BestPeer,
    /// The one of these contestants of the same case that is best by the same figure.
    BestOf(&'static [&'static str]),
    /// One contestant of the same case.
    Contestant(&'static str),
    /// One contestant of another case.
    Case(&'static str, &'static str),
    /// A number of its own.
    Number(f64),
}

/// One promise about one case.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    pub(crate) workload: &'static str,
    pub(crate) case: &'static str,
    pub(crate) ours: &'static str,
    /// The figure that counts, see [`figure`].
    pub(crate) figure: &'static str,
    pub(crate) versus: Versus,
    /// Ours must be at most this many times the other.
    pub(crate) at_most: f64,
}

/// How it turned out.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) workload: &'static str,
    pub(crate) goal: String,
    pub(crate) ours: f64,
    pub(crate) other: f64,
    pub(crate) versus: String,
    pub(crate) ratio: f64,
    pub(crate) met: bool,
}

impl Goal {
    /// `None` when the case was not run.
    pub(crate) fn judge(&self, results: &[CaseResult]) -> Option<Verdict> {
        let case = find(results, self.workload, self.case)?;
        // A contestant that isn't there has not met its goal.
        let ours =
            row(case, self.ours).and_then(|row| figure(row, self.figure)).unwrap_or(f64::NAN);
        let (versus, other) = match self.versus {
            Versus::Number(number) => ("the bound".to_owned(), number),
            Versus::Contestant(name) => (name.to_owned(), figure(row(case, name)?, self.figure)?),
            Versus::Case(case, name) => {
                let row = row(find(results, self.workload, case)?, name)?;
                (format!("{name} in {case}"), figure(row, self.figure)?)
            }
            Versus::BestPeer => self.best(case, |row| row.role == Role::Peer)?,
            Versus::BestOf(names) => self.best(case, |row| names.contains(&&*row.contestant))?,
        };
        let bound = match self.versus {
            Versus::Number(number) => format!("≤ {number}"),
            Versus::BestPeer => format!("≤ {}× the best peer", self.at_most),
            Versus::BestOf(names) => {
                format!("≤ {}× the best of {}", self.at_most, names.join(", "))
            }
            Versus::Contestant(name) => format!("≤ {}× {name}", self.at_most),
            Versus::Case(case, name) => format!("≤ {}× {name} in {case}", self.at_most),
        };
        Some(Verdict {
            workload: self.workload,
            goal: format!("{}: {}, {} {bound}", self.case, self.ours, self.figure),
            ours,
            other,
            versus,
            ratio: ours / other,
            met: ours <= other * self.at_most,
        })
    }

    /// The best of some contestants, and its figure.
    fn best(&self, case: &CaseResult, of: impl Fn(&Row) -> bool) -> Option<(String, f64)> {
        let rows = case.rows.iter().filter(|row| of(row));
        let figures = rows.filter_map(|row| Some((row, figure(row, self.figure)?)));
        let (best, value) = figures.min_by(|a, b| a.1.total_cmp(&b.1))?;
        Some((best.contestant.clone(), value))
    }
}

fn find<'a>(results: &'a [CaseResult], workload: &str, case: &str) -> Option<&'a CaseResult> {
    results.iter().find(|it| it.workload == workload && it.case == case)
}

fn row<'a>(case: &'a CaseResult, contestant: &str) -> Option<&'a Row> {
    case.rows.iter().find(|row| row.contestant == contestant)
}

/// A figure of a row by its name: `ns`, `cpu ns`, `switches`, `allocations`, `p50`, `p99`, or an extra.
pub(crate) fn figure(row: &Row, name: &str) -> Option<f64> {
    match name {
        "ns" => Some(row.ns),
        "cpu ns" => Some(row.cpu_ns),
        "switches" => Some(row.switches),
        "allocations" => Some(row.allocations),
        "p50" => row.p50,
        "p99" => row.p99,
        extra => row.extra.get(extra).copied(),
    }
}
