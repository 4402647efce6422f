//! Names and settings of a bridge.

use crate::common::{LONG, Loop, SHORT};
use callbridge::{Bridge, ResultError};
use std::future::pending;
use std::time::Duration;

/// A name that came from C, NUL byte included: the bridge closes all the same, in both forms. With a
/// deadline the awaited form starts a thread of that name.
#[test]
fn a_nul_in_a_name_ends_the_name_and_nothing_else() {
    for (given, name) in [("/dev/tty\0", "/dev/tty"), ("a\0b", "a"), ("\0", ""), ("plain", "plain")]
    {
        for awaited in [true, false] {
            let runtime = Loop::multi(1);
            let bridge = Bridge::builder(runtime.handle()).name(given).build();
            assert_eq!(bridge.name(), name);
            let mut call = bridge.run_coroutine_threadsafe(pending::<()>());
            let report = if awaited {
                let bridge = bridge.clone();
                let (told, hear) = std::sync::mpsc::channel();
                runtime.handle().spawn(async move { told.send(bridge.close(SHORT).await) });
                hear.recv_timeout(LONG).unwrap()
            } else {
                bridge.close_blocking(SHORT)
            };
            assert_eq!((report.cancelled, report.in_flight), (1, 0), "{given:?}: {report}");
            assert!(matches!(call.result(LONG), Err(ResultError::LoopClosed)));
        }
    }
}

#[test]
fn a_bridge_that_may_not_spin_answers_as_well() {
    for runtime in Loop::both() {
        let bridge = Bridge::builder(runtime.handle()).spin_before_park(false).build();
        for n in 0..100 {
            assert_eq!(bridge.run_coroutine_threadsafe(async move { n }).result(LONG).unwrap(), n);
            assert_eq!(bridge.call(async { n }, LONG).unwrap(), n);
        }
        assert!(bridge.close_blocking(Duration::MAX).is_clean(), "MAX is for ever");
    }
}
