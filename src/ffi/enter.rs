//! What every trampoline runs: from the foreign thread to the handler and back.

use super::cancel::CancelOff;
use super::gate::{Inside, Left};
use super::mark::Mark;
use super::registry::{self, Key, Slot, Value};
use super::user_data::{Held, ORPHANED};
use super::view::{BadArgument, Call};
use crate::sync::contain;
use crate::sync::{discard, panic_message, report};
use std::any::{Any, type_name};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use thiserror::Error;

static NULL: AtomicU64 = AtomicU64::new(0);
static UNKNOWN: AtomicU64 = AtomicU64::new(0);
static LATE: AtomicU64 = AtomicU64::new(0);
static BAD_ARGUMENTS: AtomicU64 = AtomicU64::new(0);
static PANICKED: AtomicU64 = AtomicU64::new(0);

/// What happened to C's calls in this process so far, apart from those that were handled.
///
/// # Examples
///
/// ```
/// use callbridge::ffi::{enter, process_stats};
///
/// let before = process_stats();
/// enter::<(), _>(std::ptr::null::<u8>(), (), (), |_, _| Ok(()));
/// assert_eq!(process_stats().null, before.null + 1);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessStats {
    /// Swallowed: the user data was NULL.
    pub null: u64,
    /// Swallowed: the user data is no pointer that a [`UserData`](super::UserData) gave, or one of
    /// another type.
    pub unknown: u64,
    /// Swallowed: the gate was shut, or the registration over.
    pub late: u64,
    /// Swallowed: an argument was [bad](BadArgument).
    pub bad_arguments: u64,
    /// The handler panicked.
    pub panicked: u64,
    /// Values that were left to the last call inside, because it outlasted their
    /// [`UserData`](super::UserData).
    pub orphaned: u64,
}

/// What happened to C's calls in this process so far, apart from those that were handled.
///
/// # Examples
///
/// ```
/// println!("{:?}", callbridge::ffi::process_stats());
/// ```
#[must_use]
pub fn process_stats() -> ProcessStats {
    ProcessStats {
        null: NULL.load(Relaxed),
        unknown: UNKNOWN.load(Relaxed),
        late: LATE.load(Relaxed),
        bad_arguments: BAD_ARGUMENTS.load(Relaxed),
        panicked: PANICKED.load(Relaxed),
        orphaned: ORPHANED.load(Relaxed),
    }
}

/// What C hands back as its user data: any pointer, or an integer as wide as one.
///
/// # Examples
///
/// A union of a library's own:
///
/// ```
/// use callbridge::ffi::{UserData, UserPointer, enter};
/// use std::ffi::{c_int, c_void};
///
/// #[derive(Clone, Copy)]
/// #[repr(C)]
/// union Value {
///     number: c_int,
///     pointer: *mut c_void,
/// }
///
/// struct Pointer(Value);
///
/// impl UserPointer for Pointer {
///     fn bits(self) -> usize {
///         // SAFETY: this library hands back the pointer that it was given.
///         unsafe { self.0.pointer }.bits()
///     }
/// }
///
/// let registration = UserData::new(7);
/// let from_c = Value { pointer: registration.as_ptr() };
/// assert_eq!(enter::<i32, _>(Pointer(from_c), 0, 0, |value, _| Ok(*value)), 7);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the user data",
    label = "neither a pointer nor an integer as wide as one"
)]
pub trait UserPointer {
    /// What [`UserData::as_ptr`](super::UserData::as_ptr) gave, as a number.
    fn bits(self) -> usize;
}

impl<P> UserPointer for *mut P {
    fn bits(self) -> usize {
        self.addr()
    }
}

impl<P> UserPointer for *const P {
    fn bits(self) -> usize {
        self.addr()
    }
}

impl UserPointer for usize {
    fn bits(self) -> usize {
        self
    }
}

impl UserPointer for isize {
    fn bits(self) -> usize {
        self as usize
    }
}

/// Runs `body` on the value behind `user_data`: what a [`trampoline!`](crate::trampoline) does.
///
/// For a trampoline that is written by hand, because it has to do something even if the call is
/// swallowed, or because its signature is one that the macro doesn't take. The
/// [guide](crate::guide::wrapping#trampolines-by-hand) has an example.
///
/// Any user data may come, since it is looked up and never followed. While `body` runs,
/// `pthread_cancel` waits, [`in_callback`](super::in_callback) is true and the value stays. Returns
/// `panicked` after a panic; `swallowed`, without running the handler, for a call that is late, that
/// has no or no known user data, or whose arguments `body` refuses. A `body` that doesn't run is
/// dropped, with what it owns. Nothing unwinds out of here.
///
/// # Examples
///
/// ```
/// use callbridge::Sender;
/// use callbridge::ffi::{UserData, enter};
/// use std::ffi::{c_char, c_int, c_void};
///
/// /// `int (*on_line)(void *user_data, const char *line)`
/// ///
/// /// # Safety
/// ///
/// /// For C to call, with a line that ends with a NUL, or NULL.
/// unsafe extern "C" fn on_line(user_data: *mut c_void, line: *const c_char) -> c_int {
///     enter::<Sender<String>, _>(user_data, 0, 1, |sender, call| {
///         // SAFETY: C's promise.
///         let line = unsafe { call.c_str(line)? };
///         Ok(c_int::from(sender.send(line.to_string_lossy().into_owned()).is_err()))
///     })
/// }
///
/// let (sender, mut lines) = callbridge::channel::<String>(16);
/// let registration = UserData::new(sender);
/// // SAFETY: a C string.
/// let answer = unsafe { on_line(registration.as_ptr(), c"ready".as_ptr()) };
/// assert_eq!((answer, lines.try_recv().as_deref()), (0, Ok("ready")));
/// ```
pub fn enter<T: Send + Sync + 'static, R>(
    user_data: impl UserPointer,
    swallowed: R,
    panicked: R,
    body: impl for<'c> FnOnce(&'c T, Call<'c>) -> Result<R, BadArgument>,
) -> R {
    let _cancel_off = CancelOff::new();
    let (key, slot, inside) = match let_in(user_data.bits()) {
        Ok(inside) => inside,
        Err((why, first)) => {
            tell::<T>(why, first);
            contain("what a handler owns", || drop(body));
            return swallowed;
        }
    };
    let mark = Mark::new();
    let answer = inside.with(|value| match value.downcast_ref::<Held<T>>() {
        Some(held) => call(slot, held, swallowed, panicked, body),
        None => {
            tell::<T>(Swallowed::Unknown, UNKNOWN.fetch_add(1, Relaxed) == 0);
            contain("what a handler owns", || drop(body));
            swallowed
        }
    });
    if let Left::Free(value) = inside.leave() {
        contain("a user-data destructor", || drop(value));
        registry::recycle(key);
    }
    drop(mark);
    answer
}

type LetIn = (Key, &'static Slot, Inside<'static, Value>);

/// The value that C's pointer names, or why not, and whether that is news.
fn let_in(user_data: usize) -> Result<LetIn, (Swallowed, bool)> {
    if user_data == 0 {
        return Err((Swallowed::Null, NULL.fetch_add(1, Relaxed) == 0));
    }
    let slot = Key::from_bits(user_data).and_then(|key| Some((key, registry::find(key)?)));
    let Some((key, slot)) = slot else {
        return Err((Swallowed::Unknown, UNKNOWN.fetch_add(1, Relaxed) == 0));
    };
    match slot.gate.enter(key.generation) {
        Some(inside) => Ok((key, slot, inside)),
        None => {
            let first = LATE.fetch_add(1, Relaxed) == 0;
            Err((Swallowed::Late, slot.count_late(key.generation).unwrap_or(first)))
        }
    }
}

fn call<T: 'static, R>(
    slot: &Slot,
    held: &Held<T>,
    swallowed: R,
    panicked: R,
    body: impl for<'c> FnOnce(&'c T, Call<'c>) -> Result<R, BadArgument>,
) -> R {
    slot.calls.fetch_add(1, Relaxed);
    match catch_unwind(AssertUnwindSafe(|| body(&held.value, Call::new()))) {
        Ok(Ok(answer)) => answer,
        Ok(Err(why)) => {
            BAD_ARGUMENTS.fetch_add(1, Relaxed);
            tell::<T>(why.into(), slot.bad_arguments.fetch_add(1, Relaxed) == 0);
            swallowed
        }
        Err(payload) => {
            PANICKED.fetch_add(1, Relaxed);
            slot.panicked.fetch_add(1, Relaxed);
            handler_panicked(held, payload);
            panicked
        }
    }
}

fn handler_panicked<T>(held: &Held<T>, payload: Box<dyn Any + Send>) {
    report("a C callback", payload.as_ref());
    if let Some(hook) = &held.on_panic {
        let message = panic_message(payload.as_ref());
        contain("a panic hook", || hook(&held.value, message));
    }
    discard(payload);
}

/// Why a call of C's didn't reach its handler, or not with what it wants to see.
#[derive(Clone, Copy, Debug, Error)]
enum Swallowed {
    #[error("its user data is NULL")]
    Null,
    #[error("its user data is of no registration, or of one with a value of another type")]
    Unknown,
    #[error("its gate is shut, or its registration over")]
    Late,
    #[error(transparent)]
    BadArgument(#[from] BadArgument),
}

/// The first call of each kind is an event, with the feature `tracing`: the others are only counted.
fn tell<T>(why: Swallowed, first: bool) {
    #[cfg(feature = "tracing")]
    if first {
        contain("a report", || {
            let value = type_name::<T>();
            tracing::warn!(target: "callbridge", value, "a call from C was swallowed: {why}");
        });
    }
    #[cfg(not(feature = "tracing"))]
    let _ = (why, first, type_name::<T>);
}
