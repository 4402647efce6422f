//! What a handler sees of C's pointers: checked before they are followed, lent for one call.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use thiserror::Error;

/// Why C's arguments can't be looked at.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadArgument {
    /// A pointer is NULL where there has to be something.
    #[error("the pointer is NULL: pass one that leads to the data")]
    Null,
    /// A length is negative, or more than memory can hold (`isize::MAX` bytes).
    #[error("the length is impossible: pass the number of elements")]
    Length,
    /// A pointer isn't aligned for what it is said to lead to.
    #[error("the pointer is misaligned: pass one that is aligned for its type")]
    Misaligned,
}

/// One call of C's. It lends views of C's arguments, which end with it.
///
/// [`trampoline!`](crate::trampoline) makes its views with it; [`enter`](super::enter()) hands it to a
/// trampoline that is written by hand. A view is checked first: a pointer that can't be followed isn't,
/// and gives a [`BadArgument`].
///
/// | C has | view | the handler sees |
/// |---|---|---|
/// | `const void *data, size_t len` | [`bytes`](Self::bytes) | `&[u8]` |
/// | `void *data, size_t len`, to be changed | [`bytes_mut`](Self::bytes_mut) | `&mut [u8]` |
/// | `const float *samples, size_t n` | [`slice`](Self::slice) | `&[f32]` |
/// | `float *samples, size_t n`, to be changed | [`slice_mut`](Self::slice_mut) | `&mut [f32]` |
/// | a buffer to fill, perhaps uninitialised | [`slice_mut`](Self::slice_mut) | `&mut [MaybeUninit<u8>]` |
/// | `const char *text` | [`c_str`](Self::c_str) | `&CStr` |
/// | `const struct event *event` | [`reference`](Self::reference) | `&Event` |
/// | `struct event *event`, to be changed | [`reference_mut`](Self::reference_mut) | `&mut Event` |
/// | `size_t *written`, to be set | [`out`](Self::out) | `&mut usize` |
///
/// A view lives until the call returns, whatever its type says. So it can be used and copied, but
/// neither kept nor sent away.
///
/// What it leads to is `Copy` where Rust sees the type: plain data, which other threads may read at the
/// same time. A struct with a `Cell` in it isn't.
///
/// # Examples
///
/// A view can't be `'static`, so this doesn't compile:
///
/// ```compile_fail
/// # use std::{ffi::c_void, sync::Mutex};
/// callbridge::trampoline! {
///     fn keep(data: *const u8, len: usize, user_data: *mut c_void);
///     |kept: Mutex<Option<&'static [u8]>> = user_data, frame: &'static [u8] = bytes(data, len)| {
///         *kept.lock().unwrap() = Some(frame);
///     }
/// }
/// ```
///
/// A copy can be kept:
///
/// ```
/// # use std::{ffi::c_void, sync::Mutex};
/// callbridge::trampoline! {
///     fn keep(data: *const u8, len: usize, user_data: *mut c_void);
///     |kept: Mutex<Option<Vec<u8>>> = user_data, frame: &[u8] = bytes(data, len)| {
///         *kept.lock().unwrap() = Some(frame.to_vec());
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Call<'c> {
    /// Invariant, and of one thread.
    _call: PhantomData<*mut &'c ()>,
}

impl<'c> Call<'c> {
    pub(super) fn new() -> Self {
        Call { _call: PhantomData }
    }

    /// The bytes that `data` and `len` stand for. NULL with length 0 is no bytes.
    ///
    /// `data` is any pointer and `len` any integer, as the library declares them.
    ///
    /// # Errors
    ///
    /// [`BadArgument::Null`] for NULL with a length, [`BadArgument::Length`] for a length that is
    /// negative or more than `isize::MAX`.
    ///
    /// # Safety
    ///
    /// Unless refused, `data` leads to `len` initialised bytes that nobody writes before the call
    /// returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::{BadArgument, UserData, enter};
    /// use std::ptr::null;
    ///
    /// let registration = UserData::new(());
    /// enter::<(), _>(registration.as_ptr(), (), (), |_, call| {
    ///     // SAFETY: the pointers are NULL or lead to as many bytes as said.
    ///     unsafe {
    ///         assert_eq!(call.bytes(b"abc".as_ptr(), 3), Ok(&b"abc"[..]));
    ///         assert_eq!(call.bytes(null::<u8>(), 0), Ok(&[][..]));
    ///         assert_eq!(call.bytes(null::<u8>(), 3), Err(BadArgument::Null));
    ///         assert_eq!(call.bytes(b"abc".as_ptr(), -1), Err(BadArgument::Length));
    ///     }
    ///     Ok(())
    /// });
    /// # assert_eq!(registration.stats().panicked, 0);
    /// ```
    pub unsafe fn bytes<P>(
        self,
        data: *const P,
        len: impl TryInto<usize>,
    ) -> Result<&'c [u8], BadArgument> {
        // SAFETY: the caller's promise.
        unsafe { self.slice(data.cast(), len) }
    }

    /// As [`bytes`](Self::bytes), to be changed.
    ///
    /// For memory that isn't initialised, take [`slice_mut`](Self::slice_mut).
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes).
    ///
    /// # Safety
    ///
    /// Unless refused, `data` leads to `len` initialised bytes that nobody else reads or writes
    /// before the call returns, its other views included.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::UserData;
    /// use std::ffi::c_void;
    ///
    /// callbridge::trampoline! {
    ///     /// `void (*mask)(void *user_data, void *data, size_t len)`
    ///     fn mask(user_data: *mut c_void, data: *mut c_void, len: usize);
    ///     |key: u8 = user_data, data: &mut [u8] = bytes_mut(data, len)| {
    ///         data.iter_mut().for_each(|byte| *byte ^= key);
    ///     }
    /// }
    ///
    /// let registration = UserData::new(0x20_u8);
    /// let mut text = *b"Loud";
    /// // SAFETY: the pointer and the length are those of one array.
    /// unsafe { mask(registration.as_ptr(), text.as_mut_ptr().cast(), 4) };
    /// assert_eq!(&text, b"lOUD");
    /// ```
    pub unsafe fn bytes_mut<P>(
        self,
        data: *mut P,
        len: impl TryInto<usize>,
    ) -> Result<&'c mut [u8], BadArgument> {
        // SAFETY: the caller's promise.
        unsafe { self.slice_mut(data.cast(), len) }
    }

    /// The `len` elements from `data` on. NULL with length 0 is no elements.
    ///
    /// # Errors
    ///
    /// As [`bytes`](Self::bytes), for a length in elements, and [`BadArgument::Misaligned`].
    ///
    /// # Safety
    ///
    /// Unless refused, `data` leads to `len` of `P` that are valid on this thread and that nobody writes
    /// before the call returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::UserData;
    /// use std::ffi::{c_int, c_void};
    /// use std::sync::Mutex;
    ///
    /// callbridge::trampoline! {
    ///     /// `void (*on_samples)(const float *samples, int n, void *user_data)`
    ///     fn on_samples(samples: *const f32, n: c_int, user_data: *mut c_void);
    ///     |loudest: Mutex<f32> = user_data, samples: &[f32] = slice(samples, n)| {
    ///         let mut loudest = loudest.lock().unwrap();
    ///         *loudest = samples.iter().copied().fold(*loudest, f32::max);
    ///     }
    /// }
    ///
    /// let registration = UserData::new(Mutex::new(0.0_f32));
    /// // SAFETY: the pointer and the length are those of one array.
    /// unsafe { on_samples([0.25, 0.5].as_ptr(), 2, registration.as_ptr()) };
    /// assert_eq!(*registration.get().lock().unwrap(), 0.5);
    /// ```
    pub unsafe fn slice<P: Copy>(
        self,
        data: *const P,
        len: impl TryInto<usize>,
    ) -> Result<&'c [P], BadArgument> {
        match checked(data, len)? {
            0 => Ok(&[]),
            // SAFETY: not NULL, aligned, no more than `isize::MAX` bytes; the rest is the caller's
            // promise.
            len => Ok(unsafe { std::slice::from_raw_parts(data, len) }),
        }
    }

    /// As [`slice`](Self::slice), to be changed.
    ///
    /// For a buffer that isn't initialised, let `P` be [`MaybeUninit`](std::mem::MaybeUninit).
    ///
    /// # Errors
    ///
    /// As [`slice`](Self::slice).
    ///
    /// # Safety
    ///
    /// Unless refused, `data` leads to `len` of `P` that are valid on this thread and that nobody else
    /// reads or writes before the call returns, its other views included.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::UserData;
    /// use std::ffi::{c_char, c_void};
    /// use std::mem::MaybeUninit;
    /// use std::sync::Mutex;
    /// use tokio::io::ReadBuf;
    ///
    /// callbridge::trampoline! {
    ///     /// `size_t (*read)(char *buffer, size_t size, void *user_data)`; 0 is the end.
    ///     fn read(buffer: *mut c_char, size: usize, user_data: *mut c_void) -> usize;
    ///     |left: Mutex<&'static [u8]> = user_data,
    ///         buffer: &mut [MaybeUninit<u8>] = slice_mut(buffer.cast(), size)| {
    ///         let mut left = left.lock().unwrap();
    ///         let (now, later) = left.split_at(left.len().min(size));
    ///         *left = later;
    ///         let mut buffer = ReadBuf::uninit(buffer);
    ///         buffer.put_slice(now);
    ///         buffer.filled().len()
    ///     }
    ///     panicked 0, swallowed 0
    /// }
    ///
    /// let registration = UserData::new(Mutex::new(&b"hello"[..]));
    /// let mut buffer = [0; 4];
    /// // SAFETY: the pointer and the length are those of one array.
    /// let read = unsafe { read(buffer.as_mut_ptr(), 4, registration.as_ptr()) };
    /// assert_eq!((read, buffer.map(|char| char as u8)), (4, *b"hell"));
    /// ```
    pub unsafe fn slice_mut<P: Copy>(
        self,
        data: *mut P,
        len: impl TryInto<usize>,
    ) -> Result<&'c mut [P], BadArgument> {
        match checked(data, len)? {
            0 => Ok(&mut []),
            // SAFETY: not NULL, aligned, no more than `isize::MAX` bytes; the rest is the caller's
            // promise.
            len => Ok(unsafe { std::slice::from_raw_parts_mut(data, len) }),
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
    /// Unless it is NULL, `text` leads to bytes that end with a NUL and that nobody writes before the
    /// call returns.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::UserData;
    /// use std::ffi::{CStr, c_char, c_int, c_void};
    /// use std::sync::Mutex;
    ///
    /// callbridge::trampoline! {
    ///     /// `void (*log)(void *user_data, int level, const char *text)`
    ///     fn log(user_data: *mut c_void, level: c_int, text: *const c_char);
    ///     |lines: Mutex<Vec<String>> = user_data, text: &CStr = c_str(text)| {
    ///         lines.lock().unwrap().push(format!("{level} {}", text.to_string_lossy()));
    ///     }
    /// }
    ///
    /// let registration = UserData::new(Mutex::new(Vec::<String>::new()));
    /// // SAFETY: a C string.
    /// unsafe { log(registration.as_ptr(), 3, c"ready".as_ptr()) };
    /// assert_eq!(*registration.get().lock().unwrap(), ["3 ready"]);
    /// ```
    pub unsafe fn c_str(self, text: *const c_char) -> Result<&'c CStr, BadArgument> {
        checked(text, 1)?;
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
    /// Unless refused, `at` leads to a `P` that is valid on this thread and that nobody writes before the
    /// call returns.
    ///
    /// # Examples
    ///
    /// The length of a packet is in its header:
    ///
    /// ```
    /// use callbridge::ffi::UserData;
    /// use std::ffi::c_uchar;
    ///
    /// #[derive(Clone, Copy)]
    /// #[repr(C)]
    /// struct Header {
    ///     captured: u32,
    ///     length: u32,
    /// }
    ///
    /// callbridge::trampoline! {
    ///     /// `void (*on_packet)(u_char *user, const struct header *header, const u_char *packet)`
    ///     fn on_packet(user: *mut c_uchar, header: *const Header, packet: *const c_uchar);
    ///     |packets: callbridge::Sender<Vec<u8>> = user,
    ///         header: &Header = reference(header),
    ///         packet: &[u8] = bytes(packet, header.captured)| {
    ///         // A refused packet is counted by the channel.
    ///         let _ = packets.try_send(packet.to_vec());
    ///     }
    /// }
    ///
    /// let (sender, mut packets) = callbridge::channel(16);
    /// let registration = UserData::new(sender);
    /// let header = Header { captured: 3, length: 1500 };
    /// // SAFETY: as many bytes as the header says.
    /// unsafe { on_packet(registration.as_ptr().cast(), &header, b"abc".as_ptr()) };
    /// assert_eq!(packets.try_recv(), Ok(b"abc".to_vec()));
    /// ```
    pub unsafe fn reference<P: Copy>(self, at: *const P) -> Result<&'c P, BadArgument> {
        checked(at, 1)?;
        // SAFETY: not NULL and aligned; the rest is the caller's promise.
        Ok(unsafe { &*at })
    }

    /// As [`reference`](Self::reference), to be changed.
    ///
    /// # Errors
    ///
    /// As [`reference`](Self::reference).
    ///
    /// # Safety
    ///
    /// Unless refused, `at` leads to a `P` that is valid on this thread and that nobody else reads or
    /// writes before the call returns, its other views included.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::UserData;
    /// use std::ffi::{c_int, c_void};
    ///
    /// callbridge::trampoline! {
    ///     /// `void (*adjust)(void *user_data, int *timeout)`; it may make the timeout shorter.
    ///     fn adjust(user_data: *mut c_void, timeout: *mut c_int);
    ///     |longest: c_int = user_data, timeout: &mut c_int = reference_mut(timeout)| {
    ///         *timeout = (*timeout).min(*longest);
    ///     }
    /// }
    ///
    /// let registration = UserData::new(500);
    /// let mut timeout = 2000;
    /// // SAFETY: it leads to an integer that nobody else uses.
    /// unsafe { adjust(registration.as_ptr(), &raw mut timeout) };
    /// assert_eq!(timeout, 500);
    /// ```
    pub unsafe fn reference_mut<P: Copy>(self, at: *mut P) -> Result<&'c mut P, BadArgument> {
        checked(at, 1)?;
        // SAFETY: not NULL and aligned; the rest is the caller's promise.
        Ok(unsafe { &mut *at })
    }

    /// Where C wants a value put. It is `initial` until the handler sets it, and stays so if that panics.
    ///
    /// A call that is swallowed because it is late, or because of an argument before this one, leaves it as
    /// it was.
    ///
    /// # Errors
    ///
    /// As [`reference`](Self::reference).
    ///
    /// # Safety
    ///
    /// Unless refused, `at` leads to memory for a `P`, initialised or not, that nobody else reads or
    /// writes before the call returns, its other views included.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::UserData;
    /// use std::ffi::{c_int, c_void};
    ///
    /// callbridge::trampoline! {
    ///     /// `int (*get_size)(void *user_data, size_t *size)`; 0 or an error.
    ///     fn get_size(user_data: *mut c_void, size: *mut usize) -> c_int;
    ///     |text: String = user_data, size: &mut usize = out(size, 0)| {
    ///         *size = text.len();
    ///         0
    ///     }
    ///     panicked -1, swallowed -1
    /// }
    ///
    /// let registration = UserData::new(String::from("abc"));
    /// let mut size = 99;
    /// // SAFETY: it leads to an integer that nobody else uses.
    /// assert_eq!(unsafe { get_size(registration.as_ptr(), &raw mut size) }, 0);
    /// assert_eq!(size, 3);
    /// ```
    pub unsafe fn out<P: Copy>(self, at: *mut P, initial: P) -> Result<&'c mut P, BadArgument> {
        checked(at, 1)?;
        // SAFETY: not NULL and aligned, and valid from the write on; the rest is the caller's promise.
        Ok(unsafe {
            at.write(initial);
            &mut *at
        })
    }
}

/// The length, if that many elements can be there.
fn checked<P>(data: *const P, len: impl TryInto<usize>) -> Result<usize, BadArgument> {
    let len = len.try_into().map_err(|_| BadArgument::Length)?;
    let bytes = len.checked_mul(size_of::<P>()).ok_or(BadArgument::Length)?;
    match len {
        _ if isize::try_from(bytes).is_err() => Err(BadArgument::Length),
        0 => Ok(0),
        _ if data.is_null() => Err(BadArgument::Null),
        _ if !data.is_aligned() => Err(BadArgument::Misaligned),
        _ => Ok(len),
    }
}
