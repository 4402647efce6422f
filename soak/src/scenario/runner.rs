use super::Census;
use crate::check::PATIENCE;
use callbridge::ThreadRunner;

/// Loops that start and stop: calls, contexts, iterators, and leases of the shared one.
pub(crate) fn loops(seed: u64) -> u64 {
    const TIMES: u64 = 4;
    const ITEMS: u64 = 500;
    let census = Census::default();
    for time in 0..TIMES {
        let workers = 1 + ((seed + time) % 2) as usize;
        let runner = ThreadRunner::builder().worker_threads(workers).build().unwrap();
        let alive = census.guard();
        let context = runner.enter_context(
            move || async move { Ok::<_, String>(alive) },
            |_alive, _| async { Ok::<_, String>(()) },
        );
        let context = context.unwrap();
        let (sender, numbers) = callbridge::channel(8);
        let bridge = runner.bridge().unwrap();
        let feed =
            std::thread::spawn(move || (0..ITEMS).try_for_each(|n| sender.send(n).map(drop)));
        let items: Result<Vec<_>, _> = runner.wrap_iter(numbers).collect();
        assert!(items.unwrap().into_iter().eq(0..ITEMS));
        feed.join().unwrap().unwrap();
        for n in 0..20 {
            assert_eq!(runner.run(async move { n }).unwrap(), n);
        }
        let alive = census.guard();
        let never = runner.spawn(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        if time % 2 == 0 {
            drop(context);
            never.cancel();
            let report = runner.close(PATIENCE);
            assert!(report.is_clean(), "{report}");
            let stats = bridge.stats();
            assert!(stats.balances() && stats.in_flight == 0, "{stats:?}");
        } else {
            drop(runner);
        }
        let lease = ThreadRunner::shared();
        assert_eq!(lease.run(async { 1 }).unwrap(), 1);
    }
    census.empties();
    TIMES * (ITEMS + 21)
}
