//! What tokio-console sees: each call is a task of its own, named after its bridge, at the line that
//! submitted it; calls that their thread polls and jobs of pools are shown beside the tasks.
//!
//!     RUSTFLAGS="--cfg tokio_unstable" cargo test --features tracing --test tracing_tasks
#![cfg(tokio_unstable)]

mod common;

use callbridge::listener::{Datagram, Listener, UdpSource};
use callbridge::{Bridge, ThreadPool};
use common::{LONG, Loop};
use std::collections::{HashMap, HashSet};
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The fields of the spans of tasks, as text; and the tasks that somebody has a waker of.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<HashMap<&'static str, String>>>>, Arc<Mutex<HashSet<String>>>);

struct Fields(HashMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl<S: Subscriber> Layer<S> for Tasks {
    fn enabled(&self, _: &Metadata<'_>, _: Context<'_, S>) -> bool {
        true
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "tokio::task::waker" {
            let mut fields = Fields(HashMap::new());
            event.record(&mut fields);
            if fields.0["op"] == "waker.clone" {
                self.1.lock().unwrap().extend(fields.0.remove("task.id"));
            }
        }
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().name() == "runtime.spawn" {
            let mut fields = Fields(HashMap::from([("id", id.into_u64().to_string())]));
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
    other_work_is_shown_beside_the_tasks(&tasks);
}

fn other_work_is_shown_beside_the_tasks(tasks: &Tasks) {
    let runtime = Loop::multi(1);
    let bridge = Bridge::builder(runtime.handle()).name("front").build().unwrap();
    let pool = ThreadPool::builder().name("disk").build().unwrap();
    tasks.0.lock().unwrap().clear();
    let first = line!() + 1;
    bridge.call(async {}, LONG).unwrap();
    pool.submit(|| ()).result(LONG).unwrap();
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(source.local_addr().unwrap()).unwrap();
    let serve = Listener::builder(source).serve(&bridge, |_: Datagram| async {
        tokio::task::yield_now().await;
        Some("y")
    });
    let listener = serve.spawn().unwrap();
    client.send(b"x").unwrap();
    client.recv(&mut [0; 8]).unwrap();
    assert!(listener.close_blocking(LONG).is_clean());
    let seen = tasks.0.lock().unwrap().clone();
    let shown = |kind: &str, name: &str| {
        let is =
            |fields: &&HashMap<_, String>| fields["kind"] == kind && fields["task.name"] == name;
        let found = seen.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}: {seen:?}"));
        // The console warns of a task that waits, and that nobody has a waker of.
        assert!(kind == "task" || tasks.1.lock().unwrap().contains(&found["id"]), "{found:?}");
        (found["loc.file"].clone(), found["loc.line"].parse::<u32>().unwrap())
    };
    let here = file!().to_owned();
    assert_eq!(shown("call", "front"), (here.clone(), first));
    assert_eq!(shown("job", "disk"), (here, first + 1));
    // A handler goes on where the crate's own code sent it: its name says whose it is.
    shown("task", &format!("front {}:{}", file!(), first + 9));
}
