//! With the `metrics` feature, what has a name is shown to whoever records.

mod common;

use callbridge::listener::{Listener, UdpSource};
use callbridge::{Bridge, ThreadPool, channel};
use common::{LONG, Loop, eventually};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit, set_global_recorder,
};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// What was recorded: the last value, or how many, by "metric{label=value,..}".
#[derive(Clone, Default)]
struct Notebook(Arc<Mutex<BTreeMap<String, f64>>>);

struct Line(Notebook, String);

impl Line {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut lines = self.0.0.lock().unwrap();
        let value = lines.entry(self.1.clone()).or_default();
        *value = change(*value);
    }
}

impl CounterFn for Line {
    fn increment(&self, by: u64) {
        self.change(|value| value + by as f64);
    }
    fn absolute(&self, now: u64) {
        self.change(|value| value.max(now as f64));
    }
}

impl GaugeFn for Line {
    fn increment(&self, by: f64) {
        self.change(|value| value + by);
    }
    fn decrement(&self, by: f64) {
        self.change(|value| value - by);
    }
    fn set(&self, now: f64) {
        self.change(|_| now);
    }
}

impl HistogramFn for Line {
    fn record(&self, seconds: f64) {
        assert!(seconds > 0.0 && seconds < LONG.as_secs_f64(), "{seconds} s");
        self.change(|count| count + 1.0);
    }
}

impl Notebook {
    fn line(&self, key: &Key) -> Arc<Line> {
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let line = format!("{}{{{}}}", key.name(), labels.join(","));
        Arc::new(Line(self.clone(), line))
    }

    /// What is recorded under the name now, after an export: in order, without the crate's prefix.
    fn of(&self, name: &str) -> BTreeMap<String, f64> {
        // Another test's, begun earlier, would tell later how it was then.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        {
            let _turn = ONE_AT_A_TIME.lock().unwrap();
            callbridge::metrics::export();
        }
        let lines = self.0.lock().unwrap();
        let named = lines.iter().filter(|(line, _)| line.contains(&format!("name={name}")));
        named
            .map(|(line, value)| {
                let short = line.replace("callbridge_", "").replace(&format!("name={name}"), "");
                (short.replace("{,", "{").replace("{}", ""), *value)
            })
            .collect()
    }
}

/// The process's: the times are told once.
fn notebook() -> Notebook {
    static NOTEBOOK: OnceLock<Notebook> = OnceLock::new();
    let install = || {
        let notebook = Notebook::default();
        assert!(set_global_recorder(notebook.clone()).is_ok(), "there is no other");
        notebook
    };
    NOTEBOOK.get_or_init(install).clone()
}

impl Recorder for Notebook {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.line(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.line(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.line(key))
    }
}

#[test]
fn a_channel_with_a_name_shows_where_every_frame_is() {
    let notebook = notebook();
    let (sender, mut frames) = channel::builder().capacity(4).name("shown").build().unwrap();
    for frame in 0..4 {
        sender.try_send(frame).unwrap();
    }
    assert!(sender.try_send(4).is_err());
    frames.try_recv().unwrap();
    let shown = notebook.of("shown");
    assert_eq!(shown["channel_depth"], 3.0, "{shown:?}");
    assert_eq!(shown["channel_capacity"], 4.0);
    assert_eq!(shown["channel_high_water"], 4.0);
    assert_eq!(shown["channel_offered_total"], 5.0);
    assert_eq!(shown["channel_delivered_total"], 1.0);
    assert_eq!(shown["channel_refused_total"], 1.0);
    drop((sender, frames));
    let shown = notebook.of("shown");
    assert_eq!(shown["channel_lost_total{reason=consumer_dropped}"], 3.0, "{shown:?}");
    assert_eq!((shown["channel_depth"], shown["channel_capacity"]), (0.0, 0.0), "it is gone");
    assert_eq!(shown["channel_offered_total"], 5.0, "and not forgotten");
}

#[test]
fn channels_of_one_name_are_shown_together_and_one_without_isnt() {
    let notebook = notebook();
    let _nameless = callbridge::channel::<u8>(1);
    for round in 1..=3 {
        let pair = || channel::builder().capacity(8).name("twins").build().unwrap();
        let (one, other) = (pair(), pair());
        one.0.send(1).unwrap();
        other.0.send(2).unwrap();
        let shown = notebook.of("twins");
        assert_eq!(shown["channel_offered_total"], f64::from(2 * round));
        assert_eq!(shown["channel_depth"], 2.0);
        drop(one);
        assert_eq!(notebook.of("twins")["channel_depth"], 1.0);
    }
    let names = notebook.0.lock().unwrap();
    assert!(names.keys().all(|line| line.contains("name=")), "{names:?}");
}

#[test]
fn frames_that_wake_a_consumer_are_all_timed_and_of_many_some() {
    for evicts in [false, true] {
        let name = format!("timed-{evicts}");
        let notebook = notebook();
        let mut builder = channel::builder().capacity(1024).name(&name);
        if evicts {
            builder = builder.overflow(callbridge::Overflow::DropOldest);
        }
        let (sender, mut frames) = builder.build().unwrap();
        let waited = || notebook.of(&name)["channel_wait_seconds"];
        for frame in 1..=5 {
            // The consumer waits before there is a frame.
            let mut next = std::pin::pin!(frames.recv());
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            assert!(next.as_mut().poll(&mut cx).is_pending());
            sender.send(frame).unwrap();
            assert!(next.poll(&mut cx).is_ready());
            assert_eq!(waited(), f64::from(frame), "of {frame}");
        }
        for frame in 0..640 {
            sender.send(frame).unwrap();
        }
        while frames.try_recv().is_ok() {}
        let timed = waited() - 5.0;
        assert!((1.0..=10.0).contains(&timed), "{timed} of 640");
        // One that is lost on the way wasn't handed over.
        for frame in 0..4096 {
            let _ = sender.try_send(frame);
        }
        drop((sender, frames));
        assert_eq!(waited() - 5.0, timed);
    }
}

#[test]
fn a_frame_that_is_followed_is_timed_when_it_is_read_and_not_if_it_is_evicted() {
    let notebook = notebook();
    let evicting = |name| {
        let builder = channel::builder().capacity(128).overflow(callbridge::Overflow::DropOldest);
        builder.name(name).build().unwrap()
    };
    let timed =
        |name| notebook.of(name).get("channel_wait_seconds").copied().unwrap_or_default() as u32;

    // Of those that wake nobody the 64th is followed, and no other until it is read.
    let (sender, mut frames) = evicting("followed");
    (0..128).for_each(|frame| assert!(sender.send(frame).is_ok()));
    (0..63).for_each(|frame| assert_eq!(frames.try_recv(), Ok(frame)));
    assert_eq!(timed("followed"), 0);
    assert_eq!(frames.try_recv(), Ok(63));
    assert_eq!(timed("followed"), 1);

    let (sender, mut frames) = evicting("evicted");
    (0..192).for_each(|frame| assert!(sender.send(frame).is_ok()));
    while frames.try_recv().is_ok() {}
    assert_eq!(timed("evicted"), 0);
}

#[test]
fn a_bridge_shows_its_calls_by_outcome_and_how_long_they_took() {
    let notebook = notebook();
    let driven = Loop::multi(1);
    let bridge = Bridge::builder(driven.handle()).name("asked").build().unwrap();
    for _ in 0..3 {
        bridge.run_coroutine_threadsafe(async {}).result(LONG).unwrap();
    }
    assert!(bridge.run_coroutine_threadsafe(async { panic!("no") }).result(LONG).is_err());
    bridge.call(async {}, LONG).unwrap();
    let mut held = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
    let shown = notebook.of("asked");
    assert_eq!(shown["bridge_submitted_total"], 6.0, "{shown:?}");
    assert_eq!(shown["bridge_calls_total{outcome=finished}"], 4.0);
    assert_eq!(shown["bridge_calls_total{outcome=panicked}"], 1.0);
    assert_eq!(shown["bridge_in_flight"], 1.0);
    assert_eq!(shown["bridge_call_seconds"], 5.0);
    eventually("its first poll", || notebook.of("asked")["bridge_first_poll_seconds"] == 5.0);
    held.cancel_and_wait(LONG).unwrap();
    drop(bridge);
    eventually("the watch of the loop to end", || {
        notebook.of("asked")["bridge_calls_total{outcome=cancelled}"] == 1.0
    });
}

#[test]
fn the_times_of_two_bridges_of_one_name_are_shown_together() {
    let notebook = notebook();
    let driven = Loop::multi(1);
    let bridges = [(); 2].map(|()| Bridge::builder(driven.handle()).name("both").build().unwrap());
    for bridge in &bridges {
        bridge.call(async {}, LONG).unwrap();
    }
    assert_eq!(notebook.of("both")["bridge_call_seconds"], 2.0);
}

#[test]
fn a_call_without_a_bridge_is_not_shown() {
    let notebook = notebook();
    let driven = Loop::multi(1);
    let _bridge = Bridge::new(driven.handle());
    callbridge::run_coroutine_threadsafe(async {}, &driven.handle()).result(LONG).unwrap();
    drop(driven);
    assert_eq!(notebook.of("callbridge")["bridge_submitted_total"], 0.0);
}

#[test]
fn a_bridge_with_an_alarm_shows_how_it_stalls() {
    let notebook = notebook();
    let undriven = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bridge = Bridge::builder(undriven.handle().clone())
        .name("stuck")
        .stall_after(Duration::from_millis(10), |_| ())
        .build()
        .unwrap();
    let _call = bridge.run_coroutine_threadsafe(async {});
    eventually("it has stalled", || {
        let shown = notebook.of("stuck");
        (shown["bridge_stalled"], shown["bridge_stalls_total"]) == (1.0, 1.0)
    });
}

#[test]
fn a_pool_shows_its_threads_and_jobs() {
    let notebook = notebook();
    let pool = ThreadPool::builder().max_workers(1).name("worked").build().unwrap();
    pool.submit(|| ()).result(LONG).unwrap();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let mut running = pool.submit(move || released.recv().is_ok());
    let mut queued = pool.submit(|| ());
    eventually("the first one runs", || {
        let shown = notebook.of("worked");
        (shown["pool_busy"], shown["pool_queued"]) == (1.0, 1.0)
    });
    assert_eq!(notebook.of("worked")["pool_workers"], 1.0);
    release.send(()).unwrap();
    assert!(running.result(LONG).unwrap());
    queued.result(LONG).unwrap();
    eventually("all are counted", || {
        let shown = notebook.of("worked");
        shown["pool_jobs_total{outcome=completed}"] == 3.0
            && shown["pool_job_seconds"] == 3.0
            && shown["pool_wait_seconds"] == 3.0
    });
}

#[test]
fn a_listener_and_its_channel_are_shown_under_its_name() {
    let notebook = notebook();
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let addr = source.local_addr().unwrap();
    let (listener, mut frames) = Listener::builder(source)
        .name("heard")
        .quiet_after(Duration::from_millis(20), || ())
        .spawn()
        .unwrap();
    eventually("it is quiet", || notebook.of("heard")["listener_quiet"] == 1.0);
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", addr).unwrap();
    frames.recv_blocking(LONG).unwrap();
    let shown = notebook.of("heard");
    assert_eq!(shown["listener_frames_total"], 1.0, "{shown:?}");
    assert_eq!(shown["channel_delivered_total"], 1.0);
    eventually("it is quiet again", || {
        let shown = notebook.of("heard");
        (shown["listener_quiet"], shown["listener_went_quiet_total"]) == (1.0, 2.0)
    });
    assert!(listener.close_blocking(LONG).is_clean());
}

#[test]
fn a_handler_shows_how_long_it_held_the_thread() {
    let notebook = notebook();
    let driven = Loop::multi(1);
    let bridge = Bridge::builder(driven.handle()).name("answering").build().unwrap();
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let addr = source.local_addr().unwrap();
    let listener = Listener::builder(source)
        .name("answered")
        .serve(&bridge, |_: callbridge::listener::Datagram| async { Some("y") })
        .spawn()
        .unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..3 {
        client.send_to(b"x", addr).unwrap();
        client.recv(&mut [0; 8]).unwrap();
    }
    eventually("three replies", || {
        let shown = notebook.of("answered");
        shown["listener_requests_total{outcome=replied}"] == 3.0
            // After one that was held up by a busy machine, the next go to the loop at once.
            && shown["listener_first_poll_seconds"] >= 1.0
    });
    assert!(listener.close_blocking(LONG).is_clean());
}

/// Each name is kept for good: a name for each of them grew the list with every runner that came and went.
#[test]
fn runners_without_a_name_are_shown_as_one() {
    let notebook = notebook();
    for _ in 0..3 {
        let runner = callbridge::ThreadRunner::new();
        runner.spawn(async {}).result(LONG).unwrap();
        assert!(runner.close(LONG).is_clean());
    }
    assert_eq!(notebook.of("runner")["bridge_submitted_total"], 3.0);
    assert!(notebook.of("runner-").is_empty());
}
