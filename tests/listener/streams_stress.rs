//! Rounds drawn at random: what was sent with success arrives once, whole and in order, whoever ends first.

use crate::common::{LONG, eventually};
use crate::support::*;
use callbridge::FrameStream;
use callbridge::listener::{
    Connection, FrameSink, Listener, Origin, ReadSource, RequestSource, TcpSource,
};
use futures_util::{SinkExt, StreamExt};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio_util::codec::LinesCodec;

/// How long each step may take at most.
const SOON: Duration = Duration::from_secs(20);

// --- a server's connections --------------------------------------------------------------------

/// A client that says some lines, then ends its side or breaks off; how many came back in the first case.
fn talks(addr: SocketAddr, mut dice: Dice) -> (SocketAddr, Option<usize>) {
    let client = connect(addr);
    let local = client.local_addr().unwrap();
    let (breaks_off, late) = (dice.below(4) == 0, dice.below(2) == 0);
    let (size, lines) = (dice.of(&[10, 1000, 30_000]), dice.below(60));
    let reads = client.try_clone().unwrap();
    let reader = (!breaks_off).then(|| {
        thread::spawn(move || {
            if late {
                thread::sleep(50 * MS);
            }
            read_all(reads).into_iter().filter(|byte| *byte == b'\n').count()
        })
    });
    for n in 0..lines {
        let line = format!("{n} {}\n", "x".repeat(size));
        // Whoever echoes may have left.
        if (&client).write_all(line.as_bytes()).is_err() {
            break;
        }
        dice.rest();
    }
    if breaks_off {
        socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    } else {
        let _gone_already = client.shutdown(Shutdown::Write);
    }
    (local, reader.map(|reader| reader.join().unwrap()))
}

/// Sends back what it gets, or some of that; how many frames that were, if all went well.
async fn echoes(
    mut connection: Connection<LinesCodec>,
    mut dice: Dice,
) -> (SocketAddr, Option<usize>) {
    let peer = connection.peer().as_socket().unwrap();
    let (leaves, closes) = (dice.below(4) == 0, dice.below(4) == 0);
    let (mut n, mut well) = (0, true);
    while let Some(frame) = connection.next().await {
        let Ok(frame) = frame else { return (peer, None) };
        assert_eq!(frame.split(' ').next(), Some(n.to_string().as_str()));
        if dice.below(8) == 0 {
            tokio::time::sleep(3 * MS).await;
        }
        well = match dice.below(3) {
            0 => connection.feed(frame).await.is_ok(),
            _ => connection.send(frame).await.is_ok(),
        };
        if !well {
            break;
        }
        n += 1;
        if leaves && dice.below(20) == 0 {
            break;
        }
    }
    well &= SinkExt::<String>::flush(&mut connection).await.is_ok();
    if closes {
        let _gone_already = SinkExt::<String>::close(&mut connection).await;
        tokio::time::sleep(10 * MS).await;
    }
    (peer, well.then_some(n))
}

#[test]
fn what_connections_sent_with_success_arrives() {
    const CLIENTS: usize = 12;
    let (event_loop, _) = event_loop();
    at_random(1, 6, |dice| {
        let (server, addr) = lines(1 << 20);
        let server = server
            .with_connection_capacity(dice.of(&[1, 2, 3, 4]))
            .with_write_buffer(dice.of(&[0, 100, 1 << 20]))
            .with_linger(500 * MS);
        let builder = Listener::builder(server).write_timeout(2 * SECOND);
        let (listener, mut connections) = builder.spawn().unwrap();
        let clients = [(); CLIENTS].map(|()| {
            let dice = dice.split();
            thread::spawn(move || talks(addr, dice))
        });
        let tasks = [(); CLIENTS].map(|()| {
            let echo = echoes(next(&mut connections), dice.split());
            event_loop.handle().spawn(async { tokio::time::timeout(SOON, echo).await })
        });
        if dice.below(3) == 0 {
            thread::sleep(MS * dice.below(100) as u32); // Anywhere in it.
            let report = listener.close_blocking(SOON);
            assert!(report.is_clean(), "{report}");
        }
        let echoed = tasks.map(|echo| futures_executor::block_on(echo).unwrap());
        let echoed = echoed.map(|echo| echo.expect("no connection hangs"));
        let heard = clients.map(|client| client.join().unwrap());
        for (peer, sent) in echoed {
            let (_, heard) = heard.iter().find(|(local, _)| *local == peer).unwrap();
            if let (Some(sent), Some(heard)) = (sent, heard) {
                assert_eq!(sent, *heard, "{peer}");
            }
        }
        wait_for(&listener, |stats| stats.open == 0);
        clean(&listener);
    });
}

// --- a device that is written to ---------------------------------------------------------------

const SENDERS: usize = 3;

type Parts = (Listener, FrameStream<String>, FrameSink<String>);

fn listen<S>(source: S, dice: &mut Dice) -> Parts
where
    S: Origin<Item = String> + RequestSource<String, Address = ()>,
{
    let mut builder = Listener::builder(source).capacity(dice.of(&[1, 2, 3]));
    let sink = builder.writer(dice.of(&[1, 2, 10, 40]));
    let (listener, frames) = builder.spawn().unwrap();
    (listener, frames, sink)
}

fn reads(mut device: TcpStream, slowly: bool) -> String {
    let (mut all, mut part) = (Vec::new(), [0; 8192]);
    loop {
        match device.read(&mut part) {
            Ok(count @ 1..) => all.extend(&part[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return String::from_utf8_lossy(&all).into_owned(),
        }
        if slowly {
            thread::sleep(MS / 10);
        }
    }
}

/// Sends lines with its name and a number; the numbers of those that were written.
fn sends(sink: &FrameSink<String>, who: usize, mut dice: Dice) -> Vec<usize> {
    let (mut written, mut later) = (Vec::new(), Vec::new());
    for n in 0..150 {
        let line = format!("{who} {n} {}", "y".repeat(dice.of(&[1, 100, 5000])));
        if dice.below(2) == 0 {
            later.extend(sink.try_send(line).map(|receipt| (n, receipt)));
        } else if sink.send_blocking(line, SOON).is_ok() {
            written.push(n);
        }
        dice.rest();
    }
    for (n, mut receipt) in later {
        if receipt.result(SOON).expect("who sent it hears of it").is_ok() {
            written.push(n);
        }
    }
    written
}

#[test]
fn what_was_written_with_success_arrives_in_each_senders_order() {
    at_random(1, 6, |dice| {
        let (ours, theirs) = pair();
        if dice.below(2) == 0 {
            socket2::SockRef::from(&ours).set_send_buffer_size(4096).unwrap();
            socket2::SockRef::from(&theirs).set_recv_buffer_size(4096).unwrap();
        }
        let (listener, mut frames, sink) = if dice.below(2) == 0 {
            let source = ReadSource::new(ours, 1 << 20, LinesCodec::new()).unwrap();
            listen(source.polled().unwrap(), dice)
        } else {
            listen(TcpSource::from_socket(ours, 1 << 20, LinesCodec::new()).unwrap(), dice)
        };
        let (twin, slowly) = (theirs.try_clone().unwrap(), dice.below(2) == 0);
        let reader = thread::spawn(move || reads(twin, slowly));
        let (said, ends) = (dice.below(300), dice.below(2) == 0);
        let talker = thread::spawn(move || {
            for n in 0..said {
                say(&theirs, &format!("{n}\n"));
            }
            if ends {
                let _gone_already = theirs.shutdown(Shutdown::Write);
            }
            theirs
        });
        let closing = AtomicBool::new(false);
        let (report, written, taken) = thread::scope(|scope| {
            let senders: Vec<_> = (0..SENDERS)
                .map(|who| {
                    let (sink, dice) = (&sink, dice.split());
                    scope.spawn(move || sends(sink, who, dice))
                })
                .collect();
            let consumer = scope.spawn(|| {
                let mut taken = 0;
                while let Ok(frame) = frames.recv_blocking(LONG) {
                    // A close may lose what nobody took before it.
                    assert!(frame == taken.to_string() || closing.load(Ordering::SeqCst));
                    taken += 1;
                }
                (taken, frames.stats())
            });
            // What nobody has read when a socket is closed has the system reset it, and lose what was written.
            wait_for(&listener, |stats| stats.frames == said);
            thread::sleep(MS * dice.below(200) as u32); // Anywhere in it.
            closing.store(true, Ordering::SeqCst);
            let report = listener.close_blocking(SOON);
            let written: Vec<_> = senders.into_iter().map(|it| it.join().unwrap()).collect();
            (report, written, consumer.join().unwrap())
        });
        assert!(report.is_clean(), "{report}");
        drop(talker.join().unwrap());
        let heard = reader.join().unwrap();
        let mut arrived = [(); SENDERS].map(|()| Vec::new());
        for line in heard.lines() {
            let mut words = line.split(' ');
            let mut number = || words.next().unwrap().parse::<usize>().unwrap();
            let who = number();
            arrived[who].push(number());
        }
        for (written, arrived) in written.iter().zip(&arrived) {
            assert!(arrived.is_sorted_by(|a, b| a < b), "{arrived:?}");
            let lost: Vec<_> = written.iter().filter(|n| !arrived.contains(n)).collect();
            assert!(lost.is_empty(), "{lost:?}");
        }
        let (taken, stats) = taken;
        assert_eq!(report.stats.frames, taken + stats.lost.total(), "{stats:?}");
        eventually("the end", || listener.is_finished());
    });
}
