//! With the `tracing` feature, work runs in its submitter's span, and unread errors are reported.

mod common;

use bytes::BytesMut;
use callbridge::listener::{Listener, Request, TcpServer};
use common::{LONG, Loop, eventually};
use std::future::pending;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use tokio_util::codec::{Decoder, Encoder, LinesCodec, LinesCodecError};
use tracing::field::{Field, Visit};
use tracing::{Event, Span, Subscriber, info_span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Collects the events of the crate.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0 += &format!("{}={value:?} ", field.name());
            }
        }
        if event.metadata().target() == "callbridge" {
            let mut text = Text(String::new());
            event.record(&mut text);
            self.0.lock().unwrap().push(text.0);
        }
    }
}

fn current() -> Option<&'static str> {
    Span::current().metadata().map(tracing::Metadata::name)
}

/// What the crate has said so far; the subscriber is the process's.
fn events() -> &'static Events {
    static EVENTS: OnceLock<Events> = OnceLock::new();
    EVENTS.get_or_init(|| {
        let events = Events::default();
        let subscriber = tracing_subscriber::registry().with(events.clone());
        tracing::subscriber::set_global_default(subscriber).unwrap();
        events
    })
}

impl Events {
    fn with(&self, text: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|event| event.contains(text)).count()
    }
}

/// C83, G25
#[test]
fn work_runs_in_its_submitters_span_and_unread_errors_are_reported_once() {
    let events = events();
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        let span = info_span!("caller");
        let mut call = span.in_scope(|| {
            bridge.run_coroutine_threadsafe(async {
                let first = current();
                tokio::task::yield_now().await;
                (first, current())
            })
        });
        assert_eq!(call.result(LONG).unwrap(), (Some("caller"), Some("caller")));
        let mut outside = bridge.run_coroutine_threadsafe(async { current() });
        assert_eq!(outside.result(LONG).unwrap(), None, "the span doesn't leak to other work");
    }

    let runtime = Loop::multi(1);
    let bridge = runtime.bridge();
    // A value that nobody reads, a panic that somebody reads, a cancel and the loop's end: no events.
    let mut value = bridge.run_coroutine_threadsafe(async { 1 });
    value.wait(LONG).unwrap();
    drop(value);
    let mut read = bridge.run_coroutine_threadsafe(async { panic!("somebody reads this") });
    drop::<Result<(), _>>(read.result(LONG));
    drop(read);
    let mut cancelled = bridge.run_coroutine_threadsafe(pending::<()>());
    cancelled.cancel_and_wait(LONG).unwrap();
    drop(cancelled);
    drop(bridge.run_coroutine_threadsafe(pending::<()>()));

    let (ended, end) = mpsc::channel();
    let call = bridge.run_coroutine_threadsafe(async {
        tokio::task::yield_now().await;
        panic!("nobody reads this")
    });
    call.add_done_callback(move |_| ended.send(()).unwrap());
    drop::<callbridge::BlockingFuture<()>>(call);
    end.recv_timeout(LONG).unwrap();
    drop(runtime);
    assert_eq!(events.with("nobody reads this"), 1);
    assert_eq!(events.with("whose result nobody read"), 1, "nor of any other call");
}

/// b22. Kotlin: the panic of a drop hook is reported, not lost.
#[test]
fn a_panic_in_the_loss_hook_is_reported() {
    let events = events();
    let (sender, frames) = callbridge::channel::builder()
        .on_loss(|_: callbridge::channel::Loss<'_, u8>| panic!("the hook's own fault"))
        .build()
        .unwrap();
    sender.send(1).unwrap();
    drop(frames);
    assert_eq!(events.with("the hook's own fault"), 1);
}

/// Fire and forget: Rust can't tell of a value that it is an error, so whoever detaches says so.
#[test]
fn an_error_that_a_detached_call_ends_with_is_reported() {
    let events = events();
    for runtime in Loop::both() {
        let bridge = runtime.bridge();
        // It ends after, and before, the detaching.
        let (go, gone) = tokio::sync::oneshot::channel::<()>();
        let late = bridge.run_coroutine_threadsafe(async {
            let _ = gone.await;
            Err::<(), _>("disk 4711 full")
        });
        late.detach();
        go.send(()).unwrap();
        let mut early = bridge.run_coroutine_threadsafe(async { Err::<(), _>("disk 4712 full") });
        early.wait(LONG).unwrap();
        early.detach();
        bridge.run_coroutine_threadsafe(async { Ok::<_, String>("disk 4713 fine") }).detach();
        // A plain drop says nothing of it.
        drop(bridge.run_coroutine_threadsafe(async { Err::<(), _>("disk 4714 full") }));
        assert!(bridge.close_blocking(LONG).is_clean(), "its reports included");
    }
    let of = |disk| events.with(disk);
    assert_eq!((of("4711"), of("4712"), of("4713"), of("4714")), (2, 2, 0, 0));
}

#[test]
fn an_ending_with_an_error_that_nobody_looked_at_is_reported_once() {
    let events = events();
    let end = |error: &'static str, look: fn(&mut callbridge::FrameStream<u8>)| {
        let (sender, mut frames) = callbridge::channel(1);
        sender.fail(error);
        look(&mut frames);
        drop((sender, frames));
    };
    end("unread, as the stream was", |_| {});
    end("unread, though the end was read", |frames| assert!(frames.try_recv().is_err()));
    end("read as an error", |frames| {
        assert!(frames.try_recv().is_err());
        assert!(frames.error().is_some());
    });
    end("read as an ending", |frames| {
        assert!(frames.try_recv().is_err());
        assert_eq!(frames.ending(), Some(callbridge::channel::Ending::Failed));
    });
    assert_eq!(events.with("unread, as the stream was"), 1);
    assert_eq!(events.with("unread, though the end was read"), 1);
    assert_eq!(events.with("read as an"), 0);
}

/// What ends a source is told, whether or not anybody asks for it.
#[test]
fn an_error_or_a_panic_of_a_source_is_reported() {
    let events = events();
    let broken = || Err(std::io::Error::other("line 4720 is dead"));
    let (listener, mut frames) = Listener::from_fn::<u8, _>(move |_| broken()).spawn().unwrap();
    frames.recv_blocking(LONG).unwrap_err();
    drop((listener, frames));
    let (listener, mut frames) =
        Listener::from_fn::<u8, _>(|_| panic!("bug 4721")).spawn().unwrap();
    frames.recv_blocking(LONG).unwrap_err();
    drop((listener, frames));
    eventually("two events", || events.with("line 4720") >= 1 && events.with("bug 4721") >= 1);
}

/// Panics on a line that says so.
struct Fragile(LinesCodec);

impl Decoder for Fragile {
    type Item = String;
    type Error = LinesCodecError;
    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<String>, LinesCodecError> {
        let line = self.0.decode(bytes)?;
        assert!(line.as_deref() != Some("boom"), "bug 4722");
        Ok(line)
    }
}

impl Encoder<String> for Fragile {
    type Error = LinesCodecError;
    fn encode(&mut self, line: String, bytes: &mut BytesMut) -> Result<(), LinesCodecError> {
        self.0.encode(line, bytes)
    }
}

/// Nobody sees the stream of a served connection: what ends it is told.
#[test]
fn what_ends_a_served_connection_is_reported() {
    let events = events();
    let runtime = Loop::multi(1);
    let server = TcpServer::bind("127.0.0.1:0", 100, || Fragile(LinesCodec::new())).unwrap();
    let listener = Listener::builder(server)
        .name("reports-4723")
        .serve(&runtime.bridge(), |request: Request<String>| async move { Some(request.frame) })
        .spawn()
        .unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"boom\n").unwrap();
    eventually("the panic", || events.with("bug 4722") == 1);
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"hello\n").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    eventually("the reset", || events.with("reports-4723 failed") == 1);
    listener.stop();
    assert!(listener.close_blocking(LONG).is_clean());
}

#[test]
fn a_stall_and_a_quiet_source_are_events() {
    let events = events();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bridge = callbridge::Bridge::builder(runtime.handle().clone())
        .name("undriven 4720")
        .stall_after(std::time::Duration::from_millis(10), |_| ())
        .build()
        .unwrap();
    let _call = bridge.run_coroutine_threadsafe(async {});
    eventually("the stall is told", || events.with("undriven 4720 has stalled") == 1);
    let source = callbridge::listener::UdpSource::bind("127.0.0.1:0").unwrap();
    let (_listener, _frames) = Listener::builder(source)
        .name("silent 4721")
        .quiet_after(std::time::Duration::from_millis(10), || ())
        .spawn()
        .unwrap();
    eventually("its silence is told", || events.with("silent 4721 has gone quiet") == 1);
}
