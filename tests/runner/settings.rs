//! Settings that can't be.

use callbridge::ThreadRunner;

#[test]
fn a_setting_that_cannot_be_is_the_builders_error_and_named_in_it() {
    let wrong = [
        (ThreadRunner::builder().worker_threads(0), "worker_threads"),
        (ThreadRunner::builder().max_in_flight(0), "max_in_flight"),
        (ThreadRunner::builder().name("a\0b"), "name"),
    ];
    for (builder, named) in wrong {
        assert_eq!(builder.build().unwrap_err().setting(), named);
    }
}
