//! The smallest pieces on one thread, without wake-ups: what a send, a receive, a submission and a
//! result cost when nobody waits. `cargo bench -p callbridge-benches`.

use divan::Bencher;
use divan::counter::ItemsCount;

fn main() {
    divan::main();
}

const BATCH: u64 = 512;

/// Sends into a channel with room, and takes out again what is there.
#[divan::bench]
fn channel_send_then_try_recv(bencher: Bencher<'_, '_>) {
    let (sender, mut frames) = callbridge::channel(1024);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for n in 0..BATCH {
            sender.send(n).unwrap();
        }
        (0..BATCH).map(|_| frames.try_recv().unwrap()).sum::<u64>()
    });
}

/// The same with tokio's channel.
#[divan::bench]
fn tokio_mpsc_send_then_try_recv(bencher: Bencher<'_, '_>) {
    let (sender, mut frames) = tokio::sync::mpsc::channel(1024);
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        for n in 0..BATCH {
            sender.try_send(n).unwrap();
        }
        (0..BATCH).map(|_| frames.try_recv().unwrap()).sum::<u64>()
    });
}

/// Submits calls from the loop's own thread, and awaits them there.
#[divan::bench]
fn bridge_submit_then_await(bencher: Bencher<'_, '_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let bridge = callbridge::Bridge::new(runtime.handle().clone());
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        runtime.block_on(async {
            let calls: Vec<_> =
                (0..BATCH).map(|n| bridge.run_coroutine_threadsafe(async move { n })).collect();
            let mut sum = 0;
            for call in calls {
                sum += call.await.unwrap();
            }
            sum
        })
    });
}

/// The same with tasks.
#[divan::bench]
fn tokio_spawn_then_await(bencher: Bencher<'_, '_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    bencher.counter(ItemsCount::new(BATCH)).bench_local(|| {
        runtime.block_on(async {
            let calls: Vec<_> = (0..BATCH).map(|n| tokio::spawn(async move { n })).collect();
            let mut sum = 0;
            for call in calls {
                sum += call.await.unwrap();
            }
            sum
        })
    });
}
