//! Names and settings of a bridge.

use crate::common::{LONG, Loop};
use callbridge::Bridge;
use std::time::Duration;

/// b28: a limit of zero, and a name that came from C with its NUL byte.
#[test]
fn a_setting_that_cannot_be_is_refused_and_named() {
    let runtime = Loop::multi(1);
    let builder = || Bridge::builder(runtime.handle());
    for (refused, setting) in [
        (builder().max_in_flight(0), "max_in_flight"),
        (builder().name("a\0b"), "name"),
        (builder().name("/dev/tty\0"), "name"),
    ] {
        assert_eq!(refused.build().unwrap_err().setting(), setting);
    }
    assert_eq!(builder().name("/dev/tty").build().unwrap().name(), "/dev/tty");
    let alarmed = |millis| builder().stall_after(Duration::from_millis(millis), |_| ()).build();
    assert_eq!(alarmed(9).unwrap_err().setting(), "stall_after");
    assert!(alarmed(10).is_ok());
}

#[test]
fn a_bridge_that_may_not_spin_answers_as_well() {
    for runtime in Loop::both() {
        let bridge = Bridge::builder(runtime.handle()).spin_before_park(false).build().unwrap();
        for n in 0..100 {
            assert_eq!(bridge.run_coroutine_threadsafe(async move { n }).result(LONG).unwrap(), n);
            assert_eq!(bridge.call(async { n }, LONG).unwrap(), n);
        }
        assert!(bridge.close_blocking(Duration::MAX).is_clean(), "MAX is for ever");
    }
}
