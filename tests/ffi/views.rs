//! What a handler sees of C's pointers, and what it is spared.

use callbridge::ffi::{BadArgument, Call, UserData, enter};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut, without_provenance, without_provenance_mut};
use std::sync::Mutex;
use std::time::Duration;

/// Looks at views as a handler does.
fn in_a_call(look: impl FnOnce(Call<'_>)) {
    let user_data = UserData::new(());
    enter::<(), _>(user_data.as_ptr(), (), (), |(), call| {
        look(call);
        Ok(())
    });
    assert_eq!(user_data.stats().panicked, 0);
}

#[test]
fn pointer_and_length_are_checked_before_they_are_followed_e40() {
    let dangling: *const u8 = without_provenance(8);
    // SAFETY: what would be followed is valid; the rest must be refused.
    in_a_call(|call| unsafe {
        assert_eq!(call.bytes(b"abc".as_ptr(), 3u32), Ok(&b"abc"[..]));
        assert_eq!(call.bytes(null::<u8>(), 0), Ok(&[][..]));
        assert_eq!(call.bytes(dangling, 0), Ok(&[][..]));
        assert_eq!(call.bytes(null::<c_void>(), 1), Err(BadArgument::Null));
        assert_eq!(call.bytes(dangling, -1), Err(BadArgument::Length));
        assert_eq!(call.bytes(dangling, isize::MAX as usize + 1), Err(BadArgument::Length));
        assert_eq!(call.bytes(dangling, u128::MAX), Err(BadArgument::Length));
        assert_eq!(call.bytes_mut(null_mut::<c_void>(), 1), Err(BadArgument::Null));
        assert_eq!(call.c_str(null()), Err(BadArgument::Null));
        assert_eq!(call.c_str(c"\xff".as_ptr()).map(CStr::to_bytes), Ok(&b"\xff"[..]));
        assert_eq!(call.reference::<u32>(null()), Err(BadArgument::Null));
        assert_eq!(call.reference::<u32>(without_provenance(3)), Err(BadArgument::Misaligned));
        assert_eq!(call.reference(&5u32), Ok(&5));
        assert_eq!(call.reference_mut::<u32>(null_mut()), Err(BadArgument::Null));
        assert_eq!(
            call.reference_mut::<u32>(without_provenance_mut(3)),
            Err(BadArgument::Misaligned)
        );
        assert_eq!(call.out(null_mut(), 5), Err(BadArgument::Null));
        assert_eq!(call.out(without_provenance_mut(2), 5u32), Err(BadArgument::Misaligned));
    });
}

#[test]
fn the_length_of_a_slice_is_in_elements() {
    let mut samples = [1.0f32, 2.0, 3.0];
    let misaligned: *mut f32 = samples.as_mut_ptr().cast::<u8>().wrapping_add(1).cast();
    // SAFETY: what would be followed is valid; the rest must be refused.
    in_a_call(|call| unsafe {
        assert_eq!(call.slice(samples.as_ptr(), 3), Ok(&[1.0, 2.0, 3.0][..]));
        assert_eq!(call.slice(null::<f32>(), 0), Ok(&[][..]));
        assert_eq!(call.slice(null::<f32>(), 1), Err(BadArgument::Null));
        assert_eq!(call.slice(samples.as_ptr(), -1), Err(BadArgument::Length));
        assert_eq!(call.slice(misaligned, 1), Err(BadArgument::Misaligned));
        // As many bytes as memory can't hold, then one whose number of bytes isn't even a number.
        assert_eq!(call.slice(samples.as_ptr(), usize::MAX / 4), Err(BadArgument::Length));
        assert_eq!(call.slice(samples.as_ptr(), usize::MAX / 4 + 2), Err(BadArgument::Length));
        assert_eq!(
            call.slice_mut(samples.as_mut_ptr(), usize::MAX / 4 + 2),
            Err(BadArgument::Length)
        );
        assert_eq!(call.slice_mut(misaligned, 1), Err(BadArgument::Misaligned));
        assert_eq!(call.slice_mut(null_mut::<f32>(), 0).map(|none| none.len()), Ok(0));
        call.slice_mut(samples.as_mut_ptr(), 3).unwrap()[1] = 5.0;
    });
    assert_eq!(samples, [1.0, 5.0, 3.0]);
}

#[test]
fn an_out_parameter_need_not_be_initialised_and_is_set_even_if_the_handler_panics() {
    callbridge::trampoline! {
        fn ask(user_data: *mut c_void, answer: *mut c_int, panics: bool) -> c_int;
        |real: c_int = user_data, answer: &mut c_int = out(answer, -1)| {
            assert!(!panics, "on purpose");
            *answer = *real;
            0
        }
        panicked 1, swallowed 2
    }
    let user_data = UserData::new(42);
    for (panics, result) in [(false, (0, 42)), (true, (1, -1))] {
        let mut answer = MaybeUninit::<c_int>::uninit();
        // SAFETY: it leads to memory for an integer, which has been written when it is read.
        unsafe {
            let code = ask(user_data.as_ptr(), answer.as_mut_ptr(), panics);
            assert_eq!((code, answer.assume_init()), result);
        }
    }
    // SAFETY: NULL must be refused.
    assert_eq!(unsafe { ask(user_data.as_ptr(), null_mut(), false) }, 2);
}

#[test]
fn a_buffer_that_is_not_initialised_is_filled() {
    callbridge::trampoline! {
        fn fill(buffer: *mut c_void, size: c_int, user_data: *mut c_void) -> c_int;
        |text: &'static str = user_data,
            buffer: &mut [MaybeUninit<u8>] = slice_mut(buffer.cast(), size)| {
            for (place, byte) in buffer.iter_mut().zip(text.bytes()) {
                place.write(byte);
            }
            text.len().min(buffer.len()) as c_int
        }
        panicked -1, swallowed -1
    }
    let user_data = UserData::new("hello");
    let mut buffer = Box::new([MaybeUninit::<u8>::uninit(); 4]);
    // SAFETY: the pointer and the length are those of one array.
    let written = unsafe { fill(buffer.as_mut_ptr().cast(), 4, user_data.as_ptr()) };
    assert_eq!(written, 4);
    // SAFETY: as many bytes as were written.
    assert_eq!(unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), 4) }, b"hell");
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    topic: *const c_char,
    payload: *const c_void,
    length: c_int,
}

#[test]
fn a_view_may_be_made_of_what_another_shows() {
    callbridge::trampoline! {
        fn on_message(user_data: *mut c_void, message: *const Message);
        |seen: Mutex<Vec<String>> = user_data,
            message: &Message = reference(message),
            topic: &CStr = c_str(message.topic),
            payload: &[u8] = bytes(message.payload, message.length)| {
            seen.lock().unwrap().push(format!("{topic:?} {payload:?}"));
        }
    }
    let user_data = UserData::new(Mutex::new(Vec::<String>::new()));
    let good = Message { topic: c"t".as_ptr(), payload: b"ab".as_ptr().cast(), length: 2 };
    // SAFETY: what would be followed is valid; the rest must be refused.
    unsafe {
        on_message(user_data.as_ptr(), &good);
        on_message(user_data.as_ptr(), null());
        on_message(user_data.as_ptr(), &Message { topic: null(), ..good });
        on_message(user_data.as_ptr(), &Message { length: -1, ..good });
    }
    assert_eq!(user_data.stats().bad_arguments, 3);
    assert_eq!(*user_data.get().lock().unwrap(), [r#""t" [97, 98]"#]);
}

callbridge::trampoline! {
    fn frame_first(data: *const u8, len: c_int, user_data: *mut c_void, flags: u32) -> c_int;
    |seen: Mutex<Vec<Vec<u8>>> = user_data, frame: &[u8] = bytes(data, len)| {
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
