//! The order in which a library is stopped that has a stream and wants answers: `docs/WRAPPING.md`, step 9.

use super::{Held, LONG, handler};
use callbridge::Bridge;
use std::future::pending;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tokio::runtime::Builder;

/// One of the library's threads is in a full stream, one waits for an answer that doesn't come, and each has a buffer.
#[test]
fn a_library_with_a_stream_and_answers_is_stopped_in_the_order_of_the_guide() {
    let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let bridge = Bridge::new(runtime.handle().clone());
    let (sender, frames) = callbridge::channel(1);
    let (frame, asked, lent) = (sender.clone(), bridge.clone(), Arc::new(AtomicU64::new(2)));
    let stream = handler(move || frame.send(()).is_err().into());
    let questions = handler(move || asked.call(pending::<()>(), None).is_err().into());
    let table = Arc::clone(&lent);
    let completions = handler(move || table.fetch_sub(1, SeqCst) as i32);
    let [on_frame, on_question, on_done] = [&stream, &questions, &completions].map(Held::by_c);

    let library = [on_frame, on_question].map(|callback| {
        let (stop, stopped) = mpsc::channel::<()>();
        let run = move || {
            while callback.call() == 0 {}
            let _asked = stopped.recv();
            (callback.call(), on_done.call())
        };
        (stop, thread::spawn(run))
    });
    while frames.stats().waiting == 0 || bridge.in_flight() == 0 {
        thread::yield_now();
    }

    drop(bridge.close_blocking(Duration::from_millis(10)));
    sender.close();
    assert!(stream.shut());
    let [on_stream, on_questions] = library.map(|(stop, thread)| {
        drop(stop);
        thread.join().unwrap()
    });
    assert_eq!((on_stream.0, on_questions.0), (-2, 1), "swallowed, refused");
    let ends = [stream, questions, completions].map(|end| end.unregister(LONG).unwrap().1.late);
    assert_eq!((ends, lent.load(SeqCst)), ([1, 0, 0], 0), "both completions came in");
}
