//! P7: UDP echo on loopback; a client on a thread of its own keeps a window of datagrams out.

use super::{Bench, Workload};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::contestants::servers::{Handling, Server};
use crate::contestants::udp;
use crate::harness::{Case, CaseResult, Goal, Meter, Role, Round, Versus, latency_histogram};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

pub(crate) const WORKLOAD: Workload = Workload {
    name: "P7",
    title: "UDP echo through the bridge (one datagram there and back, the client included)",
    run,
    goals,
};

const SERVE: &str = "callbridge serve";
const NATIVE: &str = "tokio UdpSocket";

fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for flavour in [Flavour::Ct, Flavour::Mt1] {
        for size in [64, 1200] {
            for window in [64, 1] {
                let name = format!("{size}B/{}/win{window}", flavour.name());
                if bench.wants(&name) {
                    let on = Loop::new(flavour);
                    results.push(bench.measure(case(&on, name, size, window)));
                }
            }
        }
    }
    results
}

fn case(on: &Loop, name: String, size: usize, window: u64) -> Case<'static> {
    let mut case = Case::new("P7", name);
    let mut add = |role, name, server: Server| {
        case.add(role, name, move |ops| {
            // All of it, or the closure would keep the address and drop the server.
            let server = &server;
            round(server.addr, size, window, ops)
        });
    };
    add(Role::Ours, "callbridge stream", udp::ours_stream(on));
    add(Role::Ours, SERVE, udp::ours_serve(on, Handling::Ready, None));
    add(Role::Ours, "callbridge serve, pipeline 1", udp::ours_serve(on, Handling::Ready, 1));
    add(Role::Peer, NATIVE, udp::tokio_socket(on, Handling::Ready));
    add(Role::Peer, "thread → tokio mpsc → task", udp::thread_tokio_mpsc(on));
    add(Role::Peer, "thread → async-channel → task", udp::thread_async_channel(on));
    add(Role::Peer, "thread → crossfire → task", udp::thread_crossfire(on));
    add(Role::Peer, "thread + spawn + oneshot", udp::thread_spawn_oneshot(on));
    add(Role::Limit, "blocking thread, no loop", udp::blocking(on, Handling::Ready));
    case
}

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    for case in ["64B/mt1/win64", "64B/mt1/win1", "1200B/mt1/win64", "1200B/mt1/win1"] {
        for ours in ["callbridge stream", SERVE] {
            let goal = |figure, at_most| Goal {
                workload: "P7",
                case,
                ours,
                figure,
                versus: Versus::Contestant(NATIVE),
                at_most,
            };
            goals.extend([goal("ns", 1.05), goal("cpu ns", 1.1)]);
        }
    }
    goals
}

pub(super) fn round(server: SocketAddr, size: usize, window: u64, ops: u64) -> Round {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback works");
    socket.connect(server).expect("loopback works");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("loopback works");
    let (mut datagram, mut echo) = (vec![0x5a; size], vec![0; 2048]);
    let (mut sent, mut back, mut lost, mut sum) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut latency = latency_histogram();

    let meter = Meter::start();
    let mut before = Instant::now();
    while back + lost < ops {
        while sent < ops && sent - back - lost < window {
            datagram[..8].copy_from_slice(&sent.to_le_bytes());
            socket.send(&datagram).expect("loopback works");
            sent += 1;
        }
        let Ok(length) = socket.recv(&mut echo) else {
            lost = sent - back;
            continue;
        };
        assert_eq!(length, size, "an echo has another size");
        sum += u64::from_le_bytes(echo[..8].try_into().expect("eight bytes"));
        back += 1;
        if window == 1 {
            let now = Instant::now();
            let _ = latency.record((now - before).as_nanos() as u64);
            before = now;
        }
    }
    let round = meter.stop(ops);
    assert!(lost > 0 || sum == ops * (ops - 1) / 2, "echoes were mixed up");
    // UDP may lose some, but a run that lost more has measured the timeout.
    assert!(lost * 100 <= ops, "{lost} of {ops} datagrams were lost");
    if window == 1 { round.with_latency(latency) } else { round }
}
