//! What the library's thread runs.
//!
//! Each callback only hands over. The library holds its callback lock meanwhile, so nothing in here
//! calls it, apart from `mosquitto_subscribe`, which only queues.
#![allow(unsafe_code)]

use crate::event::{Event, Message};
use crate::receipts::Receipts;
use crate::sys;
use crate::tally::Tally;
use bytes::Bytes;
use callbridge::{Sender, trampoline};
use std::ffi::{CStr, CString, c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What is wanted of the broker, for each connection anew.
pub(crate) type Subscriptions = Mutex<Vec<(CString, c_int)>>;

/// Where the connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Down,
    Up,
    /// The broker said no, for this reason.
    Refused(c_int),
}

/// What the callbacks share; the library holds its `void *`.
pub(crate) struct Callbacks {
    pub(crate) events: Sender<Event>,
    pub(crate) hand_over: Box<dyn Fn(Event) + Send + Sync>,
    pub(crate) receipts: Arc<Receipts>,
    pub(crate) subscriptions: Arc<Subscriptions>,
    pub(crate) link: watch::Sender<Link>,
    pub(crate) tally: Arc<Tally>,
}

impl Callbacks {
    /// For a callback that panicked: the stream says so.
    pub(crate) fn panicked(&self, message: &str) {
        self.events.fail(format!("a callback panicked: {message}"));
    }
}

trampoline! {
    pub(crate) fn on_connect(mosq: *mut sys::Mosquitto, user_data: *mut c_void, code: c_int);
    |callbacks: Callbacks = user_data| {
        if code != 0 {
            callbacks.link.send_replace(Link::Refused(code));
            return;
        }
        let wanted = callbacks.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (pattern, qos) in wanted {
            let mut id = 0;
            // SAFETY: the library called with its client, and reads the pattern before it returns.
            let code = unsafe { sys::mosquitto_subscribe(mosq, &raw mut id, pattern.as_ptr(), qos) };
            if code == sys::SUCCESS {
                let departure = callbacks.receipts.depart(None, true);
                drop(callbacks.receipts.expect(id, departure));
            }
        }
        callbacks.link.send_replace(Link::Up);
        (callbacks.hand_over)(Event::Connected);
    }
}

trampoline! {
    pub(crate) fn on_disconnect(_mosq: *mut sys::Mosquitto, user_data: *mut c_void, _code: c_int);
    |callbacks: Callbacks = user_data| {
        callbacks.receipts.connection_lost();
        callbacks.link.send_replace(Link::Down);
        (callbacks.hand_over)(Event::Disconnected);
    }
}

trampoline! {
    pub(crate) fn on_publish(_mosq: *mut sys::Mosquitto, user_data: *mut c_void, id: c_int);
    |callbacks: Callbacks = user_data| {
        callbacks.receipts.resolve(id);
    }
}

trampoline! {
    pub(crate) fn on_subscribe(
        _mosq: *mut sys::Mosquitto,
        user_data: *mut c_void,
        id: c_int,
        _count: c_int,
        _granted: *const c_int,
    );
    |callbacks: Callbacks = user_data| {
        callbacks.receipts.resolve(id);
    }
}

trampoline! {
    pub(crate) fn on_message(
        _mosq: *mut sys::Mosquitto,
        user_data: *mut c_void,
        message: *const sys::Message,
    );
    |callbacks: Callbacks = user_data,
        message: &sys::Message = reference(message),
        topic: &CStr = c_str(message.topic),
        payload: &[u8] = bytes(message.payload, message.payloadlen)| {
        let message = Message {
            topic: topic.to_string_lossy().into_owned(),
            payload: Bytes::copy_from_slice(payload),
            qos: message.qos,
            retained: message.retain,
        };
        callbacks.tally.add(&message);
        (callbacks.hand_over)(Event::Message(message));
    }
}
