//! A sync program that lives on an async library, and ends well at the first Ctrl-C, at once at the
//! second.
//!
//! ctrlc keeps its handler to the end of the process, so what the handler holds must keep nothing
//! alive: a canceller of the loop over the stream, and a weak handle of the runner.
//!
//! ```text
//! cargo run -p callbridge-ctrl-c --bin callbridge-ctrl-c-sync
//! cargo run -p callbridge-ctrl-c --bin callbridge-ctrl-c-sync -- --smoke          # presses Ctrl-C itself
//! cargo run -p callbridge-ctrl-c --bin callbridge-ctrl-c-sync -- --smoke twice
//! ```

use callbridge::runner::Outcome;
use callbridge::{ResultError, ThreadRunner};
use rustix::process::{Signal, getpid, kill_process};
use std::error::Error;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{interval, sleep};

type BoxError = Box<dyn Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(30);

/// How often Ctrl-C is pressed by nobody.
fn presses() -> usize {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next().as_deref()) {
        (Some("--smoke"), Some("twice")) => 2,
        (Some("--smoke"), _) => 1,
        _ => 0,
    }
}

fn main() -> ExitCode {
    match run(presses()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was put away.
fn run(presses: usize) -> Result<bool, BoxError> {
    let runner = ThreadRunner::new();
    let _session = runner
        .enter_context(
            || async { Ok::<_, String>("a session") },
            |session, outcome| async move {
                println!("{session} ends: {outcome}");
                Ok::<_, String>(())
            },
        )?
        .leave_open();

    // The async library: here a ticker.
    let (sender, ticks) = callbridge::channel(1);
    let ticker = runner.spawn(async move {
        let mut clock = interval(Duration::from_millis(100));
        for tick in 1_u64.. {
            clock.tick().await;
            if sender.send_async(tick).await.is_err() {
                return;
            }
        }
    });
    let mut ticks = runner.wrap_iter(ticks);

    let (canceller, weak, pressed) =
        (ticks.canceller(), runner.downgrade(), AtomicBool::new(false));
    ctrlc::set_handler(move || {
        if pressed.swap(true, Ordering::Relaxed) {
            drop(weak.close(Duration::ZERO));
        } else {
            canceller.cancel();
        }
    })?;

    println!("press Ctrl-C");
    let ended = loop {
        match ticks.next() {
            Some(Ok(tick)) => println!("tick {tick}"),
            Some(Err(error)) => break error,
            None => return Err("the ticker has ended".into()),
        }
        if presses > 0 {
            kill_process(getpid(), Signal::INT)?;
        }
    };
    if !matches!(ended, ResultError::Cancelled) {
        return Err(ended.into());
    }
    drop((ticks, ticker));

    println!("putting things away; press Ctrl-C again to leave them");
    let time = match presses {
        0 => Duration::from_secs(3),
        1 => Duration::from_millis(1),
        _ => PATIENCE,
    };
    if presses > 1 {
        kill_process(getpid(), Signal::INT)?;
    }
    let put_away = runner.run(async { sleep(time).await });
    let report = runner.close_with(Outcome::error("interrupted"), PATIENCE);
    println!("{report}");
    Ok(put_away.is_ok() && report.is_clean())
}
