//! Watches a directory from an event loop, with notify's own thread behind it.
//!
//! ```text
//! cargo run -p callbridge-notify-watch -- --smoke
//! ```
//!
//! makes, renames and removes files in a directory of its own, prints what was seen and the counters, and
//! exits with 0 only if nothing was lost between notify and the loop.
//!
//! ```text
//! cargo run -p callbridge-notify-watch -- /tmp
//! ```
//!
//! prints the changes in a directory until Ctrl-C.

use callbridge::to_thread;
use callbridge_notify_watch::{Change, Changes, Tally, Watch};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const FILES: usize = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let ran = match std::env::args_os().nth(1) {
        Some(argument) if argument == "--smoke" => smoke().await,
        Some(directory) => print(directory.into()).await,
        None => Err("say which directory, or --smoke".into()),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn print(directory: PathBuf) -> Result<(), Box<dyn Error>> {
    let (watch, mut changes) = to_thread(move || Watch::start(directory, 1024)).await??;
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(Change::Event(event)) => println!("{:?} {:?}", event.kind, event.paths),
                Some(Change::Rescan) => println!("events were lost: look at the directory"),
                None => return Err("the watch has ended".into()),
            },
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                return Ok(to_thread(move || watch.stop()).await??);
            }
        }
    }
}

async fn smoke() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let place = directory.path().to_owned();
    let (watch, mut changes) = to_thread(move || Watch::start(place, 64 * 1024)).await??;
    let place = directory.path().to_owned();
    to_thread(move || make_rename_remove(&place)).await??;

    let handled = Arc::clone(watch.handled());
    let seen = timeout(PATIENCE, read_until_gone(&mut changes, &last(directory.path()))).await??;
    to_thread(move || watch.stop()).await??;
    while let Some(change) = timeout(PATIENCE, changes.next()).await? {
        note(&change, &seen);
    }
    let counters = changes.stats();
    let [(before, hash), (behind, same)] = [handled.sum(), seen.sum()];
    println!("before the bridge: {before} events, {hash:016x}; behind it: {behind}, {same:016x}");
    println!(
        "offered {}, delivered {}, lost {}; the handler waited {} times",
        counters.offered,
        counters.delivered,
        counters.lost.total(),
        counters.blocked.count
    );
    let right = handled.sum() == seen.sum() && counters.balances() && counters.blocked.count == 0;
    if right { Ok(()) } else { Err("the counters don't balance".into()) }
}

fn last(directory: &Path) -> PathBuf {
    directory.join(format!("renamed-{}", FILES - 1))
}

fn make_rename_remove(directory: &Path) -> std::io::Result<()> {
    for n in 0..FILES {
        let [made, renamed] = ["made", "renamed"].map(|name| directory.join(format!("{name}-{n}")));
        std::fs::write(&made, "text")?;
        std::fs::rename(&made, &renamed)?;
        std::fs::remove_file(&renamed)?;
    }
    Ok(())
}

async fn read_until_gone(changes: &mut Changes, last: &Path) -> Result<Tally, Box<dyn Error>> {
    let seen = Tally::default();
    while let Some(change) = changes.next().await {
        note(&change, &seen);
        let Change::Event(event) = change else { continue };
        if event.kind.is_remove() && event.paths.iter().any(|path| path == last) {
            return Ok(seen);
        }
    }
    Err("the watch has ended".into())
}

fn note(change: &Change, seen: &Tally) {
    if let Change::Event(event) = change {
        seen.add(event);
    }
}
