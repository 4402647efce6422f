//! Frames from a callback on a foreign thread, awaited as an async stream.
//!
//! `cargo run --example frame_stream`

use callbridge::channel;
use callbridge::channel::Ending;
use std::time::Duration;

/// A library that isn't async: it owns its thread and calls back from it.
fn start_sensor(readings: u32, on_reading: impl Fn(u32) + Send + 'static) {
    std::thread::spawn(move || {
        for reading in 0..readings {
            std::thread::sleep(Duration::from_millis(20));
            on_reading(reading);
        }
    });
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (sender, mut frames) = channel(64);
    start_sensor(10, sender.callback());
    // The sensor holds the only sender now: when it is done, the stream ends.
    drop(sender);

    while let Some(reading) = frames.recv().await {
        println!("reading {reading}");
    }
    assert_eq!(frames.ending(), Some(Ending::Finished));

    let counters = frames.stats();
    println!(
        "{} offered, {} delivered, {} lost",
        counters.offered,
        counters.delivered,
        counters.lost.total()
    );
    assert!(counters.balances());
}
