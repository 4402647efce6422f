//! notify's thread against a consumer that keeps up, and one that doesn't.

use callbridge::to_thread;
use callbridge_notify_watch::{Change, Changes, Tally, Watch};
use notify::event::{ModifyKind, RenameMode};
use notify::{Event, EventKind};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const FILES: usize = 1000;

async fn watch(capacity: usize) -> (TempDir, Watch, Changes) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().canonicalize().unwrap();
    let started = to_thread(move || Watch::start(place, capacity)).await.unwrap();
    let (watch, changes) = started.expect("the system watches");
    (directory, watch, changes)
}

/// Makes, renames and removes files, each before the next.
async fn churn(directory: &Path) {
    let directory = directory.to_owned();
    let churned = to_thread(move || {
        for n in 0..FILES {
            let [made, renamed] =
                ["made", "renamed"].map(|name| directory.join(format!("{name}-{n}")));
            std::fs::write(&made, "text").unwrap();
            std::fs::rename(&made, &renamed).unwrap();
            std::fs::remove_file(&renamed).unwrap();
        }
    });
    churned.await.unwrap();
}

async fn next(changes: &mut Changes) -> Option<Change> {
    timeout(PATIENCE, changes.next()).await.expect("a change, or the end")
}

async fn stop(watch: Watch) {
    to_thread(move || watch.stop()).await.unwrap().expect("it was watched");
}

fn removes_last(event: &Event) -> bool {
    let last = format!("renamed-{}", FILES - 1);
    event.kind.is_remove() && event.paths.iter().any(|path| path.ends_with(&last))
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_thousand_files_arrive_whole_and_in_order() {
    let (directory, watch, mut changes) = watch(64 * 1024).await;
    let (_, handled) = tokio::join!(churn(directory.path()), async { Arc::clone(watch.handled()) });
    let seen = Tally::default();
    let mut steps = Vec::new();
    loop {
        let Some(Change::Event(event)) = next(&mut changes).await else {
            panic!("an event: there is room for all")
        };
        seen.add(&event);
        let step = match event.kind {
            EventKind::Create(_) => Some("made"),
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => Some("renamed"),
            EventKind::Remove(_) => Some("removed"),
            _ => None,
        };
        let name = event.paths.last().and_then(|path| path.file_name());
        let number = name.and_then(|name| name.to_str()?.rsplit('-').next()?.parse().ok());
        steps.extend(step.zip(number));
        if removes_last(&event) {
            break;
        }
    }
    let all = |n: usize| ["made", "renamed", "removed"].map(|step| (step, n));
    assert_eq!(steps, (0..FILES).flat_map(all).collect::<Vec<_>>());

    stop(watch).await;
    while let Some(change) = next(&mut changes).await {
        let Change::Event(event) = change else { panic!("nothing was lost: {change:?}") };
        seen.add(&event);
    }
    let counters = changes.stats();
    println!("{FILES} files: {} events, as notify told them; {counters:?}", seen.sum().0);
    assert_eq!(seen.sum(), handled.sum());
    assert!(counters.balances());
    assert_eq!((counters.lost.total(), counters.blocked.count), (0, 0));
}

#[tokio::test]
async fn the_handler_never_waits_and_losses_are_told() {
    const CAPACITY: usize = 16;
    let (directory, watch, mut changes) = watch(CAPACITY).await;
    churn(directory.path()).await;
    // Nobody reads; the handler still gets all there is, to the last.
    let late = Instant::now() + PATIENCE;
    let mut before = 0;
    while before < 3 * FILES as u64 {
        assert!(Instant::now() < late, "the handler stands still after {before} events");
        tokio::time::sleep(Duration::from_millis(5)).await;
        before = watch.handled().sum().0;
    }
    let handled = Arc::clone(watch.handled());
    stop(watch).await;

    let mut read = Vec::new();
    while let Some(change) = next(&mut changes).await {
        read.push(change);
    }
    let counters = changes.stats();
    println!("{} handled, {counters:?}", handled.sum().0);
    assert_eq!(read.len(), CAPACITY + 1);
    assert_eq!(read.last(), Some(&Change::Rescan), "the gap is told where it is");
    assert!(counters.balances());
    assert_eq!(counters.blocked.count, 0);
    assert_eq!(counters.delivered, CAPACITY as u64);
    assert_eq!(counters.delivered + counters.lost.overflow, handled.sum().0);
}

#[tokio::test]
async fn a_dropped_watch_ends_the_stream() {
    let (_directory, watch, mut changes) = watch(16).await;
    drop(watch);
    assert_eq!(next(&mut changes).await, None);
}
