//! What this example needs of `mosquitto.h`: libmosquitto 2.0, on Debian the package libmosquitto-dev.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::marker::{PhantomData, PhantomPinned};

pub(crate) const SUCCESS: c_int = 0;
pub(crate) const NO_CONN: c_int = 4;
pub(crate) const ERRNO: c_int = 14;
pub(crate) const OPT_TCP_NODELAY: c_int = 11;

/// `struct mosquitto`: a client, of which C alone knows the inside.
#[repr(C)]
pub(crate) struct Mosquitto {
    _inside: [u8; 0],
    _not_send: PhantomData<(*mut u8, PhantomPinned)>,
}

/// `struct mosquitto_message`: the library frees it when the callback has returned.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Message {
    pub(crate) mid: c_int,
    pub(crate) topic: *mut c_char,
    pub(crate) payload: *mut c_void,
    pub(crate) payloadlen: c_int,
    pub(crate) qos: c_int,
    pub(crate) retain: bool,
}

type OnCode = unsafe extern "C" fn(*mut Mosquitto, *mut c_void, c_int);
type OnMessage = unsafe extern "C" fn(*mut Mosquitto, *mut c_void, *const Message);
type OnSubscribe = unsafe extern "C" fn(*mut Mosquitto, *mut c_void, c_int, c_int, *const c_int);

#[link(name = "mosquitto")]
unsafe extern "C" {
    pub(crate) fn mosquitto_lib_init() -> c_int;
    pub(crate) fn mosquitto_strerror(code: c_int) -> *const c_char;

    pub(crate) fn mosquitto_new(
        id: *const c_char,
        clean_session: bool,
        user_data: *mut c_void,
    ) -> *mut Mosquitto;
    pub(crate) fn mosquitto_destroy(mosq: *mut Mosquitto);
    pub(crate) fn mosquitto_int_option(mosq: *mut Mosquitto, option: c_int, value: c_int) -> c_int;
    pub(crate) fn mosquitto_max_inflight_messages_set(
        mosq: *mut Mosquitto,
        messages: c_uint,
    ) -> c_int;

    pub(crate) fn mosquitto_connect_callback_set(mosq: *mut Mosquitto, callback: OnCode);
    pub(crate) fn mosquitto_disconnect_callback_set(mosq: *mut Mosquitto, callback: OnCode);
    pub(crate) fn mosquitto_publish_callback_set(mosq: *mut Mosquitto, callback: OnCode);
    pub(crate) fn mosquitto_message_callback_set(mosq: *mut Mosquitto, callback: OnMessage);
    pub(crate) fn mosquitto_subscribe_callback_set(mosq: *mut Mosquitto, callback: OnSubscribe);

    pub(crate) fn mosquitto_connect(
        mosq: *mut Mosquitto,
        host: *const c_char,
        port: c_int,
        keepalive: c_int,
    ) -> c_int;
    pub(crate) fn mosquitto_disconnect(mosq: *mut Mosquitto) -> c_int;
    pub(crate) fn mosquitto_loop_start(mosq: *mut Mosquitto) -> c_int;
    pub(crate) fn mosquitto_loop_stop(mosq: *mut Mosquitto, force: bool) -> c_int;

    pub(crate) fn mosquitto_publish(
        mosq: *mut Mosquitto,
        mid: *mut c_int,
        topic: *const c_char,
        payloadlen: c_int,
        payload: *const c_void,
        qos: c_int,
        retain: bool,
    ) -> c_int;
    pub(crate) fn mosquitto_subscribe(
        mosq: *mut Mosquitto,
        mid: *mut c_int,
        pattern: *const c_char,
        qos: c_int,
    ) -> c_int;
}
