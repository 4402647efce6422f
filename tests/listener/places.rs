//! Places for connections: limits, and peers that hold a place by silence.

use crate::common::{eventually, rounds};
use crate::support::*;
use callbridge::channel::RecvError;
use callbridge::listener::{Listener, Request};
#[cfg(unix)]
use std::io::{BufRead, BufReader};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::thread;

/// A connection is refused: an end or a reset, whichever the kernel makes of it.
fn is_refused(addr: SocketAddr) -> bool {
    connect(addr).read(&mut [0; 8]).unwrap_or(0) == 0
}

#[test]
fn connections_over_the_limit_are_closed_at_once_and_counted() {
    let (server, addr) = lines(100);
    let server = server.with_max_connections(2);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let first = connect(addr);
    let connection = next(&mut connections);
    let second = connect(addr);
    let _second = next(&mut connections);
    assert!(is_refused(addr));
    assert_eq!((listener.stats().refused, listener.stats().open), (1, 2));
    // There is room again as soon as one has gone, and nobody can write to it any more.
    drop(first);
    drop(connection);
    wait_for(&listener, |stats| stats.open == 1);
    let _third = connect(addr);
    drop(next(&mut connections));
    drop(second);
    assert_eq!(clean(&listener).accepted, 3);
}

#[test]
fn one_host_may_have_so_many_connections() {
    let (server, addr) = lines(100);
    let server = server.with_max_connections_per_peer(2);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let clients = [connect(addr), connect(addr)];
    let held = [next(&mut connections), next(&mut connections)];
    assert!(is_refused(addr));
    assert_eq!(listener.stats().refused, 1);
    drop((clients, held));
    wait_for(&listener, |stats| stats.open == 0);
    let _third = connect(addr);
    drop(next(&mut connections));
    clean(&listener);
}

#[test]
fn thousands_of_quick_connects_are_all_accounted_for() {
    let connects = rounds(4_000) as u64;
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..connects / 4 {
                    drop(connect(addr));
                }
            })
        })
        .collect();
    // A connection is handed over, or refused, or has gone before its turn.
    let mut taken = 0;
    while {
        let stats = listener.stats();
        taken + stats.refused + stats.accept_errors < connects
    } {
        match connections.recv_blocking(MS) {
            Ok(connection) => {
                taken += 1;
                drop(connection);
            }
            Err(error) => assert_eq!(error, RecvError::TimedOut),
        }
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    wait_for(&listener, |stats| stats.open == 0);
    // And it still works.
    let client = connect(addr);
    say(&client, "still here\n");
    assert_eq!(frame(&mut next(&mut connections)), "still here");
    assert_eq!(clean(&listener).accepted, taken + 1);
    assert!(connections.stats().balances());
}

// --- peers that hold a place by silence --------------------------------------------------------

/// Eight peers that say `word` take all places of a server that serves; then a ninth asks.
fn a_ninth_is_served_beside(word: &str, limit: impl FnOnce(Lines) -> Lines) {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(1024);
    let listener = Listener::builder(limit(server).with_max_connections(8).with_linger(MS))
        .serve(&bridge, |request: Request<String>| async move { Some(request.frame) })
        .spawn()
        .unwrap();
    let _silent: Vec<_> = (0..8)
        .map(|_| {
            let client = connect(addr);
            say(&client, word);
            client
        })
        .collect();
    wait_for(&listener, |stats| stats.accepted == 8);
    eventually("an answer for the ninth", || {
        let mut ninth = talk(addr);
        let _ = ninth.get_mut().write_all(b"hello\n");
        let mut line = [0; 6];
        ninth.read_exact(&mut line).is_ok() && &line == b"hello\n"
    });
    // One of the nine may be one that the client gave up while it was being accepted.
    assert!(clean(&listener).failed_connections >= 1);
}

#[test]
fn silent_peers_dont_lock_others_out_of_a_serving_server() {
    a_ninth_is_served_beside("", |server| server.with_idle_timeout(100 * MS));
}

#[test]
fn peers_that_never_end_their_line_dont_lock_others_out() {
    a_ninth_is_served_beside("hel", |server| server.with_frame_timeout(100 * MS));
}

/// A byte now and then doesn't help: the time is that of the frame.
#[test]
fn a_peer_that_trickles_its_line_is_put_out() {
    let (server, addr) = lines(1 << 20);
    let server = server.with_frame_timeout(100 * MS).with_linger(MS);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let mut client = connect(addr);
    let mut connection = next(&mut connections);
    let trickle = thread::spawn(move || while client.write_all(b"x").is_ok() {});
    let error = failure(&mut connection);
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    drop(connection);
    trickle.join().unwrap();
    clean(&listener);
}

#[test]
fn a_peer_that_talks_is_not_idle() {
    let (server, addr) = lines(100);
    let server = server.with_idle_timeout(400 * MS);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let client = connect(addr);
    let mut connection = next(&mut connections);
    for _ in 0..10 {
        say(&client, "ping\n");
        assert_eq!(frame(&mut connection), "ping");
        thread::sleep(50 * MS);
    }
    let error = failure(&mut connection);
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
    clean(&listener);
}

/// Time in which its request is being answered is not the peer's.
#[test]
fn a_peer_that_waits_for_its_answer_is_not_idle() {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(100);
    let listener = Listener::builder(server.with_idle_timeout(50 * MS))
        .serve(&bridge, |request: Request<String>| async move {
            tokio::time::sleep(200 * MS).await;
            Some(request.frame)
        })
        .spawn()
        .unwrap();
    let mut client = talk(addr);
    say(client.get_ref(), "patience\n");
    assert_eq!(hear(&mut client), "patience");
    clean(&listener);
}

/// Nor is the time in which it reads a long one.
#[cfg(unix)]
#[test]
fn a_peer_that_reads_its_answer_is_not_idle() {
    const SIZE: usize = 400 * 1024;
    let (_loop, bridge) = event_loop();
    let (server, path) = unix_lines("reads");
    let listener = Listener::builder(server.with_idle_timeout(LATE))
        .serve(&bridge, |request: Request<String>| async move { Some(request.frame.repeat(SIZE)) })
        .spawn()
        .unwrap();
    let mut client = UnixStream::connect(&path.0).unwrap();
    client.write_all(b"a\n").unwrap();
    // Longer than it may be silent, and then some is still to be written.
    let mut part = [0; 5 * 1024];
    for _ in 0..30 {
        client.read_exact(&mut part).unwrap();
        thread::sleep(25 * MS);
    }
    client.read_exact(&mut vec![0; SIZE + 1 - 30 * part.len()]).unwrap();
    client.write_all(b"b\n").unwrap();
    client.read_exact(&mut vec![0; SIZE + 1]).unwrap();
    clean(&listener);
}

/// It can't become whole while its server has too much to write to read on.
#[cfg(unix)]
#[test]
fn a_frame_has_its_time_while_it_is_read() {
    const SIZE: usize = 900 * 1024;
    let (_loop, bridge) = event_loop();
    let (server, path) = unix_lines("frame-time");
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = std::sync::Mutex::new(Some(released));
    let listener = Listener::builder(server.with_frame_timeout(LATE))
        .name("frame-time")
        .serve(&bridge, move |request: Request<String>| {
            let released = released.lock().unwrap().take();
            async move {
                match released {
                    Some(released) => released.await.ok().map(|()| "a".repeat(SIZE)),
                    None => Some(request.frame.len().to_string()),
                }
            }
        })
        .spawn()
        .unwrap();
    let mut client = UnixStream::connect(&path.0).unwrap();
    client.write_all(b"a\nb").unwrap();
    wait_for(&listener, |stats| stats.in_flight == 1);
    // It has seen the beginning of a frame, and waits for the rest.
    until_asleep("1-frame-time");
    release.send(()).unwrap();
    client.read_exact(&mut [0]).unwrap();
    let mut rest = client.try_clone().unwrap();
    let writer = thread::spawn(move || {
        // More than fits anywhere: it goes on as the server reads.
        rest.write_all(&[b'b'; SIZE])?;
        rest.write_all(b"\n")
    });
    // Longer than a frame may take.
    thread::sleep(LATE + LATE / 2);
    client.read_exact(&mut vec![0; SIZE]).unwrap();
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), (SIZE + 1).to_string());
    writer.join().unwrap().unwrap();
    clean(&listener);
}

/// In stream mode the program can end a connection itself.
#[test]
fn dawdlers_in_every_place_can_be_put_out_by_hand() {
    const PLACES: usize = 8;
    let (server, addr) = lines(100);
    let server = server.with_max_connections(PLACES).with_linger(MS);
    let (listener, mut connections) = Listener::builder(server).spawn().unwrap();
    let dawdlers: Vec<_> = (0..PLACES).map(|_| connect(addr)).collect();
    for (n, client) in dawdlers.iter().enumerate() {
        // Half of them say nothing, half of them half a line.
        say(client, if n % 2 == 0 { "" } else { "ha" });
    }
    let mut held: Vec<_> = dawdlers.iter().map(|_| next(&mut connections)).collect();
    for refused in 1..=3 {
        assert!(is_refused(addr));
        assert_eq!((listener.stats().refused, listener.stats().open), (refused, PLACES as u64));
    }
    held[3].handle().close();
    assert_eq!(ending(&mut held[3]), callbridge::channel::Ending::Aborted);
    wait_for(&listener, |stats| stats.open < PLACES as u64);
    let client = connect(addr);
    say(&client, "served\n");
    assert_eq!(frame(&mut next(&mut connections)), "served");
    assert_eq!(clean(&listener).refused, 3);
}

#[test]
fn peers_that_dawdle_delay_nobody_and_a_stop_ends_them() {
    let (_loop, bridge) = event_loop();
    let (listener, addr) = echo(&bridge);
    // Half a request each, and never more; some say nothing at all.
    let mut dawdlers: Vec<_> = (0..40).map(|_| connect(addr)).collect();
    dawdlers.iter_mut().skip(20).for_each(|client| client.write_all(b"h").unwrap());
    wait_for(&listener, |stats| stats.open == 40);
    let mut client = talk(addr);
    for n in 0..100 {
        say(client.get_ref(), &format!("{n}\n"));
        dawdlers[20 + n % 20].write_all(b"i").unwrap();
        assert_eq!(hear(&mut client), n.to_string());
    }
    clean(&listener);
    for mut client in dawdlers {
        assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
    }
}

/// A policy of the channel of connections costs connections, not the places of those that are gone.
#[test]
fn a_flood_of_frames_costs_no_other_connection_its_end() {
    use callbridge::Overflow;
    for policy in [Overflow::DropNewest, Overflow::DropOldest, Overflow::Latest, Overflow::Fail] {
        let (server, addr) = lines(1024);
        let server = server.with_max_connections(2).with_connection_capacity(1);
        let (listener, mut connections) =
            Listener::builder(server).capacity(1).overflow(policy).spawn().unwrap();
        let quiet = connect(addr);
        let mut quiet_one = next(&mut connections);
        let flooding = connect(addr);
        let flooded = next(&mut connections);
        say(&flooding, &"more\n".repeat(50));
        drop(quiet);
        assert_eq!(ending(&mut quiet_one), callbridge::channel::Ending::Finished, "{policy:?}");
        drop(quiet_one);
        wait_for(&listener, |stats| stats.open == 1);
        let third = connect(addr);
        say(&third, "in\n");
        assert_eq!(frame(&mut next(&mut connections)), "in", "{policy:?}");
        drop((flooding, flooded));
        clean(&listener);
    }
}

/// A connection that a policy drops unseen is closed, and its place is free.
#[test]
fn a_connection_that_nobody_was_handed_is_closed() {
    let (server, addr) = lines(100);
    let (listener, mut connections) = Listener::builder(server.with_linger(MS))
        .capacity(1)
        .overflow(callbridge::Overflow::DropNewest)
        .spawn()
        .unwrap();
    let clients = [connect(addr), connect(addr), connect(addr)];
    let [first, second, third] = clients;
    assert!(read_all(second).is_empty() && read_all(third).is_empty());
    wait_for(&listener, |stats| stats.open == 1);
    say(&first, "here\n");
    assert_eq!(frame(&mut next(&mut connections)), "here");
    assert!(connections.stats().balances());
    clean(&listener);
}

/// The system asks a silent TCP peer whether it is still there.
#[cfg(target_os = "linux")]
#[test]
fn connections_are_kept_alive_as_set() {
    // The kind of timer that the server's end of a connection has: 02 is keep-alive's.
    let timer = |addr: SocketAddr, client: SocketAddr| {
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let row = table.lines().find(|row| {
            let mut columns = row.split_whitespace().skip(1);
            let mut ends_in =
                |port: u16| columns.next().is_some_and(|at| at.ends_with(&format!(":{port:04X}")));
            ends_in(addr.port()) && ends_in(client.port())
        });
        row.and_then(|row| row.split_whitespace().nth(5)).unwrap()[..2].to_owned()
    };
    let from_default: fn(Lines) -> Lines = |server| server;
    let off: fn(Lines) -> Lines = |server| server.with_keepalive(None);
    for (set, expected) in [(from_default, "02"), (off, "00")] {
        let (server, addr) = lines(100);
        let (listener, mut connections) = Listener::builder(set(server)).spawn().unwrap();
        let client = connect(addr);
        let _connection = next(&mut connections);
        assert_eq!(timer(addr, client.local_addr().unwrap()), expected);
        clean(&listener);
    }
}
