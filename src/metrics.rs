//! Everything that has a name, seen through the `metrics` facade.
//!
//! [`export`] tells the recorder how the channels, bridges, pools, dedicated threads and listeners of this
//! process stand: from a timer, or whenever somebody asks for the figures. The counters are those that are kept
//! anyway ([`Stats`](crate::channel::Stats) and its like), so between two exports nothing is recorded but the
//! times, and of those a part: where more than a few come per second, one call or job in 32 and one frame in 64.
//!
//! Things of one kind with one name are shown together, those that have gone included. A
//! [channel](crate::channel::Builder::name) and a [listener](crate::listener::ListenerBuilder::name) are shown if
//! they were given a name; a bridge, a pool and a dedicated thread have one anyway. Each name is kept for
//! ever, so take few: `meter`, not `meter-17`.
//!
//! Each metric has the label `name`; some have one more.
//!
//! | metric | |
//! |---|---|
//! | `callbridge_channel_depth`, `_capacity`, `_weight` | frames that are queued, how many may be, and what they weigh |
//! | `callbridge_channel_high_water` | the most that were queued at once |
//! | `callbridge_channel_offered_total`, `_delivered_total`, `_refused_total`, `_lost_total{reason}` | what became of frames; offered = delivered + depth + lost + refused |
//! | `callbridge_channel_senders_waiting`, `_blocked_total`, `_blocked_microseconds_total` | senders without room: now, how often, and for how long in all |
//! | `callbridge_channel_wait_seconds` | how long frames waited for the consumer (histogram) |
//! | `callbridge_bridge_in_flight`, `_high_water` | calls submitted and not ended, now and at most |
//! | `callbridge_bridge_submitted_total`, `_refused_total`, `_calls_total{outcome}` | what became of calls |
//! | `callbridge_bridge_first_poll_seconds` | from a submission to its first poll on the loop (histogram) |
//! | `callbridge_bridge_call_seconds` | from a submission to its end (histogram) |
//! | `callbridge_bridge_stalled`, `_stalls_total` | stalls that go on, and how many there were, if the bridge has an [alarm](crate::bridge::BridgeBuilder::stall_after) |
//! | `callbridge_pool_workers`, `_idle`, `_busy`, `_queued`, `_high_water` | threads, and jobs that run or wait |
//! | `callbridge_pool_jobs_total{outcome}` | jobs that ran, or were dropped before |
//! | `callbridge_pool_wait_seconds`, `_job_seconds` | how long jobs waited, and ran (histograms) |
//! | `callbridge_listener_frames_total`, `_lost_total{what}`, `_errors_total{what}` | what a source has handed over, what was lost on the way, and what went wrong |
//! | `callbridge_listener_connections`, `_accepted_total{outcome}` | connections that are open, and that were kept or refused |
//! | `callbridge_listener_in_flight`, `_requests_total{outcome}` | requests at work, and what became of them |
//! | `callbridge_listener_first_poll_seconds`, `_slow_polls_total` | how long handlers held the thread before their first await (histogram), and how often for more than 10 ms |
//! | `callbridge_listener_quiet`, `_went_quiet_total` | sources that are quiet now, and how often one went quiet |
//!
//! # Examples
//!
//! ```
//! use callbridge::channel;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (positions, _frames) = channel::builder().name("positions").build()?;
//! tokio::spawn(async {
//!     loop {
//!         tokio::time::sleep(Duration::from_secs(1)).await;
//!         callbridge::metrics::export();
//!     }
//! });
//! positions.send((48.2, 16.4))?;
//! # Ok(())
//! # }
//! ```

use crate::sync::{Entry, Sheet, Value, read_observed, seconds_of};
use ::metrics::{Label, Level, Metadata, Recorder, with_recorder};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Tells the recorder of the calling thread, or of the process, how everything that has a name stands.
///
/// It may be called from anywhere and by several at once. It costs some microseconds for each name. The times
/// are told once, to whoever is the recorder then: install it first.
///
/// # Examples
///
/// See the [module](self).
pub fn export() {
    with_recorder(|recorder| {
        for ((_, name), sheet) in read_observed() {
            tell(recorder, &name, sheet);
        }
    });
}

/// Where a metric is registered from, for recorders that choose by it.
const METADATA: Metadata<'_> = Metadata::new("callbridge", Level::INFO, Some("callbridge"));

fn tell(recorder: &dyn Recorder, name: &str, sheet: Sheet) {
    for Entry { metric, label, value } in sheet.0 {
        let mut labels = vec![Label::new("name", name.to_owned())];
        labels.extend(label.map(|(label, of)| Label::from_static_parts(label, of)));
        let key = ::metrics::Key::from_parts(metric, labels);
        match value {
            Value::Count(count) => recorder.register_counter(&key, &METADATA).absolute(count),
            Value::Level(now) | Value::Peak(now) => {
                recorder.register_gauge(&key, &METADATA).set(now);
            }
            Value::Times(times) => {
                let histogram = recorder.register_histogram(&key, &METADATA);
                for (bucket, count) in untold(metric, name, &times) {
                    histogram.record_many(seconds_of(bucket), count);
                }
            }
        }
    }
}

/// How often something took how long, as it was told last.
type Told = HashMap<(&'static str, Box<str>), Box<[u64]>>;

/// What was told of the times so far: a recorder wants each once.
static TOLD: Mutex<Option<Told>> = Mutex::new(None);

/// What has come since the last time, by bucket; it is told from now on.
fn untold(metric: &'static str, name: &str, times: &[u64]) -> Vec<(usize, usize)> {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let told = told.get_or_insert_default().entry((metric, name.into())).or_default();
    if told.is_empty() {
        *told = vec![0; times.len()].into_boxed_slice();
    }
    let news = told.iter_mut().zip(times).enumerate().filter_map(|(bucket, (told, now))| {
        // Another thread that exports may be ahead.
        let count = now.saturating_sub(*told);
        *told += count;
        (count > 0).then_some((bucket, count as usize))
    });
    news.collect()
}
