//! P3: a source that sends at a pace, as real ones do: latency, and CPU time without the source's.

use super::{Bench, Workload};
use crate::contestants::channels::{self, Channel};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::contestants::frames::{Pool, Sink, Stamps, nth};
use crate::harness::{Case, CaseResult, Goal, Meter, Role, Round, Versus, thread_cpu};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P3",
    title: "A paced source: latency from send to receipt, CPU per frame without the source's own",
    run,
    goals,
};

/// Periods below this are waited for by spinning: the kernel's timers aren't that fine.
const SPIN_BELOW: Duration = Duration::from_micros(50);

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let cases = [("1k/mt1", 1_000, 1), ("10k/mt1", 10_000, 1), ("100k/mt1", 100_000, 2)];
    let mut results = Vec::new();
    for (name, rate, shorter) in cases.into_iter().filter(|(name, ..)| bench.wants(name)) {
        let on = &Loop::new(Flavour::Mt1);
        let period = Duration::from_secs(1) / rate;
        let time = if bench.plan.quick { 20 } else { 300 / shorter };
        let mut case = Case::new("P3", name).fixed(u64::from(rate) * time / 1000);
        case.add(Role::Ours, "callbridge", |ops| round::<channels::Ours>(on, period, ops));
        case.add(Role::Peer, "tokio blocking_send + recv", |ops| {
            round::<channels::TokioBlocking>(on, period, ops)
        });
        case.add(Role::Peer, "tokio try_send + recv_many", |ops| {
            round::<channels::TokioBest>(on, period, ops)
        });
        case.add(Role::Peer, "async-channel", |ops| {
            round::<channels::AsyncChannel>(on, period, ops)
        });
        case.add(Role::Peer, "flume", |ops| round::<channels::Flume>(on, period, ops));
        case.add(Role::Peer, "kanal", |ops| round::<channels::Kanal>(on, period, ops));
        case.add(Role::Peer, "crossfire mpsc", |ops| {
            round::<channels::CrossfireMpsc>(on, period, ops)
        });
        case.add(Role::Peer, "fibre mpsc", |ops| round::<channels::FibreMpsc>(on, period, ops));
        case.add(Role::Peer, "tachyonix", |ops| round::<channels::Tachyonix>(on, period, ops));
        case.add(Role::Limit, "std sync_channel, two threads", |ops| {
            round::<channels::StdThread>(on, period, ops)
        });
        results.push(bench.measure(case));
    }
    results
}

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    for case in ["1k/mt1", "10k/mt1", "100k/mt1"] {
        let goal = |figure, at_most| Goal {
            workload: "P3",
            case,
            ours: "callbridge",
            figure,
            versus: Versus::BestPeer,
            at_most,
        };
        goals.extend([goal("p50", 1.0), goal("p99", 1.0), goal("cpu ns", 1.1)]);
    }
    goals
}

fn round<C: Channel>(on: &Loop, period: Duration, ops: u64) -> Round {
    let frames = Pool::Plain.frames();
    let (mut tx, rx) = C::open(1024);
    let stamps = Stamps::new(ops);
    let (sink, seen) = Sink::new(Some(stamps.clone()));
    C::consume(rx, on.handle(), sink);

    let meter = Meter::start();
    let source = thread::spawn(move || {
        let (cpu, start) = (thread_cpu(), Instant::now());
        let mut sending = Duration::ZERO;
        for n in 0..ops {
            wait_until(start + period * n as u32, period);
            stamps.send(n);
            let before = Instant::now();
            C::send(&mut tx, nth(frames, n));
            sending += before.elapsed();
        }
        // What the pace itself cost, and not the sending.
        (thread_cpu() - cpu).saturating_sub(sending)
    });
    let seen = seen.recv().expect("the consumer reports");
    let mut round = meter.stop(ops);
    seen.check(1, ops);
    round.cpu = round.cpu.saturating_sub(source.join().expect("the source is done"));
    round.with_latency(seen.latency.expect("it was asked for"))
}

fn wait_until(due: Instant, period: Duration) {
    while let Some(left) = due.checked_duration_since(Instant::now()).filter(|it| !it.is_zero()) {
        if period < SPIN_BELOW {
            std::hint::spin_loop();
        } else {
            thread::sleep(left);
        }
    }
}
