//! A process that forks: the listener's threads stay in the parent, and the child is told so.

use crate::child::in_a_child;
use crate::common::LONG;
use crate::common::fork::in_a_fork;
use crate::support::*;
use callbridge::listener::{Listener, Request};
use std::time::{Duration, Instant};

#[test]
fn a_forked_process_doesnt_wait_for_its_parents_listener() {
    in_a_child("fork::a_forked_process_doesnt_wait_for_its_parents_listener", || {
        let (source, client) = udp();
        let (listener, mut frames) = Listener::builder(source).name("parents").spawn().unwrap();
        client.send(b"x").unwrap();
        next(&mut frames);
        #[cfg(target_os = "linux")]
        until_asleep("parents");
        in_a_fork(|| {
            let began = Instant::now();
            for timeout in [Some(LONG), None] {
                let report = listener.close_blocking(timeout);
                assert_eq!(report.still_running, ["parents"], "they aren't its own");
            }
            let close = futures_executor::block_on(listener.close(LONG));
            assert!(!close.is_clean());
            assert!(began.elapsed() < LONG / 2, "it waited");
        });
        // The parent's has noticed nothing.
        client.send(b"y").unwrap();
        assert_eq!(&next(&mut frames).payload[..], b"y");
        clean(&listener);
    });
}

#[test]
fn a_new_listener_works_in_a_forked_process() {
    in_a_child("fork::a_new_listener_works_in_a_forked_process", || {
        let (source, _client) = udp();
        let (listener, _frames) = Listener::builder(source).name("before").spawn().unwrap();
        #[cfg(target_os = "linux")]
        until_asleep("before");
        in_a_fork(|| {
            let (_loop, bridge) = event_loop();
            let (server, addr) = lines(100);
            let service = Listener::builder(server)
                .serve(&bridge, |request: Request<String>| async move {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Some(request.frame)
                })
                .spawn()
                .unwrap();
            let mut client = talk(addr);
            say(client.get_ref(), "hello\n");
            assert_eq!(hear(&mut client), "hello");
            clean(&service);
        });
        clean(&listener);
    });
}
