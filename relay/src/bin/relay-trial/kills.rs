//! The server and the relays killed, the stream full, from files whose position is acknowledged.

use crate::Outcome;
use crate::check::read;
use crate::process::Process;
use async_nats::jetstream::{self, stream};
use callbridge_relay::server::NatsServer;
use clap::Args;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

#[derive(Args)]
pub(crate) struct Kills {
    /// Frames in all
    #[arg(long, default_value_t = 1_000_000)]
    frames: u64,
    /// Kills of the server, and of each relay
    #[arg(long, default_value_t = 3)]
    kills: u64,
    /// Messages in flight, of each relay
    #[arg(long, default_value_t = 256)]
    window: usize,
}

/// Relay processes.
const RELAYS: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(600);

/// A relay process that carries a file, started again whenever it was killed.
struct Carrier {
    number: u64,
    directory: PathBuf,
    url: String,
    window: String,
    child: Child,
    starts: u64,
}

impl Carrier {
    fn start(number: u64, directory: &Path, url: String, window: usize) -> Outcome<Self> {
        let directory = directory.to_owned();
        let window = window.to_string();
        let child = spawn(number, &directory, &url, &window, 0)?;
        Ok(Carrier { number, directory, url, window, child, starts: 1 })
    }

    /// Kills it and starts it again.
    fn kill(&mut self) -> Outcome {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(self.number, &self.directory, &self.url, &self.window, self.starts)?;
        self.starts += 1;
        Ok(())
    }

    /// What each of its processes said last.
    fn said(&self) -> Outcome<Vec<String>> {
        let mut last = Vec::new();
        for start in 0..self.starts {
            let text = fs::read_to_string(log(self.number, &self.directory, start))?;
            last.extend(text.lines().last().map(str::to_owned));
        }
        Ok(last)
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log(number: u64, directory: &Path, start: u64) -> PathBuf {
    directory.join(format!("relay{number}.{start}.log"))
}

fn spawn(number: u64, directory: &Path, url: &str, window: &str, start: u64) -> Outcome<Child> {
    let file = directory.join(format!("lines{number}"));
    Ok(Process::relay()?
        .args(["forward", "--server", url, "--window", window, "--report-every", "0.05"])
        .args(["--stream", &format!("R{number}"), "--subject", &format!("r{number}.x")])
        .args(["--drain", "600", "--file"])
        .arg(file)
        .stdin(Stdio::null())
        .stderr(File::create(log(number, directory, start))?)
        .spawn()?)
}

/// What a relay process has in flight at most, and so what a kill may have it send twice.
const WINDOW: u64 = 256;

impl Kills {
    pub(crate) async fn run(self) -> Outcome {
        let each = self.frames / RELAYS;
        let directory = tempfile::tempdir()?;
        let mut server = NatsServer::start()?;
        let context = jetstream::new(async_nats::connect(server.url()).await?);
        // Half of the first relay's frames fit at first.
        let limits = [i64::try_from(each / 2)?, -1];
        for relay in 0..RELAYS {
            write_lines(&directory.path().join(format!("lines{relay}")), each)?;
            context.create_stream(config(relay, limits[usize::try_from(relay)?])).await?;
        }
        let began = Instant::now();
        let mut carriers = Vec::new();
        let mut readers = Vec::new();
        for relay in 0..RELAYS {
            carriers.push(Carrier::start(relay, directory.path(), server.url(), self.window)?);
            readers.push(tokio::spawn(read(server.url(), format!("R{relay}"), each)));
        }
        // The kills are spread over the second relay's way; the first meets some of them while it is full.
        let steps = self.kills * 2 + 2;
        for step in 1..=self.kills * 2 {
            wait_for(&context, 1, each * step / steps).await?;
            if step % 2 == 1 {
                server.kill()?;
                tokio::time::sleep(Duration::from_millis(200)).await;
                server.restart()?;
            } else {
                for carrier in &mut carriers {
                    carrier.kill()?;
                }
            }
            println!(
                "{:.1} s: killed the {}",
                began.elapsed().as_secs_f64(),
                if step % 2 == 1 { "server" } else { "relays" }
            );
        }
        wait_for(&context, 0, each / 2).await?;
        wait_for(&context, 1, each).await?;
        println!("{:.1} s: the first stream is full", began.elapsed().as_secs_f64());
        context.update_stream(config(0, -1)).await?;
        for carrier in &mut carriers {
            let ended = carrier.child.wait()?;
            if !ended.success() {
                return Err(format!("a relay ended with {ended}: {:?}", carrier.said()?).into());
            }
        }
        println!("{:.1} s: everything is acknowledged", began.elapsed().as_secs_f64());
        let mut right = true;
        for (relay, reader) in readers.into_iter().enumerate() {
            let arrived = reader.await??;
            println!("relay {relay}: {arrived:?}");
            right &= arrived.is_right() && arrived.stored == each;
        }
        for carrier in &carriers {
            let said = carrier.said()?;
            println!(
                "relay {}: {} processes; the last counters of each:",
                carrier.number,
                said.len()
            );
            for line in &said {
                println!("    {line}");
            }
            let again = said.iter().filter_map(|line| number_before(line, " of them again"));
            let (again, kills) = (again.sum::<u64>(), said.len() as u64 - 1);
            println!(
                "    of {each} frames {again} were sent again by the same process, and at most {} by the next one",
                kills * WINDOW
            );
        }
        match right {
            true => Ok(()),
            false => Err("something is lost, doubled or out of order".into()),
        }
    }
}

fn config(relay: u64, max_messages: i64) -> stream::Config {
    stream::Config {
        name: format!("R{relay}"),
        subjects: vec![format!("r{relay}.>")],
        discard: stream::DiscardPolicy::New,
        max_messages,
        ..stream::Config::default()
    }
}

fn write_lines(path: &Path, lines: u64) -> Outcome {
    let mut file = BufWriter::new(File::create(path)?);
    for line in 1..=lines {
        writeln!(file, "{line} {:.>80}", "")?;
    }
    Ok(file.flush()?)
}

/// Until a stream has so many messages.
async fn wait_for(context: &jetstream::Context, relay: u64, messages: u64) -> Outcome {
    let late = Instant::now() + PATIENCE;
    loop {
        let stream = context.get_stream(format!("R{relay}")).await;
        if stream.is_ok_and(|stream| stream.cached_info().state.messages >= messages) {
            return Ok(());
        }
        if Instant::now() > late {
            return Err(format!("R{relay} doesn't get to {messages} messages").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn number_before(line: &str, word: &str) -> Option<u64> {
    let before = line.split_once(word)?.0;
    before.rsplit(' ').next()?.parse().ok()
}
