//! P1: frames of 64 bytes from one thread to a task, capacity 1024, as fast as they go.

use super::{Bench, Workload};
use crate::contestants::channels::{self, Channel};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::contestants::frames::{Pool, Sink, nth};
use crate::harness::{Case, CaseResult, Goal, Meter, Role, Round, Versus};
use std::sync::Barrier;
use std::thread;

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P1",
    title: "Stream hand-off: one thread → one task, 64-byte frames, capacity 1024",
    run,
    goals,
};

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for flavour in [Flavour::Ct, Flavour::Mt1] {
        for (suffix, pool) in [("", Pool::Plain), ("/counted", Pool::Counted)] {
            let name = format!("{}{suffix}", flavour.name());
            if bench.wants(&name) && !(bench.plan.quick && suffix == "/counted") {
                let on = Loop::new(flavour);
                let stream = Stream { on: &on, capacity: 1024, producers: 1, pool };
                results.push(bench.measure(stream.case("P1", name)));
            }
        }
    }
    results
}

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    for case in ["ct", "mt1"] {
        let goal = |figure, versus, at_most| Goal {
            workload: "P1",
            case,
            ours: "callbridge",
            figure,
            versus,
            at_most,
        };
        goals.extend([
            goal("ns", Versus::BestPeer, 1.0),
            goal("cpu ns", Versus::BestPeer, 1.0),
            goal("ns", Versus::Contestant("tokio blocking_send + recv"), 0.2),
            goal("allocations", Versus::Number(0.001), 1.0),
            goal("switches", Versus::Number(0.01), 1.0),
        ]);
    }
    goals
}

/// A stream at full speed.
#[derive(Clone, Copy)]
pub(super) struct Stream<'a> {
    pub(super) on: &'a Loop,
    pub(super) capacity: usize,
    pub(super) producers: u64,
    pub(super) pool: Pool,
}

impl<'a> Stream<'a> {
    /// A case with everyone who can take part.
    pub(super) fn case(self, workload: &'static str, name: impl Into<String>) -> Case<'a> {
        let mut case = Case::new(workload, name)
            .at_least(if self.capacity < 64 { 2_000 } else { 50_000 })
            .in_steps(self.producers);

        case.add(Role::Ours, "callbridge", move |ops| self.round::<channels::Ours>(ops));
        case.add(Role::Ours, "callbridge recv_many", move |ops| {
            self.round::<channels::OursMany>(ops)
        });
        case.add(Role::Peer, "tokio blocking_send + recv", move |ops| {
            self.round::<channels::TokioBlocking>(ops)
        });
        case.add(Role::Peer, "tokio try_send + recv_many", move |ops| {
            self.round::<channels::TokioBest>(ops)
        });
        case.add(Role::Peer, "async-channel", move |ops| self.round::<channels::AsyncChannel>(ops));
        case.add(Role::Peer, "flume", move |ops| self.round::<channels::Flume>(ops));
        case.add(Role::Peer, "kanal", move |ops| self.round::<channels::Kanal>(ops));
        case.add(Role::Peer, "crossfire mpsc", move |ops| {
            self.round::<channels::CrossfireMpsc>(ops)
        });
        case.add(Role::Peer, "fibre mpsc", move |ops| self.round::<channels::FibreMpsc>(ops));
        case.add(Role::Peer, "tachyonix", move |ops| self.round::<channels::Tachyonix>(ops));
        if self.producers == 1 {
            case.add(Role::Peer, "crossfire spsc", move |ops| {
                self.round::<channels::CrossfireSpsc>(ops)
            });
            case.add(Role::Peer, "fibre spsc", move |ops| self.round::<channels::FibreSpsc>(ops));
            case.add(Role::Limit, "spinning ring, two threads", move |ops| {
                self.round::<channels::SpinRing>(ops)
            });
        }
        case.add(Role::Limit, "std sync_channel, two threads", move |ops| {
            self.round::<channels::StdThread>(ops)
        });
        case
    }

    /// Sends `ops` frames, the producers sharing them evenly.
    pub(super) fn round<C: Channel>(self, ops: u64) -> Round {
        let each = ops / self.producers;
        let frames = self.pool.frames();
        let (tx, rx) = C::open(self.capacity);
        let (sink, seen) = Sink::new(None);
        C::consume(rx, self.on.handle(), sink);
        let mut senders: Vec<_> = (1..self.producers).map(|_| C::another(&tx)).collect();
        senders.push(tx);

        let gate = Barrier::new(senders.len() + 1);
        thread::scope(|scope| {
            for mut tx in senders {
                let gate = &gate;
                let builder = thread::Builder::new().stack_size(128 * 1024);
                let producer = move || {
                    gate.wait();
                    for n in 0..each {
                        C::send(&mut tx, nth(frames, n));
                    }
                };
                builder.spawn_scoped(scope, producer).expect("a thread");
            }
            let meter = Meter::start();
            gate.wait();
            let seen = seen.recv().expect("the consumer reports");
            let round = meter.stop(each * self.producers);
            seen.check(self.producers, each);
            round
        })
    }
}
