use super::{Census, ON_PURPOSE, PANICS};
use crate::check::{Dice, PATIENCE};
use callbridge::{DedicatedThread, ResultError, ThreadPool, run_in_executor, to_thread};
use std::cell::Cell;
use std::rc::Rc;
use tokio::runtime::Builder;

/// Jobs that end, panic and are dropped, on the shared pool, a pool of its own, a dedicated thread.
pub(crate) fn jobs(seed: u64) -> u64 {
    const JOBS: u64 = 60;
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let census = Census::default();
    let mut dice = Dice::new(seed);
    runtime.block_on(async {
        let pool = ThreadPool::builder().max_workers(3).capacity(4).build().unwrap();
        let counter = DedicatedThread::spawn(|| Ok::<_, String>(Rc::new(Cell::new(0_u64))));
        let counter = counter.await.unwrap();
        for n in 0..JOBS {
            let alive = census.guard();
            let kind = if PANICS { dice.below(3) } else { 1 + dice.below(2) };
            let job = move || {
                let _alive = alive;
                if kind == 0 {
                    std::panic::panic_any(ON_PURPOSE);
                }
                n
            };
            let call = if n % 2 == 0 { to_thread(job) } else { run_in_executor(&pool, job) };
            match kind {
                0 => assert!(matches!(call.await, Err(ResultError::Panicked(_)))),
                1 => drop(call),
                _ => assert_eq!(call.await.unwrap(), n),
            }
            let count = counter.call(|count| {
                count.set(count.get() + 1);
                count.get()
            });
            assert_eq!(count.await.unwrap(), n + 1);
        }
        let report = counter.close(PATIENCE).await;
        assert!(report.is_clean(), "{report}");
        let report = pool.close(PATIENCE).await;
        assert!(report.stuck.is_empty() && report.still_running.is_empty(), "{report}");
    });
    census.empties();
    2 * JOBS
}
