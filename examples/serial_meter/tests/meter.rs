//! The meter over a pseudo-terminal.

#![cfg(unix)]

use callbridge::FrameStream;
use callbridge::listener::{Reopened, WriteError};
use callbridge_serial_meter::fake::{FakeMeter, PATIENCE};
use callbridge_serial_meter::{Command, Meter, Reading, listen, noise};
use std::path::PathBuf;
use std::process;
use tokio::time::timeout;

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("callbridge-meter-{}-{name}", process::id()))
}

fn reading(quantity: char, value: f64) -> Option<Reading> {
    Some(Reading { quantity, value })
}

type Readings = FrameStream<Reopened<Reading>>;

/// The next reading, whatever happens to the meter before it.
async fn next(readings: &mut Readings) -> Option<Reading> {
    loop {
        if let Some(reading) = readings.recv().await?.frame() {
            return Some(reading);
        }
    }
}

async fn is_down(readings: &mut Readings) -> bool {
    matches!(timeout(PATIENCE, readings.recv()).await, Ok(Some(Reopened::Down(_))))
}

#[tokio::test]
async fn noise_is_left_out_and_counted() {
    let mut fake = FakeMeter::plug_in(path("noise")).unwrap();
    let Meter { listener, mut readings, .. } = listen(path("noise")).unwrap();
    fake.say(b"\xff\xfe\x80\nT 21.5\nnot a reading\nT much\n").unwrap();
    fake.say(&[b'x'; 500]).unwrap();
    fake.say(b"\nT 22\n").unwrap();
    assert_eq!(timeout(PATIENCE, next(&mut readings)).await.unwrap(), reading('T', 21.5));
    assert_eq!(timeout(PATIENCE, next(&mut readings)).await.unwrap(), reading('T', 22.0));
    assert!(noise(&listener.stats()) >= 4, "{:?}", listener.stats());
    assert!(listener.close(PATIENCE).await.is_clean());
}

#[tokio::test]
async fn commands_are_written_in_order_while_readings_come() {
    let mut fake = FakeMeter::plug_in(path("order")).unwrap();
    let Meter { listener, mut readings, commands } = listen(path("order")).unwrap();
    for seconds in 1..=20 {
        fake.say(format!("T {seconds}\n").as_bytes()).unwrap();
        let value = f64::from(seconds);
        assert_eq!(timeout(PATIENCE, next(&mut readings)).await.unwrap(), reading('T', value));
        commands.send(Command::Every(seconds)).await.unwrap();
        assert_eq!(fake.hear().unwrap(), format!("EVERY {seconds}"));
    }
    assert!(listener.close(PATIENCE).await.is_clean());
    assert!(matches!(commands.send(Command::Read).await, Err(WriteError::Closed(Command::Read))));
}

#[tokio::test]
async fn a_meter_that_was_unplugged_is_found_again() {
    let Meter { listener, mut readings, commands } = listen(path("replug")).unwrap();
    assert!(is_down(&mut readings).await, "it isn't plugged in yet");
    for value in [1, 2] {
        let mut fake = FakeMeter::plug_in(path("replug")).unwrap();
        fake.say(format!("T {value}\n").as_bytes()).unwrap();
        let value = f64::from(value);
        assert_eq!(timeout(PATIENCE, next(&mut readings)).await.unwrap(), reading('T', value));
        commands.send(Command::Read).await.unwrap();
        assert_eq!(fake.hear().unwrap(), "READ");
        drop(fake);
        assert!(is_down(&mut readings).await, "it was unplugged");
        assert!(matches!(commands.send(Command::Read).await, Err(WriteError::Failed(_))));
    }
    let report = listener.close(PATIENCE).await;
    assert!(report.is_clean(), "{report}");
}

#[test]
fn the_smoke_run_ends_by_itself() {
    let run = process::Command::new(env!("CARGO_BIN_EXE_callbridge-serial-meter"))
        .arg("--smoke")
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
}
