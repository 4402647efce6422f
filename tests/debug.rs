//! `Debug` shows the state of a thing, and nothing of what it carries: frames, results and submitted work
//! may be secrets, or too large for a log.

use callbridge::channel::{self, FrameOrGap, SendError, Sent, Tracked};
use callbridge::executor::{
    CancelToken, CapacityLimiter, DedicatedThread, ThreadPool, run_in_executor,
};
use callbridge::future::{Refusal, SubmitError, as_completed, promise};
use callbridge::listener::{
    Gauge, Interrupter, Listener, ReadSource, Reopened, Request, WriteError,
};
use callbridge::{Bridge, Sender};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::codec::LinesCodec;

const LONG: Duration = Duration::from_secs(60);

/// What must not be seen.
struct Secret;

fn secret() -> String {
    "the secret".into()
}

/// `shown` starts like this, and gives nothing away.
fn shows(shown: &dyn Debug, start: &str) {
    let (line, lines) = (format!("{shown:?}"), format!("{shown:#?}"));
    assert!(line.starts_with(start), "{line}");
    assert!(!lines.contains("secret"), "{lines}");
}

#[test]
fn of_a_channel() {
    let (sender, frames) = channel::<String>(4);
    sender.send(secret()).unwrap();
    let sink = sender.clone().into_sink();
    shows(&channel::builder::<Secret>().name("meter"), "Builder { name: Some(\"meter\")");
    shows(&sender, "Sender { name: None, len: 1");
    shows(&sender.downgrade(), "WeakSender");
    shows(&sink, "SenderSink { sender: Some(Sender {");
    shows(&sender.reserve(None).unwrap(), "SendPermit");
    shows(&sender.reserve_async(), "Reserve");
    shows(&sender.send_async(secret()), "SendFuture");
    shows(&frames, "FrameStream {");
    shows(&frames.into_try_stream(), "TryFrameStream { frames: FrameStream {");
    let (_sender, frames) = channel::<String>(4);
    shows(&frames.with_gaps(), "GapStream { frames: FrameStream {");
    shows(&FrameOrGap::Frame(secret()), "Frame(..)");
    shows(&FrameOrGap::<Secret>::Gap(3), "Gap(3)");
    shows(&Sent::Evicted(secret()), "Evicted(..)");
    shows(&Sent::Dropped(secret()), "Dropped(..)");
    let (sender, mut frames) = channel::<u8>(1);
    sender.fail("unplugged");
    assert!(frames.try_recv().is_err());
    shows(&frames.error().unwrap(), "SourceError(\"unplugged\")");
    let (sender, mut frames) = channel::<Tracked<String>>(1);
    shows(&sender.send_tracked(secret()).unwrap(), "BlockingFuture { state: ");
    shows(&frames.try_recv().unwrap(), "Tracked");
    for (error, start) in [
        (SendError::Full(secret()), "Full(..)"),
        (SendError::TimedOut(secret()), "TimedOut(..)"),
        (SendError::Closed(secret()), "Closed(..)"),
        (SendError::WouldDeadlock(secret()), "WouldDeadlock(..)"),
        (SendError::TooHeavy(secret()), "TooHeavy(..)"),
    ] {
        shows(&error, start);
        assert!(!error.to_string().contains("secret"));
        assert_eq!(error.into_inner(), secret());
    }
}

#[test]
fn of_a_loss() {
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let tell = Arc::clone(&seen);
    let (sender, _frames) = channel::builder()
        .capacity(1)
        .overflow(channel::Overflow::DropNewest)
        .on_loss(move |loss: channel::Loss<'_, String>| {
            *tell.lock().unwrap() = format!("{loss:?}");
        })
        .build()
        .unwrap();
    sender.send(secret()).unwrap();
    sender.send(secret()).unwrap();
    assert_eq!(*seen.lock().unwrap(), "Loss { reason: Overflow, .. }");
}

#[test]
fn of_calls_and_their_errors() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let builder =
        Bridge::builder(runtime.handle().clone()).name("meters").stall_after(LONG, |_| ());
    assert!(format!("{builder:?}").contains("Alarm { after: 60s, .. }"), "{builder:?}");
    let bridge = builder.build().unwrap();
    shows(&bridge, "Bridge { name: \"meters\", in_flight: 0, closed: false");
    let (completer, future) = promise::<String>();
    shows(&completer, "Completer");
    shows(&future, "BlockingFuture { state: ");
    shows(&future.canceller(), "Canceller");
    completer.complete(secret());
    shows(&future, "BlockingFuture { state: Finished");
    let (_unfinished, pending) = promise::<String>();
    let mut completed = as_completed([future, pending], Duration::from_millis(1));
    shows(&completed, "AsCompleted { unfinished: 2");
    let mut first = completed.next().unwrap().unwrap();
    assert_eq!(first.result(LONG).unwrap(), secret());
    shows(&completed.next().unwrap().unwrap_err(), "AsCompletedError { why: TimedOut");
    let refused = Refusal::NotStarted(Arc::new(std::io::Error::other("no thread")));
    for (error, start) in [
        (SubmitError::Full(secret()), "Full(..)"),
        (SubmitError::TimedOut(secret()), "TimedOut(..)"),
        (SubmitError::WouldDeadlock(secret()), "WouldDeadlock(..)"),
        (SubmitError::Closed(secret()), "Closed(..)"),
        (SubmitError::Forked(secret()), "Forked(..)"),
        (SubmitError::Refused(refused, secret()), "Refused("),
    ] {
        shows(&error, start);
        assert_eq!(error.into_inner(), secret());
    }
}

#[test]
fn of_an_executor() {
    let limiter = CapacityLimiter::new(2);
    shows(&limiter, "CapacityLimiter { stats: ");
    shows(&limiter.try_acquire().unwrap(), "Permit");
    let builder = ThreadPool::builder().name("pooled");
    shows(&builder, "ExecutorBuilder { name: \"pooled\"");
    let pool = builder.build().unwrap();
    shows(&pool, "ThreadPool { name: \"pooled\"");
    shows(&run_in_executor(&pool, secret), "ThreadCall { state: ");
    let inside = || {
        let token = CancelToken::current().unwrap();
        shows(&token, "CancelToken { is_cancelled: false }");
        shows(&token.on_cancel(|| ()), "CancelHook");
    };
    pool.submit(inside).result(LONG).unwrap();
    pool.scope(|scope| shows(scope, "PoolScope { pending: 0")).unwrap();
    let device = DedicatedThread::spawn(|| Ok::<_, std::io::Error>(secret()));
    let device = { device }.result(LONG).unwrap();
    shows(&device, "DedicatedThread { name: ");
}

#[test]
fn of_a_listener() {
    let source = || ReadSource::new(&b"secret\n"[..], 80, LinesCodec::new()).unwrap();
    shows(&source(), "ReadSource { staged: 0");
    let builder = Listener::builder(source()).name("meter");
    shows(&builder, "ListenerBuilder { name: ");
    let (listener, frames) = builder.spawn().unwrap();
    let _ended = { frames }.recv_blocking(LONG);
    shows(&listener, "Listener { name: \"meter\", ending: ");
    let (told, notes) = std::sync::mpsc::channel();
    let body = move |sink: callbridge::listener::LoopHandle<String>| {
        shows(&sink, "LoopHandle { stopping: false");
        shows(&sink.on_stop(Interrupter::new(|| ())), "StopGuard");
        told.send(()).unwrap();
        Ok(())
    };
    let builder = Listener::from_fn(body);
    shows(&builder, "ListenerBuilder { name: ");
    let (_listener, _frames) = builder.spawn().unwrap();
    notes.recv_timeout(LONG).unwrap();
    shows(&Interrupter::new(|| ()), "Interrupter { set: true }");
    shows(&Gauge::default(), "Gauge { set: false }");
    shows(&Request::new(secret()), "Request { connection: ConnectionHandle {");
    let (sink, inbox) = callbridge::listener::inbox::<String>(2);
    let _written = sink.try_send(secret()).unwrap();
    shows(&sink, "FrameSink { queued: 1");
    shows(&inbox, "Inbox { queued: 1");
    shows(&inbox.try_recv().unwrap(), "Command");
    shows(&WriteError::Full(secret()), "Full(..)");
    shows(&WriteError::Closed(secret()), "Closed(..)");
    shows(&WriteError::<Secret>::NotYet, "NotYet");
    shows(&Reopened::Frame(secret()), "Frame(..)");
    shows(&Reopened::<Secret>::Up, "Up");
}

#[cfg(feature = "net")]
#[test]
fn of_sockets() {
    use callbridge::listener::{Datagram, TcpServer, TcpSource, UdpSource};
    use std::io::Write;
    let source = UdpSource::bind("127.0.0.1:0").unwrap();
    let addr = source.local_addr().unwrap();
    shows(&source, "DatagramSource { local: Some(127.0.0.1:");
    shows(&source.replier(), "Replier { open: true");
    shows(&Datagram::new(secret(), addr), "Datagram { bytes: 10, peer: 127.0.0.1:");
    let server = TcpServer::bind("127.0.0.1:0", 80, LinesCodec::new).unwrap();
    let addr = server.local_addr().unwrap();
    shows(&server, "StreamServer { terms: ");
    let (_listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = std::net::TcpStream::connect(addr).unwrap();
    client.write_all(b"secret\n").unwrap();
    let connection = connections.recv_blocking(LONG).unwrap();
    shows(&connection, "Connection { id: ");
    shows(&connection.handle(), "ConnectionHandle { id: ");
    let source = TcpSource::from_socket(client, 80, LinesCodec::new()).unwrap();
    shows(&source, "StreamSource { staged: 0");
}

#[cfg(feature = "runner")]
#[test]
fn of_a_runner() {
    use callbridge::ThreadRunner;
    shows(&ThreadRunner::builder().name("loop"), "ThreadRunnerBuilder { name: ");
    let runner = ThreadRunner::new();
    shows(&runner, "ThreadRunner { name: ");
    shows(&runner.downgrade(), "WeakRunner");
    let (here, _there) = tokio::io::duplex(8);
    shows(&runner.wrap_io(here).unwrap(), "BlockingIo { bridge: ");
    let lines = runner.wrap_iter(futures_util::stream::iter([secret()]));
    shows(&lines, "WrapIter { reader: ");
    let guard = runner
        .enter_context(
            || async { Ok::<_, std::io::Error>(secret()) },
            |_, _| async { Ok::<_, std::io::Error>(()) },
        )
        .unwrap();
    shows(&guard, "Guard { runner: ");
    assert!(guard.exit(callbridge::runner::Outcome::Ok).is_ok());
    assert!(runner.close(LONG).is_clean());
}

#[cfg(feature = "ffi")]
#[test]
fn of_user_data() {
    let registered = callbridge::ffi::UserData::new(secret());
    shows(&registered, "UserData { pointer: ");
}

#[cfg(feature = "testing")]
#[test]
fn of_what_tests_use() {
    use callbridge::testing::{ForeignThread, script};
    let (source, script) = script::<String>();
    script.frame(secret());
    shows(&source, "ScriptedSource");
    shows(&script, "Script { left: 1 }");
    shows(&ForeignThread::spawn("library").unwrap(), "ForeignThread { name: Some(\"library\") }");
}

fn channel<T>(capacity: usize) -> (Sender<T>, callbridge::FrameStream<T>) {
    callbridge::channel(capacity)
}
