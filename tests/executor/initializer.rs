//! What each thread of a pool does before its work.

use super::block_on;
use crate::common::{LONG, refusal, whole};
use callbridge::future::{Refusal, ReturnWhen, SubmitError};
use callbridge::{ThreadPool, run_in_executor, wait};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};

/// C72: it runs in each worker before its work.
#[test]
fn the_initializer_runs_once_in_each_thread() {
    std::thread_local!(static READY: AtomicUsize = const { AtomicUsize::new(0) });
    let initialize = || {
        READY.with(|ready| ready.fetch_add(1, Ordering::SeqCst));
        Ok::<_, String>(())
    };
    let pool = ThreadPool::builder().max_workers(3).initializer(initialize).build().unwrap();
    let meeting = Arc::new(Barrier::new(3));
    for _ in 0..2 {
        let mut jobs: Vec<_> = (0..3)
            .map(|_| {
                let meeting = Arc::clone(&meeting);
                pool.submit(move || {
                    meeting.wait();
                    READY.with(|ready| ready.load(Ordering::SeqCst))
                })
            })
            .collect();
        assert!(jobs.iter_mut().all(|job| job.result(LONG).unwrap() == 1));
    }
}

/// Threads are initialised next to each other, not one after the other.
#[test]
fn slow_initializers_do_not_wait_for_each_other() {
    let meeting = Arc::new(Barrier::new(3));
    let initialize = move || {
        meeting.wait();
        Ok::<_, String>(())
    };
    let pool = ThreadPool::builder().max_workers(3).initializer(initialize).build().unwrap();
    let mut jobs: Vec<_> = (0..3).map(|n| pool.submit(move || n)).collect();
    let (done, late) = wait(&mut jobs, LONG, ReturnWhen::AllCompleted).unwrap();
    assert_eq!((done.len(), late.len()), (3, 0));
}

/// C73: a failing one breaks the pool: queued and later jobs fail with the reason.
#[test]
fn a_failing_initializer_breaks_the_pool() {
    let reasons: [fn() -> Result<(), String>; 2] =
        [|| Err("no licence".to_owned()), || panic!("no licence")];
    for initialize in reasons {
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = std::sync::Mutex::new(blocked);
        let pool = ThreadPool::builder()
            .max_workers(1)
            .initializer(move || {
                drop(blocked.lock().map(|blocked| blocked.recv()));
                initialize()
            })
            .build()
            .unwrap();
        let mut queued: Vec<_> = (0..5).map(|_| pool.submit(|| ())).collect();
        drop(release);
        for job in &mut queued {
            let error = job.result(LONG).unwrap_err();
            assert!(matches!(refusal(&error), Some(Refusal::Broken(_))), "{error:?}");
            assert!(whole(&error).contains("no licence"), "{error}");
        }
        let error = pool.try_submit(|| ()).unwrap_err();
        let SubmitError::Refused(why, _) = error else { panic!("{error:?}") };
        assert!(matches!(why, Refusal::Broken(_)), "{why:?}");
        let error = block_on(run_in_executor(&pool, || ())).unwrap_err();
        assert!(whole(&error).contains("no licence"), "{error}");
        assert!(pool.is_closed());
        super::clean(&pool.close_blocking(LONG));
    }
}
