//! ctrlc's thread, fed with real signals.

#![cfg(unix)]

use callbridge_ctrl_c::{Interrupt, handled, listen, unheard};
use rustix::process::{Signal, getpid, kill_process};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// The signals and the handler belong to the process: one test at a time.
static PROCESS: Mutex<()> = Mutex::const_new(());

fn press() {
    kill_process(getpid(), Signal::INT).unwrap();
}

async fn until(what: impl Fn() -> bool) {
    let late = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < late, "it takes too long");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn each_interrupt_arrives_in_order() {
    let _process = PROCESS.lock().await;
    let (_listening, mut interrupts) = listen().unwrap();
    let before = handled();
    for n in 1..=1000 {
        press();
        let interrupt = timeout(PATIENCE, interrupts.recv()).await.expect("it arrives");
        assert_eq!(interrupt, Some(Interrupt { number: before + n }));
    }
    assert_eq!(interrupts.stats().delivered, 1000);
    assert!(interrupts.stats().balances());
}

#[tokio::test]
async fn unread_interrupts_leave_the_newest_and_are_counted() {
    let _process = PROCESS.lock().await;
    let (_listening, mut interrupts) = listen().unwrap();
    let before = handled();
    for n in 1..=100 {
        press();
        until(|| interrupts.stats().offered == n).await;
    }
    let newest = timeout(PATIENCE, interrupts.recv()).await.expect("it is there");
    assert_eq!(newest, Some(Interrupt { number: before + 100 }));
    let counters = interrupts.stats();
    assert!(counters.balances());
    assert_eq!((counters.delivered, counters.lost.evicted, counters.blocked.count), (1, 99, 0));
}

#[tokio::test]
async fn a_handler_that_stays_harms_nobody() {
    let _process = PROCESS.lock().await;
    let (listening, mut interrupts) = listen().unwrap();
    drop(listening);
    assert_eq!(timeout(PATIENCE, interrupts.recv()).await.expect("it ends"), None);

    let before = unheard();
    press();
    until(|| unheard() > before).await;

    let (_first, mut first) = listen().unwrap();
    let (_second, mut second) = listen().unwrap();
    assert_eq!(timeout(PATIENCE, first.recv()).await.expect("it ends"), None);
    press();
    let heard = timeout(PATIENCE, second.recv()).await.expect("it arrives");
    assert_eq!(heard, Some(Interrupt { number: handled() }));
}
