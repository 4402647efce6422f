//! What the feature `testing` gives to tests of other crates.
#![cfg(feature = "testing")]

use callbridge::testing::ForeignThread;
use callbridge::{Bridge, ResultError};
use std::sync::mpsc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_foreign_thread_takes_its_steps_in_order_and_outlives_a_panic() {
    let library = ForeignThread::spawn("library").unwrap();
    let (tell, told) = mpsc::channel();
    let again = tell.clone();
    let mut first = library.start(move || {
        tell.send(1).unwrap();
        std::thread::current().name().map(str::to_owned)
    });
    let mut broken = library.start(|| -> u32 { panic!("a bug in the library") });
    let mut last = library.start(move || {
        again.send(2).unwrap();
        Bridge::try_current().is_err()
    });
    drop(library);
    assert!(last.result(LONG).unwrap(), "no event loop drives it");
    assert_eq!(first.result(LONG).unwrap().as_deref(), Some("library"));
    assert!(matches!(broken.result(LONG), Err(ResultError::Panicked(_))));
    assert_eq!(told.iter().collect::<Vec<_>>(), [1, 2]);
}
