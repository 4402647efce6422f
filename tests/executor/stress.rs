//! Many jobs of all kinds, in pools and on dedicated threads that come and go.
//!
//! `CALLBRIDGE_ROUNDS=170 cargo test --release --test executor stress -- --nocapture` runs a million, and shows
//! what became of them.

use crate::common::{Census, LONG, SHORT, eventually, refusal, rounds};
use callbridge::bridge::CloseReport;
use callbridge::executor::CancelToken;
use callbridge::executor::CapacityLimiter;
use callbridge::future::Refusal;
use callbridge::future::SubmitError;
use callbridge::{BlockingFuture, DedicatedThread, ResultError, ThreadPool, run_in_executor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// What a panic on purpose says; such panics aren't printed.
const ON_PURPOSE: &str = "on purpose";

const JOBS_A_ROUND: u64 = 3 * 200;

struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// What has become of the jobs.
#[derive(Default)]
struct Tally {
    submitted: AtomicU64,
    refused: AtomicU64,
    finished: AtomicU64,
    panicked: AtomicU64,
    cancelled: AtomicU64,
    /// Ended, as their callbacks say.
    called_back: AtomicU64,
}

impl Tally {
    fn note(&self, outcome: &Result<u64, ResultError>) {
        let counter = match outcome {
            Ok(_) => &self.finished,
            Err(ResultError::Panicked(_)) => &self.panicked,
            Err(ResultError::Cancelled) => &self.cancelled,
            Err(error) => match refusal(error) {
                Some(Refusal::Closed) => &self.refused,
                _ => panic!("{error:?}"),
            },
        };
        counter.fetch_add(1, SeqCst);
    }
}

/// A value that takes a while to be dropped.
struct SlowDrop(u64);

impl Drop for SlowDrop {
    fn drop(&mut self) {
        thread::sleep(Duration::from_micros(self.0));
    }
}

struct Round {
    pool: ThreadPool,
    thread: DedicatedThread<u64>,
    limiter: CapacityLimiter,
    inside: AtomicU64,
    tally: Tally,
    census: Census,
}

impl Round {
    fn new(dice: &mut Dice) -> Self {
        let idle_timeout = [Duration::ZERO, Duration::from_millis(1), LONG][dice.below(3) as usize];
        let workers = 1 + dice.below(4) as usize;
        let builder = ThreadPool::builder()
            .name("stress-pool")
            .max_workers(workers)
            .max_threads(workers + dice.below(5) as usize + 2)
            .idle_timeout(idle_timeout);
        let builder = match dice.below(2) {
            0 => builder.capacity(1 + dice.below(30) as usize),
            _ => builder.unbounded(),
        };
        let builder_of_thread = DedicatedThread::builder().name("stress-own").rebuilds(u32::MAX);
        let build = || Ok::<_, String>(0);
        let thread = builder_of_thread
            .rebuild_backoff(Duration::ZERO)
            .spawn_rebuilding(build)
            .result(LONG)
            .unwrap();
        Round {
            pool: builder.build().unwrap(),
            thread,
            limiter: CapacityLimiter::new(2),
            inside: AtomicU64::new(0),
            tally: Tally::default(),
            census: Census::default(),
        }
    }

    /// A job of one of all kinds, which waits for others at most `depth` deep.
    fn job(self: &Arc<Self>, kind: u64, n: u64) -> impl FnOnce() -> u64 + Send + use<> {
        let (round, alive) = (Arc::clone(self), self.census.guard());
        move || {
            let _alive = alive;
            match kind {
                0 => std::panic::panic_any(ON_PURPOSE),
                1 => {
                    // Lends its place for a job of its own pool.
                    let inner = round.pool.submit(move || n);
                    let inner = { inner }.result(None);
                    assert!(matches!(inner, Ok(_) | Err(ResultError::Refused(_))), "{inner:?}");
                }
                2 => {
                    let permit = round.limiter.acquire_blocking(LONG).unwrap();
                    assert!(round.inside.fetch_add(1, SeqCst) < 2, "more than the limit");
                    thread::yield_now();
                    round.inside.fetch_sub(1, SeqCst);
                    drop(permit);
                }
                3 => drop(CancelToken::current().unwrap().wait(Duration::from_micros(50))),
                4 => match round.thread.call_blocking(move |_| n, LONG) {
                    // It may run on that thread.
                    Ok(_) | Err(ResultError::Refused(_) | ResultError::WouldDeadlock) => {}
                    Err(error) => panic!("{error:?}"),
                },
                _ => {}
            }
            n
        }
    }

    fn submit(self: &Arc<Self>, dice: &mut Dice, n: u64) {
        let tally = &self.tally;
        tally.submitted.fetch_add(1, SeqCst);
        let (kind, way) = (dice.below(8), dice.below(6));
        // The pool's jobs wait for the thread's calls; the other way round, too, that would be a cycle.
        let job = self.job(if way == 2 && kind == 1 { 5 } else { kind }, n);
        match way {
            // Nobody reads the result, which takes a while to be dropped.
            0 => {
                let (round, slow) = (Arc::clone(self), dice.below(100));
                let slow_job = move || {
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                    let counter = match &outcome {
                        Ok(_) => &round.tally.finished,
                        Err(_) => &round.tally.panicked,
                    };
                    counter.fetch_add(1, SeqCst);
                    SlowDrop(slow)
                };
                let call = self.pool.submit(slow_job);
                match call.state() {
                    callbridge::future::FutureState::Refused => {
                        tally.refused.fetch_add(1, SeqCst);
                    }
                    _ => self.count_unread(&call),
                }
            }
            1 => {
                let executor = self.pool.clone();
                let call = run_in_executor(&executor, job);
                tally.note(&futures_executor::block_on(call));
            }
            2 => {
                let job = move |_: &mut u64| job();
                let call = self.thread.submit(job);
                self.finish(dice, call);
            }
            3 => match self.pool.try_submit(job) {
                Ok(call) => self.finish(dice, call),
                Err(SubmitError::Full(_) | SubmitError::Closed(_)) => {
                    tally.refused.fetch_add(1, SeqCst);
                }
                Err(error) => panic!("{error:?}"),
            },
            _ => self.finish(dice, self.pool.submit(job)),
        }
    }

    /// A refused one was accepted first, and never ran.
    fn count_unread(self: &Arc<Self>, call: &BlockingFuture<SlowDrop>) {
        let round = Arc::clone(self);
        call.add_done_callback(move |state| {
            round.tally.called_back.fetch_add(1, SeqCst);
            if state == callbridge::future::FutureState::Refused {
                round.tally.refused.fetch_add(1, SeqCst);
            }
        });
    }

    fn finish(self: &Arc<Self>, dice: &mut Dice, mut call: BlockingFuture<u64>) {
        let round = Arc::clone(self);
        call.add_done_callback(move |_| {
            round.tally.called_back.fetch_add(1, SeqCst);
        });
        if dice.below(3) == 0 {
            call.cancel();
        }
        self.tally.note(&call.result(LONG));
    }

    fn close(&self, dice: &mut Dice) -> [CloseReport; 2] {
        let patience = [LONG, SHORT, Duration::ZERO][dice.below(3) as usize];
        match dice.below(3) {
            0 => [self.pool.close_blocking(patience), self.thread.close_blocking(patience)],
            1 => futures_executor::block_on(async {
                [self.pool.close(patience).await, self.thread.close(patience).await]
            }),
            _ => {
                let _thread = self.thread.finish(|value| value);
                [self.pool.close_blocking(patience), self.thread.close_blocking(patience)]
            }
        }
    }
}

fn threads_called(prefix: &str) -> usize {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return 0 };
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
    tasks.flatten().filter_map(name).filter(|name| name.starts_with(prefix)).count()
}

#[test]
fn nothing_hangs_and_nothing_is_left_of_many_jobs() {
    let jobs = rounds(6_000) as u64;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&ON_PURPOSE) {
            usual(info);
        }
    }));
    let began = std::time::Instant::now();
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15);
    let (mut totals, mut done, mut unclean) = ([0; 5], 0, 0);
    while done < jobs {
        let round = Arc::new(Round::new(&mut dice));
        let submitters: Vec<_> = (0..3)
            .map(|_| {
                let (round, mut dice) = (Arc::clone(&round), Dice(dice.below(u64::MAX) | 1));
                let jobs = JOBS_A_ROUND / 3;
                thread::spawn(move || (0..jobs).for_each(|n| round.submit(&mut dice, n)))
            })
            .collect();
        let closes_meanwhile = dice.below(2) == 0;
        if closes_meanwhile {
            thread::sleep(Duration::from_micros(dice.below(20_000)));
            unclean += round.close(&mut dice).iter().filter(|report| !report.is_clean()).count();
        }
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        for report in [round.pool.close_blocking(LONG), round.thread.close_blocking(LONG)] {
            assert_eq!((report.in_flight, report.still_running.len()), (0, 0), "{report}");
            assert!(report.is_clean() && report.stuck.is_empty(), "{report}");
        }
        let stats = round.pool.stats();
        assert_eq!((stats.workers, stats.active, stats.queued), (0, 0, 0), "{stats:?}");
        assert_eq!(round.census.alive(), 0, "closures are left");
        let permits = round.limiter.stats();
        assert_eq!((permits.in_use, permits.waiting), (0, 0), "{permits:?}");
        let tally = &round.tally;
        let [submitted, ends @ ..] =
            [&tally.submitted, &tally.finished, &tally.panicked, &tally.cancelled, &tally.refused]
                .map(|counter| counter.load(SeqCst));
        assert_eq!(submitted, ends.iter().sum::<u64>(), "{ends:?}");
        done += submitted;
        for (total, more) in totals.iter_mut().zip([submitted].into_iter().chain(ends)) {
            *total += more;
        }
    }
    eventually("timers end", || threads_called("stress-") == 0);
    let [submitted, finished, panicked, cancelled, refused] = totals;
    println!(
        "{submitted} jobs in {:.1?}: {finished} finished, {panicked} panicked, {cancelled} cancelled, \
         {refused} refused; {unclean} closes left something behind for a moment, at the end nothing",
        began.elapsed()
    );
}
