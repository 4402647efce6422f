//! P13: requests answered over sockets, everything at its default settings: `serve`, a thread that receives
//! and polls the handler by `Handle::block_on`, tokio's own sockets, and no loop at all.

use super::{Bench, p07_udp, p08_tcp};
use crate::contestants::event_loop::{Flavour, Loop};
use crate::contestants::servers::{Handling, Server};
use crate::contestants::{tcp, udp};
use crate::harness::{Case, CaseResult, Goal, Role, Round, Versus};
use std::net::SocketAddr;
use std::time::Duration;

const SERVE: &str = "callbridge serve";
const SERVE_PLAIN: &str = "callbridge serve, codec by hand";
const STREAM: &str = "callbridge stream";
const BY_HAND: &str = "thread + Handle::block_on";
const BY_HAND_CODEC: &str = "thread + Handle::block_on, tokio-util codec";
const NATIVE_UDP: &str = "tokio UdpSocket";
const NATIVE_TCP: &str = "tokio Framed, forward";
const BLOCKING: &str = "blocking thread, no loop";

/// How long a handler waits that isn't ready.
const SLEEP: Duration = Duration::from_millis(1);
const DATAGRAM: usize = 64;
/// The handler, and how many requests are out.
const KINDS: [(&str, Handling, u64); 3] = [
    ("64 out", Handling::Ready, 64),
    ("1 out", Handling::Ready, 1),
    ("64 out, 1 ms each", Handling::Sleep(SLEEP), 64),
];

/// Makes a case of a protocol.
type Make = fn(&Loop, String, Handling, u64) -> Case<'static>;

pub(super) fn run(bench: &Bench<'_>) -> Vec<CaseResult> {
    let mut results = Vec::new();
    for flavour in [Flavour::Ct, Flavour::Mt1] {
        for (kind, handling, window) in KINDS {
            for (protocol, make) in [("UDP", datagrams as Make), ("TCP", frames)] {
                let name = format!("{protocol}, {kind}/{}", flavour.name());
                if bench.wants(&name) {
                    let on = Loop::new(flavour);
                    results.push(bench.measure(make(&on, name, handling, window)));
                }
            }
        }
    }
    results
}

fn datagrams(on: &Loop, name: String, handling: Handling, window: u64) -> Case<'static> {
    let servers = [
        (Role::Ours, SERVE, udp::ours_serve(on, handling, None)),
        (Role::Peer, BY_HAND, udp::thread_block_on(on, handling)),
        (Role::Peer, NATIVE_UDP, udp::tokio_socket(on, handling)),
        (Role::Limit, BLOCKING, udp::blocking(on, handling)),
    ];
    case(name, servers, move |server, ops| p07_udp::round(server, DATAGRAM, window, ops))
}

fn frames(on: &Loop, name: String, handling: Handling, window: u64) -> Case<'static> {
    let servers = [
        (Role::Ours, SERVE, tcp::ours_serve(on, handling, None)),
        (Role::Ours, SERVE_PLAIN, tcp::ours_serve_plain(on, handling)),
        (Role::Ours, STREAM, tcp::ours_stream(on, handling)),
        (Role::Peer, BY_HAND, tcp::thread_block_on(on, handling)),
        (Role::Peer, BY_HAND_CODEC, tcp::thread_block_on_codec(on, handling)),
        (Role::Peer, NATIVE_TCP, tcp::framed_forward(on, handling)),
        (Role::Limit, BLOCKING, tcp::blocking(on, handling)),
    ];
    case(name, servers, move |server, ops| p08_tcp::round(server, window, ops))
}

fn case<const N: usize>(
    name: String,
    servers: [(Role, &'static str, Server); N],
    round: impl Fn(SocketAddr, u64) -> Round + Copy + 'static,
) -> Case<'static> {
    let mut case = Case::new("P13", name);
    for (role, name, server) in servers {
        case.add(role, name, move |ops| {
            // All of it, or the closure would keep the address and drop the server.
            let server = &server;
            round(server.addr, ops)
        });
    }
    case
}

pub(super) fn goals() -> Vec<Goal> {
    let goal = |case, ours, figure, versus, at_most| Goal {
        workload: "P13",
        case,
        ours,
        figure,
        versus: Versus::Contestant(versus),
        at_most,
    };
    let mut goals = Vec::new();
    for case in
        ["UDP, 64 out/ct", "UDP, 64 out/mt1", "UDP, 1 out/ct", "UDP, 1 out/mt1", "TCP, 64 out/ct"]
            .into_iter()
            .chain(["TCP, 64 out/mt1", "TCP, 1 out/ct", "TCP, 1 out/mt1"])
    {
        goals.push(goal(case, SERVE, "ns", BY_HAND, 1.0));
        goals.push(goal(case, SERVE, "cpu ns", BY_HAND, 1.0));
    }
    // Like with like: the framing isn't the adapter's.
    for case in ["TCP, 64 out/ct", "TCP, 64 out/mt1", "TCP, 1 out/ct", "TCP, 1 out/mt1"] {
        goals.push(goal(case, SERVE_PLAIN, "ns", BY_HAND, 1.0));
        goals.push(goal(case, SERVE, "ns", BY_HAND_CODEC, 1.0));
    }
    for case in ["UDP, 64 out, 1 ms each/ct", "UDP, 64 out, 1 ms each/mt1"] {
        goals.push(goal(case, SERVE, "ns", NATIVE_UDP, 1.1));
    }
    for case in ["TCP, 64 out, 1 ms each/ct", "TCP, 64 out, 1 ms each/mt1"] {
        goals.push(goal(case, SERVE, "ns", NATIVE_TCP, 1.1));
    }
    goals
}
