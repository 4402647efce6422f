//! # Dead letters: what became of the frames that nobody handled
//!
//! A frame can fail in two ways: the channel had no room for it, which the loss hook is told, or its consumer couldn't do its
//! work. Both end in one stream of dead letters here. A source that has to know of each frame sends by `send_tracked`.

use callbridge::{Overflow, channel};

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> crate::Ended {
    let (dead, mut letters) = channel(1024);
    let lost = dead.clone();
    let (sender, mut jobs) = channel::builder()
        .capacity(4)
        .overflow(Overflow::DropOldest)
        // Runs on the thread that made the frame go, so it must not wait.
        .on_loss(move |loss: channel::Loss<'_, u32>| {
            let _ = lost.try_send((*loss.frame, format!("lost: {}", loss.reason)));
        })
        .build()?;
    for job in 0..6 {
        sender.send(job)?; // the last two push the first two out
    }
    drop(sender);

    let mut done = 0;
    while let Some(job) = jobs.recv().await {
        match work(job).await {
            Ok(()) => done += 1,
            Err(why) => drop(dead.send_async((job, why)).await),
        }
    }
    drop((dead, jobs));

    let mut buried = Vec::new();
    while let Some((job, why)) = letters.recv().await {
        println!("job {job}: {why}");
        buried.push(job);
    }
    assert_eq!((done, buried), (3, vec![0, 1, 3]));
    Ok(())
}

async fn work(job: u32) -> Result<(), String> {
    if job == 3 { Err("three doesn't work".into()) } else { Ok(()) }
}
