//! Ends well at the first Ctrl-C, at once at the second.
//!
//! ```text
//! cargo run -p callbridge-ctrl-c
//! cargo run -p callbridge-ctrl-c -- --smoke     # presses Ctrl-C itself
//! ```

use callbridge_ctrl_c::{handled, listen, unheard};
use rustix::process::{Signal, getpid, kill_process};
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let smoke = std::env::args().nth(1).is_some_and(|argument| argument == "--smoke");
    match run(smoke).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(smoke: bool) -> Result<ExitCode, Box<dyn Error>> {
    let (listening, mut interrupts) = listen()?;
    println!("press Ctrl-C");
    if smoke {
        kill_process(getpid(), Signal::INT)?;
        timeout(PATIENCE, interrupts.recv()).await?.ok_or("the stream has ended")?;
    } else {
        interrupts.recv().await.ok_or("the stream has ended")?;
    }
    println!("putting things away; press Ctrl-C again to leave them");
    let put_away = tokio::time::sleep(Duration::from_millis(if smoke { 1 } else { 3000 }));
    tokio::select! {
        () = put_away => {}
        Some(_) = interrupts.recv() => return Ok(ExitCode::FAILURE),
    }
    listening.stop();
    if interrupts.recv().await.is_some() {
        return Ok(ExitCode::FAILURE);
    }
    println!(
        "handled {}, unheard {}, the counters: {:?}",
        handled(),
        unheard(),
        interrupts.stats()
    );
    let right = interrupts.stats().balances() && interrupts.stats().offered == handled();
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
