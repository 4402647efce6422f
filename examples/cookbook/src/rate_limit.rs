//! # Rate limit: not more than so much at a time, or per second
//!
//! The consumer sets the pace; with `Block`, the source is held back by the full channel, with another policy the rest is dropped
//! and counted. A limit of calls *at once* is a `CapacityLimiter`, across any number of pools.

use callbridge::executor::CapacityLimiter;
use callbridge::{Overflow, channel};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> crate::Ended {
    // Per time: a frame every 2 ms, and never a burst to make up for a pause.
    let (sender, mut alarms) =
        channel::builder().capacity(4).overflow(Overflow::DropNewest).build()?;
    let source = std::thread::spawn(move || (0..1000).try_for_each(|n| sender.send(n).map(drop)));
    let mut pace = interval(Duration::from_millis(2));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut mails = 0_u64;
    while let Some(_alarm) = alarms.recv().await {
        pace.tick().await;
        mails += 1; // here: send the mail
    }
    let stats = alarms.stats();
    println!("{mails} mails, {} alarms left out", stats.lost.overflow);
    assert_eq!(mails + stats.lost.overflow, 1000);
    source.join().expect("the source doesn't panic")?;

    // At once: two calls of a service that takes no more, however many tasks ask.
    let service = CapacityLimiter::new(2);
    let calls: Vec<_> = (0..6).map(|n| service.to_thread(move || n * n)).collect();
    let mut sum = 0;
    for call in calls {
        sum += call.await?;
    }
    assert_eq!(sum, 55);
    Ok(())
}
