//! A loop of descriptors (`poll`, `epoll`, `kqueue`) that also reads a stream of frames.
//!
//! The loop isn't tokio's, so nobody can await in it. The stream's hook writes a byte into a socket
//! that the loop watches; an `eventfd` does the same. The hook is called once until the loop has
//! found the stream empty, so the socket never fills up.
//!
//! `cargo run --example poll_loop`

#[cfg(unix)]
fn main() -> std::io::Result<()> {
    unix::run()
}

#[cfg(not(unix))]
fn main() {
    println!("descriptors are Unix's; see the desktop example for a window's loop");
}

#[cfg(unix)]
mod unix {
    use callbridge::channel;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::io::{ErrorKind, Read, Result, Write};
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    pub(super) fn run() -> Result<()> {
        // What the loop watches anyway: somebody who sends a line from time to time.
        let (mut lines, mut operator) = UnixStream::pair()?;
        let typing = thread::spawn(move || {
            for line in ["status\n", "status\n"] {
                thread::sleep(Duration::from_millis(120));
                operator.write_all(line.as_bytes())?;
            }
            Result::Ok(())
        });

        let (sender, mut frames) = channel(64);
        let (mut bell, ringer) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ringer.set_nonblocking(true)?;
        frames.on_ready(move || {
            // A bell that is full of rings rings already.
            let _ = (&ringer).write(&[1]);
        });
        let sensor = thread::spawn(move || {
            for reading in 0..30 {
                thread::sleep(Duration::from_millis(10));
                if sender.send(reading).is_err() {
                    break;
                }
            }
        });

        let (mut readings, mut wakeups, mut closed) = (0, 0, false);
        while !closed || frames.ending().is_none() {
            let mut watched =
                [PollFd::new(&bell, PollFlags::IN), PollFd::new(&lines, PollFlags::IN)];
            // The operator's socket comes last, so it can be left out once it is closed.
            let watched = &mut watched[..if closed { 1 } else { 2 }];
            poll(watched, None)?;
            let said_something =
                watched.get(1).is_some_and(|operator| !operator.revents().is_empty());
            if !watched[0].revents().is_empty() {
                wakeups += 1;
                empty(&mut bell)?;
                while let Ok(reading) = frames.try_recv() {
                    println!("reading {reading}");
                    readings += 1;
                }
            }
            if said_something {
                let mut line = [0; 64];
                match lines.read(&mut line)? {
                    0 => closed = true,
                    _ => println!("status: {readings} readings after {wakeups} wake-ups"),
                }
            }
        }
        sensor.join().expect("the sensor doesn't panic");
        typing.join().expect("the operator doesn't panic")?;
        println!("{readings} readings, {wakeups} wake-ups, {:?}", frames.ending());
        assert_eq!(readings, 30);
        Ok(())
    }

    fn empty(bell: &mut UnixStream) -> Result<()> {
        loop {
            match bell.read(&mut [0; 64]) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
