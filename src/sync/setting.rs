//! Why a builder refuses.

use std::borrow::Cow;
use std::io;

/// A setting that a builder rejected; the message says why, and what would do.
///
/// Every builder checks its settings when it builds, none panics. Where building does more than that, the
/// error is inside: of an [`io::Error`] of kind [`InvalidInput`](io::ErrorKind::InvalidInput), or of a
/// [`Refused`](crate::ResultError::Refused).
///
/// # Examples
///
/// ```
/// use callbridge::ThreadPool;
///
/// let refused = ThreadPool::builder().capacity(0).build().unwrap_err();
/// assert_eq!(refused.setting(), "capacity");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting} {why}")]
pub struct SettingError {
    setting: &'static str,
    why: Cow<'static, str>,
}

impl SettingError {
    pub(crate) fn new(setting: &'static str, why: impl Into<Cow<'static, str>>) -> Self {
        SettingError { setting, why: why.into() }
    }

    /// Refuses a name that no thread can have.
    pub(crate) fn check_name(name: &str) -> Result<(), Self> {
        match name.contains('\0') {
            true => Err(SettingError::new("name", "has a NUL byte in it: take it out")),
            false => Ok(()),
        }
    }

    /// The name of the setting, as the builder's method is called.
    ///
    /// # Examples
    ///
    /// ```
    /// let refused = callbridge::channel::builder::<u8>().watermarks(4, 4, |_| {}).build().unwrap_err();
    /// assert_eq!(refused.setting(), "watermarks");
    /// assert_eq!(refused.to_string(), "watermarks are out of order: the low one (4) must lie below the high one (4)");
    /// ```
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl From<SettingError> for io::Error {
    fn from(error: SettingError) -> Self {
        io::Error::new(io::ErrorKind::InvalidInput, error)
    }
}
