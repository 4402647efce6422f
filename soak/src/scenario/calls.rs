use super::{Census, ON_PURPOSE, PANICS};
use crate::check::{Dice, PATIENCE};
use callbridge::{Bridge, ResultError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;
use tokio::runtime::Builder;

const THREADS: u64 = 4;
const CALLS: u64 = 100;

/// Calls that end well, are cancelled, panic, and are waited for in several goes.
pub(crate) fn submitted(seed: u64) -> u64 {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let bridge = Bridge::builder(runtime.handle().clone()).max_in_flight(16).build().unwrap();
    let (census, told) = (Census::default(), Arc::new(AtomicU64::new(0)));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (bridge, census, told) = (bridge.clone(), census.clone(), Arc::clone(&told));
            scope.spawn(move || {
                let mut dice = Dice::new(seed ^ (thread << 32));
                for n in 0..CALLS {
                    let (kind, alive) = (dice.below(if PANICS { 5 } else { 4 }), census.guard());
                    let mut call = bridge.run_coroutine_threadsafe(async move {
                        let _alive = alive;
                        match kind {
                            0 => {}
                            1 => tokio::task::yield_now().await,
                            2 => tokio::time::sleep(Duration::from_micros(200)).await,
                            3 => std::future::pending().await,
                            _ => std::panic::panic_any(ON_PURPOSE),
                        }
                        n
                    });
                    let told = Arc::clone(&told);
                    call.add_done_callback(move |_| {
                        told.fetch_add(1, Ordering::SeqCst);
                    });
                    if kind == 3 {
                        let early = call.result(Duration::from_micros(dice.below(300)));
                        assert!(matches!(early, Err(ResultError::TimedOut { .. })), "{early:?}");
                        assert!(call.cancel());
                    }
                    match (kind, call.result(PATIENCE)) {
                        (0..=2, Ok(value)) => assert_eq!(value, n),
                        (3, Err(ResultError::Cancelled)) => {}
                        (4, Err(ResultError::Panicked(_))) => {}
                        (_, other) => panic!("call of kind {kind}: {other:?}"),
                    }
                    // That it was cancelled can be asked again and again; a value is given once.
                    match call.result(Duration::ZERO) {
                        Err(ResultError::Cancelled) if kind == 3 => {}
                        Err(ResultError::AlreadyTaken) if kind != 3 => {}
                        other => panic!("call of kind {kind}, asked again: {other:?}"),
                    }
                }
            });
        }
    });
    let report = bridge.close_blocking(PATIENCE);
    assert!(report.is_clean(), "{report:?}");
    let stats = bridge.stats();
    assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
    assert_eq!(stats.submitted, THREADS * CALLS);
    drop(runtime);
    census.empties();
    assert_eq!(told.load(Ordering::SeqCst), THREADS * CALLS);
    THREADS * CALLS
}

/// A runtime that is dropped while threads submit and wait.
pub(crate) fn loop_lost(seed: u64) -> u64 {
    const TIMES: u64 = 4;
    let mut dice = Dice::new(seed);
    let mut checked = 0;
    for _ in 0..TIMES {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let bridge = Bridge::new(runtime.handle().clone());
        let (census, start) = (Census::default(), Barrier::new(THREADS as usize + 1));
        checked += std::thread::scope(|scope| {
            let submitters: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (bridge, census, start) = (bridge.clone(), census.clone(), &start);
                    scope.spawn(move || {
                        start.wait();
                        for n in 0_u64.. {
                            let alive = census.guard();
                            let mut call = bridge.run_coroutine_threadsafe(async move {
                                let _alive = alive;
                                tokio::task::yield_now().await;
                                n
                            });
                            match call.result(PATIENCE) {
                                Ok(value) => assert_eq!(value, n),
                                Err(ResultError::LoopClosed) => return n + 1,
                                Err(other) => panic!("{other:?}"),
                            }
                        }
                        unreachable!("the loop goes away")
                    })
                })
                .collect();
            start.wait();
            std::thread::sleep(Duration::from_micros(dice.below(3000)));
            drop(runtime);
            submitters.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
        });
        let stats = bridge.stats();
        assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
        census.empties();
    }
    checked
}
