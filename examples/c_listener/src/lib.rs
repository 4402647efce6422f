//! A C library that calls back from a thread of its own, wrapped once and then used without `unsafe`.

use callbridge::Sender;
use callbridge::ffi::{UserData, UserDataStats, in_callback};
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr::NonNull;
use std::time::Duration;

/// `void (*)(const uint8_t *data, size_t len, void *user_data)`
pub type OnFrame = unsafe extern "C" fn(*const u8, usize, *mut c_void);

#[repr(C)]
struct RawListener {
    _private: [u8; 0],
}

#[allow(unsafe_code, reason = "the declarations of c/listener.h")]
unsafe extern "C" {
    fn c_listener_start(
        on_frame: OnFrame,
        user_data: *mut c_void,
        port: *mut u16,
    ) -> *mut RawListener;
    fn c_listener_stop(listener: *mut RawListener) -> c_int;
    fn c_listener_kill(listener: *mut RawListener) -> c_int;
    fn c_listener_detach(listener: *mut RawListener);
}

callbridge::trampoline! {
    /// What C calls for every frame: a copy goes into the channel, whose policy decides if it is full.
    fn on_frame(data: *const u8, len: usize, user_data: *mut c_void);
    |sender: Sender<Vec<u8>> = user_data, frame: &[u8] = bytes(data, len)| {
        // A refused frame is in the channel's counters.
        let _ = sender.try_send(frame.to_vec());
    }
}

/// A listener of the C library that feeds a channel.
#[derive(Debug)]
pub struct CListener {
    raw: NonNull<RawListener>,
    registration: Option<UserData<Sender<Vec<u8>>>>,
    port: u16,
}

#[allow(unsafe_code, reason = "a C listener may be stopped from any thread")]
// SAFETY: the library ties a listener to no thread, and `raw` is used by its one owner alone.
unsafe impl Send for CListener {}

#[allow(unsafe_code, reason = "calls C")]
impl CListener {
    /// Starts the C library's thread on a free loopback port.
    pub fn start(sender: Sender<Vec<u8>>) -> io::Result<Self> {
        let registration = UserData::with_panic_hook(sender, |sender, message| {
            sender.fail(message);
        });
        let mut port = 0;
        // SAFETY: `on_frame` has the signature of the header, looks its user data up whenever it
        // comes, and `port` outlives the call.
        let raw = unsafe { c_listener_start(on_frame, registration.as_ptr(), &raw mut port) };
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        Ok(CListener { raw, registration: Some(registration), port })
    }

    /// Where to send datagrams.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops the library's thread and ends the stream, once every frame before is in it.
    ///
    /// Inside a callback it is only asked to stop.
    pub fn stop(self, timeout: Duration) -> io::Result<UserDataStats> {
        // SAFETY: `raw` is alive, and C's function gets it for the last time.
        self.end(timeout, |raw| unsafe { c_listener_stop(raw) })
    }

    /// As [`stop`](Self::stop), by `pthread_cancel`.
    pub fn kill(self, timeout: Duration) -> io::Result<UserDataStats> {
        // SAFETY: `raw` is alive, and C's function gets it for the last time.
        self.end(timeout, |raw| unsafe { c_listener_kill(raw) })
    }

    fn end(
        mut self,
        timeout: Duration,
        end: impl FnOnce(*mut RawListener) -> c_int,
    ) -> io::Result<UserDataStats> {
        if in_callback() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let failed = end(self.raw.as_ptr());
        if failed != 0 {
            // The thread still runs: `drop` lets it end by itself.
            return Err(io::Error::from_raw_os_error(failed));
        }
        let Some(registration) = self.registration.take() else { unreachable!("taken by `end`") };
        std::mem::forget(self);
        // The end of the last sender is the end of the stream.
        let (_, stats) = registration.unregister(timeout).map_err(io::Error::other)?;
        Ok(stats)
    }
}

impl Drop for CListener {
    #[allow(unsafe_code, reason = "calls C")]
    fn drop(&mut self) {
        // SAFETY: `raw` is alive and nobody uses it after; C's thread frees it by itself.
        unsafe { c_listener_detach(self.raw.as_ptr()) };
    }
}
