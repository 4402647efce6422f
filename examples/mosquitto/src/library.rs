//! The library's client, owned by one thread.
#![allow(unsafe_code)]

use crate::callbacks::{self, Callbacks};
use crate::error::CallError;
use crate::settings::Settings;
use crate::sys;
use bytes::Bytes;
use callbridge::ffi::{UserData, UserDataStats};
use std::ffi::{CStr, CString, c_int};
use std::ptr::{self, NonNull};
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How often a thread that is to end is told so again.
const WAKE_EVERY: Duration = Duration::from_millis(100);

/// A client of the library; `!Send`, so it is stopped and destroyed by the thread that made it.
pub(crate) struct Library {
    mosq: NonNull<sys::Mosquitto>,
    /// What the library has the `void *` of.
    callbacks: UserData<Callbacks>,
    /// Whether the library's thread was started and not joined yet.
    threaded: bool,
}

impl Library {
    /// Connects and starts the library's thread.
    pub(crate) fn start(settings: &Settings, callbacks: Callbacks) -> Result<Self, CallError> {
        static INIT: Once = Once::new();
        // SAFETY: it isn't thread-safe, and `Once` lets one thread call it, before all others here.
        INIT.call_once(|| unsafe {
            sys::mosquitto_lib_init();
        });
        let host = CString::new(&*settings.host)?;
        let id = settings.client_id.as_deref().map(CString::new).transpose()?;
        let id = id.as_deref().map_or(ptr::null(), CStr::as_ptr);
        let callbacks = UserData::with_panic_hook(callbacks, Callbacks::panicked);
        let clean = settings.clean_session || id.is_null();
        // SAFETY: the id is NULL or a string that outlives the call; the user data is never followed.
        let mosq = unsafe { sys::mosquitto_new(id, clean, callbacks.as_ptr()) };
        let Some(mosq) = NonNull::new(mosq) else {
            return Err(CallError::System(std::io::Error::last_os_error()));
        };
        let mut library = Library { mosq, callbacks, threaded: false };
        library.set_up(settings)?;
        let [port, keepalive] = [settings.port, settings.keepalive].map(c_int::from);
        // SAFETY: the client lives, and the host outlives the call.
        CallError::check(unsafe {
            sys::mosquitto_connect(mosq.as_ptr(), host.as_ptr(), port, keepalive)
        })?;
        // SAFETY: the client lives and has no thread yet.
        CallError::check(unsafe { sys::mosquitto_loop_start(mosq.as_ptr()) })?;
        library.threaded = true;
        Ok(library)
    }

    /// All that has to be set before there is another thread.
    fn set_up(&mut self, settings: &Settings) -> Result<(), CallError> {
        let mosq = self.mosq.as_ptr();
        let in_flight = settings.max_in_flight.into();
        // SAFETY: the client lives, no other thread knows of it, and the callbacks have the signatures
        // of `mosquitto.h`.
        unsafe {
            CallError::check(sys::mosquitto_int_option(mosq, sys::OPT_TCP_NODELAY, 1))?;
            CallError::check(sys::mosquitto_max_inflight_messages_set(mosq, in_flight))?;
            sys::mosquitto_connect_callback_set(mosq, callbacks::on_connect);
            sys::mosquitto_disconnect_callback_set(mosq, callbacks::on_disconnect);
            sys::mosquitto_publish_callback_set(mosq, callbacks::on_publish);
            sys::mosquitto_message_callback_set(mosq, callbacks::on_message);
            sys::mosquitto_subscribe_callback_set(mosq, callbacks::on_subscribe);
        }
        Ok(())
    }

    /// Hands a message to the library's thread; gives the id that its receipt will have.
    pub(crate) fn publish(
        &mut self,
        topic: &CStr,
        payload: &Bytes,
        qos: c_int,
    ) -> Result<c_int, CallError> {
        let length = c_int::try_from(payload.len()).map_err(|_| CallError::TooLong)?;
        let mut id = 0;
        // SAFETY: the client lives; the library copies the topic and the payload before it returns.
        let code = unsafe {
            sys::mosquitto_publish(
                self.mosq.as_ptr(),
                &raw mut id,
                topic.as_ptr(),
                length,
                payload.as_ptr().cast(),
                qos,
                false,
            )
        };
        match CallError::check(code) {
            // Without a connection the library says so, but keeps the message and sends it later.
            Err(CallError::NotConnected) if qos > 0 => Ok(id),
            answer => answer.map(|()| id),
        }
    }

    /// Hands a subscription to the library's thread; gives the id that its receipt will have.
    pub(crate) fn subscribe(&mut self, pattern: &CStr, qos: c_int) -> Result<c_int, CallError> {
        let mut id = 0;
        // SAFETY: the client lives; the library copies the pattern before it returns.
        CallError::check(unsafe {
            sys::mosquitto_subscribe(self.mosq.as_ptr(), &raw mut id, pattern.as_ptr(), qos)
        })?;
        Ok(id)
    }

    /// Ends the library's thread and waits for it; what happened to its calls.
    ///
    /// Blocks for as long as that takes.
    pub(crate) fn stop(&mut self) -> UserDataStats {
        // A callback that waits for room in the stream returns; later ones don't get in.
        self.callbacks.get().events.close();
        self.callbacks.shut();
        if std::mem::take(&mut self.threaded) {
            self.join();
            self.callbacks.get().receipts.close();
        }
        self.callbacks.stats()
    }

    /// `mosquitto_loop_stop` waits until the thread ends by itself, which it does when it finds that
    /// `mosquitto_disconnect` was called. A reconnect that is under way in that moment overwrites the
    /// note, and the wait would have no end: so it is called until the thread is gone.
    fn join(&mut self) {
        /// The library lets any thread disconnect.
        struct Stopping(NonNull<sys::Mosquitto>);
        // SAFETY: both threads below end before the client is destroyed, and the two functions that
        // they call lock what they share.
        unsafe impl Send for Stopping {}

        let stopping = Stopping(self.mosq);
        let (joined, waiting) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(move || {
                let stopping = stopping;
                // SAFETY: the client lives; its thread isn't this one.
                unsafe { sys::mosquitto_loop_stop(stopping.0.as_ptr(), false) };
                drop(joined);
            });
            loop {
                // SAFETY: the client lives.
                unsafe { sys::mosquitto_disconnect(self.mosq.as_ptr()) };
                if waiting.recv_timeout(WAKE_EVERY) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
        });
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        self.stop();
        // SAFETY: the client's thread was joined, and nobody else has the client. The callbacks go
        // after it, with the last field.
        unsafe { sys::mosquitto_destroy(self.mosq.as_ptr()) };
    }
}
