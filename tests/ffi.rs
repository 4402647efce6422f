//! Callbacks from C, without a C compiler: the tests call the extern functions themselves. The
//! numbers e1 to e47 are the rows of the table in the docs of `callbridge::ffi`.
#![allow(unsafe_code, reason = "plays the part of C")]

use callbridge::ffi::{
    BadArgument, Busy, Exclusive, HEADER_BYTES, InCallback, UnregisterError, UserData, bytes,
    c_str, in_callback, process_stats, reference,
};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut, without_provenance_mut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender as Tell, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// A handler that the test writes anew each time.
type Handler = Box<dyn Fn() -> c_int + Send + Sync>;

callbridge::trampoline! {
    fn run(user_data: *mut c_void) -> c_int;
    |handler: Handler = user_data| { handler() }
    panicked -1, swallowed -2
}

callbridge::trampoline! {
    fn frame_first(data: *const u8, len: c_int, user_data: *mut c_void, flags: u32) -> c_int;
    |seen: Mutex<Vec<Vec<u8>>> = user_data, frame: &[u8] = bytes(data, len), flags: u32 = value(flags)| {
        seen.lock().unwrap().push(frame.to_vec());
        flags as c_int
    }
    panicked -1, swallowed -2
}

fn call(user_data: *mut c_void) -> c_int {
    // SAFETY: any user data may come, and there is no other pointer.
    unsafe { run(user_data) }
}

fn handler(body: impl Fn() -> c_int + Send + Sync + 'static) -> UserData<Handler> {
    UserData::new(Box::new(body))
}

/// A raw pointer for another thread.
#[derive(Clone, Copy)]
struct Held(usize);

impl Held {
    fn by_c<T: Send + Sync>(user_data: &UserData<T>) -> Self {
        Held(user_data.as_ptr().addr())
    }

    fn call(self) -> c_int {
        call(without_provenance_mut(self.0))
    }
}

/// A handler that says when it is inside, and leaves when told.
fn slow() -> (UserData<Handler>, Receiver<()>, Tell<()>) {
    let (tell_inside, inside) = channel();
    let (leave, told_to_leave) = channel();
    let told_to_leave = Mutex::new(told_to_leave);
    let user_data = handler(move || {
        tell_inside.send(()).unwrap();
        told_to_leave.lock().unwrap().recv_timeout(LONG).unwrap();
        7
    });
    (user_data, inside, leave)
}

struct TellsDrop(Arc<AtomicU64>);

impl Drop for TellsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn the_pointer_is_thin_not_null_and_survives_a_move_of_the_guard_e1_e2_e6() {
    let user_data = handler(|| 3);
    let held = user_data.as_ptr();
    let moved = Box::new(user_data);
    assert!(!held.is_null());
    assert_eq!(moved.as_ptr(), held);
    assert_eq!(call(held), 3);
    assert_eq!(call(held), 3, "borrowed for each call, not consumed (e4)");
}

#[test]
fn a_dropped_guard_frees_the_value_once_as_after_a_failed_registration_e3() {
    let drops = Arc::new(AtomicU64::new(0));
    let user_data = UserData::new(TellsDrop(Arc::clone(&drops)));
    drop(user_data);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn a_call_may_come_before_the_guard_is_handed_over_e10() {
    let user_data = handler(|| 5);
    let held = Held::by_c(&user_data);
    assert_eq!(thread::spawn(move || held.call()).join().unwrap(), 5);
    assert_eq!(user_data.stats().calls, 1);
}

#[test]
fn a_shut_gate_swallows_and_counts_e35() {
    let user_data = handler(|| 5);
    let held = user_data.as_ptr();
    assert!(user_data.shut());
    assert!(!user_data.shut(), "twice is once (e36)");
    assert_eq!(call(held), -2);
    assert_eq!((user_data.stats().late, user_data.stats().calls), (1, 0));
}

#[test]
fn late_calls_are_swallowed_after_the_value_is_freed_and_its_place_used_again_e12() {
    let old = handler(|| panic!("a stale pointer reached the next registration"));
    let held = old.as_ptr();
    drop(old);
    // Each of these may get the freed place; none may get the old calls.
    for round in 0..100 {
        let next = handler(move || round);
        let late = process_stats().late;
        assert_eq!(call(held), -2);
        assert!(process_stats().late > late);
        assert_ne!(next.as_ptr(), held);
        assert_eq!(call(next.as_ptr()), round);
        assert_eq!(next.stats().late, 0);
    }
}

#[test]
fn null_invented_and_mistyped_user_data_is_swallowed_and_counted_e6_e40() {
    let before = process_stats();
    assert_eq!(call(null_mut()), -2);
    assert_eq!(call(without_provenance_mut(usize::MAX)), -2);
    assert_eq!(call(without_provenance_mut(1)), -2);
    let other = UserData::new(String::from("not a handler"));
    assert_eq!(call(other.as_ptr()), -2);
    let after = process_stats();
    assert!(after.null > before.null);
    assert!(after.unknown >= before.unknown + 3);
}

#[test]
fn unregister_waits_for_the_call_inside_and_gives_the_value_back_e8() {
    let (user_data, inside, leave) = slow();
    let held = Held::by_c(&user_data);
    let caller = thread::spawn(move || held.call());
    inside.recv_timeout(LONG).unwrap();
    let refused = user_data.unregister(Duration::ZERO);
    let user_data = match refused {
        Err(UnregisterError::TimedOut(user_data)) => user_data,
        other => panic!("a call is inside, and yet {:?}", other.map(|_| ())),
    };
    assert_eq!((user_data.stats().inside, user_data.is_shut()), (1, true));
    let waiter = thread::spawn(move || user_data.unregister(LONG).map(drop));
    leave.send(()).unwrap();
    assert_eq!(caller.join().unwrap(), 7);
    waiter.join().unwrap().unwrap();
}

#[test]
fn unregister_inside_its_own_callback_only_asks_e28() {
    let slot: Arc<Mutex<Option<UserData<Handler>>>> = Arc::default();
    let inner = Arc::clone(&slot);
    let user_data = handler(move || {
        let user_data = inner.lock().unwrap().take().unwrap();
        let refused = user_data.unregister(None).map(drop).unwrap_err();
        let asked = matches!(refused, UnregisterError::InCallback(_));
        let user_data = refused.into_inner();
        assert!(user_data.is_shut());
        *inner.lock().unwrap() = Some(user_data);
        c_int::from(asked)
    });
    let held = user_data.as_ptr();
    *slot.lock().unwrap() = Some(user_data);
    assert_eq!(call(held), 1);
    let user_data = slot.lock().unwrap().take().unwrap();
    user_data.unregister(Duration::ZERO).map(drop).unwrap();
}

#[test]
fn unregister_of_another_registration_inside_a_callback_is_done_e28() {
    let other = Mutex::new(Some(handler(|| 0)));
    let user_data = handler(move || {
        let other = other.lock().unwrap().take().unwrap();
        c_int::from(other.unregister(LONG).is_ok())
    });
    assert_eq!(call(user_data.as_ptr()), 1);
}

#[test]
fn unregister_doesnt_block_an_event_loop_e21_e38() {
    let (user_data, inside, leave) = slow();
    let held = Held::by_c(&user_data);
    let caller = thread::spawn(move || held.call());
    inside.recv_timeout(LONG).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut user_data = runtime.block_on(async {
        let refused = user_data.unregister(LONG).map(drop).unwrap_err();
        assert!(matches!(refused, UnregisterError::WouldDeadlock(_)));
        refused.into_inner()
    });
    runtime.block_on(async {
        let waiting = std::pin::pin!(user_data.idle());
        let mut waiting = waiting;
        let first = std::future::poll_fn(|context| {
            std::task::Poll::Ready(waiting.as_mut().poll(context).is_pending())
        });
        assert!(first.await);
        leave.send(()).unwrap();
        waiting.await.unwrap();
    });
    user_data.unregister(Duration::ZERO).map(drop).unwrap();
    assert_eq!(caller.join().unwrap(), 7);
}

#[test]
fn idle_polled_inside_its_own_callback_only_asks_e28() {
    let slot: Arc<Mutex<Option<UserData<Handler>>>> = Arc::default();
    let inner = Arc::clone(&slot);
    let user_data = handler(move || {
        let mut user_data = inner.lock().unwrap().take().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        c_int::from(runtime.block_on(user_data.idle()) == Err(InCallback))
    });
    let held = user_data.as_ptr();
    *slot.lock().unwrap() = Some(user_data);
    assert_eq!(call(held), 1);
}

#[test]
fn drop_never_waits_and_leaves_the_value_to_the_last_call_e30_e34() {
    let drops = Arc::new(AtomicU64::new(0));
    let (tell_inside, inside) = channel();
    let (leave, told_to_leave) = channel::<()>();
    let told_to_leave = Mutex::new(told_to_leave);
    let value = TellsDrop(Arc::clone(&drops));
    let user_data = handler(move || {
        let _ = &value;
        tell_inside.send(()).unwrap();
        told_to_leave.lock().unwrap().recv_timeout(LONG).unwrap();
        9
    });
    let held = Held::by_c(&user_data);
    let caller = thread::spawn(move || held.call());
    inside.recv_timeout(LONG).unwrap();
    let orphaned = process_stats().orphaned;
    drop(user_data);
    assert!(process_stats().orphaned > orphaned);
    assert_eq!(drops.load(SeqCst), 0, "a call is still inside");
    assert_eq!(held.call(), -2);
    leave.send(()).unwrap();
    assert_eq!(caller.join().unwrap(), 9);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn drop_inside_the_callback_frees_at_the_outermost_exit_e8_e30() {
    let drops = Arc::new(AtomicU64::new(0));
    let slot: Arc<Mutex<Option<UserData<Handler>>>> = Arc::default();
    let (inner, value) = (Arc::clone(&slot), TellsDrop(Arc::clone(&drops)));
    let depth = AtomicU64::new(0);
    let seen = Arc::clone(&drops);
    let user_data = handler(move || {
        let _ = &value;
        if depth.fetch_add(1, SeqCst) == 0 {
            let held = Held::by_c(inner.lock().unwrap().as_ref().unwrap());
            let answer = held.call();
            assert_eq!(seen.load(SeqCst), 0, "the outer call is still inside");
            answer
        } else {
            drop(inner.lock().unwrap().take());
            11
        }
    });
    let held = user_data.as_ptr();
    *slot.lock().unwrap() = Some(user_data);
    assert_eq!(call(held), 11);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn a_panicking_destructor_left_to_a_call_doesnt_unwind_into_c_e11() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose: from a destructor");
        }
    }
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
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose: from a payload");
        }
    }
    let user_data = handler(|| std::panic::panic_any(Bomb));
    assert_eq!(call(user_data.as_ptr()), -1);
}

#[test]
fn in_callback_is_true_inside_at_any_depth_and_after_a_panic_no_more_e28() {
    let inner = handler(|| c_int::from(in_callback()));
    let held = Held::by_c(&inner);
    let outer = handler(move || held.call() + c_int::from(in_callback()));
    assert_eq!(call(outer.as_ptr()), 2);
    let panics = handler(|| panic!("on purpose: the mark goes too"));
    assert_eq!(call(panics.as_ptr()), -1);
    assert!(!in_callback());
}

#[test]
fn re_entry_deeper_than_remembered_counts_as_inside_e28() {
    let slot: Arc<Mutex<Option<UserData<Handler>>>> = Arc::default();
    let (inner, asked) = (Arc::clone(&slot), Arc::new(AtomicBool::new(false)));
    let (depth, saw) = (AtomicU64::new(0), Arc::clone(&asked));
    let filler = handler(|| 0);
    let filler = Held::by_c(&filler);
    let user_data = handler(move || {
        filler.call();
        if depth.fetch_add(1, SeqCst) < 20 {
            let held = Held::by_c(inner.lock().unwrap().as_ref().unwrap());
            return held.call();
        }
        let user_data = inner.lock().unwrap().take().unwrap();
        saw.store(user_data.unregister(LONG).is_err(), SeqCst);
        1
    });
    let held = user_data.as_ptr();
    *slot.lock().unwrap() = Some(user_data);
    assert_eq!(call(held), 1);
    assert!(asked.load(SeqCst));
}

#[test]
fn several_threads_are_inside_at_once_e7() {
    let together = Arc::new(std::sync::Barrier::new(4));
    let meet = Arc::clone(&together);
    let user_data = handler(move || {
        meet.wait();
        1
    });
    let held = Held::by_c(&user_data);
    let callers: Vec<_> = (0..4).map(|_| thread::spawn(move || held.call())).collect();
    assert!(callers.into_iter().all(|caller| caller.join().unwrap() == 1));
    assert_eq!(user_data.stats().calls, 4);
}

#[test]
fn an_exclusive_handler_refuses_re_entry_without_waiting_e7() {
    let count = Exclusive::new(0);
    let nested = count.try_with(|count_now| {
        *count_now += 1;
        count.try_with(|_| ())
    });
    assert_eq!(nested, Ok(Err(Busy)));
    assert_eq!(count.into_inner(), 1);
}

#[test]
fn pointer_and_length_are_checked_before_they_are_followed_e40() {
    let dangling: *const u8 = without_provenance_mut(8);
    // SAFETY: what would be followed is valid; the rest must be refused.
    unsafe {
        assert_eq!(bytes(b"abc".as_ptr(), 3u32), Ok(&b"abc"[..]));
        assert_eq!(bytes(null::<u8>(), 0), Ok(&[][..]));
        assert_eq!(bytes(dangling, 0), Ok(&[][..]));
        assert_eq!(bytes(null::<c_void>(), 1), Err(BadArgument::Null));
        assert_eq!(bytes(dangling, -1), Err(BadArgument::Length));
        assert_eq!(bytes(dangling, isize::MAX as usize + 1), Err(BadArgument::Length));
        assert_eq!(bytes(dangling, u128::MAX), Err(BadArgument::Length));
        assert_eq!(c_str(null()), Err(BadArgument::Null));
        assert_eq!(c_str(c"\xff".as_ptr()).map(CStr::to_bytes), Ok(&b"\xff"[..]));
        assert_eq!(reference::<u32>(null()), Err(BadArgument::Null));
        assert_eq!(reference::<u32>(without_provenance_mut(3)), Err(BadArgument::Misaligned));
        assert_eq!(reference(&5u32), Ok(&5));
    }
}

#[test]
fn a_call_with_bad_arguments_is_swallowed_and_counted_e40() {
    let user_data = UserData::new(Mutex::new(Vec::<Vec<u8>>::new()));
    let held = user_data.as_ptr();
    // SAFETY: what would be followed is valid; the rest must be refused.
    unsafe {
        assert_eq!(frame_first(b"abc".as_ptr(), 3, held, 40), 40);
        assert_eq!(frame_first(null(), 0, held, 41), 41);
        assert_eq!(frame_first(null(), 1, held, 42), -2);
        assert_eq!(frame_first(b"abc".as_ptr(), -3, held, 43), -2);
    }
    assert_eq!((user_data.stats().calls, user_data.stats().bad_arguments), (4, 2));
    let seen = user_data.unregister(Duration::ZERO).unwrap().into_inner().unwrap();
    assert_eq!(seen, [b"abc".to_vec(), Vec::new()]);
}

#[test]
fn the_user_data_may_stand_anywhere_and_text_is_bytes_e41_e42() {
    callbridge::trampoline! {
        fn on_text(level: c_int, user_data: *mut c_void, text: *const c_char);
        |seen: Mutex<Vec<(c_int, Vec<u8>)>> = user_data,
            text: &std::ffi::CStr = c_str(text), level: c_int = value(level)| {
            seen.lock().unwrap().push((level, text.to_bytes().to_vec()));
        }
    }
    let user_data = UserData::new(Mutex::new(Vec::<(c_int, Vec<u8>)>::new()));
    // SAFETY: the text ends with a NUL, or is NULL.
    unsafe {
        on_text(99, user_data.as_ptr(), c"caf\xe9".as_ptr());
        on_text(99, user_data.as_ptr(), null());
    }
    assert_eq!(*user_data.get().lock().unwrap(), [(99, b"caf\xe9".to_vec())]);
    assert_eq!(user_data.stats().bad_arguments, 1);
}

#[test]
fn a_sender_takes_the_frames_and_its_policy_decides_e27_e39() {
    callbridge::trampoline! {
        fn on_frame(user_data: *mut c_void, data: *const u8, len: usize) -> c_int;
        |sender: callbridge::Sender<Vec<u8>> = user_data, frame: &[u8] = bytes(data, len)| {
            c_int::from(sender.try_send(frame.to_vec()).is_err())
        }
        panicked 1, swallowed 0
    }
    let (sender, mut frames) = callbridge::channel(1);
    let user_data = UserData::new(sender);
    // SAFETY: the pointer and the length are those of one slice.
    let answers = [b"a", b"b"].map(|one| unsafe { on_frame(user_data.as_ptr(), one.as_ptr(), 1) });
    assert_eq!(answers, [0, 1]);
    assert_eq!(frames.try_recv(), Ok(b"a".to_vec()));
    drop(user_data);
    assert!(frames.try_recv().is_err_and(|end| end != callbridge::TryRecvError::Empty));
}

#[test]
fn what_stays_of_a_registration_is_small_and_used_again() {
    const { assert!(HEADER_BYTES <= 64) };
    // Far more in turn than places at once; each must find one.
    for round in 0..100_000 {
        let user_data = handler(move || round);
        assert_eq!(call(user_data.as_ptr()), round);
    }
    let many: Vec<_> = (0..1000).map(|n| handler(move || n)).collect();
    for (n, user_data) in many.iter().enumerate() {
        assert_eq!(call(user_data.as_ptr()), n as c_int);
    }
}

#[test]
fn calls_during_thread_exit_are_served_e22() {
    struct AtExit(std::cell::Cell<Option<Held>>, Tell<c_int>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            self.1.send(self.0.get().unwrap().call()).unwrap();
        }
    }
    std::thread_local! {
        static AT_EXIT: std::cell::RefCell<Option<AtExit>> = const { std::cell::RefCell::new(None) };
    }
    let user_data = handler(|| 6);
    let held = Held::by_c(&user_data);
    let (tell, told) = channel();
    let thread = thread::spawn(move || {
        AT_EXIT.with(|at_exit| {
            *at_exit.borrow_mut() = Some(AtExit(std::cell::Cell::new(Some(held)), tell));
        });
    });
    thread.join().unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok(6));
}
