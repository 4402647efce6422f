use super::gate::Released;
use super::mark::in_callback;
use super::registry::{self, Key, Slot, Value};
use crate::sync::{Deadline, WaitError, contain, wait};
use std::ffi::c_void;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;
use thiserror::Error;

/// Values that their owner left to the last call inside.
pub(super) static ORPHANED: AtomicU64 = AtomicU64::new(0);

/// A value behind a gate. Calls only read it.
pub(super) struct Held<T> {
    pub(super) value: T,
    /// Told of the handler's panics.
    pub(super) on_panic: Option<PanicHook<T>>,
}

type PanicHook<T> = Box<dyn Fn(&T, &str) + Send + Sync>;

/// A value that C's threads use, for as long as it is registered with them.
///
/// [`as_ptr`](Self::as_ptr) is what C gets as its `void *user_data`. It is a number that
/// [`trampoline!`](crate::trampoline) looks up, not an address: C may keep it and call with it at
/// any time, even after the value is gone. Such a late call is swallowed and counted.
///
/// Ending a registration goes in this order: [`shut`](Self::shut) the gate, unregister with or stop
/// the C library, [`unregister`](Self::unregister) as the barrier behind which no call is inside.
/// Dropping it instead shuts the gate and never waits: if calls are inside, the last of them
/// drops the value, on its thread, which [`ProcessStats::orphaned`](super::ProcessStats) counts.
///
/// For a library's *answers*, whose callbacks may free memory, the order is another: see the
/// [guide](crate::guide::wrapping#9-answers-who-frees-what).
///
/// What stays for the life of the process is one header of 128 bytes, which later registrations use
/// again.
///
/// # Examples
///
/// ```
/// use callbridge::ffi::UserData;
/// use std::ffi::c_void;
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use std::time::Duration;
///
/// callbridge::trampoline! {
///     /// `void (*on_bytes)(void *user_data, const uint8_t *data, size_t len)`
///     fn on_bytes(user_data: *mut c_void, data: *const u8, len: usize);
///     |seen: AtomicUsize = user_data, frame: &[u8] = bytes(data, len)| {
///         seen.fetch_add(frame.len(), Ordering::Relaxed);
///     }
/// }
///
/// let seen = UserData::new(AtomicUsize::new(0));
/// let held_by_c = seen.as_ptr();
/// // SAFETY: the pointer and the length are those of one slice.
/// unsafe { on_bytes(held_by_c, b"abc".as_ptr(), 3) };
///
/// let (seen, stats) = seen.unregister(Duration::from_secs(1)).unwrap();
/// // SAFETY: as above. The call is late, and swallowed.
/// unsafe { on_bytes(held_by_c, b"late".as_ptr(), 4) };
/// assert_eq!((seen.into_inner(), stats.calls), (3, 1));
/// ```
#[must_use = "dropping it shuts the gate: every call of C's is swallowed from then on"]
pub struct UserData<T: Send + Sync + 'static> {
    /// The value; the gate holds the other reference. `None` once it was handed out.
    held: Option<Arc<Held<T>>>,
    /// What C holds.
    key: Key,
    /// The gate.
    slot: &'static Slot,
}

impl<T: Send + Sync + 'static> UserData<T> {
    /// Puts `value` behind an open gate. Calls may come from here on.
    ///
    /// # Panics
    ///
    /// If the table is full: 2^24 - 16 registrations at once (2^16 - 16 where pointers have 32 bits).
    ///
    /// # Examples
    ///
    /// ```
    /// let registration = callbridge::ffi::UserData::new(String::from("state"));
    /// assert_eq!(registration.get(), "state");
    /// ```
    pub fn new(value: T) -> Self {
        Self::build(value, None)
    }

    /// As [`new`](Self::new), with a hook for the handler's panics: it gets the value and the message.
    ///
    /// The place to end what the callback feeds, say with [`Sender::fail`](crate::Sender::fail). It
    /// runs on C's thread, before C gets its return value; a panic in it is contained and reported.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::{UserData, enter};
    ///
    /// let (sender, mut frames) = callbridge::channel::<u8>(16);
    /// let registration = UserData::with_panic_hook(sender, |sender, message| {
    ///     sender.fail(message);
    /// });
    /// // As in a trampoline, whose handler panics.
    /// enter::<callbridge::Sender<u8>, _>(registration.as_ptr(), (), (), |_, _| panic!("no disk"));
    /// assert!(frames.try_recv().is_err());
    /// assert_eq!(registration.stats().panicked, 1);
    /// ```
    pub fn with_panic_hook(value: T, hook: impl Fn(&T, &str) + Send + Sync + 'static) -> Self {
        Self::build(value, Some(Box::new(hook)))
    }

    fn build(value: T, on_panic: Option<PanicHook<T>>) -> Self {
        let held = Arc::new(Held { value, on_panic });
        let (key, slot) = registry::register(Arc::clone(&held) as Value);
        UserData { held: Some(held), key, slot }
    }

    /// Returns the user data to hand to C: never NULL, and the same for the whole registration.
    ///
    /// It is a number, not an address, and nothing may follow it. It is no larger than an address (47 bits),
    /// for libraries that keep no more of a pointer, but not aligned as one. A number comes again after
    /// 400 million registrations (three million where pointers have 32 bits).
    ///
    /// Where C wants another type: `.cast()` for another pointer, `.addr()` for `uintptr_t`.
    ///
    /// # Examples
    ///
    /// ```
    /// let registration = callbridge::ffi::UserData::new(());
    /// let user: *mut std::ffi::c_uchar = registration.as_ptr().cast();
    /// assert!(!user.is_null());
    /// ```
    #[must_use]
    pub fn as_ptr(&self) -> *mut c_void {
        self.key.as_ptr()
    }

    /// Borrows the value behind the gate.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(*callbridge::ffi::UserData::new(5).get(), 5);
    /// ```
    #[must_use]
    pub fn get(&self) -> &T {
        let held = self.held.as_ref();
        &held.expect("the value is only taken from a registration that is consumed").value
    }

    /// Lets no call in any more, without waiting for those inside; returns whether the gate was
    /// open.
    ///
    /// May be called from anywhere, also from inside a callback.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::{UserData, enter};
    ///
    /// let registration = UserData::new(());
    /// assert!(registration.shut());
    /// let swallowed = enter::<(), _>(registration.as_ptr(), true, false, |_, _| Ok(false));
    /// assert!(swallowed);
    /// ```
    pub fn shut(&self) -> bool {
        self.slot.gate.shut()
    }

    /// Whether the gate is shut.
    ///
    /// # Examples
    ///
    /// ```
    /// let registration = callbridge::ffi::UserData::new(());
    /// assert!(!registration.is_shut());
    /// ```
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.slot.gate.is_shut()
    }

    /// What happened to the calls so far.
    ///
    /// # Examples
    ///
    /// ```
    /// let registration = callbridge::ffi::UserData::new(());
    /// assert_eq!(registration.stats().calls, 0);
    /// ```
    #[must_use]
    pub fn stats(&self) -> UserDataStats {
        UserDataStats {
            calls: self.slot.calls.load(Relaxed),
            inside: self.slot.gate.inside(),
            late: self.slot.late(),
            bad_arguments: self.slot.bad_arguments.load(Relaxed),
            panicked: self.slot.panicked.load(Relaxed),
        }
    }

    /// Shuts the gate, waits until no call is inside, and gives the value back, with the final
    /// statistics.
    ///
    /// `None` waits for ever, zero only looks. Once it returns, no call is inside and none comes
    /// in.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread until the last call left, at most for `timeout`; never inside a callback.
    ///
    /// # Errors
    ///
    /// All give the registration back, with its gate shut: [`UnregisterError::InCallback`] at once if it
    /// had to wait inside a callback, its own or another's, [`UnregisterError::TimedOut`], or
    /// [`UnregisterError::WouldDeadlock`] if it had to wait on a thread that drives an event loop.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::UserData;
    /// use std::time::Duration;
    ///
    /// let registration = UserData::new(5);
    /// let (value, stats) = registration.unregister(Duration::from_secs(1)).unwrap();
    /// assert_eq!((value, stats.late), (5, 0));
    /// ```
    pub fn unregister(
        self,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<(T, UserDataStats), UnregisterError<T>> {
        let deadline = Deadline::after(timeout.into());
        self.shut();
        if in_callback() && !self.slot.gate.is_idle() {
            return Err(UnregisterError::InCallback(self));
        }
        let waited = match self.slot.gate.is_idle() {
            true => Ok(()),
            false => wait(deadline, |cx| match self.slot.gate.idle_or_tell(cx.waker()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }),
        };
        match waited {
            Ok(()) => Ok(self.take()),
            Err(WaitError::TimedOut) => Err(UnregisterError::TimedOut(self)),
            Err(WaitError::WouldDeadlock) => Err(UnregisterError::WouldDeadlock(self)),
        }
    }

    /// Shuts the gate and waits until no call is inside.
    ///
    /// Bound it with `tokio::time::timeout`; [`unregister`](Self::unregister) with zero then gives the
    /// value.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the wait; the gate stays shut.
    ///
    /// # Errors
    ///
    /// [`WaitError::WouldDeadlock`] at once if it had to wait and is polled inside a callback, which could be
    /// the call that it waits for.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::UserData;
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut registration = UserData::new(5);
    /// registration.idle().await.unwrap();
    /// let (value, _) = registration.unregister(Duration::ZERO).unwrap();
    /// assert_eq!(value, 5);
    /// # }
    /// ```
    pub async fn idle(&mut self) -> Result<(), WaitError> {
        /// Forgets the waker of a wait that was given up.
        struct Waiting(&'static Slot);
        impl Drop for Waiting {
            fn drop(&mut self) {
                self.0.gate.forget_waiter();
            }
        }
        self.shut();
        let waiting = Waiting(self.slot);
        poll_fn(|context| {
            if waiting.0.gate.idle_or_tell(context.waker()) {
                Poll::Ready(Ok(()))
            } else if in_callback() {
                Poll::Ready(Err(WaitError::WouldDeadlock))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// For a gate that is shut with nobody inside.
    fn take(mut self) -> (T, UserDataStats) {
        let stats = self.stats();
        let held = self.held.take().expect("the value is taken once");
        if let Released::Value(other) = self.slot.gate.release() {
            drop(other);
            registry::recycle(self.key);
        }
        let held = Arc::into_inner(held).expect("the gate held the only other reference");
        (held.value, stats)
    }
}

impl<T: Send + Sync + 'static> Drop for UserData<T> {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        // The gate's reference is the last, so that whoever takes it out drops the value.
        drop(held);
        match self.slot.gate.release() {
            Released::Value(value) => {
                contain("a user-data destructor", || drop(value));
                registry::recycle(self.key);
            }
            Released::Left => {
                ORPHANED.fetch_add(1, Relaxed);
            }
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for UserData<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserData")
            .field("pointer", &self.as_ptr())
            .field("shut", &self.is_shut())
            .field("inside", &self.slot.gate.inside())
            .finish_non_exhaustive()
    }
}

/// What happened to the calls of one registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserDataStats {
    /// Calls that got inside.
    pub calls: u64,
    /// Calls that are inside now.
    pub inside: usize,
    /// Calls that came after the gate was shut: swallowed.
    pub late: u64,
    /// Of `calls`: swallowed because of a [`BadArgument`](super::BadArgument).
    pub bad_arguments: u64,
    /// Of `calls`: the handler panicked.
    pub panicked: u64,
}

/// Why a registration isn't over yet. Its gate is shut.
#[derive(Error)]
#[non_exhaustive]
pub enum UnregisterError<T: Send + Sync + 'static> {
    /// The wait would be inside a callback, which could wait for itself: drop it, or wait elsewhere.
    #[error("this is a callback, where no wait may be: wait on another thread")]
    InCallback(UserData<T>),
    /// A call is still inside.
    #[error("a call is still inside: wait again, or drop it to leave the value to that call")]
    TimedOut(UserData<T>),
    /// The wait would block a thread that drives an event loop.
    #[error("the wait would block the event loop: await `idle` instead")]
    WouldDeadlock(UserData<T>),
}

impl<T: Send + Sync + 'static> UnregisterError<T> {
    /// The registration, to wait again.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::{UserData, enter};
    ///
    /// let registration = UserData::new(());
    /// enter::<(), _>(registration.as_ptr(), (), (), |_, _| {
    ///     // A call is inside: this one.
    ///     let registration = registration.unregister(None).unwrap_err().into_inner();
    ///     assert!(registration.is_shut());
    ///     Ok(())
    /// });
    /// assert_eq!(callbridge::ffi::process_stats().panicked, 0);
    /// ```
    pub fn into_inner(self) -> UserData<T> {
        match self {
            Self::InCallback(user_data)
            | Self::TimedOut(user_data)
            | Self::WouldDeadlock(user_data) => user_data,
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for UnregisterError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InCallback(_) => "InCallback(..)",
            Self::TimedOut(_) => "TimedOut(..)",
            Self::WouldDeadlock(_) => "WouldDeadlock(..)",
        })
    }
}
