//! What is seen of a listener from outside: the names of its threads, its counters.

use crate::common::{eventually, rounds};
use crate::support::*;
use callbridge::listener::{Listener, Request};
use std::net::Shutdown;
use std::time::Duration;

/// The system shows 15 bytes of a thread's name: those of several must differ in them.
#[cfg(target_os = "linux")]
#[test]
fn threads_are_told_apart_by_what_the_system_shows_of_their_names() {
    use std::collections::HashSet;
    let listeners: Vec<_> = (0..3).map(|_| Listener::builder(udp().0).spawn().unwrap()).collect();
    let names: HashSet<String> =
        listeners.iter().map(|(listener, _)| listener.name().to_owned()).collect();
    assert_eq!(names.len(), 3);
    for name in &names {
        let shown = &name[..name.len().min(15)];
        eventually("its thread", || threads(shown).len() == 1);
    }
    let (server, addr) = lines(100);
    let (listener, mut connections) =
        Listener::builder(server).name("a-server-with-a-long-name").spawn().unwrap();
    let clients = [connect(addr), connect(addr)];
    let held = [next(&mut connections), next(&mut connections)];
    for name in ["1-a-server-with", "2-a-server-with", "a-server-with-a"] {
        eventually("its thread", || threads(name).len() == 1);
    }
    drop((clients, held));
    clean(&listener);
}

/// The kernel's table of all sockets is read at most once a second.
#[cfg(target_os = "linux")]
#[test]
fn a_look_at_the_counters_doesnt_read_the_table_of_all_sockets_each_time() {
    const NAME: &str =
        "names_and_counters::a_look_at_the_counters_doesnt_read_the_table_of_all_sockets_each_time";
    /// How much this process has read so far, in bytes.
    fn has_read() -> u64 {
        let io = std::fs::read_to_string("/proc/self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
    }
    crate::child::in_a_child(NAME, || {
        let _many: Vec<_> =
            (0..500).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let (listener, _frames) = Listener::builder(udp().0).spawn().unwrap();
        let before = has_read();
        assert_eq!(listener.stats().source.kernel_drops, Some(0));
        let once = has_read() - before;
        assert!(once > 10_000, "the set-up: {once}");
        let before = has_read();
        for _ in 0..1000 {
            assert_eq!(listener.stats().source.kernel_drops, Some(0));
        }
        let read = has_read() - before;
        // A slow machine may take more than a second for them.
        assert!(read < 20 * once, "1000 looks read {read} bytes, the first one {once}");
        clean(&listener);
    });
}

/// A connection that breaks is counted, also where nobody sees its stream.
#[test]
fn a_served_connection_that_breaks_is_counted() {
    let (_loop, bridge) = event_loop();
    let (listener, addr) = echo(&bridge);
    let mut client = talk(addr);
    say(client.get_ref(), "hello\n");
    assert_eq!(hear(&mut client), "hello");
    socket2::SockRef::from(client.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    wait_for(&listener, |stats| stats.failed_connections == 1 && stats.open == 0);
    // One that ends well isn't.
    let mut client = talk(addr);
    say(client.get_ref(), "hello\n");
    assert_eq!(hear(&mut client), "hello");
    drop(client);
    wait_for(&listener, |stats| stats.open == 0);
    assert_eq!(clean(&listener).failed_connections, 1);
}

#[test]
fn a_connection_that_failed_is_counted_before_it_is_over() {
    let (_loop, bridge) = event_loop();
    let (server, addr) = lines(4);
    let echo = |request: Request<String>| async move { Some(request.frame) };
    let listener = Listener::builder(server).serve(&bridge, echo).spawn().unwrap();
    for n in 1..=rounds(300) as u64 {
        let client = connect(addr);
        say(&client, "too long\n");
        client.shutdown(Shutdown::Write).unwrap();
        wait_for(&listener, |stats| stats.accepted == n);
        // Nothing between the looks: it is a race.
        while listener.stats().open > 0 {}
        assert_eq!(listener.stats().failed_connections, n);
    }
    clean(&listener);
}
