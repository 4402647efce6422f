//! What must not compile, as doctests. Nightly checks the codes of the errors, too.
//!
//! Each differs from one that compiles, in `tests/ffi` or in the docs, only in what is wrong.
//!
//! # Views end with the call
//!
//! A view can't be kept, though the value could:
//!
//! ```compile_fail,E0521
//! # use std::{ffi::c_void, sync::Mutex};
//! callbridge::trampoline! {
//!     fn keep(data: *const u8, len: usize, user_data: *mut c_void);
//!     |kept: Mutex<Option<&'static [u8]>> = user_data, frame: &[u8] = bytes(data, len)| {
//!         *kept.lock().unwrap() = Some(frame);
//!     }
//! }
//! ```
//!
//! Nor a mutable one, a text, a struct:
//!
//! ```compile_fail,E0521
//! # use std::{ffi::c_void, sync::Mutex};
//! callbridge::trampoline! {
//!     fn keep(data: *mut f32, len: usize, user_data: *mut c_void);
//!     |kept: Mutex<Option<&'static mut [f32]>> = user_data, frame: &mut [f32] = slice_mut(data, len)| {
//!         *kept.lock().unwrap() = Some(frame);
//!     }
//! }
//! ```
//!
//! ```compile_fail
//! # use std::{ffi::{CStr, c_char, c_void}, sync::Mutex};
//! callbridge::trampoline! {
//!     fn keep(text: *const c_char, user_data: *mut c_void);
//!     |kept: Mutex<Option<&'static CStr>> = user_data, text: &'static CStr = c_str(text)| {
//!         *kept.lock().unwrap() = Some(text);
//!     }
//! }
//! ```
//!
//! ```compile_fail
//! # use std::{ffi::c_void, sync::Mutex};
//! callbridge::trampoline! {
//!     fn keep(at: *const u32, user_data: *mut c_void);
//!     |kept: Mutex<Option<&'static u32>> = user_data, at: &'static u32 = reference(at)| {
//!         *kept.lock().unwrap() = Some(at);
//!     }
//! }
//! ```
//!
//! Nor can it be sent away, through a channel or to a thread:
//!
//! ```compile_fail,E0521
//! # use std::{ffi::c_void, sync::Mutex};
//! callbridge::trampoline! {
//!     fn send(data: *const u8, len: usize, user_data: *mut c_void);
//!     |sender: callbridge::Sender<&'static [u8]> = user_data, frame: &[u8] = bytes(data, len)| {
//!         let _ = sender.send(frame);
//!     }
//! }
//! ```
//!
//! ```compile_fail
//! # use std::{ffi::c_void, sync::Mutex};
//! callbridge::trampoline! {
//!     fn send(data: *const u8, len: usize, user_data: *mut c_void);
//!     |_nothing: () = user_data, frame: &[u8] = bytes(data, len)| {
//!         std::thread::spawn(move || frame.len());
//!     }
//! }
//! ```
//!
//! Nor the value itself, by a trampoline written by hand; nor the call, from which views come:
//!
//! ```compile_fail,E0521
//! use callbridge::ffi::{UserData, enter};
//! let registration = UserData::new(5);
//! let mut kept = None;
//! enter::<i32, _>(registration.as_ptr(), (), (), |value, _| {
//!     kept = Some(value);
//!     Ok(())
//! });
//! ```
//!
//! ```compile_fail,E0521
//! use callbridge::ffi::{UserData, enter};
//! let registration = UserData::new(5);
//! let mut kept = None;
//! enter::<i32, _>(registration.as_ptr(), (), (), |_, call| {
//!     kept = Some(call);
//!     Ok(())
//! });
//! ```
//!
//! # Nothing is shared that two threads may not share
//!
//! ```compile_fail,E0277
//! # use std::{cell::Cell, ffi::c_void};
//! callbridge::trampoline! {
//!     fn count(at: *const Cell<u32>, user_data: *mut c_void);
//!     |_nothing: () = user_data, counter: &Cell<u32> = reference(at)| {
//!         counter.set(counter.get() + 1);
//!     }
//! }
//! ```
//!
//! ```compile_fail,E0277
//! # use std::{cell::Cell, ffi::c_void};
//! callbridge::trampoline! {
//!     fn count(user_data: *mut c_void);
//!     |counter: Cell<u32> = user_data| { counter.set(counter.get() + 1) }
//! }
//! ```
//!
//! # A handler is safe code
//!
//! Its `unsafe` is seen where that is denied, and it needs one; an argument of a view likewise.
//!
//! ```compile_fail
//! #![deny(unsafe_code)]
//! # use std::ffi::c_void;
//! callbridge::trampoline! {
//!     fn read(at: *const u8, user_data: *mut c_void);
//!     |_nothing: () = user_data| { drop(unsafe { at.read() }) }
//! }
//! # fn main() {}
//! ```
//!
//! ```
//! #![deny(unsafe_code)]
//! # use std::ffi::c_void;
//! callbridge::trampoline! {
//!     fn read(at: *const u8, user_data: *mut c_void);
//!     |_nothing: () = user_data, at: &u8 = reference(at)| { drop(*at) }
//! }
//! # fn main() {}
//! ```
//!
//! ```compile_fail,E0133
//! # use std::ffi::c_void;
//! callbridge::trampoline! {
//!     fn read(at: *const u8, user_data: *mut c_void);
//!     |_nothing: () = user_data| { drop(at.read()) }
//! }
//! ```
//!
//! ```compile_fail,E0133
//! # use std::ffi::c_void;
//! callbridge::trampoline! {
//!     fn read(at: *const *const u8, user_data: *mut c_void);
//!     |_nothing: () = user_data, at: &u8 = reference(*at)| { drop(*at) }
//! }
//! ```
