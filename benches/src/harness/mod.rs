//! What every workload shares: interleaved rounds, the meter, the verdicts and the reports.

pub(crate) mod alloc;
mod case;
mod chart;
mod goal;
mod machine;
mod meter;
mod report;

pub(crate) use case::{Case, CaseResult, Plan, Role};
pub(crate) use goal::{Goal, Versus};
pub(crate) use meter::{Latency, Meter, Round, latency_histogram, thread_cpu};
pub(crate) use report::Report;
