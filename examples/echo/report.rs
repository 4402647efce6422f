//! The table of one listener: what the clients saw, what the listener booked, how it stopped.

use crate::client::{Drive, Row};
use crate::server::Stopped;
use std::fmt::Write as _;
use std::time::Duration;

/// A round trip that takes longer wasn't slow: something stood still.
const STOOD_STILL: Duration = Duration::from_secs(3);

/// Renders the table; the bool is whether all is well.
pub(crate) fn table(
    title: &str,
    wanted: u64,
    drive: &mut Drive,
    stopped: &Stopped,
) -> (String, bool) {
    let mut text = format!(
        "{title}\n{:>10} {:>9} {:>8} {:>8} {:>6} {:>10} {:>10} {:>10} {:>10}\n",
        "bytes",
        "frames",
        "re-sent",
        "altered",
        "lost",
        "frames/s",
        "RTT p50",
        "RTT p99",
        "RTT max"
    );
    let mut total = Row::default();
    for row in &mut drive.rows {
        total.add(row);
        line(&mut text, &row.size.to_string(), row);
    }
    total.rate = total.echoed as f64 / drive.took.as_secs_f64().max(1e-9);
    line(&mut text, "all", &mut total);

    let mut problems = std::mem::take(&mut drive.failures);
    if total.altered > 0 {
        problems.push(format!("{} replies are not what was sent", total.altered));
    }
    if total.echoed != wanted {
        problems.push(format!("{} of {wanted} frames came back", total.echoed));
    }
    if total.percentile(100).is_some_and(|longest| longest > STOOD_STILL) {
        problems.push("something stood still: look at RTT max".to_owned());
    }
    // What was sent again, altered or lost may have reached the listener, or not.
    let seen = stopped.counters.frames();
    let doubtful = total.resent + total.altered + total.lost;
    if !(total.echoed..=total.echoed + doubtful).contains(&seen) {
        problems.push(format!("the listener saw {seen} frames"));
    }
    problems.extend(stopped.problems());
    text.push_str(&ending(stopped));
    for problem in &problems {
        let _ = writeln!(text, "  FAILED: {problem}");
    }
    (text, problems.is_empty())
}

fn line(text: &mut String, label: &str, row: &mut Row) {
    let [p50, p99, max] =
        [50, 99, 100].map(|percent| row.percentile(percent).map_or_else(|| "-".to_owned(), show));
    let _ = writeln!(
        text,
        "{label:>10} {:>9} {:>8} {:>8} {:>6} {:>10.0} {p50:>10} {p99:>10} {max:>10}",
        row.echoed, row.resent, row.altered, row.lost, row.rate
    );
}

/// The counters and the stop.
pub(crate) fn ending(stopped: &Stopped) -> String {
    format!("{}  stopped in {}\n", stopped.counters.lines(), show(stopped.report.elapsed))
}

/// Microseconds below a millisecond, milliseconds above.
fn show(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros} us"),
        micros => format!("{:.1} ms", micros as f64 / 1e3),
    }
}
