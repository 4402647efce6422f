//! Prometheus' text, read back and drawn as a table for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Instant;

/// The crate's figures in a text, by metric, name and further label.
#[derive(Clone, Default)]
pub(crate) struct Figures(BTreeMap<(String, String, String), f64>);

impl Figures {
    pub(crate) fn of(text: &str) -> Self {
        Figures(text.lines().filter_map(read).collect())
    }

    /// One figure; 0 where there is none.
    pub(crate) fn get(&self, metric: &str, name: &str, label: &str) -> f64 {
        let key = (metric.to_owned(), name.to_owned(), label.to_owned());
        self.0.get(&key).copied().unwrap_or(0.0)
    }

    /// All of a metric's figures together, whatever their label, but for one.
    pub(crate) fn sum(&self, metric: &str, name: &str, but: &str) -> f64 {
        let own = |(of, named, label): &(String, String, String)| {
            of == metric && named == name && label != but
        };
        self.0.iter().filter(|(key, _)| own(key)).fold(0.0, |sum, (_, value)| sum + value)
    }

    fn names(&self, kind: &str) -> BTreeSet<&str> {
        let of_kind = self.0.keys().filter(|(metric, ..)| metric.starts_with(kind));
        of_kind.map(|(_, name, _)| name.as_str()).collect()
    }
}

/// `callbridge_kind_metric{name="..",label=".."} value`, without the crate's prefix.
fn read(line: &str) -> Option<((String, String, String), f64)> {
    let (metric, rest) = line.strip_prefix("callbridge_")?.split_once('{')?;
    let (labels, value) = rest.rsplit_once("} ")?;
    let (mut name, mut other) = (String::new(), String::new());
    for label in labels.split("\",") {
        let (label, value) = label.split_once("=\"")?;
        let value = value.trim_end_matches('"').to_owned();
        if label == "name" { name = value } else { other = value }
    }
    Some(((metric.to_owned(), name, other), value.trim().parse().ok()?))
}

/// Draws figures, and what they grew by since it drew last.
#[derive(Default)]
pub(crate) struct Table {
    last: Option<(Figures, Instant)>,
}

/// How a cell is got from the figures.
enum Cell {
    Level(&'static str),
    Seconds(&'static str, &'static str),
    PerSecond(&'static str),
    Sum(&'static str, &'static str),
}

use Cell::{Level, PerSecond, Seconds, Sum};

/// No label that is left out.
const ALL: &str = "-";

type Column = (&'static str, Cell);

const LISTENERS: &[Column] = &[
    ("frames/s", PerSecond("listener_frames_total")),
    ("open", Level("listener_connections")),
    ("refused", Sum("listener_accepted_total", "kept")),
    ("requests/s", PerSecond("listener_requests_total")),
    ("at work", Level("listener_in_flight")),
    ("unanswered", Sum("listener_requests_total", "replied")),
    ("errors", Sum("listener_errors_total", ALL)),
    ("lost", Sum("listener_lost_total", ALL)),
    ("slow", Sum("listener_slow_polls_total", ALL)),
    ("poll p99", Seconds("listener_first_poll_seconds", "0.99")),
    ("quiet", Level("listener_quiet")),
];

const CHANNELS: &[Column] = &[
    ("depth", Level("channel_depth")),
    ("room", Level("channel_capacity")),
    ("highest", Level("channel_high_water")),
    ("in/s", PerSecond("channel_offered_total")),
    ("out/s", PerSecond("channel_delivered_total")),
    ("lost", Sum("channel_lost_total", ALL)),
    ("refused", Sum("channel_refused_total", ALL)),
    ("blocked", Level("channel_senders_waiting")),
    ("wait p50", Seconds("channel_wait_seconds", "0.5")),
    ("wait p99", Seconds("channel_wait_seconds", "0.99")),
];

const BRIDGES: &[Column] = &[
    ("in flight", Level("bridge_in_flight")),
    ("highest", Level("bridge_high_water")),
    ("calls/s", PerSecond("bridge_calls_total")),
    ("failed", Sum("bridge_calls_total", "finished")),
    ("refused", Sum("bridge_refused_total", ALL)),
    ("begin p99", Seconds("bridge_first_poll_seconds", "0.99")),
    ("call p50", Seconds("bridge_call_seconds", "0.5")),
    ("call p99", Seconds("bridge_call_seconds", "0.99")),
    ("stalled", Level("bridge_stalled")),
];

const POOLS: &[Column] = &[
    ("threads", Level("pool_workers")),
    ("busy", Level("pool_busy")),
    ("idle", Level("pool_idle")),
    ("queued", Level("pool_queued")),
    ("jobs/s", PerSecond("pool_jobs_total")),
    ("dropped", Sum("pool_jobs_total", "completed")),
    ("wait p99", Seconds("pool_wait_seconds", "0.99")),
    ("job p50", Seconds("pool_job_seconds", "0.5")),
    ("job p99", Seconds("pool_job_seconds", "0.99")),
];

const KINDS: &[(&str, &str, &[Column])] = &[
    ("listener", "listener_", LISTENERS),
    ("channel", "channel_", CHANNELS),
    ("bridge", "bridge_", BRIDGES),
    ("pool", "pool_", POOLS),
];

impl Table {
    pub(crate) fn draw(&mut self, now: &Figures, at: Instant) -> String {
        let mut out = String::new();
        for (title, prefix, columns) in KINDS {
            let names = now.names(prefix);
            if names.is_empty() {
                continue;
            }
            let _ = write!(out, "{title:<14}");
            for (head, _) in *columns {
                let _ = write!(out, "{head:>11}");
            }
            for name in names {
                let _ = write!(out, "\n{name:<14}");
                for (_, cell) in *columns {
                    let _ = write!(out, "{:>11}", self.cell(cell, name, now, at));
                }
            }
            out += "\n\n";
        }
        self.last = Some((now.clone(), at));
        out
    }

    fn cell(&self, cell: &Cell, name: &str, now: &Figures, at: Instant) -> String {
        match *cell {
            Level(metric) => format!("{}", now.get(metric, name, "")),
            Sum(metric, but) => format!("{}", now.sum(metric, name, but)),
            Seconds(metric, quantile) => time(now.get(metric, name, quantile)),
            PerSecond(metric) => match &self.last {
                Some((last, then)) => {
                    let grown = now.sum(metric, name, ALL) - last.sum(metric, name, ALL);
                    format!("{:.0}", grown / (at - *then).as_secs_f64().max(1e-3))
                }
                None => "-".to_owned(),
            },
        }
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        0.0 => "-".to_owned(),
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_text_is_read_and_what_grew_is_shown_per_second() {
        let text = |frames| {
            format!(
                "# TYPE callbridge_listener_frames_total counter\n\
                 callbridge_listener_frames_total{{name=\"meter\"}} {frames}\n\
                 callbridge_listener_requests_total{{name=\"meter\",outcome=\"late\"}} 3\n\
                 callbridge_listener_requests_total{{name=\"meter\",outcome=\"replied\"}} 40\n\
                 callbridge_listener_first_poll_seconds{{name=\"meter\",quantile=\"0.99\"}} 0.00025\n\
                 other_total 5\n"
            )
        };
        let began = Instant::now();
        let mut table = Table::default();
        table.draw(&Figures::of(&text(100)), began);
        let drawn = table.draw(&Figures::of(&text(300)), began + Duration::from_secs(2));
        let cells: Vec<_> = drawn.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(cells[..7], ["meter", "100", "0", "0", "0", "0", "3"], "{drawn}");
        assert!(drawn.contains("250 µs"), "{drawn}");
    }
}
