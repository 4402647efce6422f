//! P9: a blocking call from async code, and its result back; a trivial closure.

use super::{Bench, Workload};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::harness::{Case, CaseResult, Goal, Meter, Role, Round, Versus};
use callbridge::{DedicatedThread, ThreadPool};
use futures::StreamExt;
use std::convert::Infallible;
use std::sync::mpsc;
use std::thread;
use tokio::sync::oneshot;

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P9",
    title: "Blocking work from async code: a trivial closure on another thread",
    run,
    goals,
};

const SPAWN_BLOCKING: &str = "tokio spawn_blocking";
const ANSWERED: &str = "the thread answers";

/// A closure on its way to a thread.
type Job = Box<dyn FnOnce() + Send>;

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for flavour in [Flavour::Ct, Flavour::Mt1] {
        for window in [1, 64] {
            let name = format!("{window} at a time/{}", flavour.name());
            if bench.wants(&name) {
                results.push(bench.measure(case(&Loop::new(flavour), name, window)));
            }
        }
    }
    results
}

fn case(on: &Loop, name: String, window: usize) -> Case<'_> {
    let mut case = Case::new("P9", name);
    case.add(Role::Ours, "callbridge to_thread", move |ops| {
        round(on, window, ops, |n| async move {
            callbridge::to_thread(move || n).await.expect(ANSWERED)
        })
    });
    case.add(Role::Ours, "callbridge ThreadPool", move |ops| {
        let pool = ThreadPool::builder().max_workers(2).build().unwrap();
        round(on, window, ops, move |n| {
            let call = callbridge::run_in_executor(&pool, move || n);
            async move { call.await.expect(ANSWERED) }
        })
    });
    case.add(Role::Ours, "callbridge DedicatedThread", move |ops| {
        let built = DedicatedThread::spawn(|| Ok::<u64, Infallible>(0)).result(None);
        let thread = built.expect("the thread starts");
        round(on, window, ops, move |n| {
            let call = thread.call(move |_: &mut u64| n);
            async move { call.await.expect(ANSWERED) }
        })
    });
    case.add(Role::Peer, SPAWN_BLOCKING, move |ops| {
        round(on, window, ops, |n| async move {
            tokio::task::spawn_blocking(move || n).await.expect(ANSWERED)
        })
    });
    case.add(Role::Peer, "blocking::unblock", move |ops| {
        round(on, window, ops, |n| blocking::unblock(move || n))
    });
    case.add(Role::Peer, "one thread, std mpsc + tokio oneshot", move |ops| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || queue.iter().for_each(|job| job()));
        round(on, window, ops, move |n| {
            let (result, answer) = oneshot::channel();
            let job = move || {
                let _ = result.send(n);
            };
            jobs.send(Box::new(job)).expect(ANSWERED);
            async move { answer.await.expect(ANSWERED) }
        })
    });
    case.add(Role::Peer, "two threads, crossbeam + tokio oneshot", move |ops| {
        let (jobs, queue) = crossbeam_channel::unbounded::<Job>();
        for queue in [queue.clone(), queue] {
            thread::spawn(move || queue.iter().for_each(|job| job()));
        }
        round(on, window, ops, move |n| {
            let (result, answer) = oneshot::channel();
            let job = move || {
                let _ = result.send(n);
            };
            jobs.send(Box::new(job)).expect(ANSWERED);
            async move { answer.await.expect(ANSWERED) }
        })
    });
    case.add(Role::Limit, "inline, no other thread", move |ops| {
        round(on, window, ops, |n| async move { n })
    });
    case
}

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    for (case, at_most) in [
        ("64 at a time/ct", 0.15),
        ("64 at a time/mt1", 0.15),
        ("1 at a time/ct", 0.55),
        ("1 at a time/mt1", 0.55),
    ] {
        for ours in ["callbridge to_thread", "callbridge ThreadPool", "callbridge DedicatedThread"]
        {
            goals.push(Goal {
                workload: "P9",
                case,
                ours,
                figure: "ns",
                versus: Versus::Contestant(SPAWN_BLOCKING),
                at_most,
            });
        }
    }
    goals
}

/// A task on the loop that keeps `window` calls going, and checks the sum of their results.
fn round<F>(on: &Loop, window: usize, ops: u64, call: impl Fn(u64) -> F + Send + 'static) -> Round
where
    F: Future<Output = u64> + Send + 'static,
{
    let (done, sum) = mpsc::channel();
    let meter = Meter::start();
    on.handle().spawn(async move {
        let mut sum = 0;
        if window == 1 {
            for n in 0..ops {
                sum += call(n).await;
            }
        } else {
            let mut calls = futures::stream::iter((0..ops).map(call)).buffer_unordered(window);
            while let Some(result) = calls.next().await {
                sum += result;
            }
        }
        let _ = done.send(sum);
    });
    let sum = sum.recv().expect("the task is done");
    let round = meter.stop(ops);
    assert_eq!(sum, ops * (ops - 1) / 2, "wrong results");
    round
}
