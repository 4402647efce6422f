//! What tokio-console sees: each call is a task of its own, named after its bridge, at the line that
//! submitted it.
//!
//!     RUSTFLAGS="--cfg tokio_unstable" cargo test --features tracing --test tracing_tasks
#![cfg(tokio_unstable)]

mod common;

use callbridge::Bridge;
use common::{LONG, Loop};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The fields of the spans of tasks, as text.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<HashMap<&'static str, String>>>>);

impl<S: Subscriber> Layer<S> for Tasks {
    fn enabled(&self, _: &Metadata<'_>, _: Context<'_, S>) -> bool {
        true
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        struct Fields(HashMap<&'static str, String>);
        impl Visit for Fields {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0.insert(field.name(), format!("{value:?}"));
            }
            fn record_str(&mut self, field: &Field, value: &str) {
                self.0.insert(field.name(), value.to_owned());
            }
        }
        if attributes.metadata().name() == "runtime.spawn" {
            let mut fields = Fields(HashMap::new());
            attributes.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }
}

#[test]
fn each_call_is_a_task_with_a_name_and_the_line_of_its_submission() {
    let tasks = Tasks::default();
    let subscriber = tracing_subscriber::registry().with(tasks.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    for runtime in Loop::both() {
        let bridge = Bridge::builder(runtime.handle()).name("meter").build().unwrap();
        tasks.0.lock().unwrap().clear();
        let first = line!() + 1;
        bridge.run_coroutine_threadsafe(async {}).result(LONG).unwrap();
        bridge.try_run_coroutine_threadsafe(async {}).unwrap().result(LONG).unwrap();
        let timed = bridge.run_coroutine_threadsafe_timeout(async {}, LONG);
        timed.unwrap().result(LONG).unwrap();
        bridge.call_soon_threadsafe(|| {}).unwrap();
        bridge.try_call_soon_threadsafe(|| {}).unwrap();
        assert!(bridge.close_blocking(LONG).is_clean());
        let seen = tasks.0.lock().unwrap().clone();
        let told: Vec<_> = seen
            .iter()
            .filter(|fields| fields["task.name"] == "meter")
            .map(|fields| (fields["loc.file"].as_str(), fields["loc.line"].parse().unwrap()))
            .collect();
        let here = file!();
        let lines = [0, 1, 2, 4, 5].map(|line| (here, first + line));
        assert_eq!(told, lines, "{seen:?}");
    }
}
