//! # Fan-out: one source, several consumers
//!
//! A stream has one consumer. Where several want the frames, a task hands each a channel of its own, with the policy that
//! fits: here the log must have all of them, and the display only the newest. Frames that are large go as `Arc` or `Bytes`.

use callbridge::{Overflow, channel};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> crate::Ended {
    let (sender, mut readings) = channel(64);
    let sensor = std::thread::spawn(move || (0..1000).try_for_each(|n| sender.send(n).map(drop)));

    let (log, mut logged) = channel(16); // waits for the log, and so holds the sensor back
    let (display, mut shown) = channel::builder().overflow(Overflow::Latest).build()?;
    tokio::spawn(async move {
        while let Some(reading) = readings.recv().await {
            let _ = display.send(reading); // `Latest` never waits
            if log.send_async(reading).await.is_err() {
                break; // the log has gone; the drop of `readings` tells the sensor
            }
        }
    });

    let mut count = 0;
    while logged.recv().await.is_some() {
        count += 1;
    }
    let newest = shown.recv().await;
    println!("logged {count}, shown at last {newest:?}");
    assert_eq!((count, newest), (1000, Some(999)));
    sensor.join().expect("the sensor doesn't panic")?;
    Ok(())
}
