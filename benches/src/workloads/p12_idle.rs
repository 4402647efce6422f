//! P12: what everything costs while nothing happens: CPU time per second.

use super::{Bench, Workload};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::harness::{Case, CaseResult, Goal, Meter, Role, Round, Versus};
use callbridge::listener::UdpSource;
use callbridge::{Bridge, Listener};
use std::thread;
use std::time::Duration;

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P12",
    title: "Idle: CPU time per second in which nothing happens",
    run,
    goals,
};

const CASE: &str = "mt1";
const LONG_TIMEOUT: &str = "callbridge bridge, stream and UDP listener, poll timeout 1 h";

/// 1 ms in 10 s.
const AT_MOST: f64 = 100_000.0;

/// Longer than any spin, and than the default poll timeout.
const STRETCH: Duration = Duration::from_secs(1);

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    if !bench.wants(CASE) {
        return Vec::new();
    }
    let on = &Loop::new(Flavour::Mt1);
    let mut case = Case::new("P12", CASE).fixed(1);
    case.add(Role::Limit, "the loop alone", |seconds| idle(bench, seconds));
    case.add(Role::Ours, LONG_TIMEOUT, |seconds| {
        let timeout = Duration::from_secs(3600);
        with_everything(on, Some(timeout), || idle(bench, seconds))
    });
    case.add(Role::Ours, "the same with the default poll timeout, 50 ms", |seconds| {
        with_everything(on, None, || idle(bench, seconds))
    });
    vec![bench.measure(case)]
}

fn goals() -> Vec<Goal> {
    vec![Goal {
        workload: "P12",
        case: CASE,
        ours: LONG_TIMEOUT,
        figure: "cpu ns",
        versus: Versus::Number(AT_MOST),
        at_most: 1.0,
    }]
}

fn idle(bench: &Bench<'_>, seconds: u64) -> Round {
    let stretch = if bench.plan.quick { STRETCH / 20 } else { STRETCH };
    let meter = Meter::start();
    (0..seconds).for_each(|_| thread::sleep(stretch));
    meter.stop(seconds)
}

/// Runs `body` beside a bridge that has answered a call, and a listener that has handed a datagram
/// to a waiting task.
fn with_everything(on: &Loop, timeout: Option<Duration>, body: impl FnOnce() -> Round) -> Round {
    let bridge = Bridge::new(on.handle().clone());
    assert_eq!(bridge.run_coroutine_threadsafe(async { 1 }).result(None).expect("an answer"), 1);

    let socket = UdpSource::bind("127.0.0.1:0").expect("a port");
    let to = socket.local_addr().expect("it is bound");
    let mut builder = Listener::builder(socket);
    if let Some(timeout) = timeout {
        builder = builder.poll_timeout(timeout);
    }
    let (listener, mut datagrams) = builder.spawn().expect("a thread");
    let (heard, hearing) = std::sync::mpsc::channel();
    on.handle().spawn(async move {
        while datagrams.recv().await.is_some() {
            let _ = heard.send(());
        }
    });
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    sender.send_to(b"one", to).expect("loopback takes it");
    hearing.recv().expect("the task hears it");

    let round = body();
    let report = listener.close_blocking(Duration::from_secs(5));
    assert!(report.is_clean(), "{report}");
    round
}
