//! The system refuses threads. Limits hold for a process, so the test runs its body in a child of its own:
//! this binary, started again for the one test.

use crate::child::in_a_child;
use crate::common::LONG;
use crate::limited::without_threads;
use callbridge::listener::{Listener, UdpSource};
use callbridge::{DedicatedThread, ResultError, ThreadPool, ThreadRunner};

#[test]
fn a_thread_that_cant_be_started_is_an_error_and_the_next_one_starts() {
    in_a_child("limits::a_thread_that_cant_be_started_is_an_error_and_the_next_one_starts", || {
        let pool = ThreadPool::builder().max_workers(1).build().unwrap();
        let (runner, lease) = (ThreadRunner::new(), ThreadRunner::shared());
        let started = ThreadRunner::new();
        started.bridge().unwrap();
        without_threads(|| {
            let source = UdpSource::bind("127.0.0.1:0").unwrap();
            let error = Listener::builder(source).spawn().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");

            let error = pool.submit(|| ()).result(LONG).unwrap_err();
            assert!(matches!(error, ResultError::Refused(_)), "{error}");

            for runner in [&runner, &*lease] {
                let error = runner.run(async {}).unwrap_err();
                assert!(matches!(error, ResultError::Refused(_)), "{error}");
            }

            let error = DedicatedThread::spawn(|| Ok::<_, String>(1)).result(LONG).unwrap_err();
            assert!(matches!(error, ResultError::Refused(_)), "{error}");

            // A close needs no thread to wait by.
            let report = started.close(LONG);
            assert!(report.is_clean(), "{report}");
        });
        assert_eq!(pool.submit(|| 1).result(LONG).unwrap(), 1);
        assert_eq!(runner.run(async { 2 }).unwrap(), 2);
        assert_eq!(lease.run(async { 2 }).unwrap(), 2);
        assert_eq!(ThreadRunner::shared().run(async { 2 }).unwrap(), 2);
        let _ = DedicatedThread::spawn(|| Ok::<_, String>(3)).result(LONG).unwrap();
    });
}
