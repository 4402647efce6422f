//! # Many streams in one task
//!
//! A `FrameStream` is a `Stream`, so the adapters that everybody knows work: `select_all` takes turns among any number, `select!`
//! mixes them with timers and tokens. `recv` is cancel safe: the branch that loses takes nothing.
//!
//! Besides: `futures-util = "0.3"`.

use callbridge::channel;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use std::thread;
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> crate::Ended {
    let (orders, mut commands) = channel(8);
    let mut meters = Vec::new();
    for meter in 0..3 {
        let (sender, readings) = channel(8);
        thread::spawn(move || (0..100).try_for_each(|n| sender.send(n).map(drop)));
        meters.push(readings.map(move |reading| (meter, reading)));
    }
    let mut readings = select_all(meters);
    thread::spawn(move || orders.send("report"));

    let (mut seen, mut reports) = ([0; 3], 0);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            Some(command) = commands.recv() => {
                println!("{command}: {seen:?}");
                reports += 1;
            }
            next = readings.next() => match next {
                Some((meter, reading)) => seen[meter] = reading + 1,
                None => break, // all of them have ended
            },
            _ = tick.tick() => {} // what is due from time to time
        }
    }
    while let Some(command) = commands.recv().await {
        println!("{command}: {seen:?}");
        reports += 1;
    }
    assert_eq!((seen, reports), ([100; 3], 1));
    Ok(())
}
