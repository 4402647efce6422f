//! What a handler sees of C's pointers: checked before they are followed.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use thiserror::Error;

/// Why C's arguments can't be looked at.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadArgument {
    /// A pointer is NULL where there has to be something.
    #[error("the pointer is NULL: pass one that leads to the data")]
    Null,
    /// A length is negative, or more than memory can hold (`isize::MAX` bytes).
    #[error("the length is impossible: pass the number of bytes")]
    Length,
    /// A pointer isn't aligned for what it is said to lead to.
    #[error("the pointer is misaligned: pass one that is aligned for its type")]
    Misaligned,
}

/// The bytes that `data` and `len` stand for. NULL with length 0 is no bytes.
///
/// `len` is any integer type, as the library declares it.
///
/// # Errors
///
/// [`BadArgument::Null`] for NULL with a length, [`BadArgument::Length`] for one that is negative or
/// more than `isize::MAX`. Neither follows the pointer.
///
/// # Safety
///
/// Unless refused, `data` leads to `len` initialised bytes that nobody writes for as long as the slice
/// lives: usually until the callback returns.
///
/// # Examples
///
/// ```
/// use callbridge::ffi::{BadArgument, bytes};
/// use std::ptr::null;
///
/// // SAFETY: the pointers are NULL or lead to as many bytes as said.
/// unsafe {
///     assert_eq!(bytes(b"abc".as_ptr(), 3), Ok(&b"abc"[..]));
///     assert_eq!(bytes(null::<u8>(), 0), Ok(&[][..]));
///     assert_eq!(bytes(null::<u8>(), 3), Err(BadArgument::Null));
///     assert_eq!(bytes(b"abc".as_ptr(), -1), Err(BadArgument::Length));
/// }
/// ```
pub unsafe fn bytes<'a, P>(
    data: *const P,
    len: impl TryInto<usize>,
) -> Result<&'a [u8], BadArgument> {
    let len = len.try_into().ok().filter(|&len| isize::try_from(len).is_ok());
    match len {
        None => Err(BadArgument::Length),
        Some(0) => Ok(&[]),
        Some(_) if data.is_null() => Err(BadArgument::Null),
        // SAFETY: not NULL, aligned for bytes, no more than `isize::MAX`; the rest is the caller's
        // promise.
        Some(len) => Ok(unsafe { std::slice::from_raw_parts(data.cast(), len) }),
    }
}

/// The C string that `text` leads to: bytes up to the first NUL, in any encoding.
///
/// # Errors
///
/// [`BadArgument::Null`].
///
/// # Safety
///
/// Unless it is NULL, `text` leads to bytes that end with a NUL and that nobody writes for as long as
/// the string lives: usually until the callback returns.
pub unsafe fn c_str<'a>(text: *const c_char) -> Result<&'a CStr, BadArgument> {
    if text.is_null() {
        return Err(BadArgument::Null);
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// The struct that `at` leads to.
///
/// # Errors
///
/// [`BadArgument::Null`] and [`BadArgument::Misaligned`].
///
/// # Safety
///
/// Unless refused, `at` leads to a valid `P` that nobody writes for as long as the reference lives:
/// usually until the callback returns.
pub unsafe fn reference<'a, P>(at: *const P) -> Result<&'a P, BadArgument> {
    if at.is_null() {
        return Err(BadArgument::Null);
    }
    if !at.is_aligned() {
        return Err(BadArgument::Misaligned);
    }
    // SAFETY: not NULL and aligned; the rest is the caller's promise.
    Ok(unsafe { &*at })
}

/// An argument as it is: a number, or a pointer that the handler only compares.
///
/// # Errors
///
/// None; it is there to stand beside the others in a [`trampoline!`](crate::trampoline).
pub fn value<P: Copy>(argument: P) -> Result<P, BadArgument> {
    Ok(argument)
}
