//! What a C library may do to its callbacks: rows e46 and e47 of `tests/PEERS.md`.
#![allow(unsafe_code, reason = "calls C")]

use callbridge::ffi::{UnregisterError, UserData, in_callback, process_stats};
use callbridge_c_listener::{CListener, OnFrame};
use std::ffi::{c_int, c_void};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Command, ExitStatus, exit};
use std::ptr::null_mut;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

#[repr(C)]
struct Victim {
    _private: [u8; 0],
}

#[repr(C)]
struct RawListener {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn nasty_register(on_frame: OnFrame, user_data: *mut c_void);
    fn nasty_call_again();
    fn nasty_threads(on_frame: OnFrame, user_data: *mut c_void, threads: c_int, calls: c_int);
    fn nasty_arguments(on_frame: OnFrame, user_data: *mut c_void);
    fn nasty_call(on_frame: OnFrame, user_data: *mut c_void);
    fn nasty_at_exit(on_frame: OnFrame, user_data: *mut c_void) -> c_int;
    fn nasty_never_ends(on_frame: OnFrame, user_data: *mut c_void) -> c_int;
    fn nasty_victim_start(on_frame: OnFrame, user_data: *mut c_void) -> *mut Victim;
    fn nasty_victim_cancel(victim: *mut Victim);
    fn nasty_victim_join(victim: *mut Victim) -> c_int;
    fn c_listener_start(
        on_frame: OnFrame,
        user_data: *mut c_void,
        port: *mut u16,
    ) -> *mut RawListener;
    fn c_listener_stop(listener: *mut RawListener) -> c_int;
}

type Handler = Box<dyn Fn(&[u8]) + Send + Sync>;

callbridge::trampoline! {
    fn on_frame(data: *const u8, len: usize, user_data: *mut c_void);
    |handler: Handler = user_data, frame: &[u8] = bytes(data, len)| { handler(frame) }
}

fn handler(body: impl Fn(&[u8]) + Send + Sync + 'static) -> UserData<Handler> {
    UserData::new(Box::new(body))
}

/// Runs this test again in a process of its own; `None` in that process.
fn in_child(test: &str) -> Option<ExitStatus> {
    if std::env::var_os("NASTY_CHILD").is_some() {
        return None;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env("NASTY_CHILD", "1");
    Some(command.status().unwrap())
}

// SAFETY of every call of C below: `on_frame` has the signature of the header, and looks its user
// data up whenever it comes.

#[test]
fn calls_before_register_returns_and_after_unregister() {
    let frames = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&frames);
    let user_data = handler(move |frame| seen.lock().unwrap().push(frame.to_vec()));
    // SAFETY: see above.
    unsafe { nasty_register(on_frame, user_data.as_ptr()) };
    assert_eq!(*frames.lock().unwrap(), [b"nasty"]);
    user_data.unregister(Duration::ZERO).map(drop).unwrap();
    let late = process_stats().late;
    // SAFETY: see above.
    unsafe { nasty_call_again() };
    assert!(process_stats().late > late);
    assert_eq!(frames.lock().unwrap().len(), 1);
}

#[test]
fn calls_from_several_threads_at_once_while_unregistering() {
    let user_data = handler(|frame| assert_eq!(frame, b"nasty"));
    let held = user_data.as_ptr().addr();
    let callers = thread::spawn(move || {
        // SAFETY: see above.
        unsafe { nasty_threads(on_frame, std::ptr::without_provenance_mut(held), 4, 2000) };
    });
    while user_data.stats().calls < 100 {
        thread::yield_now();
    }
    user_data.unregister(LONG).map(drop).unwrap();
    callers.join().unwrap();
}

#[test]
fn calls_again_from_inside() {
    let slot: Arc<Mutex<Option<UserData<Handler>>>> = Arc::default();
    let inner = Arc::clone(&slot);
    let user_data = handler(move |_| {
        let user_data = inner.lock().unwrap().take();
        if let Some(user_data) = user_data {
            // SAFETY: see above.
            unsafe { nasty_call(on_frame, user_data.as_ptr()) };
            let refused = user_data.unregister(None).map(drop).unwrap_err();
            assert!(matches!(refused, UnregisterError::InCallback(_)));
            *inner.lock().unwrap() = Some(refused.into_inner());
        }
    });
    let held = user_data.as_ptr();
    *slot.lock().unwrap() = Some(user_data);
    // SAFETY: see above.
    unsafe { nasty_call(on_frame, held) };
    let user_data = slot.lock().unwrap().take().unwrap();
    assert_eq!((user_data.stats().calls, user_data.stats().panicked), (2, 0));
}

#[test]
fn calls_with_null_and_impossible_lengths() {
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&lengths);
    let user_data = handler(move |frame| seen.lock().unwrap().push(frame.len()));
    // SAFETY: the arguments that lie are refused before they are followed.
    unsafe { nasty_arguments(on_frame, user_data.as_ptr()) };
    assert_eq!(*lengths.lock().unwrap(), [0, 0]);
    assert_eq!(user_data.stats().bad_arguments, 3);
}

#[test]
fn a_panicking_handler_doesnt_reach_c() {
    let user_data = handler(|_| panic!("on purpose"));
    // SAFETY: see above.
    unsafe { nasty_threads(on_frame, user_data.as_ptr(), 2, 3) };
    assert_eq!(user_data.stats().panicked, 6);
}

#[test]
fn a_cancel_waits_until_the_handler_is_done() {
    if let Some(status) = in_child("a_cancel_waits_until_the_handler_is_done") {
        assert!(status.success(), "{status}");
        return;
    }
    let (tell_inside, inside) = channel();
    let (leave, told_to_leave) = channel::<()>();
    let told_to_leave = Mutex::new(told_to_leave);
    let done = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&done);
    let user_data = handler(move |_| {
        tell_inside.send(()).unwrap();
        told_to_leave.lock().unwrap().recv_timeout(LONG).unwrap();
        // A cancellation point: without the guard the thread would unwind from here.
        thread::sleep(Duration::from_millis(1));
        *seen.lock().unwrap() = true;
    });
    // SAFETY: see above; the victim is cancelled while it runs and joined once.
    unsafe {
        let victim = nasty_victim_start(on_frame, user_data.as_ptr());
        inside.recv_timeout(LONG).unwrap();
        nasty_victim_cancel(victim);
        leave.send(()).unwrap();
        assert_eq!(nasty_victim_join(victim), 1);
    }
    assert!(*done.lock().unwrap());
    user_data.unregister(Duration::ZERO).map(drop).unwrap();
}

#[test]
fn calls_while_the_process_exits() {
    if let Some(status) = in_child("calls_while_the_process_exits") {
        assert_eq!(status.code(), Some(42), "{status}");
        return;
    }
    let user_data = handler(|_| assert!(in_callback()));
    // SAFETY: see above.
    unsafe {
        assert_eq!(nasty_at_exit(on_frame, user_data.as_ptr()), 0);
        assert_eq!(nasty_never_ends(on_frame, user_data.as_ptr()), 0);
    }
    while user_data.stats().calls < 100 {
        thread::yield_now();
    }
    drop(user_data);
    exit(42);
}

#[test]
fn stop_from_inside_the_callback_is_refused_and_done_outside() {
    let (sender, mut frames) = callbridge::channel(8);
    let listener = CListener::start(sender).unwrap();
    let port = listener.port();
    let slot = Arc::new(Mutex::new(Some(listener)));
    let (tell, told) = channel();
    let inner = Arc::clone(&slot);
    let user_data = handler(move |_| {
        let listener = inner.lock().unwrap().take().unwrap();
        tell.send(listener.stop(LONG).is_err()).unwrap();
    });
    // SAFETY: see above.
    unsafe { nasty_call(on_frame, user_data.as_ptr()) };
    assert_eq!(told.recv_timeout(LONG), Ok(true));
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.send_to(b"late", (Ipv4Addr::LOCALHOST, port)).unwrap();
    assert!(frames.recv_blocking(LONG).is_err(), "the stream has ended");
}

#[test]
fn stop_on_the_librarys_own_thread_is_a_deadlock_that_c_reports_and_the_guard_refuses() {
    struct Own {
        listener: AtomicPtr<RawListener>,
        user_data: Mutex<Option<UserData<Handler>>>,
    }
    let own = Arc::new(Own { listener: AtomicPtr::new(null_mut()), user_data: Mutex::new(None) });
    let (tell, told) = channel();
    let inner = Arc::clone(&own);
    let user_data = handler(move |_| {
        // SAFETY: the listener lives until the test stops it, after this call.
        let failed = unsafe { c_listener_stop(inner.listener.load(Acquire)) };
        let user_data = inner.user_data.lock().unwrap().take().unwrap();
        let refused = user_data.unregister(None).map(drop).unwrap_err();
        let c_says = io::Error::from_raw_os_error(failed).kind();
        tell.send((c_says, matches!(refused, UnregisterError::InCallback(_)))).unwrap();
        *inner.user_data.lock().unwrap() = Some(refused.into_inner());
    });
    let mut port = 0;
    // SAFETY: see above; `port` outlives the call.
    let listener = unsafe { c_listener_start(on_frame, user_data.as_ptr(), &raw mut port) };
    assert!(!listener.is_null());
    own.listener.store(listener, Release);
    *own.user_data.lock().unwrap() = Some(user_data);
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.send_to(b"stop", (Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_eq!(told.recv_timeout(LONG), Ok((io::ErrorKind::Deadlock, true)));
    // SAFETY: the listener is alive, and C gets it for the last time.
    assert_eq!(unsafe { c_listener_stop(listener) }, 0);
    let user_data = own.user_data.lock().unwrap().take().unwrap();
    assert_eq!(user_data.stats().calls, 1);
    user_data.unregister(Duration::ZERO).map(drop).unwrap();
}

#[test]
fn frames_arrive_and_stop_and_kill_join_the_thread() {
    for kill in [false, true] {
        let (sender, mut frames) = callbridge::channel(8);
        let listener = CListener::start(sender).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for frame in [&b"one"[..], b""] {
            socket.send_to(frame, (Ipv4Addr::LOCALHOST, listener.port())).unwrap();
            assert_eq!(frames.recv_blocking(LONG).unwrap(), frame);
        }
        let stats = if kill { listener.kill(LONG) } else { listener.stop(LONG) }.unwrap();
        assert_eq!((stats.calls, stats.late), (2, 0));
        assert!(frames.recv_blocking(LONG).is_err());
    }
}
