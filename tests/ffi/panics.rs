//! Nothing unwinds into C.

use super::{Handler, Held, LONG, call, handler, run, slow};
use callbridge::ffi::{UserData, enter};
use std::ffi::{c_int, c_void};
use std::future::Future;
use std::pin::pin;
use std::ptr::null;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose: from a destructor");
    }
}

#[test]
fn a_panicking_destructor_left_to_a_call_doesnt_unwind_into_c_e11() {
    let slot: Arc<Mutex<Option<UserData<Handler>>>> = Arc::default();
    let (inner, bomb) = (Arc::clone(&slot), Bomb);
    let user_data = handler(move || {
        let _ = &bomb;
        drop(inner.lock().unwrap().take());
        4
    });
    let held = user_data.as_ptr();
    *slot.lock().unwrap() = Some(user_data);
    assert_eq!(call(held), 4);
}

#[test]
fn a_panic_gives_the_chosen_answer_and_is_told_to_the_hook_e13_e14_e16() {
    let told = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&told);
    let body: Handler = Box::new(|| panic!("on purpose: from a handler"));
    let user_data = UserData::with_panic_hook(body, move |_, message| {
        *heard.lock().unwrap() = message.to_owned();
        panic!("on purpose: from a panic hook");
    });
    assert_eq!(call(user_data.as_ptr()), -1);
    assert_eq!(*told.lock().unwrap(), "on purpose: from a handler");
    assert_eq!(user_data.stats().panicked, 1);
    user_data.unregister(Duration::ZERO).map(drop).unwrap();
}

/// Row b122 of `tests/PEERS.md`. rust-pcap: the library's loop stops, and its Rust caller goes on
/// with the panic if it likes.
#[test]
fn a_panic_stops_the_loop_of_a_library_by_its_own_word_for_stop() {
    type OnFrame = unsafe extern "C" fn(*mut c_void) -> c_int;
    fn library_loop(on_frame: OnFrame, user_data: *mut c_void) -> c_int {
        // SAFETY: any user data may come, and there is no other pointer.
        (1..100).find(|_| unsafe { on_frame(user_data) } < 0).unwrap_or(0)
    }
    let told = Arc::new(Mutex::new(None));
    let (heard, calls) = (Arc::clone(&told), AtomicU64::new(0));
    let body: Handler = Box::new(move || {
        assert_ne!(calls.fetch_add(1, SeqCst), 2, "the third frame");
        0
    });
    let user_data = UserData::with_panic_hook(body, move |_, message| {
        *heard.lock().unwrap() = Some(message.to_owned());
    });
    assert_eq!(library_loop(run, user_data.as_ptr()), 3);
    assert!(told.lock().unwrap().take().is_some_and(|message| message.contains("the third frame")));
}

#[test]
fn a_panic_payload_that_panics_when_dropped_stays_inside_e15() {
    let user_data = handler(|| std::panic::panic_any(Bomb));
    assert_eq!(call(user_data.as_ptr()), -1);
}

#[test]
fn a_destructor_that_panics_for_a_swallowed_call_stays_inside() {
    let bomb = Bomb;
    let swallowed = enter::<(), _>(null::<c_void>(), 1, 2, move |_, _| {
        let _ = &bomb;
        Ok(0)
    });
    assert_eq!(swallowed, 1);
    let (registration, bomb) = (UserData::new(()), Bomb);
    let mistyped = enter::<u8, _>(registration.as_ptr(), 1, 2, move |_, _| {
        let _ = &bomb;
        Ok(0)
    });
    assert_eq!(mistyped, 1);
}

struct BrokenWaker;

impl Wake for BrokenWaker {
    fn wake(self: Arc<Self>) {
        panic!("on purpose: from a waker");
    }
}

#[test]
fn a_waker_that_panics_stays_inside() {
    let (mut user_data, inside, leave) = slow();
    let held = Held::by_c(&user_data);
    let caller = thread::spawn(move || held.call());
    inside.recv_timeout(LONG).unwrap();
    let broken = Waker::from(Arc::new(BrokenWaker));
    let waiting = pin!(user_data.idle());
    assert!(waiting.poll(&mut Context::from_waker(&broken)).is_pending());
    leave.send(()).unwrap();
    assert_eq!(caller.join().unwrap(), 7);
}

#[cfg(feature = "tracing")]
mod subscriber {
    use super::*;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    struct Broken;

    impl Subscriber for Broken {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {
            panic!("on purpose: from a subscriber");
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn a_subscriber_that_panics_stays_inside() {
        let body: Handler = Box::new(|| panic!("on purpose: from a handler"));
        let hook = |_: &Handler, _: &str| panic!("on purpose: from a panic hook");
        let user_data = UserData::with_panic_hook(body, hook);
        let held = user_data.as_ptr();
        tracing::subscriber::with_default(Broken, || {
            assert_eq!(call(held), -1);
            assert!(user_data.shut());
            assert_eq!(call(held), -2);
        });
        assert_eq!((user_data.stats().panicked, user_data.stats().late), (1, 1));
    }
}
