//! What a handler sees of C's pointers, and what it is spared.

use callbridge::ffi::{BadArgument, UserData, bytes, c_str, reference};
use std::ffi::{CStr, c_int, c_void};
use std::ptr::{null, without_provenance_mut};
use std::sync::Mutex;
use std::time::Duration;

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

callbridge::trampoline! {
    fn frame_first(data: *const u8, len: c_int, user_data: *mut c_void, flags: u32) -> c_int;
    |seen: Mutex<Vec<Vec<u8>>> = user_data, frame: &[u8] = bytes(data, len), flags: u32 = value(flags)| {
        seen.lock().unwrap().push(frame.to_vec());
        flags as c_int
    }
    panicked -1, swallowed -2
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
    let (seen, _) = user_data.unregister(Duration::ZERO).unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen, [b"abc".to_vec(), Vec::new()]);
}
