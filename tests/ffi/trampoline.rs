//! The macro: any names, any signature.

use callbridge::ffi::UserData;
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null;
use std::sync::Mutex;

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
