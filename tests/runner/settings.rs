//! Settings that can't be.

use crate::common::whole;
use callbridge::ThreadRunner;
use callbridge::runner::StartError;

#[test]
fn a_setting_that_cannot_be_is_the_builders_error_and_named_in_it() {
    let wrong = [
        (ThreadRunner::builder().worker_threads(0), "worker_threads(0)"),
        (ThreadRunner::builder().max_in_flight(0), "max_in_flight(0)"),
        (ThreadRunner::builder().name("a\0b"), "name(..)"),
    ];
    for (builder, named) in wrong {
        let error: StartError = builder.build().unwrap_err();
        assert!(whole(&error).contains(named), "{}", whole(&error));
    }
}
