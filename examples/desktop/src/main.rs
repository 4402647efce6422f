//! A window that stays alive while a request runs, and the same window with a blocking call.
//!
//! A desktop program has one main loop. What its button handler waits for, the whole window waits
//! for: no repaint, no second click, no close. Here the loop that *waits* is another one, on a
//! background thread: the handler gives the async request to [`ThreadRunner::spawn`] and returns at
//! once; each refresh of the status text, every 60 ms, looks whether the answer is there; a done
//! callback asks for a repaint when it is. The progress comes as a stream, whose hook asks for one, too. The runner is made before the window and closed, with a
//! deadline, after it: closing the window in the middle of a request ends the request too.
//!
//! ```sh
//! cargo run -p callbridge-desktop                 # click, and drag the window meanwhile
//! cargo run -p callbridge-desktop -- --blocking   # click, and try
//! ```
//!
//! Every refresh leaves a tick on the strip at the bottom, so a frozen window shows as a hole.
//!
//! `--smoke` does the clicking, prints the longest gap between two refreshes and exits; 0 if the
//! answer arrived and, without `--blocking`, the longest gap was below half of the request's time.
//! Without a screen:
//!
//! ```sh
//! xvfb-run -a cargo run -p callbridge-desktop -- --smoke --screenshot target/desktop.png
//! ```
//!
//! On Linux the window needs X (or XWayland) and OpenGL, both found at run time: Debian's `libgl1`,
//! `libgl1-mesa-dri`, `libx11-xcb1`, `libxcursor1`, `libxi6` and `libxkbcommon-x11-0`; without a
//! screen `xvfb` and `xauth` as well, and `xdotool` for `--xdotool`. The build needs none of them.
//!
//! | file | what it holds |
//! |---|---|
//! | `window.rs` | the button, the handler, the status text |
//! | `client.rs` | the request, async and blocking |
//! | `server.rs` | the slow server on loopback |
//! | `pulse.rs` | when the window was refreshed |
//! | `smoke.rs` | the run without a user |

mod client;
mod pulse;
mod server;
mod smoke;
mod window;

use callbridge::ThreadRunner;
use clap::Parser;
use eframe::NativeOptions;
use eframe::egui::ViewportBuilder;
use smoke::{Click, Smoke};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use window::Window;

/// A window that stays alive while a request runs.
#[derive(Debug, Parser)]
struct Args {
    /// Make the request with a blocking call in the button's handler, for contrast
    #[arg(long)]
    blocking: bool,
    /// How long the server takes to answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(500..=4000))]
    latency: u64,
    /// Click, report and exit
    #[arg(long)]
    smoke: bool,
    /// With --smoke: write what the window shows at the end to this PNG; half-way to NAME-asking.png
    #[arg(long, value_name = "PATH", requires = "smoke")]
    screenshot: Option<PathBuf>,
    /// With --smoke: let the program xdotool click, through the X server, instead of the toolkit
    #[arg(long, requires = "smoke")]
    xdotool: bool,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args = Args::parse();
    let server = server::start(Duration::from_millis(args.latency))?;
    let click = if args.xdotool { Click::XServer } else { Click::Toolkit };
    let mut smoke = args.smoke.then(|| Smoke::new(click, args.screenshot.is_some()));

    let runner = ThreadRunner::builder().name("requests").build()?;
    let options = NativeOptions {
        viewport: ViewportBuilder::default().with_inner_size(window::SIZE),
        ..NativeOptions::default()
    };
    eframe::run_native(
        window::TITLE,
        options,
        Box::new(|_| Ok(Box::new(Window::new(server, &runner, args.blocking, smoke.as_mut())))),
    )?;
    let closed = runner.close(Duration::from_secs(1));
    println!("{closed}");

    let Some(smoke) = smoke else { return Ok(ExitCode::SUCCESS) };
    if let Some(path) = &args.screenshot {
        smoke.save_shots(path)?;
    }
    let passed = smoke.report(args.blocking) && closed.is_clean();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
