//! Calls that don't reach their handler show, once for each registration.

use super::{call, handler};
use callbridge::ffi::UserData;
use std::ffi::c_void;
use std::ptr::null;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The messages of the crate.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
        }
        if event.metadata().target() == "callbridge" {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}

/// What was said while `body` ran.
fn said(body: impl FnOnce()) -> Vec<String> {
    let events = Events::default();
    let subscriber = tracing_subscriber::registry().with(events.clone());
    tracing::subscriber::with_default(subscriber, body);
    std::mem::take(&mut *events.0.lock().unwrap())
}

#[test]
fn the_first_late_call_of_a_registration_is_an_event() {
    for _ in 0..2 {
        let user_data = handler(|| 0);
        let events = said(|| {
            assert_eq!(call(user_data.as_ptr()), 0);
            user_data.shut();
            assert_eq!(call(user_data.as_ptr()), -2);
            assert_eq!(call(user_data.as_ptr()), -2);
        });
        let [event] = &events[..] else { panic!("not one event: {events:?}") };
        assert!(event.contains("its gate is shut"), "{event}");
    }
}

#[test]
fn the_first_bad_argument_of_a_registration_is_an_event() {
    callbridge::trampoline! {
        fn on_frame(data: *const u8, len: i32, user_data: *mut c_void);
        |_nothing: () = user_data, _frame: &[u8] = bytes(data, len)| {}
    }
    for _ in 0..2 {
        let user_data = UserData::new(());
        // SAFETY: both are refused.
        let events = said(|| unsafe {
            on_frame(null(), -1, user_data.as_ptr());
            on_frame(null(), 1, user_data.as_ptr());
        });
        let [event] = &events[..] else { panic!("not one event: {events:?}") };
        assert!(event.contains("the length is impossible"), "{event}");
    }
}
