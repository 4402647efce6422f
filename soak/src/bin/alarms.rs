//! The alarms, round after round: each is brought about and must come exactly once, and meanwhile a program
//! that is well, beside them, must be told of nothing.

use callbridge::bridge::Stall;
use callbridge::listener::{Datagram, Listener, UdpSource};
use callbridge::{Bridge, FrameStream};
use clap::Parser;
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle, Runtime};

/// When what is brought about is to be told.
const SOON: Duration = Duration::from_millis(100);
/// After which a program that is well would be told of: far longer than a busy machine holds it up.
const LATE: Duration = Duration::from_secs(2);
/// A bug would make a wait endless.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Parser)]
struct Args {
    /// How long to run, in seconds; the round that is running then is finished.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let began = Instant::now();
    let well = Well::start();
    let mut sick = Sick::start();
    let mut rounds = 0;
    while began.elapsed() < Duration::from_secs(args.seconds) || rounds == 0 {
        rounds += 1;
        let told = [
            ("a loop that isn't driven", sick.undriven()),
            ("a loop that is blocked", sick.blocked()),
            ("a handler that holds its thread", sick.held()),
            ("a source gone quiet", sick.quiet()),
        ];
        if let Some((what, times)) = told.into_iter().find(|(_, times)| *times != 1) {
            println!("FAILED in round {rounds}: {what} was told {times} times");
            return ExitCode::FAILURE;
        }
        if well.alarms.load(Relaxed) > 0 {
            println!("FAILED in round {rounds}: the program that is well was told of something");
            return ExitCode::FAILURE;
        }
    }
    let stalls = sick.bridge.stats().stalls;
    drop(sick);
    println!(
        "{rounds} rounds in {:?}: each of 4 alarms told {rounds} times ({stalls} stalls of one bridge); of {} \
         frames, {} requests and {} calls beside them none was late: {} alarms",
        began.elapsed(),
        well.frames.load(Relaxed),
        well.requests.load(Relaxed),
        well.calls.load(Relaxed),
        well.alarms.load(Relaxed),
    );
    well.stop();
    match watchdogs() {
        0 => ExitCode::SUCCESS,
        more => {
            println!("FAILED: {more} threads of the alarms are left");
            ExitCode::FAILURE
        }
    }
}

/// Waits for the alarms' thread to end, where that can be seen.
fn watchdogs() -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let left = names.filter(|name| name.starts_with("cb-watchdog")).count();
        if left == 0 || Instant::now() > deadline {
            return left;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn udp() -> (UdpSource, SocketAddr) {
    let source = UdpSource::bind("127.0.0.1:0").expect("a socket");
    let address = source.local_addr().expect("an address");
    (source, address)
}

fn client(of: SocketAddr) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    client.connect(of).expect("a peer");
    client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    client
}

/// How often the hook is called until it has been silent for a while; waits for the first time.
fn times(told: &Receiver<()>) -> usize {
    if told.recv_timeout(PATIENCE).is_err() {
        return 0;
    }
    let again = || told.recv_timeout(3 * SOON).is_ok();
    1 + std::iter::repeat_with(again).take_while(|more| *more).count()
}

/// A program that is well, under a light load.
struct Well {
    alarms: Arc<AtomicU64>,
    frames: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    load: Vec<thread::JoinHandle<()>>,
    _listeners: [Listener; 2],
    _runtime: Runtime,
}

impl Well {
    fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build();
        let runtime = runtime.expect("a runtime");
        let counter = Arc::<AtomicU64>::default;
        let (alarms, frames, requests, calls) = (counter(), counter(), counter(), counter());
        let tell = Arc::clone(&alarms);
        let bridge = Bridge::builder(runtime.handle().clone()).name("well");
        let bridge = bridge.stall_after(LATE, move |stall| {
            println!("told of what is well: {stall}");
            tell.fetch_add(1, Relaxed);
        });
        let bridge = bridge.build().expect("right settings");
        let (source, meter_at) = udp();
        let tell = Arc::clone(&alarms);
        let quiet = move || {
            println!("told of a source that isn't quiet");
            tell.fetch_add(1, Relaxed);
        };
        let (meter, mut readings): (_, FrameStream<Datagram>) = Listener::builder(source)
            .name("meter")
            .quiet_after(LATE, quiet)
            .spawn()
            .expect("a thread");
        let seen = Arc::clone(&frames);
        runtime.spawn(async move {
            while readings.recv().await.is_some() {
                seen.fetch_add(1, Relaxed);
            }
        });
        let (source, server_at) = udp();
        let server = Listener::builder(source)
            .name("server")
            .serve(&bridge, |request: Datagram| async move {
                tokio::time::sleep(Duration::from_millis(u64::from(request.payload[0] % 2))).await;
                Some("y")
            })
            .spawn()
            .expect("a thread");
        let stop = Arc::<AtomicBool>::default();
        let going_on = |pause: u64| {
            let stop = Arc::clone(&stop);
            move || {
                thread::sleep(Duration::from_millis(pause));
                !stop.load(Relaxed)
            }
        };
        let (first, second, third) = (going_on(20), going_on(15), going_on(10));
        let (answered, called) = (Arc::clone(&requests), Arc::clone(&calls));
        let load = vec![
            thread::spawn(move || {
                let socket = client(meter_at);
                while first() {
                    let _ = socket.send(b"21.5");
                }
            }),
            thread::spawn(move || {
                let socket = client(server_at);
                for n in (0_u8..=255).cycle().take_while(|_| second()) {
                    if socket.send(&[n]).and_then(|_| socket.recv(&mut [0; 8])).is_ok() {
                        answered.fetch_add(1, Relaxed);
                    }
                }
            }),
            thread::spawn(move || {
                // One waits for longer than the limit all the time, which is no stall.
                let _waiting = bridge.run_coroutine_threadsafe(std::future::pending::<()>());
                while third() {
                    let mut call = bridge.run_coroutine_threadsafe(async { 7 });
                    let pause = async { tokio::time::sleep(Duration::from_millis(1)).await };
                    let here = bridge.call(pause, PATIENCE);
                    if call.result(PATIENCE).is_ok() && here.is_ok() {
                        called.fetch_add(2, Relaxed);
                    }
                }
            }),
        ];
        let _listeners = [meter, server];
        Well { alarms, frames, requests, calls, stop, load, _listeners, _runtime: runtime }
    }

    fn stop(self) {
        self.stop.store(true, Relaxed);
        self.load.into_iter().for_each(|thread| thread.join().expect("it only counts"));
    }
}

/// What is made to stall, again and again.
struct Sick {
    bridge: Bridge,
    runtime: Runtime,
    stalls: Receiver<()>,
    held: Listener,
    held_at: UdpSocket,
    polls: Receiver<()>,
    release: mpsc::Sender<()>,
    _quiet: Listener,
    quiet_at: UdpSocket,
    silences: Receiver<()>,
    _well: Runtime,
}

impl Sick {
    fn start() -> Self {
        let runtime = Builder::new_current_thread().build().expect("a runtime");
        let well = Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        // A busy machine can hold up the other loop for so short a time, too: each is asked for its own kind.
        let watched = |handle: Handle, of_loop: bool| {
            let (tell, told) = mpsc::channel();
            let hook = move |stall: &Stall| {
                if matches!(stall, Stall::Loop(_)) == of_loop {
                    tell.send(()).expect("somebody listens");
                }
            };
            let bridge = Bridge::builder(handle).name("sick").stall_after(SOON, hook).build();
            (bridge.expect("right settings"), told)
        };
        let (bridge, stalls) = watched(runtime.handle().clone(), true);
        let (served, polls) = watched(well.handle().clone(), false);
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let (source, address) = udp();
        let held = Listener::builder(source)
            .name("held")
            .serve(&served, move |_: Datagram| {
                let _ = released.lock().expect("nobody panics").recv();
                async { Some("y") }
            })
            .spawn()
            .expect("a thread");
        let held_at = client(address);
        let (tell, silences) = mpsc::channel();
        let (source, address) = udp();
        let hook = move || tell.send(()).expect("somebody listens");
        let (_quiet, mut frames) = Listener::builder(source)
            .name("quiet")
            .quiet_after(SOON, hook)
            .spawn()
            .expect("a thread");
        // Its first silence, before anybody has spoken.
        let _first = silences.recv_timeout(PATIENCE);
        thread::spawn(move || while frames.recv_blocking(None).is_ok() {});
        let quiet_at = client(address);
        Sick {
            bridge,
            runtime,
            stalls,
            held,
            held_at,
            polls,
            release,
            _quiet,
            quiet_at,
            silences,
            _well: well,
        }
    }

    fn undriven(&mut self) -> usize {
        let mut call = self.bridge.run_coroutine_threadsafe(async {});
        let times = times(&self.stalls);
        self.runtime.block_on(async { (&mut call).await }).expect("it is driven now");
        times
    }

    fn blocked(&mut self) -> usize {
        let (release, released) = mpsc::channel::<()>();
        self.runtime.spawn(async move { released.recv() });
        let bridge = self.bridge.clone();
        thread::scope(|scope| {
            let driver = scope.spawn(|| {
                let mut call = bridge.run_coroutine_threadsafe(async {});
                self.runtime.block_on(async { (&mut call).await }).expect("it is free now");
            });
            let times = times(&self.stalls);
            drop(release);
            driver.join().expect("it only waits");
            times
        })
    }

    fn held(&mut self) -> usize {
        self.held_at.send(b"x").expect("it is there");
        let times = times(&self.polls);
        self.release.send(()).expect("it waits");
        self.held_at.recv(&mut [0; 8]).expect("an answer");
        assert!(!self.held.is_finished());
        times
    }

    fn quiet(&mut self) -> usize {
        self.quiet_at.send(b"x").expect("it is there");
        times(&self.silences)
    }
}
