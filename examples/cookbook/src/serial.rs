//! # A serial port
//!
//! One thread reads and writes the line; async code gets readings and sends commands. The crate opens no port and knows no speed:
//! set the line to raw mode first, or it echoes, waits for whole lines and turns bytes into signals. `examples/serial_meter` is
//! the whole program, which also outlives that the device is unplugged.
//!
//! Besides: `rustix = { version = "1", features = ["termios"] }` for the line's settings; the meter that is made here takes `"pty"` too.

use callbridge::Listener;
use callbridge::listener::{BadFrames, ReadSource, WholeFrames};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;
use tokio_util::codec::LinesCodec;

fn open(port: &Path) -> io::Result<File> {
    let line = File::options().read(true).write(true).open(port)?;
    let mut settings = tcgetattr(&line)?;
    settings.make_raw();
    settings.set_speed(9600)?;
    tcsetattr(&line, OptionalActions::Now, &settings)?;
    Ok(line)
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() -> crate::Ended {
    let (meter, port) = a_meter()?; // in truth: "/dev/ttyUSB0"

    let lines = LinesCodec::new_with_max_length(80); // noise may never end a line
    let source = ReadSource::new(open(&port)?, 256, WholeFrames(lines))? // half a line is none
        .polled()? // a stop and a command end the wait for the line
        .with_bad_frames(BadFrames::Skip); // noise costs itself only
    let mut builder = Listener::builder(source)
        .name("meter")
        .quiet_after(Duration::from_secs(10), || eprintln!("the meter is silent"));
    let commands = builder.writer::<&str>(16);
    let (listener, mut readings) = builder.spawn()?;

    commands.send("READ").await?; // once the system has taken it
    let reading = readings.recv().await;
    println!("{reading:?}");
    assert_eq!(reading.as_deref(), Some("21.5"));
    println!("{}", listener.close(Duration::from_secs(5)).await);
    drop((listener, readings));
    drop(meter.join().expect("the meter doesn't panic")?); // unplugged
    Ok(())
}

type Meter = std::thread::JoinHandle<io::Result<File>>;

/// A meter at the other end of a pseudo-terminal: noise, then an answer.
fn a_meter() -> io::Result<(Meter, std::path::PathBuf)> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let meter = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&meter)?;
    unlockpt(&meter)?;
    let port = ptsname(&meter, Vec::new())?.into_string().map_err(io::Error::other)?;
    let mut meter = File::from(meter);
    // Keeps the line from hanging up before it is opened.
    let keep = File::options().read(true).write(true).open(&port)?;
    let speaks = std::thread::spawn(move || {
        let mut command = String::new();
        BufReader::new(meter.try_clone()?).read_line(&mut command)?;
        drop(keep);
        meter.write_all(b"\xff\xfe\n21.5\n")?;
        Ok(meter) // stays plugged in
    });
    Ok((speaks, port.into()))
}
