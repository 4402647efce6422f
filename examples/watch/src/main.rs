//! A program at work, and what an operator sees of it: a live table in the terminal, a page for a browser, and
//! the text that Prometheus scrapes.
//!
//! The program makes its own load: a meter that sends datagrams, clients with orders, a library that calls
//! back, jobs for a pool. Now and then its consumer dawdles, so that something is lost. `--of` shows another
//! program's figures instead, whoever exports them under the crate's names.

mod demo;
mod scrape;
mod serve;
mod table;

use clap::Parser;
use demo::Demo;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};
use table::{Figures, Table};

#[derive(Parser)]
struct Args {
    /// Where the page and the text are served; 0 for any port.
    #[arg(long, default_value_t = 9187)]
    port: u16,
    /// Shows the figures at this address (host:port) and runs nothing.
    #[arg(long)]
    of: Option<String>,
    /// How often the table is drawn anew, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    every: u64,
    /// Runs for three seconds, looks at its own figures, and says whether they are right.
    #[arg(long)]
    smoke: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let every = Duration::from_millis(args.every.max(100));
    if let Some(address) = &args.of {
        return show(address, every, None);
    }
    let exporter = PrometheusBuilder::new().install_recorder()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let address = runtime.block_on(serve::serve(args.port, move || render(&exporter)))?.to_string();
    println!("page: http://{address}/   text: http://{address}/metrics");
    let demo = Demo::start(runtime.handle())?;
    if args.smoke {
        show(&address, Duration::from_millis(500), Some(Duration::from_secs(3)))?;
        let text = scrape::get(&address, "/metrics")?;
        let page = scrape::get(&address, "/")?;
        if !page.contains("<pre>") || !page.contains("meter") {
            return Err("the page doesn't show the meter".into());
        }
        demo.check(&Figures::of(&text))?;
        println!("{}", demo.stop());
        return Ok(());
    }
    show(&address, every, None)
}

/// Prometheus' text, with how everything stands now.
fn render(exporter: &PrometheusHandle) -> String {
    callbridge::metrics::export();
    exporter.run_upkeep();
    exporter.render()
}

/// Draws the table again and again, for as long as told.
fn show(address: &str, every: Duration, time: Option<Duration>) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let mut table = Table::default();
    let mut out = io::stdout();
    let clear = if out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    while time.is_none_or(|time| began.elapsed() < time) {
        let figures = Figures::of(&scrape::get(address, "/metrics")?);
        let drawn = table.draw(&figures, Instant::now());
        write!(out, "{clear}{drawn}\nhttp://{address}/\n")?;
        out.flush()?;
        std::thread::sleep(every);
    }
    Ok(())
}
