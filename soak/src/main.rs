//! Runs everything in callbridge at once, round after round, for as long as told.
//!
//! A round starts every scenario in a thread of its own; each checks what it sees and tears down
//! what it made. Between two rounds everything must be as it was before the first: the same threads
//! and descriptors. The heap and the resident memory may not grow from the warm half of the run on.

mod check;
#[path = "../../tests/common/heap.rs"]
mod heap;
mod meter;
mod scenario;

use check::PATIENCE;
use clap::Parser;
use meter::Holdings;
use scenario::SCENARIOS;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Rounds before the process is warm: thread-locals, allocator arenas, the process-wide pool.
const WARM_UP: usize = 5;
/// What the heap may have grown by when the first and the last warm rounds are compared. One word
/// leaked per call or frame would be several times this within a few minutes.
const HEAP_TOLERANCE_KIB: i64 = 256;
/// The allocator's own ups and downs; resident memory is a coarse net under the heap's fine one.
const RESIDENT_TOLERANCE_KIB: u64 = 16 * 1024;

#[derive(Parser)]
struct Args {
    /// How long to run, in seconds; the round that is running then is finished.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
    /// The seed of the first round.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    scenario::expect_panics();
    let began = Instant::now();
    let (finish, finished) = mpsc::channel::<()>();
    let sampler = thread::spawn(move || {
        while let Err(mpsc::RecvTimeoutError::Timeout) =
            finished.recv_timeout(Duration::from_secs(1))
        {
            println!("{:5} s: {}", began.elapsed().as_secs(), Holdings::now());
        }
    });
    let verdict = run(&args, began);
    drop(finish);
    sampler.join().expect("the sampler only prints");
    match verdict {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("FAILED after {:?}: {failure}", began.elapsed());
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, began: Instant) -> Result<String, String> {
    // With tokio's signals, which another package of the build may switch on, the first loop opens a pair of
    // descriptors for the whole process.
    drop(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build());
    let base = Holdings::now();
    // Reserved, so that its own growth isn't what the heap is found to grow by.
    let mut quiet = Vec::with_capacity(args.seconds as usize * 16 + WARM_UP + 2);
    let mut checked = vec![0; SCENARIOS.len()];
    while quiet.len() < WARM_UP + 2 || began.elapsed() < Duration::from_secs(args.seconds) {
        let seed = args.seed.wrapping_add(quiet.len() as u64);
        round(seed, &mut checked)?;
        quiet.push(settle(&base)?);
    }
    let warm = &quiet[WARM_UP..];
    let part = warm.len().div_ceil(4);
    let (first, last) = (&warm[..part], &warm[warm.len() - part..]);
    let grown = least(last, |q| q.heap_kib) - least(first, |q| q.heap_kib);
    let resident = least(last, |q| q.resident_kib);
    let resident_before = least(first, |q| q.resident_kib);
    let counts: Vec<_> = SCENARIOS
        .iter()
        .zip(&checked)
        .map(|((name, _), count)| format!("{name} {count}"))
        .collect();
    let summary = format!(
        "{} rounds in {:?}; checked: {}; heap {grown:+} KiB, resident {resident_before} -> \
         {resident} KiB between the first and the last quarter",
        quiet.len(),
        began.elapsed(),
        counts.join(", "),
    );
    if grown > HEAP_TOLERANCE_KIB {
        return Err(format!("the heap has grown: {summary}"));
    }
    if resident > resident_before + RESIDENT_TOLERANCE_KIB {
        return Err(format!("the resident memory has grown: {summary}"));
    }
    Ok(summary)
}

fn least<N: Ord>(quiet: &[Holdings], of: impl Fn(&Holdings) -> N) -> N {
    quiet.iter().map(of).min().expect("there is at least one round")
}

/// Runs every scenario once, all at the same time; adds to each how much it has checked.
fn round(seed: u64, checked: &mut [u64]) -> Result<(), String> {
    thread::scope(|scope| {
        let running: Vec<_> = SCENARIOS
            .iter()
            .map(|(name, scenario)| {
                let named = thread::Builder::new().name((*name).to_owned());
                named.spawn_scoped(scope, move || scenario(seed)).expect("a thread")
            })
            .collect();
        let results = running.into_iter().map(thread::ScopedJoinHandle::join);
        for ((result, count), (name, _)) in results.zip(checked).zip(SCENARIOS) {
            *count +=
                result.map_err(|_| format!("{name} with seed {seed}; see its panic above"))?;
        }
        Ok(())
    })
}

/// Waits until there are as many threads and descriptors as before the first round.
fn settle(base: &Holdings) -> Result<Holdings, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = Holdings::now();
        if (now.threads, now.descriptors) == (base.threads, base.descriptors) {
            return Ok(now);
        }
        if Instant::now() > deadline {
            return Err(format!("not given back: {now}; before the first round: {base}"));
        }
        thread::sleep(Duration::from_millis(1));
    }
}
