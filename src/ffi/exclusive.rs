use std::sync::{Mutex, TryLockError};
use thiserror::Error;

/// A handler for one thread at a time, behind a lock that never waits.
///
/// A [`UserData`](super::UserData) is shared by all threads that C calls from, so what it holds is
/// `Sync`. A handler that has to change itself goes in here: a call that finds it in use by another
/// thread, or by an outer call of the same thread, is told so at once.
///
/// # Examples
///
/// ```
/// use callbridge::ffi::{Busy, Exclusive};
///
/// let count = Exclusive::new(0);
/// assert_eq!(count.try_with(|count| { *count += 1; *count }), Ok(1));
/// assert_eq!(count.try_with(|_| count.try_with(|_| ())), Ok(Err(Busy)));
/// ```
#[derive(Debug, Default)]
pub struct Exclusive<H> {
    handler: Mutex<H>,
}

/// The handler is in use: by another thread, or by an outer call of this one.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the handler is in use: count the call as lost or share the handler")]
pub struct Busy;

impl<H> Exclusive<H> {
    /// A handler for one thread at a time.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::{Exclusive, UserData};
    ///
    /// let registration = UserData::new(Exclusive::new(Vec::<u8>::new()));
    /// # assert!(!registration.is_shut());
    /// ```
    pub const fn new(handler: H) -> Self {
        Exclusive { handler: Mutex::new(handler) }
    }

    /// Runs `call` on the handler, unless it is in use. A panic leaves it usable.
    ///
    /// # Errors
    ///
    /// [`Busy`] at once, never after a wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use callbridge::ffi::Exclusive;
    /// use std::ffi::c_void;
    ///
    /// callbridge::trampoline! {
    ///     fn on_frame(data: *const u8, len: usize, user_data: *mut c_void);
    ///     |all: Exclusive<Vec<u8>> = user_data, frame: &[u8] = bytes(data, len)| {
    ///         if all.try_with(|all| all.extend_from_slice(frame)).is_err() {
    ///             eprintln!("a frame is lost: the library calls from two threads");
    ///         }
    ///     }
    /// }
    /// ```
    pub fn try_with<R>(&self, call: impl FnOnce(&mut H) -> R) -> Result<R, Busy> {
        match self.handler.try_lock() {
            Ok(mut handler) => Ok(call(&mut handler)),
            Err(TryLockError::Poisoned(handler)) => Ok(call(&mut handler.into_inner())),
            Err(TryLockError::WouldBlock) => Err(Busy),
        }
    }

    /// The handler itself.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(callbridge::ffi::Exclusive::new(5).into_inner(), 5);
    /// ```
    pub fn into_inner(self) -> H {
        self.handler.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
