//! Prints a meter's readings, and what it is told.
//!
//! ```text
//! cargo run -p callbridge-serial-meter -- /dev/ttyUSB0
//! cargo run -p callbridge-serial-meter -- --smoke
//! ```
//!
//! Lines on standard input are commands: `read`, `every 5`. With `--smoke` a meter is made of a
//! pseudo-terminal, which is unplugged and plugged in again, and the program ends by itself.

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    unix::main()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("a serial port is opened here as Unix has it");
}

#[cfg(unix)]
mod unix {
    use callbridge::listener::{ReadSource, Reopened};
    use callbridge::{FrameStream, Listener};
    use callbridge_serial_meter::fake::{FakeMeter, PATIENCE};
    use callbridge_serial_meter::{Command, Meter, Reading, listen, noise};
    use std::error::Error;
    use std::process::ExitCode;
    use std::time::Duration;
    use tokio_util::codec::LinesCodec;

    #[tokio::main(flavor = "current_thread")]
    pub(crate) async fn main() -> ExitCode {
        let done = match std::env::args().nth(1).as_deref() {
            Some("--smoke") => smoke().await,
            Some(path) if !path.starts_with('-') => run(path).await,
            _ => Err("give the path of a serial port, or --smoke".into()),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("serial_meter: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// Until standard input ends.
    async fn run(path: &str) -> Result<(), Box<dyn Error>> {
        let Meter { listener, mut readings, commands } = listen(path)?;
        // Standard input is one more thread's line.
        let typed = ReadSource::new(std::io::stdin(), 80, LinesCodec::new())?.polled()?;
        let (_typing, mut typed) = Listener::builder(typed).name("stdin").spawn()?;
        loop {
            tokio::select! {
                reading = readings.recv() => match reading {
                    Some(Reopened::Frame(reading)) => println!("{} = {}", reading.quantity, reading.value),
                    Some(Reopened::Down(error)) => eprintln!("looking for the meter: {error}"),
                    Some(_) => {}
                    None => break,
                },
                line = typed.recv() => match line.as_deref().map(parse) {
                    Some(Some(command)) => match commands.send(command).await {
                        Ok(()) => println!("told: {command}"),
                        Err(error) => eprintln!("not told: {error}"),
                    },
                    Some(None) => eprintln!("commands: read, every SECONDS"),
                    None => break,
                },
            }
        }
        println!("{}", listener.close(Duration::from_secs(1)).await);
        Ok(())
    }

    fn parse(line: &str) -> Option<Command> {
        match line.split_once(' ') {
            None if line == "read" => Some(Command::Read),
            Some(("every", seconds)) => Some(Command::Every(seconds.parse().ok()?)),
            _ => None,
        }
    }

    /// The next reading, whatever happens to the meter before it.
    async fn next(readings: &mut FrameStream<Reopened<Reading>>) -> Option<Reading> {
        loop {
            if let Some(reading) = readings.recv().await?.frame() {
                return Some(reading);
            }
        }
    }

    async fn smoke() -> Result<(), Box<dyn Error>> {
        let path = std::env::temp_dir().join(format!("callbridge-meter-{}", std::process::id()));
        let mut fake = FakeMeter::plug_in(&path)?;
        let Meter { listener, mut readings, commands } = listen(&path)?;

        fake.say(b"\xff\x00 noise\nT 21.5\n")?;
        println!("{:?}", next(&mut readings).await.ok_or("no reading")?);
        commands.send(Command::Read).await?;
        println!("the meter heard {}", fake.hear()?);

        drop(fake);
        println!("unplugged");
        let mut fake = FakeMeter::plug_in(&path)?;
        fake.say(b"P 1013.2\n")?;
        let reading = tokio::time::timeout(PATIENCE, next(&mut readings)).await?;
        println!("{:?}", reading.ok_or("the end")?);

        let report = listener.close(Duration::from_secs(5)).await;
        println!("{report}; noise left out: {}", noise(&report.stats));
        if !report.is_clean() || noise(&report.stats) == 0 {
            return Err("it didn't end as it should".into());
        }
        Ok(())
    }
}
