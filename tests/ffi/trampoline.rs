//! The macro: any names, any signature.

use callbridge::ffi::UserData;
use callbridge::trampoline;
use std::ffi::{c_char, c_int, c_uchar, c_void};
use std::marker::PhantomData;
use std::ptr::null;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};

#[test]
fn the_user_data_may_stand_anywhere_and_text_is_bytes_e41_e42() {
    trampoline! {
        fn on_text(level: c_int, user_data: *mut c_void, text: *const c_char);
        |seen: Mutex<Vec<(c_int, Vec<u8>)>> = user_data,
            text: &std::ffi::CStr = c_str(text)| {
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
    trampoline! {
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
    assert!(frames.try_recv().is_err_and(|end| end != callbridge::channel::RecvError::Empty));
}

/// The user's own, with the name that anybody would give it.
fn handle(flag: &AtomicBool) {
    flag.store(true, SeqCst);
}

#[test]
fn a_handler_may_call_a_function_named_handle() {
    trampoline! {
        fn calls_handle(user_data: *mut c_void);
        |flag: AtomicBool = user_data| { handle(flag) }
    }
    let flag = UserData::new(AtomicBool::new(false));
    // SAFETY: any user data may come, and there is no other pointer.
    unsafe { calls_handle(flag.as_ptr()) };
    assert!(flag.get().load(SeqCst));
}

#[test]
fn constants_and_arguments_may_have_any_name() {
    const PANICKED: c_int = 10;
    const SWALLOWED: c_int = 11;
    trampoline! {
        fn answer(call: c_int, why: *const u8, handler: usize, body: *mut c_void) -> c_int;
        |held: AtomicBool = body, bytes: &[u8] = bytes(why, handler)| {
            assert!(!held.load(SeqCst), "on purpose");
            call + bytes.len() as c_int
        }
        panicked PANICKED, swallowed SWALLOWED
    }
    let flag = UserData::new(AtomicBool::new(false));
    // SAFETY: the pointers are NULL or lead to as many bytes as said.
    unsafe {
        assert_eq!(answer(5, b"ab".as_ptr(), 2, flag.as_ptr()), 7);
        assert_eq!(answer(5, null(), 2, flag.as_ptr()), SWALLOWED);
        flag.get().store(true, SeqCst);
        assert_eq!(answer(5, b"ab".as_ptr(), 2, flag.as_ptr()), PANICKED);
    }
}

#[test]
fn a_handler_may_return_early() {
    trampoline! {
        fn early(n: c_int, user_data: *mut c_void) -> c_int;
        |_nothing: () = user_data| {
            if n > 5 {
                return 1;
            }
            0
        }
        panicked -1, swallowed -1
    }
    let user_data = UserData::new(());
    // SAFETY: any user data may come, and there is no other pointer.
    assert_eq!([3, 7].map(|n| unsafe { early(n, user_data.as_ptr()) }), [0, 1]);
}

#[derive(Clone, Copy)]
#[repr(C)]
union Value {
    number: c_int,
    pointer: *mut c_void,
}

#[repr(C)]
struct Transfer {
    status: c_int,
    user: *mut c_void,
}

#[test]
fn the_user_data_may_be_of_any_type_of_real_headers() {
    trampoline! {
        fn u_char(user: *mut c_uchar) -> c_int;
        |answer: c_int = user| { *answer }
        panicked -1, swallowed -2
    }
    trampoline! {
        fn constant(user: *const c_void) -> c_int;
        |answer: c_int = user| { *answer }
        panicked -1, swallowed -2
    }
    trampoline! {
        fn uintptr_t(user: usize) -> c_int;
        |answer: c_int = user| { *answer }
        panicked -1, swallowed -2
    }
    trampoline! {
        fn intptr_t(user: isize) -> c_int;
        |answer: c_int = user| { *answer }
        panicked -1, swallowed -2
    }
    trampoline! {
        fn in_a_union(value: Value) -> c_int;
        // SAFETY: it was registered with the pointer.
        |answer: c_int = (unsafe { value.pointer })| { *answer }
        panicked -1, swallowed -2
    }
    trampoline! {
        fn in_a_struct(transfer: *mut Transfer) -> c_int;
        // SAFETY: the library's own transfer, alive until the callback returns.
        |answer: c_int = (unsafe { (*transfer).user })| { *answer }
        panicked -1, swallowed -2
    }
    trampoline! {
        extern "system" fn windows(user: *mut c_void) -> c_int;
        |answer: c_int = user| { *answer }
        panicked -1, swallowed -2
    }
    let user_data = UserData::new(7);
    let pointer = user_data.as_ptr();
    // SAFETY: any user data may come; the struct is one.
    unsafe {
        let called: unsafe extern "system" fn(*mut c_void) -> c_int = windows;
        assert_eq!(called(pointer), 7);
        assert_eq!(u_char(pointer.cast()), 7);
        assert_eq!(constant(pointer), 7);
        assert_eq!(uintptr_t(pointer.addr()), 7);
        assert_eq!(intptr_t(pointer.addr() as isize), 7);
        assert_eq!(in_a_union(Value { pointer }), 7);
        assert_eq!(in_a_struct(&mut Transfer { status: 0, user: pointer }), 7);
        assert_eq!(uintptr_t(0), -2);
        assert_eq!(intptr_t(-1), -2);
    }
    assert_eq!(user_data.stats().calls, 7);
}

struct Callbacks<F>(PhantomData<F>);

impl<F: Fn(&[u8]) -> c_int + Send + Sync + 'static> Callbacks<F> {
    trampoline! {
        fn on_frame(data: *const u8, len: usize, user_data: *mut c_void) -> c_int;
        |handler: F = user_data, frame: &[u8] = bytes(data, len)| { handler(frame) }
        panicked -1, swallowed -2
    }
}

type OnFrame = unsafe extern "C" fn(*const u8, usize, *mut c_void) -> c_int;

#[test]
fn a_handler_may_be_generic() {
    fn register<F: Fn(&[u8]) -> c_int + Send + Sync + 'static>(f: F) -> (UserData<F>, OnFrame) {
        (UserData::new(f), Callbacks::<F>::on_frame)
    }
    let sum = AtomicI32::new(0);
    let (adds, add) =
        register(move |frame| sum.fetch_add(frame.len() as c_int, SeqCst) + frame.len() as c_int);
    let (firsts, first) = register(|frame| c_int::from(frame[0]));
    // SAFETY: the pointer and the length are those of one slice.
    unsafe {
        assert_eq!(add(b"abc".as_ptr(), 3, adds.as_ptr()), 3);
        assert_eq!(add(b"abc".as_ptr(), 3, adds.as_ptr()), 6);
        assert_eq!(first(b"abc".as_ptr(), 3, firsts.as_ptr()), 97);
        assert_eq!(first(b"abc".as_ptr(), 3, adds.as_ptr()), -2, "the value is of another type");
    }
}
