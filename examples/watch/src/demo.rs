//! A program as there are many: a meter, a counter with orders, a library that calls back, a disk.

use crate::table::Figures;
use callbridge::listener::{Listener, Request, TcpServer, UdpSource};
use callbridge::{Bridge, Overflow, ThreadPool, channel};
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::codec::LinesCodec;

pub(crate) struct Demo {
    meter: Listener,
    orders: Listener,
    stop: Arc<AtomicBool>,
    load: Vec<JoinHandle<()>>,
}

impl Demo {
    pub(crate) fn start(handle: &Handle) -> Result<Self, Box<dyn Error>> {
        let bridge = Bridge::builder(handle.clone())
            .name("shop")
            .stall_after(Duration::from_secs(1), |stall| eprintln!("{stall}"))
            .build()?;
        let pool = ThreadPool::builder().name("disk").max_workers(2).build()?;

        let source = UdpSource::bind("127.0.0.1:0")?;
        let meter_at = source.local_addr()?;
        let (meter, mut readings) = Listener::builder(source)
            .name("meter")
            .capacity(64)
            .overflow(Overflow::DropOldest)
            .quiet_after(Duration::from_secs(5), || eprintln!("the meter is silent"))
            .spawn()?;
        handle.spawn(async move {
            let mut seen = 0_u64;
            while readings.recv().await.is_some() {
                seen += 1;
                if seen % 500 == 0 {
                    // It dawdles: the oldest readings make room.
                    sleep(Duration::from_millis(200)).await;
                }
            }
        });

        let server = TcpServer::bind("127.0.0.1:0", 256, LinesCodec::new)?;
        let orders_at = server.local_addr()?;
        let orders = Listener::builder(server)
            .name("orders")
            .serve(&bridge, |request: Request<String>| async move {
                if request.frame.ends_with('7') {
                    sleep(Duration::from_millis(2)).await;
                }
                Some(format!("{} is on its way", request.frame))
            })
            .spawn()?;

        // The library: it calls back from a thread of its own.
        let (positions, mut moved) = channel::builder().name("positions").capacity(32).build()?;
        let files = pool.clone();
        handle.spawn(async move {
            while let Some(position) = moved.recv().await {
                let write = move || thread::sleep(Duration::from_micros(300 + position % 700));
                let _written = callbridge::run_in_executor(&files, write).await;
            }
        });

        let stop = Arc::new(AtomicBool::new(false));
        let running = |stop: &Arc<AtomicBool>| {
            let stop = Arc::clone(stop);
            move || !stop.load(Ordering::Relaxed)
        };
        let (a, b, c, d) = (running(&stop), running(&stop), running(&stop), running(&stop));
        let load = vec![
            thread::spawn(move || tell_readings(meter_at, a)),
            thread::spawn(move || place_orders(orders_at, b)),
            thread::spawn(move || {
                (0_u64..).take_while(|_| c()).for_each(|position| {
                    let _ = positions.send(position);
                    thread::sleep(Duration::from_micros(500));
                });
            }),
            thread::spawn(move || {
                while d() {
                    let price = async {
                        sleep(Duration::from_millis(1)).await;
                        42
                    };
                    let _ = bridge.run_coroutine_threadsafe(price).result(Duration::from_secs(5));
                    thread::sleep(Duration::from_millis(2));
                }
            }),
        ];
        Ok(Demo { meter, orders, stop, load })
    }

    /// Whether the figures are those of a program that has run for some seconds.
    pub(crate) fn check(&self, figures: &Figures) -> Result<(), String> {
        let at_least = |metric: &str, name: &str, label: &str, least: f64| {
            let is = figures.get(metric, name, label);
            let wrong = || format!("{metric} of {name} is {is}, not at least {least}");
            (is >= least).then_some(()).ok_or_else(wrong)
        };
        at_least("listener_frames_total", "meter", "", 100.0)?;
        at_least("channel_lost_total", "meter", "evicted", 1.0)?;
        at_least("channel_wait_seconds", "meter", "0.5", 1e-9)?;
        at_least("listener_connections", "orders", "", 1.0)?;
        at_least("listener_requests_total", "orders", "replied", 100.0)?;
        at_least("listener_first_poll_seconds", "orders", "0.99", 1e-9)?;
        at_least("bridge_calls_total", "shop", "finished", 100.0)?;
        at_least("bridge_call_seconds", "shop", "0.5", 1e-9)?;
        at_least("channel_delivered_total", "positions", "", 100.0)?;
        at_least("pool_jobs_total", "disk", "completed", 100.0)?;
        at_least("pool_job_seconds", "disk", "0.5", 1e-4)?;
        for name in ["meter", "positions"] {
            let of = |metric: &str| figures.get(metric, name, "");
            let found = of("channel_delivered_total")
                + of("channel_depth")
                + of("channel_refused_total")
                + figures.sum("channel_lost_total", name, "-");
            let offered = of("channel_offered_total");
            if offered != found {
                return Err(format!("{name} was offered {offered} frames, and {found} are found"));
            }
        }
        Ok(())
    }

    pub(crate) fn stop(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let failed = self.load.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
        let orders = self.orders.close_blocking(Duration::from_secs(5));
        let meter = self.meter.close_blocking(Duration::from_secs(5));
        format!("the figures are right; meter: {meter}; orders: {orders}; threads failed: {failed}")
    }
}

fn tell_readings(meter: SocketAddr, go_on: impl Fn() -> bool) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    while go_on() {
        // Nobody may listen any more.
        let _ = socket.send_to(b"21.5", meter);
        thread::sleep(Duration::from_millis(1));
    }
}

fn place_orders(shop: SocketAddr, go_on: impl Fn() -> bool) {
    let stream = TcpStream::connect(shop).expect("the shop is open");
    stream.set_nodelay(true).expect("a setting");
    let mut answers = BufReader::new(&stream);
    let mut answer = String::new();
    for order in (0_u64..).take_while(|_| go_on()) {
        let line = format!("order {order}\n");
        if (&stream)
            .write_all(line.as_bytes())
            .and_then(|()| answers.read_line(&mut answer))
            .is_err()
        {
            return;
        }
        answer.clear();
        thread::sleep(Duration::from_micros(500));
    }
}
